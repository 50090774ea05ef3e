"""CONTRIBUTING's promise: an op is two files, and what the page quotes is the source."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnx_lrp

PACKAGE = Path(onnx_lrp.__file__).parent
PAGE = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"

# an op that nobody has, com.example:Flip: the last axis reversed
OP = '''
"""Flip: the last axis reversed; relevance is reversed back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._lazy import tf
from ..layer import Routing, Trace
from ..registry import Var, importer

__all__ = ["Flip"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Flip(Routing):
    """Entries of the last axis in reverse."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [dataclasses.replace(xs[0], value=None, origin=frozenset())]

    def run(self, xs: Sequence[Any], p: Mapping[str, Any]) -> Trace:
        return Trace(xs, [xs[0][..., ::-1]], p)

    def route(self, trace: Trace, rs: Sequence[Any]) -> Sequence[Any]:
        return [rs[0][..., ::-1]]


@importer("Flip", domain="com.example")
def flip(data: Any) -> Any:
    return Flip(), (data,)
'''

STRATEGY = '''
"""Dense models with a Flip in the middle."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["flips"]


@st.composite
def flips(draw: Any) -> Case:
    """Gemm, Flip, Tanh, Gemm. Shrinks to one sample."""
    b = Builder(draw(generators()), draw(opsets()))
    batch, width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    z = b.op("Flip", b.gemm(b.rows(batch, width), width, 4), domain="com.example")
    return b.case(b.gemm(b.op("Tanh", z), 4, draw(st.integers(1, 3))))
'''

LAWS = """
import numpy as np
from hypothesis import given, settings
import onnx_lrp
from onnx_lrp import testing
from onnx_lrp.testing.build import Builder
from onnx_lrp.testing.flip import flips
from pathlib import Path

assert Path(onnx_lrp.__file__).is_relative_to(Path.cwd()), onnx_lrp.__file__


@settings(max_examples=10, deadline=None, database=None)
@given(flips())
def laws(case):
    for precision in ("float32", "float64"):
        testing.assert_conserves(*case, precision=precision)
    testing.assert_linear(*case)
    testing.assert_batch_equivariant(*case)


laws()


def model(flip):
    b = Builder(np.random.default_rng(0), 17)
    z = b.gemm(b.rows(3, 2), 2, 4)
    z = b.op("Flip", z, domain="com.example") if flip else b.op("Gather", z, b.ints(3, 2, 1, 0), axis=1)
    return b.case(b.gemm(b.op("Tanh", z), 4, 2))


new, old = (onnx_lrp.explain(*model(flip), precision="float64", jit="eager", verify="never") for flip in (True, False))
np.testing.assert_allclose(new.relevance["x"], old.relevance["x"], rtol=1e-12)
assert np.abs(new.relevance["x"]).max() > 0
print("an op of two files")
"""


def run(folder, script):
    return subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)


def test_an_op_is_two_files(tmp_path):
    """A copy of the package with ops/flip.py and testing/flip.py explains models with it, and every law is kept."""
    shutil.copytree(PACKAGE, tmp_path / "onnx_lrp", ignore=shutil.ignore_patterns("__pycache__"))
    missing = run(tmp_path, LAWS)
    assert missing.returncode != 0
    (tmp_path / "onnx_lrp" / "ops" / "flip.py").write_text(OP.lstrip())
    (tmp_path / "onnx_lrp" / "testing" / "flip.py").write_text(STRATEGY.lstrip())
    done = run(tmp_path, LAWS)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "an op of two files" in done.stdout


def quotes(text):
    """(path, code) of every code block that begins with the comment of a path."""
    return [m.groups() for m in re.finditer(r"```python\n# (\S+\.py)\n(.*?)\n```", text, re.DOTALL)]


def test_quoted_code_is_the_source():
    found = quotes(PAGE.read_text())
    assert found
    for path, code in found:
        assert code in (PAGE.parent / path).read_text(), f"{PAGE.name} quotes {path} as it no longer is"


def test_quotes_are_found():
    assert quotes("text\n```python\n# a/b.py\nx = 1\ny = 2\n```\n") == [("a/b.py", "x = 1\ny = 2")]
