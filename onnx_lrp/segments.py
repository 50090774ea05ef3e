"""Long sequences: only the states before every segment are kept, and on the way back each segment is run once more.

Memory is then that of one segment and of T / segment states (Chen et al. 2016, *Training deep nets with sublinear memory cost*).
Shapes: T time, B batch, I input features, H hidden units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ._lazy import tf

__all__ = ["Segmented", "forth"]

Tensor = Any


def _between(x: Tensor | None, ends: tuple[Tensor, Tensor]) -> Tensor | None:
    return None if x is None else x[ends[0] : ends[1]]


@dataclass(frozen=True, eq=False)
class Segmented:
    """One direction's run over segments.

    Attributes:
        part: runs some steps: (x, valid, start) → (last states, their :class:`~onnx_lrp.timeloop.Pass`).
        x: (T, B, I). valid: (T, B, 1) or None.
        down: the steps were taken from the last to the first.
        size: steps a segment; the last one in time may be shorter.
        starts: a TensorArray a state: what it was before each segment, in the order of processing.
    """

    part: Callable[..., Any]
    x: Tensor
    valid: Tensor | None
    down: bool
    size: int
    starts: Sequence[Any]

    @property
    def count(self) -> Tensor:
        """Number of segments."""
        return -(-tf.shape(self.x)[0] // self.size)

    def ends(self, j: Tensor) -> tuple[Tensor, Tensor]:
        """First step of a segment, and the one behind its last, in the order of time."""
        first = (self.count - 1 - j if self.down else j) * self.size
        return first, tf.minimum(first + self.size, tf.shape(self.x)[0])

    def run(self, j: Tensor, start: Sequence[Tensor], **options: Any) -> Any:
        """A segment from the states before it."""
        ends = self.ends(j)
        return self.part(_between(self.x, ends), _between(self.valid, ends), start, **options)

    def blank(self, width: int) -> Tensor:
        """Zeros (T, B, width), to be filled by :meth:`filled`: a list of parts would be held twice when they are joined."""
        return tf.zeros(tf.concat([tf.shape(self.x)[:2], [width]], 0), self.x.dtype)

    def filled(self, whole: Tensor, j: Tensor, part: Tensor) -> Tensor:
        """``whole`` with the steps of a segment put in, in place."""
        first, last = self.ends(j)
        return tf.raw_ops.TensorStridedSliceUpdate(input=whole, begin=[first], end=[last], strides=[1], value=part)

    def back(self, body: Callable[..., Any], ry: Tensor | None, rs: Sequence[Tensor]) -> Any:
        """``body(run, ry, rs) → (relevance of x, of the states before, absorbed by kind)`` over the segments, last one first."""
        zero = tf.zeros_like(rs[0][:, 0])
        kinds: set[str] = set()

        def step(k: Tensor, rs: Any, totals: Any, whole: Tensor) -> Any:
            j = self.count - 1 - k
            _, run = self.run(j, [a.read(j) for a in self.starts])
            into, left, absorbed = body(run, _between(ry, self.ends(j)), list(rs))
            kinds.update(absorbed)
            totals = {kind: total + absorbed.get(kind, 0.0) for kind, total in totals.items()}
            return k + 1, tuple(left), totals, self.filled(whole, j, into)

        totals = {"bias": zero, "stabilizer": zero}
        start = (tf.constant(0), tuple(rs), totals, self.blank(tf.shape(self.x)[2]))
        _, left, totals, whole = tf.while_loop(lambda k, *_: k < self.count, step, start, parallel_iterations=1)
        return whole, left, {kind: total for kind, total in totals.items() if kind in kinds}


def forth(
    part: Callable[..., Any],
    x: Tensor,
    start: Sequence[Tensor],
    *,
    down: bool,
    valid: Tensor | None,
    size: int,
    silent: bool,
) -> tuple[Sequence[Tensor], Segmented, Tensor | None]:
    """Run over segments of ``size`` steps: (last states, the run, Y (T, B, H), or None if ``silent``)."""
    blank = Segmented(part, x, valid, down, size, ())
    shapes = [s.shape for s in start]
    starts = tuple(tf.TensorArray(x.dtype, size=blank.count, element_shape=shape, clear_after_read=False) for shape in shapes)

    def step(j: Tensor, states: Any, starts: Any, whole: Tensor) -> Any:
        starts = tuple(a.write(j, s) for a, s in zip(starts, states, strict=True))
        new, run = blank.run(j, list(states), keep=not silent)
        if not silent:
            y = run.stacked(0) if run.valid is None else run.stacked(0) * run.valid
            whole = blank.filled(whole, j, y)
        return j + 1, tuple(new), starts, whole

    whole = tf.zeros([0]) if silent else blank.blank(start[0].shape[1])
    first = (tf.constant(0), tuple(start), starts, whole)
    _, states, starts, whole = tf.while_loop(lambda j, *_: j < blank.count, step, first, parallel_iterations=1)
    return states, Segmented(part, x, valid, down, size, starts), None if silent else whole
