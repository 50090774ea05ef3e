"""Recurrent cells written out: unrolled, in a Scan, in a Loop, with the fused operator's weights, so that all are one network."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from .build import Builder, Case, generators, opsets

__all__ = ["cell_spellings", "loops"]

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FORMS = ("unrolled", "scan", "loop")


class Body(Builder):
    """Nodes of a sub-graph; constants go to the graph around it, so that the sub-graph captures them."""

    def __init__(self, outer: Builder, prefix: str) -> None:
        super().__init__(outer.rng, outer.opset)
        self.outer = outer
        self.prefix = prefix

    def const(self, array: Any, dtype: Any = None) -> str:
        return self.outer.const(array, dtype)

    def ops(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        names = [f"{self.prefix}{op.lower()}{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"{self.prefix}{op}{len(self.nodes)}", **attributes))
        return names

    def graph(self, inputs: list[Any], outputs: list[str]) -> Any:
        kinds = [TensorProto.BOOL if "going" in o else TensorProto.FLOAT for o in outputs]
        infos = [helper.make_tensor_value_info(o, k, None) for o, k in zip(outputs, kinds, strict=True)]
        return helper.make_graph(self.nodes, f"{self.prefix}body", inputs, infos)


class Cell:
    """One step of an LSTM, GRU or RNN in primitive nodes. Weights in ONNX's gate order, (G·H, I) and (G·H, H), bias (2·G·H,)."""

    def __init__(self, draw: Any, b: Builder, op: str, width: int, size: int) -> None:
        g = GATES[op]
        self.op, self.size, self.width = op, size, width
        self.w, self.r, self.b = b.numbers(g * size, width), b.numbers(g * size, size), b.numbers(2 * g * size)
        self.after = op == "GRU" and draw(st.booleans())  # linear_before_reset
        self.split = draw(st.booleans())  # gates by Split or by Slice
        self.dense = draw(st.sampled_from(["Gemm", "MatMul"]))
        self.mixed = draw(st.sampled_from(["gates", "difference"]))  # (1 − z)·n + z·h, or n + z·(h − n)

    def project(self, b: Builder, x: str, w: np.ndarray, bias: np.ndarray | None) -> str:
        """x times w transposed, plus bias, in the cell's spelling; Gemm takes two axes only."""
        if self.dense == "Gemm":
            more = [] if bias is None and b.opset >= 11 else [b.const(np.zeros(len(w), np.float32) if bias is None else bias)]
            return b.op("Gemm", x, b.const(w), *more, transB=1)
        return self.matmul(b, x, w, bias)

    def matmul(self, b: Builder, x: str, w: np.ndarray, bias: np.ndarray | None) -> str:
        z = b.op("MatMul", x, b.const(np.ascontiguousarray(w.T)))
        return z if bias is None else b.op("Add", z, b.const(bias))

    def gates(self, b: Builder, z: str, count: int) -> list[str]:
        n = self.size
        if count == 1:
            return [z]
        if self.split:
            sizes = {"split": [n] * count} if b.opset < 13 else {}
            more = [b.ints(*[n] * count)] if b.opset >= 13 else []
            return b.ops("Split", z, *more, outputs=count, axis=1, **sizes)
        return [b.slice(z, [k * n], [(k + 1) * n], [1]) for k in range(count)]

    def step(self, b: Builder, x: str, states: list[str], *, projected: bool = False) -> list[str]:
        """New states; ``projected``: x is x·W + its bias already, all gates of it."""
        n, g = self.size, GATES[self.op]
        wb, rb = self.b[: g * n], self.b[g * n :]
        zx = x if projected else self.project(b, x, self.w, wb)
        if self.op == "GRU":
            return self._gru(b, zx, states[0], rb)
        zh = self.project(b, states[0], self.r, rb)
        z = b.op("Add", zx, zh)
        if self.op == "RNN":
            return [b.op("Tanh", z)]
        i, o, f, c = self.gates(b, z, 4)
        kept = b.op("Mul", b.op("Sigmoid", f), states[1])
        cell = b.op("Add", kept, b.op("Mul", b.op("Sigmoid", i), b.op("Tanh", c)))
        return [b.op("Mul", b.op("Sigmoid", o), b.op("Tanh", cell)), cell]

    def _gru(self, b: Builder, zx: str, h: str, rb: np.ndarray) -> list[str]:
        n = self.size
        xz, xr, xh = self.gates(b, zx, 3)
        z = b.op("Sigmoid", b.op("Add", xz, self.project(b, h, self.r[:n], rb[:n])))
        r = b.op("Sigmoid", b.op("Add", xr, self.project(b, h, self.r[n : 2 * n], rb[n : 2 * n])))
        if self.after:
            inner = b.op("Mul", r, self.project(b, h, self.r[2 * n :], rb[2 * n :]))
        else:
            inner = self.project(b, b.op("Mul", r, h), self.r[2 * n :], rb[2 * n :])
        new = b.op("Tanh", b.op("Add", xh, inner))
        if self.mixed == "difference":
            return [b.op("Add", new, b.op("Mul", z, b.op("Sub", h, new)))]
        rest = b.op("Sub", b.const(np.float32(1)), z)
        return [b.op("Add", b.op("Mul", rest, new), b.op("Mul", z, h))]


def _head(b: Builder, h: str, size: int, head: tuple[np.ndarray, np.ndarray]) -> ModelProto:
    return b.case(b.op("Gemm", h, b.const(head[0]), b.const(head[1])))[0]


def _input(b: Builder, x: np.ndarray, time: str | int) -> str:
    return b.input("x", x, [time, "batch", x.shape[2]])


def _zeros(b: Builder, x: str, size: int) -> str:
    count = b.slice(b.op("Shape", x), [1], [2], [0])
    return b.op("Expand", b.const(np.zeros((1, size), np.float32)), b.op("Concat", count, b.ints(size), axis=0))


def _fused(opset: int, cell: Cell, x: np.ndarray, head: Any) -> ModelProto:
    b = Builder(np.random.default_rng(0), opset)
    weights = [b.const(a[None]) for a in (cell.w, cell.r, cell.b)]
    more = {"linear_before_reset": 1} if cell.after else {}
    _, last = b.ops(cell.op, _input(b, x, "time"), *weights, outputs=2, hidden_size=cell.size, **more)
    return _head(b, b.over("Squeeze", last, 0), cell.size, head)


def _unrolled(opset: int, cell: Cell, x: np.ndarray, head: Any) -> ModelProto:
    b = Builder(np.random.default_rng(0), opset)
    name = _input(b, x, x.shape[0])
    states = [_zeros(b, name, cell.size)] * (2 if cell.op == "LSTM" else 1)
    for t in range(x.shape[0]):
        states = cell.step(b, b.op("Gather", name, b.const(t, np.int64), axis=0), states)
    return _head(b, states[0], cell.size, head)


def _scan(opset: int, cell: Cell, x: np.ndarray, head: Any, *, hoisted: bool) -> ModelProto:
    b = Builder(np.random.default_rng(0), opset)
    name = _input(b, x, "time")
    read = cell.matmul(b, name, cell.w, cell.b[: len(cell.w)]) if hoisted else name
    count = 2 if cell.op == "LSTM" else 1
    inner = Body(b, "in_")
    given = [f"before{k}" for k in range(count)]
    new = cell.step(inner, "row", given, projected=hoisted)
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in (*given, "row")]
    outs = [inner.op("Identity", s) for s in new] if count == 1 else new
    body = inner.graph(infos, outs)
    states = [_zeros(b, name, cell.size)] * count
    final = b.ops("Scan", *states, read, outputs=count, body=body, num_scan_inputs=1)
    return _head(b, final[0], cell.size, head)


def _loop(opset: int, cell: Cell, x: np.ndarray, head: Any, *, hoisted: bool, collected: bool) -> ModelProto:
    """As tf2onnx writes it: rows by Gather, a weight carried as a state, the result read from what was collected."""
    b = Builder(np.random.default_rng(0), opset)
    name = _input(b, x, "time")
    read = cell.matmul(b, name, cell.w, cell.b[: len(cell.w)]) if hoisted else name
    count = 2 if cell.op == "LSTM" else 1
    inner = Body(b, "in_")
    given = [f"before{k}" for k in range(count)]
    row = inner.op("Gather", read, "time_", axis=0)
    new = cell.step(inner, row, given, projected=hoisted)
    scaled = inner.op("Mul", new[0], "one")  # by a carried constant
    new = [inner.op("Identity", scaled), *new[1:]]
    later = inner.op("Add", "time_", b.const(1, np.int64))
    going = inner.op("Identity", "going")
    infos = [
        helper.make_tensor_value_info("number", TensorProto.INT64, []),
        helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        helper.make_tensor_value_info("time_", TensorProto.INT64, []),
        *(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in (*given, "one")),
    ]
    outs = [going, later, *new, "one", scaled]
    body = helper.make_graph(
        inner.nodes,
        "body",
        infos,
        [
            helper.make_tensor_value_info(o, k, None)
            for o, k in zip(outs, [TensorProto.BOOL, TensorProto.INT64, *[TensorProto.FLOAT] * (count + 2)], strict=True)
        ],
    )
    states = [_zeros(b, name, cell.size)] * count
    steps = b.over("Squeeze", b.slice(b.op("Shape", name), [0], [1], [0]), 0)
    one = b.const(np.ones((), np.float32))
    results = b.ops("Loop", steps, b.const(True), b.const(0, np.int64), *states, one, outputs=count + 3, body=body)
    last = b.over("Squeeze", b.slice(results[-1], [-1], [2**31 - 1], [0]), 0)
    return _head(b, last if collected else results[1], cell.size, head)


@st.composite
def cell_spellings(draw: Any, *, op: str | None = None, plain: bool = False) -> tuple[list[ModelProto], dict[str, np.ndarray]]:
    """The same LSTM, GRU or RNN as the fused operator, unrolled, as Scan and as Loop, with their common input.

    ``plain``: as the fused operator has it, with one bias and (1 − z)·n + z·h, which rules that treat signs apart or give gates a
    share tell from two biases and from n + z·(h − n). Shrinks to one unit, one step, one sample.
    """
    op = op or draw(st.sampled_from(sorted(GATES)))
    opset = draw(opsets(least=9))
    b = Builder(draw(generators()), opset)
    time, batch, width, size = draw(st.integers(1, 4)), *(draw(st.integers(1, 3)) for _ in range(3))
    cell = Cell(draw, b, op, width, size)
    if plain:
        cell.b[len(cell.w) :] = 0
        cell.mixed = "gates"
    x, head = b.numbers(time, batch, width), (b.numbers(size, 2), b.numbers(2))
    models = [
        _fused(opset, cell, x, head),
        _unrolled(opset, cell, x, head),
        _scan(opset, cell, x, head, hoisted=draw(st.booleans())),
        _loop(opset, cell, x, head, hoisted=draw(st.booleans()), collected=draw(st.booleans())),
    ]
    return models, {"x": x}


@st.composite
def loops(draw: Any, *, form: str | None = None) -> Case:
    """A cell written out. ``form``: "unrolled", "scan", "loop" or any (None). Shrinks to an unrolled step."""
    models, feeds = draw(cell_spellings())
    return models[1 + FORMS.index(form or draw(st.sampled_from(FORMS)))], feeds
