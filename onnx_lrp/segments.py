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
        size: steps a segment; the last one processed may be shorter.
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
        steps = tf.shape(self.x)[0]
        first = tf.maximum(steps - (j + 1) * self.size, 0) if self.down else j * self.size
        return first, steps - j * self.size if self.down else tf.minimum(first + self.size, steps)

    def place(self, j: Tensor) -> Tensor:
        """The segment's number in the order of time."""
        return self.count - 1 - j if self.down else j

    def run(self, j: Tensor, start: Sequence[Tensor], **options: Any) -> Any:
        """A segment from the states before it."""
        ends = self.ends(j)
        return self.part(_between(self.x, ends), _between(self.valid, ends), start, **options)

    def rows(self, width: int) -> Any:
        """A TensorArray of the segments of something (T, B, width)."""
        shape = [None, self.x.shape[1], width]
        return tf.TensorArray(self.x.dtype, size=self.count, element_shape=shape, infer_shape=False)

    def back(self, body: Callable[..., Any], ry: Tensor | None, rs: Sequence[Tensor]) -> Any:
        """``body(run, ry, rs) → (relevance of x, of the states before, absorbed by kind)`` over the segments, last one first."""
        zero = tf.zeros_like(rs[0][:, 0])
        kinds: set[str] = set()

        def step(k: Tensor, rs: Any, totals: Any, rows: Any) -> Any:
            j = self.count - 1 - k
            _, run = self.run(j, [a.read(j) for a in self.starts])
            into, left, absorbed = body(run, _between(ry, self.ends(j)), list(rs))
            kinds.update(absorbed)
            totals = {kind: total + absorbed.get(kind, 0.0) for kind, total in totals.items()}
            return k + 1, tuple(left), totals, rows.write(self.place(j), into)

        totals = {"bias": zero, "stabilizer": zero}
        start = (tf.constant(0), tuple(rs), totals, self.rows(self.x.shape[2]))
        _, left, totals, rows = tf.while_loop(lambda k, *_: k < self.count, step, start, parallel_iterations=1)
        return rows.concat(), left, {kind: total for kind, total in totals.items() if kind in kinds}


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

    def step(j: Tensor, states: Any, starts: Any, rows: Any) -> Any:
        starts = tuple(a.write(j, s) for a, s in zip(starts, states, strict=True))
        new, run = blank.run(j, list(states), keep=not silent)
        if not silent:
            y = run.stacked(0) if run.valid is None else run.stacked(0) * run.valid
            rows = rows.write(blank.place(j), y)
        return j + 1, tuple(new), starts, rows

    rows = blank.rows(start[0].shape[1]) if not silent else tf.zeros([0])
    first = (tf.constant(0), tuple(start), starts, rows)
    _, states, starts, rows = tf.while_loop(lambda j, *_: j < blank.count, step, first, parallel_iterations=1)
    return states, Segmented(part, x, valid, down, size, starts), None if silent else rows.concat()
