"""The contract between layers, rules and the program, and the families that keep most ops to a few lines.

A layer knows how to run forward and how relevance or, inside an affine block, the block's cotangent ``s`` goes back. It never
knows which rule it gets.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._lazy import tf
from .dims import Dim, broadcast
from .linear import LinearMap
from .registry import Var

__all__ = [
    "Affine",
    "Elementwise",
    "Layer",
    "Opaque",
    "PerSample",
    "Plain",
    "Routing",
    "Share",
    "Trace",
    "coefficient",
    "fill",
    "known",
    "mixed",
    "unbroadcast",
]

Tensor = Any


@dataclass(frozen=True, eq=False)
class Trace:
    """What a forward step leaves for the way back."""

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    parameters: Mapping[str, Tensor]
    saved: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class PerSample:
    """An absorbed amount already summed per sample: shape (B,)."""

    amount: Tensor


@dataclass(frozen=True, eq=False)
class Share:
    """Where relevance went: one entry an input (None: nothing), and what ended here by kind.

    ``states``: what passed the states inside, where ``"keep"`` in ``trace.saved`` asks for it.
    """

    inputs: Sequence[Tensor | None]
    absorbed: Mapping[str, Tensor | PerSample] = field(default_factory=dict)
    states: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer(abc.ABC):
    """A canonical layer. ``parameters``: numpy arrays; float ones are cast to the precision of the run."""

    parameters: Mapping[str, np.ndarray] = field(default_factory=dict)

    @abc.abstractmethod
    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        """Dtype, dims, interval of every output."""

    @abc.abstractmethod
    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        """The forward pass; ``p`` are the parameters as tensors."""

    def tensors(self) -> Mapping[str, np.ndarray]:
        """The parameters in the form in which :meth:`run` takes them."""
        return self.parameters

    @property
    def matrices(self) -> Sequence[str]:
        """Which of :meth:`tensors` are only multiplied by, in products that may round them (see :mod:`onnx_lrp.precision`)."""
        return ()

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        """Inputs that relevance may go to."""
        return [i for i, x in enumerate(xs) if x.is_float]

    def barrier(self, output: int) -> str:
        """Why no relevance may pass from this output to the inputs, although the layer runs; empty: it may."""
        return ""

    def names(self, outputs: Sequence[str]) -> Sequence[str]:
        """Names of all that it makes, given the outputs of its node: those, unless it makes tensors beside them."""
        return outputs

    def within(self, trace: Trace) -> Tensor | None:
        """Whether all indices and lengths that it reads by exist, a bool tensor; None: it reads by none.

        In place of an entry that does not exist TensorFlow may read another one: the nearest, or one of the next row.
        """
        return None

    def decision(self, xs: Sequence[Var]) -> str:
        """What was decided about its operands, for ``summary()``: who is the gate, the mask, the normalizer."""
        return ""

    @property
    def title(self) -> str:
        return type(self).__name__


@dataclass(frozen=True, eq=False, kw_only=True)
class Plain(Layer):
    """Computes something that carries no relevance: shapes, comparisons, masks."""

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Elementwise(Layer):
    """A unary activation: relevance passes unchanged to its first input (Bach et al. 2015, section 2.4)."""

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Routing(Layer):
    """Moves, selects or repeats entries: relevance and cotangents follow the transposed index map."""

    @abc.abstractmethod
    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """The transpose of the index map, applied to one tensor an output (None: zero)."""

    def lost(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[tuple[Tensor, Tensor]]:
        """(value, what arrives there) of every constant among the operands."""
        return ()

    def move(self, trace: Trace, xs: Sequence[Tensor], *, constants: bool) -> Sequence[Tensor]:
        """The same index map on other values; constants among the operands count as zero unless ``constants``."""
        p = trace.parameters
        return self.run(xs, p if constants else {k: tf.zeros_like(v) if v.dtype.is_floating else v for k, v in p.items()}).outputs


@dataclass(frozen=True, eq=False, kw_only=True)
class Affine(Layer):
    """Linear in its signal inputs. Neighbours become one block with one stabilizer (:mod:`onnx_lrp.affine`)."""

    @property
    def operands(self) -> Sequence[int]:
        """Inputs that constant weights are applied to: a block's branch ends there."""
        return ()

    def sums(self, xs: Sequence[Var]) -> bool:
        """False for a product or a reduction over one entry, which pass relevance unchanged."""
        return True

    @abc.abstractmethod
    def linear(self, trace: Trace) -> LinearMap:
        """The linear part, without bias."""

    def bias(self, trace: Trace) -> Tensor | None:
        """The constant part, broadcastable to the output; None if there is none."""
        return None


@dataclass(frozen=True, eq=False, kw_only=True)
class Opaque(Layer):
    """Anything with a relevance of its own: recurrent layers, products of two signals."""

    def lost_as(self, index: int) -> str:
        """The kind under which relevance is absorbed that arrives at an input off the path."""
        return "constant"

    @abc.abstractmethod
    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        """Distribute the relevance ``rs`` (one an output, None: zero) to the inputs."""


def coefficient(factor: Var, signal: Var | None = None) -> str:
    """What a computed factor of a product is."""
    if factor.mask:
        return f"mask {factor.name}"
    if not factor.live:
        return f"constant {factor.name}"
    both = ", a gate itself" if signal is not None and signal.is_gate else ""
    return f"gate {factor.name}, signal {signal.name}{both}" if signal is not None else f"gate {factor.name}"


def mixed(*operands: Any) -> tuple[tuple[int | str, ...], dict[str, np.ndarray], tuple[Var, ...]]:
    """Split operands into slots (an input's index or a parameter's name), parameters and dynamic inputs."""
    slots: list[int | str] = []
    parameters: dict[str, np.ndarray] = {}
    inputs: list[Var] = []
    for index, operand in enumerate(operands):
        if isinstance(operand, Var):
            slots.append(len(inputs))
            inputs.append(operand)
        elif operand is not None:
            slots.append(f"c{index}")
            parameters[f"c{index}"] = np.asarray(operand)
    return tuple(slots), parameters, tuple(inputs)


def fill(slots: Sequence[int | str], xs: Sequence[Any], p: Mapping[str, Any]) -> list[Any]:
    """The operands of a mixed layer in the node's order."""
    return [p[s] if isinstance(s, str) else xs[s] for s in slots]


def known(operand: Any) -> np.ndarray | None:
    """The entries of an integer operand: a constant, or a tensor of shapes that are all fixed. None: known at run time only."""
    if not isinstance(operand, Var):
        return None if operand is None else np.asarray(operand)
    if operand.value is None:
        return None
    entries = [e.size if isinstance(e, Dim) else int(e) for e in operand.value.reshape(-1)]
    return None if None in entries else np.asarray(entries, np.int64).reshape(operand.value.shape)


def constant_dims(array: np.ndarray) -> tuple[Dim, ...]:
    """Dims of a constant: all its own."""
    from .dims import fresh

    return tuple(fresh(n) for n in np.shape(array))


def operand_dims(slots: Sequence[int | str], xs: Sequence[Var], p: Mapping[str, np.ndarray]) -> tuple[Dim, ...] | None:
    """Broadcast dims of a mixed layer's operands, None if a rank is unknown."""
    shapes = [constant_dims(p[s]) if isinstance(s, str) else xs[s].dims for s in slots]
    if any(s is None for s in shapes):
        return None
    return broadcast([s for s in shapes if s is not None])


def unbroadcast(x: Tensor, like: Tensor) -> Tensor:
    """Sum ``x`` over the axes along which ``like`` was repeated to get x's shape."""
    static, target = x.shape, like.shape
    if static.is_fully_defined() and target.is_fully_defined():
        if static == target:
            return x
        lead = len(static) - len(target)
        axes = [*range(lead), *(lead + i for i, n in enumerate(target) if n == 1 and static[lead + i] != 1)]
        return tf.reshape(tf.reduce_sum(x, axes), target)
    if x is like:
        return x
    rows, shape = tf.shape(x), tf.shape(like)
    axes = tf.raw_ops.BroadcastGradientArgs(s0=shape, s1=rows)[0]
    return tf.reshape(tf.reduce_sum(x, axes), shape)
