"""How a batch is run: what a run keeps in memory, and the micro-batches and segments that hold it within a budget."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from .dims import Dim, Label
from .errors import InputError
from .limits import over
from .nested import Nested
from .plan import Plan
from .recurrence import Recurrent

__all__ = [
    "BUDGET",
    "Schedule",
    "checked",
    "exhausted",
    "kept_bytes",
    "parts",
    "schedule",
    "shape_of",
    "sizes_of",
    "splits",
]

BUDGET = 512 * 2**20  # bytes; more gains no speed, as a batch of that size fills the cores already
FEW = 32  # samples: splitting below that costs more than running segments twice
SMALL = 32 * 2**20  # bytes that need no look at what is free


def sizes_of(plan: Plan, feeds: Mapping[str, np.ndarray]) -> dict[Label, int]:
    """Length of every axis that the inputs show."""
    found: dict[Label, int] = {}
    for name, array in feeds.items():
        dims = plan.vars[name].dims if name in plan.vars else None
        for dim, size in zip(dims or (), array.shape, strict=False):
            if len(dim.roots) == 1:
                found.setdefault(dim.roots[0], size)
    return found


def shape_of(plan: Plan, name: str, feeds: Mapping[str, np.ndarray], batch: int) -> list[int | None]:
    """Of a tensor, as far as the inputs of ``batch`` samples tell."""
    sizes = sizes_of(plan, feeds) | ({plan.batch.root: batch} if plan.batch is not None else {})
    return [sizes.get(d.roots[0], d.size) if len(d.roots) == 1 else d.size for d in plan.vars[name].dims or ()]


def _length(dims: Iterable[Dim], sizes: Mapping[Label, int]) -> int:
    """Entries of a tensor; axes that nothing tells count as one."""
    return math.prod(sizes.get(root, root.size or 1) for dim in dims for root in dim.roots)


def kept_bytes(plan: Plan, sizes: Mapping[Label, int], itemsize: int, *, recurrent: bool | None = None) -> int:
    """Bytes that a run keeps from forward for backward, estimated: every tensor once, and the steps of recurrent layers.

    Args:
        recurrent: only (True) or all but (False) what the recurrent layers keep a step.
    """
    total = 0
    steps = max([sizes.get(t.root, 1) for t in plan.times], default=1)
    for step in plan.steps:
        layer = step.layer
        if recurrent is not True:
            total += sum(_length(plan.vars[o].dims or (), sizes) for o in step.outputs if o in plan.vars)
        if isinstance(layer, Nested) and recurrent is not True:
            total += steps * sum(_length(layer.body.vars[name].dims or (), sizes) for name, _, _ in layer.states)
        if isinstance(layer, Recurrent) and recurrent is not False:
            x = plan.vars[step.inputs[0]].dims or () if step.inputs else ()
            rows = _length(x[:2], sizes) if len(x) == 3 else 1
            total += rows * len(layer.backwards) * layer.hidden * (layer.saves + len(layer.states) + 1)
    return total * itemsize


def free_bytes() -> int:
    """Memory that is free, in bytes; as much as needed where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        try:
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):
            return 4 * BUDGET


@dataclass(frozen=True)
class Schedule:
    """``size``: samples run together; ``segment``: steps between the states that are kept, None: every step is kept."""

    size: int
    segment: int | None = None


def checked(max_bytes: int | None, checkpoint: str | int) -> None:
    """Refuse what can't be a budget or a segment.

    Raises:
        InputError: not positive, or no such word.
    """
    if max_bytes is not None and (isinstance(max_bytes, bool) or int(max_bytes) != max_bytes or max_bytes < 1):
        raise InputError(f"max_bytes must be a positive number of bytes, got {max_bytes!r}")
    if isinstance(checkpoint, str):
        if checkpoint not in ("auto", "never"):
            raise InputError(f"checkpoint={checkpoint!r} does not exist; 'auto', 'never', or a number of steps")
    elif isinstance(checkpoint, bool) or int(checkpoint) != checkpoint or checkpoint < 1:
        raise InputError(f"checkpoint must be 'auto', 'never' or a positive number of steps, got {checkpoint!r}")


def schedule(
    plan: Plan, feeds: Mapping[str, np.ndarray], batch: int, *, itemsize: int, max_bytes: int | None, checkpoint: str | int
) -> Schedule:
    """How a batch of B samples is run: whole if it fits, else in micro-batches, else in segments of its steps too.

    A model exported for one sample is run sample by sample.

    Raises:
        InputError: over ``Limits.run_bytes``; the smallest part is estimated to take more memory than it may.
    """
    sizes = sizes_of(plan, feeds)
    total = kept_bytes(plan, sizes, itemsize)
    limit = plan.graph.limits.run_bytes
    if total <= SMALL and max_bytes is None and isinstance(checkpoint, str) and not limit and plan.fixed_batch != 1:
        return Schedule(batch)
    free = free_bytes()
    if plan.fixed_batch == 1:
        how = Schedule(1)
    else:
        how = _divided(plan, sizes, batch, total, itemsize=itemsize, max_bytes=max_bytes, checkpoint=checkpoint, free=free)
    allowed = limit or free * 3 // 4
    whole = total if how.segment is None else kept_bytes(plan, sizes, itemsize, recurrent=False)
    needs = whole * (min(how.size, batch) / batch if splits(plan) else 1)
    if needs > allowed:
        steps = max([sizes.get(t.root, 1) for t in plan.times], default=1)
        what = f"{min(how.size, batch)} sample(s) of {steps} step(s) would keep"
        raise over("run_bytes", allowed, needs, what, error=InputError)
    return how


def _divided(
    plan: Plan,
    sizes: Mapping[Label, int],
    batch: int,
    total: int,
    *,
    itemsize: int,
    max_bytes: int | None,
    checkpoint: str | int,
    free: int,
) -> Schedule:
    """In parts, of which each keeps at most a budget of the ``total`` that the whole would."""
    budget = min(BUDGET, free // 4) if max_bytes is None else int(max_bytes)
    segment = None if isinstance(checkpoint, str) else int(checkpoint)
    fits = max(1, int(batch * budget // max(total, 1)))
    if segment is None and checkpoint == "auto" and fits < min(batch, FEW):
        states = kept_bytes(plan, sizes, itemsize, recurrent=True)
        steps = max([sizes.get(t.root, 1) for t in plan.times], default=1)
        # as few steps as keep what a segment and the states before all segments take equally small, but enough for a large product
        length = max(256, math.isqrt(steps))
        if 2 * states > total and steps > 2 * length:
            segment = length
    if segment is not None:
        fits = max(1, int(batch * budget // max(kept_bytes(plan, sizes, itemsize, recurrent=False), 1)))
        fits = max(fits, min(batch, FEW))
    if fits >= batch or not splits(plan):
        return Schedule(batch, segment)
    return Schedule(-(-batch // -(-batch // fits)), segment)  # equal parts


def exhausted(error: BaseException) -> bool:
    """Whether a run failed for want of memory."""
    return isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"


def splits(plan: Plan) -> bool:
    """Whether every result has the batch as an axis of its own, so that parts can be joined, and the file takes parts."""
    if plan.fixed_batch not in (None, 1):
        return False

    def alone(name: str) -> bool:
        axis = plan.batch_axis(name)
        return axis is not None and len((plan.vars[name].dims or ())[axis].labels) == 1

    return all(alone(name) for name in (*plan.points, *plan.outputs, plan.explained) if name in plan.vars)


def parts(batch: int, size: int) -> list[range]:
    """The samples of every micro-batch."""
    return [range(start, min(start + size, batch)) for start in range(0, batch, size)]
