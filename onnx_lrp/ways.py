"""How a call is run: by a graph of TensorFlow's, or compiled with XLA where the overhead of loops rules.

A compiled loop has next to no overhead a step, but it runs on about one core: so it is the samples, or else the two directions of a
layer, that are run side by side.
"""

from __future__ import annotations

import contextlib
import enum
import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from ._lazy import tf
from .batches import parts, sizes_of, splits
from .nested import Nested
from .plan import Plan
from .propagation import Propagation
from .recurrence import Recurrent

__all__ = ["Habits", "Way", "choose", "cores", "divisible", "fixed", "programs", "shares"]

OFTEN = 3  # calls of one shape after which it is worth seconds of compilation
AGAIN = 0.125  # of a call, for further runs of its shape within the same one: then they are long, and gain less by compilation
PROGRAMS = 9  # compiled programs of one plan beside its graph; a text reader's many lengths stay with that
MANY = 512  # samples, beyond which a graph is as fast
LIGHT = 3e6  # multiplications of a step, up to which one compiled program is faster than a graph
HEAVY = 6.5e7  # and up to which several of them side by side are
BRIEF = 1e7  # multiplications of a call, below which starting several programs takes longer than it saves
FEWEST = 5  # samples in a part
MOST = 8  # parts; each reads all weights, and more than two have not been measured
SHARED = 1e6  # weights of a direction, beyond which no core should have to read those of both


class Way(enum.Enum):
    """GRAPH: as TensorFlow runs it, traced once for all shapes. The others are made for one shape: WHOLE is one compiled program;
    PARTS runs equal parts of the samples side by side, each by that program; DIRECTIONS is a graph in which every direction's loop
    is a program of its own.
    """

    GRAPH = "graph"
    WHOLE = "whole"
    PARTS = "parts"
    DIRECTIONS = "directions"


def cores() -> int:
    """Cores that this process may use."""
    given = tf.config.threading.get_intra_op_parallelism_threads()
    return given or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def shares(batch: int, cores: int) -> list[range]:
    """The samples of every part."""
    count = max(1, min(cores, MOST, batch // FEWEST))
    return parts(batch, -(-batch // count))


def divisible(plan: Plan) -> bool:
    """Whether samples can be run apart from each other, as far as the file tells."""
    return plan.fixed_batch is None and splits(plan)


def choose(plan: Plan, feeds: Mapping[str, Any], cores: int) -> Way:
    """What is fastest, as measured (docs/performance.md). ``cores``: that may be used, 1 on a GPU."""
    sizes = sizes_of(plan, feeds)
    batch = 1 if plan.batch is None else sizes.get(plan.batch.root, 1)
    layers = [step.layer for step in plan.steps if isinstance(step.layer, Recurrent)]
    if not layers or batch > MANY:
        return Way.GRAPH
    steps = max([sizes.get(t.root, 1) for t in plan.times], default=1)
    work = max(layer.work for layer in layers)
    total = steps * batch * sum(layer.work * len(layer.backwards) for layer in layers)
    if cores > 1 and total > BRIEF and batch * work <= HEAVY:
        if batch >= 2 * FEWEST and work <= SHARED and divisible(plan):
            return Way.PARTS
        nested = any(isinstance(step.layer, Nested) for step in plan.steps)
        if any(len(layer.backwards) > 1 for layer in layers) and not nested:
            return Way.DIRECTIONS
    return Way.WHOLE if batch * work <= LIGHT else Way.GRAPH


def programs(way: Way, batch: int, cores: int) -> int:
    """How many programs of different shapes a call of so many samples asks for."""
    return len({len(rows) for rows in shares(batch, cores)}) if way is Way.PARTS else 1


def fixed(run: Propagation) -> bool:
    """Whether every tensor's size is known when its inputs' are. Where values decide, as the longest of some lengths does, XLA
    would compile a program for each of these values, and parts of a batch would come out in different sizes.
    """
    return all(t.shape.is_fully_defined() for t in run.env.values() if hasattr(t, "shape"))


class Habits:
    """Which shapes a program is called with often: a call pays for its compilation from the third of one shape on.

    Attributes:
        programs: how many are compiled, or are to be.
    """

    def __init__(self) -> None:
        self.programs = 0
        self._calls: dict[Hashable, float] = {}
        self._inside: list[set[Hashable]] = []  # shapes of each call that consists of many runs
        self._ways: dict[Hashable, Way] = {}
        self._lock = threading.Lock()

    def way(self, call: Hashable, choose: Callable[[], tuple[Way, int]]) -> Way:
        """The way a call is run.

        Args:
            call: its shapes, and what else a program is traced for.
            choose: tells the way and how many programs it takes; is asked when the call has come often enough.
        """
        with self._lock:
            if call in self._ways:
                return self._ways[call]
            again = any(call in shapes for shapes in self._inside)
            self._calls[call] = self._calls.get(call, 0) + (AGAIN if again else 1)
            for shapes in self._inside:
                shapes.add(call)
            if self._calls[call] < OFTEN:
                return Way.GRAPH
            way, count = choose()
            if way is Way.GRAPH or self.programs + count > PROGRAMS:
                return Way.GRAPH
            self.programs += count
            self._ways[call] = way
            return way

    @contextlib.contextmanager
    def one_call(self) -> Iterator[None]:
        """All runs meanwhile are parts of one call."""
        shapes: set[Hashable] = set()
        with self._lock:
            self._inside.append(shapes)
        try:
            yield
        finally:
            with self._lock:
                self._inside = [other for other in self._inside if other is not shapes]

    def settle(self, call: Hashable, way: Way) -> None:
        """Run a call another way from now on."""
        with self._lock:
            self._ways[call] = way
