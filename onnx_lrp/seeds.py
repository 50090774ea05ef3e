"""Where relevance starts in the program: a target checked against the explained scores, and the seed tensor it makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._lazy import tf
from .errors import InputError
from .targets import AllClasses, Contrast, Seed, Step, TopK

if TYPE_CHECKING:
    from .plan import Plan

__all__ = ["SEVERAL", "Scores", "Target", "at_own_step", "classes", "prepare", "samples_of_target", "scores_of", "start"]

Tensor = Any
SEVERAL = ("all", "top", "bottom")


@dataclass(frozen=True, eq=False)
class Target:
    """A target made ready for the program.

    Attributes:
        mode: "argmax" (the predicted class), "argmin" (of a model that chooses its lowest score), "index" (``value`` holds one
            class a position), "contrast" (minus class ``other``), "all", "top" or "bottom" (``count`` classes), "seed" (``value``
            is the seed tensor itself, of the explained tensor's shape); "forward" and "scores" explain nothing.
        steps: (S,) positions in time that the seed is restricted to.
        strict: whether each of them has to exist.
    """

    mode: str
    value: np.ndarray | None = None
    other: np.ndarray | None = None
    steps: np.ndarray | None = None
    count: int = 0
    strict: bool = True

    @property
    def several(self) -> bool:
        """Whether there is a leading axis of classes."""
        return self.mode in SEVERAL

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What the program is given."""
        found = {"value": self.value, "other": self.other, "steps": self.steps}
        return {k: v for k, v in found.items() if v is not None}

    def check(self, scores: Scores) -> None:
        """Hold it against the scores' shape, as far as that is known.

        Raises:
            InputError: a class or a step that does not exist.
        """
        size = scores.classes
        if self.mode in ("index", "contrast"):
            for array in (self.value, self.other):
                if array is not None and array.size and (array.min() < 0 or (size is not None and array.max() >= size)):
                    wrong = int(array.min()) if array.min() < 0 else int(array.max())
                    known = f"0 to {size - 1}" if size is not None else "0 and up"
                    raise InputError(f"target {wrong} is out of range: this output has class {known}")
        if size is not None and self.count > size:
            raise InputError(f"top_k({self.count}): this output has {size} class(es)")
        length = None if scores.time is None else scores.shape[scores.time]
        if self.steps is not None and length is not None and self.strict:
            for step in self.steps:
                if not -length <= step < length:
                    raise InputError(
                        f"step {step} is out of range: this output has {length} steps, 0 to {length - 1} or -{length} to -1"
                    )

    def part(self, rows: range, scores: Scores) -> Target:
        """Of some samples of a batch."""
        assert scores.batch_axis is not None
        axis = scores.batch_axis if self.mode == "seed" else scores.sample_axis()

        def part(array: np.ndarray | None) -> np.ndarray | None:
            if array is None or array.ndim <= axis or array.shape[axis] == 1:
                return array
            return np.take(array, rows, axis)

        return Target(self.mode, part(self.value), part(self.other), self.steps, self.count, self.strict)


@dataclass(frozen=True)
class Scores:
    """The explained tensor: its shape as far as it is known, and its axes.

    Attributes:
        signs: of two classes that share one score.
        time: the axis that ``targets.step`` counts along, None where there is none.
        lowest: whether the model chooses its lowest score.
    """

    shape: tuple[int | None, ...]
    class_axis: int | None
    batch_axis: int | None
    signs: tuple[int, int] | None = None
    time: int | None = None
    lowest: bool = False

    @property
    def classes(self) -> int | None:
        """How many classes there are, None if unknown."""
        return 2 if self.signs else 1 if self.class_axis is None else self.shape[self.class_axis]

    def sample_axis(self, *, single: bool = False) -> int:
        """Axis of the samples in an index, which has no axis of classes, and of a ``single`` step none of time."""
        axis = self.batch_axis or 0
        gone = (self.class_axis, self.time if single else None)
        return axis - sum(a is not None and a < axis for a in gone)

    def index(self, given: Any) -> np.ndarray:
        """One class a position, broadcastable to the positions."""
        try:
            array = np.asarray(given)
        except ValueError as error:
            raise InputError(f"target: not an array: {error}") from error
        if array.dtype.kind == "f" and np.all(array == np.round(array)):
            array = array.astype(np.int64)
        if array.dtype.kind not in "iu":
            raise InputError(f"target must be None, a class index, an array of them, or one of onnx_lrp.targets; got {given!r}")
        positions = [n for i, n in enumerate(self.shape) if i != self.class_axis]
        if array.ndim == 1 and len(positions) != 1:
            if self.batch_axis is None:
                raise InputError(f"target of shape {array.shape}: one sample takes one index or shape {tuple(positions)}")
            at = self.sample_axis()
            array = array.reshape([-1 if i == at else 1 for i in range(len(positions))])
        elif array.ndim not in (0, len(positions)):
            raise InputError(f"target has shape {array.shape}, expected one index, (B,), or {tuple(positions)}")
        return array.astype(np.int64)


def prepare(target: Any, scores: Scores) -> Target:
    """Check a user's target against the explained tensor.

    Args:
        target: None (the predicted class), an int, (B,) ints, ints of the scores' shape without its class axis, or a
            :class:`~onnx_lrp.targets.Spec`.

    Raises:
        InputError: not an integer, negative, out of range, or of a shape that doesn't fit.
    """
    ready = _prepare(target, scores)
    ready.check(scores)
    return ready


def _prepare(target: Any, scores: Scores) -> Target:
    match target:
        case None:
            return Target("argmin" if scores.lowest else "argmax")
        case Step(steps, index, strict):
            if scores.time is None:
                raise InputError(f"{target}: the explained output of shape {scores.shape} has no axis of steps beside its samples")
            chosen = _prepare(index, scores)
            return Target(chosen.mode, chosen.value, steps=np.asarray(steps, np.int64), strict=strict)
        case Contrast(a, b):
            return Target("contrast", scores.index(a), scores.index(b))
        case AllClasses():
            return Target("all")
        case TopK(k):
            return Target("bottom" if scores.lowest else "top", count=k)
        case Seed(value):  # its shape is held against the inputs' sizes where these are known
            return Target("seed", np.asarray(value, np.float64))
        case _:
            return Target("index", scores.index(target))


def classes(mode: str, given: Mapping[str, Tensor], count: int, scores: Tensor, like: Scores) -> Tensor:
    """The explained class of every position; where there are several, (K, positions)."""
    axis, signs = like.class_axis, like.signs
    shape = tf.shape(scores)
    positions = shape if axis is None else tf.concat([shape[:axis], shape[axis + 1 :]], 0)
    if mode in ("index", "contrast"):
        return tf.broadcast_to(given["value"], positions)
    if signs:
        score = scores if axis is None else tf.squeeze(scores, [axis])
        # the predicted class is the larger one, the first where they are equal
        first = tf.cast(signs[1] * score > signs[0] * score, tf.int64)
        ordered = tf.stack([first, 1 - first] if mode in ("argmax", "top") else [1 - first, first])
        known = 2
    elif axis is None or mode == "seed":
        ordered = tf.zeros(tf.concat([[1], positions], 0), tf.int64)
        known = 1
    elif mode in ("argmax", "argmin"):
        return (tf.argmax if mode == "argmax" else tf.argmin)(scores, axis)
    else:
        rank = scores.shape.rank
        last = tf.transpose(scores, [*(a for a in range(rank) if a != axis), axis])
        ordered = tf.cast(tf.argsort(last if mode == "bottom" else -last, stable=True), tf.int64) if mode != "all" else None
        known = scores.shape[axis] or shape[axis]
        if ordered is not None:
            ordered = tf.transpose(ordered, [rank - 1, *range(rank - 1)])
    if mode == "all":
        each = tf.reshape(tf.range(known, dtype=tf.int64), tf.concat([[known], tf.ones_like(positions)], 0))
        return tf.broadcast_to(each, tf.concat([[known], positions], 0))
    return ordered[:count] if mode in ("top", "bottom") else ordered[0]


def start(mode: str, given: Mapping[str, Tensor], index: Tensor, scores: Tensor, like: Scores) -> Tensor:
    """The seed tensor: each score with the coefficient of its class."""

    def coefficients(chosen: Tensor) -> Tensor:
        if like.signs:  # each class starts from the one score with its own sign
            factors = tf.gather(tf.constant(like.signs, scores.dtype), chosen)
            return factors if like.class_axis is None else tf.expand_dims(factors, like.class_axis)
        if like.class_axis is None:
            return tf.ones_like(scores)
        return tf.one_hot(chosen, tf.shape(scores)[like.class_axis], axis=like.class_axis, dtype=scores.dtype)

    if mode == "seed":
        return tf.broadcast_to(given["value"], tf.shape(scores))
    if mode == "contrast":
        return scores * (coefficients(index) - coefficients(tf.broadcast_to(given["other"], tf.shape(index))))
    return scores * coefficients(index)


def at_own_step(index: Tensor, chosen: Tensor, axis: int) -> Tensor:
    """The class at the one chosen step of every sample; -1 where padding stands there.

    ``index``, ``chosen`` (integers 0 and 1): one entry a position; ``axis``: that of time, which the result lacks.
    """
    return tf.reduce_sum((index + 1) * chosen, axis) - 1


def samples_of_target(plan: Plan, *, single: bool = False) -> int | None:
    """The axis of the samples in a target, which has no axis of classes, and of a ``single`` step none of time; None where samples
    and positions share one.
    """
    axis = plan.batch_axis(plan.explained)
    if axis is None or len((plan.vars[plan.explained].dims or ())[axis].labels) != 1:
        return None
    return scores_of(plan).sample_axis(single=single)


def scores_of(plan: Plan) -> Scores:
    """The tensor that a plan explains.

    Raises:
        InputError: nothing is known of its shape.
    """
    shape = plan.vars[plan.explained].shape
    if shape is None:
        raise InputError(f"the rank of {plan.explained!r} is unknown, so no class can be chosen in it")
    batch, time = plan.batch_axis(plan.explained), plan.time_axis(plan.explained)
    free = [a for a in range(len(shape)) if a not in (plan.class_axis, batch)]
    steps = time if time in free else free[0] if len(free) == 1 else None
    return Scores(shape, plan.class_axis, batch, plan.signs, steps, bool(plan.options.get("lowest")))
