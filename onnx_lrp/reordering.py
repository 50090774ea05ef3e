"""The results of groups of sequences, put into arrays of all samples in the caller's order."""

from __future__ import annotations

import copy
import dataclasses
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .dims import Place, apart, merged
from .explanation import Explanation
from .hidden import Kept
from .lengths import LENGTHS
from .plan import Plan
from .ragged import Ragged
from .seeds import scores_of
from .targets import Output, Seed, Spec, Step

__all__ = ["Reordered", "together"]

LARGE = 2**24  # bytes


class _Whole:
    """An array of ``count`` samples at ``place``, filled group by group; it grows where a group is longer than those before.

    What has no axis of samples, or is no array, is that of the first group.
    """

    def __init__(self, place: Place | None, count: int, fill: float = 0) -> None:
        self._made: Any = None
        self._place, self._count, self._fill = place, count, fill

    @property
    def array(self) -> Any:
        """Of all that was put."""
        return self._made if self._place is None or not isinstance(self._made, np.ndarray) else merged(self._made, self._place)

    def put(self, rows: np.ndarray, array: Any) -> None:
        """The results of some samples."""
        if self._place is None or not isinstance(array, np.ndarray):
            self._made = array if self._made is None else self._made
            return
        array, axis = apart(array, self._place, len(rows)), self._place[0] + 1
        shape = [self._count if a == axis else n for a, n in enumerate(array.shape)]
        if self._made is None:
            self._made = self._new(shape, array.dtype)
        elif any(n > m for n, m in zip(shape, self._made.shape, strict=True)):
            old = self._made
            self._made = self._new(np.maximum(shape, old.shape), old.dtype)
            self._made[tuple(slice(n) for n in old.shape)] = old
        where: Any = (rows, *(slice(n) for a, n in enumerate(array.shape) if a != axis))
        np.moveaxis(self._made, axis, 0)[where] = np.moveaxis(array, axis, 0)

    def _new(self, shape: Any, dtype: np.dtype[Any]) -> np.ndarray:
        if self._fill:
            return np.full(shape, self._fill, dtype)
        size = math.prod(map(int, shape))
        if size * dtype.itemsize < LARGE or dtype.hasobject or not hasattr(mmap, "MAP_PRIVATE"):
            return np.zeros(shape, dtype)  # which cost nothing until they are touched
        # the same in pages of the usual size: numpy asks for huge ones, which take half a second to find where memory is in pieces
        pages = mmap.mmap(-1, size * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return np.frombuffer(pages, dtype).reshape(shape)


def together(which: Sequence[np.ndarray], arrays: Sequence[Any], place: Place | None, count: int, fill: float = 0) -> Any:
    """One array of the groups' arrays: ``which`` samples each holds at ``place``, of ``count``; shorter ones are filled up.

    What has no axis of samples is that of the first group.
    """
    whole = _Whole(place, count, fill)
    for rows, array in zip(which, arrays, strict=True):
        whole.put(rows, array)
    return whole.array


def _behind(lead: int, place: Place | None) -> Place | None:
    """A place behind an axis of classes."""
    return None if place is None else (place[0] + lead, *place[1:])


class _Inputs(Mapping[str, np.ndarray]):
    """The arrays that sequences make, zeros behind each; made when somebody asks, as most don't."""

    def __init__(self, given: Ragged, like: Mapping[str, np.ndarray]) -> None:
        rows = {name: [row.copy() for row in given.sequences[name]] for name in given.sequences}  # the caller's own may change
        self._given = dataclasses.replace(given, sequences=rows, arrays={n: a.copy() for n, a in given.arrays.items()})
        self._dtypes = {name: array.dtype for name, array in like.items() if name != LENGTHS}
        self._made: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._made:
            self._made[name] = self._given.whole(name, self._dtypes[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._dtypes)

    def __len__(self) -> int:
        return len(self._dtypes)

    def __repr__(self) -> str:
        return repr(dict(self))


class Reordered:
    """The explanations of all groups as one, padded with zeros to the longest (classes with -1), with ``lengths``.

    Args:
        given: the sequences.
        keep: what is kept.
        target: of all samples.
    """

    def __init__(self, given: Ragged, plan: Plan, *, keep: Sequence[Kept], target: Any) -> None:
        self._given, self._plan = given, plan
        self._target = target.target if isinstance(target, Output) else target
        self._places = {k.key: (k.place(plan), k.time_axis(plan)) for k in keep}
        self._whole: dict[tuple[str, str], _Whole] = {}
        self._parts: list[tuple[np.ndarray, Explanation]] = []

    def put(self, rows: np.ndarray, part: Explanation) -> None:
        """The explanation of some samples; its large arrays are not held."""
        lead, steps = int(part.several), int(self._given.lengths[rows].max())
        plan = self._plan
        for field, arrays in (("relevance", part.relevance), ("hidden", part.hidden)):
            for name, array in arrays.items():
                place, time = self._places[name] if field == "hidden" else (plan.place(name), plan.time_axis(name))
                if self._given.near and time is not None:  # what is behind the longest was padding, too
                    array = array[(slice(None),) * (lead + time) + (slice(steps),)]
                whole = _Whole(_behind(lead, place), len(self._given.lengths))
                self._whole.setdefault((field, name), whole).put(rows, array)
        if self._parts:
            part = dataclasses.replace(part, inputs={})
        self._parts.append((rows, dataclasses.replace(part, relevance={}, hidden={})))

    def explanation(self) -> Explanation:
        """Of all samples."""
        parts, plan, count = self._parts, self._plan, len(self._given.lengths)
        which, first = [rows for rows, _ in parts], parts[0][1]
        lead = int(first.several)
        by_sample = _behind(lead, (0, 1, False))

        def join(arrays: Sequence[Any], place: Place | None, fill: float = 0) -> Any:
            return together(which, arrays, place, count, fill)

        def sums(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
            kinds = dict.fromkeys(kind for row in rows for kind in row)
            zeros = [np.zeros_like(e.seed) for _, e in parts]
            return {k: join([row.get(k, zero) for row, zero in zip(rows, zeros, strict=True)], by_sample) for k in kinds}

        def arrived(arrays: Sequence[np.ndarray]) -> np.ndarray:
            """By sample, or of all together where it can't be told which it belongs to."""
            apart = all(len(rows) == a.shape[-1] for rows, a in zip(which, arrays, strict=True))
            return join(arrays, by_sample) if apart else np.sum([a.sum(-1, keepdims=True) for a in arrays], 0)

        layers = dict.fromkeys(layer for _, e in parts for layer in e.ledger)
        target, place = first.target, plan.place(plan.explained)
        if isinstance(target, Seed):  # a function of the caller's made one for every group
            seeds: list[Any] = [e.target for _, e in parts]
            target = Seed(join([seed.value for seed in seeds], place))
        elif isinstance(target, Spec):
            target = copy.deepcopy(self._target)
        elif not (lead and target.ndim == 1):
            single = isinstance(self._target, Step) and len(self._target.steps) == 1
            place = None if place is None else (scores_of(plan).sample_axis(single=single), *place[1:])
            target = join([e.target for _, e in parts], _behind(lead, place), -1)
        return dataclasses.replace(
            first,
            relevance={name: w.array for (field, name), w in self._whole.items() if field == "relevance"},
            inputs=_Inputs(self._given, first.inputs),
            outputs={n: join([e.outputs[n] for _, e in parts], plan.place(n) if n in plan.vars else None) for n in first.outputs},
            target=target,
            seed=join([e.seed for _, e in parts], by_sample),
            absorbed=sums([e.absorbed for _, e in parts]),
            ledger={layer: sums([e.ledger.get(layer, {}) for _, e in parts]) for layer in layers},
            residual=join([e.residual for _, e in parts], by_sample),
            hidden={name: w.array for (field, name), w in self._whole.items() if field == "hidden"},
            arrived={n: arrived([e.arrived[n] for _, e in parts]) for n in first.arrived},
            passed={n: arrived([e.passed[n] for _, e in parts]) for n in first.passed},
            lengths=self._given.lengths,
        )
