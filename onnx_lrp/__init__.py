"""onnx-lrp: Layer-wise Relevance Propagation on ONNX graphs. Importing this package imports no TensorFlow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import targets
    from .errors import InputError, InvalidModel, MissingExtra, ModelError, OnnxLrpError, ParityError, RuleError, UnsupportedModel
    from .explainer import Explainer, explain, load
    from .explanation import Explanation
    from .summary import Summary

_HOME = {
    "Explainer": "explainer",
    "Explanation": "explanation",
    "InputError": "errors",
    "InvalidModel": "errors",
    "MissingExtra": "errors",
    "ModelError": "errors",
    "OnnxLrpError": "errors",
    "ParityError": "errors",
    "RuleError": "errors",
    "Summary": "summary",
    "UnsupportedModel": "errors",
    "explain": "explainer",
    "load": "explainer",
}

__all__ = [
    "Explainer",
    "Explanation",
    "InputError",
    "InvalidModel",
    "MissingExtra",
    "ModelError",
    "OnnxLrpError",
    "ParityError",
    "RuleError",
    "Summary",
    "UnsupportedModel",
    "__version__",
    "explain",
    "load",
    "targets",
]


def __getattr__(name: str) -> Any:
    if name == "targets":
        return importlib.import_module(".targets", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
