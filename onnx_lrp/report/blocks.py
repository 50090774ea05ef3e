"""What stands in the box of one sample on a page: its figures side by side, its flow, its waterfall, as far as there is room."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..books import Entry
from . import drawing
from .drawing import Drawing
from .figures import Figure, figures
from .room import Room
from .sample import Sample
from .wording import visible

__all__ = ["Bar", "Block", "blocks_of", "waterfall"]

BOXES, LINES = 1_000, 2_000  # layers in flows and in tables of books; samples beyond show their waterfall alone


@dataclass(frozen=True)
class Bar:
    """A step of a waterfall in percent of its width."""

    label: str
    value: float
    kind: str
    left: float
    width: float


@dataclass(frozen=True)
class Block:
    """One sample on the page: as each explanation saw it, and per attribution point a figure of each, on one scale.

    Attributes:
        drawings: the flow of each explanation, where it is known and there is room.
        layers: whether there is room for the books by layer.
    """

    index: int
    columns: tuple[tuple[str, Sample], ...]
    points: tuple[tuple[Figure, ...], ...]
    drawings: tuple[Drawing | None, ...]
    layers: bool

    @property
    def sample(self) -> Sample:
        """The first explanation's, which filter and sort go by."""
        return self.columns[0][1]

    @property
    def same(self) -> bool:
        """Whether all of them explain the same score."""
        return len({(s.explained, s.books.seed) for _, s in self.columns}) == 1

    @property
    def relevance(self) -> float:
        """What arrived at all attribution points."""
        return math.fsum(self.sample.books.points.values())


def blocks_of(columns: Mapping[str, Sequence[Sample]], shared: bool) -> list[Block]:
    """{name: the samples as one explanation saw them} sample by sample; ``shared``: on one scale."""
    count = len(next(iter(columns.values())))
    blocks = []
    boxes, lines = BOXES, LINES
    for b in range(count):
        own = tuple((visible(name), shown[b]) for name, shown in columns.items())
        points = len(own[0][1].points)
        room = Room.of(count * len(own) * max(points, 1))
        seen = tuple(tuple(figures([s.points[p] for _, s in own], room, shared=shared)) for p in range(points))
        flows = [None if s.flow is None or boxes < len(s.flow.nodes) else drawing.draw(s.flow) for _, s in own]
        boxes -= sum(len(d.boxes) for d in flows if d is not None)
        lines -= sum(len(s.books.ledger) for _, s in own)
        blocks.append(Block(b, own, seen, tuple(flows), lines >= 0))
    return blocks


def waterfall(entries: Sequence[Entry]) -> list[Bar]:
    """Bars in percent: the seed stands on zero, each of the others hangs from what is left."""
    size = max((abs(e.value) for e in entries if math.isfinite(e.value)), default=0.0) or 1.0
    edges: list[tuple[float, float]] = []
    left = 0.0
    for entry in entries:
        value = entry.value / size if math.isfinite(entry.value) else 0.0
        start, end = (0.0, value) if entry.kind == "seed" else (left, left - value)
        edges.append((min(start, end), max(start, end)))
        left = end
    low, high = min(0.0, *(e[0] for e in edges)), max(0.0, *(e[1] for e in edges))
    span = (high - low) or 1.0
    return [
        Bar(e.label, e.value, e.kind, 100 * (a - low) / span, 100 * (b - a) / span)
        for e, (a, b) in zip(entries, edges, strict=True)
    ]
