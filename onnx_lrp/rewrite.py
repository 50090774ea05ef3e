"""Fused nodes in terms of the standard: one node that is several layers becomes several nodes when the graph is made.

A pre-activation is a block's root, so a node that hides one (FusedGemm, FusedConv) can't be one layer. What a rewriter can't
spell out stays as it is and is refused only where relevance would have to pass it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from onnx import helper

from .errors import UnsupportedModel
from .graph import Node

__all__ = ["VERSION", "Rewriting", "rewrite", "rewriter"]

VERSION = 23  # opset of the nodes that are made, whatever the model's own is
MICROSOFT = "com.microsoft"

Rewriter = Callable[..., Iterable[Node] | None]
_REWRITERS: dict[tuple[str, str], Rewriter] = {}


class Rewriting:
    """What a rewriter may ask and make: constants, and nodes and tensors with names of their own."""

    def __init__(self, node: Node, scope: Mapping[str, np.ndarray]) -> None:
        self.node = node
        self.scope = scope
        self.added: dict[str, np.ndarray] = {}
        self._taken = {*node.inputs, *node.outputs}

    def input(self, index: int) -> str:
        """The name of an input, "" where it is omitted."""
        return self.node.inputs[index] if index < len(self.node.inputs) else ""

    def output(self, index: int) -> str:
        """The name of an output, "" where it is omitted."""
        return self.node.outputs[index] if index < len(self.node.outputs) else ""

    def value(self, name: str) -> np.ndarray | None:
        """The value of a constant tensor, None if it is computed or omitted."""
        return self.scope.get(name, self.added.get(name))

    def fresh(self, hint: str) -> str:
        """A name that nothing else has."""
        stem = f"{next((o for o in self.node.outputs if o), self.node.name)}~{hint}"
        name, count = stem, 1
        while name in self._taken or name in self.scope:
            count += 1
            name = f"{stem}{count}"
        self._taken.add(name)
        return name

    def constant(self, array: Any, dtype: Any = None) -> str:
        """A new constant tensor; returns its name."""
        name = self.fresh("constant")
        self.added[name] = np.asarray(array, dtype)
        return name

    def make(
        self, op: str, *inputs: str, to: str | tuple[str, ...] = "", domain: str = "", version: int = VERSION, **attributes: Any
    ) -> Node:
        """A new node. ``to``: names of its outputs; one fresh name if left out (read it as ``node.outputs[0]``)."""
        name = self.fresh(op)
        outputs = (to or name,) if isinstance(to, str) else tuple(to)
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        proto = helper.make_node(op, list(inputs), list(outputs), name=name, domain=domain, **attributes)
        return Node(name, op, domain, version, tuple(inputs), outputs, attributes, proto, origin=self.node.origin or self.node)

    def refuse(self, why: str) -> UnsupportedModel:
        """The error to raise for a spelling that can't be rewritten: the node stays, with ``why`` as the reason not to read it."""
        return UnsupportedModel(why)


def rewriter(op: str, *, domain: str = MICROSOFT) -> Callable[[Rewriter], Rewriter]:
    """Register a function ``(node, graph) → nodes`` in topological order, which together make the outputs of ``node``.

    None, or no nodes: this one stays as it is.
    """

    def register(function: Rewriter) -> Rewriter:
        _REWRITERS[domain, op] = function
        return function

    return register


def rewrite(node: Node, scope: Mapping[str, np.ndarray]) -> tuple[list[Node], dict[str, np.ndarray]] | None:
    """(the nodes that stand for ``node``, new constants), None if there is nothing to rewrite."""
    from . import (
        attention,  # noqa: F401  (registers its rewriters)
        ops,  # noqa: F401  (importing the package registers its rewriters)
    )

    function = _REWRITERS.get((node.domain, node.op))
    if function is None or node.refused:
        return None
    graph = Rewriting(node, scope)
    try:
        made = list(function(node, graph) or ())
        return (made, graph.added) if made else None
    except UnsupportedModel as error:
        return [dataclasses.replace(node, refused=str(error))], {}
    except (TypeError, ValueError, LookupError, AttributeError, AssertionError, ArithmeticError) as error:
        return [dataclasses.replace(node, refused=f"can't be read: {error}")], {}


def activation(graph: Rewriting, x: str, name: str, settings: Mapping[str, Any], *, to: str) -> Node:
    """An activation of the standard behind ``x``, as the fused nodes name it."""
    if name not in FUSED:
        raise graph.refuse(f"the activation {name!r} is not read")
    if name == "Clip":  # its bounds are inputs by now
        bounds = [graph.constant(settings[k], np.float32) if k in settings else "" for k in FUSED[name]]
        return graph.make(name, x, *bounds, to=to)
    return graph.make(name, x, to=to, **{k: v for k, v in settings.items() if k in FUSED[name]})


# activation → its attributes; the order in which activation_params lists them
FUSED: dict[str, tuple[str, ...]] = {
    "Clip": ("min", "max"),
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}


@rewriter("FusedGemm")
def fused_gemm(node: Node, graph: Rewriting) -> list[Node]:
    """Gemm, then an activation whose settings are the attributes activation_alpha, _beta and _gamma."""
    own = dict(node.attributes)
    name = own.pop("activation", "")
    settings = {k: own.pop(f"activation_{k}") for k in ("alpha", "beta", "gamma") if f"activation_{k}" in own}
    if not name:
        return [graph.make("Gemm", *node.inputs, to=graph.output(0), **own)]
    gemm = graph.make("Gemm", *node.inputs, **own)
    return [gemm, activation(graph, gemm.outputs[0], name, settings, to=graph.output(0))]


@rewriter("FusedConv")
def fused_conv(node: Node, graph: Rewriting) -> list[Node]:
    """Conv, plus a fourth input Z, then an activation whose settings are ``activation_params`` in the order of its attributes."""
    own = dict(node.attributes)
    name, values = own.pop("activation", ""), own.pop("activation_params", ())
    x, w, bias, z = (graph.input(k) for k in range(4))
    made = [graph.make("Conv", x, w, bias, to="" if name or z else graph.output(0), **own)]
    if z:
        made.append(graph.make("Add", made[0].outputs[0], z, to="" if name else graph.output(0)))
    if name:
        settings = dict(zip(FUSED.get(name, ()), values, strict=False))
        made.append(activation(graph, made[-1].outputs[0], name, settings, to=graph.output(0)))
    return made


def blocked(node: Node, graph: Rewriting) -> list[Node]:
    raise graph.refuse(
        "channels in blocks are onnxruntime's layout for one kind of processor; save the optimized model with "
        "ORT_ENABLE_EXTENDED instead of ORT_ENABLE_ALL"
    )


for _op in ("AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReorderInput", "ReorderOutput", "Upsample"):
    rewriter(_op, domain="com.microsoft.nchwc")(blocked)


@rewriter("BiasGelu")
def bias_gelu(node: Node, graph: Rewriting) -> list[Node]:
    total = graph.make("Add", *node.inputs)
    return [total, graph.make("Gelu", total.outputs[0], to=graph.output(0))]


@rewriter("Gelu")
def gelu(node: Node, graph: Rewriting) -> list[Node]:
    return [graph.make("Gelu", graph.input(0), to=graph.output(0))]


@rewriter("FastGelu")
def fast_gelu(node: Node, graph: Rewriting) -> list[Node]:
    """Gelu by its tanh approximation, of x + bias if there is a second input."""
    if not graph.input(1):
        return [graph.make("Gelu", graph.input(0), to=graph.output(0), approximate="tanh")]
    total = graph.make("Add", *node.inputs)
    return [total, graph.make("Gelu", total.outputs[0], to=graph.output(0), approximate="tanh")]


@rewriter("QuickGelu")
def quick_gelu(node: Node, graph: Rewriting) -> list[Node]:
    """x · sigmoid(alpha x)."""
    alpha = float(node.attributes.get("alpha", 1.702))
    return [graph.make("Swish", graph.input(0), to=graph.output(0), version=24, alpha=alpha)]


@rewriter("FusedMatMul")
def fused_matmul(node: Node, graph: Rewriting) -> list[Node]:
    """alpha · MatMul, of either factor the first axis moved behind the batch's axes, then the last two swapped."""
    own = node.attributes
    made: list[Node] = []
    factors = []
    for name, side in zip(node.inputs, "AB", strict=True):
        value = graph.value(name)
        moved, swapped = own.get(f"transBatch{side}"), own.get(f"trans{side}")
        if value is not None:
            value = np.moveaxis(value, 0, -2) if moved and value.ndim > 2 else value
            value = np.swapaxes(value, -1, -2) if swapped and value.ndim > 1 else value
            factors.append(name if value is graph.value(name) else graph.constant(value))
            continue
        for op, wanted in (("FirstToRows", moved), ("SwapAxes", swapped)):
            if wanted:
                made.append(graph.make(op, name, domain="onnx_lrp", version=1))
                name = made[-1].outputs[0]
        factors.append(name)
    alpha = own.get("alpha", 1.0)
    made.append(graph.make("MatMul", *factors, to="" if alpha != 1 else graph.output(0)))
    if alpha != 1:
        made.append(graph.make("Mul", made[-1].outputs[0], graph.constant(alpha, np.float32), to=graph.output(0)))
    return made


@rewriter("SimplifiedLayerNormalization", domain="")
@rewriter("SimplifiedLayerNormalization")
def simplified_layer_norm(node: Node, graph: Rewriting) -> list[Node]:
    """RMSNormalization; the inverse root mean square it may return too is not made."""
    return [graph.make("RMSNormalization", *node.inputs[:2], to=graph.output(0), **node.attributes)]


@rewriter("SkipLayerNormalization")
def skip_layer_norm(node: Node, graph: Rewriting) -> list[Node]:
    """LayerNormalization of input + skip + bias, which sum is the fourth output."""
    scale, shift, bias = (graph.input(k) for k in (2, 3, 4))
    return _skip(node, graph, "LayerNormalization", (scale, shift), bias)


@rewriter("SkipSimplifiedLayerNormalization")
def skip_simplified_layer_norm(node: Node, graph: Rewriting) -> list[Node]:
    """RMSNormalization of input + skip + bias, which sum is the fourth output."""
    return _skip(node, graph, "RMSNormalization", (graph.input(2),), graph.input(3))


def _skip(node: Node, graph: Rewriting, norm: str, parameters: tuple[str, ...], bias: str) -> list[Node]:
    total, epsilon = graph.output(3), float(node.attributes.get("epsilon", 1e-5))
    made = [graph.make("Add", *node.inputs[:2], to="" if bias else total)]
    if bias:
        made.append(graph.make("Add", made[0].outputs[0], bias, to=total))
    return [*made, graph.make(norm, made[-1].outputs[0], *parameters, to=graph.output(0), axis=-1, epsilon=epsilon)]


@rewriter("EmbedLayerNormalization")
def embed_layer_norm(node: Node, graph: Rewriting) -> list[Node]:
    """LayerNormalization of the word's, the position's and the segment's embedding; mask_index counts the mask's ones."""
    ids, segments, words, places, kinds, scale, shift, mask, positions = (graph.input(k) for k in range(9))
    shape = graph.make("Shape", ids)
    made = [shape]
    if not positions:
        length = graph.make("Gather", shape.outputs[0], graph.constant(1, np.int64))
        count = graph.make("Range", graph.constant(0, np.int64), length.outputs[0], graph.constant(1, np.int64))
        made += [length, count]
        positions = count.outputs[0]
    made += [graph.make("Gather", words, ids), graph.make("Gather", places, positions)]
    made.append(graph.make("Add", made[-2].outputs[0], made[-1].outputs[0], to="" if segments else graph.output(2)))
    if segments:
        made.append(graph.make("Gather", kinds, segments))
        made.append(graph.make("Add", made[-2].outputs[0], made[-1].outputs[0], to=graph.output(2)))
    epsilon = float(node.attributes.get("epsilon", 1e-12))
    made.append(graph.make("LayerNormalization", made[-1].outputs[0], scale, shift, to=graph.output(0), axis=-1, epsilon=epsilon))
    if graph.output(1) and mask:
        made.append(graph.make("ReduceSum", mask, graph.constant([1], np.int64), to=graph.output(1), keepdims=0))
    elif graph.output(1):
        rows = graph.make("Slice", shape.outputs[0], graph.constant([0], np.int64), graph.constant([1], np.int64))
        none = graph.constant(np.zeros(1, np.int32))
        made += [rows, graph.make("Expand", none, rows.outputs[0], to=graph.output(1))]
    return made
