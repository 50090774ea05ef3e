"""CumSum: an affine map, every entry the sum of those before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..intervals import times
from ..layer import Affine, Trace
from ..linear import LinearMap
from ..registry import Var, importer

__all__ = ["RunningSum"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class RunningSum(Affine):
    """Sums along ``axis`` up to each entry (``exclusive``: without it), from the end if ``reverse``."""

    axis: int
    exclusive: bool = False
    reverse: bool = False

    @property
    def title(self) -> str:
        return "CumSum"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        size = None if x.dims is None else x.dims[self.axis].size
        low, high = times(x.interval, (1.0 - self.exclusive, np.inf if size is None else float(size)))
        return [Var("", x.dtype, x.dims, interval=(min(low, 0.0), max(high, 0.0)) if self.exclusive else (low, high))]

    def sums(self, xs: Sequence[Var]) -> bool:
        return xs[0].dims is None or xs[0].dims[self.axis].size != 1 or self.exclusive

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.cumsum(xs[0], self.axis, exclusive=self.exclusive, reverse=self.reverse)], p)

    def linear(self, trace: Trace) -> LinearMap:
        return self._map(tf.ones([], trace.inputs[0].dtype))

    def _map(self, factor: Tensor) -> LinearMap:
        def add(x: Tensor, reverse: bool) -> Tensor:
            return factor * tf.cumsum(x, self.axis, exclusive=self.exclusive, reverse=reverse)

        return LinearMap(
            call=lambda xs: add(xs[0], self.reverse),
            pull=lambda s: [add(s, not self.reverse)],
            mapped=lambda f: self._map(f(factor)),
        )


@importer("CumSum", since=11)
def cum_sum(x: Any, axis: Any, *, exclusive: int = 0, reverse: int = 0, node: Any) -> Any:
    if isinstance(axis, Var):
        raise node.refuse("the axis must be constant")
    return RunningSum(axis=int(np.reshape(axis, -1)[0]), exclusive=bool(exclusive), reverse=bool(reverse)), (x,)
