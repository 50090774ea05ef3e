"""Shape arithmetic: Shape, Size, ConstantOfShape, Range, EyeLike. Relevance stops at every shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper

from .._lazy import tf
from ..dims import Dim, fresh
from ..layer import Plain, Trace, fill, known, mixed
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
        value = None
        if xs[0].dims is not None:
            value = np.empty((), object)
            value[()] = Dim(tuple(label for d in xs[0].dims for label in d.labels))
        return [Var("", np.dtype(np.int64), (), value=value)]

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
        start, limit, delta = fill(self.slots, xs, self.parameters)
        length = fresh(None)
        first, stop = (v.value.reshape(-1)[0] if isinstance(v, Var) and v.value is not None else None for v in (start, limit))
        if isinstance(stop, Dim) and _is(start, 0) and _is(delta, 1):
            length = stop
        elif isinstance(first, Dim) and _is(limit, -1) and _is(delta, -1):
            length = first + 1
        ends = [known(v) for v in (start, limit, delta)] if xs[0].dtype.kind in "iu" else [None]
        if all(e is not None for e in ends):
            length = fresh(len(range(*(int(e.reshape(-1)[0]) for e in ends if e is not None))))
        return [Var("", xs[0].dtype, (length,))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        start, limit, delta = (tf.reshape(v, []) for v in fill(self.slots, xs, p))
        return Trace(xs, [tf.range(start, limit, delta)], p)


def _is(operand: Any, number: int) -> bool:
    value = known(operand)
    return value is not None and value.reshape(-1)[0] == number


@importer("Range", since=11)
def range_(start: Any, limit: Any, delta: Any) -> Any:
    slots, parameters, inputs = mixed(start, limit, delta)
    return Range(parameters=parameters, slots=slots), inputs


@dataclass(frozen=True, eq=False, kw_only=True)
class EyeLike(Plain):
    """Ones on the ``k``-th diagonal of a matrix of the input's shape. parameters: like (), of the output's dtype."""

    k: int

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", self.parameters["like"].dtype, xs[0].dims, interval=(0.0, 1.0))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        shape = tf.shape(xs[0])
        places = tf.range(shape[1])[None, :] - tf.range(shape[0])[:, None]
        return Trace(xs, [tf.cast(tf.equal(places, self.k), p["like"].dtype)], p)


@importer("EyeLike", since=9)
def eye_like(input: Any, *, dtype: int | None = None, k: int = 0) -> Any:
    kind = input.dtype if dtype is None else helper.tensor_dtype_to_np_dtype(dtype)
    return EyeLike(parameters={"like": np.zeros((), kind)}, k=k), (input,)
