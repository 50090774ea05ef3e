"""The explained score as a function of the attribution points, which other methods than LRP ask again and again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._lazy import tf
from .errors import UnsupportedModel
from .plan import Plan
from .program import Program
from .progress import track

__all__ = ["Mixed", "Needed", "Probe", "needed", "slopes"]

Tensor = Any
Arrays = Mapping[str, np.ndarray]

ROWS, ENTRIES = 256, 2**22  # samples, and entries of the attribution points, that run at once
SAME = {"float32": 1e-4, "float64": 1e-9}  # relative: how far the score of a sample may move if others run beside it


@dataclass(frozen=True, eq=False)
class Needed:
    """What the explained score is computed from, once the attribution points are given.

    Attributes:
        steps: keys of the steps, feeds: names of what is fed beside the points.
        before: keys of the steps that the points themselves are computed by.
    """

    steps: frozenset[str]
    feeds: tuple[str, ...]
    before: frozenset[str]


def needed(plan: Plan) -> Needed:
    """What has to run for the explained score.

    Raises:
        UnsupportedModel: it also depends on an attribution point through what only onnxruntime can compute.
    """
    made = {o: s for s in plan.steps for o in s.outputs if o}

    def back(names: Sequence[str], ends: Sequence[str]) -> tuple[frozenset[str], tuple[str, ...]]:
        steps, feeds, seen, stack = set(), [], set(ends), list(names)
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in plan.feeds:
                feeds.append(name)
            elif name in made:
                steps.add(made[name].key)
                stack += made[name].inputs
        return frozenset(steps), tuple(sorted(feeds))

    steps, feeds = back([plan.explained, *([plan.lengths] if plan.lengths else [])], plan.points)
    hidden = [n for n in feeds if n in plan.prefix and plan.vars[n].live]
    if hidden:
        raise UnsupportedModel(
            f"{', '.join(map(repr, hidden))}: computed by onnxruntime from an attribution point, where no derivative passes; "
            "LRP treats it as a gate. Explain from behind it with at="
        )
    before, _ = back([p for p in plan.points if p not in plan.feeds], ())
    return Needed(steps, feeds, before)


def slopes(tape: Any, scores: Tensor, points: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Derivatives of the summed scores by each attribution point, of its shape; 0 where it has no part in them.

    Raises:
        UnsupportedModel: TensorFlow can't tell.
    """
    try:
        found = tape.gradient(scores, points, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    except LookupError as error:
        raise UnsupportedModel(f"TensorFlow knows no derivative of a layer of this model: {error}") from error
    return {p: tf.convert_to_tensor(g) for p, g in found.items()}  # a Gather's comes as rows and their numbers


def _again(program: Program, feeds: Mapping[str, Tensor], weights: Tensor, only: frozenset[str], gradient: bool) -> dict[str, Any]:
    """The explained score, the attribution points being fed."""
    plan = program.plan
    points = {p: feeds[p] for p in plan.points}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        if gradient:
            tape.watch(list(points.values()))
        run = program.forward(feeds, only)
        seed = run.absorbed.per_sample(weights * run.env[plan.explained], plan.explained)
    result: dict[str, Any] = {"seed": seed}
    if gradient:
        result["gradient"] = slopes(tape, seed, points)
    return result


class Mixed(Exception):
    """Copies of a batch that run beside each other change each other's scores, or don't fit."""


class Probe:
    """The explained score as a function of the attribution points, all else as in one call; many copies of the batch at once.

    Copies stand one after the other on the batch axis where every tensor that is fed has that axis for itself or not at all,
    else they run one by one.
    """

    def __init__(
        self, program: Program, needed: Needed, feeds: Arrays, points: Arrays, weights: np.ndarray, scores: np.ndarray
    ) -> None:
        self.program = program
        self.needed = needed
        self.feeds = feeds
        self.points = points
        self.weights = weights
        self.scores = scores
        plan = program.plan
        self.axes = {n: self._own_axis(n) for n in (*points, *feeds, plan.explained)}
        ends = (*points, plan.explained)
        self.folds = (
            plan.batch is not None
            and plan.fixed_batch is None
            and all(self.axes[n] is not None for n in ends)
            and all(self.axes[n] is not None or plan.batch_axis(n) is None for n in feeds)
            and all(plan.vars[n].dims is not None for n in feeds)
        )

    def _own_axis(self, name: str) -> int | None:
        """The batch axis, if it is merged with no other."""
        plan = self.program.plan
        axis = plan.batch_axis(name)
        if axis is None or plan.batch is None:
            return None
        return axis if tuple((plan.vars[name].dims or ())[axis].roots) == (plan.batch.root,) else None

    def run(self, make: Callable[[np.ndarray], Arrays], count: int, gradient: bool) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        """Copies 0 to ``count`` − 1 of the points; ``make(numbers)`` → {point: (copies, …)}, copy 0 the points as they are.

        Yields (numbers, {"seed": (copies, B), "gradient": {point: (copies, …)}}).
        """
        size = sum(a.size for a in self.points.values())
        most = max(2, min(ROWS // max(len(self.scores), 1), ENTRIES // max(size, 1)))
        parts = max(1, math.ceil(count / most)) if self.folds else count
        for numbers in track(np.array_split(np.arange(count), parts)):
            longest = math.ceil(count / parts)
            padded = np.concatenate([numbers, np.repeat(numbers[-1:], longest - len(numbers))])  # one shape, one program
            found = self._side_by_side(make(padded), longest, gradient) if self.folds else self._alone(make(padded), gradient)
            if self.folds and numbers[0] == 0 and count > 1:
                moved = np.abs(found["seed"][0] - self.scores).max(initial=0)
                if not moved <= SAME[self.program.dtype.name] * np.abs(found["seed"]).max(initial=0):
                    raise Mixed
            keep = len(numbers)
            yield numbers, tf.nest.map_structure(lambda a, keep=keep: a[:keep], found)

    def _call(self, feeds: Arrays, weights: np.ndarray, gradient: bool) -> dict[str, Any]:
        program, only = self.program, self.needed.steps
        key = "slopes" if gradient else "scores"
        body = lambda tensors, given: _again(program, tensors, given["weights"], only, gradient)  # noqa: E731
        found: dict[str, Any] = program.call(key, body, feeds, {"weights": weights})
        return found

    def _alone(self, copies: Arrays, gradient: bool) -> dict[str, Any]:
        found = self._call({**self.feeds, **{p: c[0] for p, c in copies.items()}}, self.weights, gradient)
        out: dict[str, Any] = tf.nest.map_structure(lambda a: a[None], found)
        return out

    def _side_by_side(self, copies: Arrays, count: int, gradient: bool) -> dict[str, Any]:
        def repeated(name: str, array: np.ndarray) -> np.ndarray:
            axis = self.axes[name]
            return array if axis is None else np.concatenate([array] * count, axis)

        feeds = {n: repeated(n, a) for n, a in self.feeds.items()}
        for point, copy in copies.items():
            axis = self.axes[point] or 0
            before, after = copy.shape[1 : axis + 1], copy.shape[axis + 2 :]
            feeds[point] = np.moveaxis(copy, 0, axis).reshape(*before, -1, *after)
        try:
            found = self._call(feeds, repeated(self.program.plan.explained, self.weights), gradient)
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            raise Mixed from error
        out: dict[str, Any] = {"seed": found["seed"].reshape(count, -1)}
        if gradient:
            out["gradient"] = {}
            for point, g in found["gradient"].items():
                axis = self.axes[point] or 0
                own = self.points[point].shape
                apart = g.reshape(*own[:axis], count, *own[axis:])
                out["gradient"][point] = np.moveaxis(apart, axis, 0)
        return out
