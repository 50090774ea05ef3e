"""What a ModelProto must keep before it is read: depth, number of nodes, functions that end, names that mean one thing.

Nothing here recurses as deep as the file says, and nothing is expanded before it has been counted.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import onnx

from .errors import InvalidModel
from .limits import Limits, over
from .printable import short

__all__ = ["counted", "declared", "distinct", "inner", "readable", "shortened", "spelled", "unsigned"]

Key = tuple[str, str, str]
LONGEST = 2**24  # entries of a list
WIDEST = 2**26  # entries of an axis
DENSEST = 2**10  # points each way for every entry that a RoiAlign averages, in one call that nothing interrupts
DEEPEST = 2000  # nodes of a tree below each other; onnxruntime recurses, and has ended the process at 30 000
LOOPS = ("Loop", "Scan")
TERM = rb"[A-Za-z]*(?:\.\.\.)?[A-Za-z]*"
EQUATION = re.compile(rb"%b(?:,%b)*(?:->%b)?" % (TERM, TERM, TERM))


def inner(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The sub-graphs of a node."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH or attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _every(nodes: Iterable[onnx.NodeProto], limits: Limits, where: str) -> Iterator[onnx.NodeProto]:
    """All nodes, those of sub-graphs included, which may not be too deep."""
    stack = [(node, 0, 0) for node in nodes]
    while stack:
        node, depth, loops = stack.pop()
        yield node
        loops += node.op_type in LOOPS
        for graph in inner(node):
            if depth >= limits.depth:
                raise over(
                    "depth", limits.depth, depth + 1, f"{where}: sub-graphs inside each other down to {node.op_type} {node.name!r}"
                )
            if loops > limits.loops:
                raise over("loops", limits.loops, loops, f"{where}: loops inside each other down to {node.op_type} {node.name!r}")
            stack += [(n, depth + 1, loops) for n in graph.node]


def counted(model: onnx.ModelProto, limits: Limits) -> int:
    """The nodes of a model once its functions are in the place of their calls; too many are refused.

    Raises:
        ModelError: over ``nodes``, ``depth`` or ``loops``.
        InvalidModel: a function calls itself.
    """
    functions: dict[Key, onnx.FunctionProto] = {}
    for f in model.functions:
        key = (f.domain, f.name, f.overload)
        if key in functions:
            raise InvalidModel(f"function {f.domain}:{f.name} is defined twice")
        functions[key] = f
    sizes: dict[Key, int] = {}
    calls: dict[Key, list[Key]] = {}
    own: dict[Key, int] = {}
    for key, f in functions.items():
        names = [_key(n) for n in _every(f.node, limits, f"function {f.domain}:{f.name}")]
        calls[key], own[key] = [n for n in names if n in functions], len(names)
    depths: dict[Key, int] = {}
    for key in _callees_first(calls):
        depths[key] = 1 + max((depths[c] for c in calls[key]), default=0)
        limits.check("depth", depths[key], f"functions that call each other below {key[0]}:{key[1]}")
        sizes[key] = min(own[key] + sum(sizes[c] for c in calls[key]), 10**18)
    total = 0
    for node in _every(model.graph.node, limits, "the graph"):
        total += 1 + sizes.get(_key(node), 0)
        if total > limits.nodes:
            break
    limits.check("nodes", total if total < 10**15 else math.inf, "the graph with its sub-graphs and functions")
    return total


def readable(model: onnx.ModelProto) -> None:
    """Refuse names that are no text, wherever they stand: protobuf hands them over as bytes, or raises when they are asked for.

    Raises:
        InvalidModel: with the node's op, or what the name is of.
    """
    stack: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while stack:
        owner = stack.pop()
        _texts("an input, output or constant", _names_around(owner))
        for node in owner.node:
            _texts("a node", _names_of(node))
            _texts(f"an input, output or attribute of {node.op_type} {short(node.name)!r}", _names_in(node))
            stack += inner(node)


def spelled(model: onnx.ModelProto) -> None:
    """Refuse what libraries don't come back from, wherever it stands: equations of Einsum that are none, on which shape inference,
    onnxruntime's included, may run for ever, and trees so deep that onnxruntime ends the process as it loads them, and a
    RoiAlign of more points than it can list.

    Raises:
        InvalidModel: with the node.
    """
    stack: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while stack:
        for node in stack.pop().node:
            stack += inner(node)
            if node.op_type == "Einsum" and node.domain in ("", "ai.onnx"):
                _equation(node)
            elif node.op_type.startswith("TreeEnsemble") and node.domain == "ai.onnx.ml":
                _trees(node)
            elif node.op_type == "RoiAlign" and any(a.name == "sampling_ratio" and a.i > DENSEST for a in node.attribute):
                raise InvalidModel(f"RoiAlign {short(node.name)!r}: its sampling_ratio is over {DENSEST:_}, the most that is read")


def _equation(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name != "equation" or attribute.ref_attr_name:  # a call tells it
            continue
        if not EQUATION.fullmatch(attribute.s.replace(b" ", b"")):
            text = short(repr(attribute.s.decode("utf-8", "replace")))
            raise InvalidModel(f"Einsum {short(node.name)!r}: {text} is no equation: terms of letters and '...', as in 'ij,jk->ik'")


def _trees(node: onnx.NodeProto) -> None:
    """Refuse trees that are too deep, however their nodes are numbered: of (tree, node), in opset 5 by their place."""
    own = {a.name: a.ints for a in node.attribute}
    yes, no = own.get("nodes_truenodeids", ()), own.get("nodes_falsenodeids", ())
    trees, numbers = own.get("nodes_treeids", ()), own.get("nodes_nodeids", ())
    if max(Counter(trees).values(), default=len(yes)) <= DEEPEST or len(no) != len(yes):  # no deeper than it has nodes
        return
    places = {key: k for k, key in enumerate(zip(trees, numbers, strict=False))}
    leaves = [own.get("nodes_trueleafs", ()), own.get("nodes_falseleafs", ())]
    branches = [a.strings for a in node.attribute if a.name == "nodes_modes"]
    below: list[list[int]] = []
    for k, pair in enumerate(zip(yes, no, strict=True)):
        if places:
            leaf = bool(branches) and k < len(branches[0]) and branches[0][k] == b"LEAF"
            below.append([] if leaf else [places[trees[k], n] for n in pair if (trees[k], n) in places])
        else:
            below.append([n for n, ends in zip(pair, leaves, strict=True) if not (k < len(ends) and ends[k]) and 0 <= n < len(yes)])
    above = [0] * len(yes)
    for ns in below:
        for n in ns:
            above[n] += 1
    level = [k for k, count in enumerate(above) if not count]
    for _ in range(DEEPEST):
        reached = []
        for k in level:
            for n in below[k]:
                above[n] -= 1
                if not above[n]:
                    reached.append(n)
        level = reached
    if level or any(above):
        raise InvalidModel(
            f"{node.op_type} {short(node.name)!r}: its trees are more than {DEEPEST:_} nodes deep, or have a cycle; onnxruntime "
            "does not survive to load them"
        )


def _names_around(owner: onnx.GraphProto | onnx.FunctionProto) -> Iterator[object]:
    yield owner.name
    if isinstance(owner, onnx.FunctionProto):
        yield from (owner.domain, *owner.input, *owner.output, *owner.attribute)
    else:
        yield from (v.name for kind in (owner.input, owner.output, owner.initializer, owner.value_info) for v in kind)


def _names_of(node: onnx.NodeProto) -> Iterator[object]:
    yield from (node.op_type, node.name, node.domain, node.overload)


def _names_in(node: onnx.NodeProto) -> Iterator[object]:
    yield from (*node.input, *node.output, *(a.name for a in node.attribute))


def _texts(what: str, names: Iterator[object]) -> None:
    try:
        wrong = next((name for name in names if not isinstance(name, str)), None)
    except UnicodeDecodeError as error:
        wrong = error.object
    if wrong is not None:
        raise InvalidModel(f"the name {short(repr(wrong))} of {what} is no UTF-8 text")


def _key(node: onnx.NodeProto) -> Key:
    return (node.domain, node.op_type, node.overload)


def _callees_first(calls: Mapping[Key, list[Key]]) -> Iterator[Key]:
    done: set[Key] = set()
    for start in calls:
        stack, path = [(start, iter(calls[start]))], {start}
        while stack and start not in done:
            key, rest = stack[-1]
            below = next((c for c in rest if c not in done), None)
            if below is None:
                done.add(key)
                path.discard(key)
                stack.pop()
                yield key
            elif below in path:
                raise InvalidModel(f"function {below[0]}:{below[1]} calls itself, by way of {key[0]}:{key[1]}")
            else:
                path.add(below)
                stack.append((below, iter(calls[below])))


def declared(value: onnx.ValueInfoProto, limits: Limits) -> None:
    """Refuse sizes that a file declares of a tensor which nothing can have.

    onnx and onnxruntime take a list for a shape where an op reads one, and walk through as many axes as it declares entries.

    Raises:
        InvalidModel: a list of more than ``LONGEST`` entries.
        ModelError: over ``tensor_elements``.
    """
    dims, what = value.type.tensor_type.shape.dim, f"tensor {short(value.name)!r}"
    for axis, dim in enumerate(dims):
        limits.check("tensor_elements", dim.dim_value, f"{what} declares its axis {axis} to have")
    if len(dims) == 1 and dims[0].dim_value > LONGEST:
        raise InvalidModel(f"{what} declares to be a list of {dims[0].dim_value:_} entries; more than {LONGEST:_} are not read")


def unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without negative sizes: some exporters write −1 for any size, on which onnx's shape inference ends the process."""
    return _without(model, lambda size: size < 0)


def shortened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without sizes that nothing has: onnxruntime takes a byte for every entry of an axis that a Slice reads."""
    return _without(model, lambda size: size > WIDEST)


def _without(model: onnx.ModelProto, wrong: Callable[[int], bool]) -> onnx.ModelProto:
    """The model itself, or a copy in which these declared sizes are open."""
    if not any(True for _ in _declaring(model.graph, wrong)):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for dim in list(_declaring(copy.graph, wrong)):
        dim.ClearField("dim_value")
    return copy


def _declaring(graph: onnx.GraphProto, wrong: Callable[[int], bool]) -> Iterator[onnx.TensorShapeProto.Dimension]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield from (dim for dim in value.type.tensor_type.shape.dim if wrong(dim.dim_value))
    for node in graph.node:
        for body in inner(node):
            yield from _declaring(body, wrong)


def distinct(graph: onnx.GraphProto, *, nested: bool = False) -> None:
    """Refuse names that stand for two things in a graph, and outputs that nothing makes.

    Raises:
        InvalidModel: with the name and where it stands.
    """
    where = f"sub-graph {graph.name!r}: " if nested else ""
    for kind, names in (
        ("input", [v.name for v in graph.input]),
        ("initializer", [t.name for t in graph.initializer] + [t.values.name for t in graph.sparse_initializer]),
        ("output", [v.name for v in graph.output]),
    ):
        seen: set[str] = set()
        for name in names:
            if not isinstance(name, str):
                raise InvalidModel(f"{where}{kind} {name!r}: the name is no UTF-8 text")
            if not name:
                raise InvalidModel(f"{where}an {kind} of the graph has no name")
            if name in seen and not (kind == "output" and nested):
                raise InvalidModel(f"{where}{kind} {name!r} is there twice")
            seen.add(name)
    for node in graph.node:
        names = [a.name for a in node.attribute]
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise InvalidModel(f"{where}{node.op_type} {node.name!r}: attribute {twice!r} is there twice")
