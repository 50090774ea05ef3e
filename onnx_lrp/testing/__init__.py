"""Hypothesis strategies for ONNX models, one file per op family, the laws that every model keeps, and the check of a given model.

A strategy of models draws ``(ModelProto, {graph input: array})``, :func:`feeds` draws the inputs of one given model; a law takes
the two and raises AssertionError where it is broken; :func:`check` searches a model's inputs for a breach of any law. Strategies
take keyword arguments, and say what they shrink to. Importing this package imports neither hypothesis nor the engine, so that the
pytest plugin in it costs nothing where it is not asked for.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra

if TYPE_CHECKING:
    from hypothesis import strategies as st

    from .build import Case

LAWS = ("parity", "conservation", "equivariance", "linearity", "determinism", "finiteness")  # of a given model
INSIDE = {"__init__", "build", "measures", "plugin"}  # files whose names are for the others here
FOLDER = Path(__file__).parent


def _names(file: Path) -> list[str]:
    """``__all__`` of a file, read without importing it."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


# public name → file: what a file here has in its ``__all__`` is public, so that a new op's strategies need no other place
_HOME = {name: file.stem for file in sorted(FOLDER.glob("*.py")) if file.stem not in INSIDE for name in _names(file)}
_HOME.pop("recurrent")  # shared by three files, and drawn by their names

__all__ = sorted(
    ["LAWS", "families", "models", *_HOME], key=lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name)
)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        importlib.import_module("hypothesis")
    except ImportError as error:
        raise MissingExtra("hypothesis", extra="test", purpose="drawing models and inputs") from error
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)


def families() -> Mapping[str, Callable[..., Any]]:
    """The strategies of models by their names: one or more for every file in ``onnx_lrp/ops``."""
    ops = {file.stem for file in (FOLDER.parent / "ops").glob("*.py")}
    names = [n for n, file in _HOME.items() if file in ops and not n.endswith(("_spellings", "_heads"))]
    return {name: __getattr__(name) for name in names}


def models(*, fixed: bool = True) -> st.SearchStrategy[Case]:
    """Models of every family. ``fixed``: weights may be written for one batch size. Shrinks towards a dense layer."""
    from hypothesis import strategies as st

    found = dict(families())
    first = found.pop("dense")
    recurrent = ("rnns", "grus", "lstms")
    plain = [strategy() for name, strategy in found.items() if name not in recurrent]
    return st.one_of(first(), *plain, *(found[name](fixed=fixed) for name in recurrent))
