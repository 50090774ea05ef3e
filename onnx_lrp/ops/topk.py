"""TopK: the chosen entries keep their relevance. As the last node its indices are explained by the scores they chose among."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import Dim, fresh
from ..layer import Routing, Trace, fill, known, mixed
from ..registry import Var, importer
from .index import places_of_elements

__all__ = ["TopK"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class TopK(Routing):
    """Values and indices of the ``count`` (None: a second, computed input) largest or smallest entries along ``axis``."""

    slots: tuple[int | str, ...]
    axis: int
    count: int | None
    largest: bool = True

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if isinstance(self.slots[0], int) and xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = xs[0]
        dims = x.dims
        if dims is not None:
            axis = self.axis % len(dims)
            value = xs[1].value if len(xs) > 1 else None
            wanted = value.reshape(-1)[0] if value is not None else self.count
            dims = (*dims[:axis], wanted if isinstance(wanted, Dim) else fresh(wanted), *dims[axis + 1 :])
        values = dataclasses.replace(x, dims=dims, value=None, origin=frozenset())
        return [values, Var("", np.dtype(np.int64), dims)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x = fill(self.slots, xs, p)[0]
        count = self.count if self.count is not None else tf.cast(tf.reshape(xs[1], []), tf.int32)
        rank = x.shape.rank
        axis = self.axis % rank
        last = [*(a for a in range(rank) if a != axis), axis]
        moved = tf.transpose(x, last) if axis < rank - 1 else x
        _, indices = tf.math.top_k(moved if self.largest else -moved, count, sorted=True, index_type=tf.int64)
        if axis < rank - 1:
            indices = tf.transpose(indices, [int(a) for a in np.argsort(last)])
        places = places_of_elements(indices, axis, tf.shape(x))
        return Trace(xs, [tf.gather(tf.reshape(x, [-1]), places), indices], p, {"places": places})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        x: Tensor = trace.inputs[0]
        flat = tf.math.unsorted_segment_sum(rs[0], trace.saved["places"], tf.size(x))
        return [tf.reshape(flat, tf.shape(x)), *[None] * (len(trace.inputs) - 1)]

    def move(self, trace: Trace, xs: Sequence[Tensor], *, constants: bool) -> Sequence[Tensor]:
        return [tf.gather(tf.reshape(xs[0], [-1]), trace.saved["places"]), trace.outputs[1]]


def _read(X: Any, K: Any, axis: int, largest: int, node: Any) -> Any:
    if not isinstance(X, Var):
        raise node.refuse("constant data with a computed k is not read")
    count = known(K)
    slots, parameters, inputs = mixed(X, None if count is not None else K)
    return TopK(
        parameters=parameters,
        slots=slots,
        axis=axis,
        count=None if count is None else int(count.reshape(-1)[0]),
        largest=bool(largest),
    ), inputs


@importer("TopK", since=1)
def top_k_attribute(X: Any, *, k: int, axis: int = -1, node: Any) -> Any:
    return _read(X, np.asarray(k), axis, 1, node)


@importer("TopK", since=10)
def top_k(X: Any, K: Any, *, axis: int = -1, largest: int = 1, sorted: int = 1, node: Any) -> Any:
    return _read(X, K, axis, largest, node)
