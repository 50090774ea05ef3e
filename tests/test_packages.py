"""What is in the wheel and in the sdist, and what must not be: the package alone in one, all that its tests need in the other."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import onnx_lrp

pytest.importorskip("hatchling")
ROOT = Path(__file__).resolve().parents[1]
NAME = f"onnx_lrp-{onnx_lrp.__version__}"
DATA = {"sentiment.onnx", "sentiment.tokens.json", "vocabulary.txt", "MODEL_CARD.md"}  # of the demo
OUTSIDE = ("tests", "converters", "docs", "examples", "benchmarks", ".ci")


def ours(folder):
    """Files below a folder of the checkout, without what running leaves behind."""
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in found if path.suffix != ".pyc"}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(out)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(packages):
    with zipfile.ZipFile(packages / f"{NAME}-py3-none-any.whl") as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.fixture(scope="module")
def sdist(packages):
    with tarfile.open(packages / f"{NAME}.tar.gz") as file:
        return {member.name.removeprefix(f"{NAME}/") for member in file.getmembers() if member.isfile()}


def test_the_wheel_is_the_package(wheel):
    assert {name for name in wheel if not name.startswith(f"{NAME}.dist-info/")} == ours("onnx_lrp")
    assert {f"onnx_lrp/demo/{name}" for name in DATA} <= set(wheel)
    assert any(name.startswith("onnx_lrp/report/templates/") for name in wheel)
    assert any(name.startswith("onnx_lrp/serve/templates/") for name in wheel)
    assert "onnx_lrp/py.typed" in wheel  # type checkers read a package's annotations only where this file is
    assert not any(name.split("/")[0] in OUTSIDE for name in wheel)
    assert sum(map(len, wheel.values())) < 8_000_000


def test_the_wheel_says_what_it_is(wheel):
    told = message_from_string(wheel[f"{NAME}.dist-info/METADATA"].decode())
    assert (told["Name"], told["Version"], told["License-Expression"]) == ("onnx-lrp", onnx_lrp.__version__, "MIT")
    assert told["Requires-Python"] == ">=3.11"
    assert {"cpu", "gpu", "test", "data", "plot", "text", "ray", "view", "docs", "dev"} <= set(told.get_all("Provides-Extra"))
    assert told.get_payload().startswith("# onnx-lrp")
    base = [line for line in told.get_all("Requires-Dist") if "extra ==" not in line]
    assert not any(line.startswith(("onnxruntime", "torch", "hypothesis")) for line in base)
    entries = wheel[f"{NAME}.dist-info/entry_points.txt"].decode()
    assert "onnx-lrp = onnx_lrp.cli:main" in entries
    assert "onnx_lrp = onnx_lrp.testing.plugin" in entries


def test_the_sdist_has_all_that_the_tests_need(sdist):
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "PKG-INFO"} <= sdist
    wanted = set().union(*(ours(folder) for folder in ("onnx_lrp", "tests", "converters", "docs", "examples", "benchmarks")))
    assert not {name for name in wanted - sdist if not re.search(r"(^|/)\.(hypothesis|pytest_cache)/", name)}


def test_nothing_left_behind_is_packed(sdist, wheel):
    leftover = re.compile(
        r"(^|/)(__pycache__|\.git|\.venv|\.hypothesis|\.(?:mypy|ruff|pytest)_cache|dist|build)/|\.(pyc|egg-info)$"
    )
    assert not [name for name in (*sdist, *wheel) if leftover.search(name)]
    with_secrets = [name for name in sdist if re.search(r"\.(pem|key|env)$|credentials", name)]
    assert not with_secrets


def test_twine_accepts_both(packages):
    pytest.importorskip("twine")
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, packages.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^([\w-]+): *(.*)$", text, re.MULTILINE))
    assert {"cff-version", "message", "title", "authors"} <= set(fields)  # what schema 1.2.0 requires
    assert (fields["cff-version"], fields["version"], fields["license"]) == ("1.2.0", onnx_lrp.__version__, "MIT")
