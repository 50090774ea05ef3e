"""Which function reads which ONNX op.

A signature is the parser: positional parameters are the op's inputs, keyword-only ones its attributes, so that nothing a
node says can be ignored silently.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .dims import Dim
from .errors import UnsupportedModel

if TYPE_CHECKING:
    from .graph import Node

__all__ = ["Importer", "NodeContext", "Parts", "Var", "find", "importer", "registered"]

ANY = (-math.inf, math.inf)
CHAIN = 256
GATE_SLACK = 1e-6  # 6 * (1/6) is 1.00000003 in float32


@dataclass(frozen=True, eq=False)
class Parts:
    """How one tensor holds a sequence whose elements have unequal shapes: joined along an axis, their sizes in a tensor beside it.

    A sequence of equal elements is held as their stack, which needs no table.

    Attributes:
        table: name of the int64 tensor beside it: sizes along the axis (N, 1), or whole shapes (N, R) filled up with -1.
        axis: the only axis in which elements differ; None: they differ in more than one, and are flattened before they are joined.
        rank: number of an element's axes, None: unknown, or not the same for all.
        known: the sizes along the axis where the file says them.
    """

    table: str
    axis: int | None
    rank: int | None
    known: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Var:
    """A tensor that is not constant, as importers see it.

    Attributes:
        name: its name in the graph.
        dtype: numpy dtype in the file.
        dims: one :class:`Dim` an axis, None if even the rank is unknown.
        value: entries of a small integer tensor (ints and Dims), if shape arithmetic made it.
        interval: bounds that every entry keeps.
        live: depends on an attribution point along a float path.
        valued: a tensor of integers or strings made from the values (not only the shape) of a graph input.
        mask: derived from a bool.
        origin: what it was computed from, when only elementwise functions lie between (x in x * f(x)).
        parts: how it holds a sequence of tensors of unequal shapes, None: it is a tensor, or a stack of equal ones.
    """

    name: str
    dtype: np.dtype[Any]
    dims: tuple[Dim, ...] | None
    value: np.ndarray | None = None
    interval: tuple[float, float] = ANY
    live: bool = False
    valued: bool = False
    mask: bool = False
    origin: frozenset[str] = frozenset()
    parts: Parts | None = None

    def __post_init__(self) -> None:
        if len(self.origin) > CHAIN:  # no activation is spelled in so many ops, and each tensor of a chain keeps its own set
            object.__setattr__(self, "origin", frozenset())

    @property
    def is_float(self) -> bool:
        return is_float(self.dtype)

    @property
    def shape(self) -> tuple[int | None, ...] | None:
        """Sizes, None where unknown."""
        return None if self.dims is None else tuple(d.size for d in self.dims)

    @property
    def rank(self) -> int | None:
        return None if self.dims is None else len(self.dims)

    @property
    def is_gate(self) -> bool:
        """Every entry lies in [0, 1]: a gate or a mask."""
        return self.interval[0] >= -GATE_SLACK and self.interval[1] <= 1 + GATE_SLACK


def is_float(dtype: np.dtype[Any] | None) -> bool:
    """Floating point, bfloat16 and the 8-bit ones of ml_dtypes included."""
    return dtype is not None and (dtype.kind == "f" or dtype.name.startswith(("bfloat", "float")))


@dataclass(frozen=True, eq=False)
class NodeContext:
    """What an importer may ask beside inputs and attributes (keyword-only parameter ``node``)."""

    node: Node
    outputs: tuple[str, ...]  # names; '' where the file leaves one out or nothing reads it
    compile: Callable[..., Any] | None = None
    lookup: Callable[[str], Any] = lambda name: None  # the Var of a tensor made before this node, None if there is none
    producer: Callable[[str], Any] = lambda name: None  # the node that makes it
    readers: Callable[[str], Sequence[Any]] = lambda name: ()  # the nodes that read a tensor; also "" where it is an output
    before: Callable[..., Any] = lambda layer, inputs, hint: ()  # puts a layer before this node's own; the Vars that it makes
    varies: Callable[..., bool] = lambda dim, inside=False: False  # whether an axis has an unknown length of its own

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def opset(self) -> int:
        return self.node.version

    def refuse(self, why: str) -> UnsupportedModel:
        """The error to raise for a spelling that is legal but not read."""
        return UnsupportedModel(f"{self.node.label}: {why}")


@dataclass(frozen=True)
class Importer:
    """A registered importer function and what its signature says."""

    function: Callable[..., Any]
    op: str
    domain: str
    since: int
    inputs: tuple[str, ...] = field(default=())
    variadic: bool = False
    attributes: tuple[str, ...] = field(default=())
    wants_node: bool = False

    def __call__(self, node: Node, operands: Sequence[Any], context: NodeContext) -> Any:
        if not self.variadic and len(operands) > len(self.inputs):
            raise UnsupportedModel(f"{node.label}: {len(operands)} inputs, the importer reads {len(self.inputs)}")
        unknown = sorted(set(node.attributes) - set(self.attributes))
        if unknown:
            raise UnsupportedModel(f"{node.label}: attribute {unknown[0]!r} is not read")
        extra = {"node": context} if self.wants_node else {}
        return self.function(*operands, **node.attributes, **extra)


_IMPORTERS: dict[tuple[str, str], list[Importer]] = {}


def importer(op: str, since: int = 1, *, domain: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the importer of ``op`` from opset ``since`` on.

    The newest one not newer than the model's opset is taken. The function returns ``(layer, inputs)`` with the dynamic
    inputs of the layer in order, or a Var (the node is that tensor under another name).
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters = inspect.signature(function).parameters.values()
        keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        entry = Importer(
            function=function,
            op=op,
            domain=domain,
            since=since,
            inputs=tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)),
            variadic=any(p.kind is p.VAR_POSITIONAL for p in parameters),
            attributes=tuple(k for k in keywords if k != "node"),
            wants_node="node" in keywords,
        )
        _IMPORTERS.setdefault((domain, op), []).append(entry)
        _IMPORTERS[domain, op].sort(key=lambda e: e.since)
        return function

    return register


def find(op: str, domain: str, version: int) -> Importer | None:
    """The importer for an op at an opset version, or None."""
    _load()
    fitting = [e for e in _IMPORTERS.get((domain, op), ()) if e.since <= version]
    return fitting[-1] if fitting else None


def registered() -> Mapping[tuple[str, str], Sequence[Importer]]:
    """All importers by (domain, op), oldest first."""
    _load()
    return _IMPORTERS


def _load() -> None:
    from . import ops  # noqa: F401  (importing the package registers its importers)
