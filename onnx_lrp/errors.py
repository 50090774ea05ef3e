"""The errors of onnx-lrp: every message says what, where, expected and got, and what to do.

OnnxLrpError
├── ModelError                 the model, exit code 3
│   ├── InvalidModel           not ONNX, damaged, or contradicting itself
│   ├── UnsupportedModel       sound, but with nodes on the relevance path that nothing here reads
│   └── ParityError            the engine's forward pass differs from onnxruntime's
├── InputError (ValueError)    what was passed in: arrays, names, targets, files; exit code 4
├── RuleError (ValueError)     rules, epsilon, gate rules
└── MissingExtra (ImportError) an optional dependency; carries the pip command
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = [
    "InputError",
    "InvalidModel",
    "MissingExtra",
    "ModelError",
    "OnnxLrpError",
    "ParityError",
    "RuleError",
    "UnsupportedModel",
]


class OnnxLrpError(Exception):
    """Base of every error that onnx-lrp raises on purpose."""


class ModelError(OnnxLrpError):
    """The model can't be read, explained or trusted."""


class InvalidModel(ModelError):
    """The file is not ONNX, is damaged, or contradicts itself."""


class UnsupportedModel(ModelError):
    """The relevance path meets nodes that no importer reads; the message names every one.

    Args:
        message: what and where.
        nodes: the nodes in the way, each with its reason.
        cuts: tensors from which on everything can be read (``at=``), nearest to the input first.
    """

    def __init__(self, message: str, *, nodes: Sequence[str] = (), cuts: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.nodes = tuple(nodes)
        self.cuts = tuple(cuts)


class ParityError(ModelError):
    """The forward pass differs from onnxruntime's by more than the tolerance."""


class InputError(OnnxLrpError, ValueError):
    """Inputs, targets or data files don't fit the model."""


class RuleError(OnnxLrpError, ValueError):
    """A rule, its parameters or a gate rule is not one that exists."""


class MissingExtra(OnnxLrpError, ImportError):
    """An optional dependency is not installed.

    Args:
        package: what is missing, as imported.
        extra: the extra of onnx-lrp that brings it.
        purpose: what it is needed for.
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(f'{purpose} needs {package}: pip install "onnx-lrp[{extra}]"')

    def __reduce__(self) -> tuple[Any, ...]:
        return MissingExtra.__new__, (MissingExtra, *self.args)  # pickled by its message: another process may raise it
