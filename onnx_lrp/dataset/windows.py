"""The stream of rows cut into windows: as many rows as are kept in memory at once, none of two shards, none that is done."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .decoding import Decoder, Rows
from .formats import Block
from .places import File
from .reading import Dataset
from .rows import Problem, kept

__all__ = ["Window", "Windows"]


@dataclass(eq=False)
class Window:
    """Rows that are sorted by length and explained together.

    Attributes:
        shard: the shard they belong to.
        first, last: their numbers in the dataset, last exclusive.
        ends: whether the shard is complete with them.
        inputs, targets, problems: see :class:`~onnx_lrp.dataset.decoding.Rows`.
        texts: a row each, where they are read from texts.
        kept: {column to keep: Arrow arrays, one after the other}.
        places: (row of the window, file, row of the file) wherever another block begins.
    """

    shard: int
    first: int
    last: int = 0
    ends: bool = False
    size: int = 0
    inputs: dict[str, list[Any]] = field(default_factory=dict)
    targets: list[Any] | None = None
    problems: dict[int, Problem] = field(default_factory=dict)
    texts: list[Any] = field(default_factory=list)
    kept: dict[str, list[Any]] = field(default_factory=dict)
    places: list[tuple[int, str, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return self.last - self.first

    def place(self, row: int) -> tuple[str, int]:
        """The file of a row of the window, and its number there."""
        at, file, start = next(p for p in reversed(self.places) if p[0] <= row)
        return file, start + row - at


@dataclass(frozen=True, eq=False)
class Windows:
    """How windows are cut.

    Attributes:
        dataset, decoder: what is read, and how.
        types: {column to keep: its Arrow type}.
        size: rows of a shard.
        budget: bytes of a window, its results included.
        wanted: whether a shard is to be made.
        stop: none from this shard on, None: unknown.
    """

    dataset: Dataset
    decoder: Decoder
    types: dict[str, Any]
    size: int
    budget: int
    wanted: Callable[[int], bool]
    stop: int | None = None

    def _any(self, first: int, last: int) -> bool:
        return any(self.wanted(shard) for shard in range(first // self.size, (last - 1) // self.size + 1))

    def __iter__(self) -> Iterator[Window]:
        """The windows, in order; the last of a shard says so."""
        names = list(dict.fromkeys([*self.decoder.columns, *self.types]))
        window: Window | None = None
        for number, file, block in self.dataset.blocks(names, self._any, None if self.stop is None else self.stop * self.size):
            at = 0
            while at < block.size:
                shard = (number + at) // self.size
                end = min(block.size, (shard + 1) * self.size - number)
                if self.wanted(shard):
                    for part, rows, own in self._pieces(block.part(at, end)):
                        window = window or Window(shard, number + part.start - block.start)
                        self._extend(window, file, part, rows, own)
                        window.ends = window.last == (shard + 1) * self.size
                        if window.ends or window.size >= self.budget:
                            yield window
                            # what comes behind belongs to it: whether a shard is over is known at its last row, or at the end
                            window = None if window.ends else Window(shard, window.last, window.last)
                at = end
        if window is not None:
            window.ends = True
            yield window

    def _pieces(self, block: Block) -> Iterator[tuple[Block, Rows, dict[str, Any]]]:
        """A block, in parts that the budget holds."""
        columns = {name: block.columns[name] for name in self.types}
        own, problems = {}, {}
        for name, kind in self.types.items():
            own[name], wrong = kept(columns[name], kind)
            problems.update({i: Problem(p.kind, f"column {name!r}: {p.reason}") for i, p in wrong.items()})
        rows = self.decoder.rows(block.columns, block.size, block.broken)
        for i, problem in problems.items():
            rows.problems.setdefault(i, problem)
        cut = (np.cumsum(rows.sizes) - rows.sizes) // self.budget
        bounds = [0, *(np.flatnonzero(np.diff(cut)) + 1).tolist(), block.size]
        for first, last in itertools.pairwise(bounds):
            part = Rows(
                {n: r[first:last] for n, r in rows.inputs.items()},
                None if rows.targets is None else rows.targets[first:last],
                {i - first: p for i, p in rows.problems.items() if first <= i < last},
                rows.sizes[first:last],
                rows.texts[first:last],
            )
            place = Block(block.start + first, last - first, {})
            yield place, part, {n: column[first:last] for n, column in own.items()}

    def _extend(self, window: Window, file: File, part: Block, rows: Rows, own: dict[str, Sequence[Any]]) -> None:
        at = max(window.last, window.first) - window.first
        window.places.append((at, file.name, part.start))
        window.last = window.first + at + part.size
        window.size += int(rows.sizes.sum())
        for name, values in rows.inputs.items():
            window.inputs.setdefault(name, []).extend(values)
        if rows.targets is not None:
            window.targets = [*(window.targets or []), *rows.targets]
        window.texts.extend(rows.texts)
        window.problems.update({at + i: p for i, p in rows.problems.items()})
        for name, column in own.items():
            window.kept.setdefault(name, []).append(column)
