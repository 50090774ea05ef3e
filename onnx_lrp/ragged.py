"""Sequences of different lengths: sorted into groups that run as one array each, and put together again in the caller's order.

A group holds sequences of exactly one length, so that padding never changes a result. Only where nothing but recurrent layers with
lengths and layers that treat every step by itself read the time axis, sequences of nearly the same length are padded together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import InputError
from .explanation import Explanation
from .inputs import prepare_inputs
from .labels import Labelled
from .layer import Elementwise
from .nested import Step
from .plan import Plan
from .recurrence import Recurrent
from .targets import Seed, Spec

__all__ = ["Ragged", "check", "joined", "lens", "part_of_target", "plain", "read", "together"]

BY_STEP = ("Cast", "Embedding", "Identity", "Squeeze", "Transpose", "Unsqueeze")  # titles of layers that mix no steps
LARGE = 2**24  # bytes
FILL = 0.8  # padded together: sequences at least this long, measured by the longest of them


@dataclass(frozen=True, eq=False)
class Ragged:
    """What a caller passed for B samples.

    Attributes:
        sequences: {graph input: B arrays, each without the axis of samples}.
        arrays: {graph input: one array for all samples, or for each}.
        batch: {graph input: axis of the samples}.
        lengths: (B,) steps of each sample, of the first input given as sequences.
        pads: {graph input: axis of time, that of samples included}, None where sequences of different lengths can't run together.
        lens: the graph input that takes the lengths, if the caller left that to us.
    """

    sequences: Mapping[str, Sequence[np.ndarray]]
    arrays: Mapping[str, np.ndarray]
    batch: Mapping[str, int | None]
    lengths: np.ndarray
    pads: Mapping[str, int] | None
    lens: str | None

    def groups(self) -> Iterator[np.ndarray]:
        """Which samples run together, the longest first."""
        order = np.argsort(-self.lengths, kind="stable")
        if self.pads is None:
            same: dict[Any, list[int]] = {}
            shapes = list(zip(*([row.shape for row in rows] for rows in self.sequences.values()), strict=True))
            for i in order.tolist():
                same.setdefault(shapes[i], []).append(i)
            yield from map(np.asarray, same.values())
            return
        while len(order):
            near = self.lengths[order] >= FILL * self.lengths[order[0]]
            yield order[near]
            order = order[~near]

    def inputs(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Of a group, one array for each input."""
        found = {}
        for name, given in self.sequences.items():
            axis = self.batch[name]
            assert axis is not None
            parts = [given[i] for i in rows]
            if self.pads is not None:
                time = self.pads[name] - (axis < self.pads[name])
                longest = max(part.shape[time] for part in parts)
                parts = [_padded(part, time, longest) for part in parts]
            # a third of the time of np.stack, which makes an array of each part first
            whole = np.concatenate(parts).reshape(len(parts), *parts[0].shape)
            found[name] = np.moveaxis(whole, 0, axis)
        for name, array in self.arrays.items():
            at = self.batch[name]
            found[name] = array if at is None or array.shape[at] == 1 else np.take(array, rows, at)
        if self.lens is not None:
            found[self.lens] = self.lengths[rows]
        return found


def _padded(part: np.ndarray, axis: int, length: int) -> np.ndarray:
    return np.pad(part, [(0, length - part.shape[axis] if a == axis else 0) for a in range(part.ndim)])


def plain(inputs: Labelled, plan: Plan) -> dict[str, Any]:
    """The arrays of inputs that bring their names along: one where all samples have one shape, else a list of sequences.

    Raises:
        InputError: the model takes something else.
    """
    values = plan.graph.inputs
    feeds = inputs.feeds(values)
    whole = len(feeds) == len(values)  # else lengths are left to us, of lists alone
    found: dict[str, Any] = {}
    for name, given in feeds.items():
        axis, rank = plan.batch_axis(name), plan.vars[name].rank
        rows = given if rank is None else [_of_rank(row, rank - (axis is not None), name) for row in given]
        if axis is None and len(rows) == 1:
            found[name] = rows[0]
        elif axis is not None and whole and len({row.shape for row in rows}) == 1:
            found[name] = np.stack(rows, axis)
        else:
            found[name] = list(rows)
    return found


def _of_rank(row: np.ndarray, rank: int, name: str) -> np.ndarray:
    """A sample; of a table with one column or one row a vector, where the model takes vectors."""
    if row.ndim == 2 and rank == 1 and 1 in row.shape:
        return row.reshape(-1)
    if row.ndim != rank:
        raise InputError(f"input {name!r}: a sample of shape {row.shape}, expected {rank} axes; pass .npy or .npz")
    return row


def read(inputs: Any, plan: Plan) -> Ragged | None:
    """Lists of arrays, one a sample; None: everything is an array already, or becomes one.

    Raises:
        InputError: the lists differ in length, or in an axis that is no sequence.
    """
    values = plan.graph.inputs
    if isinstance(inputs, list | tuple):
        if len(values) == 1:
            given: dict[str, Any] = {values[0].name: inputs}
        else:
            others = [v for v in values if v.name != lens(plan)]
            if len(others) != 1:
                return None
            given = {others[0].name: inputs}
    elif isinstance(inputs, Mapping):
        given = dict(inputs)
    else:
        return None
    names = {v.name for v in values}
    if set(given) - names:
        return None  # said with the names there are, where arrays are read
    sequences = {name: rows for name, rows in ((n, _sequences(v, n, plan)) for n, v in given.items()) if rows is not None}
    if not sequences:
        return None
    counts = {name: len(rows) for name, rows in sequences.items()}
    if len(set(counts.values())) > 1:
        raise InputError("as many sequences for every input: " + ", ".join(f"{n} has {c}" for n, c in counts.items()))
    batch = {name: plan.batch_axis(name) for name in given}
    times = {}
    for name, rows in sequences.items():
        axis, rank = batch[name], plan.vars[name].rank
        if axis is None:
            raise InputError(
                f"input {name!r}: a list of sequences, but this model has no axis of samples; pass one array at a time"
            )
        if rank is not None and rows[0].ndim != rank - 1:
            raise InputError(
                f"input {name!r}: sequences of {rows[0].ndim} axes, expected {rank - 1}: its {rank} less that of samples"
            )
        times[name] = _time(name, rows, axis, plan)
    first = next(iter(sequences))
    lengths = np.asarray([row.shape[times[first] - (batch[first] < times[first])] for row in sequences[first]])  # type: ignore[operator]
    told = lens(plan)
    if told is not None and told in given and not np.array_equal(np.ravel(given[told]), lengths):
        raise InputError(f"input {told!r}: lengths that are not those of the sequences; leave it out")
    return Ragged(
        sequences=sequences,
        arrays={name: np.asarray(v) for name, v in given.items() if name not in sequences and name != told},
        batch=batch,
        lengths=lengths,
        pads=times if told is not None and _mixes_no_steps(plan) else None,
        lens=told,
    )


def lens(plan: Plan) -> str | None:
    """The graph input that tells every recurrent layer its lengths; None if there is none."""
    cast = {s.outputs[0]: s.inputs[0] for s in plan.steps if s.layer.title == "Cast" and s.inputs}
    found = {cast.get(name, name) for step in plan.steps if isinstance(step.layer, Recurrent) for name in [_slot(step)] if name}
    names = {v.name for v in plan.graph.inputs}
    return next(iter(found)) if len(found) == 1 and found <= names else None


def _slot(step: Step) -> str | None:
    """The tensor that a recurrent layer reads its lengths from."""
    slot = step.layer.slots[1]  # type: ignore[attr-defined]
    return step.inputs[slot] if isinstance(slot, int) else None


def _mixes_no_steps(plan: Plan) -> bool:
    """Whether padding can reach no result: along time nothing reads but recurrent layers with lengths, and no output has time."""

    def alone(step: Step) -> bool:
        if isinstance(step.layer, Recurrent):
            return _slot(step) is not None
        if isinstance(step.layer, Elementwise) or step.layer.title in BY_STEP:
            return True
        x = step.inputs[0]
        last = len(plan.vars[x].dims or ()) - 1
        return step.layer.title == "Linear" and plan.time_axis(x) not in (None, last)

    timed = [s for s in plan.steps if any(n in plan.vars and plan.time_axis(n) is not None for n in s.inputs)]
    return all(alone(step) for step in timed) and all(plan.time_axis(n) is None for n in plan.outputs if n in plan.vars)


def _sequences(value: Any, name: str, plan: Plan) -> list[np.ndarray] | None:
    """One array a sample; None: the value is an array, or becomes one.

    Arrays in a list are samples also where all are of one length: stacked as they come, their axis of samples might be another.
    """
    if not isinstance(value, list | tuple) or len(value) == 0:
        return None
    try:
        lengths = {len(row) for row in value}
    except TypeError:  # numbers
        return None
    rank = plan.vars[name].rank
    arrays = all(isinstance(row, np.ndarray) and row.ndim + 1 == rank for row in value)
    if len(lengths) == 1 and not (arrays and plan.batch_axis(name) is not None):
        return None
    try:
        rows = [np.asarray(row) for row in value]
    except (ValueError, TypeError) as error:
        raise InputError(f"a sequence is no array: {error}") from error
    if len({row.ndim for row in rows}) > 1 or any(row.ndim == 0 for row in rows):
        raise InputError("sequences of different numbers of axes")
    return rows


def _time(name: str, rows: Sequence[np.ndarray], batch: int, plan: Plan) -> int:
    """The axis along which sequences differ, that of samples included."""
    shapes = np.asarray([row.shape for row in rows])
    varied = [int(axis) for axis in np.flatnonzero((shapes != shapes[0]).any(0))]
    for axis in varied:
        whole = axis + (axis >= batch)
        dims = plan.vars[name].dims or ()
        fixed = dims[whole].size if whole < len(dims) else None
        if fixed is not None:
            wrong = next(i for i, shape in enumerate(shapes) if shape[axis] != fixed)
            raise InputError(f"input {name!r}: sequence {wrong} has shape {rows[wrong].shape}, expected {fixed} along axis {axis}")
    if len(varied) > 1:
        raise InputError(f"input {name!r}: sequences differ along {len(varied)} axes; one is time")
    if not varied:
        time = plan.time_axis(name)
        return next(axis for axis in range(rows[0].ndim + 1) if axis != batch) if time is None else time
    return varied[0] + (varied[0] >= batch)


def part_of_target(target: Any, rows: np.ndarray, count: int) -> Any:
    """A target for some of the samples.

    Raises:
        InputError: a seed, whose shape is that of one batch.
    """
    if isinstance(target, Seed) and not callable(target.value):
        raise InputError("a seed array is of one batch's shape; with sequences of different lengths give a function of the scores")
    if isinstance(target, Spec):
        changed = {f.name: part_of_target(getattr(target, f.name), rows, count) for f in dataclasses.fields(target)}
        return dataclasses.replace(target, **{k: v for k, v in changed.items() if k != "steps"})
    if isinstance(target, list | tuple) and len(target) == count and any(np.ndim(t) for t in target):
        return np.stack([np.asarray(target[i]) for i in rows])
    array = None if target is None or callable(target) or isinstance(target, str) else np.asarray(target)
    return np.take(array, rows, 0) if array is not None and array.ndim and len(array) == count else target


def check(inputs: Any, plan: Plan) -> None:
    """Refuse inputs, sequences of different lengths or not, without running anything.

    Raises:
        InputError: see :func:`~onnx_lrp.inputs.prepare_inputs`.
    """
    inputs = plain(inputs, plan) if isinstance(inputs, Labelled) else inputs
    given = read(inputs, plan)
    for part in [inputs] if given is None else map(given.inputs, given.groups()):
        prepare_inputs(part, plan)


def together(which: Sequence[np.ndarray], arrays: Sequence[Any], axis: int | None, count: int, fill: float = 0) -> Any:
    """One array of the groups' arrays: ``which`` samples each holds along ``axis``, of ``count``; shorter ones are filled up.

    What has no axis of samples is that of the first group.
    """
    if axis is None or not all(isinstance(a, np.ndarray) for a in arrays):
        return arrays[0]
    shape = np.max([a.shape for a in arrays], axis=0)
    shape[axis] = count
    # zeros cost nothing until they are touched
    whole = np.full(shape, fill, arrays[0].dtype) if fill else np.zeros(shape, arrays[0].dtype)
    turned = np.moveaxis(whole, axis, 0)

    def put(rows: np.ndarray, array: np.ndarray) -> None:
        moved = np.moveaxis(array, axis, 0)
        where: Any = (rows, *(slice(n) for n in moved.shape[1:]))
        turned[where] = moved

    # fresh memory takes longer to come by than to fill
    with ThreadPoolExecutor(2 if whole.nbytes > LARGE else 1) as pool:
        for done in [pool.submit(put, *group) for group in zip(which, arrays, strict=True)]:
            done.result()
    return whole


def joined(
    parts: Sequence[tuple[np.ndarray, Explanation]],
    given: Ragged,
    plan: Plan,
    *,
    hidden: Mapping[str, int | None],
    target_axis: int | None,
) -> Explanation:
    """The explanations of all groups as one, padded with zeros to the longest (classes with -1), with ``lengths``.

    Args:
        hidden: axis of the samples of what is kept, the axis of classes left out.
        target_axis: that of the classes explained, None where they have none.
    """
    first, count = parts[0][1], len(given.lengths)
    lead = int(first.several)

    which = [rows for rows, _ in parts]

    def join(arrays: Sequence[Any], axis: int | None, fill: float = 0) -> Any:
        return together(which, arrays, axis, count, fill)

    def named(field: str, axis: Any, add: int) -> dict[str, Any]:
        names = dict.fromkeys(name for _, e in parts for name in getattr(e, field))
        found = {}
        for name in names:
            at = axis(name)
            found[name] = join([getattr(e, field)[name] for _, e in parts], None if at is None else at + add)
        return found

    def sums(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        kinds = dict.fromkeys(kind for row in rows for kind in row)
        zeros = [np.zeros_like(e.seed) for _, e in parts]
        return {k: join([row.get(k, zero) for row, zero in zip(rows, zeros, strict=True)], lead) for k in kinds}

    layers = dict.fromkeys(layer for _, e in parts for layer in e.ledger)
    target = first.target
    if isinstance(target, np.ndarray) and not (lead and target.ndim == 1):
        targets = [np.asarray(e.target) for _, e in parts]
        target = join(targets, lead if lead else target_axis, -1)
    return dataclasses.replace(
        first,
        relevance=named("relevance", lambda n: plan.batch_axis(n), lead),
        inputs=named("inputs", lambda n: plan.batch_axis(n), 0),
        outputs=named("outputs", lambda n: plan.batch_axis(n) if n in plan.vars else None, 0),
        target=target,
        seed=join([e.seed for _, e in parts], lead),
        absorbed=sums([e.absorbed for _, e in parts]),
        ledger={layer: sums([e.ledger.get(layer, {}) for _, e in parts]) for layer in layers},
        residual=join([e.residual for _, e in parts], lead),
        hidden=named("hidden", hidden.get, lead),
        arrived=named("arrived", lambda n: 0, lead),
        passed=named("passed", lambda n: 0, lead),
        lengths=given.lengths,
    )
