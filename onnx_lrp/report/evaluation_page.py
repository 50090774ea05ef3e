"""An Evaluation as one self-contained HTML page: curves as inline SVG, and the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import __version__
from .evaluation import about, figure, sheets
from .html import _render
from .wording import visible

if TYPE_CHECKING:
    from ..evaluation.result import Evaluation

__all__ = ["Plot", "evaluation_page"]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 380, 230, 46, 42, 10
COLOURS = 7
CURVES = {
    "deletion": ("deletion", "explained score, the most relevant first; lower is better"),
    "deletion_least": ("deletion, least relevant first", "explained score; higher is better"),
    "insertion": ("insertion", "explained score, the most relevant put back first; higher is better"),
    "probability": ("descriptive accuracy", "probability of the explained class, the most relevant first; lower is better"),
    "accuracy_right": ("accuracy of the rightly classified", "the most relevant for their class first; lower is better"),
    "accuracy_wrong": ("accuracy of the wrongly classified", "the least relevant for their true class first; higher is better"),
}


@dataclass(frozen=True)
class Plot:
    """A picture of curves, in pixels: ``lines`` of (colour, path of the interval, path of the mean, method)."""

    title: str
    says: str
    spoken: str
    axis: str
    rows: tuple[tuple[float, str], ...]
    columns: tuple[tuple[float, str], ...]
    lines: tuple[tuple[str, str, str, str], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT


def evaluation_page(found: Evaluation, *, title: str | None = None) -> str:
    """The page, as text."""
    names = list(found.cascade.values())
    return _render(
        "evaluation.html",
        title=visible(title or "Are the explanations right?"),
        about=about(found),
        keys=[(m, _colour(found, m)) for m in found.methods],
        plots=[_plot(found, name) for name in CURVES if name in found.curves],
        sheets=list(sheets(found)),
        stages=[name for name, _ in names[0]] if names else [],
        cascade=[(m, [f"{figure(i.mean)} ± {(i.high - i.low) / 2:.1g}" for _, i in own]) for m, own in found.cascade.items()],
        version=__version__,
    )


def _colour(found: Evaluation, method: str) -> str:
    return "chance" if method == "random" else str(found.methods.index(method) % COLOURS)


def _plot(found: Evaluation, name: str) -> Plot:
    title, says = CURVES[name]
    own = found.curves[name]
    low = min(float(np.min(c[1])) for c in own.values())
    high = max(float(np.max(c[2])) for c in own.values())
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    last = len(found.readings) - 1

    def x(k: float) -> float:
        return round(LEFT + k / max(last, 1) * (WIDTH - LEFT - 14), 1)

    def y(value: float) -> float:
        return round(TOP + (high - value) / ((high - low) or 1.0) * (HEIGHT - TOP - BOTTOM), 1)

    def path(values: np.ndarray) -> str:
        return "M" + "L".join(f"{x(k)} {y(float(v))}" for k, v in enumerate(values))

    lines = []
    for method in sorted(own, key=lambda m: m != "random"):  # random lies below the others
        mean, under, over = own[method]
        back = "L".join(f"{x(k)} {y(float(under[k]))}" for k in range(last, -1, -1))
        lines.append((_colour(found, method), f"{path(over)}L{back}Z", path(mean), method))
    step = -(-len(found.readings) // 6)
    counted = found.facts["by"] == "count"
    unit = found.facts["units"]["of"]
    return Plot(
        title,
        says,
        "; ".join(f"{visible(m)} from {figure(float(c[0][0]))} to {figure(float(c[0][-1]))}" for m, c in own.items()),
        f"{unit} {'put back' if name == 'insertion' else 'taken away'}" + ("" if counted else ", share"),
        tuple((y(t), f"{t:.10g}") for t in ticks),
        tuple((x(k), found.readings[k]) for k in range(0, last + 1, step)),
        tuple(lines),
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that span a range, about five."""
    high = high if high > low else low + 1.0
    span = high - low
    power = 10.0 ** np.floor(np.log10(span / 4))
    step = float(next(s * power for s in (1, 2, 2.5, 5, 10) if span / (s * power) <= 5))
    first = int(np.floor(low / step + 1e-9))
    found = [round(k * step, 12) for k in range(first, first + 12) if k * step <= high + step * 0.999]
    return [*dict.fromkeys(t + 0.0 for t in found)]
