"""What a program is asked for, and how a pass answers: which classes, at which positions, and what comes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ._lazy import tf
from .hidden import Kept
from .order import to_samples
from .propagation import Propagation
from .seeds import SEVERAL, Target, at_own_step, classes, scores_of, start

__all__ = ["Asked", "answer", "explained_at", "reported"]

Tensor = Any


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a program is traced for: mode and number of classes of the target, whether it is one time step, what is kept."""

    mode: str
    count: int
    single: bool
    keep: tuple[Kept, ...] = ()

    @property
    def several(self) -> bool:
        """Whether there is a leading axis of classes."""
        return self.mode in SEVERAL

    @classmethod
    def of(cls, target: Target, keep: tuple[Kept, ...] = ()) -> Asked:
        """Of a target."""
        return cls(target.mode, target.count, target.steps is not None and target.steps.size == 1, keep)


def answer(run: Propagation, asked: Asked, given: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a program returns (see :meth:`onnx_lrp.program.Program.__call__`), given the target's arrays."""
    plan, env, mode = run.plan, run.env, asked.mode
    result: dict[str, Any] = {"outputs": {n: env[n] for n in plan.outputs if n in env}}
    if mode == "forward":
        return result
    scores = env[plan.explained]
    if mode == "scores":
        return {**result, "scores": scores}
    like = scores_of(plan)
    index = classes(mode, given, asked.count, scores, like)
    mask = explained_at(run, given.get("steps"))
    run.measure()

    def explain(chosen: Tensor) -> dict[str, Any]:
        seed = start(mode, given, chosen, scores, like)
        return run.explain(seed if mask is None else seed * tf.cast(mask, scores.dtype), asked.keep)

    result |= _each(explain, index) if asked.several else explain(index)
    return {**result, "index": reported(run, asked, index, mask), "shape": tf.shape(scores)}


def _each(function: Any, index: Tensor) -> dict[str, Any]:
    """``function`` of every class, (K, positions), its results stacked: K ways back behind one forward pass."""
    if tf.executing_eagerly():
        return tf.nest.map_structure(lambda *parts: tf.stack(parts), *[function(row) for row in tf.unstack(index)])
    # the structure and the shapes of what comes back are told by one class, traced apart
    row = tf.TensorSpec(index.shape[1:], index.dtype)
    like = tf.function(function, autograph=False).get_concrete_function(row).structured_outputs
    return tf.map_fn(function, index, fn_output_signature=tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), like))


def explained_at(run: Propagation, steps: Tensor | None) -> Tensor | None:
    """Which positions of the scores are explained, broadcastable to them: none that is padding, and of time only ``steps``."""
    plan, scores, time = run.plan, run.env[run.plan.explained], scores_of(run.plan).time
    batch = plan.batch_axis(plan.explained)
    lengths = None if batch is None or plan.time_axis(plan.explained) != time else plan.lengths
    if time is None or (lengths is None and steps is None):
        return None
    shape = tf.shape(scores)
    at = tf.range(shape[time])[None]  # (1, T)
    ends = shape[time] * tf.ones([1, 1], tf.int32) if lengths is None else _ends(run, lengths)[:, None]
    mask = at < ends  # (B or 1, T)
    if steps is not None:
        wanted = tf.cast(steps, tf.int32)
        wanted = tf.where(wanted < 0, ends + wanted, wanted)  # (B or 1, S)
        mask &= tf.reduce_any(at[:, :, None] == wanted[:, None], 2)
    if batch is not None and batch > time:
        mask = tf.transpose(mask)
    sizes = [shape[a] if a == time else -1 if a == batch else 1 for a in range(scores.shape.rank)]
    return tf.reshape(mask, tf.stack(sizes))


def _ends(run: Propagation, lengths: str) -> Tensor:
    """(B,) lengths of the sequences, as the samples stand in the explained tensor."""
    readers = [run.order[step.outputs[0]] for step in run.steps if lengths in step.inputs and step.outputs[0] in run.order]
    ends = tf.cast(run.env[lengths], tf.int32)
    ends = to_samples(ends, readers[0] if readers else None, tf.size(ends))
    explained = run.order.get(run.plan.explained)
    return ends if explained is None else tf.gather(ends, explained)


def reported(run: Propagation, asked: Asked, index: Tensor, mask: Tensor | None) -> Tensor:
    """The explained classes as the caller sees them: of one time step, those at it."""
    if not asked.single:
        return index
    like = scores_of(run.plan)
    assert mask is not None
    assert like.time is not None
    chosen = mask if like.class_axis is None else tf.squeeze(mask, [like.class_axis])
    time = like.time - (like.class_axis is not None and like.class_axis < like.time)
    return at_own_step(index, tf.cast(chosen, tf.int64), time)
