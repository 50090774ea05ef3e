"""A flow as a drawing: layers of boxes from the score down to the inputs, bands as wide as the relevance that went along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .flow import Edge, Flow, Node, levels
from .wording import number, short, visible

__all__ = ["Band", "Box", "Drawing", "draw"]

WIDTH, HEIGHT = 168, 40  # of a box
GAP, DROP = 36, 42  # between boxes, between layers
SPILL = 128  # beside a box, for what it absorbed
WIDEST, THINNEST = 56.0, 1.5  # of a band
BOXES = 80  # more are no picture any more


@dataclass(frozen=True)
class Band:
    """A curve; ``sign``: "up", "down", or "open" where the amount is unknown."""

    path: str
    width: str
    sign: str
    tip: str


@dataclass(frozen=True)
class Box:
    """A node, with one line for each kind of relevance that ended there."""

    x: int
    y: int
    title: str
    amount: str
    tip: str
    spills: tuple[tuple[str, str], ...]
    spill: Band | None
    kind: str


@dataclass(frozen=True)
class Drawing:
    """Everything in pixels; ``gaps``: bands whose amount is unknown."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    bands: tuple[Band, ...]
    gaps: int

    @property
    def box(self) -> tuple[int, int]:
        """Width and height of a box."""
        return WIDTH, HEIGHT


def draw(whole: Flow) -> Drawing | None:
    """None where there are too many layers for a picture."""
    if len(whole.nodes) > BOXES:
        return None
    rows = _ordered(whole, list(levels(whole)))
    slot = {n.key: WIDTH + (SPILL if n.absorbed else GAP) for n in whole.nodes}
    widths = [sum(slot[n.key] for n in row) for row in rows]
    width = max(max(widths), WIDTH + 2 * GAP)
    place: dict[str, tuple[int, int]] = {}
    for k, row in enumerate(rows):
        # boxes, not what stands beside them, are centred
        x = (width - SPILL - sum(WIDTH for _ in row) - sum(slot[n.key] - WIDTH for n in row[:-1])) // 2
        x = max(x, 8)
        for node in row:
            place[node.key] = (x, 8 + k * (HEIGHT + DROP))
            x += slot[node.key]
    width = max(x + slot[n.key] for n in whole.nodes for x in (place[n.key][0],))
    amounts = [abs(e.amount) for e in whole.edges if e.amount is not None]
    amounts += [sum(abs(v) for v in n.absorbed.values()) for n in whole.nodes]
    largest = max((a for a in amounts if a == a and a != float("inf")), default=0.0)
    scale = WIDEST / largest if largest > 1e-300 else 0.0
    return Drawing(
        width=width,
        height=16 + len(rows) * (HEIGHT + DROP) - DROP,
        boxes=tuple(_box(n, *place[n.key], scale) for n in whole.nodes),
        bands=tuple(_bands(whole, place, scale)),
        gaps=sum(e.amount is None for e in whole.edges),
    )


def _ordered(whole: Flow, rows: list[list[Node]]) -> list[list[Node]]:
    """Every row by the mean place of what is above it, so that bands cross little."""
    place: dict[str, float] = {}
    out = []
    for row in rows:
        means = {}
        for k, node in enumerate(row):
            above = [place[e.upper] for e in whole.edges if e.lower == node.key and e.upper in place]
            means[node.key] = sum(above) / len(above) if above else float(k)
        row = sorted(row, key=lambda n: means[n.key])
        place.update({n.key: k - len(row) / 2 for k, n in enumerate(row)})
        out.append(row)
    return out


def _sign(amount: float | None) -> str:
    return "open" if amount is None else "down" if amount < 0 else "up"


def _thick(amount: float | None, scale: float) -> float:
    return THINNEST if amount is None or amount != amount else min(max(abs(amount) * scale, THINNEST), WIDEST)


def _bands(whole: Flow, place: dict[str, tuple[int, int]], scale: float) -> list[Band]:
    """Bands leave and enter a box beside each other, in the order of the boxes at their other end."""
    starts = _ports(whole.edges, place, scale, upper=True)
    ends = _ports(whole.edges, place, scale, upper=False)
    titles = {n.key: n.title for n in whole.nodes}
    bands = []
    for k, edge in enumerate(whole.edges):
        y1, y2 = place[edge.upper][1] + HEIGHT, place[edge.lower][1]
        x1, x2, middle = starts[k], ends[k], (y1 + y2) // 2
        said = "can't be told apart from its neighbours" if edge.amount is None else number(edge.amount)
        tip = "\n".join([f"{titles[edge.upper]} → {titles[edge.lower]}: {said}", *edge.lines])
        path = f"M{x1:.0f} {y1}C{x1:.0f} {middle} {x2:.0f} {middle} {x2:.0f} {y2}"
        bands.append(Band(path, f"{_thick(edge.amount, scale):.1f}", _sign(edge.amount), _lines(tip)))
    return bands


def _ports(edges: Sequence[Edge], place: dict[str, tuple[int, int]], scale: float, *, upper: bool) -> list[float]:
    """Where on a box every edge's middle is."""
    at = [0.0] * len(edges)
    for key, (x, _) in place.items():
        own = [k for k, e in enumerate(edges) if (e.upper if upper else e.lower) == key]
        own.sort(key=lambda k: place[edges[k].lower if upper else edges[k].upper][0])
        room = [_thick(edges[k].amount, scale) for k in own]
        free = max(WIDTH - 16 - sum(room), 0) / (len(own) + 1)
        squeeze = min(1.0, (WIDTH - 16) / max(sum(room), 1e-9))
        left = x + 8 + free
        for k, thick in zip(own, room, strict=True):
            at[k] = left + thick * squeeze / 2
            left += thick * squeeze + free
    return at


def _box(node: Node, x: int, y: int, scale: float) -> Box:
    amount = "" if node.amount is None else number(node.amount)
    absorbed = sum(node.absorbed.values())
    parts = tuple((kind.replace("_", " "), number(v)) for kind, v in node.absorbed.items())
    lines = [f"{node.title} {amount}", *node.lines, *(f"absorbed, {kind}: {v}" for kind, v in parts)]
    spill = None
    if node.absorbed:
        thick = min(_thick(absorbed, scale), HEIGHT - 8.0)
        path = f"M{x + WIDTH} {y + HEIGHT // 2}h22"
        spill = Band(path, f"{thick:.1f}", _sign(absorbed), "")
    return Box(x, y, short(visible(node.title), 22), amount, _lines("\n".join(lines)), parts, spill, node.kind)


def _lines(text: str) -> str:
    """Lines of a tip, with what can't be seen spelled out."""
    return "\n".join(visible(line) for line in text.split("\n"))
