"""Quantized tensors: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear, and the integer products.

A quantized signal is held unrounded: x / scale + zero point, clipped to what its integers hold. So everything that moves
quantized entries, pads them or compares them works as it stands, relevance passes the clip as any saturation, and the network
explained is the dequantized one, in which a sample does not depend on its batch mates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from .._lazy import tf
from ..graph import Node
from ..layer import Elementwise, Layer, Trace
from ..registry import ANY, Var, importer, is_float
from ..rewrite import MICROSOFT, Rewriting, rewriter
from ..spelling import Spelling
from .reshape import Same

__all__ = ["Dequantize", "Quantize", "dequantize", "dequantized", "limits", "rounded", "rounds"]

Tensor = Any
HELD = "~held"  # ends the names of such nodes
# ops whose results onnxruntime rounds; every other name that begins with one of these does too
ROUNDING = ("QuantizeLinear", "DynamicQuantize", "QLinear", "QGemm", "QAttention")


def rounds(graph: onnx.GraphProto) -> bool:
    """Whether anything but weights is quantized in a graph, those inside its nodes included."""

    def inside(node: onnx.NodeProto) -> bool:
        if node.op_type == "MatMulNBits":
            return any(a.name == "accuracy_level" and a.i == 4 for a in node.attribute)  # 8-bit activations
        return node.op_type.startswith(ROUNDING) or any(rounds(a.g) for a in node.attribute if a.type == a.GRAPH)

    return any(inside(n) for n in graph.node)


def limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    """The least and the largest number of an integer or 8-bit float type."""
    import ml_dtypes

    info = ml_dtypes.finfo(dtype) if is_float(dtype) else ml_dtypes.iinfo(dtype)
    return float(info.min), float(info.max)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Scaled(Elementwise):
    """parameters: scale, zero, of one entry or one a position of ``axis``."""

    axis: int

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if xs[0].is_float else ()

    def along(self, p: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """(scale, zero) shaped to meet x."""
        shape = [1] * x.shape.rank
        if self.parameters["scale"].size > 1:
            shape[self.axis % x.shape.rank] = -1
        return tf.reshape(p["scale"], shape), tf.reshape(p["zero"], shape)

    def _info(self, x: Var, ends: Iterable[float], per_tensor: bool) -> Var:
        low, high = ends if per_tensor else ANY
        dtype = x.dtype if x.is_float else np.dtype(np.float32)
        return dataclasses.replace(x, dtype=dtype, value=None, interval=(low, high), origin=x.origin | {x.name})


@dataclass(frozen=True, eq=False, kw_only=True)
class Quantize(_Scaled):
    """x / scale + zero, clipped to [low, high], not rounded.

    The clip does not count as a bound: a signal calibrated to [0, 1] is no gate. ``rounded``: round all the same.
    """

    low: float
    high: float
    rounded: bool = False

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        scale, zero = (self.parameters[k].reshape(-1) for k in ("scale", "zero"))
        return [self._info(xs[0], (v / float(scale[0]) + float(zero[0]) for v in xs[0].interval), scale.size == 1)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        scale, zero = self.along(p, x)
        y = (x if x.dtype.is_floating else tf.cast(x, scale.dtype)) / scale + zero
        y = tf.round(y) if self.rounded else y
        return Trace(xs, [tf.clip_by_value(y, tf.cast(self.low, y.dtype), tf.cast(self.high, y.dtype))], p)


@dataclass(frozen=True, eq=False, kw_only=True)
class Dequantize(_Scaled):
    """(x - zero) · scale of a quantized signal, or of integers that carry none."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        scale, zero = (self.parameters[k].reshape(-1) for k in ("scale", "zero"))
        return [self._info(xs[0], ((v - float(zero[0])) * float(scale[0]) for v in xs[0].interval), scale.size == 1)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        scale, zero = self.along(p, x)
        return Trace(xs, [((x if x.dtype.is_floating else tf.cast(x, scale.dtype)) - zero) * scale], p)


def _parameters(scale: Any, zero: Any, block_size: int, node: Any) -> dict[str, np.ndarray]:
    if isinstance(scale, Var) or isinstance(zero, Var):
        raise node.refuse("scale and zero point must be constant")
    if block_size or np.ndim(scale) > 1:
        raise node.refuse("quantized in blocks; of computed tensors that is not read")
    # a float array takes the precision of the run
    zeros = np.zeros(1) if zero is None else np.asarray(zero).astype(np.float64).reshape(-1)
    return {"scale": np.asarray(scale), "zero": np.broadcast_to(zeros if zeros.size > 1 else zeros[0], np.shape(scale))}


def quantize_linear(
    x: Any,
    y_scale: Any,
    y_zero_point: Any = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
    node: Any,
) -> Any:
    kind = np.dtype(np.uint8) if not output_dtype else helper.tensor_dtype_to_np_dtype(output_dtype)
    if y_zero_point is not None and not isinstance(y_zero_point, Var):
        kind = y_zero_point.dtype
    low, high = limits(kind)
    return Quantize(parameters=_parameters(y_scale, y_zero_point, block_size, node), axis=axis, low=low, high=high), (x,)


def dequantize_linear(
    x: Any, x_scale: Any, x_zero_point: Any = None, *, axis: int = 1, block_size: int = 0, output_dtype: int = 0, node: Any
) -> Any:
    if not isinstance(x, Var):
        raise node.refuse("scale and zero point must be constant")
    return Dequantize(parameters=_parameters(x_scale, x_zero_point, block_size, node), axis=axis), (x,)


for _domain in ("", MICROSOFT):
    importer("QuantizeLinear", since=1 if _domain else 10, domain=_domain)(quantize_linear)
    importer("DequantizeLinear", since=1 if _domain else 10, domain=_domain)(dequantize_linear)


@dataclass(frozen=True, eq=False, kw_only=True)
class Dynamic(Same):
    """x, rounded as onnxruntime does where it quantizes dynamically: to 255 steps between its extremes, and zero."""

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        low, high = tf.minimum(tf.reduce_min(x), 0), tf.maximum(tf.reduce_max(x), 0)
        scale = tf.where(high > low, (high - low) / 255, tf.ones_like(low))
        return Trace(xs, [tf.round(x / scale) * scale], p)


def rounded(node: Node, layer: Layer) -> Layer:
    """The layer as onnxruntime has it, where that rounds."""
    if isinstance(layer, Quantize):
        return dataclasses.replace(layer, rounded=True)
    return Dynamic() if node.name.endswith(HELD) else layer


# Everything else is rewritten, and stands for itself: onnxruntime rounds where it finds the file's own nodes, but their neighbours
# have been rewritten, too.


def dequantized(array: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, axis: int) -> np.ndarray:
    """(array − zero) · scale in float32, as onnxruntime makes weights; scale and zero of one entry, or along ``axis``."""

    def along(v: Any) -> np.ndarray:
        v = np.asarray(v)
        return v.reshape([-1 if i == axis % array.ndim else 1 for i in range(array.ndim)]) if v.size > 1 else v.reshape(())

    steps = array.astype(np.int64) - (0 if zero is None else along(zero).astype(np.int64))
    return (steps * along(scale).astype(np.float32)).astype(np.float32)


def dequantize(make: Spelling, x: str, scale: str, zero: str, *, axis: int = 0) -> str:
    """The tensor in floating point, a constant where it is one. ``scale`` "": 1."""
    graph = make.graph
    factor = graph.value(scale) if scale else np.ones((), np.float32)
    offset = graph.value(zero) if zero else None
    if factor is None or (zero and offset is None):
        raise graph.refuse("scale and zero point must be constant")
    array = graph.value(x)
    if array is not None:
        return graph.constant(dequantized(array, factor, offset, axis))
    if np.all(factor == 1) and (offset is None or not np.any(offset)):
        return make.cast(x)
    along = {"axis": axis} if factor.size > 1 else {}
    return make("DequantizeLinear", x, scale or graph.constant(factor), zero, **along)


def held(make: Spelling, x: str, *, to: str = "") -> str:
    """A signal that the file quantizes dynamically: unchanged, but marked."""
    name = make("Identity", x, to=to)
    make.made[-1] = dataclasses.replace(make.made[-1], name=make.made[-1].name + HELD)
    return name


@rewriter("DynamicQuantizeLinear", domain="")
def dynamic_quantize_linear(node: Node, graph: Rewriting) -> list[Node]:
    """Nothing is rounded, so any scale is right: 1, of which a sample's batch mates know nothing."""
    make = Spelling(graph)
    y, scale, zero = (graph.output(k) for k in range(3))
    held(make, graph.input(0), to=y)
    if scale:
        make("Identity", graph.constant(1, np.float32), to=scale)
    if zero:
        make("Identity", graph.constant(0, np.uint8), to=zero)
    return make.standalone()


def _integer_product(node: Node, graph: Rewriting, op: str, axis: int) -> list[Node]:
    """(a − its zero point) times (b − its own)."""
    make = Spelling(graph)
    a = dequantize(make, graph.input(0), "", graph.input(2), axis=-2)
    b = dequantize(make, graph.input(1), "", graph.input(3), axis=axis)
    make(op, a, b, to=graph.output(0), **node.attributes)
    return make.standalone()


@rewriter("MatMulInteger", domain="")
def matmul_integer(node: Node, graph: Rewriting) -> list[Node]:
    return _integer_product(node, graph, "MatMul", -1)


@rewriter("ConvInteger", domain="")
def conv_integer(node: Node, graph: Rewriting) -> list[Node]:
    return _integer_product(node, graph, "Conv", 0)


@rewriter("MatMulIntegerToFloat")
def matmul_integer_to_float(node: Node, graph: Rewriting) -> list[Node]:
    """A and B with scales and zero points, and a float bias."""
    make = Spelling(graph)
    a, b, a_scale, b_scale, a_zero, b_zero, bias = (graph.input(k) for k in range(7))
    a = dequantize(make, a, a_scale, a_zero, axis=-2)
    return _product(make, a, dequantize(make, b, b_scale, b_zero, axis=-1), bias, **node.attributes)


@rewriter("DynamicQuantizeMatMul")
def dynamic_quantize_matmul(node: Node, graph: Rewriting) -> list[Node]:
    """A in floating point; B with scale and zero point, and a float bias."""
    make = Spelling(graph)
    a, b, scale, zero, bias = (graph.input(k) for k in range(5))
    return _product(make, held(make, a), dequantize(make, b, scale, zero, axis=-1), bias, **node.attributes)


def _product(make: Spelling, a: str, b: str, bias: str, **attributes: Any) -> list[Node]:
    to = make.graph.output(0)
    if bias:
        make("Add", make("MatMul", a, b, **attributes), bias, to=to)
    else:
        make("MatMul", a, b, to=to, **attributes)
    return make.standalone()


@rewriter("DynamicQuantizeLSTM")
def dynamic_quantize_lstm(node: Node, graph: Rewriting) -> list[Node]:
    """W (D, I, 4H) and R (D, H, 4H) stand transposed, with scales and zero points of shape (D,) or (D, 4H)."""
    names = [graph.input(k) for k in range(12)]
    weights = []
    for x, scale, zero in ((names[1], *names[8:10]), (names[2], *names[10:12])):
        array, factor, offset = graph.value(x), graph.value(scale), graph.value(zero) if zero else np.zeros((), np.int8)
        if array is None or factor is None or offset is None:
            raise graph.refuse("quantized weights, their scales and zero points must be constant")
        columns = [np.reshape(v, (len(array), 1, -1)) if v.size > 1 else np.reshape(v, (1, 1, 1)) for v in (factor, offset)]
        floats = ((array.astype(np.int64) - columns[1].astype(np.int64)) * columns[0].astype(np.float32)).astype(np.float32)
        weights.append(graph.constant(np.ascontiguousarray(floats.swapaxes(1, 2))))
    make = Spelling(graph)
    make("LSTM", held(make, names[0]), *weights, *names[3:8], to=node.outputs, **node.attributes)
    return make.standalone()


@rewriter("MatMulNBits")
def matmul_nbits(node: Node, graph: Rewriting) -> list[Node]:
    """B (N, blocks, bytes): weights of 2, 4 or 8 bits in blocks of K, lowest bits first; a scale and a zero point a block."""
    attributes = dict(node.attributes)
    size, count = attributes.pop("K"), attributes.pop("N")
    bits, block = attributes.pop("bits", 4), attributes.pop("block_size")
    attributes.pop("accuracy_level", None)  # how onnxruntime computes it, not what
    if attributes.pop("weight_prepacked", 0) or attributes:
        raise graph.refuse(f"attribute {next(iter(attributes), 'weight_prepacked')!r} is not read")
    a, b, scales, zeros, order, bias = (graph.input(k) for k in range(6))
    packed, factor, offset = graph.value(b), graph.value(scales), graph.value(zeros) if zeros else None
    if packed is None or factor is None or (zeros and offset is None):
        raise graph.refuse("weights, scales and zero points must be constant")
    if order:
        raise graph.refuse("g_idx is not read")
    blocks = -(-size // block)
    steps = _unpacked(packed.reshape(count, -1), bits).reshape(count, blocks, block).astype(np.float32)
    zero = np.full((count, blocks), 2 ** (bits - 1), np.float32)
    if offset is not None and is_float(offset.dtype):
        zero = offset.reshape(count, blocks).astype(np.float32)
    elif offset is not None:
        zero = _unpacked(offset.reshape(count, -1), bits)[:, :blocks].astype(np.float32)
    weights = (steps - zero[..., None]) * factor.reshape(count, blocks, 1).astype(np.float32)
    weights = weights.reshape(count, -1)[:, :size].T
    return _product(Spelling(graph), a, graph.constant(np.ascontiguousarray(weights)), bias)


def _unpacked(rows: np.ndarray, bits: int) -> np.ndarray:
    """(N, bytes) → (N, entries), lowest bits first."""
    parts = [(rows >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, -1).reshape(len(rows), -1)
