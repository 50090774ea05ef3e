"""onnx-lrp: Layer-wise Relevance Propagation on ONNX graphs. Importing this package imports no TensorFlow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import targets
    from .comparison import Comparison, compare
    from .composites import Composite
    from .dataset.run import explain_dataset
    from .dataset.worker import BatchExplainer
    from .errors import InputError, InvalidModel, MissingExtra, ModelError, OnnxLrpError, ParityError, RuleError, UnsupportedModel
    from .evaluation.result import Evaluation
    from .evaluation.run import evaluate
    from .explainer import Explainer
    from .explanation import Explanation
    from .limits import Limits
    from .loading import explain, load
    from .rules import AlphaBeta, Epsilon, Flat, Gamma, Rule, WSquare, ZBox, ZPlus
    from .summary import Summary

_HOME = {
    "AlphaBeta": "rules",
    "BatchExplainer": "dataset.worker",
    "Comparison": "comparison",
    "Composite": "composites",
    "Epsilon": "rules",
    "Evaluation": "evaluation.result",
    "Explainer": "explainer",
    "Explanation": "explanation",
    "Flat": "rules",
    "Gamma": "rules",
    "InputError": "errors",
    "InvalidModel": "errors",
    "Limits": "limits",
    "MissingExtra": "errors",
    "ModelError": "errors",
    "OnnxLrpError": "errors",
    "ParityError": "errors",
    "Rule": "rules",
    "RuleError": "errors",
    "Summary": "summary",
    "UnsupportedModel": "errors",
    "WSquare": "rules",
    "ZBox": "rules",
    "ZPlus": "rules",
    "compare": "comparison",
    "evaluate": "evaluation.run",
    "explain": "loading",
    "explain_dataset": "dataset.run",
    "load": "loading",
}

__all__ = [
    "AlphaBeta",
    "BatchExplainer",
    "Comparison",
    "Composite",
    "Epsilon",
    "Evaluation",
    "Explainer",
    "Explanation",
    "Flat",
    "Gamma",
    "InputError",
    "InvalidModel",
    "Limits",
    "MissingExtra",
    "ModelError",
    "OnnxLrpError",
    "ParityError",
    "Rule",
    "RuleError",
    "Summary",
    "UnsupportedModel",
    "WSquare",
    "ZBox",
    "ZPlus",
    "__version__",
    "compare",
    "evaluate",
    "explain",
    "explain_dataset",
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
