"""What the recurrent strategies share: an LSTM, GRU or RNN with all the standard allows, and rewritings that change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import ModelProto, helper, numpy_helper

from .build import Builder, Case, generators, opsets

__all__ = ["batch_first", "recurrent", "split_directions"]

SIGMOIDS = ("Sigmoid", "HardSigmoid")
SQUASHES = ("Tanh", "Softsign", "ScaledTanh", "Relu", "LeakyRelu", "Elu", "Affine", "ThresholdedRelu", "Softplus", "HardSigmoid")
ALPHA = {"HardSigmoid": 0.3, "ScaledTanh": 0.9, "LeakyRelu": 0.2, "Elu": 0.7, "Affine": 0.8, "ThresholdedRelu": 0.1}
BETA = {"HardSigmoid": 0.4, "ScaledTanh": 1.2, "Affine": 0.1}
STATES = ("absent", "constant", "input")
# op → (blocks of weights, initial states, functions a direction, outputs)
OPS: dict[str, tuple[int, tuple[str, ...], tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    "LSTM": (4, ("h0", "c0"), (SIGMOIDS, SQUASHES, SQUASHES), ("Y", "Y_h", "Y_c")),
    "GRU": (3, ("h0",), (SIGMOIDS, SQUASHES), ("Y", "Y_h")),
    "RNN": (1, ("h0",), (SQUASHES,), ("Y", "Y_h")),
}


def recurrent(draw: Any, op: str, *, lengths: bool | None, fixed: bool, direction: str | None, layout: int, plain: bool) -> Case:
    """One recurrent node and a dense head that reads any of its outputs."""
    gates, states, _, results = OPS[op]
    b = Builder(draw(generators()), draw(opsets(least=14 if layout else 7)))
    size, width, batch, time = (draw(st.integers(1, n)) for n in (4, 3, 3, 5))
    where = direction or draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    d = 2 if where == "bidirectional" else 1
    x = b.input("x", b.numbers(time, batch, width), ["time", "batch", width])
    inputs = [x, b.weight(d, gates * size, width), b.weight(d, gates * size, size)]
    inputs.append(b.weight(d, 2 * gates * size) if draw(st.booleans()) else "")
    with_lengths = draw(st.booleans()) if lengths is None else lengths
    if with_lengths:
        lens = np.asarray(draw(st.lists(st.integers(1, time), min_size=batch, max_size=batch)), np.int32)
        inputs.append(b.input("lens", lens, ["batch"]))
    else:
        inputs.append("")
    for name in states:
        inputs.append(_state(b, draw(st.sampled_from(STATES)), name, d, batch, size, fixed=fixed))
    attributes: dict[str, Any] = {"hidden_size": size, "direction": where}
    if not plain:
        if op == "LSTM":
            inputs.append(b.weight(d, 3 * size) if draw(st.booleans()) else "")
        attributes |= _options(draw, op, d)
    while not inputs[-1]:
        inputs.pop()
    read = draw(st.lists(st.sampled_from(results), min_size=1, max_size=3, unique=True))
    outputs = [n if n in read else "" for n in results]
    while not outputs[-1]:
        outputs.pop()
    b.nodes.append(helper.make_node(op, inputs, outputs, name=op.lower(), **attributes))
    parts = []
    for name in read:
        if name == "Y":
            name = draw(st.sampled_from([_last, _mean, _sum]))(b, "Y")
        parts.append(b.op("Reshape", b.op("Transpose", name, perm=[1, 0, 2]), b.ints(-1, d * size)))
    flat = parts[0] if len(parts) == 1 else b.op("Concat", *parts, axis=1)
    model, feeds = b.case(b.gemm(flat, d * size * len(parts), draw(st.integers(1, 3))))
    return (batch_first(model) if layout else model), feeds


def _last(b: Builder, y: str) -> str:
    return b.over("Squeeze", b.slice(y, [-1], [2**31 - 1], [0]), 0)


def _mean(b: Builder, y: str) -> str:
    return b.over("ReduceMean", y, 0, keepdims=0)


def _sum(b: Builder, y: str) -> str:
    return b.over("ReduceSum", y, 0, keepdims=0)


def _state(b: Builder, kind: str, name: str, d: int, batch: int, size: int, *, fixed: bool) -> str:
    if kind == "absent":
        return ""
    if kind == "input":
        return b.input(name, b.numbers(d, batch, size), [d, "batch", size])
    if fixed:
        return b.weight(d, batch, size)
    if b.opset < 8:  # Expand came with opset 8
        return ""
    count = b.slice(b.op("Shape", "x"), [1], [2], [0])
    return b.op("Expand", b.weight(d, 1, size), b.op("Concat", b.ints(d), count, b.ints(size), axis=0))


def _options(draw: Any, op: str, d: int) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    if draw(st.booleans()):
        names = [draw(st.sampled_from(kind)) for _ in range(d) for kind in OPS[op][2]]
        attributes["activations"] = names
        # onnxruntime and the engine consume them in order, by those functions that take one
        alpha, beta = [ALPHA[n] for n in names if n in ALPHA], [BETA[n] for n in names if n in BETA]
        attributes |= ({"activation_alpha": alpha} if alpha else {}) | ({"activation_beta": beta} if beta else {})
    if draw(st.booleans()):
        attributes["clip"] = draw(st.sampled_from([0.3, 1.0, 3.0]))
    if op == "LSTM" and draw(st.booleans()):
        attributes["input_forget"] = 1
    if op == "GRU" and draw(st.booleans()):
        attributes["linear_before_reset"] = 1
    return attributes


def _node(model: ModelProto) -> tuple[int, Any]:
    return next((k, n) for k, n in enumerate(model.graph.node) if n.op_type in OPS)


def _replaced(model: ModelProto, at: int, nodes: list[Any], constants: list[Any] | None = None) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    kept = list(model.graph.node)
    del copy.graph.node[:]
    copy.graph.node.extend([*kept[:at], *nodes, *kept[at + 1 :]])
    copy.graph.initializer.extend(constants or [])
    return copy


def batch_first(model: ModelProto) -> ModelProto:
    """The same model with layout=1 (opset 14 and up), transposed on the way in and out."""
    at, node = _node(model)
    inputs, outputs, before, after = list(node.input), list(node.output), [], []
    for k in (0, 5, 6):
        if k < len(inputs) and inputs[k]:
            before.append(helper.make_node("Transpose", [inputs[k]], [f"layout_{k}"], perm=[1, 0, 2]))
            inputs[k] = f"layout_{k}"
    for k, perm in enumerate(([1, 2, 0, 3], [1, 0, 2], [1, 0, 2])[: len(outputs)]):
        if outputs[k]:
            after.append(helper.make_node("Transpose", [f"layout_{outputs[k]}"], [outputs[k]], perm=perm))
            outputs[k] = f"layout_{outputs[k]}"
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    swapped = helper.make_node(node.op_type, inputs, outputs, name=node.name, layout=1, **attributes)
    return _replaced(model, at, [*before, swapped, *after])


def split_directions(model: ModelProto) -> ModelProto:
    """The same model with its bidirectional node written as a forward and a reverse one."""
    at, node = _node(model)
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    names = [n.decode() for n in attributes.pop("activations", [])]
    pools = {"activation_alpha": ALPHA, "activation_beta": BETA}
    nodes, constants = [], [numpy_helper.from_array(np.asarray([d], np.int64), f"direction_{d}") for d in (0, 1)]
    for d, direction in enumerate(("forward", "reverse")):
        inputs = list(node.input)
        for k, name in enumerate(inputs):
            if not name or k in (0, 4):
                continue
            inputs[k] = f"{name}_{d}"
            if name in arrays:
                constants.append(numpy_helper.from_array(arrays[name][d : d + 1], inputs[k]))
            else:
                nodes.append(helper.make_node("Gather", [name, f"direction_{d}"], [inputs[k]], axis=0))
        own: dict[str, Any] = {**attributes, "direction": direction}
        if names:
            own["activations"] = names[len(names) // 2 * d :][: len(names) // 2]
            for key, table in pools.items():
                own.pop(key, None)
                values = [table[n] for n in own["activations"] if n in table]
                own |= {key: values} if values else {}
        outputs = [f"{o}_{d}" if o else "" for o in node.output]
        nodes.append(helper.make_node(node.op_type, inputs, outputs, name=f"{node.name}_{direction}", **own))
    for k, name in enumerate(node.output):
        if name:
            nodes.append(helper.make_node("Concat", [f"{name}_0", f"{name}_1"], [name], axis=0 if k else 1))
    return _replaced(model, at, nodes, constants)
