"""Where relevance starts: the scores that are explained, as a seed tensor.

Positive relevance always means *raises the explained score*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._lazy import tf
from .errors import InputError

__all__ = ["Target", "prepare"]

Tensor = Any


@dataclass(frozen=True, eq=False)
class Target:
    """A target made ready for the program.

    Attributes:
        mode: "argmax" (the predicted class), "argmin" (of a model that chooses its lowest score), "index" (``value`` holds one
            class a position) or "seed" (``value`` is the seed tensor itself, of the explained tensor's shape).
    """

    mode: str
    value: np.ndarray | None = None


Signs = tuple[int, int] | None


def prepare(
    target: Any, shape: Sequence[int | None], class_axis: int | None, batch_axis: int | None, signs: Signs = None
) -> Target:
    """Check a user's target against the explained tensor.

    Args:
        target: None (the predicted class), an int, (B,) ints, or ints of the scores' shape without its class axis.
        shape: shape of the explained tensor, None where unknown.
        class_axis: its axis of classes, None if every entry is a score of its own.
        batch_axis: its axis of samples, None for one sample.
        signs: of two classes that share one score.

    Raises:
        InputError: not an integer, negative, out of range, or of a shape that doesn't fit.
    """
    if target is None:
        return Target("argmax")
    array = np.asarray(target)
    if array.dtype.kind == "f" and np.all(array == np.round(array)):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise InputError(f"target must be None, a class index or an array of them, got {target!r}")
    classes = 2 if signs else 1 if class_axis is None else shape[class_axis]
    if array.size and (array.min() < 0 or (classes is not None and array.max() >= classes)):
        wrong = int(array.min()) if array.min() < 0 else int(array.max())
        known = f"0 to {classes - 1}" if classes is not None else "0 and up"
        raise InputError(f"target {wrong} is out of range: this output has class {known}")
    positions = [n for i, n in enumerate(shape) if i != class_axis]
    if array.ndim == 1 and len(positions) != 1:
        if batch_axis is None:
            raise InputError(f"target of shape {array.shape}: one sample takes one index or shape {tuple(positions)}")
        at = batch_axis - (class_axis is not None and batch_axis > class_axis)
        array = array.reshape([-1 if i == at else 1 for i in range(len(positions))])
    elif array.ndim not in (0, len(positions)):
        raise InputError(f"target has shape {array.shape}, expected one index, (B,), or {tuple(positions)}")
    return Target("index", array.astype(np.int64))


def seed(mode: str, value: Tensor | None, scores: Tensor, class_axis: int | None, signs: Signs = None) -> tuple[Tensor, Tensor]:
    """(seed tensor, explained index of every position) for the scores of a forward pass."""
    if mode == "seed":
        return tf.broadcast_to(value, tf.shape(scores)), tf.zeros(tf.shape(scores), tf.int64)
    if signs:
        return _two_classes(mode, value, scores, class_axis, signs)
    if class_axis is None:
        return scores, tf.zeros(tf.shape(scores), tf.int64)
    if mode in ("argmax", "argmin"):
        index = (tf.argmax if mode == "argmax" else tf.argmin)(scores, class_axis)
    else:
        shape = tf.shape(scores)
        kept = tf.concat([shape[:class_axis], shape[class_axis + 1 :]], 0)
        index = tf.broadcast_to(value, kept)
    chosen = tf.one_hot(index, tf.shape(scores)[class_axis], axis=class_axis, dtype=scores.dtype)
    return scores * chosen, index


def _two_classes(
    mode: str, value: Tensor | None, scores: Tensor, class_axis: int | None, signs: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Each class starts from the one score with its own sign; the predicted one is the larger, the first where they are equal."""
    positions = scores if class_axis is None else tf.squeeze(scores, [class_axis])
    if mode == "argmax":
        index = tf.cast(signs[1] * positions > signs[0] * positions, tf.int64)
    else:
        index = tf.broadcast_to(value, tf.shape(positions))
    factors = tf.gather(tf.constant(signs, scores.dtype), index)
    return scores * (factors if class_axis is None else tf.expand_dims(factors, class_axis)), index
