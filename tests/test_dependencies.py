"""What the package depends on: ranges that are reasoned and kept, and a core that works where nothing optional is installed."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_lrp.testing.build import Builder

ROOT = Path(__file__).resolve().parents[1]
requirements = pytest.importorskip("packaging.requirements")
utils = pytest.importorskip("packaging.utils")


def declared():
    """{package: its requirement}, of the core, of every extra and of the build; ranges of one package agree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    lines += [line for extra in project["project"]["optional-dependencies"].values() for line in extra]
    found = {}
    for line in lines:
        one = requirements.Requirement(line)
        if one.name != "onnx-lrp":
            assert found.setdefault(utils.canonicalize_name(one.name), one).specifier == one.specifier, line
    return found


def reasoned():
    """{package: (range, why)} of the table of SECURITY.md."""
    text = (ROOT / "SECURITY.md").read_text()
    rows = re.findall(r"^\| ([a-z].*?) \| (.*?) \| (.*?) \|$", text.split("## Dependencies")[1], re.M)
    return {utils.canonicalize_name(name): (bounds, why) for name, bounds, why in rows if name != "package"}


def test_every_range_has_its_reason():
    ranges, reasons = declared(), reasoned()
    assert ranges.keys() == reasons.keys()
    for name, one in ranges.items():
        bounds, why = reasons[name]
        stated = requirements.SpecifierSet(bounds.replace("≥", ">=").replace(" ", ""))
        assert stated == one.specifier, f"{name}: pyproject.toml has {one.specifier}, SECURITY.md {bounds}"
        assert len(why) > 10, name


def test_what_is_installed_is_in_range():
    for name, one in declared().items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        assert one.specifier.contains(version, prereleases=True), f"{name} {version} is outside {one.specifier}"


OPTIONAL = (
    *("onnxruntime", "onnxruntime_extensions", "pyarrow", "pandas", "fsspec", "matplotlib", "tokenizers", "ray"),
    *("starlette", "uvicorn", "hypothesis", "pytest", "playwright"),
)
ALONE = f"""
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name.split(".")[0])
sys.meta_path.insert(0, Refuse())
"""


def alone(script, folder):
    """A Python in which nothing optional can be imported."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "COLUMNS": "80"}
    return subprocess.run([sys.executable, "-c", ALONE + script], cwd=folder, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    b = Builder(np.random.default_rng(0), 17)
    onnx.save(b.case(b.gemm(b.op("Tanh", b.gemm(b.rows(2, 3), 3, 4)), 4, 2))[0], folder / "model.onnx")
    np.save(folder / "x.npy", np.ones((2, 3), np.float32))
    (folder / "x.parquet").write_bytes(b"PAR1")
    (folder / "texts.txt").write_text("a film\n")
    (folder / "t.json").write_text('{"version": "1.0", "model": {}}')
    return folder


def test_the_core_alone_reads_inspects_and_explains(folder):
    done = alone(
        "import numpy as np, onnx_lrp\n"
        "e = onnx_lrp.load('model.onnx', jit='eager', verify='never')\n"
        "assert 'it is not installed' in str(e.summary())\n"
        "assert len(e.weights()) == 2\n"
        "r = e.explain(np.load('x.npy'))\n"
        "assert abs(r.residual).max() < 1e-5\n"
        "r.save('out.npz'); r.save('out.json'); r.to_html('out.html')\n"
        "from onnx_lrp import cli\n"
        "print(cli.run(['inspect', 'model.onnx']), cli.run(['weights', 'model.onnx', 'w.npz']))\n",
        folder,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "0 0"


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("explain model.onnx x.npy", "cpu"),
        ("explain model.onnx x.parquet --verify never", "data"),
        ("explain model.onnx x.npy --verify never --save out.parquet", "data"),
        ("batch model.onnx x.npy --out out", "data"),
        ("explain model.onnx --text-file texts.txt --tokenizer t.json", "text"),
        ("view model.onnx", "view"),
        ("check model.onnx", "test"),
    ],
)
def test_what_is_missing_is_named_with_the_line_that_brings_it(command, extra, folder):
    done = alone(f"from onnx_lrp import cli\nsys.exit(cli.run({command.split()!r}))", folder)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("onnx-lrp: ")
    assert done.stderr.count("\n") == 1
    assert f'pip install "onnx-lrp[{extra}]"' in done.stderr
