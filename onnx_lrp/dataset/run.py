"""explain_dataset: reading, explaining and writing side by side, shard by shard; stopped at any moment, it can be gone on with."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError
from .decoding import Decoder
from .engine import ABSORBED, Engine, Found
from .manifest import Manifest, digest
from .places import need
from .reading import Dataset, inputs_of
from .rows import Encode, Problem, kind_of
from .shards import Shards
from .tables import columns
from .windows import Window, Windows
from .worker import make_engine

__all__ = ["ROWS", "Progress", "explain_dataset"]

ROWS = 16_384  # of a shard
WINDOW = 64 * 2**20  # bytes of a window; a larger one makes no fuller bunches that would be faster
EARLY = 1000  # rows before which a share of errors says nothing
T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        rows: of this worker, explained or not, before and in this run.
        total: rows of the dataset that this worker has to do, None if unknown.
        errors: rows that could not be explained.
        worst: the largest residual so far, without its sign; None before the first, and of methods without.
        per_second: rows of this run, over its time.
        eta: seconds that are left, None if unknown.
    """

    rows: int
    total: int | None
    errors: int
    worst: float | None
    per_second: float
    eta: float | None


def explain_dataset(
    model: Any,
    dataset: str | os.PathLike[str] | Sequence[Any],
    out: str | os.PathLike[str],
    *,
    inputs: Mapping[str, str | Sequence[str]] | None = None,
    keep: Sequence[str] = (),
    target: Any = None,
    per_step: bool = False,
    method: str = "lrp",
    max_length: int | None = None,
    max_errors: int | str | None = None,
    shard: tuple[int, int] = (0, 1),
    resume: bool = False,
    shard_rows: int = ROWS,
    encode: Encode | None = None,
    progress: Callable[[Progress], object] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Explain every row of a dataset, in memory that does not grow with it.

    Into ``out`` go ``relevance/part-*.parquet`` with a row for every row that was explained: ``row`` (its number in the dataset,
    from 0), the columns to keep, ``prediction`` (where there are classes), ``output`` (the model's, one row's shape), ``target``,
    ``seed``, ``relevance`` (nested lists of the row's own shape, without the axis of samples; of several attribution points
    ``relevance_POINT``), ``absorbed_bias`` … and ``residual``; ``errors/part-*.parquet`` with ``row``, ``file``, ``row_in_file``,
    ``kind`` and ``reason`` of the others; and ``manifest.json``.

    Args:
        model: path of a ``.onnx`` file, its bytes, or a ``ModelProto``.
        dataset: .parquet, .arrow, .feather, .csv, .jsonl, .npz or .npy; a folder, a pattern, a list of these, or an address that
            fsspec opens.
        out: a local folder; made if it is not there.
        inputs: {graph input: column}, or several columns of numbers, or a pattern of names. What is left out is found by name, or
            as the only column. A cell holds one sample without the axis of samples: (T, I), (T,) ids, …
        keep: columns to hand on.
        target: None or "argmax" (the predicted class), a class, one of :mod:`onnx_lrp.targets` for one class, or the name of a
            column of classes.
        per_step: relevance summed over features, (T,) a row.
        method: see :meth:`Explainer.explain`.
        max_length: steps of the longest row that is explained; longer ones are errors.
        max_errors: how many rows may be errors, as a number or "P%" of the rows read so far, before the run gives up.
        shard: (i, n): do every n-th shard from the i-th on; n such workers, which may share ``out``, do all.
        resume: go on with what is in ``out``.
        shard_rows: rows of the dataset that make one shard; what a kill loses at most.
        encode: text → token ids (T,), for columns of text.
        progress: called after every window.
        options: of :func:`onnx_lrp.load`, and of the method.

    Returns:
        what ``manifest.json`` holds.

    Raises:
        InputError: the dataset can't be read, columns are missing, ``out`` holds another run, or too many errors.
        ModelError, RuleError: see :func:`onnx_lrp.load`.
        MissingExtra: pyarrow (or fsspec) is not installed.
        OSError: ``out`` can't be written, as on a full disk; what is done is kept.
    """
    need("pyarrow.parquet", "explaining a dataset")
    _checked(shard, shard_rows, max_errors)
    column = target if isinstance(target, str) and target != "argmax" else None
    data = Dataset.open(dataset)
    for name in (*keep, *([column] if column else [])):
        if name not in data.columns:
            raise InputError(f"no column {name!r} in the dataset; there are: {', '.join(data.columns)}")
    taken = {"row", "file", "row_in_file", "kind", "reason", "prediction", "output", "target", "seed", "relevance", "residual"}
    for name in sorted({*taken, *(f"absorbed_{kind}" for kind in ABSORBED)} & set(keep)):
        raise InputError(f"a column to keep can't be called {name!r}, as one of the results is; rename it")
    whole = None if isinstance(target, str) else target
    engine = make_engine(model, target=whole, method=method, per_step=per_step, max_length=max_length, options=options)
    mapping = inputs_of(inputs, engine.inputs, data.columns, (*keep, *([column] if column else [])))
    asked = {
        "model": digest(model),
        "files": [[file.name, file.size] for file in data.files],
        "inputs": {name: list(parts) for name, parts in mapping.items()},
        "keep": list(keep),
        "target": f"column {column}" if column else "argmax" if whole is None else str(whole),
        "per_step": per_step,
        "method": method,
        "max_length": max_length,
        "shard_rows": shard_rows,
        "encode": None if encode is None else getattr(encode, "__qualname__", type(encode).__qualname__),
        "options": options,
    }
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(folder, asked, shard, shard_rows)
    manifest.hold_against_others(resume=resume)
    types = {name: kind_of(data.first.columns[name]) for name in keep}
    run = _Run(data, engine, Decoder(engine, mapping, column, encode), types, manifest, shard, shard_rows, max_errors, progress)
    return run.all(Shards(folder, shard_rows, types), min(WINDOW, options.get("max_bytes") or WINDOW))


def _checked(shard: tuple[int, int], size: int, max_errors: int | str | None) -> None:
    i, n = shard
    if not 0 <= i < n:
        raise InputError(f"shard {i}/{n}: expected i/n with 0 <= i < n")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"shard_rows must be a positive number of rows, got {size!r}")
    _limit(max_errors, 0)


def _limit(given: int | str | None, rows: int) -> float:
    """How many of so many rows may be errors."""
    if given is None:
        return float("inf")
    try:
        text = str(given)
        share = text.endswith("%")
        number = float(text[:-1]) if share else int(text)
        if number < 0:
            raise ValueError
    except ValueError as error:
        raise InputError(f"max_errors={given!r}: expected a number of rows, or a share as in 5%") from error
    return number / 100 * max(rows, EARLY) if share else number


def _ahead(items: Iterable[T], pool: ThreadPoolExecutor) -> Iterator[T]:
    """The items, each made while the one before is worked on."""
    iterator, end = iter(items), object()
    coming: Future[Any] = pool.submit(next, iterator, end)
    while (item := coming.result()) is not end:
        coming = pool.submit(next, iterator, end)
        yield item


class _Run:
    """One call of explain_dataset."""

    def __init__(
        self,
        data: Dataset,
        engine: Engine,
        decoder: Decoder,
        types: dict[str, Any],
        manifest: Manifest,
        worker: tuple[int, int],
        size: int,
        max_errors: int | str | None,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        self.data = data
        self.engine = engine
        self.decoder = decoder
        self.types = types
        self.manifest = manifest
        self.worker = worker
        self.size = size
        self.max_errors = max_errors
        self.progress = progress
        self.start = time.monotonic()
        self.rows = 0  # of this run
        self.errors = 0
        self.worst: float | None = None
        self.first: tuple[int, Problem] | None = None

    def own(self, shard: int) -> bool:
        """Whether a shard is this worker's."""
        return shard % self.worker[1] == self.worker[0]

    def all(self, shards: Shards, budget: int) -> dict[str, Any]:
        """Everything that is not done yet."""
        shards.sweep(self.own)
        for shard, done in shards.found():
            if self.own(shard):
                self.manifest.done[shard] = done
        self.before = sum(d.last - d.first for d in self.manifest.done.values())
        self.errors = self.manifest.errors.total()
        total = self.data.total()
        self.total = None if total is None else self._own_rows(total)
        self.manifest.write("running")
        finished = frozenset(self.manifest.done)
        windows = Windows(
            self.data, self.decoder, self.types, self.size, budget, lambda shard: self.own(shard) and shard not in finished
        )
        try:
            with ThreadPoolExecutor(1, "read") as reads, ThreadPoolExecutor(1, "write") as writes:
                writing: Future[None] | None = None
                for window in _ahead(windows, reads):
                    found, problems = self._explained(window)
                    if writing is not None:
                        writing.result()
                    writing = writes.submit(self._written, shards, window, found, problems)
                    self._tell(len(window))
                if writing is not None:
                    writing.result()
        except BaseException:
            shards.abandon()
            with contextlib.suppress(OSError):
                self.manifest.write("stopped")
            raise
        held = self.manifest.write("done")
        if held["rows"] and not held["explained"]:
            raise InputError(f"none of {held['rows']} rows could be explained; {self._why()}see {self.manifest.path.parent}/errors")
        return held

    def _own_rows(self, total: int) -> int:
        i, n = self.worker
        shards = -(-total // self.size)
        mine = len(range(i, shards, n))
        last = self.own(shards - 1) and shards > 0
        return mine * self.size - ((shards * self.size - total) if last else 0)

    def _explained(self, window: Window) -> tuple[list[Found], dict[int, Problem]]:
        found, problems = [], dict(window.problems)
        good = [i for i in range(len(window)) if i not in problems]
        for part in self.engine.run(window.inputs, good, window.targets):
            if isinstance(part, Found):
                found.append(part)
                residual = abs(part.fields["residual"]).max()
                if residual == residual:
                    self.worst = max(self.worst or 0.0, float(residual))
            else:
                problems[part[0]] = part[1]
        self.rows += len(window)
        self.errors += len(problems)
        if problems and self.first is None:
            row = min(problems)
            self.first = (window.first + row, problems[row])
        if self.errors > _limit(self.max_errors, self.before + self.rows):
            raise InputError(
                f"{self.errors} of {self.before + self.rows} rows can't be explained, more than {self.max_errors}; {self._why()}"
            )
        return found, problems

    def _why(self) -> str:
        return "" if self.first is None else f"the first is row {self.first[0]}: {self.first[1].reason}; "

    def _written(self, shards: Shards, window: Window, found: Sequence[Found], problems: Mapping[int, Problem]) -> None:
        """What the writing thread does with a window."""
        import pyarrow as arrow

        own = {name: arrow.chunked_array(parts, self.types[name]) for name, parts in window.kept.items()}
        made = None
        if found:
            rows, fields = columns(found)
            made = {"row": arrow.array(rows + window.first), **{n: c.take(arrow.array(rows)) for n, c in own.items()}, **fields}
        wrong = []
        for i, problem in sorted(problems.items()):
            file, at = window.place(i)
            told = {"row": window.first + i, "file": file, "row_in_file": at, "kind": problem.kind, "reason": problem.reason}
            wrong.append(told | {n: c[i].as_py() for n, c in own.items()})
        if len(window):
            shards.add(window.shard, (window.first, window.last), made, wrong)
        if window.ends:
            self.manifest.done[window.shard] = shards.finish(window.shard)
            self.manifest.write("running", at_once=False)

    def _tell(self, rows: int) -> None:
        if self.progress is None:
            return
        rate = self.rows / max(time.monotonic() - self.start, 1e-9)
        done = self.before + self.rows
        left = None if self.total is None else max(self.total - done, 0) / max(rate, 1e-9)
        self.progress(Progress(done, self.total, self.errors, self.worst, rate, left))
