"""A dataset as one stream of numbered rows, from any row on; damaged files are refused by name."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError, MissingExtra
from .formats import READERS, Block, count
from .places import File, find

__all__ = ["Dataset", "inputs_of"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Files whose rows are numbered through, from 0.

    Attributes:
        first: its first block, with all columns.
        counts: rows of every file whose head tells them, else None; empty: not looked at yet.
    """

    files: tuple[File, ...]
    first: Block
    counts: tuple[int | None, ...] = ()

    @classmethod
    def open(cls, dataset: str | os.PathLike[str] | Sequence[Any]) -> Dataset:
        """Find the files, and look into the first that holds rows.

        Raises:
            InputError: nothing there, another kind of file, damaged, or no rows.
            MissingExtra: pyarrow or fsspec is needed and missing.
        """
        files = find(dataset, READERS)
        for file in files:
            for block in _read(file, lambda first, last: True, None):
                return cls(files, block)
        raise InputError(f"{files[0].name}: no rows in {'it' if len(files) == 1 else f'any of {len(files)} files'}")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.first.columns)

    def counted(self) -> Dataset:
        """The same, with ``counts``; heads are read once, whoever reads the files then."""
        found: list[int | None] = []
        for file in self.files:
            found.append(None if None in found else _count(file))  # behind a file of unknown length, lengths help nobody
        return replace(self, counts=tuple(found))

    @property
    def total(self) -> int | None:
        """Rows in all, None where only reading everything would tell, or nobody has looked."""
        known = [rows for rows in self.counts if rows is not None]
        return sum(known) if self.counts and len(known) == len(self.files) else None

    def blocks(
        self, names: Sequence[str], wanted: Callable[[int, int], bool], stop: int | None = None
    ) -> Iterator[tuple[int, File, Block]]:
        """(number of its first row, its file, block) of all that is wanted.

        Args:
            names: the columns to read.
            wanted: whether any row from a first to a last (exclusive) is.
            stop: none from this row on is; reading ends there.
        """
        at = 0
        for file, rows in zip(self.files, self.counts or [None] * len(self.files), strict=True):
            if rows is not None and not (rows and wanted(at, at + rows)):
                at += rows
                continue
            end = 0

            def here(first: int, last: int, at: int = at) -> bool:
                nonlocal end
                if stop is not None and at + first >= stop:
                    raise _Past
                end = last  # what is skipped counts
                return wanted(at + first, at + last)

            try:
                for block in _read(file, here, names):
                    yield at + block.start, file, block
            except _Past:
                return
            at += end


class _Past(Exception):
    """Everything wanted was read."""


def _count(file: File) -> int | None:
    with _readable(file):
        return count(file)


def _read(file: File, wanted: Callable[[int, int], bool], names: Sequence[str] | None) -> Iterator[Block]:
    with _readable(file):
        for block in READERS[file.suffix](file, wanted, names):
            gone = [n for n in names or () if n not in block.columns]
            if gone:
                raise InputError(f"{file.name}: no column {gone[0]!r}; there are: {', '.join(block.columns)}")
            yield block


@contextlib.contextmanager
def _readable(file: File) -> Iterator[None]:
    """Whatever a reader complains of is a complaint about its file."""
    try:
        yield
    except (InputError, MissingExtra):
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:  # pyarrow's own are ValueErrors and KeyErrors
        raise InputError(f"{file.name}: can't be read as {file.suffix}: {' '.join(str(error).split())}") from error


def inputs_of(
    given: Mapping[str, str | Sequence[str]] | None, wanted: Sequence[str], columns: Sequence[str], others: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """{graph input: columns it is read from}.

    Args:
        given: what the caller said: a column, several (numbers that stand side by side), or a pattern of names as in ``x[0-9]*``.
        wanted: the graph inputs to feed.
        columns: of the dataset.
        others: columns that serve for something else.

    Raises:
        InputError: an input without a column, no such input, or no such column.
    """
    names = ", ".join(columns)
    found: dict[str, tuple[str, ...]] = {}
    for name, column in (given or {}).items():
        if name not in wanted:
            raise InputError(f"no input {name!r} to feed; this model takes {', '.join(wanted)}")
        parts = (
            (column,) if isinstance(column, str) and column in columns else column.split(",") if isinstance(column, str) else column
        )
        found[name] = tuple(c for part in parts for c in ([part] if part in columns else fnmatch.filter(columns, part) or [part]))
        for part in found[name]:
            if part not in columns:
                raise InputError(f"input {name!r}: no column {part!r} in the dataset; there are: {names}")
    for name in wanted:
        if name in found:
            continue
        free = [c for c in columns if c not in others]
        if name in columns:
            found[name] = (name,)
        elif len(wanted) == 1 and len(free) == 1:
            found[name] = (free[0],)
        else:
            raise InputError(
                f"which column feeds input {name!r}? There are: {names}. Say --input {name}=COLUMN (inputs= in Python)"
            )
    return found
