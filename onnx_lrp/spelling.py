"""Nodes of one rewriting as they accumulate, for rewriters that make more than two or three."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from onnx import helper

from .graph import Node
from .rewrite import Rewriting

__all__ = ["Spelling"]


class Spelling:
    """Call it as :meth:`Rewriting.make`, and get the name of the node's first output; ``made`` holds the nodes."""

    def __init__(self, graph: Rewriting) -> None:
        self.graph = graph
        self.made: list[Node] = []

    def __call__(self, op: str, *inputs: str, **options: Any) -> str:
        self.made.append(self.graph.make(op, *inputs, **options))
        return self.made[-1].outputs[0]

    def cast(self, x: str, dtype: Any = np.float32) -> str:
        """A Cast, whose attribute ``to`` is called as the outputs of :meth:`Rewriting.make` are."""
        node = self.graph.make("Cast", x)
        attributes = {"to": helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}
        proto = helper.make_node("Cast", list(node.inputs), list(node.outputs), name=node.name, **attributes)
        self.made.append(dataclasses.replace(node, attributes=attributes, proto=proto))
        return node.outputs[0]

    def standalone(self) -> list[Node]:
        """The nodes as nodes of their own: onnxruntime, too, takes them instead of the file's where it runs a part of the graph."""
        return [dataclasses.replace(n, origin=None) for n in self.made]
