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

from .affine import Role, mixed_by_gates, roles
from .dims import Dim, Label
from .errors import InputError, ModelError, UnsupportedModel
from .fold import plumbing
from .graph import Graph, Node, Value
from .layer import Layer, Plain
from .registry import NodeContext, Var, find, is_float

__all__ = ["Plan", "Step", "make_plan"]

FINAL = ("Softmax", "LogSoftmax", "Sigmoid")
PASSED_BACK = ("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "ArgMax", "ZipMap")


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
    roles: Mapping[str, Role]
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    lengths: str | None = None
    selections: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def batch_axis(self, name: str) -> int | None:
        """Axis of a tensor that carries the batch (possibly merged with others), None if there is none."""
        dims = self.vars[name].dims
        if dims is None or self.batch is None:
            return None
        return next((i for i, d in enumerate(dims) if d.has(self.batch)), None)

    def time_axis(self, name: str) -> int | None:
        """Axis of a tensor that is time."""
        dims = self.vars[name].dims
        if dims is None:
            return None
        return next((i for i, d in enumerate(dims) if any(r in self.times for r in d.roots)), None)

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
) -> Plan:
    """Decide how a graph is explained.

    Raises:
        UnsupportedModel: nodes on the relevance path without an importer; the message names all, and cuts that work.
        InputError: ``at`` or ``output`` names nothing in the graph.
    """
    cut = (at,) if isinstance(at, str) else tuple(at or ())
    reader = _Reader(graph, cut)
    reader.read()
    chosen, explained = reader.target(output, from_probabilities)
    path, bad = reader.path(explained)
    if bad:
        raise UnsupportedModel(reader.complaint(bad, explained))
    points = [p for p in reader.sources if p in path]
    if not points:
        raise UnsupportedModel(
            f"output {chosen!r} depends on no attribution point: no float path leads to it from "
            f"{', '.join(repr(n) for n in cut) or 'a graph input'}"
        )
    return reader.finish(chosen, explained, path, points, batch_axis, from_probabilities)


class _Reader:
    """One pass over the nodes in order; holds what has been found so far."""

    def __init__(self, graph: Graph, cut: Sequence[str]) -> None:
        self.graph = graph
        self.cut = cut
        self.vars: dict[str, Var] = {}
        self.steps: dict[str, Step] = {}  # by output name
        self.order: list[Step] = []
        self.unread: dict[str, tuple[Node, str]] = {}  # by output name
        self.alias: dict[str, np.ndarray] = {}
        self.sources: list[str] = []
        self.symbols: dict[str, Label] = {}
        self.evidence: list[tuple[Step, Mapping[str, Dim]]] = []
        self._inferred: dict[str, Value] | None = None
        made = {name for n in graph.nodes for name in n.outputs} | {v.name for v in graph.inputs}
        for name in cut:
            if name not in made:
                near = [m for m in made if name and name.lower() in m.lower()][:5]
                hint = f"; similar: {', '.join(sorted(near))}" if near else ""
                raise InputError(f"at={name!r} is no computed tensor of this model{hint}")

    def _dims(self, value: Value | None) -> tuple[Dim, ...] | None:
        if value is None or value.shape is None:
            return None
        out = []
        for size in value.shape:
            if isinstance(size, str):
                out.append(Dim((self.symbols.setdefault(size, Label(None, size)),)))
            else:
                out.append(Dim((Label(size),)))
        return tuple(out)

    def read(self) -> None:
        for value in self.graph.inputs:
            dtype = value.dtype if value.dtype is not None else np.dtype(object)
            source = is_float(dtype) and (not self.cut or value.name in self.cut)
            var = Var(value.name, dtype, self._dims(value), live=source, valued=dtype.kind in "iu")
            if self.cut and value.name not in self.cut:
                var = dataclasses.replace(var, valued=False)
            if source:
                self.sources.append(value.name)
            self.vars[value.name] = var
        for node in self.graph.nodes:
            self._read_node(node)

    def _operand(self, name: str) -> Any:
        if not name:
            return None
        if name in self.vars:
            return self.vars[name]
        return self.graph.constants[name]

    def _read_node(self, node: Node) -> None:
        needed = node.reads()
        operands = [self._operand(n) for n in node.inputs]
        while operands and operands[-1] is None:
            operands.pop()
        entry = find(node.op, node.domain, node.version)
        reason = node.refused or "no importer reads this op"
        if entry is not None:
            used = tuple(
                o if o and (o in self.graph.readers or any(v.name == o for v in self.graph.outputs)) else "" for o in node.outputs
            )
            try:
                layer, inputs = entry(
                    node, operands, NodeContext(node, used, lookup=self.vars.get, producer=self.graph.producers.get)
                )
                self._record(node, layer, inputs, operands)
                return
            except ModelError as error:
                reason = str(error).removeprefix(f"{node.label}: ")
            except (TypeError, ValueError, IndexError, AttributeError, KeyError, AssertionError) as error:
                reason = f"can't be read: {error}"
        live = any(n in self.vars and self.vars[n].live for n in needed)
        valued = any(n in self.vars and self.vars[n].valued for n in needed)
        for name in node.outputs:
            if not name:
                continue
            self.unread[name] = (node, reason)
            value = self._shape_of(name)
            dtype = value.dtype if value is not None and value.dtype is not None else np.dtype(np.float32)
            var = Var(name, dtype, self._dims(value), live=live and is_float(dtype), valued=valued and dtype.kind in "iu")
            self.vars[name] = self._maybe_source(var, valued)

    def _maybe_source(self, var: Var, valued: bool) -> Var:
        """A float tensor made of integer values, or a chosen cut, is where relevance may end."""
        if self.cut:
            if var.name in self.cut:
                if not var.is_float:
                    raise InputError(f"at={var.name!r} is {var.dtype}, only a float tensor can carry relevance")
                self.sources.append(var.name)
                return dataclasses.replace(var, live=True)
            return var
        if var.is_float and not var.live and valued and not var.mask:
            self.sources.append(var.name)
            return dataclasses.replace(var, live=True)
        return var

    def _record(self, node: Node, layer: Layer, inputs: Sequence[Var], operands: Sequence[Any]) -> None:
        infos = list(layer.infer(inputs))
        signals = set(layer.signals(inputs))
        live = any(inputs[i].live for i in signals)
        # a bool decides; but a Where on integers hands its operands' values on
        masked = any(x.dtype == np.dtype(bool) for x in inputs) and node.op != "Where"
        valued = any(x.valued for x in inputs) and node.op not in ("Shape", "Size") and not masked
        names = list(node.outputs)
        step = Step(node, layer, tuple(x.name for x in inputs), tuple(names[: len(infos)]))
        for k, (name, info) in enumerate(zip(names, infos, strict=False)):
            if not name:
                continue
            value = info.value if info.value is not None else self._value(node, operands, k, info)
            carries = valued and info.dtype.kind in "iu" and not isinstance(layer, Plain)
            dims = info.dims if info.dims is not None else self._dims(self._shape_of(name))
            var = dataclasses.replace(info, name=name, value=value, dims=dims, live=live and info.is_float, valued=carries)
            if not (live and info.is_float):
                var = self._maybe_source(var, valued and info.is_float)
            elif self.cut and name in self.cut:
                self.sources.append(name)
            self.vars[name] = var
            self.steps[name] = step
        self.order.append(step)
        axes = getattr(layer, "evidence", None)
        if axes is not None:
            self.evidence.append((step, axes(inputs)))

    def _value(self, node: Node, operands: Sequence[Any], k: int, info: Var) -> np.ndarray | None:
        """Entries of a small integer tensor computed from shapes."""
        if info.dtype.kind not in "iub":
            return None
        values = []
        for operand in operands:
            if isinstance(operand, Var):
                if operand.value is None:
                    return None
                values.append(operand.value)
            else:
                values.append(operand)
        known = all(v is None or v.dtype != object or all(isinstance(e, int | np.integer) for e in v.reshape(-1)) for v in values)
        if known:  # nothing symbolic in it after all
            values = [v.astype(np.int64) if v is not None and v.dtype == object else v for v in values]
        results = plumbing(node, values, symbolic=not known)
        if results is None or k >= len(results) or np.size(results[k]) > 64:
            return None
        return results[k]

    def _shape_of(self, name: str) -> Value | None:
        """What onnx's own shape inference says of a tensor."""
        if self._inferred is None:
            self._inferred = dict(self.graph.value_info)
            self._inferred.update({v.name: v for v in self.graph.outputs})
            if self.graph.model is not None:
                self._inferred = {**_inferred(self.graph), **self._inferred}
        return self._inferred.get(name)

    def target(self, output: str | None, from_probabilities: bool) -> tuple[str, str]:
        """(graph output, explained tensor)."""
        names = [v.name for v in self.graph.outputs]
        if output is not None:
            if output not in names:
                raise InputError(f"output {output!r} does not exist; this model has {', '.join(names)}")
            candidates = [output]
        else:
            live = [n for n in names if n in self.vars and self.vars[n].live]
            candidates = live + [n for n in names if n not in live]
        for name in candidates:
            explained = self._step_back(name, from_probabilities)
            if explained in self.vars and self.vars[explained].live:
                return name, explained
        if self.cut:
            raise InputError(f"no output depends on at={', '.join(self.cut)} along a float path")
        what = f"output {output!r}" if output is not None else "no output"
        raise UnsupportedModel(f"{what} depends on an attribution point along a float path; outputs: {', '.join(names)}")

    def _step_back(self, name: str, from_probabilities: bool) -> str:
        if from_probabilities and name in self.vars and self.vars[name].live:
            return name
        at = name
        while True:
            if at in self.cut:
                return name if name in self.vars and self.vars[name].live else at
            node = self.graph.producers.get(at)
            if node is None or not node.inputs:
                break
            if node.op in FINAL and not node.domain and not from_probabilities:
                return node.inputs[0]
            if node.op in PASSED_BACK and not (node.domain and node.op != "ZipMap"):
                at = node.inputs[0]
                if from_probabilities and self.vars[at].live:
                    return at
                continue
            break
        if name in self.vars and self.vars[name].live:
            return name
        return at

    def _signal_inputs(self, name: str) -> list[str]:
        step = self.steps.get(name)
        if step is None:
            if name in self.unread:
                return [n for n in self.unread[name][0].reads() if n in self.vars and self.vars[n].live]
            return []
        inputs = [self.vars[n] for n in step.inputs]
        return [inputs[i].name for i in step.layer.signals(inputs) if inputs[i].live]

    def path(self, explained: str) -> tuple[set[str], list[tuple[Node, str]]]:
        """Tensors on the relevance path, and the nodes on it that can't be read."""
        ends = set(self.sources)
        path: set[str] = set()
        bad: dict[int, tuple[Node, str]] = {}
        stack = [explained]
        while stack:
            name = stack.pop()
            if name in path:
                continue
            path.add(name)
            if name in ends:
                continue
            if name in self.unread:
                bad[id(self.unread[name][0])] = self.unread[name]
            stack.extend(self._signal_inputs(name))
        order = {id(n): i for i, n in enumerate(self.graph.nodes)}
        return path, [bad[k] for k in sorted(bad, key=lambda k: order[k])]

    def cuts(self, explained: str, bad: Sequence[tuple[Node, str]]) -> list[str]:
        """Tensors from which on everything can be read, nearest to the input first."""
        path, _ = self.path(explained)
        bad_outputs = {o for node, _ in bad for o in node.outputs}
        readers: dict[str, list[str]] = {}
        for name in path:
            for source in self._signal_inputs(name):
                readers.setdefault(source, []).append(name)
        good: dict[str, bool] = {}

        def clean(name: str) -> bool:
            stack, seen = [name], set()
            while stack:
                at = stack.pop()
                for reader in readers.get(at, ()):
                    if reader in bad_outputs:
                        return False
                    if reader not in seen:
                        seen.add(reader)
                        stack.append(reader)
            return True

        order = [n for node in self.graph.nodes for n in node.outputs if n in path]
        for name in order:
            good[name] = clean(name)
        usable = [n for n in order if good[n] and n != explained]
        full = [n for n in usable if self._dominates(n, explained, path)]
        return full + [n for n in usable if n not in full]

    def _dominates(self, name: str, explained: str, path: set[str]) -> bool:
        stack, seen = [explained], set()
        while stack:
            at = stack.pop()
            if at == name or at in seen:
                continue
            seen.add(at)
            if at in self.sources:
                return False
            stack.extend(n for n in self._signal_inputs(at) if n in path)
        return True

    def complaint(self, bad: Sequence[tuple[Node, str]], explained: str) -> str:
        nodes = "; ".join(f"{node.label}: {reason}" for node, reason in bad)
        cuts = self.cuts(explained, bad)
        advice = f"; explain from behind them with at={cuts[0]!r}" if cuts else ""
        others = f" (or {', '.join(repr(c) for c in cuts[1:4])})" if len(cuts) > 1 else ""
        return f"relevance would have to pass {len(bad)} node(s) that can't be read: {nodes}{advice}{others}"

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
        batch, times = self._axes(explained, path, points, batch_axis, notes)
        outputs = [v.name for v in self.graph.outputs]
        ends = set(points)
        # what the program computes: from the explained tensor and the outputs back to what it must be fed
        feeds: list[str] = []
        prefix: list[str] = []
        runs: set[int] = set()
        seen: set[str] = set()
        stack = [explained, *outputs]
        graph_inputs = {v.name for v in self.graph.inputs}
        while stack:
            name = stack.pop()
            if name in seen or name in self.graph.constants:
                continue
            seen.add(name)
            if name in graph_inputs:
                feeds.append(name)
            elif name in self.steps and not (name in self.cut and name in ends):
                step = self.steps[name]
                runs.add(id(step))
                stack.extend(step.inputs)
            else:
                prefix.append(name)
        steps = tuple(s for s in self.order if id(s) in runs)
        needed_only = [n for n in prefix if any(n in s.inputs for s in steps) or n in (explained, *points)]
        feeds = [v.name for v in self.graph.inputs if v.name in feeds] + sorted(needed_only)
        var_map = dict(self.vars)
        lens = self._lengths(steps, explained)
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
            class_axis=self._class_axis(explained, batch, times),
            batch=batch,
            times=times,
            roles=roles(steps, var_map, path, ends, explained),
            outputs=tuple(outputs),
            inputs=tuple(v.name for v in self.graph.inputs),
            lengths=lens,
            selections=mixed_by_gates(steps, var_map, path),
            notes=tuple(notes),
            options={"from_probabilities": from_probabilities},
        )

    def _origin(self, point: str) -> tuple[str, ...]:
        inputs = {v.name for v in self.graph.inputs}
        return tuple(sorted(self.graph.ancestors([point]) & inputs))

    def _axes(
        self, explained: str, path: set[str], points: Sequence[str], batch_axis: Any, notes: list[str]
    ) -> tuple[Label | None, frozenset[Label]]:
        times = {r for _, axes in self.evidence if "time" in axes for r in axes["time"].roots}
        candidates: list[Label] = []
        if batch_axis is not None:
            wanted = batch_axis if isinstance(batch_axis, Mapping) else {self.graph.inputs[0].name: batch_axis}
            for name, axis in wanted.items():
                dims = self.vars[name].dims if name in self.vars else None
                if dims is None or not -len(dims) <= axis < len(dims):
                    raise InputError(f"batch_axis={axis} does not exist in input {name!r}")
                candidates += dims[axis].roots
        else:
            for step, axes in self.evidence:
                if "batch" in axes and any(o in path for o in step.outputs):
                    candidates += axes["batch"].roots
            dims = self.vars[explained].dims
            inside = {r for d in dims or () for r in d.roots}
            named = [c for c in candidates if c.root in inside]
            candidates = named or candidates
            if not candidates and dims:
                entering = {r for v in self.graph.inputs for d in (self.vars[v.name].dims or ()) for r in d.roots}
                entering |= {r for p in points for d in (self.vars[p].dims or ()) for r in d.roots}
                candidates = [r for r in dims[0].roots if r in entering and r not in times][:1]
        candidates = [c.root for c in candidates]
        ends = [self.vars[n].dims or () for n in (explained, *points)]
        for candidate in candidates:
            if all(any(d.has(candidate) for d in dims) for dims in ends):
                return candidate, frozenset(t.root for t in times if t.root is not candidate)
        notes.append("no axis is the batch both in the explained output and at the attribution points: everything is one sample")
        return None, frozenset(t.root for t in times)

    def _class_axis(self, explained: str, batch: Label | None, times: frozenset[Label]) -> int | None:
        """The softmax's axis, else the last axis that is neither batch nor time."""
        for reader in self.graph.readers.get(explained, ()):
            if reader.op in ("Softmax", "LogSoftmax", "ArgMax") and self.vars[explained].rank:
                axis = int(reader.attributes.get("axis", -1 if reader.version >= 13 and reader.op != "ArgMax" else 1))
                return axis % (self.vars[explained].rank or 1)
        dims = self.vars[explained].dims
        if not dims:
            return None
        for axis in range(len(dims) - 1, -1, -1):
            dim = dims[axis]
            free = [r for r in dim.roots if r is not (batch.root if batch else None) and r not in times]
            if free or not dim.labels:
                return axis
        return None

    def _lengths(self, steps: Sequence[Step], explained: str) -> str | None:
        """The tensor of sequence lengths that says which positions of the explained tensor are padding."""
        dims = self.vars[explained].dims or ()
        for step, axes in self.evidence:
            slots: Any = getattr(step.layer, "slots", ())
            if "time" not in axes or len(slots) < 2 or not isinstance(slots[1], int):
                continue
            if any(r in d.roots for d in dims for r in axes["time"].roots):
                return step.inputs[slots[1]]
        return None


def _inferred(graph: Graph) -> dict[str, Value]:
    """Shapes by onnx's inference; an empty dict where it can't."""
    import onnx

    from .graph import _Reader as Proto

    try:
        assert graph.model is not None
        model = onnx.shape_inference.infer_shapes(graph.model, data_prop=True)
    except Exception:  # inference is a help, never a reason to refuse a model
        return {}
    reader = Proto(graph.opsets, graph.path)
    values = [*model.graph.value_info, *model.graph.output]
    return {v.name: reader.value(v) for v in values}
