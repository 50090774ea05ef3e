"""How far a long run is: a bar for people, lines of JSON for machines; both on stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..dataset.run import Progress as Now

__all__ = ["Lines", "bar"]

EVERY = 1.0  # seconds between two lines


class Lines:
    """One JSON object a second."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._last = 0.0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, now: Now) -> None:
        if self._quiet or time.monotonic() - self._last < EVERY:
            return
        self._last = time.monotonic()
        print(json.dumps(dataclasses.asdict(now)), file=sys.stderr, flush=True)


@contextlib.contextmanager
def bar(*, quiet: bool) -> Iterator[Callable[[Now], None] | None]:
    """Rows, rows a second, what is left, errors and the worst residual; None where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    shown = (BarColumn(bar_width=12), TextColumn("{task.description}", markup=False), TimeRemainingColumn(compact=True))
    with Progress(*shown, console=console, transient=True) as progress:
        task = progress.add_task("reading the model", total=None)

        def tell(now: Now) -> None:
            progress.update(task, description=_line(now), completed=now.rows, total=now.total)

        yield tell


def _line(now: Now) -> str:
    rows, total, worst = now.rows, now.total, now.worst
    of = "" if total is None else f"/{total:,}"
    rest = "" if worst is None else f", residual ≤ {worst:.1g}"
    return f"{rows:,}{of} rows, {now.per_second:,.0f}/s, {now.errors:,} errors{rest}"
