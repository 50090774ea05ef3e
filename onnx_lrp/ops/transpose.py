"""Transpose: relevance follows the inverse permutation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..layer import Routing, Trace
from ..registry import Var, importer
from .gather import code_after

__all__ = ["Transpose"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Transpose(Routing):
    """``perm``: output axis k is input axis perm[k]; None reverses all axes."""

    perm: tuple[int, ...] | None

    def _order(self, rank: int) -> Sequence[int]:
        return self.perm if self.perm is not None else tuple(range(rank))[::-1]

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        dims = None if x.dims is None else tuple(x.dims[a] for a in self._order(len(x.dims)))
        return [dataclasses.replace(x, dims=dims, value=None, origin=code_after(x, dims))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.transpose(xs[0], self._order(xs[0].shape.rank))], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        order = self._order(trace.inputs[0].shape.rank)
        return [tf.transpose(rs[0], [int(a) for a in np.argsort(order)])]


@importer("Transpose")
def transpose(data: Any, *, perm: Any = None) -> Any:
    return Transpose(perm=None if perm is None else tuple(perm)), (data,)


@importer("SwapAxes", domain="onnx_lrp")
def swap_axes(data: Any, *, node: Any) -> Any:
    """The last two axes change places: what FusedMatMul's transA and transB are rewritten to."""
    if data.rank is None or data.rank < 2:
        raise node.refuse("the number of axes is unknown")
    return Transpose(perm=(*range(data.rank - 2), data.rank - 1, data.rank - 2)), (data,)


@importer("FirstToRows", domain="onnx_lrp")
def first_to_rows(data: Any, *, node: Any) -> Any:
    """The first axis becomes the last but one: what FusedMatMul's transBatchA and transBatchB are rewritten to."""
    if data.rank is None or data.rank < 2:
        raise node.refuse("the number of axes is unknown")
    return Transpose(perm=(*range(1, data.rank - 1), 0, data.rank - 1)), (data,)
