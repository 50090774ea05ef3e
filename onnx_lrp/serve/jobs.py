"""Long work, one piece at a time, in a thread of its own: how far it is, and an end to it when it is no longer wanted."""

from __future__ import annotations

import contextlib
import queue
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import OnnxLrpError

__all__ = ["Busy", "Cancelled", "Job", "Jobs"]


class Cancelled(BaseException):
    """Raised inside work that is no longer wanted; no ``except Exception`` on the way may take it for a failure."""


class Busy(Exception):
    """Something else is being worked on."""


@dataclass(eq=False)
class Job:
    """One piece of work, as it goes along.

    Attributes:
        state: "waiting", "running", "done", "failed" or "cancelled".
        stage: what it is at.
        share: how much of that is done, 0 to 1; None: nobody knows.
        error: of a failed one, what to tell.
        result: of one that is done.
    """

    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: str = "waiting"
    stage: str = ""
    share: float | None = None
    error: str = ""
    result: Any = None
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    _unwanted: threading.Event = field(default_factory=threading.Event)

    def at(self, stage: str) -> None:
        """What begins now.

        Raises:
            Cancelled: it is no longer wanted.
        """
        self._go_on()
        self.stage, self.share = stage, None

    def reached(self, share: float) -> None:
        """How much of the stage is done; as ``progress=`` of :meth:`Explainer.explain`.

        Raises:
            Cancelled: it is no longer wanted.
        """
        self._go_on()
        self.share = share

    def cancel(self) -> None:
        """End it as soon as it says how far it is."""
        self._unwanted.set()

    @property
    def unwanted(self) -> bool:
        return self._unwanted.is_set()

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    def to_dict(self) -> dict[str, Any]:
        """What a page needs to know."""
        seconds = (self.ended or time.monotonic()) - self.began
        state = "stopping" if self.unwanted and not self.over else self.state
        return {
            "id": self.id,
            "state": state,
            "stage": self.stage,
            "share": self.share,
            "error": self.error,
            "seconds": round(seconds, 3),
        }

    def _go_on(self) -> None:
        if self.unwanted:
            raise Cancelled


class Jobs:
    """A thread and what it works on. Only the last job is kept, with its result.

    Args:
        first: what to do before any job, such as importing what takes long; jobs that need it do it again, and find it done.
        debug: tracebacks of bugs on stderr.
    """

    def __init__(self, first: Callable[[], object] | None = None, *, debug: bool = False) -> None:
        self._queue: queue.Queue[tuple[Job, Callable[[Job], Any]] | None] = queue.Queue()
        self._lock = threading.Lock()
        self._last: Job | None = None
        self._first = first
        self._debug = debug
        self._thread = threading.Thread(target=self._run, name="onnx-lrp jobs", daemon=True)
        self._thread.start()

    def start(self, work: Callable[[Job], Any]) -> Job:
        """Put work in line. Behind a cancelled job it waits until that has noticed.

        Raises:
            Busy: the last one is not over, and nobody cancelled it.
        """
        with self._lock:
            if self._last is not None and not (self._last.over or self._last.unwanted):
                raise Busy("another explanation is being worked on (in another window?); cancel it first")
            job = self._last = Job()
        self._queue.put((job, work))
        return job

    @property
    def last(self) -> Job | None:
        """Of all that were started."""
        return self._last

    def get(self, id: str) -> Job | None:
        """The last job, if it is the one asked for."""
        last = self._last
        return last if last is not None and last.id == id else None

    def stop(self, patience: float) -> bool:
        """Cancel everything; whether the thread ended within so many seconds."""
        last = self._last
        if last is not None:
            last.cancel()
        self._queue.put(None)
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _run(self) -> None:
        if self._first is not None:
            with contextlib.suppress(Exception):  # the jobs that need it find out, and say so
                self._first()
        while (entry := self._queue.get()) is not None:
            self._work(*entry)
            del entry  # its result belongs to the page alone

    def _work(self, job: Job, work: Callable[[Job], Any]) -> None:
        state = "failed"
        try:
            job._go_on()
            job.state = "running"
            job.result = work(job)
            job._go_on()
            state = "done"
        except Cancelled:
            state, job.result = "cancelled", None
        except OnnxLrpError as error:
            job.error = str(error)
        except MemoryError:
            job.error = "not enough memory for this input; pass fewer samples at once"
        except Exception as error:
            if self._debug:
                traceback.print_exception(error, file=sys.stderr)
            what = f"{type(error).__name__}: {error}"
            job.error = f"this is a bug: {what}; please report it with the model and what onnx-lrp --debug view prints"
        job.ended = time.monotonic()
        job.state = state
