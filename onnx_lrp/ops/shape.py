"""Shape arithmetic: Shape, Size, ConstantOfShape, Range. Relevance stops at every shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import Dim, fresh
from ..layer import Plain, Trace, fill, mixed
from ..registry import Var, importer

__all__ = ["Shape"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Shape(Plain):
    """Sizes of the axes ``start`` to ``end``."""

    start: int = 0
    end: int | None = None

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        dims = xs[0].dims
        if dims is None:
            return [Var("", np.dtype(np.int64), (fresh(None),))]
        part = dims[slice(self.start, self.end)]
        value = np.empty(len(part), object)
        value[:] = [d.size if d.size is not None and not d.labels else d for d in part]
        return [Var("", np.dtype(np.int64), (fresh(len(part)),), value=value)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.shape(xs[0], out_type=tf.int64)[slice(self.start, self.end)]], p)


@importer("Shape")
def shape(data: Any, *, start: int = 0, end: int | None = None) -> Any:
    return Shape(start=start, end=end), (data,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Size(Plain):
    """The number of entries."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", np.dtype(np.int64), ())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.size(xs[0], out_type=tf.int64)], p)


@importer("Size")
def size(data: Any) -> Any:
    return Size(), (data,)


@dataclass(frozen=True, eq=False, kw_only=True)
class ConstantOfShape(Plain):
    """A tensor of one value; parameters: value (1,)."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        value = xs[0].value
        fill_ = self.parameters["value"]
        dims = None if value is None else tuple(v if isinstance(v, Dim) else fresh(int(v)) for v in value)
        if dims is None and xs[0].shape and xs[0].shape[0] is not None:
            dims = tuple(fresh(None) for _ in range(xs[0].shape[0]))
        number = float(fill_.reshape(-1)[0])
        return [Var("", fill_.dtype, dims, interval=(number, number))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.fill(tf.cast(xs[0], tf.int32), tf.reshape(p["value"], []))], p)


@importer("ConstantOfShape", since=9)
def constant_of_shape(input: Any, *, value: Any = None) -> Any:
    return ConstantOfShape(parameters={"value": np.zeros(1, np.float32) if value is None else np.asarray(value)}), (input,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Range(Plain):
    """start, start + delta, … below limit."""

    slots: tuple[int | str, ...]

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", xs[0].dtype, (fresh(None),))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        start, limit, delta = (tf.reshape(v, []) for v in fill(self.slots, xs, p))
        return Trace(xs, [tf.range(start, limit, delta)], p)


@importer("Range", since=11)
def range_(start: Any, limit: Any, delta: Any) -> Any:
    slots, parameters, inputs = mixed(start, limit, delta)
    return Range(parameters=parameters, slots=slots), inputs
