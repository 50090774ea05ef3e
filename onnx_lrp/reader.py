"""From nodes to layers: every node that an importer reads becomes a step, sub-graphs included; what depends on what.

Only nodes on a float path between an attribution point and the explained tensor need an importer, so a node that can't be read is
noted with its reason, and matters only if the path turns out to lead through it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .dims import Dim, Label
from .errors import InputError, InvalidModel, ModelError, UnsupportedModel
from .fold import plumbing, sized
from .graph import Graph, Node, Value
from .growth import AXES
from .inference import infer
from .layer import Affine, Layer, Plain
from .limits import Meter
from .nested import Body, Nested, Step, sources
from .reading import value_of
from .registry import NodeContext, Var, find, is_float
from .schemas import within

__all__ = ["Reader"]

# they only move entries: nothing of a size that a call may change gets into their results
MOVING = {"Cast", "Concat", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
QUANTIZING = ("QuantizeLinear", "QLinear", "QGemm", "MatMulInteger", "ConvInteger")  # integers that carry relevance


class Reader:
    """One pass over the nodes in order; holds what has been found so far."""

    def __init__(
        self,
        graph: Graph,
        cut: Sequence[str],
        parent: Reader | None = None,
        *,
        gates: str = "all",
        given: Mapping[str, Var] | None = None,
    ) -> None:
        self.graph = graph
        self.cut = cut
        self.parent = parent
        self.gates: str = gates if parent is None else parent.gates
        self.given = dict(given or {})  # what is known of graph inputs that are no tensors, and of tensors fed beside them
        self.vars: dict[str, Var] = {}
        self.steps: dict[str, Step] = {}  # by output name
        self.order: list[Step] = []
        self.unread: dict[str, tuple[Node, str]] = {}  # by output name
        self.folded: dict[str, np.ndarray] = {}  # weights that were cut where a size of the graph says, known by now
        self.sources: list[str] = []
        self.symbols: dict[str, Label] = {} if parent is None else parent.symbols
        self.evidence: list[tuple[Step, Mapping[str, Dim], bool]] = [] if parent is None else parent.evidence
        self._inferred: dict[str, Value] | None = None
        self.meter: Meter = Meter(graph.limits) if parent is None else parent.meter
        made = {name for n in graph.nodes for name in n.outputs} | {v.name for v in graph.inputs}
        for name in cut:
            if name not in made:
                near = [m for m in made if name and name.lower() in m.lower()][:5]
                hint = f"; similar: {', '.join(sorted(near))}" if near else ""
                raise InputError(f"at={name!r} is no computed tensor of this model{hint}")

    def _dims(self, value: Value | None) -> tuple[Dim, ...] | None:
        if value is None or value.shape is None:
            return None
        _few(value.shape, f"tensor {value.name!r}")
        out = []
        for size in value.shape:
            if isinstance(size, str):
                out.append(Dim((self.symbols.setdefault(size, Label(None, size)),)))
            else:
                out.append(Dim((Label(size),)))
        return tuple(out)

    def read(self) -> None:
        self.vars.update(self.given)
        for value in self.graph.inputs:
            if value.name in self.given:
                continue
            dtype = value.dtype if value.dtype is not None else np.dtype(object)
            source = is_float(dtype) and (not self.cut or value.name in self.cut)
            var = Var(value.name, dtype, self._dims(value), live=source, valued=dtype.kind in "iuO")
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
        if name in self.graph.constants:
            return self.graph.constants[name]
        if name in self.folded:
            return self.folded[name]
        if self.parent is None:
            raise KeyError(name)
        return self.parent._operand(name)

    def _producer(self, name: str) -> Node | None:
        """The node that makes a tensor, here or in a graph around."""
        node = self.graph.producers.get(name)
        return node if node is not None or self.parent is None else self.parent._producer(name)

    def _look_up(self, name: str) -> Var | None:
        """The Var of a tensor made before, None if there is none."""
        try:
            return self._known(name)
        except KeyError:
            return None

    def _known(self, name: str) -> Var | None:
        """The Var of a tensor here or in a graph around, None for constants."""
        operand = self._operand(name)
        return operand if isinstance(operand, Var) else None

    def _read_node(self, node: Node) -> None:
        self.meter.node(node.label)
        needed = node.reads()
        operands = [self._operand(n) for n in node.inputs]
        while operands and operands[-1] is None:
            operands.pop()
        within(node, operands)
        if self._fold(node, operands):
            return
        entry = find(node.op, node.domain, node.version)
        reason = node.refused or "no importer reads this op"
        if entry is not None:
            used = tuple(
                o if o and (o in self.graph.readers or any(v.name == o for v in self.graph.outputs)) else "" for o in node.outputs
            )
            before = len(self.order)
            try:
                layer, inputs = entry(node, operands, self._context(node, used))
                self._record(node, layer, inputs, operands)
                return
            except ModelError as error:
                reason = str(error).removeprefix(f"{node.label}: ")
            except (TypeError, ValueError, IndexError, AttributeError, KeyError, AssertionError, ArithmeticError) as error:
                reason = f"can't be read: {error}"
            del self.order[before:]  # what was to stand before a layer that there is none of
        sources = [v for v in map(self._known, needed) if v is not None]
        live = any(v.live for v in sources)
        valued = any(v.valued for v in sources)
        for name in node.outputs:
            if not name:
                continue
            self.unread[name] = (node, reason)
            value = self.shape_of(name)
            dtype = value.dtype if value is not None and value.dtype is not None else np.dtype(np.float32)
            if live and node.op.startswith(QUANTIZING):
                dtype = np.dtype(np.float32)
            var = Var(name, dtype, self._dims(value), live=live and is_float(dtype), valued=valued and dtype.kind in "iuO")
            self.vars[name] = self._maybe_source(var, valued)

    def _context(self, node: Node, used: tuple[str, ...]) -> NodeContext:
        return NodeContext(
            node,
            used,
            self.compile,
            lookup=self._look_up,
            producer=self._producer,
            readers=self._readers,
            before=lambda layer, inputs, hint: self._before(node, layer, inputs, hint),
            varies=self._varies,
        )

    def _readers(self, name: str) -> list[Any]:
        return [*self.graph.readers.get(name, ()), *("" for v in self.graph.outputs if v.name == name)]

    def _before(self, node: Node, layer: Layer, inputs: Sequence[Var], hint: str) -> list[Var]:
        """A layer that a node's own needs before it, under the node's name."""
        first = f"{next(o for o in node.outputs if o)}~{hint}"
        own = dataclasses.replace(node, op=type(layer).__name__, outputs=(first,), origin=node.origin or node)
        self._record(own, layer, inputs, ())
        return [self.vars[name] for name in self.order[-1].outputs]

    def _varies(self, dim: Dim, *, inside: bool = False) -> bool:
        """Whether an axis has a length of its own that is unknown: made in this loop (``inside``: in one in here), or by a node."""
        if dim.size is not None:
            return False
        if inside or self.parent is not None:
            reader = self if inside else self.parent
            return reader is not None and not reader._knows(dim)
        return not _among(dim, [self.vars[v.name] for v in self.graph.inputs])

    def _knows(self, dim: Dim) -> bool:
        """Whether an axis is one of a tensor here or in a graph around, or differs from one by a constant."""
        return _among(dim, self.vars.values()) or (self.parent is not None and self.parent._knows(dim))

    def _fold(self, node: Node, operands: Sequence[Any]) -> bool:
        """Whether the node moves a constant's entries, by sizes that are known although they come from a computed shape."""
        if node.op not in MOVING or node.domain or not operands:
            return False
        if not any(isinstance(o, np.ndarray) and is_float(o.dtype) for o in operands):
            return False
        values = [sized(o.value) if isinstance(o, Var) else o for o in operands]
        if any(v is None and o is not None for v, o in zip(values, operands, strict=True)):
            return False
        results = plumbing(node, values, symbolic=False, most=self.graph.limits.tensor_elements)
        if results is None or len(results) < len(node.outputs):
            return False
        self.folded.update({name: r for name, r in zip(node.outputs, results, strict=False) if name})
        return True

    def _maybe_source(self, var: Var, valued: bool) -> Var:
        """A float tensor made of integer values, or a chosen cut, is where relevance may end."""
        if self.parent is not None:  # relevance ends outside of loops
            return var
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
        if self.gates != "all" and hasattr(layer, "shared"):
            layer = layer.shared(inputs) or layer
        infos = list(layer.infer(inputs))
        if isinstance(layer, Affine):
            layer.sums(inputs)  # asked for later: a node that contradicts itself is to be noted now
        signals = set(layer.signals(inputs))
        live = any(inputs[i].live for i in signals)
        # a bool decides; but a Where on integers hands its operands' values on
        masked = any(x.dtype == np.dtype(bool) and not x.valued for x in inputs) and node.op != "Where"
        valued = any(x.valued for x in inputs) and node.op not in ("Shape", "Size") and not masked
        names = list(layer.names(node.outputs))
        step = Step(node, layer, tuple(x.name for x in inputs), tuple(names[: len(infos)]))
        for k, (name, info) in enumerate(zip(names, infos, strict=False)):
            if not name:
                continue
            beside = name not in node.outputs
            value = info.value if info.value is not None or beside else self._value(node, operands, k, info)
            carries = (
                valued and not beside and ((info.dtype.kind in "iuO" and not isinstance(layer, Plain)) or hasattr(layer, "coded"))
            )
            dims = info.dims if info.dims is not None else self._dims(self.shape_of(name))
            _few(dims or (), node.label)
            reached = info.live if isinstance(layer, Nested) else live
            var = dataclasses.replace(info, name=name, value=value, dims=dims, live=reached and info.is_float, valued=carries)
            if not var.live:
                var = self._maybe_source(var, valued and info.is_float)
            elif self.cut and name in self.cut:
                self.sources.append(name)
            self.vars[name] = var
            self.steps[name] = step
        self.order.append(step)
        axes = getattr(layer, "evidence", None)
        if axes is not None:
            self.evidence.append((step, axes(inputs), self.parent is not None))

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

    def shape_of(self, name: str) -> Value | None:
        """What onnx's own shape inference says of a tensor."""
        if self._inferred is None:
            self._inferred = dict(self.graph.value_info)
            self._inferred.update({v.name: v for v in self.graph.outputs})
            if self.graph.model is not None:
                self._inferred = {**_inferred(self.graph), **self._inferred}
        return self._inferred.get(name)

    def signal_inputs(self, name: str) -> list[str]:
        step = self.steps.get(name)
        if step is None:
            if name in self.unread:
                return [n for n in self.unread[name][0].reads() if n in self.vars and self.vars[n].live]
            return []
        return sources(step, name, self.vars)

    def _barrier(self, name: str) -> str:
        """Why relevance can't pass the layer that makes a tensor; empty: it can."""
        step = self.steps.get(name)
        return "" if step is None else step.layer.barrier(step.outputs.index(name))

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
            elif barrier := self._barrier(name):
                bad[id(self.steps[name].node)] = self.steps[name].node, barrier
            stack.extend(self.signal_inputs(name))
        order = {id(n): i for i, n in enumerate(self.graph.nodes)}
        return path, [bad[k] for k in sorted(bad, key=lambda k: order.get(k, len(order)))]  # those that were made stand last

    def compile(self, body: Graph, given: Mapping[str, Var]) -> Body:
        """A sub-graph of this graph, its inputs being ``given``: the steps that its outputs need.

        Raises:
            UnsupportedModel: a node that is needed can't be read; all are named.
        """
        inner = Reader(body, (), parent=self)
        inner.vars.update(given)
        for node in body.nodes:
            inner._read_node(node)
        runs: set[int] = set()
        bad: dict[int, str] = {}
        seen: set[str] = set()
        stack = [v.name for v in body.outputs]
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in inner.steps:
                runs.add(id(inner.steps[name]))
                stack.extend(inner.steps[name].inputs)
                if inner.vars[name].live and (barrier := inner._barrier(name)):
                    bad[id(inner.steps[name].node)] = f"{inner.steps[name].node.label}: {barrier}"
            elif name in inner.unread:
                node, reason = inner.unread[name]
                bad[id(node)] = f"{node.label}: {reason}"
        if bad:
            raise UnsupportedModel(f"in its sub-graph: {'; '.join(bad.values())}")
        vars = dict(inner.vars)
        for name in seen - set(vars):
            var = None if name in body.constants else self._known(name)
            if var is not None:
                vars[name] = var
        constants = {v.name: self._constant(v.name, inner) for v in body.outputs if v.name not in vars}
        return Body(tuple(s for s in inner.order if id(s) in runs), vars, constants)

    @staticmethod
    def _constant(name: str, inner: Reader) -> np.ndarray:
        return inner._operand(name)


def _few(axes: Sequence[Any], what: str) -> None:
    if len(axes) > AXES:  # arrays have no more, and each is compared with the others
        raise InvalidModel(f"{what}: {len(axes):_} axes; no more than {AXES} are read")


def _among(dim: Dim, vars: Iterable[Var]) -> bool:
    """Whether an axis is one of these tensors', or differs from one by a constant."""
    own = {r for v in vars for d in v.dims or () for r in d.roots}
    return all(label.root in own or (label.offset is not None and _among(label.offset[0], vars)) for label in dim.labels)


def _inferred(graph: Graph) -> dict[str, Value]:
    """Shapes by onnx's inference; an empty dict where it can't."""
    try:
        assert graph.model is not None
        model = infer(graph.model, data_prop=graph.tame)
    except InvalidModel:
        raise
    except Exception:  # inference is a help, never a reason to refuse a model
        return {}
    values = [*model.graph.value_info, *model.graph.output]
    return {v.name: value_of(v) for v in values}
