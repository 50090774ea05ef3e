"""Einsum of one operand (a transposed sum) or two (a contraction, as MatMul is one)."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._lazy import tf
from ..contraction import Einsum, axes_of, einsum_dims, einsum_sums, parse, single, single_back, spelled
from ..dims import unify
from ..layer import Affine, Routing, Trace, constant_dims
from ..linear import LinearMap
from ..registry import Var, importer
from ..rewrite import Rewriting, rewriter
from .matmul import contracted
from .reduce import SumOver
from .transpose import Transpose

if TYPE_CHECKING:
    from ..graph import Node

__all__ = ["Diagonal", "Rearranged"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Rearranged(Affine):
    """Axes put in another order (``own`` → ``out``), those left out summed over."""

    own: str
    out: str

    @property
    def title(self) -> str:
        return "Einsum"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", xs[0].dtype, einsum_dims([(self.own, xs[0].dims)], self.out))]

    def sums(self, xs: Sequence[Var]) -> bool:
        return einsum_sums([(self.own, xs[0].dims)], self.out)

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [single(xs[0], self.own, self.out)], p)

    def linear(self, trace: Trace) -> LinearMap:
        (x,) = trace.inputs
        return self._map(tf.ones([], x.dtype), x)

    def _map(self, factor: Tensor, x: Tensor) -> LinearMap:
        return LinearMap(
            call=lambda xs: factor * single(xs[0], self.own, self.out),
            pull=lambda s: [factor * single_back(s, x, self.own, self.out)],
            mapped=lambda f: self._map(f(factor), x),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Diagonal(Routing):
    """The entries whose indices on two axes are equal, along a new last axis. ``axes``: from the end where negative."""

    axes: tuple[int, int]

    def _order(self, rank: int) -> list[int]:
        two = [a % rank for a in self.axes]
        return [*(a for a in range(rank) if a not in two), *two]

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        dims = x.dims
        if dims is not None:
            *rest, first, second = (dims[a] for a in self._order(len(dims)))
            dims = (*rest, unify(first, second))
        return [dataclasses.replace(x, dims=dims, value=None, origin=frozenset())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        return Trace(xs, [tf.linalg.diag_part(tf.transpose(x, self._order(x.shape.rank)))], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        order = self._order(trace.inputs[0].shape.rank)
        return [tf.transpose(tf.linalg.diag(rs[0]), sorted(range(len(order)), key=order.__getitem__))]


@importer("Diagonal", domain="onnx_lrp")
def diagonal(data: Any, *, axes: Any) -> Any:
    """What an operand of an Einsum is rewritten to whose term has a letter twice."""
    return Diagonal(axes=tuple(axes)), (data,)


@rewriter("Einsum", domain="")
def diagonals(node: Node, graph: Rewriting) -> list[Node] | None:
    """An Einsum of the diagonals of its operands, where a letter stands twice in a term."""
    try:
        terms, out = parse(str(node.attributes["equation"]), len(node.inputs), diagonals=True)
    except ValueError:
        return None  # its importer says what is wrong
    if all(len(set(term)) == len(term) for term in terms):
        return None
    made: list[Node] = []
    names = list(node.inputs)
    for k, term in enumerate(terms):
        while twice := next((c for c in term if term.count(c) > 1), ""):
            axes = _places(term, twice)
            term = term.replace(twice, "", 2) + twice
            value = graph.value(names[k])
            if value is None:
                made.append(graph.make("Diagonal", names[k], domain="onnx_lrp", version=1, axes=axes))
                names[k] = made[-1].outputs[0]
            else:
                names[k] = graph.constant(np.diagonal(value, 0, *axes))
        terms[k] = term
    equation = f"{','.join(map(spelled, terms))}->{spelled(out)}"
    return [*made, graph.make("Einsum", *names, to=graph.output(0), equation=equation)]


def _places(term: str, letter: str) -> list[int]:
    """The first two axes of a letter, from the end behind an ellipsis."""
    found = [k for k, c in enumerate(term) if c == letter][:2]
    return [k - len(term) if "." in term[:k] else k for k in found]


@importer("Einsum", since=12)
def einsum(*Inputs: Any, equation: str, node: Any) -> Any:
    if len(Inputs) > 2:
        raise node.refuse(f"equation {equation!r} has {len(Inputs)} operands; at most two are read")
    try:
        terms, out = parse(equation, len(Inputs))
    except ValueError as error:
        raise node.refuse(str(error)) from None
    if len(Inputs) == 1:
        return _one(terms[0], out, Inputs[0]), Inputs
    first, second = _apart(terms, out, Inputs)
    return contracted(Einsum(first, second, out), *Inputs)


def _apart(terms: Sequence[str], out: str, operands: Sequence[Any]) -> list[str]:
    """The terms, with another letter for an axis of one entry that meets a longer one.

    Such an axis is repeated, as numpy and onnxruntime have it and TensorFlow has not: by itself it is summed over its one entry.
    """
    sizes: list[dict[str, int | None]] = []
    for term, x in zip(terms, operands, strict=True):
        dims = x.dims if isinstance(x, Var) else constant_dims(x)
        own = {} if dims is None else {c: axes_of(term, [c], len(dims))[0] for c in term if c != "."}
        sizes.append({c: dims[axis].size for c, axis in own.items()} if dims is not None else {})
    unused = iter(c for c in string.ascii_letters if c not in "".join([*terms, out]))
    found = []
    for term, own_sizes, others in zip(terms, sizes, sizes[::-1], strict=True):
        once = [c for c, size in own_sizes.items() if size == 1 and others.get(c, 1) != 1]
        found.append("".join(next(unused) if c in once else c for c in term))
    return found


def _one(own: str, out: str, x: Var) -> Any:
    """Transpose or ReduceSum where it is one of them."""
    if x.rank is None:
        return Rearranged(own=own, out=out)
    order = axes_of(own, out, x.rank)
    if len(order) == x.rank:
        return Transpose(perm=tuple(order))
    if order == sorted(order):
        return SumOver(axes=tuple(a for a in range(x.rank) if a not in order), keepdims=False)
    return Rearranged(own=own, out=out)
