"""What the documentation shows runs: every Python and console block, page by page, with the output that is shown."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, settings
from onnx import TensorProto, helper, numpy_helper
from pages import PYTHON, ROOT, Block, blocks, check_command, commands, namespace, run_command, run_python, same

import onnx_lrp
from onnx_lrp import demo

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/*.md")),
]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
BLOCKS = [block for page, text in TEXTS.items() for block in blocks(page, text)]


def model(path: Path, features: int = 4, classes: int = 3, units: int = 5) -> None:
    """x (batch, time, features) → LSTM called lstm → linear layer called head → scores (batch, classes)."""
    rng = np.random.default_rng(0)
    weights = {
        "W": rng.normal(size=(1, 4 * units, features)),
        "R": rng.normal(size=(1, 4 * units, units)),
        "B": rng.normal(size=(1, 8 * units)) * 0.1,
        "V": rng.normal(size=(units, classes)),
        "b": rng.normal(size=classes) * 0.1,
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "W", "R", "B"], ["", "last"], name="lstm", hidden_size=units),
        helper.make_node("Squeeze", ["last", "direction"], ["h"]),
        helper.make_node("Gemm", ["h", "V", "b"], ["scores"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "page",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time", features])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()]
        + [numpy_helper.from_array(np.array([0]), "direction")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def sensors(folder: Path, features: int = 4) -> dict[str, Any]:
    """A model, a labelled table, and a batch of six."""
    model(folder / "model.onnx", features)
    x = np.random.default_rng(1).normal(size=(6, 7, features)).astype(np.float32)
    classes = [0, 1, 2, 0, 1, 2]
    rows = [f'"{json.dumps(np.round(one, 3).tolist())}",{label}' for one, label in zip(x, classes, strict=True)]
    (folder / "test.csv").write_text("x,class\n" + "\n".join(rows) + "\n")
    return {"onnx_lrp": onnx_lrp, "np": np, "inputs": x, "x": x, "classes": classes}


def readme(folder: Path) -> dict[str, Any]:
    """A model and its data, a text model with its vocabulary, a table of series, a model of two sensors."""
    given = sensors(folder)
    a, b, c = (given["x"][0, :k] for k in (2, 3, 5))
    (folder / "sentiment.onnx").write_bytes(demo.model())
    shutil.copy(Path(demo.__file__).with_name("vocabulary.txt"), folder)
    model(folder / "lstm.onnx", features=2)
    lines = ["engine,time,pressure [bar],temperature [°C]", "E1,08:00,1.0,0.2", "E1,08:10,1.2,1.9", "E1,08:20,0.9,0.4"]
    (folder / "engines.csv").write_text("\n".join([*lines, "E2,08:00,0.7,0.3", "E2,08:10,0.8,0.1"]) + "\n", encoding="utf-8")
    return given | {"a": a, "b": b, "c": c, "words": [[f"t{k}" for k in range(7)]] * 6}


def exported(folder: Path) -> dict[str, Any]:
    import tensorflow as tf

    given = sensors(folder, features=128)
    return given | {"tf": tf, "json": json, "given": {"x": np.zeros((64, 100, 128), np.float32)}}


# what a page takes for granted: files in its folder, names in its Python
GIVEN: dict[str, Callable[[Path], dict[str, Any]]] = {
    "README.md": readme,
    "docs/choosing.md": sensors,
    "docs/evaluation.md": sensors,
    "docs/export.md": exported,
    "docs/extending.md": sensors,
    "docs/gpu.md": sensors,
    "docs/ledger.md": sensors,
    "docs/testing.md": sensors,
}


class Page:
    """A page that is run block by block, in order, in a folder and a namespace of its own."""

    def __init__(self, page: str, folder: Path) -> None:
        self.blocks = [block for block in BLOCKS if block.page == page]
        self.folder = folder
        self.module = namespace(page, GIVEN.get(page, lambda folder: {})(folder))
        self.done = 0

    def reach(self, block: Block) -> None:
        """Run what comes before the block and was not run, then it."""
        with contextlib.chdir(self.folder):
            while self.done <= self.blocks.index(block):
                current, self.done = self.blocks[self.done], self.done + 1
                if current.excuse is None:
                    self.run(current)

    def run(self, block: Block) -> None:
        if block.lang in PYTHON:
            return run_python(block, self.module)
        for command, expected in commands(block.code):
            run_command(command, expected)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    made: dict[str, Page] = {}

    def of(page: str) -> Page:
        return made.get(page) or made.setdefault(page, Page(page, tmp_path_factory.mktemp("page")))

    few = settings(max_examples=3, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    settings.register_profile("pages", few)
    usual = settings.get_current_profile_name()
    settings.load_profile("pages")
    yield of
    settings.load_profile(usual)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.id)
def test_blocks_do_what_they_show(block, pages, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    if block.excuse is not None:
        for command, _ in commands(block.code) if block.lang == "console" else ():
            check_command(command)
        pytest.skip(block.excuse)
    pages(block.page).reach(block)


# links between pages, as they are read on the web and in a checkout


def anchors(text: str) -> set[str]:
    """The anchors that headings make."""
    found = re.findall(r"^#+ +(.+?)\s*$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", h)).strip().lower().replace(" ", "-") for h in found}


def broken(page: Path, text: str) -> list[str]:
    """Links to files or headings that are not there."""
    wrong = []
    for link in re.findall(r"(?<!`)\[[^\]\n]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8"))):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_have_an_end(page):
    assert not broken(page, page.read_text(encoding="utf-8"))


def test_dead_links_are_noticed():
    page = ROOT / "docs" / "semantics.md"
    text = "[a](reliability.md#limits) [b](nowhere.md) [c](reliability.md#no-such) [d](https://a.b) [e](#precision)"
    assert broken(page, text) == ["nowhere.md", "reliability.md#no-such"]


# what would let the blocks pass for nothing


def test_blocks_are_found():
    text = (
        "a\n```python\nx = 1\n```\n\n```text\n1\n```\n\n- b\n\n  ```console\n  $ onnx-lrp demo\n  shown\n  ```\n\n```yaml\nz\n```\n"
    )
    first, second = blocks("p.md", text)
    assert (first.line, first.code, first.expected) == (2, "x = 1\n", "1\n")
    assert list(commands(second.code)) == [("onnx-lrp demo", "shown")]
    assert len({block.page for block in BLOCKS if block.lang == "python"}) >= 8
    assert all(
        block.page in GIVEN or block.page in ("docs/start.md", "CONTRIBUTING.md") for block in BLOCKS if block.lang == "python"
    )


@pytest.mark.parametrize("code", ["assert 1 == 2", "print(2)", "import no_such_module", "def test_x():\n    assert False"])
def test_a_wrong_block_fails(code):
    block = Block("p.md", 1, "python", code, "1\n" if code.startswith("print") else None)
    with pytest.raises((AssertionError, ImportError)):
        run_python(block, namespace("p.md", {}))


@pytest.mark.parametrize(
    "command",
    [
        "onnx-lrp explain MODEL --no-such",
        "onnx-lrp explai MODEL",
        "onnx-lrp inspect missing.onnx",
        "python converters/none.py",
        'pip install ".[none]"',
    ],
)
def test_a_wrong_command_fails(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError):
        run_command(command, None)


def test_output_is_compared():
    assert same("a +1.348\n…\nz", "a  +1.3479\nb\nc\nz\n") is None
    assert same("seed …", "seed +1.3") is None
    assert same("a 1.34", "a 1.35") is not None
    assert same("a\nb", "a") is not None
    assert same("a", "a\nb") is not None
    assert same("a\n…\nz", "a\nb") is not None
    assert same("funny", "smart") is not None


def test_a_marker_is_a_reason():
    assert Block("p", 1, "python", "# needs no_such_package_here\n").excuse == "needs no_such_package_here"
    assert Block("p", 1, "python", "# needs numpy\n").excuse is None
    assert Block("p", 1, "console", "# not run: takes an hour\n").excuse == "takes an hour"
    assert Block("p", 1, "python", "x = 1\n").excuse is None


def test_the_first_example_of_the_readme_has_eight_lines():
    first = next(block for block in BLOCKS if block.page == "README.md" and block.lang == "python")
    assert len(first.code.splitlines()) == 8
    assert first.expected is not None
