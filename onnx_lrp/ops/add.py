"""Add, Sub, Neg, Sum and Mean of signals and constants: affine terms of a block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._lazy import tf
from ..intervals import Interval, bounds, origin_of, plus, times
from ..layer import Affine, Trace, fill, mixed, operand_dims, unbroadcast
from ..linear import LinearMap
from ..registry import Var, importer

__all__ = ["WeightedSum"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightedSum(Affine):
    """Σ_k factors[k] · operand_k with broadcasting; operands are inputs or constant parameters (the bias)."""

    slots: tuple[int | str, ...]
    factors: tuple[float, ...]

    @property
    def title(self) -> str:
        return "Add" if len(self.slots) > 1 else "Scale"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        interval: Interval = (0.0, 0.0)
        for slot, factor in zip(self.slots, self.factors, strict=True):
            term = bounds(self.parameters[slot] if isinstance(slot, str) else xs[slot])
            interval = plus(interval, times(term, (factor, factor)))
        masks = all(x.mask for x in xs)
        dims = operand_dims(self.slots, xs, self.parameters)
        return [Var("", xs[0].dtype, dims, interval=interval, mask=masks, origin=origin_of(xs))]

    def sums(self, xs: Sequence[Var]) -> bool:
        return len(self.slots) > 1

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        total = None
        for term, factor in zip(fill(self.slots, xs, p), self.factors, strict=True):
            if total is None:
                total = term if factor == 1 else -term if factor == -1 else factor * term
            else:
                total = total + term if factor == 1 else total - term if factor == -1 else total + factor * term
        return Trace(xs, [total], p)

    def linear(self, trace: Trace) -> LinearMap:
        dynamic = [(f, trace.inputs[s]) for s, f in zip(self.slots, self.factors, strict=True) if not isinstance(s, str)]
        return _map([f for f, _ in dynamic], [x for _, x in dynamic])

    def bias(self, trace: Trace) -> Tensor | None:
        terms = [f * trace.parameters[s] for s, f in zip(self.slots, self.factors, strict=True) if isinstance(s, str)]
        return sum(terms[1:], terms[0]) if terms else None


def _map(factors: Sequence[Any], xs: Sequence[Tensor]) -> LinearMap:
    def call(ys: Sequence[Tensor]) -> Tensor:
        terms = [f * y for f, y in zip(factors, ys, strict=True)]
        return sum(terms[1:], terms[0])

    return LinearMap(
        call=call,
        pull=lambda s: [unbroadcast(s if isinstance(f, float) and f == 1 else f * s, x) for f, x in zip(factors, xs, strict=True)],
        mapped=lambda fn: _map([fn(tf.cast(f, x.dtype)) for f, x in zip(factors, xs, strict=True)], xs),
    )


def read_sum(operands: Sequence[Any], factors: Sequence[float]) -> Any:
    """A weighted sum as a layer, whatever is constant in it."""
    slots, parameters, inputs = mixed(*operands)
    return WeightedSum(parameters=parameters, slots=slots, factors=tuple(factors)), inputs


@importer("Add", since=7)
def add(A: Any, B: Any) -> Any:
    return read_sum([A, B], [1.0, 1.0])


@importer("Sub", since=7)
def sub(A: Any, B: Any) -> Any:
    return read_sum([A, B], [1.0, -1.0])


@importer("Neg")
def neg(X: Any) -> Any:
    return read_sum([X], [-1.0])


@importer("Sum", since=6)
def sum_(*data_0: Any) -> Any:
    return read_sum(data_0, [1.0] * len(data_0))


@importer("Mean", since=6)
def mean(*data_0: Any) -> Any:
    return read_sum(data_0, [1.0 / len(data_0)] * len(data_0))
