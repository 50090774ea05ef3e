"""Loop and Scan as one canonical layer: a sub-graph run once a step, its states carried, rows read and results collected.

The program runs it (:mod:`onnx_lrp.steps`); here stands what it is made of, and how a Loop is brought to that form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .dims import Dim, fresh, unify
from .layer import Layer, Trace
from .registry import ANY, Parts, Var

if TYPE_CHECKING:
    from .graph import Node

__all__ = ["Body", "Listed", "Nested", "Row", "Step", "joined", "sources", "state_var"]

Tensor = Any


@dataclass(frozen=True, eq=False)
class Step:
    """One layer of the program: its node, and the names of its dynamic inputs and of its outputs."""

    node: Node
    layer: Layer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def key(self) -> str:
        """Unique in its scope, as node names need not be."""
        return next(o for o in self.outputs if o)


@dataclass(frozen=True, eq=False)
class Body:
    """A compiled sub-graph: the steps its results need, every tensor's Var, and results that are constant."""

    steps: tuple[Step, ...]
    vars: Mapping[str, Var]
    constants: Mapping[str, np.ndarray]

    def captured(self, own: Sequence[str], results: Sequence[str]) -> list[str]:
        """Names it takes from outside, ``own`` being its inputs, in order of first use."""
        made = {*own, *self.constants, *(o for s in self.steps for o in s.outputs)}
        found: dict[str, None] = {}
        for name in (*(n for s in self.steps for n in s.inputs), *results):
            if name not in made:
                found[name] = None
        return list(found)


@dataclass(frozen=True, eq=False)
class Row:
    """A tensor of the body that is one row of a tensor outside, another one every step.

    Attributes:
        name: the tensor in the body.
        data: index among the layer's inputs, or a parameter's name, of the tensor whose rows are read.
        axis: its axis of time.
        index: the body's tensor that holds the row's number, None: the step's own (from the end if ``backwards``).
    """

    name: str
    data: int | str
    axis: int
    index: str | None = None
    backwards: bool = False


@dataclass(frozen=True, eq=False)
class Listed:
    """A sequence that a loop collects, one element a step, whose sizes along an axis may differ.

    Attributes:
        name: the element in the body.
        output: the sequence outside.
        parts: how that is held.
    """

    name: str
    output: str
    parts: Parts


@dataclass(frozen=True, eq=False, kw_only=True)
class Nested(Layer):
    """A loop over steps. Outputs: the final states, what was collected, stacked along an axis of its own, lists and their tables.

    Attributes:
        body: what one step does.
        counter: the body's input that holds the step's number, None if it has none.
        states: (body input, body output, initial value: an input's index or a parameter's name).
        rows: what is read a row a step.
        captured: (name in the body, input index): tensors from outside, the same at every step.
        collected: (body output, axis of the steps, whether in reverse).
        trips: input index or parameter's name of the greatest number of steps, None: no bound but the condition or the rows.
        start: the condition before the first step, None: true.
        going: the body's input that is the condition to go on, and so true at every step; empty if there is none.
        condition: the body's output that holds it for the next step, None: always true.
        lists: what is collected as a sequence of elements of unequal sizes.
        tables: a state that is such a sequence → name outside of the table beside it, which is one of the last states.
        growing: axes of states that may have another length at each step.
    """

    body: Body
    counter: str | None
    states: tuple[tuple[str, str, int | str], ...]
    rows: tuple[Row, ...]
    captured: tuple[tuple[str, int], ...]
    collected: tuple[tuple[str, int, bool], ...]
    trips: int | str | None
    start: int | str | None = None
    going: str = ""
    condition: str | None = None
    lists: tuple[Listed, ...] = ()
    tables: Mapping[int, str] = field(default_factory=dict)
    growing: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    length: Dim = field(default_factory=fresh)
    kind: str = "Loop"

    @property
    def title(self) -> str:
        return self.kind

    def decision(self, xs: Sequence[Var]) -> str:
        rows = [f"rows of {xs[row.data].name}" for row in self.rows if isinstance(row.data, int)]
        signals = [f"captured signal {xs[i].name}" for _, i in self.captured if xs[i].live]
        kept = [s for s in signals if s.removeprefix("captured signal ") not in {r.removeprefix("rows of ") for r in rows}]
        return ", ".join(dict.fromkeys([*rows, *kept]))

    def names(self, outputs: Sequence[str]) -> Sequence[str]:
        count = len(self.states) - len(self.tables)
        own = [*outputs, *[""] * (count - len(outputs))]
        listed = [one.output for one in self.lists]
        return [
            *(*own[:count], *self.tables.values()),
            *(name for name in own[count:] if name not in listed or not name),
            *(*listed, *(one.parts.table for one in self.lists)),
        ]

    @property
    def results(self) -> Sequence[str]:
        """The body's tensor behind each output, none behind the lists' tables."""
        made = [*(out for _, out, _ in self.states), *(out for out, _, _ in self.collected)]
        return [*made, *(one.name for one in self.lists), *("" for _ in self.lists)]

    def outside(self, xs: Sequence[str]) -> dict[str, str]:
        """Body tensor → the tensor outside that it is, or is a row of."""
        found = {name: xs[i] for name, i in self.captured}
        found |= {row.name: xs[row.data] for row in self.rows if isinstance(row.data, int)}
        return found

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return [i for i in self.reach(range(len(self.results)))[1] if xs[i].is_float]

    def reach(self, wanted: Iterable[int]) -> tuple[frozenset[str], Sequence[int]]:
        """What relevance at some of the outputs may pass: tensors of the body, and inputs of the layer."""
        made = {o: s for s in self.body.steps for o in s.outputs}
        feeds = {name: out for name, out, _ in self.states}
        slots: dict[str, Any] = {name: i for name, _, i in self.states}
        slots |= dict(self.captured) | {row.name: row.data for row in self.rows}
        rows = {row.name for row in self.rows}
        path: set[str] = set()
        stack = [self.results[k] for k in wanted]
        while stack:
            name = stack.pop()
            var = self.body.vars.get(name)
            if name in path or var is None or not var.live:
                continue
            path.add(name)
            if name in feeds:
                stack.append(feeds[name])
            elif name in made and name not in rows:
                stack += sources(made[name], name, self.body.vars)
        return frozenset(path), sorted({i for n, i in slots.items() if n in path and isinstance(i, int)})

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        out = []
        for name in self.results[: len(self.states) + len(self.collected)]:
            var = self.body.vars.get(name)
            if var is None:
                array = self.body.constants[name]
                var = Var("", array.dtype, tuple(fresh(n) for n in array.shape))
            out.append(var)
        for k, (_, axis, _) in enumerate(self.collected, len(self.states)):
            dims = out[k].dims
            if dims is not None:
                at = axis % (len(dims) + 1)
                dims = (*dims[:at], self.length, *dims[at:])
            out[k] = dataclasses.replace(out[k], dims=dims)
        for k, table in self.tables.items():
            parts = out[k].parts
            out[k] = dataclasses.replace(out[k], parts=None if parts is None else dataclasses.replace(parts, table=table))
        for one in self.lists:
            element, axis = self.body.vars[one.name], one.parts.axis or 0
            dims = tuple(fresh(None) if a == axis else d for a, d in enumerate(element.dims or ()))
            out.append(dataclasses.replace(element, dims=dims, parts=one.parts))
        out += [Var("", np.dtype(np.int64), (self.length, Dim())) for _ in self.lists]
        return [dataclasses.replace(v, name="", value=None, origin=frozenset()) for v in out]

    def evidence(self, xs: Sequence[Var]) -> Mapping[str, Any]:
        """What it steps over is time."""
        return {"time": self.length}

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        raise NotImplementedError("a nested program is run by the program around it")


def sources(step: Step, output: str, vars: Mapping[str, Var]) -> list[str]:
    """The live inputs of a step that relevance at one of its outputs may go to."""
    inputs = [vars[n] for n in step.inputs]
    signals = step.layer.reach([step.outputs.index(output)])[1] if isinstance(step.layer, Nested) else step.layer.signals(inputs)
    return [step.inputs[i] for i in signals if inputs[i].live]


def state_var(name: str, given: Any, live: bool, dims: tuple[Dim, ...] | None, parts: Parts | None = None) -> Var:
    """A state as the body sees it: a signal of any value from the first step on."""
    dtype = given.dtype
    mask = dtype == np.dtype(bool)
    return Var(name, dtype, dims, interval=(0.0, 1.0) if mask else ANY, live=live, parts=parts)


def joined(a: tuple[Dim, ...] | None, b: tuple[Dim, ...] | None) -> tuple[Dim, ...] | None:
    """Dims of a state from its initial value and from what the body returns; axes that change their length are new."""
    if a is None or b is None:
        return b if a is None else a
    if len(a) != len(b):
        return None
    out = []
    for left, right in zip(a, b, strict=True):
        known = left.size is not None and right.size is not None
        out.append(fresh(None) if known and left.size != right.size else unify(left, right))
    return tuple(out)
