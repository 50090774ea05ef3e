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

_REWRITERS: dict[tuple[str, str], Callable[[Node, Rewriting], Iterable[Node]]] = {}


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


def rewriter(op: str, *, domain: str = MICROSOFT) -> Callable[[Callable[..., Iterable[Node]]], Callable[..., Iterable[Node]]]:
    """Register a function ``(node, graph) → nodes`` in topological order, which together make the outputs of ``node``."""

    def register(function: Callable[..., Iterable[Node]]) -> Callable[..., Iterable[Node]]:
        _REWRITERS[domain, op] = function
        return function

    return register


def rewrite(node: Node, scope: Mapping[str, np.ndarray]) -> tuple[list[Node], dict[str, np.ndarray]] | None:
    """(the nodes that stand for ``node``, new constants), None if there is nothing to rewrite."""
    from . import attention  # noqa: F401  (registers its rewriters)

    function = _REWRITERS.get((node.domain, node.op))
    if function is None or node.refused:
        return None
    graph = Rewriting(node, scope)
    try:
        return list(function(node, graph)), graph.added
    except UnsupportedModel as error:
        return [dataclasses.replace(node, refused=str(error))], {}


def activation(graph: Rewriting, x: str, name: str, settings: Mapping[str, Any], *, to: str) -> Node:
    """An activation of the standard behind ``x``, as the fused nodes name it."""
    if name not in FUSED:
        raise graph.refuse(f"the activation {name!r} is not read")
    return graph.make(name, x, to=to, **{k: v for k, v in settings.items() if k in FUSED[name]})


# activation → its attributes; the order in which activation_params lists them
FUSED: dict[str, tuple[str, ...]] = {
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
