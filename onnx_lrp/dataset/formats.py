"""Files as streams of blocks of rows: Parquet, Arrow, CSV, JSON lines, .npy and .npz, a few megabytes at a time.

Text files are read line by line with the standard library: pyarrow's own readers stop at the first malformed line, and what they
skip shifts the numbers of all rows behind it.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError
from .places import File, Stream, need

__all__ = ["READERS", "Block", "Wanted", "count"]

ROWS, BYTES = 4096, 8 * 2**20  # of a block
LENGTHS = ".lengths"  # behind the name of a padded array in an .npz: (N,), the rows' own lengths
Wanted = Callable[[int, int], bool]  # whether any row from a first to a last (exclusive), counted in the file, is asked for


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of one file that follow each other.

    Attributes:
        start: number of the first, counted in its file.
        size: how many.
        columns: {name: pyarrow array, numpy array (rows first) or list of Python values}.
        broken: {row of the block: what is wrong with its line}.
    """

    start: int
    size: int
    columns: Mapping[str, Any]
    broken: Mapping[int, str] = field(default_factory=dict)

    def part(self, first: int, last: int) -> Block:
        """The rows ``first`` to ``last`` (exclusive) of the block."""
        if (first, last) == (0, self.size):
            return self
        columns = {n: c[first:last] for n, c in self.columns.items()}
        broken = {i - first: why for i, why in self.broken.items() if first <= i < last}
        return Block(self.start + first, last - first, columns, broken)


def _fitting(total: int, rows: int) -> int:
    """Rows of a block, where ``rows`` take ``total`` bytes."""
    return int(min(ROWS, max(1, BYTES * rows // max(total, 1))))


def _parquet(file: File, wanted: Wanted, names: Sequence[str] | None) -> Iterator[Block]:
    parquet = need("pyarrow.parquet", f"reading {file.name}")
    with file.source() as source, parquet.ParquetFile(source, buffer_size=2**20, pre_buffer=False) as table:
        at = 0
        for group in range(table.num_row_groups):
            held = table.metadata.row_group(group)
            if wanted(at, at + held.num_rows):
                start, size = at, _fitting(held.total_byte_size, held.num_rows)
                for batch in table.iter_batches(size, row_groups=[group], columns=names, use_threads=False):
                    yield _batch(start, batch)
                    start += batch.num_rows
            at += held.num_rows


def _batch(start: int, batch: Any) -> Block:
    return Block(start, batch.num_rows, dict(zip(batch.schema.names, batch.columns, strict=True)))


def _arrow(file: File, wanted: Wanted, names: Sequence[str] | None) -> Iterator[Block]:
    arrow = need("pyarrow", f"reading {file.name}")
    ipc = need("pyarrow.ipc", f"reading {file.name}")
    with file.source() as source, arrow.memory_map(source) if isinstance(source, str) else arrow.PythonFile(source, "r") as stream:
        try:
            reader = ipc.open_file(stream)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        except arrow.ArrowInvalid:
            stream.seek(0)
            batches = iter(ipc.open_stream(stream))
        at = 0
        for batch in batches:
            if wanted(at, at + batch.num_rows):
                chosen = batch if names is None else batch.select(list(names))
                size = _fitting(chosen.nbytes, chosen.num_rows)
                for first in range(0, batch.num_rows, size):
                    yield _batch(at + first, chosen.slice(first, size))
            at += batch.num_rows


def _bunches(lines: Iterator[Any], size: Callable[[Any], int]) -> Iterator[list[Any]]:
    """As many lines together as make a block."""
    bunch: list[Any] = []
    total = 0
    for line in lines:
        bunch.append(line)
        total += size(line)
        if len(bunch) == ROWS or total >= BYTES:
            yield bunch
            bunch, total = [], 0
    if bunch:
        yield bunch


def _csv(file: File, wanted: Wanted, names: Sequence[str] | None) -> Iterator[Block]:
    with file.open() as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="", errors="surrogateescape") as text:
        lines = (line for line in csv.reader(text) if line)
        head = next(lines, None)
        if head is None:
            raise InputError(f"{file.name}: empty; expected a first line with the names of the columns")
        if all(_is_number(cell) for cell in head):
            raise InputError(f"{file.name}: the first line holds numbers ({head[0]}, …), expected the names of the columns")
        twice = [n for n in head if head.count(n) > 1 and n in (names or ())]
        if twice:
            raise InputError(f"{file.name}: {head.count(twice[0])} columns are called {twice[0]!r}")
        at = 0
        for bunch in _bunches(lines, lambda line: sum(map(len, line))):
            if wanted(at, at + len(bunch)):
                broken = {i: f"{len(r)} cells, expected {len(head)}" for i, r in enumerate(bunch) if len(r) != len(head)}
                chosen = [(k, n) for k, n in enumerate(head) if names is None or n in names]
                columns = {n: [row[k] if i not in broken else None for i, row in enumerate(bunch)] for k, n in chosen}
                yield Block(at, len(bunch), columns, broken)
            at += len(bunch)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _jsonl(file: File, wanted: Wanted, names: Sequence[str] | None) -> Iterator[Block]:
    with file.open() as raw:
        lines = (line for line in raw if not line.isspace())
        at = 0
        for bunch in _bunches(lines, len):
            if wanted(at, at + len(bunch)):
                broken: dict[int, str] = {}
                objects = [_object(line, i, broken) for i, line in enumerate(bunch)]
                found = dict.fromkeys(n for o in objects for n in o) if names is None else names
                yield Block(at, len(bunch), {n: [o.get(n) for o in objects] for n in found}, broken)
            at += len(bunch)


def _object(line: bytes, row: int, broken: dict[int, str]) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        broken[row] = f"not JSON: {error}"
        return {}
    if not isinstance(value, dict):
        broken[row] = f"expected an object of columns, got {type(value).__name__}"
        return {}
    return value


def _arrays(stream: Stream, name: str) -> Iterator[np.ndarray]:
    """Rows of an array in .npy form, a block at a time."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject or not shape or (fortran and len(shape) > 1):
        raise InputError(f"{name}: an array of shape {shape} and {dtype}; expected numbers in C order, rows along the first axis")
    width = dtype.itemsize * int(np.prod(shape[1:]))
    size = _fitting(width, 1)
    for first in range(0, shape[0], size):
        rows = min(size, shape[0] - first)
        held = stream.read(rows * width)
        if len(held) != rows * width:
            raise InputError(f"{name}: ends in row {first + len(held) // max(width, 1)} of {shape[0]}")
        yield np.frombuffer(held, dtype).reshape(rows, *shape[1:])


def _npy(file: File, wanted: Wanted, names: Sequence[str] | None) -> Iterator[Block]:
    at = 0
    with file.open() as stream:
        for rows in _arrays(stream, file.name):
            if wanted(at, at + len(rows)):
                yield Block(at, len(rows), {"arr_0": rows})
            at += len(rows)


def _npz(file: File, wanted: Wanted, names: Sequence[str] | None) -> Iterator[Block]:
    with file.open() as raw, zipfile.ZipFile(raw) as archive:
        held = [entry.removesuffix(".npy") for entry in archive.namelist()]
        chosen = [n for n in held if names is None or n in names or (n.endswith(LENGTHS) and n.removesuffix(LENGTHS) in names)]
        streams = {n: _even(_arrays(archive.open(f"{n}.npy"), f"{file.name}: {n}")) for n in chosen}
        at = 0
        for bunches in itertools.zip_longest(*streams.values()):
            columns: dict[str, Any] = dict(zip(streams, bunches, strict=True))
            sizes = {n: 0 if rows is None else len(rows) for n, rows in columns.items()}
            if len(set(sizes.values())) > 1:
                raise InputError(f"{file.name}: arrays of different numbers of rows: {', '.join(streams)}")
            size = next(iter(sizes.values()))
            if wanted(at, at + size):
                broken: dict[int, str] = {}
                for name in [n for n in columns if n + LENGTHS in columns]:
                    own, rows = columns.pop(name + LENGTHS), columns[name]
                    if own.dtype.kind not in "iu" or own.ndim != 1 or rows.ndim < 2:
                        raise InputError(f"{file.name}: {name}{LENGTHS} of {own.dtype} and {own.ndim} axes are no steps of {name}")
                    steps = rows.shape[1]
                    broken |= {i: f"{name}{LENGTHS} is {n}, of {steps} steps" for i, n in enumerate(own) if not 0 <= n <= steps}
                    columns[name] = [None if i in broken else row[:n] for i, (row, n) in enumerate(zip(rows, own, strict=True))]
                yield Block(at, size, columns, broken)
            at += size


def _even(blocks: Iterator[np.ndarray], size: int = 256) -> Iterator[np.ndarray]:
    """The same rows, ``size`` at a time whatever their width, so that arrays go side by side."""
    kept: list[np.ndarray] = []
    for block in blocks:
        kept.append(block)
        while sum(map(len, kept)) >= size:
            rows = np.concatenate(kept)
            yield rows[:size]
            kept = [rows[size:]]
    if kept and sum(map(len, kept)):
        yield np.concatenate(kept)


READERS: dict[str, Callable[[File, Wanted, Sequence[str] | None], Iterator[Block]]] = {
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".npz": _npz,
    ".npy": _npy,
}


def count(file: File) -> int | None:
    """Rows of a file, where its head tells them without reading it."""
    if file.suffix == ".parquet":
        parquet = need("pyarrow.parquet", f"reading {file.name}")
        with file.source() as source, parquet.ParquetFile(source) as table:
            return int(table.metadata.num_rows)
    if file.suffix == ".npy" and not file.name.endswith(".gz"):
        with file.open() as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return int(read(stream)[0][0])
    return None
