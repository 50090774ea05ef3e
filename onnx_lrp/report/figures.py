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
from .grids import Grid, grids
from .maps import Maps, maps
from .room import Room, finite, largest_of, strongest
from .sample import Point
from .wording import number, short

__all__ = ["Bars", "Chip", "Figure", "Words", "figures"]

LONG = 80  # characters of a word in its chip; the table has all


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
class Bars:
    """Features without time: (label, value read, relevance, class of its sign, percent from the left, percent wide)."""

    unit: str
    rows: tuple[tuple[str, str, float, str, float, float], ...]
    rest: tuple[int, float]
    largest: float
    kind: str = "bars"


Figure = Words | Grid | Maps | Bars


def figures(points: Sequence[Point], room: Room, *, shared: bool = True) -> Sequence[Figure]:
    """One attribution point as several explanations saw it, on one scale.

    Args:
        points: of the same sample, one an explanation.
        shared: one scale for all; else each has its own.
    """
    first = points[0]
    largest = largest_of(*(p.relevance for p in points))
    if first.is_text or first.unit == "token":
        return [_words(p, room, largest if shared else largest_of(p.relevance)) for p in points]
    if all(p.image is not None for p in points):
        return maps(points, room, shared=shared)
    if first.unit != "feature" and (first.features is not None or first.unit == "step"):
        return grids(points, room, shared=shared, turned=first.unit == "step")
    keep = strongest(np.stack([finite(p.relevance) for p in points]), room.bars)
    return [_bars(p, keep, largest if shared else largest_of(p.relevance)) for p in points]


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
        grid = grids([brief], Room(max(room.cells // 2, 32), room.words, 24, 0), shared=True, turned=False)[0]
    return Words(point.unit, tuple(chips), _direction(point.labels), (len(rest), float(rest.sum())), largest, grid)


def _direction(labels: Sequence[str]) -> str:
    """That of the first letter that has one."""
    for label in labels[:200]:
        for letter in label[:200]:
            kind = unicodedata.bidirectional(letter)
            if kind in ("L", "R", "AL"):
                return "ltr" if kind == "L" else "rtl"
    return "ltr"


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
