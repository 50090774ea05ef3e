"""What the README shows is what happens: its examples run as they stand, and print what stands below them."""

from __future__ import annotations

import contextlib
import io
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from test_cli import lstm_model

import onnx_lrp
from onnx_lrp import cli

PAGE = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")
ROUNDING = 2e-3  # of numbers that are shown in three or four digits
NOTHING = 1e-4  # a residual of one machine is not another's


def blocks() -> list[tuple[str, str]]:
    """(language, text) of every fenced block, in order."""
    return BLOCK.findall(PAGE.read_text(encoding="utf-8"))


def differences(shown: str, got: str) -> list[str]:
    """Lines of the page that are not what was printed; numbers may differ by rounding, "…" stands for any lines."""
    wrong, printed, skips = [], iter(got.rstrip().splitlines()), False
    for line in shown.rstrip().splitlines():
        if line.strip() == "…":
            skips = True
            continue
        found = [next(printed, "")]
        while skips and not same(line, found[-1]):
            if (more := next(printed, None)) is None:
                break
            found.append(more)
        if not same(line, found[-1]):
            wrong.append(f"{line!r} is shown, {found[-1]!r} is printed")
        skips = False
    rest = [] if skips else [line for line in printed if line.strip()]
    return [*wrong, *(f"{line!r} is printed and not shown" for line in rest)]


def same(line: str, other: str) -> bool:
    words = [NUMBER.sub("#", " ".join(text.split())) for text in (line, other)]
    pairs = zip(NUMBER.findall(line), NUMBER.findall(other), strict=False)
    return words[0] == words[1] and all(_close(float(a), float(b)) for a, b in pairs)


def _close(a: float, b: float) -> bool:
    return max(abs(a), abs(b)) < NOTHING or math.isclose(a, b, rel_tol=ROUNDING, abs_tol=ROUNDING)


def example() -> tuple[str, str]:
    """The first example in Python, and the block below it."""
    all_blocks = blocks()
    first = next(k for k, (language, _) in enumerate(all_blocks) if language == "python")
    return all_blocks[first][1], all_blocks[first + 1][1]


def printed(code: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, str(PAGE), "exec"), {"__name__": "__main__"})
    return out.getvalue()


def test_the_example_prints_what_stands_below_it():
    code, shown = example()
    assert len(code.splitlines()) == 8
    assert differences(shown, printed(code)) == []


@pytest.mark.parametrize(
    ("shown", "wrong"),
    [
        ("a +0.25\nseed +1.348\n", []),
        ("a +0.25\nseed +1.349\n", []),
        ("a +0.25\nseed +1.448\n", ["'seed +1.448' is shown"]),
        ("b +0.25\nseed +1.348\n", ["'b +0.25' is shown"]),
        ("a -0.25\nseed +1.348\n", ["'a -0.25' is shown"]),
        ("a +0.25\n", ["'seed +1.348' is printed and not shown"]),
        ("…\nseed +1.348\n", []),
        ("a +0.25\n…\n", []),
        ("a +0.25\nseed +1.348\nmore\n", ["'more' is shown"]),
    ],
)
def test_a_difference_is_noticed(shown, wrong):
    found = differences(shown, "a +0.25\nseed +1.348\n")
    assert len(found) == len(wrong)
    assert all(f.startswith(w) for f, w in zip(found, wrong, strict=True))


def engines(path: Path) -> None:
    """Two engines of different lengths, as the page's example has them."""
    rows = ["engine,time,pressure [bar],temperature [°C]"]
    for name, count in (("E1", 8), ("E2", 5)):
        rows += [f"{name},12:{t:02d},{np.sin(t):.3f},{0.5 + (t == 4) * 2:.3f}" for t in range(count)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.mark.parametrize("text", [text for _, text in blocks() if text.startswith("$ ")], ids=lambda text: text.split()[2])
def test_commands_print_what_stands_below_them(text, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    lstm_model(tmp_path / "lstm.onnx")
    engines(tmp_path / "engines.csv")
    command, _, shown = text.removeprefix("$ ").partition("\n")
    program, *arguments = shlex.split(command)
    assert program == "onnx-lrp"
    assert cli.run(arguments) == 0
    assert differences(shown, capsys.readouterr().out) == []


@pytest.mark.filterwarnings("ignore")  # pandas' and matplotlib's own
def test_the_other_examples_run(tmp_path, monkeypatch):
    """In a folder that has what they name: a model, a tokenizer's vocabulary, a table."""
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib").use("agg")
    monkeypatch.chdir(tmp_path)
    usage, names = [text for language, text in blocks() if language == "python"][1:]
    lstm_model(tmp_path / "model.onnx")
    usage, count = re.subn(r"^onnx_lrp\.evaluate\(.*\n", "", usage, flags=re.MULTILINE)  # of texts: tests/test_evaluation_run.py
    assert count == 1
    a, b, c = (np.ones((n, 2), np.float32) for n in (4, 3, 1))
    known = {"x": np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32), "a": a, "b": b, "c": c}
    known["words"] = [list("abcd")] * 3
    exec(compile(usage, "README.md", "exec"), known)
    assert {p.name for p in tmp_path.iterdir()} >= {"explanation.npz", "explanation.html", "compared.html"}
    assert (tmp_path / "explainer").is_dir()
    engines(tmp_path / "engines.csv")
    tokens, series = names.split("explainer.explain(read_series", 1)
    from onnx_lrp import demo

    (tmp_path / "vocabulary.txt").write_text("\n".join(demo.vocabulary()), encoding="utf-8")
    tokens = tokens.replace('"tokenizer.json"', '"vocabulary.txt"').replace('["a fine film"]', '["good film"]')  # no extra needed
    exec(compile(tokens, "README.md", "exec"), {"explainer": onnx_lrp.load(demo.model())})
    series = f"from onnx_lrp.series import read_series\nexplainer.explain(read_series{series}".replace("speed", "temperature")
    exec(compile(series, "README.md", "exec"), {"explainer": onnx_lrp.load("model.onnx")})
