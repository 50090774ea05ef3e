"""Series in parts of unequal lengths: cut, listed, changed, read by computed numbers, mapped in loops and joined again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from .build import Builder, Case, opsets

__all__ = ["part_spellings", "pieces"]

CUTS = ("sizes", "size", "listed", "grown", "carried")
CHANGES = ("none", "insert", "constant", "erase")
READS = ("join", "read", "map")


@dataclass(frozen=True)
class Cutting:
    """What was drawn: everything that the spellings of one model share.

    Attributes:
        cut: how the parts come about: by their sizes, by one size for all but the last, in a list, or in a loop (to the list of
            none, or to one with an element, of which it also reads the last).
        pieces: (first, end) of each part in the series (B, T, 2).
        computed: whether sizes and positions are graph inputs.
        at: where an element is inserted or erased.
        axis: of time, from either end.
        single: whether the file says that there is one sample.
        open: whether the file leaves T open.
    """

    seed: int
    opset: int
    batch: int
    time: int
    cut: str
    pieces: tuple[tuple[int, int], ...]
    change: str
    at: int
    read: str
    order: tuple[int, ...]
    computed: bool
    axis: int
    single: bool
    open: bool


@st.composite
def cuttings(draw: Any) -> Cutting:
    """Shrinks to a series of one step in one part."""
    batch, time = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    cut = draw(st.sampled_from(CUTS))
    if cut in ("grown", "carried"):
        pieces = [(0, k + 1) for k in range(time)]
    elif cut == "size":
        size = draw(st.integers(1, time))
        pieces = [(at, min(at + size, time)) for at in range(0, time, size)]
    else:
        edges = sorted(draw(st.sets(st.integers(1, time), max_size=3)) | {time})
        pieces = list(zip([0, *edges[:-1]], edges, strict=True))
    if cut == "carried":
        pieces.insert(0, (0, time))
    change = draw(st.sampled_from(CHANGES if len(pieces) > 1 else CHANGES[:3]))
    read = draw(st.sampled_from(READS))
    count = len(pieces) + {"none": 0, "erase": -1}.get(change, 1)
    return Cutting(
        seed=draw(st.integers(0, 2**16)),
        opset=draw(opsets(least=13)),
        batch=batch,
        time=time,
        cut=cut,
        pieces=tuple(pieces),
        change=change,
        at=draw(st.integers(-len(pieces), len(pieces) - 1)),
        read=read,
        order=tuple(draw(st.lists(st.integers(-count, count - 1), min_size=1, max_size=3))),
        computed=draw(st.booleans()),
        axis=draw(st.sampled_from([1, -2])),
        # what maps a constant is folded in float32 where there is no loop
        single=batch == 1 and (change, read) != ("constant", "map") and draw(st.booleans()),
        open=draw(st.booleans()),
    )


def _part(b: Builder, z: str, first: int, end: int) -> str:
    return b.slice(z, [first], [end], [1])


class _Spelling:
    """One model: what comes before and behind the parts is the same in all."""

    def __init__(self, c: Cutting) -> None:
        self.c = c
        self.b = b = Builder(np.random.default_rng(c.seed), c.opset)
        shape: list[int | str] = [1 if c.single else "batch", "time" if c.open else c.time, 2]
        x = b.input("x", b.numbers(c.batch, c.time, 2), shape)
        self.z = b.op("Tanh", b.op("MatMul", x, b.weight(2, 2)))
        self.extra = b.numbers(1, 2, 2)
        self.head = b.numbers(2, 2)

    def number(self, value: Any, name: str) -> str:
        """An integer, known or an input."""
        array = np.asarray(value, np.int64)
        return self.b.input(name, array, list(array.shape)) if self.c.computed else self.b.const(array)

    def constant(self) -> str:
        """An element (B, 2, 2) that is no signal."""
        b, constant = self.b, self.b.const(self.extra)
        if self.c.single:
            return constant
        rows = b.slice(b.op("Shape", self.z), [0], [1], [0])
        return b.op("Expand", constant, b.op("Concat", rows, b.ints(2, 2), axis=0))

    def finish(self, y: str, count: int) -> ModelProto:
        b = self.b
        y = b.op("Concat", y, _part(b, self.z, 0, 1), axis=1)  # two steps at least: whether there are more is read off the file
        y = b.op("Mul", y, b.const(np.linspace(0.5, 1.5, count + 1, dtype=np.float32)[:, None]))  # every place counts otherwise
        y = b.op("MatMul", b.over("ReduceSum", y, 1, keepdims=0), b.const(self.head))
        return b.case(y)[0]

    def plain(self) -> ModelProto:
        """Slices and one Concat."""
        c, b = self.c, self.b
        lengths = [end - first for first, end in c.pieces]
        elements = [_part(b, self.z, *p) for p in c.pieces]
        at = c.at % len(elements)
        if c.change in ("insert", "constant"):
            elements.insert(at, _part(b, self.z, 0, 1) if c.change == "insert" else self.constant())
            lengths.insert(at, 1 if c.change == "insert" else 2)
        elif c.change == "erase":
            del elements[at], lengths[at]
        if c.read == "read":
            elements, lengths = [elements[i] for i in c.order], [lengths[i] for i in c.order]
        if c.read == "map":
            elements = [b.op("Tanh", e) for e in elements]
        return self.finish(b.op("Concat", *elements, axis=1), sum(lengths))

    def listed(self) -> ModelProto:
        """Sequences throughout."""
        c, b = self.c, self.b
        lengths = [end - first for first, end in c.pieces]
        if c.cut in ("grown", "carried"):
            many = self._loop(c.cut == "carried")
        elif c.cut == "listed":
            many = b.op("SequenceConstruct", *(_part(b, self.z, *p) for p in c.pieces))
        else:
            split = self.number(lengths if c.cut == "sizes" else lengths[0], "sizes")
            many = b.op("SplitToSequence", self.z, split, axis=c.axis)
        at = c.at % len(lengths)
        place = self.number(c.at, "at")
        if c.change in ("insert", "constant"):
            new = _part(b, self.z, 0, 1) if c.change == "insert" else self.constant()
            many = b.op("SequenceInsert", many, new, place)
            lengths.insert(at, 1 if c.change == "insert" else 2)
        elif c.change == "erase":
            many = b.op("SequenceErase", many, place)
            del lengths[at]
        if c.read == "read":
            taken = [b.op("SequenceAt", many, self.number(i, f"number{k}")) for k, i in enumerate(c.order)]
            return self.finish(b.op("Concat", *taken, axis=1), sum(lengths[i] for i in c.order))
        many = self._map(many) if c.read == "map" else many
        return self.finish(b.op("ConcatFromSequence", many, axis=c.axis), sum(lengths))

    def _loop(self, carried: bool) -> str:
        """[(0, 1), (0, 2), …] of the series; ``carried``: behind the whole, and each element cut out of that."""
        b, c = self.b, self.c
        source = "first" if carried else self.z
        nodes = [
            helper.make_node("Add", ["k", b.const(1, np.int64)], ["next"]),
            helper.make_node("Reshape", ["next", b.ints(1)], ["end"]),
            helper.make_node("Slice", [source, b.ints(0), "end", b.ints(1)], ["piece"]),
            helper.make_node("SequenceInsert", ["many", "piece"], ["more"]),
        ]
        if carried:
            nodes.insert(2, helper.make_node("SequenceAt", ["many", b.const(0, np.int64)], ["first"]))
        start = b.op("SequenceConstruct", self.z) if carried else b.op("SequenceEmpty")
        return self._run(nodes, b.const(c.time, np.int64), start)

    def _map(self, many: str) -> str:
        b = self.b
        nodes = [
            helper.make_node("SequenceAt", [many, "k"], ["element"]),
            helper.make_node("Tanh", ["element"], ["piece"]),
            helper.make_node("SequenceInsert", ["many", "piece"], ["more"]),
        ]
        return self._run(nodes, b.op("SequenceLength", many), b.op("SequenceEmpty"))

    def _run(self, nodes: list[Any], count: str, start: str) -> str:
        """A Loop that goes on with the sequence ``many`` as ``more``."""
        value = helper.make_tensor_value_info
        inputs = [value("k", TensorProto.INT64, []), value("going", TensorProto.BOOL, [])]
        outputs = [value("on", TensorProto.BOOL, [])]
        inputs.append(helper.make_tensor_sequence_value_info("many", TensorProto.FLOAT, None))
        outputs.append(helper.make_tensor_sequence_value_info("more", TensorProto.FLOAT, None))
        nodes = [*nodes, helper.make_node("Identity", ["going"], ["on"])]
        body = helper.make_graph(nodes, "body", inputs, outputs)
        return self.b.op("Loop", count, self.b.const(True), start, body=body)


@st.composite
def part_spellings(draw: Any) -> tuple[list[ModelProto], dict[str, np.ndarray]]:
    """A network with sequences of unequal elements, and the same with Slice and Concat, with the inputs of both.

    Shrinks to a series of one step in one part.
    """
    cutting = draw(cuttings())
    listed, plain = _Spelling(cutting), _Spelling(cutting)
    models = [listed.listed(), plain.plain()]
    return models, listed.b.feeds


@st.composite
def pieces(draw: Any) -> Case:
    """A network with sequences of unequal elements. Shrinks to a series of one step in one part."""
    models, feeds = draw(part_spellings())
    return models[0], feeds
