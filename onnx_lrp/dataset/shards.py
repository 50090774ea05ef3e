"""Shards of results: a file is there as a whole or not at all, and says itself which rows of the dataset it holds."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .places import need

__all__ = ["ERRORS", "GROUP", "RELEVANCE", "Done", "Shards", "replace"]

RELEVANCE, ERRORS = "relevance", "errors"  # folders
META = b"onnx-lrp"
GROUP = 16 * 2**20  # bytes of a row group, roughly, and of what is given to :meth:`Shards.add` at once


@dataclass(frozen=True)
class Done:
    """What a shard says of itself.

    Attributes:
        first, last: rows of the dataset, last exclusive.
        explained: how many of them.
        errors: {kind: how many}.
        worst: the largest residual, without its sign, None if there is none; ``row`` it is of.
    """

    first: int
    last: int
    explained: int
    errors: Mapping[str, int] = field(default_factory=dict)
    worst: float | None = None
    row: int | None = None

    def to_json(self) -> str:
        """For the shard's footer."""
        return json.dumps(self.__dict__ | {"errors": dict(self.errors)})


def _flush(path: Path) -> None:
    """Onto the disk, past all caches."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace(part: Path, place: Path) -> None:
    """Move a finished file to its place, so that after a power loss there is either nothing or all of it."""
    _flush(part)
    os.replace(part, place)
    _flush(place.parent)


def _repeated(path: str, kind: Any) -> Iterator[str]:
    """The columns of a Parquet file whose values may repeat themselves: all but floats, of which a dictionary is hardly smaller.

    Looking for it, and for the extremes of such lists, took 40% of the time of writing, and the files were 4% larger.
    """
    types = need("pyarrow", "writing a dataset").types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        yield from _repeated(f"{path}.list.element", kind.value_type)
    elif types.is_struct(kind):
        for field in kind:
            yield from _repeated(f"{path}.{field.name}", field.type)
    elif not types.is_floating(kind):
        yield path


class Shards:
    """The two folders of results. Shard k holds the rows k·size to (k+1)·size of the dataset.

    Args:
        folder: where they are.
        size: rows of a shard.
        types: {column to keep: its Arrow type}.
    """

    def __init__(self, folder: Path, size: int, types: Mapping[str, Any]) -> None:
        self._folder = folder
        self._size = size
        self._types = dict(types)
        self._own = uuid.uuid4().hex[:12]  # not the process: on machines that share the folder two may have one number
        self._writer: Any = None
        self._part: Path | None = None
        self._problems: list[dict[str, Any]] = []
        self._explained = 0
        self._rows = [0, 0]
        self._worst: tuple[float | None, int | None] = (None, None)

    def _place(self, kind: str, shard: int) -> Path:
        return self._folder / kind / f"part-{shard:08d}.parquet"

    def _temporary(self, kind: str, shard: int) -> Path:
        return self._folder / kind / f".part-{shard:08d}.{self._own}.tmp"

    def found(self) -> Iterator[tuple[int, Done]]:
        """The shards that are there, and what they say."""
        parquet = need("pyarrow.parquet", "writing a dataset")
        seen = set()
        for kind in (RELEVANCE, ERRORS):
            for path in sorted((self._folder / kind).glob("part-*.parquet")):
                shard = int(path.stem.removeprefix("part-"))
                if shard in seen:
                    continue
                done = Done(**json.loads(parquet.read_metadata(path).metadata[META]))
                if kind == RELEVANCE or done.explained == 0:  # else it was stopped between the two
                    seen.add(shard)
                    yield shard, done

    def add(
        self, shard: int, rows: Sequence[int], columns: Mapping[str, Any] | None, problems: Sequence[Mapping[str, Any]]
    ) -> None:
        """Some more rows of a shard.

        Args:
            rows: first and last (exclusive) of the dataset.
            columns: Arrow arrays of what was explained, None: nothing.
            problems: one object for every row that was not.
        """
        arrow, parquet = need("pyarrow", "writing a dataset"), need("pyarrow.parquet", "writing a dataset")
        if self._explained == 0 and not self._problems:
            self._rows[0] = rows[0]
        self._rows[1] = rows[1]
        self._problems += [dict(p) for p in problems]
        if columns is None:
            return
        table = arrow.table(dict(columns))
        if self._writer is None:
            self._part = self._temporary(RELEVANCE, shard)
            self._part.parent.mkdir(parents=True, exist_ok=True)
            few = [path for field in table.schema for path in _repeated(field.name, field.type)]
            told = [*few, *(field.name for field in table.schema if arrow.types.is_floating(field.type))]
            self._writer = parquet.ParquetWriter(self._part, table.schema, use_dictionary=few, write_statistics=told)
        self._writer.write_table(table)
        self._explained += table.num_rows
        residual = np.abs(table.column("residual").to_numpy())
        if len(residual) and not np.isnan(residual).all():
            k = int(np.nanargmax(residual))
            if self._worst[0] is None or residual[k] > self._worst[0]:
                self._worst = (float(residual[k]), int(table.column("row")[k].as_py()))

    def finish(self, shard: int) -> Done:
        """Put a shard in its place: first its errors, then what counts as done."""
        arrow, parquet = need("pyarrow", "writing a dataset"), need("pyarrow.parquet", "writing a dataset")
        errors = Counter(p["kind"] for p in self._problems)
        done = Done(self._rows[0], self._rows[1], self._explained, dict(errors), *self._worst)
        told = {META: done.to_json().encode()}
        place = self._place(ERRORS, shard)
        if self._problems:
            place.parent.mkdir(parents=True, exist_ok=True)
            kinds = [("row", arrow.int64()), ("file", arrow.string()), ("row_in_file", arrow.int64())]
            kinds += [("kind", arrow.string()), ("reason", arrow.string()), *self._types.items()]
            ordered = sorted(self._problems, key=lambda p: p["row"])
            table = arrow.Table.from_pylist(ordered, arrow.schema(kinds)).replace_schema_metadata(told)
            part = self._temporary(ERRORS, shard)
            parquet.write_table(table, part)
            replace(part, place)
        elif place.exists():  # of a run that was stopped
            place.unlink()
        if self._writer is not None:
            assert self._part is not None
            self._writer.add_key_value_metadata(told)
            self._writer.close()
            replace(self._part, self._place(RELEVANCE, shard))
        self._reset()
        return done

    def _reset(self) -> None:
        self._writer, self._part, self._problems, self._explained, self._worst = None, None, [], 0, (None, None)

    def abandon(self) -> None:
        """Remove what is half written."""
        if self._writer is not None:
            with contextlib.suppress(Exception):  # of a full disk, once more
                self._writer.close()
        self._reset()
        for kind in (RELEVANCE, ERRORS):
            for path in (self._folder / kind).glob(f".part-*.{self._own}.tmp"):
                with contextlib.suppress(OSError):
                    path.unlink()

    def sweep(self, own: Callable[[int], bool]) -> None:
        """Remove what a killed run left half written; ``own``: which shards are this worker's, since others may be at work."""
        for kind in (RELEVANCE, ERRORS):
            for path in (self._folder / kind).glob(".part-*.tmp"):
                if own(int(path.name.split(".")[1].removeprefix("part-"))):
                    with contextlib.suppress(OSError):
                        path.unlink()
