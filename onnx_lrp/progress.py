"""How far a long call is: its loops say so as they go, and whoever asked is told the share of the whole, 0 to 1.

Loops within loops share what the outer one has for a round, so that none needs to know where it stands.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Progress", "track", "watched"]

Item = TypeVar("Item")
Progress = Callable[[float], None]


@dataclass
class _Watch:
    """One call that is watched; told only what is further than before, as a loop may start again.

    It holds where its loops are, too: a loop left by an error may be closed long after, when Python clears its frames
    away, and what it puts back then must not reach another call.
    """

    tell: Progress
    furthest: float = 0.0
    start: float = 0.0  # of what runs now, as a share of the whole
    whole: float = 1.0

    def reached(self, share: float) -> None:
        if share > self.furthest:
            self.furthest = share
            self.tell(min(share, 1.0))


_current: contextvars.ContextVar[_Watch | None] = contextvars.ContextVar("progress", default=None)


@contextlib.contextmanager
def watched(tell: Progress | None) -> Iterator[None]:
    """Tell of every :func:`track` inside. None: as before, so that a call inside a watched one counts as a part of that."""
    if tell is None:
        yield
        return
    token = _current.set(_Watch(tell))
    try:
        yield
    finally:
        _current.reset(token)


def track(items: Iterable[Item], weights: Sequence[float] | None = None) -> Iterator[Item]:
    """The items, one after the other; each is done when the next one is asked for.

    Args:
        weights: how long each takes, in any unit. None: all equally long.
    """
    watch = _current.get()
    if watch is None:
        yield from items
        return
    start, whole = watch.start, watch.whole
    given = list(items)
    shares = [1.0] * len(given) if weights is None else list(weights)
    total, done = sum(shares) or 1.0, 0.0
    for item, share in zip(given, shares, strict=True):
        watch.start, watch.whole = start + whole * done / total, whole * share / total
        try:
            yield item
        finally:
            watch.start, watch.whole = start, whole
        done += share
        watch.reached(start + whole * done / total)
