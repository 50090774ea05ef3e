"""What every converter shares: its check, the same lines in each; a header for uv; a command that says what it takes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

FOLDER = Path(__file__).parents[2] / "converters"
SCRIPTS = sorted(FOLDER.glob("*_to_onnx.py"))
BLOCK = re.compile(r"^# --- the check:.*?^# --- the end of the check ---$", re.MULTILINE | re.DOTALL)
HEADER = re.compile(r"^# /// script\n((?:#.*\n)+?)# ///$", re.MULTILINE)
HEAVY = {
    "torch",
    "tensorflow",
    "tf2onnx",
    "keras",
    "jax",
    "flax",
    "sklearn",
    "skl2onnx",
    "onnxruntime",
    "onnx",
    "numpy",
    "onnx_lrp",
}


def same(texts):
    blocks = {match.group() if (match := BLOCK.search(text)) else None for text in texts}
    return len(blocks) == 1 and None not in blocks


def test_the_check_is_the_same_everywhere():
    texts = [path.read_text(encoding="utf-8") for path in SCRIPTS]
    assert len(texts) >= 5
    assert same(texts)
    assert not same([*texts, texts[0].replace("tolerance=1e-4", "tolerance=1e-3")])
    assert not same([*texts, "nothing"])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path):
    text = path.read_text(encoding="utf-8")
    header = tomllib.loads(re.sub(r"^# ?", "", HEADER.search(text).group(1), flags=re.MULTILINE))
    assert header["requires-python"] == ">=3.11"
    assert any(d.startswith("onnx-lrp") for d in header["dependencies"])
    assert (path.parent / header["tool"]["uv"]["sources"]["onnx-lrp"]["path"] / "pyproject.toml").exists()
    top = [n for n in ast.parse(text).body if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {a.name.split(".")[0] for n in top if isinstance(n, ast.Import) for a in n.names}
    assert not (names | {(n.module or "").split(".")[0] for n in top if isinstance(n, ast.ImportFrom)}) & HEAVY
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"uv run converters/{path.name}" in done.stdout


def test_the_package_knows_nothing_of_them():
    package = FOLDER.parent / "onnx_lrp"
    assert not [p for p in package.rglob("*.py") if re.search(r"^\s*(from|import) converters", p.read_text(), re.MULTILINE)]
    assert tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"] == {
        "packages": ["onnx_lrp"]
    }


def dense(shape=("B", "T", 2), *, reshape=None):
    """x · 2, by way of a Reshape to fixed sizes."""
    nodes = [helper.make_node("Add", ["x", "x"], ["doubled"])]
    constants = []
    if reshape:
        constants = [helper.make_tensor("sizes", TensorProto.INT64, [len(reshape)], reshape)]
        nodes.append(helper.make_node("Reshape", ["doubled", "sizes"], ["y"]))
    nodes.append(helper.make_node("Identity", ["y" if reshape else "doubled"], ["out"]))
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "out")]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


SPECS = {"x": ("float32", ("B", "T", 2), (0, 9))}


@pytest.fixture(scope="module")
def shared(converter):
    return converter("weights")


def test_equal_models_pass(shared):
    lines = shared.check(dense(), lambda given: [2 * given["x"]], SPECS)
    assert len(lines) == 2
    assert all("onnx-lrp" in line for line in lines)


@pytest.mark.parametrize(
    ("model", "run", "said"),
    [
        (dense((3, "T", 2)), lambda g: [2 * g["x"]], r"the batch \(B=3\) is baked"),
        (dense(("B", 7, 2)), lambda g: [2 * g["x"]], r"the length \(T=7\) is baked"),
        (dense((3, 7, 2)), lambda g: [2 * g["x"]], r"the batch \(B=3\), the length \(T=7\) is baked"),
        (dense(reshape=(-1, 7, 2)), lambda g: [2 * g["x"]], r"the length \(T=7\) is baked"),
        (dense(), lambda g: [2.001 * g["x"]], "differs from the framework by"),
        (dense(), lambda g: [2 * g["x"], g["x"]], "the framework has 2 outputs, the file 1"),
        (dense(), lambda g: [np.full_like(g["x"], np.nan)], "differs from the framework by nan"),
        (dense(), lambda g: [2 * g["x"][0]], r"the framework's \(7, 2\)"),
        (dense(), lambda g: 1 / 0, "the framework itself fails"),
    ],
)
def test_another_model_is_refused(shared, model, run, said):
    with pytest.raises(shared.Refused, match=said):
        shared.check(model, run, SPECS, helps="another exporter")


def test_what_helps_is_named(shared):
    with pytest.raises(shared.Refused, match="what helps: another exporter"):
        shared.check(dense((3, "T", 2)), lambda g: [2 * g["x"]], SPECS, helps="another exporter")


def test_specs(shared):
    assert shared.parse_spec("x:float32:B,T,4") == ("x", ("float32", ("B", "T", 4), (0, 9)))
    name, spec = shared.parse_spec("ids:int64:B,T:5-7")
    made = shared.feed({name: spec}, ("T",), shared.parse_sizes(["T=20,300"]))["ids"]
    assert made.shape == (3, 300)
    assert made.dtype == np.int64
    assert set(made.ravel()) == {5, 6, 7}


def test_what_a_factory_may_do_wrong(shared, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "a_factory.py").write_text(
        "class Net:\n    def __init__(self, size):\n        pass\n\n\ndef make():\n    return 7\n"
    )
    assert shared.made("a_factory:make", "nothing else") == 7
    for text, said in {
        "a_factory": "expected package.module:factory, or nothing else",
        "no_factory:make": "No module named 'no_factory'; modules are looked for in this folder",
        "a_factory:Make": "has no attribute 'Make'",
        "a_factory:Net": r"TypeError: (.|\n)*what helps: a function without arguments",
    }.items():
        with pytest.raises(shared.Refused, match=said):
            shared.made(text, "nothing else")


def test_a_missing_file_is_named(shared, tmp_path, capsys):
    shared.there(str(tmp_path), None)
    with pytest.raises(shared.Refused, match=r"weights\.npz: no such file"):
        shared.there(None, str(tmp_path / "weights.npz"))
    assert shared.main([str(tmp_path / "weights.npz")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_package_is_named(shared):
    assert "uv run installs" in shared.told(ImportError("No module named 'torch'"))
    assert str(shared.told(ValueError("another"))) == "another"
