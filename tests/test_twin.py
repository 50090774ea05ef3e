"""The engine is its slow twin, relevance by relevance and kind by kind."""

from __future__ import annotations

import numpy as np
import pytest
import twin
from onnx import helper

import onnx_lrp
from onnx_lrp.testing.build import Builder


def network(seed, *, direction, lens, states, mean):
    """(model, feeds, weights of the twin): an LSTM, features, and one dense layer over features and the first step."""
    b = Builder(np.random.default_rng(seed), 17)
    time, batch, width, size, hidden, classes = 5, 3, 3, 4, 3, 2
    d = 2 if direction == "bidirectional" else 1
    weights = {
        "W": b.numbers(d, 4 * size, width),
        "R": b.numbers(d, 4 * size, size),
        "B": b.numbers(d, 8 * size),
        "V1": b.numbers(d * size, hidden),
        "S": b.numbers(width, hidden),
        "d1": b.numbers(hidden),
        "V2": b.numbers(hidden, classes),
        "d2": b.numbers(classes),
    }
    x = b.input("x", b.numbers(time, batch, width), ["T", "B", width])
    inputs = [x, *(b.const(weights[n]) for n in "WRB")]
    inputs.append(b.input("lens", np.asarray([5, 2, 3], np.int32), ["B"]) if lens else "")
    inputs += [b.input(n, b.numbers(d, batch, size), [d, "B", size]) if n in states else "" for n in ("h0", "c0")]
    while not inputs[-1]:
        inputs.pop()
    outputs = ["Y", "" if mean else "Y_h"]
    b.nodes.append(helper.make_node("LSTM", inputs, outputs, name="lstm", hidden_size=size, direction=direction))
    if mean:
        y = b.op("Reshape", b.op("Transpose", "Y", perm=[0, 2, 1, 3]), b.ints(0, 0, -1))
        features = b.over("ReduceMean", y, 0, keepdims=0)
    else:
        features = b.op("Reshape", b.op("Transpose", "Y_h", perm=[1, 0, 2]), b.ints(0, -1))
    z = b.op("Add", b.op("MatMul", features, b.const(weights["V1"])), b.const(weights["d1"]))
    first = b.op("Gather", x, b.const(0, np.int64), axis=0)
    z = b.op("Add", b.op("MatMul", first, b.const(weights["S"])), z)
    model, feeds = b.case(b.op("Gemm", b.op("Tanh", z), b.const(weights["V2"]), b.const(weights["d2"])))
    return model, feeds, {**weights, "backwards": {"forward": [False], "reverse": [True]}.get(direction, [False, True])}


def cell_network(seed, op, *, direction, lens, states, mean, reset_after=False):
    """(model, feeds, weights of the twin): a GRU or an RNN, features, and one dense layer."""
    b = Builder(np.random.default_rng(seed), 17)
    time, batch, width, size, classes = 4, 3, 3, 3, 2
    d = 2 if direction == "bidirectional" else 1
    blocks = {"GRU": 3, "RNN": 1}[op]
    weights = {
        "W": b.numbers(d, blocks * size, width),
        "R": b.numbers(d, blocks * size, size),
        "B": b.numbers(d, 2 * blocks * size),
        "V": b.numbers(d * size, classes),
        "d": b.numbers(classes),
    }
    inputs = [b.input("x", b.numbers(time, batch, width), ["T", "B", width]), *(b.const(weights[n]) for n in "WRB")]
    inputs.append(b.input("lens", np.asarray([4, 2, 3], np.int32), ["B"]) if lens else "")
    inputs.append(b.input("h0", b.numbers(d, batch, size), [d, "B", size]) if states else "")
    while not inputs[-1]:
        inputs.pop()
    more = {"linear_before_reset": int(reset_after)} if op == "GRU" else {}
    outputs = ["Y"] if mean else ["", "Y_h"]
    b.nodes.append(helper.make_node(op, inputs, outputs, name=op.lower(), hidden_size=size, direction=direction, **more))
    if mean:
        y = b.op("Reshape", b.op("Transpose", "Y", perm=[0, 2, 1, 3]), b.ints(0, 0, -1))
        features = b.over("ReduceMean", y, 0, keepdims=0)
    else:
        features = b.op("Reshape", b.op("Transpose", "Y_h", perm=[1, 0, 2]), b.ints(0, -1))
    model, feeds = b.case(b.op("Gemm", features, b.const(weights["V"]), b.const(weights["d"])))
    return model, feeds, {**weights, "backwards": {"forward": [False], "reverse": [True]}.get(direction, [False, True])}


def compare(model, feeds, weights, *, mean, precision, epsilon, delta, gates="all", op="LSTM", reset_after=False, jit="eager"):
    names = {"LSTM": "hc"}.get(op, "h") if gates == "all" else ""  # states are kept under gate rule "all" alone
    explanation = onnx_lrp.load(
        model, epsilon=epsilon, bias_factor=delta, gates=gates, precision=precision, jit=jit, verify="never"
    ).explain(feeds, keep=[f"{op.lower()}:{state}" for state in names])
    tolerance = {"float32": 1e-5, "float64": 1e-10}[precision]
    exact = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in weights.items() if k != "backwards"}
    exact["backwards"] = weights["backwards"]
    batch_axis = {"x": 1, "lens": 0, "h0": 1, "c0": 1}
    for k in range(feeds["x"].shape[1]):
        sample = {n: np.take(a, k, batch_axis[n]) for n, a in feeds.items()}
        sample = {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in sample.items()}
        options = {"mean": mean, "epsilon": epsilon, "delta": delta, "gates": gates}
        if op == "LSTM":
            relevance, absorbed, _, states = twin.network(sample, exact, **options)
        else:
            relevance, absorbed, _, states = twin.cell_network(sample, exact, op=op, reset_after=reset_after, **options)
        scale = max(np.abs(r).max() for r in relevance.values())
        for name, want in relevance.items():
            got = np.take(explanation.relevance[name], k, 1)
            assert np.abs(got - want).max() <= tolerance * scale, (name, np.abs(got - want).max() / scale)
        for state, want in states.items() if names else ():
            got = explanation.hidden[f"{op.lower()}:{state}"][:, :, k]
            assert np.abs(got - want).max() <= tolerance * max(scale, np.abs(want).max()), (state, np.abs(got - want).max())
        moved = scale + sum(abs(a) for a in absorbed.values())
        for kind in absorbed.keys() | explanation.absorbed.keys():
            got = explanation.absorbed[kind][k] if kind in explanation.absorbed else 0.0
            assert abs(got - absorbed.get(kind, 0.0)) <= tolerance * moved, (kind, got, absorbed.get(kind))


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("delta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("epsilon", [0.001, 0.1])
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize(
    ("direction", "lens", "states"),
    [
        ("forward", False, ()),
        ("reverse", True, ("h0", "c0")),
        ("bidirectional", True, ()),
        ("bidirectional", False, ("h0", "c0")),
        ("forward", True, ("h0",)),
    ],
)
def test_engine_is_its_twin(direction, lens, states, mean, epsilon, delta, precision):
    model, feeds, weights = network(5, direction=direction, lens=lens, states=states, mean=mean)
    compare(model, feeds, weights, mean=mean, precision=precision, epsilon=epsilon, delta=delta)


@pytest.mark.parametrize("gates", ["half", "prop", "abs"])
@pytest.mark.parametrize("epsilon", [0.001, 0.1])
@pytest.mark.parametrize(
    ("direction", "lens", "states", "mean"),
    [
        ("forward", False, (), False),
        ("reverse", True, ("h0", "c0"), True),
        ("bidirectional", True, (), False),
        ("bidirectional", False, ("h0", "c0"), True),
    ],
)
def test_engine_is_its_twin_under_every_gate_rule(direction, lens, states, mean, epsilon, gates):
    model, feeds, weights = network(5, direction=direction, lens=lens, states=states, mean=mean)
    compare(model, feeds, weights, mean=mean, precision="float64", epsilon=epsilon, delta=0.0, gates=gates)


CELLS = [
    ("forward", False, (), False),
    ("reverse", True, ("h0",), True),
    ("bidirectional", True, (), True),
    ("bidirectional", False, ("h0",), False),
]


@pytest.mark.parametrize("delta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("epsilon", [0.001, 0.1])
@pytest.mark.parametrize(("direction", "lens", "states", "mean"), CELLS)
@pytest.mark.parametrize(("op", "reset_after"), [("GRU", False), ("GRU", True), ("RNN", False)])
def test_gru_and_rnn_are_their_twins(op, reset_after, direction, lens, states, mean, epsilon, delta):
    model, feeds, weights = cell_network(7, op, direction=direction, lens=lens, states=states, mean=mean, reset_after=reset_after)
    options = {"mean": mean, "epsilon": epsilon, "delta": delta, "op": op, "reset_after": reset_after}
    compare(model, feeds, weights, precision="float64", **options)


@pytest.mark.parametrize("gates", ["half", "prop", "abs"])
@pytest.mark.parametrize("epsilon", [0.001, 0.1])
@pytest.mark.parametrize(("direction", "lens", "states", "mean"), CELLS)
@pytest.mark.parametrize(("op", "reset_after"), [("GRU", False), ("GRU", True), ("RNN", False)])
def test_gru_and_rnn_are_their_twins_under_every_gate_rule(op, reset_after, direction, lens, states, mean, epsilon, gates):
    """An RNN has no gates: every rule is ``all`` there."""
    model, feeds, weights = cell_network(7, op, direction=direction, lens=lens, states=states, mean=mean, reset_after=reset_after)
    options = {"mean": mean, "epsilon": epsilon, "delta": 0.0, "op": op, "reset_after": reset_after}
    compare(model, feeds, weights, precision="float64", gates=gates, **options)


@pytest.mark.parametrize(("op", "reset_after", "gates"), [("GRU", True, "all"), ("GRU", False, "abs"), ("RNN", False, "all")])
def test_wrong_cells_are_noticed(op, reset_after, gates, monkeypatch):
    """Twins without the bias inside, with gate and signal swapped, or with relevance that jumps over a step disagree."""
    model, feeds, weights = cell_network(7, op, direction="forward", lens=False, states=(), mean=True, reset_after=reset_after)
    options = {"mean": True, "precision": "float64", "epsilon": 0.001, "delta": 0.0}
    options |= {"op": op, "reset_after": reset_after, "gates": gates}
    compare(model, feeds, weights, **options)
    size = weights["R"].shape[2]
    if op == "RNN":
        original = twin.rnn_relevance
        monkeypatch.setattr(twin, "rnn_relevance", lambda x, w, u, *rest: original(x, w, 0.9 * u, *rest))
    elif gates == "all":
        inside = np.arange(6 * size) < 5 * size
        real = twin.gru_relevance
        monkeypatch.setattr(twin, "gru_relevance", lambda x, w, u, b, *rest: real(x, w, u, b * inside, *rest))
    else:
        product = twin.product
        monkeypatch.setattr(twin, "product", lambda gate, signal, *rest: product(signal, gate, *rest))
    with pytest.raises(AssertionError):
        compare(model, feeds, weights, **options)


def test_twin_is_noticed_when_wrong(monkeypatch):
    """A twin without the bias of the candidate no longer agrees."""
    model, feeds, weights = network(1, direction="forward", lens=False, states=(), mean=False)
    original = twin.lstm_relevance
    monkeypatch.setattr(twin, "lstm_relevance", lambda x, w, u, b, *rest: original(x, w, u, 0 * b, *rest))
    with pytest.raises(AssertionError):
        compare(model, feeds, weights, mean=False, precision="float64", epsilon=0.001, delta=0.0)
