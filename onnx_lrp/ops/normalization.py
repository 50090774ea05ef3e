"""Normalizations: affine terms of their block, with the normalizer as a coefficient.

What divides is a constant for relevance and what is subtracted as the mean is linear (Ali et al. 2022, *XAI for Transformers*,
section 3: LRP-LN), so a fused node shares as its decomposition into ReduceMean, Sub, Sqrt, Div, Mul and Add does.
BatchNormalization's statistics are constants anyway. Statistics of the batch make samples depend on each other: such a node
runs forward, and no relevance passes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper

from .._lazy import tf
from ..dims import Dim
from ..graph import Node
from ..layer import Affine, Trace, fill, mixed
from ..linear import LinearMap
from ..registry import Var, importer
from ..rewrite import Rewriting, rewriter
from ..spelling import Spelling

__all__ = ["ChannelAffine", "Normalized", "Scaled"]

Tensor = Any


def _along(v: Tensor, x: Tensor) -> Tensor:
    """v (C,) shaped to meet axis 1 of x (B, C, …); a single axis is the channel. v of more axes meets them all."""
    return tf.reshape(v, [-1] + [1] * max(x.shape.rank - 2, 0)) if v.shape.rank < 2 else v


@dataclass(frozen=True, eq=False, kw_only=True)
class ChannelAffine(Affine):
    """scale · (x − mean) / √(var + epsilon) + shift, channels on axis 1. Slots: x, scale, shift, mean, var, each (C,) but x.

    Where all of them are constant: the two parameters scale and shift.
    """

    slots: tuple[int | str, ...] = ()
    epsilon: float = 0.0

    @property
    def title(self) -> str:
        return "BatchNormalization"

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", xs[0].dtype, xs[0].dims)]

    def _factors(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(scale, shift) shaped to meet x."""
        if not self.slots:
            return _along(p["scale"], xs[0]), _along(p["shift"], xs[0])
        x, scale, shift, mean, var = fill(self.slots, xs, p)
        factor = scale / tf.sqrt(var + tf.cast(self.epsilon, var.dtype))
        return _along(factor, x), _along(shift - factor * mean, x)

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        scale, shift = self._factors(xs, p)
        return Trace(xs, [xs[0] * scale + shift], p)

    def linear(self, trace: Trace) -> LinearMap:
        return _scaling(self._factors(trace.inputs, trace.parameters)[0], len(trace.inputs))

    def bias(self, trace: Trace) -> Tensor | None:
        return self._factors(trace.inputs, trace.parameters)[1]


def _scaling(scale: Tensor, count: int = 1) -> LinearMap:
    """The first of ``count`` inputs times a coefficient."""
    return LinearMap(
        call=lambda xs: scale * xs[0],
        pull=lambda s: [scale * s, *[None] * (count - 1)],
        mapped=lambda f: _scaling(f(scale), count),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Normalized(Affine):
    """scale · (x − mean) · normalizer + shift; parameters scale and shift are optional.

    The statistics are taken over ``axes`` (``from_axis``: over all axes from it on), inside each of ``groups`` groups of
    channels if that is given: x (B, C, *S) as (B, groups, rest). ``channels``: scale and shift lie along axis 1, else they
    broadcast. ``momentum``: two more outputs (C,), that share of the parameters running_mean and running_var and the rest of this
    call's statistics. ``batch``: why relevance may not pass, where the statistics are those of all samples.
    """

    op: str
    kind: str  # "variance": 1/√(var + ε), "deviation": 1/(√var + ε), "rms": 1/√(mean x² + ε)
    epsilon: float = 0.0
    axes: tuple[int, ...] = ()
    from_axis: int | None = None
    groups: int | None = None
    channels: bool = False
    momentum: float | None = None
    batch: str = ""

    @property
    def title(self) -> str:
        return self.op

    def barrier(self, output: int) -> str:
        return "its running statistics are explained: they belong to no sample" if output else self.batch

    @property
    def centred(self) -> bool:
        return self.kind != "rms"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        whole = Var("", x.dtype, x.dims)
        if self.momentum is None:
            return [whole]
        return [whole, *(Var("", x.dtype, None if x.dims is None else (x.dims[1],)) for _ in range(2))]

    def sums(self, xs: Sequence[Var]) -> bool:
        return self.centred or "shift" in self.parameters

    def _over(self, x: Tensor) -> list[int]:
        if self.groups is not None:
            return [2]
        rank = x.shape.rank
        return [a % rank for a in self.axes] if self.from_axis is None else list(range(self.from_axis % rank, rank))

    def _grouped(self, x: Tensor) -> Tensor:
        return x if self.groups is None else tf.reshape(x, [tf.shape(x)[0], self.groups, -1])

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x = self._grouped(xs[0])
        over = self._over(x)
        epsilon = tf.cast(self.epsilon, x.dtype)
        mean: Any = 0.0
        if self.centred:
            mean = tf.reduce_mean(x, over, keepdims=True)
            x -= mean
        power = tf.reduce_mean(x * x, over, keepdims=True)
        inverse = 1 / (tf.sqrt(power) + epsilon) if self.kind == "deviation" else 1 / tf.sqrt(power + epsilon)
        y = tf.reshape(x * inverse, tf.shape(xs[0]))
        if "scale" in p:
            y *= self._shaped(p["scale"], y)
        if "shift" in p:
            y += self._shaped(p["shift"], y)
        outputs = [y]
        if self.momentum is not None:
            kept = self.momentum
            for name, now in (("running_mean", mean), ("running_var", power)):
                outputs.append(kept * p[name] + (1 - kept) * tf.reshape(now, [-1]))
        return Trace(xs, outputs, p, {"inverse": inverse})

    def _shaped(self, v: Tensor, x: Tensor) -> Tensor:
        return _along(v, x) if self.channels else v

    def linear(self, trace: Trace) -> LinearMap:
        (x,) = trace.inputs
        scale = trace.parameters.get("scale")
        return self._map(x, None if scale is None else self._shaped(scale, x), trace.saved["inverse"], (1.0, -1.0, None))

    def _map(self, like: Tensor, scale: Tensor | None, inverse: Tensor, weights: tuple[Any, Any, Any]) -> LinearMap:
        """``weights``: of x, of the mean, and of each entry in the mean (None: 1 / their number)."""
        own, of_mean, entry = weights
        if entry is None:
            grouped = self._grouped(like)
            entry = tf.cast(tf.size(inverse), like.dtype) / tf.cast(tf.size(grouped), like.dtype)

        def centre(x: Tensor) -> Tensor:  # symmetric: its own transpose
            if not self.centred:
                return x
            return own * x + of_mean * (entry * tf.reduce_sum(x, self._over(x), keepdims=True))

        def call(xs: Sequence[Tensor]) -> Tensor:
            x = xs[0] + tf.zeros_like(like)
            y = tf.reshape(centre(self._grouped(x)) * inverse, tf.shape(like))
            return y if scale is None else y * scale

        def pull(s: Tensor) -> Sequence[Tensor]:
            s = s + tf.zeros_like(like)
            s = self._grouped(s if scale is None else s * scale)
            return [tf.reshape(centre(s * inverse), tf.shape(like))]

        def mapped(f: Any) -> LinearMap:
            numbers = [f(tf.cast(n, like.dtype)) for n in (own, of_mean, entry)]
            return self._map(like, None if scale is None else f(scale), f(inverse), (numbers[0], numbers[1], numbers[2]))

        return LinearMap(call=call, pull=pull, mapped=mapped)

    def bias(self, trace: Trace) -> Tensor | None:
        shift = trace.parameters.get("shift")
        return None if shift is None else self._shaped(shift, trace.inputs[0])


@dataclass(frozen=True, eq=False, kw_only=True)
class Scaled(Affine):
    """x times a normalizer computed from it: a p-norm over one axis, or LRN's sum over neighbouring channels. No sum."""

    op: str
    axis: int = 1
    p: int = 2
    size: int = 0
    alpha: float = 0.0
    beta: float = 0.0
    bias_: float = 0.0

    @property
    def title(self) -> str:
        return self.op

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", xs[0].dtype, xs[0].dims)]

    def sums(self, xs: Sequence[Var]) -> bool:
        return False

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        factor = self._neighbours(x) if self.size else self._norm(x)
        return Trace(xs, [x * factor], p, {"factor": factor})

    def _norm(self, x: Tensor) -> Tensor:
        total = tf.reduce_sum(tf.abs(x) if self.p == 1 else x * x, self.axis, keepdims=True)
        return tf.math.divide_no_nan(tf.ones_like(total), total if self.p == 1 else tf.sqrt(total))

    def _neighbours(self, x: Tensor) -> Tensor:
        """(bias + alpha / size · Σ x²)^−beta over ``size`` channels around each."""
        before = (self.size - 1) // 2
        pads = [(before, self.size - 1 - before) if a == 1 else (0, 0) for a in range(x.shape.rank)]
        squares = tf.pad(x * x, pads)
        channels = tf.shape(x)[1]
        total = sum(squares[:, k : k + channels] for k in range(self.size))
        return tf.pow(tf.cast(self.bias_, x.dtype) + tf.cast(self.alpha / self.size, x.dtype) * total, -self.beta)

    def linear(self, trace: Trace) -> LinearMap:
        return _scaling(trace.saved["factor"])


def _batch_norm(X: Any, scale: Any, B: Any, mean: Any, var: Any, epsilon: float, node: Any) -> Any:
    if any(node.outputs[1:]):
        raise node.refuse("its running statistics are read: export the model in inference mode")
    if not isinstance(X, Var) or any(isinstance(v, Var) and v.live for v in (scale, B, mean, var)):
        raise node.refuse("scale, shift or statistics carry relevance; only the data may")
    given = {v.shape for v in (scale, B, mean, var) if isinstance(v, np.ndarray)}
    if len(given) > 1 or (node.opset >= 9 and any(len(shape) != 1 for shape in given)):  # before: of one sample's axes
        raise node.refuse(f"scale, shift and statistics have shapes {sorted(given)}; expected one entry a channel")
    slots, parameters, inputs = mixed(X, scale, B, mean, var)
    if len(inputs) > 1:
        return ChannelAffine(parameters=parameters, slots=slots, epsilon=epsilon), inputs
    factor = scale.astype(np.float64) / np.sqrt(var.astype(np.float64) + epsilon)
    return ChannelAffine(parameters={"scale": factor, "shift": B - factor * mean}), (X,)


@importer("BatchNormalization", since=7)
def batch_normalization_7(
    X: Any, scale: Any, B: Any, mean: Any, var: Any, *, epsilon: float = 1e-5, momentum: float = 0.9, spatial: int = 1, node: Any
) -> Any:
    return _batch_norm(X, scale, B, mean, var, epsilon, node)  # spatial=0: the parameters have the axes of one sample


@importer("BatchNormalization", since=14)
def batch_normalization(
    X: Any,
    scale: Any,
    B: Any,
    input_mean: Any,
    input_var: Any,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    node: Any,
) -> Any:
    if not training_mode:
        return _batch_norm(X, scale, B, input_mean, input_var, epsilon, node)
    parameters = _parameters(node, X, scale, B)
    read = any(node.outputs[1:])
    if read:
        parameters |= _parameters(node, X, input_mean, input_var, names=("running_mean", "running_var"))
    dims = _ranked(X, node)
    return Normalized(
        parameters=parameters,
        op=node.node.op,
        kind="variance",
        epsilon=epsilon,
        axes=(0, *range(2, len(dims))),
        channels=True,
        momentum=momentum if read else None,
        batch=_batch(dims, "training_mode is set, so that samples depend on each other: export the model in inference mode"),
    ), (X,)


def _ranked(X: Any, node: Any) -> Sequence[Dim]:
    if X.dims is None:
        raise node.refuse("the number of axes is unknown")
    return X.dims


def _batch(dims: Sequence[Dim], why: str) -> str:
    """Why no relevance may pass what is normalized over axis 0; a batch that the file fixes to one sample is only that sample."""
    return "" if dims[0].size == 1 else why


def _parameters(
    node: Any, X: Any, first: Any, second: Any = None, *, names: Sequence[str] = ("scale", "shift")
) -> dict[str, np.ndarray]:
    if any(isinstance(v, Var) for v in (first, second)) or not isinstance(X, Var):
        raise node.refuse(f"{' and '.join(names)} must be constant, and the data computed")
    return {k: v for k, v in zip(names, (first, second), strict=True) if v is not None}


@rewriter("LayerNormalization", domain="")
def layer_norm_statistics(node: Node, graph: Rewriting) -> list[Node]:
    """Its mean and inverse deviation written out, if it returns them: relevance at a mean is linear, the other one's a constant."""
    if not any(node.outputs[1:]):
        return []
    own = dict(node.attributes)
    axis, epsilon, stash = own.get("axis", -1), own.get("epsilon", 1e-5), own.get("stash_type", 1)
    make = Spelling(graph)
    make(node.op, *node.inputs, to=graph.output(0), version=node.version, **own)
    make.made[-1] = dataclasses.replace(make.made[-1], name=node.name)  # weights and messages go by it
    x = make.cast(graph.input(0), helper.tensor_dtype_to_np_dtype(stash))
    if axis < 0:
        axes = graph.constant(range(axis, 0), np.int64)
    else:
        rank = make("Size", make("Shape", x))
        axes = make("Range", graph.constant(axis, np.int64), rank, graph.constant(1, np.int64))
    mean = make("ReduceMean", x, axes, to=graph.output(1))
    if graph.output(2):
        centred = make("Sub", x, mean)
        power = make("ReduceMean", make("Mul", centred, centred), axes)
        make("Reciprocal", make("Sqrt", make("Add", power, graph.constant(epsilon, np.float32))), to=graph.output(2))
    return make.made


@importer("LayerNormalization", since=17)
def layer_normalization(
    X: Any, Scale: Any, B: Any = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1, node: Any
) -> Any:
    parameters = _parameters(node, X, Scale, B)
    return Normalized(parameters=parameters, op=node.node.op, kind="variance", epsilon=epsilon, from_axis=axis), (X,)


@importer("RMSNormalization", since=23)
def rms_normalization(X: Any, scale: Any, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1, node: Any) -> Any:
    parameters = _parameters(node, X, scale)
    return Normalized(parameters=parameters, op=node.node.op, kind="rms", epsilon=epsilon, from_axis=axis), (X,)


@importer("InstanceNormalization", since=6)
def instance_normalization(input: Any, scale: Any, B: Any, *, epsilon: float = 1e-5, node: Any) -> Any:
    parameters = _parameters(node, input, scale, B)
    return Normalized(parameters=parameters, op=node.node.op, kind="variance", epsilon=epsilon, from_axis=2, channels=True), (
        input,
    )


@importer("GroupNormalization", since=18)
def group_normalization_18(X: Any, scale: Any, bias: Any, *, epsilon: float = 1e-5, num_groups: int, node: Any) -> Any:
    parameters = _parameters(node, X, scale, bias)
    channels = None if X.dims is None else X.dims[1].size
    if channels is None:
        raise node.refuse("the number of channels is unknown")
    spread = {k: np.repeat(v, channels // num_groups) for k, v in parameters.items()}  # one entry a group until opset 21
    return _groups(spread, num_groups, epsilon, node), (X,)


@importer("GroupNormalization", since=21)
def group_normalization(
    X: Any, scale: Any, bias: Any, *, epsilon: float = 1e-5, num_groups: int, stash_type: int = 1, node: Any
) -> Any:
    return _groups(_parameters(node, X, scale, bias), num_groups, epsilon, node), (X,)


def _groups(parameters: dict[str, np.ndarray], groups: int, epsilon: float, node: Any) -> Normalized:
    return Normalized(parameters=parameters, op=node.node.op, kind="variance", epsilon=epsilon, groups=groups, channels=True)


@importer("MeanVarianceNormalization", since=9)
def mean_variance_normalization(X: Any, *, axes: Any = None, node: Any) -> Any:
    dims = _ranked(X, node)
    over = tuple(a % len(dims) for a in axes or (0, 2, 3))
    batch = _batch(dims, "it normalizes over axis 0, so that samples depend on each other") if 0 in over else ""
    return Normalized(op=node.node.op, kind="deviation", epsilon=1e-9, axes=over, batch=batch), (X,)


@importer("LpNormalization")
def lp_normalization(input: Any, *, axis: int = -1, p: int = 2, node: Any) -> Any:
    if p not in (1, 2):
        raise node.refuse(f"p={p} is not read")
    return Scaled(op=node.node.op, axis=axis, p=p), (input,)


@importer("LRN")
def lrn(X: Any, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int, node: Any) -> Any:
    return Scaled(op=node.node.op, alpha=alpha, beta=beta, bias_=bias, size=size), (X,)
