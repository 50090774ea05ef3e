"""A dataset as one stream of numbered rows, from any row on; damaged files are refused by name."""

from __future__ import annotations

import fnmatch
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    """

    files: tuple[File, ...]
    first: Block

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

    def total(self) -> int | None:
        """Rows in all, None where only reading everything would tell."""
        found = 0
        for file in self.files:
            rows = count(file)
            if rows is None:
                return None
            found += rows
        return found

    def blocks(self, names: Sequence[str], wanted: Callable[[int, int], bool]) -> Iterator[tuple[int, File, Block]]:
        """(number of its first row, its file, block) of all that is wanted.

        Args:
            names: the columns to read.
            wanted: whether any row from a first to a last (exclusive) is.
        """
        at = 0
        for file in self.files:
            end = 0

            def here(first: int, last: int, at: int = at) -> bool:
                nonlocal end
                end = last  # what is skipped counts
                return wanted(at + first, at + last)

            for block in _read(file, here, names):
                yield at + block.start, file, block
            at += end


def _read(file: File, wanted: Callable[[int, int], bool], names: Sequence[str] | None) -> Iterator[Block]:
    try:
        for block in READERS[file.suffix](file, wanted, names):
            gone = [n for n in names or () if n not in block.columns]
            if gone:
                raise InputError(f"{file.name}: no column {gone[0]!r}; there are: {', '.join(block.columns)}")
            yield block
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
