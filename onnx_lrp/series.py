"""Series from tables, .csv or .parquet: a row a time step, a column a feature, with names, units, times, and several in one file.

series = read_series("engines.csv", time="cycle", features=["pressure", "temperature"], id="engine")
explanation = explainer.explain(series)        # explanation.labels has the names
"""

from __future__ import annotations

import csv
import importlib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError, MissingExtra
from .labels import Labelled, Labels

if TYPE_CHECKING:
    from .graph import Value

__all__ = ["Series", "read_series"]

UNIT = re.compile(r"(?P<name>.*\S)\s*\[(?P<unit>[^\[\]]*)\]\s*", re.DOTALL)


@dataclass(frozen=True, eq=False)
class Series(Labelled):
    """B series; what ``explainer.explain`` and ``explainer.predict`` take.

    Attributes:
        arrays: (B)(T_b, F) float64.
        names: what they are called, times and features included.
    """

    arrays: tuple[np.ndarray, ...]
    names: Labels = field(default_factory=Labels)

    @property
    def labels(self) -> Labels:
        """Names of the series, their times and features, as far as the table has any."""
        return self.names

    def feeds(self, values: Sequence[Value]) -> dict[str, list[np.ndarray]]:
        """The series for the model's one input of numbers; lengths are left out.

        Raises:
            InputError: it has several others, or another number of axes.
        """
        found = [v for v in values if len(values) == 1 or v.shape is None or len(v.shape) > 1]
        if len(found) != 1:
            raise InputError(f"a table holds one input, this model takes {', '.join(map(str, values))}; pass .npz")
        return {found[0].name: list(self.arrays)}


def read_series(
    path: str | os.PathLike[str],
    *,
    time: str | None = None,
    features: Sequence[str] | None = None,
    id: str | None = None,
    missing: bool = False,
) -> Series:
    """Read a table, a row a time step. Columns are called by their name, with or without the unit: "pressure [bar]" or "pressure".

    Args:
        path: a .csv file, whose first line is a header if no cell in it is a number or columns are named here; or a .parquet file.
        time: column whose entries are names of the steps; any text.
        features: columns to read, in this order. None: all but those of time and id.
        id: column that tells several series apart, which may have different lengths. They come in the order in which they begin,
            their steps in the order of the file. None: one series.
        missing: an empty cell is NaN; else an empty or non-finite one is an error.

    Raises:
        InputError: no such file or column, or a cell that is no number; says which column and line.
        MissingExtra: a .parquet file without pyarrow.
    """
    file = Path(path)
    asked = [c for c in (time, id, *(features or ())) if c is not None]
    table = (
        _parquet(file, [c for c in (time, id) if c is not None]) if file.suffix.lower() == ".parquet" else _csv(file, bool(asked))
    )
    if asked and not table.names:
        raise InputError(f"{file}: no header, so there is no column {asked[0]!r}")
    others = [table.find(c, "--time" if c == time else "--id") for c in (time, id) if c is not None]
    if features is None:
        chosen = [k for k in range(table.width) if k not in others]
    else:
        chosen = [table.find(c, "--features") for c in features]
        twice = next((c for i, c in enumerate(features) if chosen[i] in chosen[:i]), None)
        if twice is not None:
            raise InputError(f"{file}: column {twice!r} is asked for twice")
    if not chosen:
        raise InputError(f"{file}: no column of features is left")
    values = np.stack([table.numbers(k, missing) for k in chosen], 1)
    rows = _groups(table.texts(table.find(id, "--id")) if id is not None else [""] * len(values))
    steps = table.texts(table.find(time, "--time")) if time is not None else []
    named = [_split(table.names[k]) for k in chosen] if table.names else []
    labels = Labels(
        samples=tuple(rows) if id is not None else (),
        steps=tuple(tuple(steps[n] for n in numbers) for numbers in rows.values()) if time is not None else (),
        time=table.names[table.find(time, "--time")] if time is not None else "",
        features=tuple(name for name, _ in named),
        units=tuple(unit for _, unit in named),
    )
    return Series(tuple(values[numbers] for numbers in rows.values()), labels)


def _groups(keys: Sequence[str]) -> dict[str, list[int]]:
    """{id: its rows}."""
    found: dict[str, list[int]] = {}
    for n, key in enumerate(keys):
        found.setdefault(key, []).append(n)
    return found


def _split(header: str) -> tuple[str, str]:
    """ "pressure [bar]" → ("pressure", "bar")."""
    found = UNIT.fullmatch(header)
    return (found["name"].strip(), found["unit"].strip()) if found else (header.strip(), "")


@dataclass(frozen=True, eq=False)
class _Table:
    """Columns of a file.

    Attributes:
        names: of the columns, empty without a header.
        columns: of .csv lists of text; of .parquet arrays, those that are read as text as lists.
        lines: which line of the file a row stands on.
        line: what such a line is called.
    """

    file: Path
    names: Sequence[str]
    columns: Sequence[Any]
    lines: Sequence[int]
    line: str

    @property
    def width(self) -> int:
        return len(self.columns)

    def find(self, name: str, option: str) -> int:
        """The column of that name."""
        for own in (lambda n: n.strip(), lambda n: _split(n)[0]):
            found = [k for k, given in enumerate(self.names) if own(given) == name.strip()]
            if len(found) == 1:
                return found[0]
            if found:
                raise InputError(
                    f"{self.file}: {len(found)} columns are called {name!r} ({option}): {', '.join(self.names[k] for k in found)}"
                )
        raise InputError(f"{self.file}: there is no column {name!r} ({option}); columns are {', '.join(self.names)}")

    def texts(self, k: int) -> list[str]:
        return [str(cell) for cell in self.columns[k]]

    def numbers(self, k: int, missing: bool) -> np.ndarray:
        """(rows,) float64."""
        column = self.columns[k]
        if isinstance(column, list):
            values = np.asarray([self._number(k, row, cell, missing) for row, cell in enumerate(column)], np.float64)
        else:
            if column.dtype.kind not in "fiub":
                raise InputError(
                    f"{self.file}: {self._column(k)} holds {column.dtype}, not numbers; "
                    "if it tells series apart or names the steps: --id or --time; else choose columns with --features"
                )
            values = column.astype(np.float64)
        wrong = np.flatnonzero(~np.isfinite(values))
        if missing:
            wrong = wrong[~np.isnan(values[wrong])]
        if len(wrong):
            cell = values[wrong[0]]
            raise InputError(
                f"{self.file}, {self.line} {self.lines[wrong[0]]}, {self._column(k)}: "
                f"{'missing' if np.isnan(cell) else str(cell)}; expected a finite number"
            )
        return values

    def _number(self, k: int, row: int, cell: str, missing: bool) -> float:
        try:
            return float(cell)
        except ValueError:
            if not cell.strip():
                return math.nan
            hint = ""
            if self.names:
                hint = "; if it tells series apart or names the steps: --id or --time; else choose columns with --features"
            raise InputError(
                f"{self.file}, {self.line} {self.lines[row]}, {self._column(k)}: {cell[:60]!r} is no number{hint}"
            ) from None

    def _column(self, k: int) -> str:
        return f"column {self.names[k]!r}" if self.names else f"column {k + 1}"


def _csv(file: Path, header: bool) -> _Table:
    """``header``: the first line is one, whatever it holds."""
    rows: list[tuple[int, list[str]]] = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            start = 1
            for row in reader:
                if row:
                    rows.append((start, row))
                start = reader.line_num + 1
    except OSError as error:
        raise InputError(f"{file}: can't be read: {error.strerror or error}") from error
    except (ValueError, csv.Error) as error:
        raise InputError(f"{file}: can't be read as .csv: {error}") from error
    names: list[str] = []
    if rows and (header or not any(map(_is_number, rows[0][1]))):
        names = rows.pop(0)[1]
    if not rows:
        raise InputError(f"{file}: no rows of numbers")
    width = len(names) or len(rows[0][1])
    for n, row in rows:
        if len(row) != width:
            alone = "; only a comma parts columns" if width == 1 else ""  # as where it is the decimal point
            raise InputError(f"{file}, line {n}: {len(row)} columns, expected {width}{alone}")
    columns = [list(cells) for cells in zip(*(row for _, row in rows), strict=True)]
    return _Table(file, names, columns, [n for n, _ in rows], "line")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parquet(file: Path, as_text: Sequence[str]) -> _Table:
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtra("pyarrow", extra="data", purpose="reading .parquet") from error
    try:
        table = parquet.read_table(file)
        columns = [
            [str(cell) for cell in column.to_pylist()]
            if name in as_text or _split(name)[0] in as_text
            else np.asarray(column.to_numpy())
            for name, column in zip(table.column_names, table.columns, strict=True)
        ]
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"{file}: can't be read as .parquet: {error}") from error
    if not columns or not table.num_rows:
        raise InputError(f"{file}: no rows of numbers")
    return _Table(file, table.column_names, columns, range(1, table.num_rows + 1), "row")
