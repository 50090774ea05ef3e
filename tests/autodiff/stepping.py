"""Control flow and recurrent nodes, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from onnx_lrp.graph import Graph, Node

from .activations import ACTIVATIONS, elementwise
from .base import Base
from .pieces import reverse, slot, stack
from .values import ANY, Value, activation, build, constant, data, route, scale, total


class Stepping(Base):
    """If, Loop, Scan, LSTM, GRU, RNN."""

    def op_if(self, node: Node, args: Sequence[Value], env: dict[str, Any]) -> list[Any]:
        branch = node.attributes["then_branch" if np.all(args[0].now) else "else_branch"]
        inner = self.run(branch, env)
        return [inner[v.name] for v in branch.outputs]

    def op_loop(self, node: Node, args: Sequence[Any], env: dict[str, Any]) -> list[Any]:
        body: Graph = node.attributes["body"]
        trips = int(args[0].now) if args[0] is not None else 2**31
        going = args[1] is None or bool(args[1].now)
        names = [v.name for v in body.inputs[2:]]
        kept = [comes_from(body, out.name) == name for out, name in zip(body.outputs[1:], names, strict=False)]
        states = [initial(a, fixed=k) for a, k in zip(args[2:], kept, strict=True)]
        scans: list[list[Value]] = [[] for _ in body.outputs[1 + len(states) :]]
        k = 0
        while going and k < trips:
            now = {body.inputs[0].name: constant(np.asarray(k)), body.inputs[1].name: constant(np.asarray(True))}
            inner = self.run(body, {**env, **now, **dict(zip(names, states, strict=True))})
            going = bool(inner[body.outputs[0].name].now)
            new = [inner[v.name] for v in body.outputs[1:]]
            states = [old if f else carried(v) for old, v, f in zip(states, new, kept, strict=False)]
            for scan, value in zip(scans, new[len(states) :], strict=True):
                scan.append(value)
            k += 1
        return [*states, *(stack(s, 0) for s in scans)]

    def op_scan(self, node: Node, args: Sequence[Any], env: dict[str, Any]) -> list[Any]:
        body: Graph = node.attributes["body"]
        at = node.attributes
        count = len(args) - at["num_scan_inputs"]
        names = [v.name for v in body.inputs]
        kept = [comes_from(body, out.name) == name for out, name in zip(body.outputs[:count], names, strict=False)]
        states = [initial(a, fixed=k) for a, k in zip(args[:count], kept, strict=True)]
        axes = at.get("scan_input_axes", [0] * at["num_scan_inputs"])
        backwards = at.get("scan_input_directions", [0] * at["num_scan_inputs"])
        out_axes = at.get("scan_output_axes", [0] * (len(body.outputs) - count))
        out_backwards = at.get("scan_output_directions", [0] * (len(body.outputs) - count))
        steps = args[count].now.shape[axes[0]]
        scans: list[list[Value]] = [[] for _ in out_axes]
        for k in range(steps):
            rows = [slot(x, steps - 1 - k if b else k, a) for x, a, b in zip(args[count:], axes, backwards, strict=True)]
            inner = self.run(body, {**env, **dict(zip(names, [*states, *rows], strict=True))})
            new = [inner[v.name] for v in body.outputs]
            states = [old if f else carried(v) for old, v, f in zip(states, new, kept, strict=False)]
            for scan, value in zip(scans, new[count:], strict=True):
                scan.append(value)
        return [*states, *(stack(s[::-1] if b else s, a) for s, a, b in zip(scans, out_axes, out_backwards, strict=True))]

    # recurrent nodes, step by step

    def op_lstm(self, node: Node, args: Sequence[Any], **at: Any) -> list[Value]:
        return self.recurrent(node, args, ("Sigmoid", "Tanh", "Tanh"), 2, lstm_step, at)

    def op_gru(self, node: Node, args: Sequence[Any], **at: Any) -> list[Value]:
        return self.recurrent(node, args, ("Sigmoid", "Tanh"), 1, gru_step, at)

    def op_rnn(self, node: Node, args: Sequence[Any], **at: Any) -> list[Value]:
        return self.recurrent(node, args, ("Tanh",), 1, rnn_step, at)

    def recurrent(self, node: Node, args: Sequence[Any], defaults: Any, count: int, step: Any, at: dict[str, Any]) -> list[Value]:
        given = [*args, *[None] * (8 - len(args))]
        x, w, r, b, lens = given[:5]
        starts = given[5 : 5 + count]
        first = bool(at.get("layout", 0))
        if first:
            x = route(lambda t: tf.transpose(t, [1, 0, 2]), x)
            starts = [None if s is None else route(lambda t: tf.transpose(t, [1, 0, 2]), s) for s in starts]
        steps, batch = x.now.shape[:2]
        size, direction = r.now.shape[-1], at.get("direction", "forward")
        flags = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
        functions = list(settled(at.get("activations") or defaults * len(flags), at))
        lengths = None if lens is None else lens.now.astype(np.int64)
        if lengths is not None:
            self.lens.append((lengths, steps))
        ys, finals = [], []
        for d, backwards in enumerate(flags):
            weights = {
                "w": w.now[d],
                "r": r.now[d],
                "b": np.zeros(w.now.shape[1] * 2) if b is None else b.now[d],
                "p": None if given[7] is None else given[7].now[d],
                "functions": functions[d * len(defaults) : (d + 1) * len(defaults)],
                "at": at,
                "size": size,
            }
            states = [
                data(np.zeros((batch, size)), [])
                if s is None
                else route(lambda t: tf.broadcast_to(t, [batch, size]), slot(s, d, 0))
                for s in starts
            ]
            rows = reverse(x, np.full(batch, steps) if lengths is None else lengths, 0, 1) if backwards else x
            outs = []
            for t in range(steps):
                new = step(slot(rows, t, 0), states, weights)
                if lengths is not None:
                    valid = (t < lengths)[:, None]
                    new = [route(lambda a, c, valid=valid: tf.where(valid, a, c), a, c) for a, c in zip(new, states, strict=True)]
                    outs.append(scale(constant(valid.astype(np.float64)), new[0]))
                else:
                    outs.append(new[0])
                states = new
            y = stack(outs, 0)
            ys.append(reverse(y, np.full(batch, steps) if lengths is None else lengths, 0, 1) if backwards else y)
            finals.append(states)
        y = stack(ys, 1)
        results = [y, *(stack(s, 0) for s in zip(*finals, strict=True))]
        if first:
            results = [route(lambda t: tf.transpose(t, [2, 0, 1, 3]), y), *results[1:]]
            results[1:] = [route(lambda t: tf.transpose(t, [1, 0, 2]), s) for s in results[1:]]
        return results


def comes_from(body: Graph, name: str) -> str:
    """The tensor that a name is another name of."""
    while name in body.producers and body.producers[name].op == "Identity":
        name = body.producers[name].inputs[0]
    return name


def initial(x: Value, *, fixed: bool) -> Value:
    """A loop's initial state: a captured constant if the body returns it unchanged, else a signal without bounds."""
    if fixed or not isinstance(x, Value) or not x.is_float:
        return x
    if x.live:
        return route(lambda t: tf.identity(t), x, bounds=ANY)
    return Value(x.now, state=True)


def carried(x: Value) -> Value:
    if not isinstance(x, Value) or not x.live:
        return Value(x.now, state=True) if x.is_float else x
    x.root = True
    return route(lambda t: tf.identity(t), x, bounds=ANY)


def settled(names: Sequence[str], at: dict[str, Any]) -> Any:
    """Activation functions; alpha and beta are consumed in order by those that take them."""
    alphas, betas = list(at.get("activation_alpha") or ()), list(at.get("activation_beta") or ())
    known = {n.lower(): n for n in ACTIVATIONS}
    for given in names:
        name = known[given.lower()]
        takes = ACTIVATIONS[name][1]
        settings = {k: pool.pop(0) for k, pool in (("alpha", alphas), ("beta", betas)) if k in takes and pool}
        yield elementwise(name, settings)[0]


def clamped(z: Any, weights: dict[str, Any]) -> Any:
    clip = weights["at"].get("clip")
    return tf.clip_by_value(z, -clip, clip) if clip else z


def pre(x: Value, h: Value, weights: dict[str, Any], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights of gate k: of x, of h, and both biases."""
    size, rows = weights["size"], weights["w"].shape[0]
    own = slice(k * size, (k + 1) * size)
    b = weights["b"]
    return weights["w"][own].T, weights["r"][own].T, b[:rows][own], b[rows:][own]


def dense(x: Value, h: Value, weights: dict[str, Any], k: int) -> Value:
    """The pre-activation of gate k over x and h."""
    w, r, b, c = pre(x, h, weights, k)
    return build("sum", lambda x, h: tf.matmul(x, w) + tf.matmul(h, r) + b + c, [x, h], [0, 1], summed=True)


def gate(z: Any, weights: dict[str, Any]) -> Value:
    return Value(np.asarray(weights["functions"][0](clamped(z, weights))), bounds=(0, 1))


def through(z: Value, weights: dict[str, Any], which: int) -> Value:
    return activation(lambda t: weights["functions"][which](clamped(t, weights)), z)


def lstm_step(x: Value, states: Sequence[Value], weights: dict[str, Any]) -> list[Value]:
    h, c = states
    p, size = weights["p"], weights["size"]
    i, o, f = (dense(x, h, weights, k).now for k in (0, 1, 2))
    g = through(dense(x, h, weights, 3), weights, 1)
    i = gate(i if p is None else i + p[:size] * c.now, weights)
    f = gate(f if p is None else f + p[2 * size :] * c.now, weights)
    if weights["at"].get("input_forget"):
        f = Value(1 - i.now)
    new = total([scale(f, c), scale(i, g)], [1.0, 1.0])
    new.root = True
    o = gate(o if p is None else o + p[size : 2 * size] * new.now, weights)
    return [scale(o, activation(weights["functions"][2], new)), new]


def gru_step(x: Value, states: Sequence[Value], weights: dict[str, Any]) -> list[Value]:
    (h,) = states
    z, r = (gate(dense(x, h, weights, k).now, weights) for k in (0, 1))
    w, u, b, c = pre(x, h, weights, 2)
    if weights["at"].get("linear_before_reset"):
        n = build("sum", lambda x, h: tf.matmul(x, w) + b + r.now * (tf.matmul(h, u) + c), [x, h], [0, 1], summed=True)
    else:
        n = dense(x, scale(r, h), weights, 2)
    new = total([scale(Value(1 - z.now), through(n, weights, 1)), scale(z, h)], [1.0, 1.0])
    new.root = True
    return [new]


def rnn_step(x: Value, states: Sequence[Value], weights: dict[str, Any]) -> list[Value]:
    return [through(dense(x, states[0], weights, 0), weights, 0)]
