"""Einsum of one operand (a transposed sum) or two (a contraction, as MatMul is one)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._lazy import tf
from ..contraction import Einsum, axes_of, einsum_dims, einsum_sums, parse, single, single_back
from ..layer import Affine, Trace
from ..linear import LinearMap
from ..registry import Var, importer
from .matmul import contracted
from .reduce import SumOver
from .transpose import Transpose

__all__ = ["Rearranged"]

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
    return contracted(Einsum(terms[0], terms[1], out), *Inputs)


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
