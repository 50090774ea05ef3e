"""Softmax, LogSoftmax, Hardmax and ArgMax. As the last nodes they are stepped over; a Softmax in between is a gate (attention)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import Dim
from ..layer import Elementwise, Plain, Trace
from ..registry import Var, importer

__all__ = ["ArgMax", "Hardmax", "Softmax"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Softmax(Elementwise):
    """Over ``axis``; below opset 13 over all axes from ``axis`` on, flattened."""

    axis: int
    flattened: bool = False
    log: bool = False

    @property
    def title(self) -> str:
        return "LogSoftmax" if self.log else "Softmax"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        interval = (-np.inf, 0.0) if self.log else (0.0, 1.0)
        return [dataclasses.replace(xs[0], value=None, interval=interval, origin=frozenset())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        function = tf.nn.log_softmax if self.log else tf.nn.softmax
        return Trace(xs, [_over(lambda x, axis: function(x, axis=axis), xs[0], self.axis, self.flattened)], p)


def _register(op: str, log: bool) -> None:
    @importer(op)
    def old(input: Any, *, axis: int = 1) -> Any:
        return Softmax(axis=axis, flattened=True, log=log), (input,)

    @importer(op, since=13)
    def new(input: Any, *, axis: int = -1) -> Any:
        return Softmax(axis=axis, log=log), (input,)


_register("Softmax", False)
_register("LogSoftmax", True)


@dataclass(frozen=True, eq=False, kw_only=True)
class ArgMax(Plain):
    """Index of the largest entry along ``axis``."""

    axis: int = 0
    keepdims: bool = True
    last: bool = False
    largest: bool = True

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        dims = xs[0].dims
        if dims is not None:
            axis = self.axis % len(dims)
            dims = (*dims[:axis], *((Dim(),) if self.keepdims else ()), *dims[axis + 1 :])
        return [Var("", np.dtype(np.int64), dims)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        pick = tf.argmax if self.largest else tf.argmin
        if self.last:
            index = tf.cast(tf.shape(x)[self.axis] - 1, tf.int64) - pick(tf.reverse(x, [self.axis]), self.axis)
        else:
            index = pick(x, self.axis)
        return Trace(xs, [tf.expand_dims(index, self.axis) if self.keepdims else index], p)


def _register_arg(op: str, largest: bool) -> None:
    @importer(op)
    def read(data: Any, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
        return ArgMax(axis=axis, keepdims=bool(keepdims), last=bool(select_last_index), largest=largest), (data,)


_register_arg("ArgMax", True)
_register_arg("ArgMin", False)


@dataclass(frozen=True, eq=False, kw_only=True)
class Hardmax(Plain):
    """1 at the first maximum, 0 elsewhere: ArgMax and OneHot in one, so relevance ends here; as a factor it is a gate."""

    axis: int
    flattened: bool = False

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", xs[0].dtype, xs[0].dims, interval=(0.0, 1.0))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs

        def winners(v: Tensor, axis: int) -> Tensor:
            return tf.one_hot(tf.argmax(v, axis), tf.shape(v)[axis], axis=axis, dtype=v.dtype)

        return Trace(xs, [_over(winners, x, self.axis, self.flattened)], p)


def _over(function: Any, x: Tensor, axis: int, flattened: bool) -> Tensor:
    """A function of (x, axis), or of all axes from ``axis`` on as one."""
    rank = x.shape.rank
    axis %= rank
    if not flattened or axis == rank - 1:
        return function(x, axis)
    shape = tf.shape(x)
    flat = tf.reshape(x, tf.concat([shape[:axis], [-1]], 0))
    return tf.reshape(function(flat, axis), shape)


@importer("Hardmax")
def hardmax_flattened(input: Any, *, axis: int = 1) -> Any:
    return Hardmax(axis=axis, flattened=True), (input,)


@importer("Hardmax", since=13)
def hardmax(input: Any, *, axis: int = -1) -> Any:
    return Hardmax(axis=axis), (input,)
