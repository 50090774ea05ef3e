"""MatMul: with constant weights the dense layer z_j = Σ_i x_i w_ij, with a gate or a computed constant a coefficient, of two
signals half each.

The layers take any :class:`~onnx_lrp.contraction.Contraction`, so that Gemm and Einsum are these layers too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..contraction import Contraction, MatrixProduct
from ..dims import fresh
from ..errors import RuleError
from ..layer import Affine, Opaque, Share, Trace, coefficient, constant_dims, fill, mixed, unbroadcast
from ..linear import LinearMap
from ..precision import product
from ..registry import Var, importer
from ..rules import stabilized
from .gather import Lookup, is_code

__all__ = ["Contracted", "ContractedSignals", "Linear", "contracted"]

Tensor = Any
Addend = tuple[int | str, float]  # (slot, factor)


def dense(x: Tensor, w: Tensor, *, transpose: bool = False) -> Tensor:
    """x (..., I) times w (I, C) as one GEMM; ``transpose``: times wᵀ."""
    if x.shape.rank == 2:
        return product(x, w, transpose=transpose)
    if x.shape.rank == 1:
        return product(x[None], w, transpose=transpose)[0]
    rows = tf.reshape(x, [-1, w.shape[1 if transpose else 0]])
    z = product(rows, w, transpose=transpose)
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

    @property
    def matrices(self) -> Sequence[str]:
        return ("weight",)

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


def _dims(contraction: Contraction, slots: Sequence[int | str], xs: Sequence[Var], p: Mapping[str, np.ndarray]) -> Any:
    return [constant_dims(p[s]) if isinstance(s, str) else xs[s].dims for s in slots]


@dataclass(frozen=True, eq=False, kw_only=True)
class Contracted(Affine):
    """alpha · contraction(a, b) + factor · c, linear in ``signal`` (0: a, 1: b) and in c.

    Slots are inputs' indices or parameters' names. A constant factor is the weights of a dense layer, so the signal is its
    operand; a computed one is a coefficient of its terms.
    """

    contraction: Contraction
    slots: tuple[int | str, int | str]
    signal: int
    alpha: float = 1.0
    addend: Addend | None = None

    @property
    def title(self) -> str:
        return "Dense" if self.operands else "Weighted"

    @property
    def operands(self) -> Sequence[int]:
        slot = self.slots[self.signal]
        constant = isinstance(self.slots[1 - self.signal], str)
        return (slot,) if constant and self.contraction.contracts and isinstance(slot, int) else ()

    def decision(self, xs: Sequence[Var]) -> str:
        slot, signal = self.slots[1 - self.signal], self.slots[self.signal]
        if isinstance(slot, str):
            return ""
        return coefficient(xs[slot], xs[signal] if isinstance(signal, int) else None)

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        slots = [self.slots[self.signal], *([self.addend[0]] if self.addend else [])]
        return [s for s in slots if isinstance(s, int) and xs[s].is_float]

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", xs[0].dtype, self.contraction.dims(*_dims(self.contraction, self.slots, xs, self.parameters)))]

    def sums(self, xs: Sequence[Var]) -> bool:
        if self.addend or self.operands:
            return True
        return self.contraction.sums(*_dims(self.contraction, self.slots, xs, self.parameters))

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        y = self.contraction(*fill(self.slots, xs, p))
        y = y if self.alpha == 1 else self.alpha * y
        if self.addend:
            slot, factor = self.addend
            y += factor * (p[slot] if isinstance(slot, str) else xs[slot])
        return Trace(xs, [y], p)

    def linear(self, trace: Trace) -> LinearMap:
        operands = fill(self.slots, trace.inputs, trace.parameters)
        factor = operands[1 - self.signal]
        slot = self.addend[0] if self.addend else None
        c = trace.inputs[slot] if isinstance(slot, int) else None
        beta = 1.0 if self.addend is None else self.addend[1]
        return self._map(self.alpha, factor, operands[self.signal], beta, c, len(trace.inputs))

    def bias(self, trace: Trace) -> Tensor | None:
        if self.addend is None or isinstance(self.addend[0], int):
            return None
        return self.addend[1] * trace.parameters[self.addend[0]]

    def _map(self, alpha: Tensor, factor: Tensor, x: Tensor, beta: Tensor, c: Tensor | None, count: int) -> LinearMap:
        own = int(self.slots[self.signal])
        other = int(self.addend[0]) if self.addend and c is not None else None

        def call(xs: Sequence[Tensor]) -> Tensor:
            pair = (xs[own], factor) if self.signal == 0 else (factor, xs[own])
            y = alpha * self.contraction(*pair)
            return y if other is None else y + beta * xs[other]

        def pull(s: Tensor) -> list[Tensor | None]:
            cotangents: list[Tensor | None] = [None] * count
            back = self.contraction.to_a(s, x, factor) if self.signal == 0 else self.contraction.to_b(s, factor, x)
            cotangents[own] = alpha * back
            if other is not None:
                part = unbroadcast(beta * s, c)
                cotangents[other] = part if other != own else part + cotangents[own]
            return cotangents

        def mapped(f: Any) -> LinearMap:
            # the scale belongs to the factor: |alpha w| and 1 are one number a term
            return self._map(1.0, f(tf.cast(alpha, factor.dtype) * factor), x, f(tf.cast(beta, factor.dtype)), c, count)

        return LinearMap(call=call, pull=pull, mapped=mapped)

    def shared(self, xs: Sequence[Var]) -> SharedContraction | None:
        """The same contraction where its gate (attention's weights) takes a share, too; None: it has no gate that could."""
        slot = self.slots[1 - self.signal]
        if isinstance(slot, str) or not xs[slot].live or xs[slot].mask or self.addend is not None:
            return None
        return SharedContraction(parameters=self.parameters, base=self, single=not self.sums(xs))


@dataclass(frozen=True, eq=False, kw_only=True)
class SharedContraction(Opaque):
    """Σ_k gate_ik · signal_kj under a gate rule other than "all": the epsilon rule on the sum, then every product shares."""

    base: Contracted
    single: bool

    @property
    def title(self) -> str:
        return "Weighted"

    def decision(self, xs: Sequence[Var]) -> str:
        return self.base.decision(xs)

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return [s for s in self.base.slots if isinstance(s, int)]

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return self.base.infer(xs)

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return self.base.run(xs, p)

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        base, contraction = self.base, self.base.contraction
        a, b = fill(base.slots, trace.inputs, trace.parameters)
        s, stabilizer = stabilized(trace.outputs[0], rs[0], 0.0 if self.single else rule.epsilon)
        s = base.alpha * s
        absorbed = {"stabilizer": stabilizer}
        if rule.gates == "half":
            first, second = a * contraction.to_a(s, a, b) / 2, b * contraction.to_b(s, a, b) / 2
        elif isinstance(contraction, MatrixProduct) and a.shape.rank > 1 and b.shape.rank > 1:
            first, second, lost = self._by_product(rule, contraction, a, b, s)
            absorbed["rule"] = lost
        else:
            raise RuleError(f"gate rule {rule.gates!r} is for products and MatMul; of an Einsum or a vector only 'half' and 'all'")
        shares: list[Tensor | None] = [None] * len(trace.inputs)
        for slot, part in zip(base.slots, (first, second), strict=True):
            before = shares[int(slot)]
            shares[int(slot)] = part if before is None else before + part
        return Share(shares, absorbed)

    def _by_product(self, rule: Any, contraction: MatrixProduct, a: Tensor, b: Tensor, s: Tensor) -> Any:
        """Every product a_ik b_kj s_ij shares by its two values: column by column, without a tensor (I, K, J)."""
        rows = tf.linalg.matrix_transpose(a) if contraction.transpose_a else a  # (…, I, K)
        columns = b if contraction.transpose_b else tf.linalg.matrix_transpose(b)  # (…, J, K)
        gate_first = self.base.signal == 1

        def column(j: Tensor) -> Any:
            value = tf.gather(columns, [j], axis=-2)  # (…, 1, K)
            product = rows * value * tf.gather(s, [j], axis=-1)
            gate, signal = (rows, value) if gate_first else (value, rows)
            to_gate, to_signal, lost = rule.split(gate, signal, product)
            to_a, to_b = (to_gate, to_signal) if gate_first else (to_signal, to_gate)
            gone = tf.zeros_like(product) if lost is None else lost
            return unbroadcast(to_a, rows), unbroadcast(to_b, value), tf.reduce_sum(gone, -1, keepdims=True)

        def turn(j: Tensor, total: Tensor, parts: Any, gone: Any) -> Any:
            to_a, to_b, lost = column(j)
            return j + 1, total + to_a, parts.write(j, to_b), gone.write(j, lost)

        count = tf.shape(s)[-1]
        arrays = [tf.TensorArray(s.dtype, size=count, infer_shape=False) for _ in range(2)]
        _, first, parts, gone = tf.while_loop(lambda j, *_: j < count, turn, (tf.constant(0), tf.zeros_like(rows), *arrays))
        rank_b, rank_s = b.shape.rank, s.shape.rank
        second = tf.reshape(parts.stack(), tf.concat([[count], tf.shape(columns)[:-2], tf.shape(columns)[-1:]], 0))  # (J, …, K)
        second = tf.transpose(second, [*range(1, rank_b - 1), 0, rank_b - 1])
        second = second if contraction.transpose_b else tf.linalg.matrix_transpose(second)
        first = tf.linalg.matrix_transpose(first) if contraction.transpose_a else first
        lost = tf.transpose(tf.reshape(gone.stack(), tf.concat([[count], tf.shape(s)[:-1]], 0)), [*range(1, rank_s), 0])
        return first, second, lost


@dataclass(frozen=True, eq=False, kw_only=True)
class ContractedSignals(Opaque):
    """alpha · contraction(a, b) + factor · c of two signals: the epsilon rule on the sum, half of every product to each factor."""

    contraction: Contraction
    single: bool = False  # every entry is one product: no sum to stabilize
    alpha: float = 1.0
    addend: Addend | None = None

    @property
    def title(self) -> str:
        return "Product"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", xs[0].dtype, self.contraction.dims(xs[0].dims, xs[1].dims))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        product = self.contraction(xs[0], xs[1])
        product = product if self.alpha == 1 else self.alpha * product
        y = product
        if self.addend:
            slot, factor = self.addend
            y = product + factor * (p[slot] if isinstance(slot, str) else xs[slot])
        return Trace(xs, [y], p, {"product": product})

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        a, b = trace.inputs[:2]
        product = trace.saved["product"]
        r: Tensor = rs[0]
        shares: list[Tensor | None] = [None] * len(trace.inputs)
        absorbed: dict[str, Tensor] = {}
        if self.addend:  # as a sum behind the product
            slot, factor = self.addend
            s, absorbed["stabilizer"] = rule.ratio(trace.outputs[0], r)
            r = product * s
            if isinstance(slot, str):
                absorbed["bias"] = factor * trace.parameters[slot] * s
            else:
                c = trace.inputs[slot]
                shares[slot] = c * unbroadcast(factor * s, c)
        if self.single:
            half = r / 2
            first, second = (self.contraction.to_a(half, a, tf.ones_like(b)), self.contraction.to_b(half, tf.ones_like(a), b))
        else:
            s, stabilizer = rule.ratio(product, r)
            s = self.alpha * s / 2
            first, second = a * self.contraction.to_a(s, a, b), b * self.contraction.to_b(s, a, b)
            absorbed["stabilizer"] = absorbed["stabilizer"] + stabilizer if "stabilizer" in absorbed else stabilizer
        for index, share in enumerate((first, second)):
            shares[index] = share if shares[index] is None else shares[index] + share
        return Share(shares, absorbed)


def contracted(contraction: Contraction, A: Any, B: Any, *, alpha: float = 1.0, C: Any = None, beta: float = 1.0) -> Any:
    """The layer of a contraction and its dynamic inputs, whatever is constant, a gate, or carries no relevance."""
    slots, constants, inputs = mixed(A, B, C if beta else None)
    names = {slot: "bias" if slot == "c2" else "weight" for slot in constants}
    parameters = {names[slot]: value for slot, value in constants.items()}
    first, second, *third = [names.get(str(slot), slot) for slot in slots]
    addend = (third[0], beta) if third else None
    live = [isinstance(x, Var) and x.live for x in (A, B)]
    if all(live) and not (A.is_gate or B.is_gate):
        single = not contraction.sums(A.dims, B.dims)
        return ContractedSignals(parameters=parameters, contraction=contraction, single=single, alpha=alpha, addend=addend), inputs
    if all(live):
        signal = 1 if A.is_gate else 0  # gate × gate: the second operand is the signal
    elif any(live):
        signal = live.index(True)
    else:
        signal = 1 if isinstance(B, Var) else 0
    layer = Contracted(
        parameters=parameters, contraction=contraction, slots=(first, second), signal=signal, alpha=alpha, addend=addend
    )
    return layer, inputs


@importer("MatMul", since=1)
def matmul(A: Any, B: Any) -> Any:
    if isinstance(A, Var) and isinstance(B, np.ndarray) and B.ndim == 2:
        return (Lookup if is_code(A) else Linear)(parameters={"weight": B}), (A,)
    return contracted(MatrixProduct(), A, B)
