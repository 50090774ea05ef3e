"""Heat maps: time × feature with the input's curve, or any table of rows × columns, as paths of SVG in few levels of colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .colors import level
from .room import Room, finite, largest_of, strongest
from .sample import Point
from .wording import short

__all__ = ["Grid", "binned_labels", "grids", "shades_of", "ticks_of"]

TICKS = 7


@dataclass(frozen=True)
class Grid:
    """A heat map. x runs over ``across``, y over ``down``.

    Attributes:
        shades: (colour's class, SVG path of lines, one wide, through the middles of its cells).
        curves: (row, SVG path) of the input, in hundredths of the row's height, each in its own range.
        sums: (colour's class, SVG path) of bars over the columns, on an axis from -1 to 1; empty in an image.
        ticks: (percent along x, label).
        totals: relevance of each row.
        column: what to say before a name of ``head``, "" where the names say it.
        total: what the sum of a line is.
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
    column: str = ""
    total: str = "all features"
    kind: str = "series"


def grids(points: Sequence[Point], room: Room, *, shared: bool, turned: bool) -> list[Grid]:
    """``turned``: steps run along x; else they are the rows, as in an image or a text."""
    matrices = [_finite_or_nan(p) for p in points]
    steps, features = matrices[0].shape
    count = max(1, min(room.features if turned or points[0].embedded else features, features, room.cells // 24 or 1))
    keep = strongest(np.concatenate([np.abs(finite(m)).sum(0)[None] for m in matrices]), count)
    every = max(1, math.ceil(steps * len(keep) / room.cells))
    starts = np.arange(0, steps, every)
    notes = []
    if len(keep) < features:
        notes.append(f"the {len(keep)} strongest of {features} features are shown")
    if every > 1:
        notes.append(f"every {'column' if turned else 'row'} is the sum of {every} {points[0].unit}s")
    summed = [np.add.reduceat(m[:, keep], starts, axis=0) for m in matrices]
    whole = [np.add.reduceat(finite(p.relevance), starts) for p in points]
    largest = [largest_of(*(summed if shared else [m])) for m in summed]
    largest_sum = [largest_of(*(whole if shared else [s])) for s in whole]
    labels = binned_labels(points[0].labels, every)
    return [
        _grid(p, m, s, keep, starts, labels, top, top_sum, turned, room.terse, tuple(notes))
        for p, m, s, top, top_sum in zip(points, summed, whole, largest, largest_sum, strict=True)
    ]


def _finite_or_nan(point: Point) -> np.ndarray:
    matrix = point.relevance[:, None] if point.features is None else point.features
    return np.where(np.isfinite(matrix), matrix, np.nan)


def binned_labels(labels: Sequence[str], every: int) -> tuple[str, ...]:
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
        shades=tuple(shades_of(picture, largest)),
        curves=curves,
        sums=tuple(_columns(whole, largest_sum)) if turned and len(features) > 1 else (),
        ticks=ticks_of(labels if turned else features),
        totals=tuple(float(v) for v in np.nansum(picture, axis=1)),
        head=features,
        table=tuple((label, tuple(map(float, row)), float(s)) for label, row, s in zip(labels, matrix, whole, strict=True)),
        read=read,
        notes=notes,
        largest=largest,
        largest_sum=largest_sum,
        turned=turned,
        column=point.word,
        total="whole row" if point.word == "column" else "all features",
        kind="series" if turned else "image",
    )


def _means(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Of every bin; nan where the input is not finite."""
    counts = np.diff(np.append(starts, len(values)))[:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        means = np.add.reduceat(values, starts, axis=0) / counts
    return np.where(np.isfinite(means), means, np.nan)


def shades_of(picture: np.ndarray, largest: float) -> list[tuple[str, str]]:
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


def ticks_of(labels: Sequence[str]) -> tuple[tuple[float, str], ...]:
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
