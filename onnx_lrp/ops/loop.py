"""Loop and Scan: a nested program, run once a step forward and once a step backward.

Relevance of a step's states goes to the states before it and to the rows read; what is left before the first step goes on to the
tensors behind the initial states, or is absorbed as ``initial_state``. Blocks go on outside through rows and captured tensors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..dims import Dim, fresh, unify
from ..graph import Node, Value
from ..held import table_of
from ..nested import Body, Listed, Nested, Row, joined, state_var
from ..registry import ANY, Parts, Var, importer
from ..rewrite import Rewriting, rewriter
from .parts import Blank, Spread

__all__ = ["counters"]

ROUNDS = 16  # of reading a body until its states stay as they are; each round but the last settles a state or an axis
ENDLESS = 2**31 - 1  # exporters write the greatest integer where only the condition ends a loop


def _slot(operand: Any, name: str, inputs: list[Var], parameters: dict[str, np.ndarray]) -> int | str:
    """Where the layer finds an operand: an input's index, or a parameter of that name."""
    if isinstance(operand, Var):
        at = next((i for i, v in enumerate(inputs) if v.name == operand.name), None)
        if at is None:
            inputs.append(operand)
        return len(inputs) - 1 if at is None else at
    parameters[name] = np.asarray(operand)
    return name


def _compile(
    names: Sequence[str], outs: Sequence[str], initial: Sequence[Any], given: dict[str, Var], body: Any, node: Any
) -> Body:
    """The body, compiled again until what its states are no longer changes: which of them are live, and their dims."""
    dims = [None if not isinstance(v, Var) else v.dims for v in initial]
    dims = [tuple(fresh(n) for n in v.shape) if not isinstance(v, Var) else d for v, d in zip(initial, dims, strict=True)]
    live = [isinstance(v, Var) and v.live for v in initial]
    forms = [v.parts if isinstance(v, Var) else None for v in initial]
    varying = set[int]()  # states of one rank before a step and another one behind it, whatever the file declares: (), then (1,)
    for _ in range(3 * len(names) + ROUNDS):
        forms = [
            None if form is None else dataclasses.replace(form, table=table_of(n), known=None)
            for n, form in zip(names, forms, strict=True)
        ]
        states = {n: state_var(n, v, a, d, p) for n, v, a, d, p in zip(names, initial, live, dims, forms, strict=True)}
        tables = {form.table: Var(form.table, np.dtype(np.int64), (fresh(None), fresh(None))) for form in forms if form is not None}
        compiled: Body = node.compile(body, {**given, **states, **tables})
        after = [compiled.vars.get(o) for o in outs]
        new_live = [a or (v is not None and v.live) for a, v in zip(live, after, strict=True)]
        changed = [_form(form, v, node) for form, v in zip(forms, after, strict=True)]
        merged = []
        for k, v in enumerate(after):
            other = forms[k] is None and (changed[k] is not None or (_is_none(dims[k]) and v is not None and v.rank != 1))
            old, now = dims[k], None if v is None else v.dims
            if not other and old is not None and now is not None and len(old) != len(now):
                varying.add(k)
            merged.append(None if k in varying else old if v is None else _open(v) if other else joined(old, now))
        same = all(_alike(a, b) for a, b in zip(dims, merged, strict=True))
        if new_live == live and same and [f is None for f in forms] == [f is None for f in changed]:
            return compiled
        live, dims, forms = new_live, merged, changed
    raise node.refuse("the axes of its states change without end")


def _is_none(dims: tuple[Dim, ...] | None) -> bool:
    """Whether these are the dims of a sequence without an element."""
    return dims is not None and len(dims) == 1 and dims[0].size == 0


def _open(sequence: Var) -> tuple[Dim, ...] | None:
    """Dims of a sequence, with a number of elements that may grow."""
    if sequence.dims is None:
        return None
    axis = 0 if sequence.parts is None else sequence.parts.axis or 0
    return tuple(fresh(None) if a == axis else d for a, d in enumerate(sequence.dims))


def _form(before: Parts | None, after: Var | None, node: Any) -> Parts | None:
    """How a state that is a sequence is held, from its form before and after a step."""
    made = None if after is None else after.parts
    if before is None or after is None:
        return made
    if made is None or made.axis != before.axis:
        raise node.refuse("a sequence whose elements differ in one axis before a step, and not so after it")
    return before if before.rank == made.rank else dataclasses.replace(before, rank=None)


def _begun(compiled: Body, names: Sequence[str], initial: Sequence[Any], node: Any) -> list[Any]:
    """The initial values of the states in the form that these have in the body, then the tables beside them."""
    out, tables = list(initial), []
    for k, (name, value) in enumerate(zip(names, initial, strict=True)):
        var = compiled.vars.get(name)
        if var is None or not isinstance(value, Var):
            continue
        rank = var.rank
        if var.parts is None:
            if _is_none(value.dims) and rank is not None and rank > 1:
                (out[k],) = node.before(Blank(rank=rank), (value,), f"state{k}")
            continue
        if value.parts is None:
            axis = var.parts.axis
            spread = Spread(table=f"{name}~start{k}", axis=axis, rank=var.parts.rank if axis is None else rank)
            out[k], table = node.before(spread, (value,), f"state{k}")
        else:
            table = node.lookup(value.parts.table)
        tables.append(table)
    return out + tables


def _growing(compiled: Body, names: Sequence[str], initial: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    """Axes of states whose length is not that of the initial value."""
    found: dict[str, tuple[int, ...]] = {}
    for name, value in zip(names, initial, strict=True):
        dims = compiled.vars[name].dims if name in compiled.vars else None
        first = value.dims if isinstance(value, Var) else None
        if dims is not None and first is not None and len(dims) == len(first):
            axes = tuple(a for a, (d, e) in enumerate(zip(dims, first, strict=True)) if d.size is None and not d.same(e))
            found |= {name: axes} if axes else {}
    return found


def _alike(a: tuple[Dim, ...] | None, b: tuple[Dim, ...] | None) -> bool:
    """The same rank and, axis by axis, the same labels or two unknown ones."""
    if a is None or b is None:
        return a is b
    return len(a) == len(b) and all(x.same(y) or (x.size is None and y.size is None) for x, y in zip(a, b, strict=True))


def counters(body: Body, counter: str, states: Sequence[tuple[str, str, Any]], outside: Collection[str]) -> set[str]:
    """Integer tensors of the body that move by ±1 a step, so that their values never repeat; ``outside``: captured tensors."""
    made = {o: s for s in body.steps for o in s.outputs}
    found = {counter, *(name for name, out, _ in states if _moved(_same(out, body), made) == name)}
    for step in body.steps:  # in order, so that each one's source is known
        sources = set(step.inputs)
        if step.node.op in ("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape"):
            still, integer = True, body.vars[step.outputs[0]].dtype.kind in "iu"
        else:
            still, integer = step.node.op in ("Add", "Sub") and len(sources & found) == 1, True
        if still and integer and sources & found and sources <= found | set(outside):
            found.add(step.outputs[0])
    return found


def _same(name: str, body: Body) -> str:
    """The tensor of a body that this one is under another name; exporters hand on the condition so, cast to what it is."""
    for step in reversed(body.steps):
        if name in step.outputs and step.node.op in ("Cast", "Identity") and len(step.inputs) == 1:
            given = step.inputs[0]
            if given in body.vars and body.vars[given].dtype == body.vars[name].dtype:
                name = given
    return name


def _moved(name: str, made: Mapping[str, Any]) -> str | None:
    """The integer tensor that this one is plus or minus 1."""
    step = made.get(name)
    if step is None or step.node.op not in ("Add", "Sub") or len(step.inputs) != 1 or step.layer.slots[0] != 0:
        return None
    constant = next(iter(step.layer.parameters.values()))
    return step.inputs[0] if np.size(constant) == 1 and abs(int(np.reshape(constant, -1)[0])) == 1 else None


def _gathered(body: Body, moving: Collection[str], outside: Collection[str]) -> list[tuple[str, str, int, str]]:
    """(row, data, axis, index) of every Gather that takes another row of a tensor from outside at each step."""
    found = []
    for step in body.steps:
        if step.node.op != "Gather" or len(step.inputs) != 2 or step.inputs[0] not in outside or step.inputs[1] not in moving:
            continue
        data, index = body.vars[step.inputs[0]], body.vars[step.inputs[1]]
        if data.is_float and data.rank is not None and index.shape in ((), (1,)):
            found.append((step.outputs[0], step.inputs[0], step.layer.axis % data.rank, step.inputs[1]))  # type: ignore[attr-defined]
    return found


@importer("Loop", since=1)
def loop(M: Any = None, cond: Any = None, *v_initial: Any, body: Any, node: Any) -> Any:
    counter, going, *names = (v.name for v in body.inputs)
    outs = [v.name for v in body.outputs[1:]]
    results, collected = outs[: len(names)], outs[len(names) :]
    given = {
        counter: Var(counter, np.dtype(np.int64), ()),
        going: Var(going, np.dtype(bool), (), interval=(0.0, 1.0), mask=True),
    }
    compiled = _compile(names, results, v_initial, given, body, node)
    condition = _same(body.outputs[0].name, compiled)
    inputs: list[Var] = []
    parameters: dict[str, np.ndarray] = {}
    held = {k: p for k, n in enumerate(names) if n in compiled.vars and (p := compiled.vars[n].parts) is not None}
    begun = _begun(compiled, names, v_initial, node)
    outside = node.node.outputs
    tables = {k: table_of(outside[k] if k < len(outside) and outside[k] else f"{node.name}~state{k}") for k in held}
    lists = _lists(compiled, collected, outside[len(names) :], node)
    collected = [
        o for o, name in zip(collected, [*outside[len(names) :], *[""] * len(collected)], strict=False) if name not in lists
    ]
    results = [*results, *(compiled.vars[results[k]].parts.table for k in held)]  # type: ignore[union-attr]
    names = [*names, *(p.table for p in held.values())]
    states = tuple(
        (n, o, _slot(v, f"state{k}", inputs, parameters)) for k, (n, o, v) in enumerate(zip(names, results, begun, strict=True))
    )
    captured = compiled.captured([counter, going, *names], [condition, *outs, *results])
    gathered = _gathered(compiled, counters(compiled, counter, states, captured), captured)
    slots = {n: _slot(compiled.vars[n], "", inputs, parameters) for n in captured}
    rows = tuple(Row(name, slots[data], axis, index) for name, data, axis, index in gathered)
    trips = None
    if M is not None and not (isinstance(M, np.ndarray) and int(M.reshape(-1)[0]) >= ENDLESS):
        trips = _slot(M, "trips", inputs, parameters)
    start = None
    if cond is not None and not (isinstance(cond, np.ndarray) and bool(cond.reshape(-1)[0])):
        start = _slot(cond, "start", inputs, parameters)
    always = condition == going or (condition in compiled.constants and bool(np.all(compiled.constants[condition])))
    layer = Nested(
        parameters=parameters,
        body=compiled,
        counter=counter,
        states=states,
        rows=rows,
        captured=tuple((n, int(i)) for n, i in slots.items()),
        collected=tuple((o, 0, False) for o in collected),
        trips=trips,
        start=start,
        going=going,
        condition=None if always else condition,
        lists=tuple(lists.values()),
        tables=tables,
        growing=_growing(compiled, names, begun),
        length=_length(M, [compiled.vars[data].dims[axis] for _, data, axis, _ in gathered]),  # type: ignore[index]
    )
    if trips is None and layer.condition is None:
        raise node.refuse("nothing ends it: neither a number of steps nor a condition")
    return layer, inputs


def _lists(compiled: Body, collected: Sequence[str], outside: Sequence[str], node: Any) -> dict[str, Listed]:
    """What is collected to be read as a sequence only, and may have another size along one axis at each step."""
    found = {}
    for name, output in zip(collected, outside, strict=False):
        readers, var = node.readers(output), compiled.vars.get(name)
        if not readers or any(r == "" or r.op != "SplitToSequence" or len(r.inputs) > 1 for r in readers):
            continue
        if any(r.attributes.get("axis", 0) != 0 or r.attributes.get("keepdims", 1) for r in readers):
            continue
        axes = [a for a, d in enumerate(var.dims or ()) if node.varies(d, inside=True)] if var is not None else []
        if len(axes) == 1 and var is not None:
            found[output] = Listed(name, output, Parts(table_of(output), axes[0], var.rank))
    return found


def _length(trips: Any, read: Sequence[Dim]) -> Dim:
    """The number of steps: what is given as a shape, else the length of what is read row by row."""
    if isinstance(trips, np.ndarray) and int(trips.reshape(-1)[0]) < ENDLESS:
        known = fresh(int(trips.reshape(-1)[0]))
    elif isinstance(trips, Var) and trips.value is not None and isinstance(trips.value.reshape(-1)[0], Dim):
        known = trips.value.reshape(-1)[0]
    elif read:
        return read[0]
    else:
        return fresh(None, "time")
    for dim in read:
        if dim.size is None or dim.size == known.size:
            known = unify(known, dim)
    return known


@importer("Scan", since=9)
def scan(
    *initial_state_and_scan_inputs: Any,
    body: Any,
    num_scan_inputs: int,
    scan_input_axes: Any = None,
    scan_input_directions: Any = None,
    scan_output_axes: Any = None,
    scan_output_directions: Any = None,
    node: Any,
) -> Any:
    count = len(initial_state_and_scan_inputs) - num_scan_inputs
    initial, read = initial_state_and_scan_inputs[:count], initial_state_and_scan_inputs[count:]
    names, row_names = [v.name for v in body.inputs[:count]], [v.name for v in body.inputs[count:]]
    outs = [v.name for v in body.outputs]
    results, collected = outs[:count], outs[count:]
    axes = list(scan_input_axes or [0] * num_scan_inputs)
    backwards = list(scan_input_directions or [0] * num_scan_inputs)
    length = fresh(None, "time")
    given: dict[str, Var] = {}
    for k, (name, data) in enumerate(zip(row_names, read, strict=True)):
        rank = data.rank if isinstance(data, Var) else data.ndim
        if rank is None:
            raise node.refuse(f"the rank of its scan input {k} is unknown")
        axes[k] %= rank
        if isinstance(data, Var):
            assert data.dims is not None
            length = unify(data.dims[axes[k]], length)
            rest = tuple(d for a, d in enumerate(data.dims) if a != axes[k])
            given[name] = dataclasses.replace(data, name=name, dims=rest, value=None, origin=frozenset())
        else:
            length = unify(fresh(data.shape[axes[k]]), length)
            low, high = (float(data.min()), float(data.max())) if data.dtype.kind == "f" and data.size else ANY
            given[name] = Var(name, data.dtype, tuple(fresh(n) for n in np.delete(data.shape, axes[k])), interval=(low, high))
    compiled = _compile(names, results, initial, given, body, node)
    inputs: list[Var] = []
    parameters: dict[str, np.ndarray] = {}
    states = tuple(
        (n, o, _slot(v, f"state{k}", inputs, parameters)) for k, (n, o, v) in enumerate(zip(names, results, initial, strict=True))
    )
    rows = tuple(
        Row(n, _slot(v, f"rows{k}", inputs, parameters), axes[k], None, bool(backwards[k]))
        for k, (n, v) in enumerate(zip(row_names, read, strict=True))
    )
    captured = compiled.captured([*names, *row_names], outs)
    out_axes = list(scan_output_axes or [0] * len(collected))
    flipped = list(scan_output_directions or [0] * len(collected))
    layer = Nested(
        parameters=parameters,
        body=compiled,
        counter=None,
        states=states,
        rows=rows,
        captured=tuple((n, int(_slot(compiled.vars[n], "", inputs, parameters))) for n in captured),
        collected=tuple((o, int(a), bool(f)) for o, a, f in zip(collected, out_axes, flipped, strict=True)),
        trips=None,
        length=length,
        kind="Scan",
    )
    return layer, inputs


@rewriter("Scan", domain="")
def batched_scan(node: Node, graph: Rewriting) -> list[Node] | None:
    """Scan of opset 8, whose states and series have a batch axis before time: a Scan over the samples, of a Scan over the steps."""
    if node.version >= 9:
        return None
    if graph.input(0):
        raise graph.refuse("sequence_lens of a Scan of opset 8 is not read")
    own = dict(node.attributes)
    count = own["num_scan_inputs"]
    of_one = tuple(graph.fresh(f"sample{k}") for k in range(len(node.inputs) - 1))
    results = tuple(graph.fresh(f"result{k}") for k in range(len(own["body"].outputs)))
    steps = {"body": own["body"], "num_scan_inputs": count, "scan_input_directions": own.get("directions", [0] * count)}
    inner = dataclasses.replace(node, version=9, inputs=of_one, outputs=results, attributes=steps, origin=node)
    sample = dataclasses.replace(
        own["body"],
        nodes=(inner,),
        inputs=tuple(Value(n, None, None) for n in of_one),
        outputs=tuple(Value(n, None, None) for n in results),
        constants={},
        value_info={},
    )
    samples = {"body": sample, "num_scan_inputs": len(of_one)}
    return [dataclasses.replace(node, version=9, inputs=node.inputs[1:], attributes=samples, origin=node)]
