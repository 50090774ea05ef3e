"""Gemm and MatMul with constant weights: the dense layer.

z_j = Σ_i x_i w_ij + b_j. The bias of a Gemm is part of the block like that of a later Add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import fresh
from ..layer import Affine, Trace, unbroadcast
from ..linear import LinearMap
from ..registry import Var, importer
from .gather import Lookup, is_code

__all__ = ["LeftLinear", "Linear"]

Tensor = Any


def dense(x: Tensor, w: Tensor, *, transpose: bool = False) -> Tensor:
    """x (..., I) times w (I, C) as one GEMM; ``transpose``: times wᵀ."""
    if x.shape.rank == 2:
        return tf.matmul(x, w, transpose_b=transpose)
    if x.shape.rank == 1:
        return tf.linalg.matvec(w, x, transpose_a=not transpose)
    rows = tf.reshape(x, [-1, w.shape[1 if transpose else 0]])
    z = tf.matmul(rows, w, transpose_b=transpose)
    if x.shape[:-1].is_fully_defined():
        return tf.reshape(z, [*x.shape[:-1], w.shape[0 if transpose else 1]])
    shape = tf.concat([tf.shape(x)[:-1], [w.shape[0 if transpose else 1]]], 0)
    return tf.reshape(z, shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear(Affine):
    """parameters: weight (I, C), optionally bias, broadcastable to (..., C). Input (..., I), output (..., C)."""

    addend: float = 0.0  # a second, computed input enters with this factor (Gemm's C)

    @property
    def operands(self) -> Sequence[int]:
        return (0,)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = xs[0]
        out = fresh(self.parameters["weight"].shape[1])
        dims = None if x.dims is None else (*x.dims[:-1], out)
        return [Var("", x.dtype, dims)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        z = dense(xs[0], p["weight"])
        if len(xs) > 1:
            z += self.addend * xs[1]
        return Trace(xs, [z + p["bias"] if "bias" in p else z], p)

    def linear(self, trace: Trace) -> LinearMap:
        first = _map(trace.parameters["weight"])
        return first if len(trace.inputs) == 1 else self._with_addend(first, trace.inputs[1], self.addend)

    def _with_addend(self, first: LinearMap, c: Tensor, factor: Tensor) -> LinearMap:
        return LinearMap(
            call=lambda xs: first.call(xs[:1]) + factor * xs[1],
            pull=lambda s: [*first.pull(s), unbroadcast(factor * s, c)],
            mapped=lambda f: self._with_addend(first.mapped(f), c, f(tf.cast(factor, c.dtype))),
        )

    def bias(self, trace: Trace) -> Tensor | None:
        return trace.parameters.get("bias")


def _map(w: Tensor) -> LinearMap:
    return LinearMap(
        call=lambda xs: dense(xs[0], w),
        pull=lambda s: [dense(s, w, transpose=True)],
        mapped=lambda f: _map(f(w)),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class LeftLinear(Affine):
    """weight (C, I) from the left of the operand: output (..., C, N) = weight @ (..., I, N)."""

    @property
    def operands(self) -> Sequence[int]:
        return (0,)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        if x.dims is None:
            return [Var("", x.dtype, None)]
        rows = self.parameters["weight"].shape
        if len(x.dims) == 1:
            dims = tuple(fresh(n) for n in rows[:-1])
        else:
            dims = (*x.dims[:-2], fresh(rows[-2]), x.dims[-1]) if len(rows) > 1 else (*x.dims[:-2], x.dims[-1])
        return [Var("", x.dtype, dims)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [self._map(p["weight"]).call(xs)], p)

    def linear(self, trace: Trace) -> LinearMap:
        return self._map(trace.parameters["weight"])

    def _map(self, w: Tensor) -> LinearMap:
        return LinearMap(
            call=lambda xs: tf.matmul(w, xs[0]),
            pull=lambda s: [tf.matmul(w, s, transpose_a=True)],
            mapped=lambda f: self._map(f(w)),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchedLinear(Affine):
    """A constant of more than two axes: weight (..., I, C), broadcast against the operand (..., N, I)."""

    @property
    def operands(self) -> Sequence[int]:
        return (0,)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        w = self.parameters["weight"].shape
        if x.dims is None or len(w) > len(x.dims):
            return [Var("", x.dtype, None)]
        return [Var("", x.dtype, (*x.dims[:-1], fresh(w[-1])))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.matmul(xs[0], p["weight"])], p)

    def linear(self, trace: Trace) -> LinearMap:
        return self._map(trace.parameters["weight"], trace.inputs[0])

    def _map(self, w: Tensor, x: Tensor) -> LinearMap:
        return LinearMap(
            call=lambda xs: tf.matmul(xs[0], w),
            pull=lambda s: [unbroadcast(tf.matmul(s, w, transpose_b=True), x)],
            mapped=lambda f: self._map(f(w), x),
        )


@importer("Gemm", since=1)
def gemm(
    A: Any,
    B: Any,
    C: Any = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    broadcast: int = 0,
    node: Any,
) -> Any:
    if isinstance(B, Var) and isinstance(A, Var):
        raise node.refuse("both factors are computed; only constant weights are read")
    if isinstance(A, Var):
        if transA:
            raise node.refuse("transA=1 on the computed operand is not read")
        weight = B.T if transB else B
        x = A
    else:
        raise node.refuse("the weights stand on the left; write MatMul")
    parameters = {"weight": weight if alpha == 1 else weight.astype(np.float64) * alpha}
    if isinstance(C, Var):
        return Linear(parameters=parameters, addend=beta), (x, C)
    if C is not None and beta:
        parameters["bias"] = C if beta == 1 else C.astype(np.float64) * beta
    return (Lookup if is_code(x) else Linear)(parameters=parameters), (x,)


def read_matmul(A: Any, B: Any) -> Any:
    """MatMul with one constant factor, which may have any number of axes."""
    if isinstance(A, Var):
        if B.ndim == 2 and is_code(A):
            return Lookup(parameters={"weight": B}), (A,)
        if B.ndim == 2:
            return Linear(parameters={"weight": B}), (A,)
        return BatchedLinear(parameters={"weight": B if B.ndim > 1 else B[:, None]}), (A,)
    return LeftLinear(parameters={"weight": A}), (B,)
