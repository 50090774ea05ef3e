"""A structure-aware mutator: one sound model → one that lies, in ways that a random flip of bytes would hardly find."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

INTS = (0, 1, -1, 2, -2, 3, 7, 127, 255, 2**15, 2**31 - 1, -(2**31), 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, -1e38, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "",
    "\x00",
    "\x1b[31mred",
    "../../etc/passwd",
    "/etc/passwd",
    "ä" * 40,
    "x" * 5000,
    "Tanh",
    "reverse",
    "NOTSET",
    "<b>",
    "\u202e",
)
PATHS = (
    "/etc/passwd",
    "../secret",
    "a/../../secret",
    "/dev/zero",
    "/proc/self/mem",
    "",
    ".",
    "weights.bin",
    "link.bin",
    "fifo",
    "\x00",
    "C:\\x",
)
OPS = sorted({s.name for s in onnx.defs.get_all_schemas()})
TYPES = sorted(TensorProto.DataType.values())

Random = random.Random


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and those inside."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from graphs(attribute.g)


def nodes(model: ModelProto) -> list[NodeProto]:
    return [n for g in graphs(model.graph) for n in g.node] + [n for f in model.functions for n in f.node]


def tensors(model: ModelProto) -> list[TensorProto]:
    found = [t for g in graphs(model.graph) for t in g.initializer]
    found += [a.t for n in nodes(model) for a in n.attribute if a.type == AttributeProto.TENSOR]
    return found + [t for g in graphs(model.graph) for s in g.sparse_initializer for t in (s.values, s.indices)]


def names(model: ModelProto) -> list[str]:
    found = {n for g in graphs(model.graph) for v in (*g.input, *g.output, *g.initializer) for n in (v.name,)}
    return sorted(found | {n for node in nodes(model) for n in (*node.input, *node.output)} | {"", "nowhere"})


def pick(rng: Random, found: Any) -> Any:
    found = list(found)
    return rng.choice(found) if found else None


def number(rng: Random) -> int:
    return rng.choice(INTS) if rng.random() < 0.7 else rng.randrange(-9, 10)


def flip_attribute(model: ModelProto, rng: Random) -> None:
    node = pick(rng, [n for n in nodes(model) if n.attribute])
    if node is None:
        return
    attribute = rng.choice(node.attribute)
    kind = attribute.type
    if rng.random() < 0.15:
        attribute.type = rng.choice(AttributeProto.AttributeType.values())
    elif kind == AttributeProto.INT:
        attribute.i = number(rng)
    elif kind == AttributeProto.FLOAT:
        attribute.f = rng.choice(FLOATS)
    elif kind == AttributeProto.STRING:
        attribute.s = rng.choice([t.encode() for t in TEXTS] + [b"\xff\xfe"])
    elif kind == AttributeProto.INTS:
        alter(attribute.ints, rng, lambda: number(rng))
    elif kind == AttributeProto.FLOATS:
        alter(attribute.floats, rng, lambda: rng.choice(FLOATS))
    elif kind == AttributeProto.STRINGS:
        alter(attribute.strings, rng, lambda: rng.choice(TEXTS).encode())
    else:
        attribute.name = rng.choice(["body", "value", "then_branch", "axis", ""])


def alter(values: Any, rng: Random, fresh: Callable[[], Any]) -> None:
    """A repeated field: one entry changed, put in or taken out."""
    choice = rng.randrange(3)
    if values and choice == 0:
        values[rng.randrange(len(values))] = fresh()
    elif values and choice == 1:
        del values[rng.randrange(len(values))]
    else:
        values.append(fresh())


def drop_attribute(model: ModelProto, rng: Random) -> None:
    node = pick(rng, [n for n in nodes(model) if n.attribute])
    if node is not None:
        index = rng.randrange(len(node.attribute))
        if rng.random() < 0.3:
            node.attribute.add().CopyFrom(node.attribute[index])
        else:
            del node.attribute[index]


def foreign_attribute(model: ModelProto, rng: Random) -> None:
    """An attribute of another node, or one of the op's that the file leaves to its default."""
    node = pick(rng, nodes(model))
    if node is None:
        return
    with_default = onnx.defs.get_schema(node.op_type).attributes if onnx.defs.has(node.op_type) else {}
    key = rng.choice([*with_default, "axis", "axes", "to", "perm", "layout", "activations"])
    value: Any = rng.choice(
        [number(rng), [number(rng) for _ in range(rng.randrange(4))], rng.choice(FLOATS), rng.choice(TEXTS), []]
    )
    if value != []:
        node.attribute.append(helper.make_attribute(key, value))


def swap_inputs(model: ModelProto, rng: Random) -> None:
    node = pick(rng, [n for n in nodes(model) if n.input])
    if node is None:
        return
    i, j = rng.randrange(len(node.input)), rng.randrange(len(node.input))
    if rng.random() < 0.4:
        node.input[i], node.input[j] = node.input[j], node.input[i]
    elif rng.random() < 0.6:
        node.input[i] = rng.choice(names(model))
    elif rng.random() < 0.5:
        node.input.append(rng.choice(names(model)))
    else:
        del node.input[i]


def rename_output(model: ModelProto, rng: Random) -> None:
    node = pick(rng, [n for n in nodes(model) if n.output])
    if node is None:
        return
    index = rng.randrange(len(node.output))
    if rng.random() < 0.5:
        node.output[index] = rng.choice(names(model))
    elif rng.random() < 0.5:
        del node.output[index]
    else:
        node.output.append(rng.choice([*names(model), "more"]))


def other_op(model: ModelProto, rng: Random) -> None:
    node = pick(rng, nodes(model))
    if node is not None:
        node.op_type = rng.choice(OPS) if rng.random() < 0.8 else rng.choice(TEXTS)
        if rng.random() < 0.1:
            node.domain = rng.choice(["ai.onnx.ml", "com.microsoft", "ai.onnx", "odd", "\x1b]0;x\x07"])


def move_node(model: ModelProto, rng: Random) -> None:
    graph = pick(rng, [g for g in graphs(model.graph) if g.node])
    if graph is None:
        return
    index = rng.randrange(len(graph.node))
    if rng.random() < 0.4:
        del graph.node[index]
    else:
        graph.node.add().CopyFrom(graph.node[index])


def lie_about_dims(model: ModelProto, rng: Random) -> None:
    tensor = pick(rng, tensors(model))
    if tensor is None:
        return
    alter(tensor.dims, rng, lambda: number(rng))
    if rng.random() < 0.1:
        tensor.ClearField("raw_data")


def other_numbers(model: ModelProto, rng: Random) -> None:
    """A tensor of the same shape with one strange entry, or an integer one full of huge numbers."""
    tensor = pick(rng, tensors(model))
    if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
        return
    try:
        array = np.array(numpy_helper.to_array(tensor))
    except Exception:
        return
    if not array.size or array.dtype.kind not in "iufb":
        return
    flat = array.reshape(-1)
    place = rng.randrange(flat.size)
    with np.errstate(over="ignore"):
        flat[place] = (
            rng.choice(FLOATS) if array.dtype.kind == "f" else np.asarray(number(rng), object).astype(np.int64).astype(array.dtype)
        )
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def truncate_tensor(model: ModelProto, rng: Random) -> None:
    tensor = pick(rng, tensors(model))
    if tensor is None:
        return
    data = tensor.raw_data
    if rng.random() < 0.6:
        tensor.raw_data = data[: rng.randrange(len(data) + 1)]
    elif rng.random() < 0.5:
        tensor.raw_data = data + b"\0" * rng.randrange(1, 9)
    else:
        alter(tensor.float_data, rng, lambda: rng.choice(FLOATS))


def other_type(model: ModelProto, rng: Random) -> None:
    tensor = pick(rng, tensors(model))
    value = pick(rng, [v for g in graphs(model.graph) for v in (*g.input, *g.output, *g.value_info)])
    if tensor is not None and rng.random() < 0.5:
        tensor.data_type = rng.choice([*TYPES, 99])
    elif value is not None:
        if rng.random() < 0.8:
            value.type.tensor_type.elem_type = rng.choice([*TYPES, 99])
        else:
            value.type.sequence_type.elem_type.tensor_type.elem_type = 1


def other_shape(model: ModelProto, rng: Random) -> None:
    value = pick(
        rng, [v for g in graphs(model.graph) for v in (*g.input, *g.output, *g.value_info) if v.type.HasField("tensor_type")]
    )
    if value is None:
        return
    dims = value.type.tensor_type.shape.dim
    choice = rng.randrange(5)
    if choice == 0 or not dims:
        dims.add(dim_value=number(rng))
    elif choice == 1:
        del dims[rng.randrange(len(dims))]
    elif choice == 2:
        rng.choice(dims).dim_value = number(rng)
    elif choice == 3:
        rng.choice(dims).dim_param = rng.choice([*TEXTS, "batch", "time"])
    else:
        value.type.tensor_type.ClearField("shape")


def graph_io(model: ModelProto, rng: Random) -> None:
    graph = pick(rng, graphs(model.graph))
    values = graph.input if rng.random() < 0.5 else graph.output
    choice = rng.randrange(4)
    if values and choice == 0:
        del values[rng.randrange(len(values))]
    elif values and choice == 1:
        rng.choice(values).name = rng.choice([*names(model), *TEXTS])
    elif values and choice == 2:
        values.add().CopyFrom(rng.choice(values))
    else:
        values.add().CopyFrom(helper.make_tensor_value_info(rng.choice(names(model)), TensorProto.FLOAT, [number(rng)]))


def rename_all(model: ModelProto, rng: Random) -> None:
    """One tensor under a name that wants to be escaped, everywhere."""
    old, new = rng.choice(names(model)), rng.choice(TEXTS)
    for graph in graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.name = new if value.name == old else value.name
    for node in nodes(model):
        node.name = new if rng.random() < 0.2 else node.name
        for field in (node.input, node.output):
            field[:] = [new if n == old else n for n in field]


def opsets(model: ModelProto, rng: Random) -> None:
    choice = rng.randrange(4)
    if choice == 0 and model.opset_import:
        rng.choice(model.opset_import).version = rng.choice([*INTS, 7, 9, 11, 13, 18, 22, 99])
    elif choice == 1 and model.opset_import:
        del model.opset_import[rng.randrange(len(model.opset_import))]
    elif choice == 2:
        model.opset_import.add(domain=rng.choice(["", "ai.onnx", "odd"]), version=rng.choice([1, 17, 2**40]))
    else:
        model.ir_version = rng.choice([*INTS, 3, 8, 10])


def nest(model: ModelProto, rng: Random) -> None:
    """The whole graph inside Ifs or Loops, many deep."""
    output = pick(rng, model.graph.output)
    if output is None:
        return
    body = list(model.graph.node)
    info = onnx.ValueInfoProto()
    info.CopyFrom(output)
    true = numpy_helper.from_array(np.asarray(True), "always")
    loops, depth = rng.random() < 0.5, rng.choice([1, 2, 3, 5, 12, 25])
    for level in range(depth):
        name = f"{output.name}/{level}"
        inner = GraphProto(name="inner")
        inner.node.extend(body)
        if loops:
            k, go, on = f"k{level}", f"go{level}", f"on{level}"
            inner.input.append(helper.make_tensor_value_info(k, TensorProto.INT64, []))
            inner.input.append(helper.make_tensor_value_info(go, TensorProto.BOOL, []))
            inner.node.append(helper.make_node("Identity", [go], [on]))
            inner.output.append(helper.make_tensor_value_info(on, TensorProto.BOOL, []))
            inner.output.add().CopyFrom(info)
            body = [helper.make_node("Loop", ["trips", "always"], [name], body=inner)]
        else:
            inner.output.add().CopyFrom(info)
            other = helper.make_graph(
                [helper.make_node("Identity", ["always"], ["no"])], "other", [], [helper.make_tensor_value_info("no", 9, [])]
            )
            body = [helper.make_node("If", ["always"], [name], then_branch=inner, else_branch=other)]
        info.name = name
    model.graph.initializer.extend([true, numpy_helper.from_array(np.asarray(rng.choice([2, 2**31, 2**62])), "trips")])
    del model.graph.node[:]
    model.graph.node.extend(body)
    output.name = info.name


def functions(model: ModelProto, rng: Random) -> None:
    """Functions that call themselves, or double at every level."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("bomb", 1)]
    node = pick(rng, [n for n in model.graph.node if len(n.input) == 1 and len(n.output) == 1])
    if node is None:
        return
    depth, width = rng.choice([2, 10, 40]), rng.choice([1, 2, 3])
    for level in range(depth):
        calls = []
        for k in range(width):
            into, out = "x" if not k else f"m{k}", "y" if k == width - 1 else f"m{k + 1}"
            last = level == depth - 1
            op = node.op_type if last and rng.random() < 0.7 else f"f{0 if last else level + 1}"
            calls.append(helper.make_node(op, [into], [out], domain="" if op == node.op_type else "bomb"))
        model.functions.append(helper.make_function("bomb", f"f{level}", ["x"], ["y"], calls, imports))
    node.op_type, node.domain = "f0", "bomb"
    del node.attribute[:]
    model.opset_import.add(domain="bomb", version=1)


def bomb(model: ModelProto, rng: Random) -> None:
    """A constant that is small in the file and huge when it is folded, in the place of a weight."""
    node = pick(rng, [n for n in model.graph.node if len(n.input) > 1])
    if node is None:
        return
    shape = [rng.choice([1, 4, 1000, 2**16, 2**31, 2**40]) for _ in range(rng.randrange(1, 4))]
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(shape, np.int64), "bomb/shape"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones([1] * len(shape), np.float32), "bomb/one"))
    made = {
        "ConstantOfShape": ["bomb/shape"],
        "Expand": ["bomb/one", "bomb/shape"],
        "Tile": ["bomb/one", "bomb/shape"],
        "RandomNormalLike": ["bomb/one"],
        "Resize": ["bomb/one", "", "", "bomb/shape"],
    }
    op = rng.choice(list(made))
    model.graph.node.insert(0, helper.make_node(op, made[op], ["bomb/made"]))
    node.input[rng.randrange(len(node.input))] = "bomb/made"


def outside(model: ModelProto, rng: Random) -> None:
    """External data that lie elsewhere, or nowhere."""
    tensor = pick(rng, tensors(model))
    if tensor is None:
        return
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    tensor.external_data.add(key="location", value=rng.choice(PATHS))
    for key in ("offset", "length"):
        if rng.random() < 0.5:
            tensor.external_data.add(key=key, value=rng.choice([str(number(rng)), "", "1e3", "0x10", "9" * 50]))


STRUCTURED: tuple[Callable[[ModelProto, Random], None], ...] = (
    flip_attribute,
    flip_attribute,
    drop_attribute,
    foreign_attribute,
    swap_inputs,
    swap_inputs,
    rename_output,
    other_op,
    move_node,
    lie_about_dims,
    other_numbers,
    truncate_tensor,
    other_type,
    other_shape,
    graph_io,
    rename_all,
    opsets,
    nest,
    functions,
    bomb,
    outside,
)


def flip_bits(data: bytes, rng: Random) -> bytes:
    """A few bits of the file, or a part of it gone, doubled or from elsewhere."""
    if not data:
        return data
    out = bytearray(data)
    choice = rng.randrange(4)
    if choice < 2:
        for _ in range(rng.choice([1, 1, 2, 8])):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        return bytes(out)
    a, b = sorted((rng.randrange(len(out) + 1), rng.randrange(len(out) + 1)))
    if choice == 2:
        return bytes(out[:a] + out[min(b, a + 16) :])
    return bytes(out[:b] + out[a:])


def mutate(data: bytes, rng: Random) -> tuple[bytes, str]:
    """A mutant of a serialized model, and what was done to it."""
    done: list[str] = []
    if rng.random() < 0.85:
        model = onnx.load_model_from_string(data)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            change = rng.choice(STRUCTURED)
            try:
                change(model, rng)
            except Exception:
                continue  # protobuf itself refuses such a value
            done.append(change.__name__)
        data = model.SerializeToString()
    if not done or rng.random() < 0.05:
        data = flip_bits(data, rng)
        done.append("flip_bits")
    return data, "+".join(done)
