"""What an attribution point looks like: words, a heat map of time × feature with the input's curve, an image, or bars.

Everything is drawn on a scale that several explanations of one sample share, in sizes that keep a page small: relevance adds up, so
long series are summed over neighbouring steps, and what is left out is said with its sum.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .colors import level
from .view import Point, number, short

__all__ = ["Bars", "Chip", "Figure", "Grid", "Room", "Words", "figures"]

LONG = 80  # characters of a word in its chip; the table has all
TICKS = 7


@dataclass(frozen=True)
class Room:
    """How much of one attribution point is shown.

    Attributes:
        cells: of a heat map.
        words: in a row.
        features: rows of a heat map.
        bars: features without time.
        terse: many figures share a page: without what is repeated on hover, or of an embedding's features.
    """

    cells: int = 12_000
    words: int = 2_000
    features: int = 32
    bars: int = 60
    terse: bool = False

    @classmethod
    def of(cls, count: int) -> Room:
        """For one of ``count`` figures on a page."""
        count = max(count, 1)
        wide = 36_000 if count <= 100 else 24_000  # the frames of many figures cost as much
        cells, words, bars = (min(most, total // count) for most, total in ((12_000, wide), (2_000, 8_000), (60, 4_000)))
        return cls(max(cells, 64), max(words, 40), 32, max(bars, 20), count > 20)


@dataclass(frozen=True)
class Chip:
    """A word: as written, as shown, its relevance, the colour's class, and what to say on hover ("": what it shows)."""

    word: str
    shown: str
    value: float
    level: str
    tip: str


@dataclass(frozen=True)
class Words:
    """A text; ``rest``: how many words are left out and their sum; ``grid``: the embedding's features."""

    unit: str
    chips: tuple[Chip, ...]
    direction: str
    rest: tuple[int, float]
    largest: float
    grid: Grid | None = None
    kind: str = "words"


@dataclass(frozen=True)
class Grid:
    """A heat map. x runs over ``across``, y over ``down``.

    Attributes:
        shades: (colour's class, SVG path of lines, one wide, through the middles of its cells).
        curves: (row, SVG path) of the input, in hundredths of the row's height, each in its own range.
        sums: (colour's class, SVG path) of bars over the columns, on an axis from -1 to 1; empty in an image.
        ticks: (percent along x, label).
        totals: relevance of each row.
        table: a line a step: label, numbers of the features, their sum.
        read: the model's input at the same places, "" where unknown; None if there is none.
        notes: what was summed or left out.
    """

    unit: str
    across: tuple[str, ...]
    down: tuple[str, ...]
    shades: tuple[tuple[str, str], ...]
    curves: tuple[tuple[int, str], ...]
    sums: tuple[tuple[str, str], ...]
    ticks: tuple[tuple[float, str], ...]
    totals: tuple[float, ...]
    head: tuple[str, ...]
    table: tuple[tuple[str, tuple[float, ...], float], ...]
    read: tuple[tuple[str, ...], ...] | None
    notes: tuple[str, ...]
    largest: float
    largest_sum: float
    turned: bool
    kind: str = "series"


@dataclass(frozen=True)
class Bars:
    """Features without time: (label, value read, relevance, class of its sign, percent from the left, percent wide)."""

    unit: str
    rows: tuple[tuple[str, str, float, str, float, float], ...]
    rest: tuple[int, float]
    largest: float
    kind: str = "bars"


Figure = Words | Grid | Bars


def figures(points: Sequence[Point], room: Room, *, shared: bool = True) -> Sequence[Figure]:
    """One attribution point as several explanations saw it, on one scale.

    Args:
        points: of the same sample, one an explanation.
        shared: one scale for all; else each has its own.
    """
    first = points[0]
    largest = max(_largest(p.relevance) for p in points)
    if first.is_text or (first.embedded and first.unit == "step"):
        return [_words(p, room, largest if shared else _largest(p.relevance)) for p in points]
    if first.unit in ("step", "index") and (first.features is not None or first.unit == "step"):
        return _grids(points, room, shared=shared, turned=first.unit == "step")
    keep = _strongest(np.stack([_finite(p.relevance) for p in points]), room.bars)
    return [_bars(p, keep, largest if shared else _largest(p.relevance)) for p in points]


def _finite(array: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(array), array, 0.0)


def _largest(array: np.ndarray) -> float:
    return float(np.abs(_finite(array)).max(initial=0)) or 1.0


def _strongest(rows: np.ndarray, count: int) -> list[int]:
    """The columns that moved most relevance, each row counting alike, in their order."""
    sizes = np.abs(rows) / np.maximum(np.abs(rows).max(1, keepdims=True), 1e-300)
    return sorted(int(k) for k in np.argsort(-sizes.sum(0), kind="stable")[:count])


# words


def _words(point: Point, room: Room, largest: float) -> Words:
    chips = []
    for k, (label, value) in enumerate(zip(point.labels[: room.words], point.relevance, strict=False)):
        value, shown = float(value), short(label, LONG)
        long = f" ({len(label):,} characters)" if shown != label else ""
        read = "" if point.values is None or point.values.shape[1] != 1 else f"\nid {point.values[k, 0]:g}"
        tip = f"{shown}{long}: {number(value)}{read}" if not room.terse or long else ""
        chips.append(Chip(label, shown, value, level(value, largest), tip))
    rest = point.relevance[room.words :]
    grid = None
    if point.features is not None and not room.terse:
        brief = replace(point, labels=tuple(short(label, LONG) for label in point.labels))
        grid = _grids([brief], Room(max(room.cells // 2, 32), room.words, 24, 0), shared=True, turned=False)[0]
    return Words(point.unit, tuple(chips), _direction(point.labels), (len(rest), float(rest.sum())), largest, grid)


def _direction(labels: Sequence[str]) -> str:
    """That of the first letter that has one."""
    for label in labels[:200]:
        for letter in label[:200]:
            kind = unicodedata.bidirectional(letter)
            if kind in ("L", "R", "AL"):
                return "ltr" if kind == "L" else "rtl"
    return "ltr"


# heat maps


def _grids(points: Sequence[Point], room: Room, *, shared: bool, turned: bool) -> list[Grid]:
    """``turned``: steps run along x; else they are the rows, as in an image or a text."""
    matrices = [_finite_or_nan(p) for p in points]
    steps, features = matrices[0].shape
    count = max(1, min(room.features if turned or points[0].embedded else features, features, room.cells // 24 or 1))
    keep = _strongest(np.concatenate([np.abs(_finite(m)).sum(0)[None] for m in matrices]), count)
    every = max(1, math.ceil(steps * len(keep) / room.cells))
    starts = np.arange(0, steps, every)
    notes = []
    if len(keep) < features:
        notes.append(f"the {len(keep)} strongest of {features} features are shown")
    if every > 1:
        notes.append(f"every {'column' if turned else 'row'} is the sum of {every} {points[0].unit}s")
    summed = [np.add.reduceat(m[:, keep], starts, axis=0) for m in matrices]
    whole = [np.add.reduceat(_finite(p.relevance), starts) for p in points]
    largest = [_largest(m) for m in summed]
    largest_sum = [_largest(s) for s in whole]
    if shared:
        largest, largest_sum = [max(largest)] * len(points), [max(largest_sum)] * len(points)
    labels = _binned(points[0].labels, every)
    return [
        _grid(p, m, s, keep, starts, labels, top, top_sum, turned, room.terse, tuple(notes))
        for p, m, s, top, top_sum in zip(points, summed, whole, largest, largest_sum, strict=True)
    ]


def _finite_or_nan(point: Point) -> np.ndarray:
    matrix = point.relevance[:, None] if point.features is None else point.features
    return np.where(np.isfinite(matrix), matrix, np.nan)


def _binned(labels: Sequence[str], every: int) -> tuple[str, ...]:
    if every == 1:
        return tuple(labels)
    last = len(labels) - 1
    return tuple(f"{labels[k]} – {labels[min(k + every - 1, last)]}" for k in range(0, len(labels), every))


def _grid(
    point: Point,
    matrix: np.ndarray,
    whole: np.ndarray,
    keep: Sequence[int],
    starts: np.ndarray,
    labels: tuple[str, ...],
    largest: float,
    largest_sum: float,
    turned: bool,
    terse: bool,
    notes: tuple[str, ...],
) -> Grid:
    names = point.columns
    features = tuple(names[k] if names is not None and k < len(names) else str(k) for k in keep)
    if point.features is None:
        features = (names[0] if names else "",)
    picture = matrix.T if turned else matrix
    read: tuple[tuple[str, ...], ...] | None = None
    curves: tuple[tuple[int, str], ...] = ()
    if point.values is not None and not point.embedded and point.values.shape[1] > max(keep):
        values = _means(point.values[:, keep], starts)
        read = None if terse else tuple(tuple("" if v != v else f"{v:.4g}" for v in row) for row in values)
        if turned and len(labels) > 1:
            curves = tuple((k, path) for k in range(len(keep)) if (path := _curve(values[:, k])))
    return Grid(
        unit=point.heading or point.unit,
        across=labels if turned else features,
        down=features if turned else labels,
        shades=tuple(_shades(picture, largest)),
        curves=curves,
        sums=tuple(_columns(whole, largest_sum)) if turned and len(features) > 1 else (),
        ticks=_ticks(labels if turned else features),
        totals=tuple(float(v) for v in np.nansum(picture, axis=1)),
        head=features,
        table=tuple((label, tuple(map(float, row)), float(s)) for label, row, s in zip(labels, matrix, whole, strict=True)),
        read=read,
        notes=notes,
        largest=largest,
        largest_sum=largest_sum,
        turned=turned,
        kind="series" if turned else "image",
    )


def _means(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Of every bin; nan where the input is not finite."""
    counts = np.diff(np.append(starts, len(values)))[:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        means = np.add.reduceat(values, starts, axis=0) / counts
    return np.where(np.isfinite(means), means, np.nan)


def _shades(picture: np.ndarray, largest: float) -> list[tuple[str, str]]:
    """Cells of one shade as one path, neighbours in a row as one thick line; white ones are left to the background."""
    paths: dict[str, list[str]] = {}
    for y, row in enumerate(picture):
        classes = [level(float(v), largest) for v in row]
        x = 0
        while x < len(classes):
            end = x + 1
            while end < len(classes) and classes[end] == classes[x]:
                end += 1
            if classes[x] != "z":
                paths.setdefault(classes[x], []).append(f"M{x} {y}h{end - x}")
            x = end
    return [(name, "".join(cells)) for name, cells in sorted(paths.items())]


def _curve(values: np.ndarray) -> str:
    """The input of one feature over its own range, inside the row's middle four fifths."""
    known = values[np.isfinite(values)]
    if not len(known):
        return ""
    low, high = float(known.min()), float(known.max())
    span = high - low
    if not math.isfinite(span):
        return ""
    parts, pen = [], "M"
    for x, value in enumerate(values):
        if not math.isfinite(value):
            pen = "M"
            continue
        share = 0.5 if not span else (value - low) / span
        parts.append(f"{pen}{x} {90 - 80 * share:.0f}")
        pen = " "  # what follows a move is a line
    return "".join(parts)


def _columns(sums: np.ndarray, largest: float) -> list[tuple[str, str]]:
    """A bar a column, up from 0 to -1 (SVG's y points down) for what raises the score, down for what lowers it."""
    paths: dict[str, list[str]] = {}
    for x, value in enumerate(sums):
        share = max(-1.0, min(float(value) / largest, 1.0))
        if abs(share) >= 0.005:
            paths.setdefault("u20" if share > 0 else "d20", []).append(f"M{x} 0v{-share:.2f}")
    return [(name, "".join(cells)) for name, cells in sorted(paths.items(), reverse=True)]


def _ticks(labels: Sequence[str]) -> tuple[tuple[float, str], ...]:
    """A few of the labels, at the middles of their columns; fewer where they are long."""
    longest = max((len(label) for label in labels), default=1)
    most = max(2, min(TICKS, 64 // (longest + 3)))
    every = _round(len(labels) / most)
    return tuple((100 * (k + 0.5) / len(labels), short(labels[k], 24)) for k in range(0, len(labels), every))


def _round(least: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, …"""
    size = 1
    while True:
        for step in (1, 2, 5):
            if step * size >= least:
                return step * size
        size *= 10


# bars


def _bars(point: Point, keep: Sequence[int], largest: float) -> Bars:
    rows = []
    for k in keep:
        value = float(point.relevance[k])
        share = max(-1.0, min(value / largest, 1.0)) if math.isfinite(value) else 0.0
        read = "" if point.values is None or point.values.shape[1] != 1 else f"{point.values[k, 0]:.4g}"
        name = level(math.copysign(1.0, value) if value and math.isfinite(value) else value, 1.0)  # its length says how much
        rows.append((point.labels[k], read, value, name, 50 + 50 * min(share, 0.0), 50 * abs(share)))
    kept = set(keep)
    rest = [float(v) for k, v in enumerate(point.relevance) if k not in kept]
    return Bars(point.unit, tuple(rows), (len(rest), math.fsum(rest)), largest)
