"""Columns of a block made into the rows that the engine takes, with the target of each and the problems found on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..seeds import scores_of
from .engine import Engine
from .rows import Encode, Problem, arrays, side_by_side
from .texts import Texts

__all__ = ["Decoder", "Rows"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows, ready to be explained.

    Attributes:
        inputs: {graph input: an array a row, None where there is a problem}.
        targets: one a row, None: the same for all.
        problems: {row: what is wrong with it}.
        sizes: (n,) bytes that a row takes up, its results estimated.
        texts: a row each, None where there is a problem; empty where rows are no texts.
    """

    inputs: Mapping[str, list[Any]]
    targets: list[Any] | None
    problems: dict[int, Problem]
    sizes: np.ndarray
    texts: list[Any] = field(default_factory=list)

    @property
    def good(self) -> list[int]:
        """The rows without a problem so far."""
        return [i for i in range(len(self.sizes)) if i not in self.problems]


@dataclass(frozen=True, eq=False)
class Decoder:
    """How columns become rows.

    Attributes:
        engine: that will explain them.
        inputs: {graph input: the columns it is read from}.
        target: the column of the targets, None: there is none.
        encode: text → token ids.
        texts: the column of texts that feeds all other graph inputs, None: there is none.
    """

    engine: Engine
    inputs: Mapping[str, Sequence[str]]
    target: str | None = None
    encode: Encode | None = None
    texts: Texts | None = None

    @property
    def columns(self) -> list[str]:
        """All that it reads."""
        names = [name for columns in self.inputs.values() for name in columns]
        names += [] if self.texts is None else [self.texts.column]
        return list(dict.fromkeys(names if self.target is None else [*names, self.target]))

    def rows(self, columns: Mapping[str, Any], size: int, broken: Mapping[int, str] | None = None) -> Rows:
        """The rows of a block of ``size``; ``broken``: lines that are none, with the reason."""
        problems = {i: Problem("line", why) for i, why in (broken or {}).items()}
        inputs: dict[str, list[Any]] = {}
        sizes = np.zeros(size, np.int64)
        for name, parts in self.inputs.items():
            rank, strings = self.engine.rank(name), self.engine.reads_text(name)
            each = rank if len(parts) == 1 or rank is None else rank - 1
            rows: list[Any] = side_by_side([arrays(columns[p], rank=each, strings=strings, encode=self.encode) for p in parts])
            for i, row in enumerate(rows):
                if isinstance(row, Problem):
                    where = f"column {', '.join(parts)!r}" if len(parts) < 3 else f"columns {parts[0]!r} to {parts[-1]!r}"
                    problems.setdefault(i, Problem(row.kind, f"{where}: {row.reason}"))
                    rows[i] = None
            inputs[name] = rows
        texts: list[Any] = []
        if self.texts is not None:
            texts, wrong, fed = self.texts.rows(columns[self.texts.column], self.engine.explainer.inputs)
            inputs |= fed
            for i, problem in wrong.items():
                problems.setdefault(i, problem)
        for name, rows in inputs.items():
            estimated: dict[Any, int] = {}
            for i, row in enumerate(rows):
                if row is None:
                    continue
                if row.shape not in estimated:
                    estimated[row.shape] = row.nbytes + self.engine.row_bytes(name, row.shape)
                sizes[i] += estimated[row.shape]
        return Rows(inputs, self._targets(columns, problems), problems, sizes, texts)

    def _targets(self, columns: Mapping[str, Any], problems: dict[int, Problem]) -> list[Any] | None:
        if self.target is None:
            return None
        found: list[Any] = arrays(columns[self.target], rank=0, strings=False, encode=None)
        count = scores_of(self.engine.explainer._plan).classes
        for i, value in enumerate(found):
            why = value.reason if isinstance(value, Problem) else _wrong(value, count)
            if why is not None:
                problems.setdefault(i, Problem("target", f"column {self.target!r}: {why}"))
                found[i] = None
            else:
                found[i] = value.astype(np.int64)
        return found


def _wrong(value: np.ndarray, count: int | None) -> str | None:
    """Why a target is no class, or none at every position."""
    if value.dtype.kind == "f" and not np.all(value == np.round(value)):
        return f"{value.ravel()[0] if value.ndim == 0 else value} is no class"
    if value.size == 0:
        return "no classes"
    if value.min() < 0 or (count is not None and value.max() >= count):
        wrong = int(value.min()) if value.min() < 0 else int(value.max())
        return f"there is no class {wrong}; this output has class 0 {'and up' if count is None else f'to {count - 1}'}"
    return None
