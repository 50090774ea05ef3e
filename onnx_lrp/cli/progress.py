"""What a command is at, how far it is and how long it takes: one line on stderr while it works, gone when it is done.

Nothing is written where stderr is no terminal, or with ``--quiet``.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Quiet", "Stages", "stages"]

Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr (in a pipe there is none anyway).")]


class Stages:
    """The stages of a command, one after the other; without ``bar`` nothing is shown."""

    def __init__(self, bar: Progress | None = None) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._what = ""

    def stage(self, what: str) -> None:
        """What begins now; how far it is follows by :meth:`reached`, if at all."""
        if self._bar is None or what == self._what:
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._what = what
        self._task = self._bar.add_task(what, total=None, share="", left="")

    def reached(self, share: float) -> None:
        """How much of the stage is done, 0 to 1."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=1.0, completed=share, share=f"{share:4.0%}", left="left")

    def at(self, what: str, share: float | None) -> None:
        """Both at once, as :func:`onnx_lrp.testing.check` tells it; None: nobody knows how far."""
        self.stage(what)
        if share is not None:
            self.reached(share)


@contextlib.contextmanager
def stages(quiet: bool = False) -> Iterator[Stages]:
    """A line on stderr for as long as the context lasts."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield Stages()
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from ..report.terminal import console

    with _own(sys.stderr) as stream:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            TextColumn("{task.fields[share]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console(stream), transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
            yield Stages(bar)


@contextlib.contextmanager
def _own(stream: TextIO) -> Iterator[TextIO]:
    """The terminal by a handle of its own: file descriptor 2 is turned away while TensorFlow starts."""
    try:
        number = os.dup(stream.fileno())
    except (OSError, ValueError):
        yield stream
        return
    with open(number, "w", encoding=stream.encoding, errors="backslashreplace") as own:
        yield own
