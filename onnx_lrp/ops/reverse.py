"""ReverseSequence: every sample's first steps in reverse; relevance follows, since the map is its own inverse."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._lazy import tf
from ..dims import unify
from ..layer import Routing, Trace, fill, mixed
from ..registry import Var, importer

__all__ = ["ReverseSequence"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class ReverseSequence(Routing):
    """Slots: input, sequence_lens (B,), constant or computed."""

    slots: tuple[int | str, ...]
    batch_axis: int
    time_axis: int

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x, slot = xs[0], self.slots[1]
        lengths = xs[slot].dims if isinstance(slot, int) else None
        if x.dims is not None and lengths:
            unify(x.dims[self.batch_axis], lengths[0])
        return [dataclasses.replace(x, value=None, origin=frozenset())]

    def _turn(self, x: Tensor, lengths: Tensor) -> Tensor:
        return tf.reverse_sequence(x, lengths, seq_axis=self.time_axis, batch_axis=self.batch_axis)

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, lengths = fill(self.slots, xs, p)
        return Trace(xs, [self._turn(x, lengths)], p)

    def within(self, trace: Trace) -> Tensor | None:
        x, lengths = fill(self.slots, trace.inputs, trace.parameters)
        most = tf.cast(tf.shape(x)[self.time_axis], lengths.dtype)
        return tf.reduce_all((lengths >= 0) & (lengths <= most))

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        lengths = fill(self.slots, trace.inputs, trace.parameters)[1]
        return [self._turn(rs[0], lengths), *[None] * (len(trace.inputs) - 1)]


@importer("ReverseSequence", since=10)
def reverse_sequence(input: Any, sequence_lens: Any, *, batch_axis: int = 1, time_axis: int = 0, node: Any) -> Any:
    if not isinstance(input, Var):
        raise node.refuse("constant data with computed lengths is not read")
    if {batch_axis, time_axis} != {0, 1}:
        raise node.refuse(f"batch_axis {batch_axis} and time_axis {time_axis}; the standard has 0 and 1, or 1 and 0")
    slots, parameters, inputs = mixed(input, sequence_lens)
    return ReverseSequence(parameters=parameters, slots=slots, batch_axis=batch_axis, time_axis=time_axis), inputs
