"""A part of a run, as one process does it: reading, explaining and writing side by side, shard by shard.

What is to be done can be pickled, so that the process may be this one or any other that sees the same folder.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .decoding import Decoder
from .engine import Engine, Found
from .reading import Dataset
from .rows import Encode, Problem
from .shards import GROUP, Done, Shards
from .tables import columns, labels
from .texts import Texts
from .windows import Window, Windows
from .worker import make_engine

__all__ = ["Job", "Some", "Step", "work"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Job:
    """What a run does.

    Attributes:
        model: path, bytes or ``ModelProto``.
        how: the keyword arguments of :func:`~onnx_lrp.dataset.worker.make_engine`.
        data: what is read.
        inputs, column, encode, texts: see :class:`~onnx_lrp.dataset.decoding.Decoder`.
        types: {column to keep: its Arrow type}.
        folder: of the results.
        size: rows of a shard.
        budget: bytes of a window, its results included.
    """

    model: Any
    how: Mapping[str, Any]
    data: Dataset
    inputs: Mapping[str, Sequence[str]]
    column: str | None
    encode: Encode | None
    texts: Texts | None
    types: Mapping[str, Any]
    folder: Path
    size: int
    budget: int

    def engine(self) -> Engine:
        """A new engine."""
        return make_engine(self.model, **self.how)


@dataclass(frozen=True)
class Some:
    """Which shards: some, or every ``step``-th from ``start`` on; without those that are done.

    Attributes:
        shards: None: every ``step``-th.
        done: not these.
    """

    shards: frozenset[int] | None = None
    start: int = 0
    step: int = 1
    done: frozenset[int] = frozenset()

    def __call__(self, shard: int) -> bool:
        """Whether this one."""
        if shard in self.done:
            return False
        if self.shards is not None:
            return shard in self.shards
        return shard >= self.start and (shard - self.start) % self.step == 0

    @property
    def stop(self) -> int | None:
        """No shard from this one on; None: unknown."""
        return None if self.shards is None else max(self.shards, default=-1) + 1


@dataclass(frozen=True)
class Step:
    """What was done since the step before.

    Attributes:
        rows: explained or not.
        errors: those that were not.
        worst: the largest residual, without its sign.
        first: (row of the dataset, what is wrong with it) of the first error.
        done: shards that are in their place.
    """

    rows: int = 0
    errors: int = 0
    worst: float | None = None
    first: tuple[int, str] | None = None
    done: Mapping[int, Done] = field(default_factory=dict)


def _ahead(items: Iterable[T], pool: ThreadPoolExecutor) -> Iterator[T]:
    """The items, each made while the one before is worked on."""
    iterator, end = iter(items), object()
    coming: Future[Any] = pool.submit(next, iterator, end)
    while (item := coming.result()) is not end:
        coming = pool.submit(next, iterator, end)
        yield item


def work(job: Job, engine: Engine, wanted: Some) -> Generator[Step, None, None]:
    """Do some shards.

    Yields:
        a step for every window, before it is written, and a last one; closed there, what is half written is removed.
    """
    shards = Shards(job.folder, job.size, job.types)
    decoder = Decoder(engine, job.inputs, job.column, job.encode, job.texts)
    windows = Windows(job.data, decoder, dict(job.types), job.size, job.budget, wanted, wanted.stop)
    done: dict[int, Done] = {}  # since the last step

    def write(window: Window, found: list[Found], problems: Mapping[int, Problem]) -> None:
        _write(shards, job, window, found, problems)
        if window.ends:
            done[window.shard] = shards.finish(window.shard)

    def news() -> dict[int, Done]:
        return {shard: done.pop(shard) for shard in list(done)}

    try:
        with ThreadPoolExecutor(1, "read") as reads, ThreadPoolExecutor(1, "write") as writes:
            writing: Future[None] | None = None
            for window in _ahead(windows, reads):
                found, problems = explained(engine, window)
                yield _step(window, found, problems, news())
                if writing is not None:
                    writing.result()
                writing = writes.submit(write, window, found, problems)
                del window, found, problems  # the writer has them: else they were kept until the next are made
            if writing is not None:
                writing.result()
        yield Step(done=news())
    except BaseException:
        shards.abandon()
        raise


def explained(engine: Engine, window: Window) -> tuple[list[Found], dict[int, Problem]]:
    """What is found in a window, and what is wrong with its other rows."""
    found, problems = [], dict(window.problems)
    good = [i for i in range(len(window)) if i not in problems]
    for part in engine.run(window.inputs, good, window.targets):
        if isinstance(part, Found):
            found.append(part)
        else:
            problems[part[0]] = part[1]
    return found, problems


def _step(window: Window, found: Sequence[Found], problems: Mapping[int, Problem], done: Mapping[int, Done]) -> Step:
    residuals = [float(abs(f.fields["residual"]).max()) for f in found]
    worst = max((r for r in residuals if r == r), default=None)
    first = min(problems, default=None)
    told = None if first is None else (window.first + first, problems[first].reason)
    return Step(len(window), len(problems), worst, told, done)


def _write(shards: Shards, job: Job, window: Window, found: list[Found], problems: Mapping[int, Problem]) -> None:
    """What the writing thread does with a window, some rows at a time."""
    import pyarrow as arrow

    own = {name: arrow.chunked_array(parts, job.types[name]) for name, parts in window.kept.items()}
    fold = window.texts if job.texts is not None and job.texts.words else None
    for part in _parts(found):
        rows, fields = columns(part, fold)
        made = {"row": arrow.array(rows + window.first), **{n: c.take(arrow.array(rows)) for n, c in own.items()}}
        if job.texts is not None:
            made |= labels([window.texts[i] for i in rows.tolist()], words=job.texts.words)
        shards.add(window.shard, (window.first, window.last), made | fields, [])
    wrong = []
    for i, problem in sorted(problems.items()):
        file, at = window.place(i)
        told = {"row": window.first + i, "file": file, "row_in_file": at, "kind": problem.kind, "reason": problem.reason}
        wrong.append(told | {n: c[i].as_py() for n, c in own.items()})
    if len(window):
        shards.add(window.shard, (window.first, window.last), None, wrong)


def _parts(found: Sequence[Found]) -> Iterator[list[Found]]:
    """What was found, in the order of the rows, as many at a time as make a row group.

    The writer takes several times of what it is given at once: a whole window would be two thirds of all that comes and goes.
    """
    if not found:
        return
    rows = np.concatenate([f.rows for f in found])
    sizes = np.concatenate([np.full(len(f.rows), sum(a.nbytes for a in f.fields.values()) // len(f.rows)) for f in found])
    order = np.argsort(rows, kind="stable")
    cut = np.cumsum(sizes[order]) // GROUP
    bounds = [int(rows[order][k]) for k in np.flatnonzero(np.diff(cut, prepend=-1))]
    for first, last in itertools.pairwise([*bounds, int(rows.max()) + 1]):
        yield [part for part in (f.between(first, last) for f in found) if len(part.rows)]


def cores(count: int, gpus: float) -> None:
    """Let TensorFlow, not yet imported, take so many cores and that part of a GPU."""
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(count)
    if gpus % 1:
        os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # else the first takes all of it
