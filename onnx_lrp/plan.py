"""From a graph to what will be run: the cut, the layers, the axes, the affine blocks. No TensorFlow.

Only nodes on a float path between an attribution point and the explained tensor need an importer; whatever else is needed and
can't be imported is left to onnxruntime (the *prefix*).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .affine import Role, Scope, analyse
from .axes import batch_and_times, class_axis, lengths
from .dims import Label, Place, split_axis
from .errors import InputError, UnsupportedModel
from .graph import Graph, Node
from .heads import Head, chooses_lowest, step_back
from .nested import Step
from .printable import short
from .reader import Reader
from .registry import Var
from .scaling import note

__all__ = ["Plan", "Step", "make_plan"]

MOST = 100  # nodes named in a message; the error lists them all


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that is decided before the first run.

    Attributes:
        steps: layers in topological order, those off the relevance path included where they run inside the program.
        path: tensors that relevance passes.
        points: attribution points, the tensors where relevance ends, in the graph's order.
        origins: attribution point → graph inputs it comes from.
        feeds: tensors the program takes (graph inputs and prefix results).
        prefix: tensors that onnxruntime computes.
        output, explained: the graph output chosen, and the tensor whose scores are explained (before a final softmax).
        class_axis: axis of the classes in the explained tensor, None if each entry is a score of its own.
        signs: None, or the signs with which two classes start from one score, as (-1, 1) before [1 − p, p].
        batch: label of the batch axis, None: one sample.
    """

    graph: Graph
    steps: tuple[Step, ...]
    vars: Mapping[str, Var]
    path: frozenset[str]
    points: tuple[str, ...]
    origins: Mapping[str, tuple[str, ...]]
    feeds: tuple[str, ...]
    prefix: tuple[str, ...]
    output: str
    explained: str
    class_axis: int | None
    batch: Label | None
    times: frozenset[Label]
    scope: Scope
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    lengths: str | None = None
    notes: tuple[str, ...] = ()
    signs: tuple[int, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    _batch_axes: dict[str, int | None] = field(default_factory=dict, init=False, repr=False)

    @property
    def roles(self) -> Mapping[str, Role]:
        """How relevance leaves each tensor on the path."""
        return self.scope.roles

    def batch_axis(self, name: str) -> int | None:
        """Axis of a tensor that carries the batch (possibly merged with others), None if there is none."""
        if name not in self._batch_axes:  # asked at every call
            self._batch_axes[name] = self._batch_axis(name)
        return self._batch_axes[name]

    def _batch_axis(self, name: str) -> int | None:
        dims = self.vars[name].dims
        if dims is None or self.batch is None:
            return None
        return next((i for i, d in enumerate(dims) if d.has(self.batch)), None)

    def place(self, name: str) -> Place | None:
        """Where a tensor's axis of samples is, and what is merged with it; None if there is none."""
        return split_axis(self.vars[name].dims or (), self.batch)

    def time_axis(self, name: str) -> int | None:
        """Axis of a tensor that is time."""
        dims = self.vars[name].dims
        if dims is None:
            return None
        return next((i for i, d in enumerate(dims) if any(r in self.times for r in d.roots)), None)

    def per_sample(self, x: np.ndarray, name: str, shape: Sequence[int]) -> np.ndarray:
        """Sums, in float64, of an array with the axes of a tensor, whose batch may be merged with other axes.

        ``shape``: of the sums, (B,), or (K, B) of an array with K classes in front.
        """
        if len(shape) == 2:
            return np.stack([self.per_sample(one, name, shape[1:]) for one in x])
        (count,) = shape
        place = self.place(name)
        if place is None:
            return x.sum(dtype=np.float64).reshape(1)
        axis, inner, outer = place
        whole = x.sum(tuple(a for a in range(x.ndim) if a != axis), dtype=np.float64)
        if outer:
            return whole.reshape(-1, count, inner or 1).sum((0, 2))
        return whole.reshape(count, -1).sum(1)

    @property
    def fixed_batch(self) -> int | None:
        """The batch size the file was exported for, if it is fixed."""
        return None if self.batch is None else self.batch.root.size


def make_plan(
    graph: Graph,
    *,
    at: str | Sequence[str] | None = None,
    output: str | None = None,
    from_probabilities: bool = False,
    batch_axis: int | Mapping[str, int] | None = None,
    gates: str = "all",
) -> Plan:
    """Decide how a graph is explained.

    Raises:
        UnsupportedModel: nodes on the relevance path without an importer; the message names all, and cuts that work.
        InputError: ``at`` or ``output`` names nothing in the graph.
    """
    cut = (at,) if isinstance(at, str) else tuple(at or ())
    reader = _Planner(graph, cut, gates=gates)
    reader.read()
    chosen, head = reader.target(output, from_probabilities)
    explained = head.explained
    path, bad = reader.path(explained)
    if bad:
        raise reader.complaint(bad, explained)
    points = [p for p in reader.sources if p in path]
    if not points:
        raise UnsupportedModel(
            f"output {chosen!r} depends on no attribution point: no float path leads to it from "
            f"{', '.join(repr(n) for n in cut) or 'a graph input'}"
        )
    plan = reader.finish(chosen, explained, path, points, batch_axis, from_probabilities)
    return plan if head.signs is None else dataclasses.replace(plan, signs=head.signs, class_axis=head.class_axis)


class _Planner(Reader):
    """Chooses the target and the cut in what was read, and puts the plan together."""

    def target(self, output: str | None, from_probabilities: bool) -> tuple[str, Head]:
        """(graph output, the scores it comes from)."""
        names = [v.name for v in self.graph.outputs]
        if output is not None:
            if output not in names:
                raise InputError(f"output {output!r} does not exist; this model has {', '.join(names)}")
            candidates = [output]
        else:
            live = [n for n in names if n in self.vars and self.vars[n].live]
            candidates = live + [n for n in names if n not in live]
        for name in candidates:
            head = step_back(self.graph, self.vars, name, cut=self.cut, from_probabilities=from_probabilities)
            if head.explained in self.vars and self.vars[head.explained].live:
                return name, head
        if self.cut:
            raise InputError(f"no output depends on at={', '.join(self.cut)} along a float path")
        what = f"output {output!r}" if output is not None else "no output"
        raise UnsupportedModel(f"{what} depends on an attribution point along a float path; outputs: {', '.join(names)}")

    def cuts(self, explained: str, bad: Sequence[tuple[Node, str]]) -> list[str]:
        """Tensors from which on everything can be read, nearest to the input first."""
        path, _ = self.path(explained)
        bad_outputs = {o for node, _ in bad for o in node.outputs}
        readers: dict[str, list[str]] = {}
        for name in path:
            for source in self.signal_inputs(name):
                readers.setdefault(source, []).append(name)
        order = [n for node in self.graph.nodes for n in node.outputs if n in path]
        good: dict[str, bool] = {}  # whether everything behind a tensor can be read
        for name in reversed(order):
            good[name] = all(reader not in bad_outputs and good.get(reader, True) for reader in readers.get(name, ()))
        usable = [n for n in order if good[n] and n != explained]
        full = self._bottlenecks(order, readers)
        return [n for n in usable if n in full] + [n for n in usable if n not in full]

    def _bottlenecks(self, order: Sequence[str], readers: Mapping[str, Sequence[str]]) -> set[str]:
        """Tensors that every way from an attribution point leads through: no edge spans them, and no point stands behind them."""
        at = {name: k for k, name in enumerate(order)}
        last = max((at.get(s, -1) for s in self.sources), default=-1)
        inputs = [s for s in self.sources if s not in at]
        far = max((at.get(r, -1) for s in inputs for r in readers.get(s, ())), default=-1)
        found = set()
        for k, name in enumerate(order):
            if far <= k and last <= k:
                found.add(name)
            far = max([far, *(at.get(r, -1) for r in readers.get(name, ()))])
        return found

    def complaint(self, bad: Sequence[tuple[Node, str]], explained: str) -> UnsupportedModel:
        """What stands in the way, and where one may begin behind it."""
        nodes = [f"{node.label}: {reason}" for node, reason in bad]
        cuts = self.cuts(explained, bad)
        advice = f"; explain from behind them with at={short(cuts[0])!r}" if cuts else ""
        others = f" (or {', '.join(repr(short(c)) for c in cuts[1:4])})" if len(cuts) > 1 else ""
        listed = "; ".join(nodes[:MOST]) + (f"; and {len(nodes) - MOST} more" if len(nodes) > MOST else "")
        message = f"relevance would have to pass {len(bad)} node(s) that can't be read: {listed}{advice}{others}"
        return UnsupportedModel(message, nodes=nodes, cuts=cuts)

    def finish(
        self,
        chosen: str,
        explained: str,
        path: set[str],
        points: list[str],
        batch_axis: int | Mapping[str, int] | None,
        from_probabilities: bool,
    ) -> Plan:
        notes: list[str] = []
        batch, times = batch_and_times(self, explained, path, points, batch_axis, notes)
        outputs = [v.name for v in self.graph.outputs]
        held = [self.vars[name].parts for name in outputs if name in self.vars]
        outputs += [parts.table for parts in held if parts is not None]
        ends = set(points)
        # what the program computes: from the explained tensor and the outputs back to what it must be fed
        feeds: list[str] = []
        prefix: list[str] = []
        runs: set[int] = set()
        seen: set[str] = set()
        padding = lengths(self, explained)
        stack = [explained, *outputs, *([] if padding is None else [padding])]
        graph_inputs = {v.name for v in self.graph.inputs}
        while stack:
            name = stack.pop()
            if name in seen or name in self.graph.constants:
                continue
            seen.add(name)
            if name in graph_inputs:
                feeds.append(name)
            elif name in self.steps and not (name in self.cut and name in ends) and self.vars[name].dtype != object:
                step = self.steps[name]
                runs.add(id(step))
                stack.extend(step.inputs)
            else:
                prefix.append(name)
        steps = tuple(s for s in self.order if id(s) in runs)
        needed_only = [n for n in prefix if any(n in s.inputs for s in steps) or n in (explained, padding, *points)]
        feeds = [v.name for v in self.graph.inputs if v.name in feeds] + sorted(needed_only)
        var_map = dict(self.vars)
        origins = {p: self._origin(p) for p in points}
        return Plan(
            graph=self.graph,
            steps=steps,
            vars=var_map,
            path=frozenset(path),
            points=tuple(points),
            origins=origins,
            feeds=tuple(feeds),
            prefix=tuple(sorted(prefix)),
            output=chosen,
            explained=explained,
            class_axis=class_axis(self, explained, batch, times),
            batch=batch,
            times=times,
            scope=analyse(steps, var_map, path, ends, explained),
            outputs=tuple(outputs),
            inputs=tuple(v.name for v in self.graph.inputs),
            lengths=padding,
            notes=(*notes, *note(self.graph, points)),
            options={"from_probabilities": from_probabilities, "lowest": chooses_lowest(self.graph, self.vars, chosen)},
        )

    def _origin(self, point: str) -> tuple[str, ...]:
        inputs = {v.name for v in self.graph.inputs}
        return tuple(sorted(self.graph.ancestors([point]) & inputs))
