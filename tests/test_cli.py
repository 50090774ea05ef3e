"""The command line: exit codes, one-line errors, JSON purity, input formats, nothing half-written."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import apart
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_lrp
from onnx_lrp import Explanation, ParityError, cli, demo
from onnx_lrp.cli.parsing import target
from onnx_lrp.cli.printing import print_json

MODEL = str(Path(demo.__file__).with_name("sentiment.onnx"))
IDS = [[4, 5, 6, 7], [8, 9, 10, 11]]
SIZE = 3


def lstm_model(path: Path, *, op: str = "LSTM") -> str:
    """x (T, B, 2) → LSTM of 3 units → last state → y (B, 2)."""
    rng = np.random.default_rng(0)
    constants = {
        "W": rng.normal(size=(1, 4 * SIZE, 2)),
        "R": rng.normal(size=(1, 4 * SIZE, SIZE)),
        "V": rng.normal(size=(SIZE, 2)),
    }
    nodes = [
        helper.make_node(op, ["x", "W", "R"], ["", "h"], name="lstm", hidden_size=SIZE, domain="" if op == "LSTM" else "odd"),
        helper.make_node("Squeeze", ["h", "axes"], ["s"]),
        helper.make_node("MatMul", ["s", "V"], ["y"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 2])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()]
        + [numpy_helper.from_array(np.array([0]), "axes")],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("odd", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    return str(path)


@pytest.fixture
def lstm(tmp_path: Path) -> str:
    return lstm_model(tmp_path / "lstm.onnx")


@pytest.fixture
def ids(tmp_path: Path) -> str:
    file = tmp_path / "ids.npy"
    np.save(file, np.array(IDS))
    return str(file)


def fails(code: int, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run, expect the code, nothing on stdout and one line on stderr; returns that line."""
    assert cli.run([str(a) for a in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("onnx-lrp: ")
    assert err.count("\n") == 1
    return err


def passes(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = cli.run([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def launch(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "onnx_lrp", *arguments], capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


def test_help_and_version(capsys):
    assert "explain" in passes(capsys, "--help")
    assert "--bias-factor" in passes(capsys, "explain", "--help")
    assert "integrated_gradients, sensitivity," in " ".join(passes(capsys, "evaluate", "--help").split())  # no word is broken
    assert passes(capsys, "--version") == f"onnx-lrp {onnx_lrp.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("frobnicate",),
        ("explain",),
        ("explain", MODEL, "ids.npy", "--unknown"),
        ("explain", MODEL, "ids.npy", "--jit", "warp"),
        ("explain", MODEL, "ids.npy", "--target", "first"),
        ("explain", MODEL, "ids.npy", "--target", "step:"),
        ("explain", MODEL, "ids.npy", "--target", "step:1:2:3"),
        ("explain", MODEL, "ids.npy", "--target", "contrast:1"),
        ("explain", MODEL, "ids.npy", "--target", "top:0"),
        ("explain", MODEL, "ids.npy", "--target", "all:1"),
        ("explain", MODEL, "ids.npy", "--batch-axis", "x"),
        ("explain", MODEL, "ids.npy", "--save", "out.txt"),
        ("explain", MODEL, "ids.npy", "--html", "out.npz"),
        ("explain", MODEL, "ids.npy", "--compare", "occlusion"),
        ("explain", MODEL, "ids.npy", "--html", "x.html", "--compare", "lrp"),
        ("explain", MODEL, "ids.npy", "--html", "x.html", "--compare", "occlusion,occlusion"),
        ("explain", MODEL, "ids.npy", "--html", "x.html", "--compare", "magic"),
        ("explain", MODEL, "ids.npy", "--html", "x.html", "--colors", "rainbow"),
        ("explain", MODEL, "out.json", "--save", "out.json"),
        ("explain", MODEL, "ids.npy", "--rule", "gama"),
        ("explain", MODEL, "ids.npy", "--epsilon", "-1"),
        ("explain", MODEL, "ids.npy", "--method", "occlusion", "--baseline", "nan"),
        ("weights", MODEL, "out.txt"),
        ("weights", MODEL, "out.npz", "--order", "xyz"),
    ],
)
def test_usage_is_2(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails(2, capsys, *arguments)


def test_missing_extra_is_2(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    assert 'pip install "onnx-lrp[data]"' in fails(2, capsys, "explain", MODEL, tmp_path / "x.parquet")


def test_bad_model_is_3(capsys, tmp_path, ids):
    (tmp_path / "text.onnx").write_text("no model")
    for command in (("inspect",), ("explain", ids)):
        fails(3, capsys, command[0], tmp_path / "nowhere.onnx", *command[1:])
        fails(3, capsys, command[0], tmp_path / "text.onnx", *command[1:])
    odd = lstm_model(tmp_path / "odd.onnx", op="Odd")
    assert "lstm" in fails(3, capsys, "explain", odd, ids)
    assert cli.run(["inspect", str(odd), "--json"]) == 3  # which says where one may begin
    found = json.loads(capsys.readouterr().out)
    assert found["explainable"] is False
    assert "lstm" in found["nodes"][0]
    assert onnx_lrp.load(odd, at=found["cuts"][0])
    assert cli.run(["inspect", str(odd)]) == 3
    assert found["cuts"][0] in capsys.readouterr().out


def test_parity_error_is_3(capsys, ids, monkeypatch):
    def differs(*_: object) -> None:
        raise ParityError("differs")

    monkeypatch.setattr("onnx_lrp.verifying.Verifier.check", differs)
    fails(3, capsys, "explain", MODEL, ids)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("none.npy", None),
        ("x.txt", b"1"),
        ("x.npy", b"broken"),
        ("x.npz", b"broken"),
        ("x.json", b"{"),
        ("x.json", b'"text"'),
        ("x.json", b"[[1, 2], [[3]]]"),
        ("x.json", b"[[1.5, 2]]"),
        ("x.json", b"[[1, 999999]]"),
        ("x.json", b'{"wrong": [[1]]}'),
        ("x.csv", b""),
        ("x.csv", b"id\n1\nthree\n"),
        ("x.csv", b"1\n2,3\n"),
        ("x.csv", b"1,2\n3,4\n"),
    ],
)
def test_bad_input_is_4(name, content, capsys, tmp_path):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    save = tmp_path / "out.json"
    fails(4, capsys, "explain", MODEL, file, "--json", "--save", save)
    assert not save.exists()


def test_pickles_are_refused(capsys, tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    fails(4, capsys, "explain", MODEL, tmp_path / "x.npy")


def test_bad_target_and_tokens_are_4(capsys, tmp_path, ids):
    fails(4, capsys, "explain", MODEL, ids, "--target", "7")
    fails(4, capsys, "explain", MODEL, ids, "--target", "0,1,0")
    fails(4, capsys, "explain", MODEL, ids, "--tokens", tmp_path / "none")
    (tmp_path / "tokens.txt").write_text("one\ntwo\n")
    html = tmp_path / "out.html"
    fails(4, capsys, "explain", MODEL, ids, "--tokens", tmp_path / "tokens.txt", "--html", html)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ids.npy", "tokens.txt"]
    fails(4, capsys, "demo", "***")


def test_unwritable_output_is_5_before_anything_is_read(capsys, tmp_path):
    fails(5, capsys, "explain", "no model", "no input", "--save", tmp_path / "none" / "out.npz")
    (tmp_path / "folder.html").mkdir()
    fails(5, capsys, "explain", "no model", "no input", "--html", tmp_path / "folder.html")
    fails(5, capsys, "weights", "no model", tmp_path / "none" / "out.npz")


def test_names_that_no_file_can_have(capsys, tmp_path, ids):
    long = "x" * 300
    fails(3, capsys, "explain", f"{long}.onnx", ids)
    fails(3, capsys, "evaluate", f"{long}.onnx", ids)
    fails(2, capsys, "explain", ".", "--text", "a")  # there are no options beside it
    fails(4, capsys, "explain", MODEL, f"{long}.npy")
    fails(5, capsys, "weights", MODEL, tmp_path / f"{long}.npz")
    pytest.importorskip("pyarrow")
    fails(4, capsys, "batch", MODEL, f"{long}.npy", "--out", tmp_path / "out")
    assert "empty name" in fails(4, capsys, "batch", MODEL, "", "--out", tmp_path / "out")
    fails(5, capsys, "batch", MODEL, ids, "--out", tmp_path / long)


def test_failed_write_leaves_nothing(capsys, tmp_path, ids, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Explanation, "save", full)
    out = tmp_path / "out.npz"
    out.write_text("the old one")
    fails(5, capsys, "explain", MODEL, ids, "--save", out, "--html", tmp_path / "out.html")
    assert out.read_text() == "the old one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ids.npy", "out.npz"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_stdout_is_5():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "onnx_lrp", "inspect", MODEL], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 5
    assert done.stderr.startswith("onnx-lrp: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
@pytest.mark.parametrize("as_json", [False, True])
def test_closed_pipe_is_5(as_json):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        command = [sys.executable, "-m", "onnx_lrp", "inspect", MODEL, *(["--json"] if as_json else [])]
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == 5
        assert done.stderr.startswith("onnx-lrp: output can't be written")
        assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupt_is_5():
    waiting = subprocess.Popen(
        apart.command(apart.INTERRUPTIBLE, arguments=["explain", MODEL, "-"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(3)
    waiting.send_signal(signal.SIGINT)
    waiting.wait(timeout=30)
    out, err = waiting.communicate()
    assert (waiting.returncode, out, err) == (5, "", "onnx-lrp: interrupted\n")


def test_bug_is_70_with_versions_and_a_traceback_on_demand(capsys, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines\x1b[31m")

    monkeypatch.setattr(onnx_lrp, "load", broken)
    line = fails(70, capsys, "inspect", MODEL)
    assert "RuntimeError" in line
    assert onnx_lrp.__version__ in line
    assert "numpy" in line
    assert "\x1b" not in line
    assert cli.run(["--debug", "inspect", MODEL]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_reading_a_model_imports_no_engine(tmp_path):
    commands = [
        ["--help"],
        ["--version"],
        ["inspect", MODEL],
        ["inspect", MODEL, "--json"],
        ["weights", MODEL, str(tmp_path / "w.npz")],
    ]
    script = (
        "import json, sys; from onnx_lrp import cli\n"
        f"for command in {commands!r}: assert cli.run(command) == 0\n"
        "heavy = {'tensorflow', 'jinja2'} & set(sys.modules)\n"  # onnxruntime, 0.1 s, is asked whether it can verify anything
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_engine_starts_without_keras_and_leaves_it_usable():
    script = (
        "import sys; from onnx_lrp._lazy import start_quietly; start_quietly()\n"
        "import tensorflow as tf\n"
        "assert not {'keras', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert tf.keras.layers.Dense(2)(tf.ones((1, 3))).shape == (1, 2) and tf.optimizers.Adam and 'keras' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_json_is_all_there_is_on_stdout():
    done = launch("explain", MODEL, "-", "--json", input=json.dumps(IDS))
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout, parse_constant=pytest.fail)
    assert np.shape(document["relevance"]["embedding"]) == (2, 4, 50)
    books = np.sum(document["relevance"]["embedding"], (1, 2)) + sum(np.array(v) for v in document["absorbed"].values())
    np.testing.assert_allclose(books, document["seed"], atol=1e-5)


def test_json_of_inspect_and_demo(capsys):
    assert json.loads(passes(capsys, "inspect", MODEL, "--json"))["axes"]["class"] == 1
    first = json.loads(passes(capsys, "demo", "A funny zzyzx film.", "--json"))["sentences"][0]
    assert [t["token"] for t in first["tokens"]] == ["a", "funny", "zzyzx", "film", "."]
    assert [t["known"] for t in first["tokens"]] == [True, True, False, True, True]
    assert first["relevance"] + sum(first["absorbed"].values()) + first["residual"] == pytest.approx(first["seed"], abs=1e-6)


def test_json_has_no_nan(capsys):
    print_json({"residual": [float("nan"), 1.0], "x": (float("inf"),)})
    assert capsys.readouterr().out == '{"residual": [null, 1.0], "x": [null]}\n'


def test_every_input_format_gives_the_same(capsys, tmp_path, lstm, monkeypatch):
    series = np.array([[1.0, 2.0], [-3.0, 0.5], [0.0, 1.5]], np.float32)
    array = series[:, None]
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", x=array)
    np.savez(tmp_path / "bare.npz", array)
    (tmp_path / "x.json").write_text(json.dumps(array.tolist()))
    (tmp_path / "named.json").write_text(json.dumps({"x": array.tolist()}))
    text = "\n".join(",".join(map(str, row)) for row in series.tolist())
    (tmp_path / "x.csv").write_text(text)
    (tmp_path / "header.csv").write_text("\ufefffirst,second\r\n" + text.replace("\n", "\r\n") + "\r\n\r\n")
    names = ["x.npy", "x.npz", "bare.npz", "x.json", "named.json", "x.csv", "header.csv"]
    found = [json.loads(passes(capsys, "explain", lstm, tmp_path / n, "--jit", "eager", "--json"))["relevance"] for n in names]
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(array.tolist())))
    found.append(json.loads(passes(capsys, "explain", lstm, "-", "--jit", "eager", "--json"))["relevance"])
    assert np.shape(found[0]["x"]) == (3, 1, 2)
    assert all(f == found[0] for f in found)


def test_parquet(capsys, tmp_path, lstm):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"a": [1.0, 2.0], "b": [3.0, 4.0]}), tmp_path / "x.parquet")
    found = json.loads(passes(capsys, "explain", lstm, tmp_path / "x.parquet", "--jit", "eager", "--json"))
    assert np.ravel(found["inputs"]["x"]).tolist() == [1, 3, 2, 4]
    parquet.write_table(pyarrow.table({"a": ["text"]}), tmp_path / "text.parquet")
    fails(4, capsys, "explain", lstm, tmp_path / "text.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    fails(4, capsys, "explain", lstm, tmp_path / "broken.parquet")


def test_options_reach_the_library(capsys, lstm, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 2, 2), np.float32))
    options = "--target 0,1 --epsilon 0.01 --bias-factor 1 --precision float64 --jit eager --verify never --output y --at s --json"
    found = json.loads(passes(capsys, "explain", lstm, tmp_path / "x.npy", *options.split()))
    assert found["target"] == [0, 1]
    assert list(found["relevance"]) == ["s"]
    assert found["settings"]["epsilon"] == 0.01
    assert found["settings"]["bias_factor"] == 1
    assert found["settings"]["precision"] == "float64"


def test_targets_in_words():
    from onnx_lrp import targets

    assert target(None) is None
    assert target("1") == 1
    assert target("1,0,1") == [1, 0, 1]
    assert target("step:3") == targets.step(3)
    assert target("step:-1:2") == targets.step(-1, 2)
    assert target("step:0,-1") == targets.step([0, -1])
    assert target("contrast:0,1") == targets.contrast(0, 1)
    assert target("all") == targets.all_classes()
    assert target("top:3") == targets.top_k(3)


@pytest.mark.parametrize(("target", "words"), [("contrast:0,1", "class 0 - class 1"), ("all", "class 1"), ("top:2", "class 0")])
def test_every_target_is_shown(target, words, capsys, tmp_path, ids):
    html = tmp_path / "out.html"
    assert words in passes(capsys, "explain", MODEL, ids, "--target", target, "--html", html, "--jit", "eager")
    assert words in html.read_text()
    found = json.loads(passes(capsys, "explain", MODEL, ids, "--target", target, "--json", "--jit", "eager"))
    assert np.shape(found["seed"]) == ((2,) if "contrast" in target else (2, 2))
    assert found["settings"]["target"]
    fails(4, capsys, "explain", MODEL, ids, "--target", "step:0")


def test_save_html_and_tokens(capsys, tmp_path, ids):
    (tmp_path / "tokens.txt").write_text("a\nb\nc\nd\n\ne\nf\ng\n")
    out, html = tmp_path / "out.npz", tmp_path / "out.html"
    shown = passes(
        capsys, "explain", MODEL, ids, "--tokens", tmp_path / "tokens.txt", "--save", out, "--html", html, "--target", "1"
    )
    assert "sample 2 of 2" in shown
    assert "a " in shown
    loaded = Explanation.load(out)
    assert loaded.target.tolist() == [1, 1]
    assert "<!doctype html>" in html.read_text()
    assert {p.name for p in tmp_path.iterdir()} == {"ids.npy", "tokens.txt", "out.npz", "out.html"}


def test_methods_side_by_side(capsys, tmp_path, ids):
    out, html = tmp_path / "out.npz", tmp_path / "out.html"
    methods = "gradient_x_input,occlusion"
    arguments = ("--compare", methods, "--baseline", "0.5", "--html", html, "--save", out, "--colors", "captum", "--jit", "eager")
    shown = passes(capsys, "explain", MODEL, ids, *arguments)
    assert "occlusion" not in shown
    page = html.read_text()
    for words in (
        "<h4>lrp",
        "<h4>gradient x input",
        "<h4>occlusion",
        "baseline 0.5",
        "One scale for all 3",
        'data-scheme="captum" data',
    ):
        assert words in page
    assert "Dashed" not in page  # the flow has what it needs,
    assert Explanation.load(out).hidden == {}  # which nobody else sees


@pytest.mark.parametrize("suffix", [".npz", ".json", ".parquet"])
def test_keep(suffix, capsys, tmp_path, lstm):
    """Relevance inside: in the saved file, in --json, and as sums on the terminal."""
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(3, 2, 2)).astype(np.float32))
    options = ["--keep", "lstm:c", "--keep", "s", "--jit", "eager"]
    out = tmp_path / f"out{suffix}"
    shown = passes(capsys, "explain", lstm, tmp_path / "x.npy", *options, "--save", out)
    saved = Explanation.load(out)
    assert {n: a.shape for n, a in saved.hidden.items()} == {"lstm:c": (3, 1, 2, 3), "s": (2, 3)}
    rows = [line.split() for line in shown[shown.index("relevance inside") :].splitlines()]
    assert rows[0] == ["relevance", "inside", "shape", "sample", "1", "sample", "2"]
    assert [row[:2] for row in rows[1:]] == [["lstm:c", "3x1x2x3"], ["s", "2x3"]]
    for row, name in zip(rows[1:], saved.hidden, strict=True):
        sums = saved.hidden[name].sum(tuple(a for a in range(saved.hidden[name].ndim) if a != saved.hidden[name].ndim - 2))
        assert [float(cell) for cell in row[2:]] == pytest.approx(sums.tolist(), abs=1e-3)
    found = json.loads(passes(capsys, "explain", lstm, tmp_path / "x.npy", *options, "--json"))
    np.testing.assert_array_equal(found["hidden"]["s"], saved.hidden["s"].astype(np.float64))
    np.testing.assert_allclose(found["passed"]["s"], saved.hidden["s"].astype(np.float64).sum(1))
    every = passes(capsys, "explain", lstm, tmp_path / "x.npy", *options, "--target", "all")
    assert "lstm:c, class 1" in every
    assert "relevance inside" not in passes(capsys, "explain", lstm, tmp_path / "x.npy", "--jit", "eager")
    assert "'lstm:c'" in fails(4, capsys, "explain", lstm, tmp_path / "x.npy", "--keep", "lstm:cc")
    fails(2, capsys, "explain", lstm, tmp_path / "x.npy", "--keep", "s", "--method", "gradient")


def test_saving_a_table_without_pyarrow_is_2_before_any_work(capsys, tmp_path, lstm, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(onnx_lrp, "load", None)
    assert 'pip install "onnx-lrp[data]"' in fails(2, capsys, "explain", lstm, "x.npy", "--save", tmp_path / "out.parquet")


def test_weights_orders(capsys, tmp_path, lstm):
    found = {}
    for order in ("ifco", "ifgo", "iofc"):
        passes(capsys, "weights", lstm, tmp_path / f"{order}.npz", "--order", order)
        with np.load(tmp_path / f"{order}.npz") as archive:
            found[order] = dict(archive)
    graph = onnx.load(lstm).graph
    given = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    np.testing.assert_array_equal(found["iofc"]["lstm/W_h"], given["R"].transpose(0, 2, 1))
    np.testing.assert_array_equal(found["iofc"]["lstm/W_x"], given["W"].transpose(0, 2, 1))
    i, o, f, c = np.split(given["R"].transpose(0, 2, 1), 4, -1)
    np.testing.assert_array_equal(found["ifco"]["lstm/W_h"], np.concatenate([i, f, c, o], -1))
    assert found["ifgo"].keys() == found["ifco"].keys()
    for name, array in found["ifco"].items():
        np.testing.assert_array_equal(found["ifgo"][name], array)


def test_demo(capsys, tmp_path):
    shown = passes(capsys, "demo", "--html", tmp_path / "demo.html")
    assert "suspenseful" in shown
    assert "particularly" in shown
    assert shown.count("seed") == len(demo.SENTENCES)
    assert "onnx-lrp demo" in (tmp_path / "demo.html").read_text()
    assert "zzyzx?" in passes(capsys, "demo", "zzyzx good")


def test_tokenizer_follows_the_model_card():
    text = "It isn't well-drawn, we’ve seen Pokémon 2 ... :-)"
    assert demo.tokenize(text) == ["it", "is", "n't", "well", "drawn", ",", "we", "'ve", "seen", "pokémon", "2", "...", ":", ")"]
    assert next(p.value for p in onnx.load(MODEL).metadata_props if p.key == "tokenizer") == demo.tokenizer().options.split
    assert list(demo.vocabulary())[:2] == ["<pad>", "<unk>"]
