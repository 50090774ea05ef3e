"""How much a model may ask for before it is refused: limits that hold off files made (or damaged) so that they exhaust a machine.

Whoever reads models of strangers lowers them; whoever has a larger model raises the one that the error names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .errors import InputError, ModelError, OnnxLrpError

__all__ = ["Limits", "Meter", "over", "terminated"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a model and its inputs may take. Every limit is inclusive and at least 0.

    Attributes:
        file_bytes: the ``.onnx`` file (ONNX itself ends at 2 GiB), and a data file of the command line.
        external_bytes: all external data together that tensors of the file ask for.
        nodes: nodes of the graph, sub-graphs included, functions as often as they are called, loops as often as they are read.
        depth: sub-graphs inside each other, and functions that call each other.
        loops: Loops and Scans inside each other; each is read twice or more often for every time that the one around is.
        tensor_elements: entries of one constant tensor, before it is allocated.
        folding_bytes: all results of constant folding together, but for those that only view another array.
        folding_seconds: constant folding altogether, in wall-clock seconds.
        trips: steps of a Loop or a Scan.
        run_bytes: what a run of one sample is estimated to keep; 0: three quarters of the memory that is free then.
        runtime_nodes: nodes of what onnxruntime is given to load, which takes it a time that grows with their square (20 000: a
            minute), in this process, and which nothing can interrupt.
        run_seconds: one run of onnxruntime, which computes prefixes and what the forward pass is compared with.
    """

    file_bytes: int = 2 * 2**30
    external_bytes: int = 64 * 2**30
    nodes: int = 50_000
    depth: int = 24
    loops: int = 6
    tensor_elements: int = 2**31
    folding_bytes: int = 2**29
    folding_seconds: float = 5.0
    trips: int = 100_000
    run_bytes: int = 0
    runtime_nodes: int = 30_000
    run_seconds: float = 600.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            whole = field.type == "int"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not 0 <= value < math.inf:
                raise InputError(f"limit {field.name} must be a {'whole ' if whole else ''}number from 0 on, got {value!r}")

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Limits:
        """Of ``name=value`` texts, as the command line takes them; ``k``, ``M`` and ``G`` behind a number are powers of 1024.

        >>> Limits.parse(["nodes=2k", "folding_seconds=0.5"]).nodes
        2048

        Raises:
            InputError: no such limit, or no number.
        """
        known = {f.name: f.type for f in dataclasses.fields(cls)}
        given: dict[str, Any] = {}
        for text in texts:
            name, _, value = (part.strip() for part in text.partition("="))
            if name not in known:
                raise InputError(f"limit {text!r} does not exist; expected NAME=NUMBER with one of {', '.join(known)}")
            factor = {"k": 2**10, "M": 2**20, "G": 2**30}.get(value[-1:], 1)
            try:
                given[name] = (int if known[name] == "int" else float)(value if factor == 1 else value[:-1]) * factor
            except ValueError:
                raise InputError(f"limit {text!r}: {value!r} is no number; expected one such as 5000, 64M or 2G") from None
        return cls(**given)

    def check(self, name: str, amount: float, what: str, *, error: type[OnnxLrpError] = ModelError) -> None:
        """Refuse more of something than a limit allows.

        Raises:
            ModelError: (or ``error``) with the name of the limit, its value, and how to raise it.
        """
        limit = getattr(self, name)
        if amount > limit:
            raise over(name, limit, amount, what, error=error)


def over(name: str, limit: float, amount: float, what: str, *, error: type[OnnxLrpError] = ModelError) -> OnnxLrpError:
    """The error of something over its limit."""
    found = "more" if amount == math.inf else f"{amount:_.0f}" if amount < 10**15 else f"{amount:.1e}"
    value = f"{limit:_}" if isinstance(limit, int) else f"{limit:g}"
    return error(
        f"{what}: {found} {name.rsplit('_', 1)[-1]}, over the limit {name}={value}; if this is to be trusted, raise it with "
        f"limits=onnx_lrp.Limits({name}=…), on the command line --limit {name}=…"
    )


class Meter:
    """What one model has used up so far while it is read."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.nodes = 0
        self.external = 0
        self.folded = 0
        self.seconds = 0.0
        self._start: float | None = None

    def node(self, label: str) -> None:
        """One more node is read."""
        self.nodes += 1
        if self.nodes > self.limits.nodes:
            raise over("nodes", self.limits.nodes, math.inf, f"reading came to {label}")

    def outside(self, length: int, what: str) -> None:
        """External data are read."""
        self.external += length
        self.limits.check("external_bytes", self.external, what)

    def fold(self, size: int, what: str) -> None:
        """A folded constant has, or is going to have, so many bytes."""
        self.limits.check("folding_bytes", self.folded + size, what)

    def spent(self) -> float:
        """Seconds of folding so far, that under way included."""
        return self.seconds + (0.0 if self._start is None else time.monotonic() - self._start)

    @contextlib.contextmanager
    def folding(self, what: str) -> Iterator[float]:
        """While a constant is folded: gives the seconds that are left, and counts those that it takes."""
        left = self.limits.folding_seconds - self.seconds
        self._start = time.monotonic()
        try:
            yield max(left, 0.0)
        finally:
            self.seconds, self._start = self.spent(), None
        self.limits.check("folding_seconds", self.seconds, what)


class _Alarm:
    """Calls back when a time has come, from one thread for all that wait.

    A thread for each of the thousands of runs that folding may take would be a risk and not only slow: where memory is short,
    CPython's ``Thread.start`` can wait for ever for a sign of life from a thread that never came up.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[object, tuple[float, Callable[[], None]]] = {}
        self._wakes = -math.inf  # when the thread looks next by itself; before all times while there is none

    @contextlib.contextmanager
    def after(self, seconds: float, call: Callable[[], None]) -> Iterator[None]:
        """``call`` in so many seconds, unless the block has ended before."""
        key, when = object(), time.monotonic() + seconds
        with self._changed:
            if self._wakes == -math.inf:
                threading.Thread(target=self._watch, name="onnx-lrp limits", daemon=True).start()
                self._wakes = math.inf
            self._due[key] = when, call
            if when < self._wakes:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._due.pop(key, None)

    def _watch(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                calls = [self._due.pop(key)[1] for key, (when, _) in list(self._due.items()) if when <= now]
                if not calls:
                    self._wakes = min((when for when, _ in self._due.values()), default=math.inf)
                    self._changed.wait(min(self._wakes - now, threading.TIMEOUT_MAX))
            for call in calls:
                call()


_alarm = _Alarm()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_alarm.__init__)  # type: ignore[misc]  # the child has the lock but not the thread


@contextlib.contextmanager
def terminated(options: Any, seconds: float) -> Iterator[threading.Event]:
    """Ends a run of onnxruntime under these RunOptions after some seconds; the event tells that it was ended."""
    ended = threading.Event()

    def end() -> None:
        ended.set()
        options.terminate = True

    with _alarm.after(seconds, end):
        yield ended
