"""An image's relevance as maps at its own aspect: summed over channels and by channel, beside the input itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from .colors import GRAYS
from .grids import Grid, binned_labels, shades_of
from .images import Image, binned
from .room import Room, finite, largest_of, strongest
from .sample import Point

__all__ = ["Map", "Maps", "maps"]

CHANNELS = 6  # of more, the strongest are shown
LEAST, MOST = 96, 360  # pixels of a map's longer side


@dataclass(frozen=True)
class Map:
    """One picture: (W, H) pixels on the page; ``grid`` is None for the input, of which ``shades`` are all there is."""

    title: str
    total: float
    shades: tuple[tuple[str, str], ...]
    grid: Grid | None = None


@dataclass(frozen=True)
class Maps:
    """All pictures of one attribution point, on one scale.

    Attributes:
        rows, columns: of every picture, in cells.
        size: of every picture, in pixels: width, height.
        notes: what was summed or left out.
    """

    unit: str
    maps: tuple[Map, ...]
    rows: int
    columns: int
    size: tuple[int, int]
    notes: tuple[str, ...]
    largest: float
    kind: str = "maps"


def maps(points: Sequence[Point], room: Room, *, shared: bool) -> list[Maps]:
    """An image as several explanations saw it."""
    images = [p.image for p in points if p.image is not None]
    channels, height, width = images[0].relevance.shape
    keep = [] if channels == 1 or room.terse else strongest(np.stack([_sizes(i) for i in images]), CHANNELS)
    cells = max(64, room.cells // (2 + len(keep)))
    every = max(1, math.ceil(math.sqrt(height * width / cells)))
    notes = []
    if len(keep) < channels and channels > 1:
        notes.append(f"the {len(keep)} strongest of {channels} channels are shown" if keep else f"{channels} channels are summed")
    if every > 1:
        notes.append(f"every cell is the sum of {every} × {every} pixels")
    layers = [[_finite_or_nan(i.whole if k is None else i.relevance[k], every) for k in (None, *keep)] for i in images]
    largest = [largest_of(*(chain(*layers) if shared else each)) for each in layers]
    return [
        _maps(image, each, keep, every, top, tuple(notes), terse=room.terse)
        for image, each, top in zip(images, layers, largest, strict=True)
    ]


def _sizes(image: Image) -> np.ndarray:
    return np.asarray(np.abs(finite(image.relevance)).sum((1, 2)))


def _finite_or_nan(matrix: np.ndarray, every: int) -> np.ndarray:
    whole = binned(matrix, every)
    return np.where(np.isfinite(whole), whole, np.nan)


def _maps(
    image: Image,
    layers: Sequence[np.ndarray],
    keep: Sequence[int],
    every: int,
    largest: float,
    notes: tuple[str, ...],
    *,
    terse: bool,
) -> Maps:
    channels, height, width = image.relevance.shape
    rows, columns = layers[0].shape
    longest = max(LEAST, min(MOST, 10 * max(rows, columns)))
    scale = longest / max(height, width)
    found = []
    if image.values is not None and not terse:
        found.append(Map("the input" if channels == 1 else "the input, mean of its channels", 0.0, _gray(image.values, every)))
    titles = ["relevance" if channels == 1 else f"sum of {channels} channels", *(f"channel {k}" for k in keep)]
    for title, k, layer in zip(titles, (None, *keep), layers, strict=True):
        values = None if image.values is None or terse or (k is None and channels > 1) else image.values[k or 0]
        total = float(finite(image.whole if k is None else image.relevance[k]).sum())
        found.append(Map(title, total, tuple(shades_of(layer, largest)), _grid(layer, values, every, height, width, largest)))
    size = (max(round(scale * width), 8), max(round(scale * height), 8))
    return Maps("row", tuple(found), rows, columns, size, notes, largest)


def _grid(layer: np.ndarray, values: np.ndarray | None, every: int, height: int, width: int, largest: float) -> Grid:
    """What the table below a map holds, and hovering reads."""
    down = binned_labels([str(k) for k in range(height)], every)
    across = binned_labels([str(k) for k in range(width)], every)
    means = None if values is None else _means(values, every)
    return Grid(
        unit="row",
        across=across,
        down=down,
        shades=(),
        curves=(),
        sums=(),
        ticks=(),
        totals=(),
        head=across,
        table=tuple((label, tuple(map(float, row)), float(np.nansum(row))) for label, row in zip(down, layer, strict=True)),
        read=None if means is None else tuple(tuple("" if v != v else f"{v:.4g}" for v in row) for row in means),
        notes=(),
        largest=largest,
        largest_sum=0.0,
        turned=False,
        column="column",
        total="whole row",
        kind="map",
    )


def _means(values: np.ndarray, every: int) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        means = binned(values, every) / binned(np.ones_like(values), every)
    return np.where(np.isfinite(means), means, np.nan)


def _gray(values: np.ndarray, every: int) -> tuple[tuple[str, str], ...]:
    """Shades of gray from the input's smallest number, black, to its largest, white."""
    with np.errstate(invalid="ignore", over="ignore"):
        means = _means(values.mean(0), every)
    known = means[np.isfinite(means)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    span = high - low
    if not math.isfinite(span):
        return ()
    shares = np.nan_to_num((means - low) / span if span else np.zeros_like(means))
    paths: dict[str, list[str]] = {}
    for y, row in enumerate(np.round(shares * (GRAYS - 1)).astype(int)):
        starts = np.flatnonzero(np.diff(row, prepend=-1))
        for x, end in zip(starts, [*starts[1:], len(row)], strict=True):
            paths.setdefault(f"g{row[x]}", []).append(f"M{x} {y}h{end - x}")
    return tuple((name, "".join(cells)) for name, cells in sorted(paths.items()))
