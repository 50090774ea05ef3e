"""Ops between quantized tensors (QLinearMatMul, QGemm, QLinearAdd, …): dequantize, the plain op, quantize.

Each is rewritten so when the graph is made; weights become constants in floating point, and the plain op has its own importer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Node
from ..rewrite import Rewriting, rewriter
from ..spelling import Spelling
from .quantize import dequantize, dequantized

__all__: list[str] = []


class _Quantized(Spelling):
    """Between quantized tensors."""

    def plain(self, first: int, *, axis: int = 0) -> str:
        """Inputs ``first`` (quantized), its scale and zero point, in floating point."""
        return dequantize(self, *(self.graph.input(first + k) for k in range(3)), axis=axis)

    def quantized(self, x: str, scale: str, zero: str, like: str) -> list[Node]:
        """All nodes, with the one that quantizes the op's result; ``like``: a zero point of the same type."""
        if not zero and self.graph.value(like) is not None:
            zero = self.graph.constant(np.zeros_like(self.graph.value(like)))
        self("QuantizeLinear", x, scale, zero, to=self.graph.output(0))
        return self.made

    def channels_first(self, x: str, rank: int) -> str:
        return self("Transpose", x, perm=[0, rank - 1, *range(1, rank - 1)])

    def channels_last(self, x: str, rank: int) -> str:
        return self("Transpose", x, perm=[0, *range(2, rank), 1])


def _bias(graph: Rewriting, name: str, *scales: str) -> str:
    """A bias of integers, whose scale is the product of the operands': one, or one an entry."""
    array, (a, b) = graph.value(name), (graph.value(s) for s in scales)
    if array is None or a is None or b is None:
        raise graph.refuse("the bias and its scales must be constant")
    return graph.constant(dequantized(array, a.reshape(-1).astype(np.float64) * b.reshape(-1), None, -1))


@rewriter("QLinearMatMul", domain="")
@rewriter("QLinearMatMul")
def qlinear_matmul(node: Node, graph: Rewriting) -> list[Node]:
    """Scales of a: one, or one a row; of b: one, or one a column."""
    make = _Quantized(graph)
    product = make("MatMul", make.plain(0, axis=-2), make.plain(3, axis=-1), **node.attributes)
    return make.quantized(product, graph.input(6), graph.input(7), graph.input(2))


def _conv(node: Node, graph: Rewriting, *, channels_last: int = 0, **attributes: Any) -> list[Node]:
    make = _Quantized(graph)
    x, w = make.plain(0), make.plain(3, axis=0)
    weights = graph.value(w)
    if channels_last and weights is None:
        raise graph.refuse("weights must be constant")
    rank = 0 if weights is None else weights.ndim
    bias = [_bias(graph, graph.input(8), graph.input(1), graph.input(4))] if graph.input(8) else []
    y = make("Conv", make.channels_first(x, rank) if channels_last else x, w, *bias, **attributes)
    return make.quantized(make.channels_last(y, rank) if channels_last else y, graph.input(6), graph.input(7), graph.input(2))


@rewriter("QLinearConv", domain="")
@rewriter("QLinearConv")
def qlinear_conv(node: Node, graph: Rewriting) -> list[Node]:
    """The weights' scales: one, or one an output channel; the bias has the product of both scales."""
    return _conv(node, graph, **node.attributes)


@rewriter("QGemm")
def qgemm(node: Node, graph: Rewriting) -> list[Node]:
    """alpha (A B + C) with a bias C of integers; without a scale of its own the output is floating point."""
    make = _Quantized(graph)
    attributes = dict(node.attributes)
    b = make.plain(3, axis=0 if attributes.get("transB") else 1)
    inputs = [make.plain(0), b]
    if graph.input(6):
        inputs.append(_bias(graph, graph.input(6), graph.input(1), graph.input(4)))
        attributes["beta"] = float(attributes.get("alpha", 1.0))
    if not graph.input(7):
        make("Gemm", *inputs, to=graph.output(0), **attributes)
        return make.made
    return make.quantized(make("Gemm", *inputs, **attributes), graph.input(7), graph.input(8), graph.input(2))


def _register_binary(op: str) -> None:
    @rewriter(f"QLinear{op}")
    def binary(node: Node, graph: Rewriting) -> list[Node]:
        make = _Quantized(graph)
        y = make(op, make.plain(0), make.plain(3), **node.attributes)
        return make.quantized(y, graph.input(6), graph.input(7), graph.input(2))


for _op in ("Add", "Mul"):
    _register_binary(_op)


def _unary(node: Node, graph: Rewriting, op: str, attributes: dict[str, Any], **options: Any) -> list[Node]:
    make = _Quantized(graph)
    y = make(op, make.plain(0), **options, **attributes)
    return make.quantized(y, graph.input(3), graph.input(4), graph.input(2))


@rewriter("QLinearSigmoid")
def qlinear_sigmoid(node: Node, graph: Rewriting) -> list[Node]:
    return _unary(node, graph, "Sigmoid", dict(node.attributes))


@rewriter("QLinearLeakyRelu")
def qlinear_leaky_relu(node: Node, graph: Rewriting) -> list[Node]:
    return _unary(node, graph, "LeakyRelu", dict(node.attributes))


@rewriter("QLinearSoftmax")
def qlinear_softmax(node: Node, graph: Rewriting) -> list[Node]:
    """``opset``: whose Softmax it is; below 13 that flattens the axes behind."""
    attributes = dict(node.attributes)
    version = attributes.pop("opset", 13)
    attributes.setdefault("axis", -1)
    return _unary(node, graph, "Softmax", attributes, version=version)


@rewriter("QLinearAveragePool")
def qlinear_average_pool(node: Node, graph: Rewriting) -> list[Node]:
    attributes = dict(node.attributes)
    if not attributes.pop("channels_last", 0):
        return _unary(node, graph, "AveragePool", attributes)
    make = _Quantized(graph)
    rank = len(attributes["kernel_shape"]) + 2
    y = make("AveragePool", make.channels_first(make.plain(0), rank), **attributes)
    return make.quantized(make.channels_last(y, rank), graph.input(3), graph.input(4), graph.input(2))


@rewriter("QLinearGlobalAveragePool")
def qlinear_global_average_pool(node: Node, graph: Rewriting) -> list[Node]:
    attributes = dict(node.attributes)
    if attributes.pop("channels_last", 0):
        raise graph.refuse("channels_last=1 is not read")
    return _unary(node, graph, "GlobalAveragePool", attributes)


@rewriter("QLinearConcat")
def qlinear_concat(node: Node, graph: Rewriting) -> list[Node]:
    """Scale and zero point of the result come first, then (tensor, scale, zero point) of every operand."""
    make = _Quantized(graph)
    y = make("Concat", *_operands(make, range(2, len(node.inputs), 3)), **node.attributes)
    return make.quantized(y, graph.input(0), graph.input(1), graph.input(1))


def _operands(make: _Quantized, firsts: Sequence[int]) -> list[str]:
    return [make.plain(first) for first in firsts]


@rewriter("QLinearWhere")
def qlinear_where(node: Node, graph: Rewriting) -> list[Node]:
    make = _Quantized(graph)
    y = make("Where", graph.input(0), make.plain(1), make.plain(4), **node.attributes)
    return make.quantized(y, graph.input(7), graph.input(8), graph.input(3))
