"""Sequences of different lengths: sorted into groups that run as one array each (:mod:`onnx_lrp.reordering` puts them together).

A group holds sequences of exactly one length, so that padding never changes a result. Only where nothing but recurrent layers with
lengths and layers that treat every step by itself read the time axis, sequences of nearly the same length are padded together; of
very many lengths also where the file's recurrent layers take none (:mod:`onnx_lrp.lengths` gives them some).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import InputError
from .inputs import prepare_inputs, unmasked
from .labels import Labelled
from .lengths import lens, mixes_no_steps
from .plan import Plan
from .targets import Seed, Spec, Step

__all__ = ["Ragged", "check", "part_of_target", "plain", "read"]

TOGETHER = 256  # samples that are padded together at most
FILL = 0.7  # padded together: sequences at least this long, measured by the longest of them


@dataclass(frozen=True, eq=False)
class Ragged:
    """What a caller passed for B samples.

    Attributes:
        sequences: {graph input: B arrays, each without the axis of samples}.
        arrays: {graph input: one array for all samples, or for each}.
        batch: {graph input: axis of the samples}.
        lengths: (B,) steps of each sample, of the first input given as sequences.
        times: {graph input: the axis along which sequences may differ, that of samples included}.
        timed: graph inputs of which that is time, and as long as ``lengths`` say.
        near: sequences of different lengths may run together.
        lens: the graph input that takes the lengths, if the caller left that to us.
    """

    sequences: Mapping[str, Sequence[np.ndarray]]
    arrays: Mapping[str, np.ndarray]
    batch: Mapping[str, int | None]
    lengths: np.ndarray
    times: Mapping[str, int]
    timed: frozenset[str]
    near: bool
    lens: str | None

    @property
    def alike(self) -> bool:
        """Whether the sequences of a sample are equally long in all inputs, or of one shape, and every array holds all samples."""
        axes = ((a, self.batch[name]) for name, a in self.arrays.items())
        whole = all(axis is None or a.shape[axis] == len(self.lengths) for a, axis in axes)
        return whole and all(name in self.timed or len({row.shape for row in rows}) == 1 for name, rows in self.sequences.items())

    def groups(self) -> list[np.ndarray]:
        """Which samples run together, the longest first."""
        order = np.argsort(-self.lengths, kind="stable")
        if not self.near:
            same: dict[Any, list[int]] = {}
            shapes = list(zip(*([row.shape for row in rows] for rows in self.sequences.values()), strict=True))
            for i in order.tolist():
                same.setdefault(shapes[i], []).append(i)
            return [np.asarray(rows) for rows in same.values()]
        found = []
        while len(order):
            most = order[:TOGETHER]
            found.append(most[self.lengths[most] >= FILL * self.lengths[order[0]]])
            order = order[len(found[-1]) :]
        return found

    def inputs(self, rows: np.ndarray, *, rounded: bool = False) -> dict[str, np.ndarray]:
        """Of a group, one array for each input; ``rounded``: in one of few lengths, if they run together."""
        found = {}
        for name, given in self.sequences.items():
            axis = self.batch[name]
            assert axis is not None
            parts = [given[i] for i in rows]
            if self.near and name in self.timed:
                whole = _padded(parts, self.times[name] - (axis < self.times[name]), rounded=rounded)
            else:  # a third of the time of np.stack, which makes an array of each part first
                whole = np.concatenate(parts).reshape(len(parts), *parts[0].shape)
            found[name] = np.moveaxis(whole, 0, axis)
        for name, array in self.arrays.items():
            at = self.batch[name]
            found[name] = array if at is None or array.shape[at] == 1 else np.take(array, rows, at)
        if self.lens is not None:
            found[self.lens] = self.lengths[rows]
        return found

    def whole(self, name: str, dtype: np.dtype[Any]) -> np.ndarray:
        """All that was given for an input as one array, zeros behind each sequence."""
        if name not in self.sequences:
            return (self.lengths if name == self.lens else self.arrays[name]).astype(dtype)
        axis, given = self.batch[name], self.sequences[name]
        assert axis is not None
        time = self.times[name] - (axis < self.times[name])
        shape = [*np.max([part.shape for part in given], 0)]
        whole = np.zeros((*shape[:axis], len(given), *shape[axis:]), dtype)
        for row, part in zip(np.moveaxis(whole, axis, 0), given, strict=True):
            row[(slice(None),) * time + (slice(part.shape[time]),)] = part
        return whole


def _steps(rows: Sequence[np.ndarray], time: int, batch: int | None) -> np.ndarray:
    """(B,): length of each sequence along an axis, counted with that of samples."""
    axis = time - (batch is not None and batch < time)
    return np.asarray([row.shape[axis] for row in rows])


def _padded(parts: Sequence[np.ndarray], time: int, *, rounded: bool) -> np.ndarray:
    """(B, …): what is behind a sequence repeats its last step, a value that the model knows."""
    longest = max(part.shape[time] for part in parts)
    shape = [*parts[0].shape]
    shape[time] = _few(longest) if rounded else longest
    whole = np.empty((len(parts), *shape), np.result_type(*{p.dtype for p in parts}))
    before = (slice(None),) * time
    for row, part in zip(whole, parts, strict=True):
        n = part.shape[time]
        row[(*before, slice(n))] = part
        row[(*before, slice(n, None))] = part[(*before, slice(n - 1, n))] if n else 0
    return whole


def _few(length: int) -> int:
    """A length that is not below this one: a power of two, or three quarters of one."""
    if not length:
        return 0  # refused later
    power = 1 << max(length - 1, 1).bit_length()
    return power * 3 // 4 if length <= power * 3 // 4 else power


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
    lengths = _steps(sequences[first], times[first], batch[first])
    told = lens(plan)
    if told is not None and told in given and not np.array_equal(np.ravel(given[told]), lengths):
        raise InputError(f"input {told!r}: lengths that are not those of the sequences; leave it out")
    timed = set()
    for name, time in times.items():
        free = time == plan.time_axis(name) and (plan.vars[name].dims or ())[time].size is None
        if free and np.array_equal(_steps(sequences[name], time, batch[name]), lengths):
            timed.add(name)
    found = Ragged(
        sequences=sequences,
        arrays={n: _beside(v, n, batch[n], len(lengths), plan) for n, v in given.items() if n not in sequences and n != told},
        batch=batch,
        lengths=lengths,
        times=times,
        timed=frozenset(timed),
        near=False,
        lens=told,
    )
    return dataclasses.replace(found, near=told is not None and found.alike and mixes_no_steps(plan))


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
        unmasked(name, *value)
        rows = [np.asarray(row) for row in value]
    except (ValueError, TypeError) as error:
        raise InputError(f"a sequence is no array: {error}") from error
    if len({row.ndim for row in rows}) > 1 or any(row.ndim == 0 for row in rows):
        raise InputError("sequences of different numbers of axes")
    return rows


def _beside(value: Any, name: str, axis: int | None, count: int, plan: Plan) -> np.ndarray:
    """What is given beside ``count`` sequences: one array for all of them, or for each."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InputError(f"input {name!r}: not an array: {error}") from error
    rank = plan.vars[name].rank
    if rank is not None and array.ndim != rank:
        raise InputError(f"input {name!r}: got shape {array.shape}, expected {rank} axes")
    if axis is not None and array.shape[axis] not in (1, count):
        raise InputError(
            f"input {name!r}: axis {axis} of shape {array.shape} is that of the samples, and there are {count} sequences"
        )
    return array


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


def part_of_target(target: Any, rows: np.ndarray, lengths: np.ndarray, axis: int | None) -> Any:
    """A target for some of the samples, which have an ``axis`` of their own in it unless it has one axis at all.

    A step that only longer ones have is none of theirs, and no error.

    Raises:
        InputError: a seed, whose shape is that of one batch; classes for another number of samples.
    """
    if isinstance(target, Seed) and not callable(target.value):
        raise InputError("a seed array is of one batch's shape; with sequences of different lengths give a function of the scores")
    count = len(lengths)
    if isinstance(target, Step):
        longest = bool(lengths[rows].max() == lengths.max())
        return dataclasses.replace(target, index=part_of_target(target.index, rows, lengths, axis), strict=longest)
    if isinstance(target, Spec):
        names = [f.name for f in dataclasses.fields(target)]
        return dataclasses.replace(target, **{n: part_of_target(getattr(target, n), rows, lengths, axis) for n in names})
    if target is None or callable(target) or isinstance(target, str):
        return target
    try:
        if isinstance(target, list | tuple) and len(target) == count and any(np.ndim(t) for t in target):
            return np.stack([np.asarray(target[i]) for i in rows], axis or 0)
        array = np.asarray(target)
    except ValueError as error:
        raise InputError(f"target: no classes of {count} samples: {error}") from error
    at = 0 if array.ndim < 2 or axis is None else axis
    entries = array.shape[at] if array.ndim > at else 1
    if axis is not None and entries not in (1, count):
        raise InputError(f"target has {entries} entries for {count} samples")
    return np.take(array, rows, at) if entries == count and array.ndim else target


def check(inputs: Any, plan: Plan) -> None:
    """Refuse inputs, sequences of different lengths or not, without running anything.

    Raises:
        InputError: see :func:`~onnx_lrp.inputs.prepare_inputs`.
    """
    inputs = plain(inputs, plan) if isinstance(inputs, Labelled) else inputs
    given = read(inputs, plan)
    for part in [inputs] if given is None else map(given.inputs, given.groups()):
        prepare_inputs(part, plan)
