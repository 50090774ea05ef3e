"""Which axis of a tensor is the batch, the time, the classes: evidence from the layers, gathered over the whole graph."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from .dims import Dim, Label
from .errors import InputError
from .layer import Affine, Opaque
from .nested import Nested, Step
from .reader import Reader
from .registry import Var

__all__ = ["batch_and_times", "class_axis", "lengths"]


def batch_and_times(
    reader: Reader, explained: str, path: set[str], points: Sequence[str], batch_axis: Any, notes: list[str]
) -> tuple[Label | None, frozenset[Label]]:
    """(label of the batch, None: one sample; labels that are time)."""
    vars = reader.vars
    _named(reader, explained)
    times = {r for _, axes, _ in reader.evidence if "time" in axes for r in axes["time"].roots}
    candidates: list[Label] = []
    if batch_axis is not None:
        wanted = batch_axis if isinstance(batch_axis, Mapping) else {reader.graph.inputs[0].name: batch_axis}
        for name, axis in wanted.items():
            dims = vars[name].dims if name in vars else None
            if dims is None or not -len(dims) <= axis < len(dims):
                raise InputError(f"batch_axis={axis} does not exist in input {name!r}")
            candidates += dims[axis].roots
    else:
        seen: list[Sequence[Label]] = []
        for step, axes, nested in reader.evidence:
            if "batch" in axes and (nested or any(o in path for o in step.outputs)):
                seen.append(axes["batch"].roots)
        # a layer's samples may be the words of all sentences, or the steps of all series: the batch is what all have in common
        found = dict.fromkeys(r for roots in seen for r in roots)
        candidates = sorted(found, key=lambda c: (sum(c not in roots for roots in seen), c in times))
        dims = vars[explained].dims
        inside = {r for d in dims or () for r in d.roots}
        named = [c for c in candidates if c.root in inside]
        candidates = named or candidates
        if not candidates and dims:
            entering = {r for v in reader.graph.inputs for d in (vars[v.name].dims or ()) for r in d.roots}
            entering |= {r for p in points for d in (vars[p].dims or ()) for r in d.roots}
            candidates = [r for r in dims[0].roots if r in entering and r not in times][:1]
    candidates = [c.root for c in candidates]
    ends = [vars[n].dims or () for n in (explained, *points)]
    for candidate in candidates:
        if all(any(d.has(candidate) for d in dims) for dims in ends) or _meets(reader, candidate, ends, times):
            batch = candidate.root
            if batch_axis is None and _unknown(reader.order, vars, path):
                notes.append("the shape of a tensor that absorbs relevance is unknown: everything is one sample")
                return None, frozenset(t.root for t in times)
            return batch, frozenset(t.root for t in times if t.root is not batch)
    notes.append("no axis is the batch both in the explained output and at the attribution points: everything is one sample")
    return None, frozenset(t.root for t in times)


def _named(reader: Reader, name: str) -> None:
    """An axis that nothing is known of is the axis of the inputs that the file gives the same name."""
    value, dims = reader.shape_of(name), reader.vars[name].dims
    if value is None or value.shape is None or dims is None or len(value.shape) != len(dims):
        return
    entering = {r for v in reader.graph.inputs for d in (reader.vars[v.name].dims or ()) for r in d.roots}
    for size, dim in zip(value.shape, dims, strict=True):
        label = reader.symbols.get(size) if isinstance(size, str) else None
        if label is None or label.root not in entering or len(dim.labels) != 1:
            continue
        (own,) = dim.roots
        if own not in entering and own.size is None:
            label.join(own)


def _unknown(steps: Sequence[Step], vars: Mapping[str, Var], path: Container[str] | None) -> bool:
    """Whether relevance may end where it can't be told which sample it belongs to; ``path`` None: in the body of a loop."""
    for step in steps:
        outputs = [vars[o] for o in step.outputs if o and o in vars and vars[o].live and (path is None or o in path)]
        if not outputs:
            continue
        if isinstance(step.layer, Nested):
            if _unknown(step.layer.body.steps, step.layer.body.vars, None):
                return True
        elif isinstance(step.layer, Affine | Opaque) and any(v.dims is None for v in outputs):
            return True
    return False


def _meets(reader: Reader, candidate: Label, ends: Sequence[Sequence[Dim]], times: Container[Label]) -> bool:
    """Whether a batch of fixed size is an axis of all ends once it is the same axis of every graph input that has its size there.

    Exported with fixed sizes, a tensor that is picked by the numbers of the samples (x[arange(B), length − 1]) has its batch from
    the lengths alone: two axes that are equal only in number.
    """
    size = candidate.root.size
    inputs = [reader.vars[v.name].dims or () for v in reader.graph.inputs]
    places = {axis for dims in inputs for axis, d in enumerate(dims) if d.has(candidate)}
    if size is None or size == 1 or len(places) != 1:
        return False
    (axis,) = places
    others = [r for dims in inputs if len(dims) > axis for r in dims[axis].roots if r.size == size and r not in times]
    if not all(any(d.has(candidate) or any(r in others for r in d.roots) for d in dims) for dims in ends):
        return False
    for other in others:
        candidate.join(other)
    return True


def class_axis(reader: Reader, explained: str, batch: Label | None, times: frozenset[Label]) -> int | None:
    """The softmax's axis, else the last axis that is neither batch nor time."""
    var = reader.vars[explained]
    for node in reader.graph.readers.get(explained, ()):
        if node.op in ("Softmax", "LogSoftmax", "ArgMax", "ArgMin", "TopK") and var.rank:
            default = {"ArgMax": 0, "ArgMin": 0, "TopK": -1}.get(node.op, -1 if node.version >= 13 else 1)
            axis = int(node.attributes.get("axis", default)) % var.rank
            if not (var.dims or ())[axis].has(batch):
                return axis
    if not var.dims:
        return None
    for axis in range(len(var.dims) - 1, -1, -1):
        dim = var.dims[axis]
        free = [r for r in dim.roots if r is not (batch.root if batch else None) and r not in times]
        if free or not dim.labels:
            return axis
    return None


def lengths(reader: Reader, explained: str) -> str | None:
    """The tensor of sequence lengths that says which positions of the explained tensor are padding."""
    dims = reader.vars[explained].dims or ()
    for step, axes, nested in reader.evidence:
        slots: Any = getattr(step.layer, "slots", ())
        if nested or "time" not in axes or len(slots) < 2 or not isinstance(slots[1], int):
            continue
        if any(r in d.roots for d in dims for r in axes["time"].roots):
            return step.inputs[slots[1]]
    return None
