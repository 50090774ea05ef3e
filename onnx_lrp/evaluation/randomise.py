"""The model with random weights, layer by layer from its output down: what an explanation must not survive.

Adebayo et al. 2018, *Sanity checks for saliency maps*, section 3.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["Layer", "layers", "proto_of", "randomised", "stages"]

Layer = tuple[str, tuple[str, ...]]  # a node's name, the weights it is the first from above to read
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def proto_of(model: Any) -> onnx.ModelProto:
    """A copy of the model, from whatever ``load`` takes."""
    if isinstance(model, str | os.PathLike):
        return onnx.load(model)
    if isinstance(model, bytes):
        return onnx.load_from_string(model)
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _weights(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Every float constant of more than one number, by name."""
    found = {t.name: t for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return {n: t for n, t in found.items() if t.data_type in FLOATS and int(np.prod(t.dims)) > 1}


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)


def layers(proto: onnx.ModelProto, points: Sequence[str] = ()) -> list[Layer]:
    """The nodes that read weights, from the output down; weights that several share count with the highest.

    Args:
        points: only nodes that something depends on by these tensors; none of them in the file: all nodes.
    """
    weights, taken, found = _weights(proto), set[str](), []
    reached: set[str] = set()
    for node in proto.graph.node:
        if (reached | set(points)) & set(_reads(node)):
            reached.update(node.output)
    for node in reversed(proto.graph.node):
        if reached and not reached & set(node.output):
            continue
        own = tuple(dict.fromkeys(n for n in _reads(node) if n in weights and n not in taken))
        if own:
            taken.update(own)
            found.append((node.name or f"{node.op_type} of {node.output[0]}", own))
    return found


def stages(found: Sequence[Layer], most: int = 8) -> list[tuple[str, tuple[str, ...]]]:
    """(name, weights) to randomise together, from the output down; neighbours joined where there are more than ``most``."""
    groups = np.array_split(np.arange(len(found)), min(most, len(found)))
    out = []
    for group in groups:
        names = [found[i][0] for i in group]
        title = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
        out.append((title, tuple(n for i in group for n in found[i][1])))
    return out


def randomised(proto: onnx.ModelProto, names: Sequence[str], rng: np.random.Generator) -> onnx.ModelProto:
    """A copy whose weights of these names are drawn from a normal distribution of their own mean and spread."""
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    weights = _weights(copied)
    for name in names:
        tensor = weights[name]
        old = numpy_helper.to_array(tensor)
        wide = old.astype(np.float64)
        new = rng.normal(wide.mean(), wide.std(), old.shape).astype(old.dtype)
        tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
    return copied
