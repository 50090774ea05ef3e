"""How numbers, names and signs are written, alike in terminal, page and plots."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from ..books import Books
from ..printable import visible

__all__ = ["SIGNS", "behind", "number", "percent", "readable", "short", "visible", "warning"]

# what + and - mean, by method
SIGNS = {
    "lrp": ("raises the explained score", "lowers it"),
    "sensitivity": ("how strongly the score reacts (squared derivative)", ""),
    "gradient": ("a larger value here would raise the explained score", "would lower it"),
}


def short(text: str, length: int) -> str:
    """Text of at most ``length`` characters, cut in the middle, as layers' names differ at their ends."""
    return text if len(text) <= length else f"{text[: length // 2]}…{text[1 + length // 2 - length :]}"


def number(value: float) -> str:
    """A relevance with its sign, in about seven characters."""
    size = abs(value)
    if size == 0 or size != size:
        return "0" if size == 0 else "nan"
    return f"{value:+.3f}" if 0.0005 <= size < 1000 else f"{value:+.3g}" if size >= 1000 else f"{value:+.0e}"


def behind(name: str) -> str:
    """What goes between a name and its number: an invisible mark where the name is written from right to left, as it would take
    the number along, else nothing.
    """
    return "\u200e" if any(unicodedata.bidirectional(c) in ("R", "AL") for c in name) else ""


def percent(value: float) -> str:
    """A probability; not 100 or 0 where it isn't."""
    if 0 < value < 0.001 or 0.999 < value < 1:
        return "< 0.1 %" if value < 0.5 else "> 99.9 %"
    return f"{100 * value:.1f} %"


def warning(seed: float) -> str:
    """What to bear in mind where the explained score is negative, else empty."""
    if not seed < 0:
        return ""
    return f"The explained score is negative ({number(seed)}): + still means raises this score, - lowers it further."


def readable(books: Books, points: Sequence[str] | None = None) -> Books:
    """Books with their names spelled out.

    Args:
        points: names for the attribution points, in their order.
    """
    return Books(
        seed=books.seed,
        points=dict(zip(points or map(visible, books.points), books.points.values(), strict=True)),
        ledger={visible(layer): kinds for layer, kinds in books.ledger.items()},
        residual=books.residual,
    )
