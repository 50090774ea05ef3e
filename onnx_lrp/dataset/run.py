"""explain_dataset: what is asked is checked, done here or on a cluster, and kept count of; stopped, it can be gone on with."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .cluster import Cluster, need_ray, reached, steps
from .engine import ABSORBED
from .formats import Block
from .manifest import Manifest, digest
from .places import need
from .reading import Dataset, inputs_of
from .rows import Encode, kind_of
from .shards import Shards
from .texts import Texts
from .work import Job, Some, Step, work
from .worker import make_engine

if TYPE_CHECKING:
    from ..text import Tokenizer

__all__ = ["ROWS", "Progress", "explain_dataset"]

ROWS = 16_384  # of a shard
WINDOW = 64 * 2**20  # bytes of a window; a larger one makes no fuller bunches that would be faster
EARLY = 1000  # rows before which a share of errors says nothing
ENGINES = ("local", "ray")
NOTHING = Block(0, 0, {})


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
    text: str | None = None,
    tokenizer: Tokenizer | None = None,
    words: bool = True,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float = 0.0,
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
        text: a column of texts, which the tokenizer turns into the ids that the model takes (and its mask and types, where it has
            such inputs); ``pieces`` and, by words, ``words`` are columns of the results, and ``left_out``, how
            many more pieces the tokenizer cut off.
        tokenizer: of ``text``. Default: as ``model.tokens.json`` beside the model says.
        words: of ``text``: relevance is added up over the pieces of each word, (W,) or (W, …) a row.
        engine: "local", or "ray": actors on a Ray cluster, which write the same files; ``out`` is then a folder that all its
            machines share, and so is the dataset, unless it is an address. Either goes on with a run of the other.
        address: of the Ray cluster, as "auto" or "host:6379". Default: RAY_ADDRESS, else one of this machine alone.
        workers: actors, of one core each. Default: as many as the cluster has room for.
        gpus_per_worker: a part of a GPU, as 0.5, or whole ones.
        progress: called after every window; with "ray", after every shard.
        options: of :func:`onnx_lrp.load`, and of the method.

    Returns:
        what ``manifest.json`` holds.

    Raises:
        InputError: the dataset can't be read, columns are missing, ``out`` holds another run, or too many errors.
        ModelError, RuleError: see :func:`onnx_lrp.load`.
        MissingExtra: pyarrow (or fsspec, tokenizers, ray) is not installed.
        OSError: ``out`` can't be written, as on a full disk; what is done is kept.
    """
    need("pyarrow.parquet", "explaining a dataset")
    _checked(shard, shard_rows, max_errors)
    cluster = _cluster(engine, address, workers, gpus_per_worker)
    column = target if isinstance(target, str) and target != "argmax" else None
    data = Dataset.open(dataset)
    _named(data.columns, keep, column, text)
    for name, other in (("tokenizer", tokenizer), ("encode", encode)):
        if other is not None and (text is None) == (name == "tokenizer"):
            raise InputError(f"{name}= {'needs text=, the column of texts' if text is None else 'and text=: give one of them'}")
    texts = None if text is None else Texts(text, tokenizer or _beside(model), words)
    whole = None if isinstance(target, str) else target
    how: dict[str, Any] = {"target": whole, "method": method, "per_step": per_step, "max_length": max_length, "options": options}
    made = make_engine(model, **how)
    fed = () if texts is None else texts.fed(made.explainer.inputs)
    for name in inputs or ():
        if name in fed:
            raise InputError(f"input {name!r} is made of the texts in column {text!r}: no other column can feed it")
    wanted = [name for name in made.inputs if name not in fed]
    mapping = inputs_of(inputs, wanted, data.columns, [*keep, *(name for name in (column, text) if name)]) if wanted else {}
    asked: dict[str, Any] = {
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
        **({} if texts is None else {"text": texts.described()}),
        "options": {k: v for k, v in options.items() if k != "limits"},  # which decide whether, not what
    }
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(folder, asked, shard, shard_rows)
    manifest.hold_against_others(resume=resume)
    types = {name: kind_of(data.first.columns[name]) for name in keep}
    job = Job(
        model=model,
        how=how,
        data=data.counted(),
        inputs=mapping,
        column=column,
        encode=encode,
        texts=texts,
        types=types,
        folder=folder,
        size=shard_rows,
        budget=min(WINDOW, options.get("max_bytes") or WINDOW),
    )
    run = _Run(job, manifest, shard, max_errors, progress)
    if cluster is None:
        return run.all(lambda mine: work(job, made, mine))
    far = replace(job, model=_shipped(model, asked["model"]), data=replace(job.data, first=NOTHING), folder=folder.absolute())
    return run.all(lambda mine: steps(far, mine, cluster))


def _cluster(engine: str, address: str | None, workers: int | None, gpus: float) -> Cluster | None:
    """None: this process does everything."""
    if engine not in ENGINES:
        raise InputError(f"engine={engine!r} does not exist; one of {', '.join(ENGINES)}")
    if engine == "ray":
        need_ray()
        cluster = Cluster(address, workers, gpus)
        reached(address)
        return cluster
    for name, value in (("address", address), ("workers", workers), ("gpus_per_worker", gpus or None)):
        if value is not None:
            raise InputError(f"{name}={value!r}: of engine='ray' alone")
    return None


def _named(columns: Sequence[str], keep: Sequence[str], target: str | None, text: str | None) -> None:
    """Refuse columns that are not there, and those to keep that are called like a result."""
    for name in (*keep, *(name for name in (target, text) if name)):
        if name not in columns:
            raise InputError(f"no column {name!r} in the dataset; there are: {', '.join(columns)}")
    taken = {"row", "file", "row_in_file", "kind", "reason", "prediction", "output", "target", "seed", "relevance", "residual"}
    taken |= set() if text is None else {"pieces", "words", "left_out"}
    for name in sorted({*taken, *(f"absorbed_{kind}" for kind in ABSORBED)} & set(keep)):
        raise InputError(f"a column to keep can't be called {name!r}, as one of the results is; rename it")


def _beside(model: Any) -> Tokenizer:
    """As ``model.tokens.json`` says."""
    from ..text import Tokenizer, beside

    found = Tokenizer.beside(model) if isinstance(model, str | os.PathLike) else None
    if found is None:
        where = f"there is no {beside(model)}" if isinstance(model, str | os.PathLike) else "the model is no file"
        raise InputError(f"texts need a tokenizer, as {where} that says how ids are made")
    return found


def _shipped(model: Any, told: Mapping[str, Any]) -> Any:
    """A model as workers get it: its bytes, so that the file need not be there; a file with weights beside it must."""
    if isinstance(model, str | os.PathLike):
        return Path(model).absolute() if "weights" in told else Path(model).read_bytes()
    return model if isinstance(model, bytes) else model.SerializeToString()


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
        if not 0 <= number < float("inf"):
            raise ValueError
    except ValueError as error:
        raise InputError(f"max_errors={given!r}: expected a number of rows, or a share as in 5%") from error
    return number / 100 * max(rows, EARLY) if share else number


class _Run:
    """One call of explain_dataset: what it has heard of its shards, and when to give up."""

    def __init__(
        self,
        job: Job,
        manifest: Manifest,
        worker: tuple[int, int],
        max_errors: int | str | None,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        self.job = job
        self.manifest = manifest
        self.worker = worker
        self.max_errors = max_errors
        self.progress = progress
        self.start = time.monotonic()
        self.rows = 0  # of this run
        self.errors = 0
        self.worst: float | None = None
        self.first: tuple[int, str] | None = None

    def all(self, make: Callable[[Some], Generator[Step, None, None]]) -> dict[str, Any]:
        """Everything that is not done yet, by the steps that ``make`` makes of it."""
        own = Some(None, *self.worker)
        shards = Shards(self.job.folder, self.job.size, self.job.types)
        shards.sweep(own)
        self.manifest.done.update((shard, done) for shard, done in shards.found() if own(shard))
        self.before = sum(d.last - d.first for d in self.manifest.done.values())
        self.errors = self.manifest.errors.total()
        total = self.job.data.total
        self.total = None if total is None else self._own_rows(total, own)
        self.manifest.write("running")
        left = replace(own, done=frozenset(self.manifest.done))
        try:
            with contextlib.closing(make(left)) as made:
                for step in made:
                    self._heard(step)
        except BaseException:
            with contextlib.suppress(OSError):
                self.manifest.write("stopped")
            raise
        held = self.manifest.write("done")
        if held["rows"] and not held["explained"]:
            raise InputError(f"none of {held['rows']} rows could be explained; {self._why()}see {self.manifest.path.parent}/errors")
        return held

    def _own_rows(self, total: int, own: Some) -> int:
        size = self.job.size
        shards = -(-total // size)
        mine = len(range(own.start, shards, own.step))
        last = shards > 0 and own(shards - 1)
        return mine * size - ((shards * size - total) if last else 0)

    def _heard(self, step: Step) -> None:
        self.rows += step.rows
        self.errors += step.errors
        if step.worst is not None:
            self.worst = max(self.worst or 0.0, step.worst)
        self.first = self.first or step.first
        self.manifest.done.update(step.done)
        if step.done:
            self.manifest.write("running", at_once=False)
        if self.errors > _limit(self.max_errors, self.before + self.rows):
            raise InputError(
                f"{self.errors} of {self.before + self.rows} rows can't be explained, more than {self.max_errors}; {self._why()}"
            )
        if step.rows:
            self._tell()

    def _why(self) -> str:
        return "" if self.first is None else f"the first is row {self.first[0]}: {self.first[1]}; "

    def _tell(self) -> None:
        if self.progress is None:
            return
        rate = self.rows / max(time.monotonic() - self.start, 1e-9)
        done = self.before + self.rows
        left = None if self.total is None else max(self.total - done, 0) / max(rate, 1e-9)
        self.progress(Progress(done, self.total, self.errors, self.worst, rate, left))
