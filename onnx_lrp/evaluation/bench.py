"""A model with samples laid out at its attribution points: explained there, and scored with parts of them taken away.

Parts are *units*: the steps of a point with a time axis (a token, with all of its embedding) or with two axes beside that of
samples, else its entries. Explanations and altered samples run on the same engine, cut at
these points, so that what is taken away is what relevance speaks of.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..batches import splits
from ..errors import InputError, UnsupportedModel
from ..explainer import Explainer
from ..inputs import id_limits
from ..lengths import lens
from ..loading import load
from ..plan import Plan
from ..seeds import Target, scores_of
from ..targets import Step
from .samples import Samples

__all__ = ["Bench", "Explained", "make_bench"]

ROWS, ENTRIES = 1024, 2**22  # samples, and entries of the attribution points, that run at once
WARM = 3
Masks = Sequence[np.ndarray]  # (M)(U,) bool: what is taken away


@dataclass(frozen=True, eq=False)
class Explained:
    """What one method found; N samples.

    Attributes:
        relevance: (N)(U,) by unit, in float64.
        score: (N,) what was explained.
        residual: (N,) of the method's own books, NaN where it keeps none.
        seconds: (N,) that each took, the first run's preparations left out.
    """

    relevance: list[np.ndarray]
    score: np.ndarray
    residual: np.ndarray
    seconds: np.ndarray


@dataclass(frozen=True, eq=False)
class Layout:
    """How the units of one attribution point lie in its array, (…); ``batch``: its axis of samples, ``time``: of units."""

    name: str
    batch: int | None
    time: int | None

    def apart(self, array: np.ndarray) -> np.ndarray:
        """(n, U, rest): the same numbers, a copy or a view."""
        if self.batch is None or self.batch == self.time:  # one sample alone
            array, batch, unit = array[None], 0, None if self.time is None else self.time + 1
        else:
            batch, unit = self.batch, self.time
        if unit is None:
            return np.moveaxis(array, batch, 0).reshape(array.shape[batch], -1, 1)
        moved = np.moveaxis(array, (batch, unit), (0, 1))
        return moved.reshape(*moved.shape[:2], -1)

    def together(self, units: np.ndarray, like: np.ndarray) -> np.ndarray:
        """The inverse: an array of the shape of ``like``, but for its numbers of samples and units."""
        if self.batch is None or self.batch == self.time:
            shape, batch, unit = (1, *like.shape), 0, None if self.time is None else self.time + 1
        else:
            shape, batch, unit = like.shape, self.batch, self.time
        rest = [n for a, n in enumerate(shape) if a not in (batch, unit)]
        if unit is None:
            out = np.moveaxis(units.reshape(len(units), *rest), 0, batch)
        else:
            out = np.moveaxis(units.reshape(*units.shape[:2], *rest), (0, 1), (batch, unit))
        return out[0] if len(shape) > like.ndim else out


@dataclass(frozen=True, eq=False)
class Bench:
    """N samples at the attribution points of a model.

    Attributes:
        cut: explains from the attribution points on.
        model, options: what ``load`` was given.
        feeds: (N) {tensor that the cut model takes: array of one sample}.
        layouts: of every attribution point.
        fills: (N) {point: (U, rest) or (1, rest)} what stands for "taken away"; None: units are left out instead.
        step: the position whose score is explained, where there is one at every position.
    """

    cut: Explainer
    model: Any
    options: Mapping[str, Any]
    feeds: list[dict[str, np.ndarray]]
    layouts: tuple[Layout, ...]
    fills: list[dict[str, np.ndarray]] | None = None
    step: int | None = None
    labels: np.ndarray | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.feeds)

    @property
    def units(self) -> list[int]:
        """(N) how many units each sample has."""
        return [sum(layout.apart(feeds[layout.name]).shape[1] for layout in self.layouts) for feeds in self.feeds]

    @property
    def of_steps(self) -> bool:
        """Whether units are steps of time."""
        return all(layout.time is not None for layout in self.layouts)

    def variant(self, *, model: Any = None, **options: Any) -> Bench:
        """The same samples before other weights, or explained by another rule."""
        own = {**self.options, **options}
        own = {k: v for k, v in own.items() if v is not None}
        cut = load(self.model if model is None else model, **own, at=[layout.name for layout in self.layouts])
        return Bench(cut, model or self.model, own, self.feeds, self.layouts, self.fills, self.step, self.labels, self.left_out)

    # running

    def _groups(self, keys: Sequence[Any], entries: int) -> Iterator[np.ndarray]:
        """Positions of equal keys, as many together as may run at once."""
        same: dict[Any, list[int]] = {}
        for k, key in enumerate(keys):
            same.setdefault(key, []).append(k)
        most = 1 if self._alone else max(1, min(ROWS, ENTRIES // max(entries, 1)))
        for where in same.values():
            for first in range(0, len(where), most):
                yield np.asarray(where[first : first + most])

    @property
    def _alone(self) -> bool:
        return self.cut._plan.batch is None or not splits(self.cut._plan)

    def _shape(self, sample: int) -> tuple[Any, ...]:
        return tuple(array.shape for array in self.feeds[sample].values())

    def _stacked(self, which: Sequence[int]) -> dict[str, np.ndarray]:
        plan, out = self.cut._plan, {}
        for name, first in self.feeds[which[0]].items():
            axis = plan.batch_axis(name)
            shared = axis is None or self._alone
            out[name] = first if shared else np.concatenate([self.feeds[i][name] for i in which], axis)
        return out

    def explain(
        self,
        which: Sequence[int],
        targets: np.ndarray,
        method: str = "lrp",
        *,
        timed: bool = False,
        noise: Mapping[int, Mapping[str, np.ndarray]] | None = None,
        **options: Any,
    ) -> Explained:
        """Explain some samples.

        Args:
            targets: (M,) the class of each.
            method, options: see :meth:`~onnx_lrp.explainer.Explainer.explain`.
            timed: run the first few shapes twice and take the second's time, as TensorFlow traces anew until it knows what varies.
            noise: {sample: {point: what to add}}.
        """
        m = len(which)
        relevance: list[Any] = [None] * m
        score, residual, seconds = np.zeros(m), np.full(m, np.nan), np.zeros(m)
        cold = WARM if timed else 0
        entries = sum(self.feeds[which[0]][layout.name].size for layout in self.layouts) if m else 1
        for where in self._groups([self._shape(i) for i in which], entries):
            feeds = self._stacked([which[k] for k in where])
            if noise is not None:
                for layout in self.layouts:
                    added = [noise[which[k]][layout.name] for k in where]
                    axis = layout.batch
                    more = added[0] if self._alone or axis is None else np.concatenate(added, axis)
                    feeds[layout.name] = (feeds[layout.name] + more).astype(feeds[layout.name].dtype)
            target: Any = targets[where] if self.cut._plan.batch is not None else int(targets[where[0]])
            if self.step is not None:
                target = Step((self.step,), target)
            if cold:
                self.cut.explain(feeds, target, method=method, **options)
                cold -= 1
            start = time.perf_counter()
            found = self.cut.explain(feeds, target, method=method, **options)
            took = time.perf_counter() - start
            by_unit = [layout.apart(np.asarray(found.relevance[layout.name], np.float64)).sum(2) for layout in self.layouts]
            whole = np.concatenate(by_unit, 1)
            for n, k in enumerate(where):
                relevance[k] = whole[n]
            score[where], residual[where] = found.seed, found.residual
            seconds[where] = took / len(where)
        return Explained(relevance, score, residual, seconds)

    def scores(self, which: Sequence[int], masks: Masks | None = None) -> np.ndarray:
        """(M, C) the explained scores of samples with some units taken away.

        Args:
            which: (M) samples, as often as one likes.
            masks: (M)(U,) bool, True: taken away. None: all as they are.
        """
        if masks is None:
            return self._scores(which, None)
        seen: dict[tuple[int, bytes], int] = {}
        inverse = np.empty(len(which), np.intp)
        once: list[int] = []
        for k, (i, mask) in enumerate(zip(which, masks, strict=True)):
            key = (int(i), mask.tobytes())
            if key not in seen:
                seen[key] = len(once)
                once.append(k)
            inverse[k] = seen[key]
        return self._scores([which[k] for k in once], [masks[k] for k in once])[inverse]

    def _scores(self, which: Sequence[int], masks: Masks | None) -> np.ndarray:
        out: np.ndarray | None = None
        shorter = masks is not None and self.fills is None
        gone_of = [0] * len(which) if masks is None or not shorter else [int(mask.sum()) for mask in masks]
        keys = [(self._shape(i), n) for i, n in zip(which, gone_of, strict=True)]
        entries = sum(self.feeds[which[0]][layout.name].size for layout in self.layouts)
        for where in self._groups(keys, entries):
            chosen = [which[k] for k in where]
            feeds = self._stacked(chosen)
            if masks is not None:
                gone = np.stack([masks[k] for k in where])
                feeds = self._without(feeds, gone) if shorter else self._filled(feeds, gone, chosen)
            found = self._forward(feeds)
            if out is None:
                out = np.zeros((len(which), found.shape[1]))
            out[where] = found
        assert out is not None
        return out

    def _filled(self, feeds: dict[str, np.ndarray], gone: np.ndarray, which: Sequence[int]) -> dict[str, np.ndarray]:
        """Every unit that is taken away replaced."""
        assert self.fills is not None
        at = 0
        for layout in self.layouts:
            array = feeds[layout.name]
            units = layout.apart(array)
            fill = np.stack([self.fills[i][layout.name] for i in which])
            own = gone[:, at : at + units.shape[1], None]
            at += units.shape[1]
            feeds[layout.name] = layout.together(np.where(own, fill, units).astype(array.dtype), array)
        return feeds

    def _without(self, feeds: dict[str, np.ndarray], gone: np.ndarray) -> dict[str, np.ndarray]:
        """Shorter sequences. One from which everything is taken keeps a single step of zeros, as none can be empty."""
        plan = self.cut._plan
        [layout] = self.layouts
        nothing = np.all(gone, axis=1, keepdims=True)
        left = max(1, gone.shape[1] - int(np.count_nonzero(gone[0])))
        keep = np.argsort(gone, axis=1, kind="stable")[:, :left]
        keep = np.sort(keep, 1)
        steps = gone.shape[1]
        for name, array in feeds.items():
            time, batch = plan.time_axis(name), plan.batch_axis(name)
            if time is not None and array.shape[time] == steps:
                own = Layout(name, batch, time)
                units = np.take_along_axis(own.apart(array), keep[:, :, None], 1)
                if name == layout.name:
                    units = np.where(nothing[:, :, None], 0, units).astype(array.dtype)
                feeds[name] = own.together(units, array)
            elif name == self._lens:
                feeds[name] = np.full_like(array, keep.shape[1])
        return feeds

    @property
    def _lens(self) -> str | None:
        return lens(self.cut._plan)

    def _forward(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """(n, C) scores of one batch."""
        explainer, plan = self.cut, self.cut._plan
        like = scores_of(plan)
        found = explainer._runs.chunks(feeds, Target("scores"), lambda result, _: {plan.explained: result["scores"]})[
            plan.explained
        ]
        raw = np.asarray(found, np.float64)
        batch, classes, steps = like.batch_axis, like.class_axis, like.time
        if batch is None or (self._alone and batch == steps):
            raw, batch = raw[None], 0
            classes, steps = (None if a is None else a + 1 for a in (classes, steps))
        if steps is not None and raw.shape[steps] != 1:
            raw = np.take(raw, [self.step if self.step is not None else -1], steps)
        raw = np.moveaxis(raw, batch, 0)
        if classes is not None:
            classes += classes < batch
            raw = np.moveaxis(raw, classes, -1)
        else:
            raw = raw[..., None]
        raw = raw.reshape(len(raw), -1)
        return raw * np.asarray(like.signs, np.float64) if like.signs else raw


def make_bench(
    explainer: Explainer, model: Any, samples: Samples, *, replace: str | int, step: int | None, options: Mapping[str, Any]
) -> Bench:
    """Lay samples out at the attribution points.

    Args:
        explainer: of the model, from its inputs on.
        replace: what stands for a unit that is taken away: "zero", "mean" (of all samples' units), a token id, or "remove" (the
            sequence gets shorter).
        step: the position to explain, where the output has a score at every one; None: the last.
        options: of ``load``.

    Raises:
        InputError: such a replacement does not fit the model.
        UnsupportedModel: the inputs choose which branch the model takes.
    """
    plan = explainer._plan
    if explainer._branches is not None:
        raise UnsupportedModel("the inputs choose which branch this model takes; its parts can't be taken away at one place")
    points = list(plan.points)
    whole = {v.name for v in plan.graph.inputs}
    inside = not set(points) <= whole
    own = {"jit": "graph", **options, "verify": "never" if inside else options.get("verify", "first")}
    cut = load(model, **{**own, "at": points})
    feeds = [_given(cut, row) for row in samples.rows]
    layouts = tuple(_layout(cut._plan, p, feeds[0][p].ndim) for p in points)
    bench = Bench(cut, model, own, feeds, layouts, None, step, samples.labels, samples.left_out)
    if replace == "remove":
        if len(layouts) > 1 or cut._plan.time_axis(points[0]) is None:
            raise InputError("replace='remove' shortens sequences: for models with one attribution point that has a time axis")
        return bench
    fills = _fills(bench, plan, samples, replace)
    return Bench(cut, model, own, feeds, layouts, fills, step, samples.labels, samples.left_out)


def _layout(plan: Plan, point: str, rank: int) -> Layout:
    batch, time = plan.batch_axis(point), plan.time_axis(point)
    others = [axis for axis in range(rank) if axis != batch]
    # tokens and their features, although nothing says so: as attention reads them
    return Layout(point, batch, others[0] if time is None and len(others) == 2 else time)


def _given(cut: Explainer, row: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the cut model takes, of one sample."""
    plan = cut._plan
    before = cut._runtime.prefix(plan.prefix, row) if plan.prefix else {}
    return {n: before[n] if n in before else row[n] for n in (plan.feeds if plan.prefix else row)}


def _fills(bench: Bench, plan: Plan, samples: Samples, replace: str | int) -> list[dict[str, np.ndarray]]:
    origins = plan.origins
    if isinstance(replace, str) and replace not in ("zero", "mean"):
        raise InputError(f"replace={replace!r} does not exist; 'zero', 'mean', 'remove', or a token id")
    if replace == "zero":
        zeros = {layout.name: np.zeros((1, 1)) for layout in bench.layouts}
        return [zeros] * len(bench)
    if replace == "mean":
        means = {}
        for layout in bench.layouts:
            units = [layout.apart(f[layout.name])[0] for f in bench.feeds]
            if layout.time is None and len({u.shape for u in units}) == 1:
                means[layout.name] = np.mean(units, axis=0)
            else:
                means[layout.name] = np.concatenate(units).mean(0, keepdims=True)
        return [means] * len(bench)
    fills = []
    for layout in bench.layouts:
        kinds = [samples.rows[0][n].dtype.kind for n in origins.get(layout.name, ())]
        if kinds != ["i"] and kinds != ["u"]:
            raise InputError(f"replace={replace}: a token id, but {layout.name!r} does not come from one input of ids alone")
    for name, (count, where) in id_limits(plan).items():
        if not 0 <= int(replace) < count:
            raise InputError(f"replace={replace}: input {name!r} has ids 0 to {count - 1} ({where})")
    for row in samples.rows:
        ids = {n for layout in bench.layouts for n in origins[layout.name]}
        other = _given(bench.cut, {n: np.full_like(a, replace) if n in ids else a for n, a in row.items()})
        fills.append({layout.name: layout.apart(other[layout.name])[0] for layout in bench.layouts})
    return fills
