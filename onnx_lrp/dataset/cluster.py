"""A run on a Ray cluster: actors do some shards each, in the same folder and by the same code as a run on one machine.

Ray Data's own writers name files by block, append where they are tried twice and know neither the numbers of rows nor a footer that
says what is done; ``--resume`` and "each row once" need all of that. So the actors read and write themselves, and only what a shard
says of itself (some 100 bytes) comes back.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError, MissingExtra
from .shards import Shards
from .work import Job, Some, Step, cores, work

__all__ = ["Cluster", "divided", "steps"]

BEGIN = "`ray start --head` starts one, and without an address one of this machine alone is started"
PATIENCE = 300.0  # seconds until the first worker has started; a cluster may grow meanwhile
DEATHS = 3  # of workers one after the other, nothing done in between
MANY = 16  # shards that a worker is given at once: a row group that holds several is decoded once
EACH = 4  # times that a worker is given something, at least, so that all end at about the same time


@dataclass(frozen=True)
class Cluster:
    """Where and with what.

    Attributes:
        address: "host:port", "ray://host:port" or "auto"; None: RAY_ADDRESS, else a cluster of this machine alone.
        workers: how many; None: as many as there are cores (GPUs) for.
        gpus: of each worker, also a part of one.
    """

    address: str | None = None
    workers: int | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.workers is not None and (isinstance(self.workers, bool) or self.workers != int(self.workers) or self.workers < 1):
            raise InputError(f"workers must be a positive number, got {self.workers!r}")
        if not 0 <= self.gpus < float("inf") or (self.gpus > 1 and self.gpus % 1):
            raise InputError(f"gpus_per_worker={self.gpus!r}: expected a part of one GPU, as 0.5, or a whole number of them")


def need_ray() -> Any:
    """The package.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtra("ray", extra="ray", purpose='engine="ray"') from error


def reached(address: str | None) -> None:
    """Refuse an address where nobody listens, before anything is made: Ray itself tries for over a minute.

    Raises:
        InputError: nobody does.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # "auto", or what Ray may know of
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster at {address}: {error}; {BEGIN}") from error


def divided(mine: Some, shards: int | None, workers: int) -> list[Some]:
    """A run's shards in the parts that workers are given; ``shards``: how many there are in all, None: nobody knows."""
    if shards is None:  # each worker reads the files through
        return [replace(mine, start=mine.start + i * mine.step, step=mine.step * workers) for i in range(workers)]
    left = [shard for shard in range(shards) if mine(shard)]
    size = max(1, min(MANY, -(-len(left) // (EACH * workers))))
    return [Some(frozenset(left[k : k + size])) for k in range(0, len(left), size)]


class Worker:
    """What runs on the cluster.

    Args:
        job: what to do.
        gpus: its part of a GPU.

    Raises:
        InputError: the folder of results is not that of the caller.
    """

    def __init__(self, job: Job, gpus: float) -> None:
        cores(1, gpus)
        if not any(job.folder.glob("manifest*.json")):
            raise InputError(
                f"{socket.gethostname()} does not see the run in {job.folder}: with engine='ray' the results (--out) go to a "
                "folder that all machines share, under the same path on each"
            )
        self._job = job
        self._engine = job.engine()

    def ready(self) -> int:
        """Its process."""
        return os.getpid()

    def run(self, some: Some) -> Iterator[Step]:
        """Some shards; a step for those that are in their place, since all else is lost with the worker."""
        worst: float | None = None
        first: tuple[int, str] | None = None
        with contextlib.closing(work(self._job, self._engine, some)) as made:
            for step in made:
                worst = max((w for w in (worst, step.worst) if w is not None), default=None)
                first = first or step.first
                if step.done:
                    rows = sum(done.last - done.first for done in step.done.values())
                    errors = sum(sum(done.errors.values()) for done in step.done.values())
                    yield Step(rows, errors, worst, first, step.done)
                    worst = None


def steps(job: Job, mine: Some, how: Cluster) -> Generator[Step, None, None]:
    """Do a run's shards on a cluster.

    Yields:
        a step wherever shards are in their place.

    Raises:
        InputError: no such cluster, no worker starts, or workers die over and over.
        OnnxLrpError, OSError: as on one machine.
    """
    ray = need_ray()
    with _connected(ray, how.address):
        count = how.workers or _fitting(ray, how.gpus)
        total = job.data.total
        parts = divided(mine, None if total is None else -(-total // job.size), count)
        pool = _Pool(ray, job, how, min(count, max(len(parts), 1)))
        try:
            yield from pool.all(parts)
        finally:
            pool.close()
            Shards(job.folder, job.size, job.types).sweep(mine)  # what workers that died left half written


def _fitting(ray: Any, gpus: float) -> int:
    """Workers that the cluster has room for."""
    held = ray.cluster_resources()
    return max(1, int(min(held.get("CPU", 1), held.get("GPU", 0) / gpus if gpus else float("inf"))))


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """To a cluster; one that this process is connected to already stays as it is."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    own = {} if address or os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"no Ray cluster at {address or os.environ.get('RAY_ADDRESS') or 'this machine'}: {reason}; {BEGIN}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


class _Pool:
    """The workers of a run."""

    def __init__(self, ray: Any, job: Job, how: Cluster, count: int) -> None:
        self._ray = ray
        self._how = how
        self._made = ray.remote(num_cpus=1, num_gpus=how.gpus, max_restarts=0)(Worker)
        self._job = ray.put(job)
        self._starting: dict[Any, Any] = {}  # {what tells that it is ready: worker}
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Some]] = {}  # {its steps: (worker, what it does)}
        self._deaths = 0  # since anything was done
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        worker = self._made.remote(self._job, self._how.gpus)
        self._starting[worker.ready.remote()] = worker

    def close(self) -> None:
        """End all workers."""
        for worker in [*self._idle, *self._starting.values(), *(worker for worker, _ in self._busy.values())]:
            self._ray.kill(worker)

    def all(self, parts: list[Some]) -> Iterator[Step]:
        """All parts; those of a worker that died, without what it had done, again."""
        left = deque(parts)
        while left or self._busy:
            while left and self._idle:
                worker, part = self._idle.pop(), left.popleft()
                self._busy[worker.run.remote(part)] = (worker, part)
            ready, _ = self._ray.wait([*self._busy, *self._starting], num_returns=1, timeout=None if self._busy else PATIENCE)
            if not ready:
                raise InputError(
                    f"no worker started within {PATIENCE:.0f} s: each takes 1 CPU"
                    f"{f' and {self._how.gpus:g} GPU' if self._how.gpus else ''}, and the cluster has "
                    f"{self._ray.cluster_resources().get('CPU', 0):g} CPUs and {self._ray.cluster_resources().get('GPU', 0):g} GPUs"
                )
            yield from self._heard(ready[0], left)

    def _heard(self, which: Any, left: deque[Some]) -> Iterator[Step]:
        lost = self._ray.exceptions
        try:
            if which in self._starting:
                self._ray.get(which)
                self._idle.append(self._starting.pop(which))
                return
            worker, part = self._busy[which]
            try:
                step = self._ray.get(next(which))
            except StopIteration:
                del self._busy[which]
                self._idle.append(worker)
                return
        except lost.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except (lost.RayActorError, lost.WorkerCrashedError, lost.NodeDiedError, lost.ObjectLostError) as error:
            # a constructor that raised ends its worker too: what it raised is what to tell
            cause = getattr(error, "cause", None)
            if isinstance(cause, lost.RayTaskError):
                raise cause.cause if isinstance(cause.cause, Exception) else cause from None
            self._bury(which, left, error)
            return
        self._deaths = 0
        self._busy[which] = (worker, replace(part, done=part.done | set(step.done)))
        yield step

    def _bury(self, which: Any, left: deque[Some], error: Exception) -> None:
        """What a dead worker was at goes to others, and a new one takes its place."""
        self._deaths += 1
        part = None
        if which in self._busy:
            worker, part = self._busy.pop(which)
            with contextlib.suppress(Exception):
                self._ray.kill(worker)
            left.appendleft(part)
        else:
            del self._starting[which]
        if self._deaths >= DEATHS:
            rest = sorted((part.shards or frozenset()) - part.done)[:1] if part is not None else []
            raise InputError(
                f"{self._deaths} workers died one after the other{f', the last at shard {rest[0]}' if rest else ''}: "
                f"{' '.join(str(error).split())[:300]}; what is done is kept (resume). Where memory was short: fewer workers a "
                "machine (more CPUs each), or a smaller max_bytes or max_length"
            ) from error
        self._start()
