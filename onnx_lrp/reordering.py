"""The results of groups of sequences, put into arrays of all samples in the caller's order."""

from __future__ import annotations

import dataclasses
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .explanation import Explanation
from .hidden import Kept
from .lengths import LENGTHS
from .plan import Plan
from .ragged import Ragged

__all__ = ["Reordered", "together"]

LARGE = 2**24  # bytes


class _Whole:
    """An array of ``count`` samples along ``axis``, filled group by group; it grows where a group is longer than those before.

    What has no axis of samples, or is no array, is that of the first group.
    """

    def __init__(self, axis: int | None, count: int, fill: float = 0) -> None:
        self.array: Any = None
        self._axis, self._count, self._fill = axis, count, fill

    def put(self, rows: np.ndarray, array: Any) -> None:
        """The results of some samples."""
        axis = self._axis
        if axis is None or not isinstance(array, np.ndarray):
            self.array = array if self.array is None else self.array
            return
        shape = [self._count if a == axis else n for a, n in enumerate(array.shape)]
        if self.array is None:
            self.array = self._new(shape, array.dtype)
        elif any(n > m for n, m in zip(shape, self.array.shape, strict=True)):
            old = self.array
            self.array = self._new(np.maximum(shape, old.shape), old.dtype)
            self.array[tuple(slice(n) for n in old.shape)] = old
        where: Any = (rows, *(slice(n) for a, n in enumerate(array.shape) if a != axis))
        np.moveaxis(self.array, axis, 0)[where] = np.moveaxis(array, axis, 0)

    def _new(self, shape: Any, dtype: np.dtype[Any]) -> np.ndarray:
        if self._fill:
            return np.full(shape, self._fill, dtype)
        size = math.prod(map(int, shape))
        if size * dtype.itemsize < LARGE or dtype.hasobject or not hasattr(mmap, "MAP_PRIVATE"):
            return np.zeros(shape, dtype)  # which cost nothing until they are touched
        # the same in pages of the usual size: numpy asks for huge ones, which take half a second to find where memory is in pieces
        pages = mmap.mmap(-1, size * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return np.frombuffer(pages, dtype).reshape(shape)


def together(which: Sequence[np.ndarray], arrays: Sequence[Any], axis: int | None, count: int, fill: float = 0) -> Any:
    """One array of the groups' arrays: ``which`` samples each holds along ``axis``, of ``count``; shorter ones are filled up.

    What has no axis of samples is that of the first group.
    """
    whole = _Whole(axis, count, fill)
    for rows, array in zip(which, arrays, strict=True):
        whole.put(rows, array)
    return whole.array


class _Inputs(Mapping[str, np.ndarray]):
    """The arrays that sequences make, zeros behind each; made when somebody asks, as most don't."""

    def __init__(self, given: Ragged, like: Mapping[str, np.ndarray]) -> None:
        self._given = given
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
        target_axis: axis of the samples of the classes explained, None where they have none.
    """

    def __init__(self, given: Ragged, plan: Plan, *, keep: Sequence[Kept], target_axis: int | None) -> None:
        self._given, self._plan, self._target_axis = given, plan, target_axis
        self._axes = {k.key: (k.batch_axis(plan), k.time_axis(plan)) for k in keep}
        self._whole: dict[tuple[str, str], _Whole] = {}
        self._parts: list[tuple[np.ndarray, Explanation]] = []

    def put(self, rows: np.ndarray, part: Explanation) -> None:
        """The explanation of some samples; its large arrays are not held."""
        lead, steps = int(part.several), int(self._given.lengths[rows].max())
        plan = self._plan
        for field, arrays in (("relevance", part.relevance), ("hidden", part.hidden)):
            for name, array in arrays.items():
                axis, time = self._axes[name] if field == "hidden" else (plan.batch_axis(name), plan.time_axis(name))
                if self._given.near and time is not None:  # what is behind the longest was padding, too
                    array = array[(slice(None),) * (lead + time) + (slice(steps),)]
                whole = _Whole(None if axis is None else axis + lead, len(self._given.lengths))
                self._whole.setdefault((field, name), whole).put(rows, array)
        if self._parts:
            part = dataclasses.replace(part, inputs={})
        self._parts.append((rows, dataclasses.replace(part, relevance={}, hidden={})))

    def explanation(self) -> Explanation:
        """Of all samples."""
        parts, plan, count = self._parts, self._plan, len(self._given.lengths)
        which, first = [rows for rows, _ in parts], parts[0][1]
        lead = int(first.several)

        def join(arrays: Sequence[Any], axis: int | None, fill: float = 0) -> Any:
            return together(which, arrays, axis, count, fill)

        def named(field: str, axis: Any) -> dict[str, Any]:
            names = dict.fromkeys(name for _, e in parts for name in getattr(e, field))
            return {name: join([getattr(e, field)[name] for _, e in parts], axis(name)) for name in names}

        def sums(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
            kinds = dict.fromkeys(kind for row in rows for kind in row)
            zeros = [np.zeros_like(e.seed) for _, e in parts]
            return {k: join([row.get(k, zero) for row, zero in zip(rows, zeros, strict=True)], lead) for k in kinds}

        layers = dict.fromkeys(layer for _, e in parts for layer in e.ledger)
        target = first.target
        if isinstance(target, np.ndarray) and not (lead and target.ndim == 1):
            target = join([np.asarray(e.target) for _, e in parts], lead if lead else self._target_axis, -1)
        return dataclasses.replace(
            first,
            relevance={name: w.array for (field, name), w in self._whole.items() if field == "relevance"},
            inputs=_Inputs(self._given, first.inputs),
            outputs=named("outputs", lambda n: plan.batch_axis(n) if n in plan.vars else None),
            target=target,
            seed=join([e.seed for _, e in parts], lead),
            absorbed=sums([e.absorbed for _, e in parts]),
            ledger={layer: sums([e.ledger.get(layer, {}) for _, e in parts]) for layer in layers},
            residual=join([e.residual for _, e in parts], lead),
            hidden={name: w.array for (field, name), w in self._whole.items() if field == "hidden"},
            arrived=named("arrived", lambda n: lead),
            passed=named("passed", lambda n: lead),
            lengths=self._given.lengths,
        )
