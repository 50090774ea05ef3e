"""Nodes against the standard's own schemas: attributes of the right type, none missing, as many inputs and outputs as must be.

Importers bind to what a node has; what a node can't have by the standard is refused here, for all of them at once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from .errors import InvalidModel
from .graph import Node
from .growth import AXES as MOST
from .printable import short

__all__ = ["alike", "fits", "within"]

KINDS = onnx.AttributeProto
FIELDS = {KINDS.GRAPH: "g", KINDS.TENSOR: "t", KINDS.SPARSE_TENSOR: "sparse_tensor", KINDS.TYPE_PROTO: "tp"}
OLDEST = 7  # before it, what broadcasts changed without a trace in the schemas

# attributes that an op has got over time, without which it does what it did before
GAINED: Mapping[str, frozenset[str]] = {
    "ArgMax": frozenset({"select_last_index"}),
    "ArgMin": frozenset({"select_last_index"}),
    "AveragePool": frozenset({"ceil_mode", "dilations"}),
    "Cast": frozenset({"round_mode", "saturate"}),
    "CastLike": frozenset({"round_mode", "saturate"}),
    "GRU": frozenset({"layout"}),
    "GatherND": frozenset({"batch_dims"}),
    "LSTM": frozenset({"layout"}),
    "MaxPool": frozenset({"ceil_mode", "dilations"}),
    "RNN": frozenset({"layout"}),
    "Reshape": frozenset({"allowzero"}),
    "ScatterElements": frozenset({"reduction"}),
    "ScatterND": frozenset({"reduction"}),
    "Shape": frozenset({"end", "start"}),
    "TopK": frozenset({"largest", "sorted"}),
}

# ops whose ``axis`` is one of their first input's, and such as stand behind them all
AXIS = frozenset(
    {"ArgMax", "ArgMin", "Compress", "Concat", "Gather", "GatherElements", "Hardmax", "LayerNormalization", "LogSoftmax"}
    | {"LpNormalization", "RMSNormalization", "Scatter", "ScatterElements", "SimplifiedLayerNormalization", "Softmax", "Split"}
    | {"SplitToSequence", "TopK", "Unique"}
)
BEHIND = {"Flatten": (0, 1), "OneHot": (1, 1), "Unsqueeze": (0, 0)}  # how far beyond -rank and rank - 1 its axes reach
# ops that list axes of their first input: as an attribute, or as this input
AXES = {"CumSum": 1, "MeanVarianceNormalization": 1, "Pad": 3, "Resize": 4, "Slice": 3, "Squeeze": 1, "Unsqueeze": 1}


@functools.lru_cache(maxsize=4096)
def _schema(op: str, domain: str, version: int) -> tuple[Mapping[str, tuple[int, bool]], int, int, int, int] | None:
    """({attribute: (type, whether it is required)}, least and most inputs, least and most outputs), None: nothing is known."""
    try:
        found = onnx.defs.get_schema(op, min(max(version, 1), 2**30), domain)
    except onnx.defs.SchemaError:
        return None
    attributes = {name: (int(a.type.value), bool(a.required)) for name, a in found.attributes.items()}
    return attributes, found.min_input, found.max_input, found.min_output, found.max_output


def fits(node: onnx.NodeProto, version: int) -> None:
    """Refuse a node that contradicts its op's schema.

    Raises:
        InvalidModel: with the node, what it has, and what the standard expects.
    """
    what = f"{short(node.op_type)} {short(node.name)!r}"
    for attribute in node.attribute:
        field = FIELDS.get(attribute.type)
        if attribute.type == KINDS.UNDEFINED or attribute.ref_attr_name or (field and not attribute.HasField(field)):
            raise InvalidModel(f"{what}: attribute {short(attribute.name)!r} has no value")
    schema = _schema(node.op_type, "" if node.domain == "ai.onnx" else node.domain, version)
    if schema is None:
        return
    attributes, least, most, fewest, largest = schema
    for attribute in node.attribute:
        kind = attributes.get(attribute.name, (attribute.type, False))[0]
        if kind != attribute.type:
            got, want = KINDS.AttributeType.Name(attribute.type), KINDS.AttributeType.Name(kind)
            raise InvalidModel(f"{what}: attribute {attribute.name!r} is of type {got}, opset {version} expects {want}")
    given = {a.name for a in node.attribute}
    for name, (_, required) in attributes.items():
        if required and name not in given:
            raise InvalidModel(f"{what}: its attribute {name!r} is missing, which opset {version} requires")
    for kind_of, names, low, high in (("input", node.input, least, most), ("output", node.output, fewest, largest)):
        if not low <= len(names) <= high:
            expected = str(low) if low == high else f"{low} to {high}" if high < 2**31 - 1 else f"{low} or more"
            raise InvalidModel(f"{what}: {len(names)} {kind_of}s, opset {version} expects {expected}")
    if node.op_type == "Split" and "num_outputs" in given:  # on which onnx's shape inference ends the process
        count = _number(node, "num_outputs")
        if count != len(node.output):
            raise InvalidModel(f"{what}: {len(node.output)} outputs, its attribute num_outputs says {count}")
    if node.op_type == "GatherND" and _number(node, "batch_dims") < 0:  # on which onnxruntime ends the process
        raise InvalidModel(f"{what}: its attribute batch_dims is {_number(node, 'batch_dims')}; expected 0 or more")


def within(node: Node, operands: Sequence[Any]) -> None:
    """Refuse an axis that a node's first input does not have: layers count axes modulo the number there is.

    ``operands`` are arrays, or what has a ``rank``, which may be None.

    Raises:
        InvalidModel: with the node, the axis and what there is.
    """
    op, attributes = node.op, node.attributes
    if node.domain:
        return
    first = operands[0] if operands else None
    rank = first.ndim if isinstance(first, np.ndarray) else getattr(first, "rank", None)
    if not rank:
        return
    listed = attributes.get("axis", ()) if op in AXIS or op in BEHIND else ()
    if op in AXES:
        listed = attributes.get("axes", operands[AXES[op]] if len(operands) > AXES[op] else ())
    if op == "Transpose" and "perm" in attributes:
        listed = attributes["perm"]
    if not isinstance(listed, int | list | tuple | np.ndarray):  # known when it runs
        return
    axes = np.asarray(listed).reshape(-1)
    if axes.dtype.kind not in "iu" or not axes.size:
        return
    if axes.size > MOST:  # before anything is made of them
        raise InvalidModel(f"{node.label}: {axes.size:_} axes of a tensor of {rank} axes")
    axes = axes.astype(np.int64)
    reach = rank + (axes.size if op == "Unsqueeze" else 0)
    below, above = BEHIND.get(op, (0, 0))
    what = f"axis {axes[0]}" if axes.size == 1 else f"axes {', '.join(map(str, axes))}"
    if op == "Transpose":
        what, wrong = f"perm {axes.tolist()}", sorted(axes.tolist()) != list(range(rank))
    else:
        wrong = bool(np.any(axes < -reach - below) or np.any(axes >= reach + above))
    if wrong:
        raise InvalidModel(f"{node.label}: {what} of a tensor of {rank} axes")


def _number(node: onnx.NodeProto, name: str) -> int:
    return next((a.i for a in node.attribute if a.name == name), 0)


@functools.lru_cache(maxsize=4096)
def _signature(op: str, domain: str, version: int) -> tuple[object, Mapping[str, tuple[int, bool, bytes]]] | None:
    """(inputs and outputs, {attribute: (type, whether it is required, its default)}), None: nothing is known, or deprecated."""
    try:
        found = onnx.defs.get_schema(op, min(max(version, 1), 2**30), domain)
    except onnx.defs.SchemaError:
        return None
    if found.deprecated:
        return None
    slots = [[(s.name, s.option) for s in side] for side in (found.inputs, found.outputs)]
    attributes = found.attributes.items()
    return slots, {n: (int(a.type.value), bool(a.required), a.default_value.SerializeToString()) for n, a in attributes}


def alike(node: onnx.NodeProto, version: int, other: int) -> bool:
    """Whether a node means the same in two opsets: its op's schemas differ in the types taken alone, or in an attribute that it
    does not give and which changes nothing by itself.

    False where this can't be told: of ops without a schema, and before opset 7.
    """
    if node.domain in ("", "ai.onnx") and min(version, other) < OLDEST:
        return False
    domain = "" if node.domain == "ai.onnx" else node.domain
    own, its = (_signature(node.op_type, domain, v) for v in (version, other))
    if own is None or its is None or own[0] != its[0]:
        return False
    changed = {name for name in own[1].keys() | its[1].keys() if own[1].get(name) != its[1].get(name)}
    gained = {name for name in changed if (name in own[1]) != (name in its[1])} & GAINED.get(node.op_type, frozenset())
    return changed <= gained and not changed & {a.name for a in node.attribute}
