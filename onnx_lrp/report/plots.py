"""An Explanation as matplotlib Axes: bars by word or step, a heat map over features, the books as a waterfall. They show what
:mod:`.view` prepares, in the colours of the HTML page; matplotlib is imported with the first plot."""

from __future__ import annotations

import importlib
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..books import Books
from ..errors import InputError, MissingExtra
from ..explanation import Explanation
from .colors import LOWERS, RAISES
from .rows import Tokens, behind_ids
from .sample import Point, Sample
from .view import one
from .wording import SIGNS, number, readable, warning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["KINDS", "LOWERS", "RAISES", "plot", "waterfall"]

KINDS = ("bar", "heatmap", "waterfall")
NEUTRAL = "#626a76"
LONG = 28  # characters of a label; longer ones are cut in the middle, as layers' names differ at their ends
TALLEST = 20.0  # inches; more lines than fit share them
PLAIN: dict[str, Any] = {"parse_math": False, "usetex": False}  # names and words are text, whatever $ and _ they hold


def plot(
    explanation: Explanation,
    kind: str | None = None,
    *,
    point: str | None = None,
    sample: int | None = 0,
    tokens: Tokens | None = None,
    layers: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """See :meth:`Explanation.plot`."""
    if kind is not None and kind not in KINDS:
        raise InputError(f"no plot {kind!r}; there are: {', '.join(KINDS)}")
    if explanation.several:
        raise InputError("several classes were explained: select(k) one, then plot it")
    if kind == "waterfall":
        if point is not None or tokens is not None:
            raise InputError("a waterfall is of all attribution points and has no steps: leave point= and tokens= out")
        return _waterfall_of(explanation, sample, layers, ax)
    if layers:
        raise InputError('layers=True is for plot("waterfall")')
    if sample is None:
        raise InputError('sample=None, all summed, is for plot("waterfall"); name one')
    name = explanation._point(point)
    shown = one(explanation, sample, tokens=tokens)
    found = shown.points[list(explanation.relevance).index(name)]
    if tokens is not None and not found.is_text:
        raise InputError(f"the tokens don't fit {found.name}, which has {len(found.labels)} rows")
    if (kind or _default(explanation, name, found)) == "bar":
        return _bars(found, shown, ax)
    return _heatmap(found, shown, _grid(explanation, name, sample, found), ax)


def waterfall(
    books: Books,
    ax: Axes | None = None,
    *,
    layers: bool = False,
    title: Sequence[str] = (),
    signs: tuple[str, str] = SIGNS["lrp"],
) -> Axes:
    """The books from the seed at the top down to nothing: every bar begins where the one above ends.

    Args:
        layers: one bar a layer and kind of absorption instead of one a kind.
        title: lines to stand above instead of the seed.
        signs: what + and - mean.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    entries = readable(books).waterfall(layers=layers)
    values = _finite([e.value for e in entries])
    # where a bar ends: the seed stands on 0, all others hang from what is left
    ends = np.append(values[0], values[0] - np.cumsum(values[1:]))
    ends[-1] = 0.0 if len(ends) > 1 else ends[-1]  # by the definition of a residual, but for rounding
    lefts = np.append(0.0, ends[1:])
    colors = [
        NEUTRAL if e.kind == "seed" else (RAISES if v > 0 else LOWERS)[e.kind != "input"]
        for e, v in zip(entries, values, strict=True)
    ]
    axes = _axes(ax, height=1.3 + 0.26 * len(entries))
    bars = axes.barh(np.arange(len(entries)), values, left=lefts, color=colors, height=0.8)
    axes.vlines(ends[:-1], np.arange(len(entries) - 1), np.arange(1, len(entries)), color=NEUTRAL, linewidth=0.8)
    _rows(axes, [e.label for e in entries])
    _amounts(axes, bars, [e.value for e in entries], lying=True)
    _legend(axes, signs)
    _title(axes, title or (f"where the relevance went, seed {number(books.seed)}", warning(books.seed)))
    return axes


def _waterfall_of(explanation: Explanation, sample: int | None, layers: bool, ax: Axes | None) -> Axes:
    shown = one(explanation, 0 if sample is None else sample)
    if shown.instead:
        raise InputError(f"no waterfall: {shown.instead}")
    if sample is None:
        return waterfall(explanation.books(), ax, layers=layers, signs=shown.signs)
    return waterfall(shown.books, ax, layers=layers, title=_heading(shown), signs=shown.signs)


def _default(explanation: Explanation, name: str, found: Point) -> str:
    """Bars for words and for what is one number a row; behind ids too, as an embedding's features have no meaning of their own."""
    return "bar" if found.features is None or found.is_text or behind_ids(explanation, name) else "heatmap"


def _grid(explanation: Explanation, name: str, b: int, found: Point) -> np.ndarray | None:
    """The (rows, columns) of an image, summed over its channels; None of anything else."""
    if found.image is not None:
        return found.image.whole
    batch, time = explanation.axes[name]
    array = np.asarray(explanation.relevance[name], np.float64)
    if batch is not None:
        array = np.take(array, b if array.shape[batch] == len(explanation.seed) else 0, batch)
    array = array.squeeze()
    return array if time is None and array.ndim == 2 else None


def _bars(found: Point, shown: Sample, ax: Axes | None) -> Axes:
    count, lying = len(found.labels), found.is_text
    values = _finite(found.relevance)
    colors = [RAISES[0] if v > 0 else LOWERS[0] for v in values]
    axes = _axes(ax, height=1.3 + 0.26 * count if lying else 3.4)
    if lying:
        bars = axes.barh(np.arange(count), values, color=colors, height=0.8)
        _rows(axes, found.labels)
    else:
        bars = axes.bar(np.arange(count), values, color=colors, width=0.8)
        axes.set_xlim(-0.5, count - 0.5)
        _counted(axes.xaxis)
        axes.axhline(0, color=NEUTRAL, linewidth=0.8)
    _amounts(axes, bars, found.relevance, lying=lying)
    _legend(axes, shown.signs, above="" if lying else found.unit)
    if not lying:
        axes.set_ylabel("relevance")
    _title(axes, [*_heading(shown), f"{found.name}: relevance by {found.unit}, sum {number(float(found.relevance.sum()))}"])
    return axes


def _heatmap(found: Point, shown: Sample, grid: np.ndarray | None, ax: Axes | None) -> Axes:
    matrix = found.relevance[:, None] if found.features is None else found.features
    largest = float(np.abs(_finite(matrix)).max(initial=0)) or 1.0
    axes = _axes(ax, height=4.2)
    from matplotlib.colors import LinearSegmentedColormap

    # an odd number of colours has one in the middle, which is white
    colors = LinearSegmentedColormap.from_list("relevance", [*LOWERS, "#ffffff", *reversed(RAISES)], N=257)
    image = axes.imshow(
        matrix.T if grid is None else grid,
        cmap=colors.with_extremes(bad="#dfe3e8"),
        vmin=-largest,
        vmax=largest,
        aspect="auto" if grid is None else "equal",
    )
    _counted(axes.xaxis)
    _counted(axes.yaxis)
    across, down = (found.unit, "feature") if grid is None else ("column", "row")
    axes.set(xlabel=across, ylabel=down)
    if found.is_text:
        _words(axes.xaxis, found.labels, axes.bbox.width, rotation=45, ha="right", rotation_mode="anchor")
    bar = axes.figure.colorbar(image, ax=axes)
    bar.set_label(_meaning(shown.signs, axes, axes.bbox.height), **PLAIN)
    _title(axes, [*_heading(shown), f"{found.name}: {across} × {down}, sum {number(float(found.relevance.sum()))}"])
    return axes


# the parts of a plot


def _axes(ax: Axes | None, *, height: float) -> Axes:
    """The caller's Axes, or those of a new figure of pyplot's, which notebooks show by themselves."""
    if ax is not None:
        return ax
    try:
        pyplot: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise MissingExtra("matplotlib", extra="plot", purpose="a plot of an explanation") from error
    return pyplot.figure(figsize=(8, min(max(height, 2.2), TALLEST)), layout="constrained").add_subplot()


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    """Names of lying bars, the first at the top."""
    axes.set_ylim(len(labels) - 0.5, -0.5)
    _words(axes.yaxis, labels, axes.bbox.height)
    axes.axvline(0, color=NEUTRAL, linewidth=0.8)


def _words(axis: Axis, labels: Sequence[str], pixels: float, **options: Any) -> None:
    """Names at 0, 1, 2 …, as many as there is room for."""
    every = math.ceil(len(labels) * 1.2 * _size() / max(_points(axis.axes, pixels), 1.0)) or 1
    shown = range(0, len(labels), every)
    axis.set_ticks(list(shown), [_short(labels[k]) for k in shown], **PLAIN, **options)


def _short(text: str) -> str:
    return text if len(text) <= LONG else f"{text[: LONG // 2]}…{text[1 - LONG // 2 :]}"


def _counted(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _amounts(axes: Axes, bars: Any, values: Sequence[float] | np.ndarray, *, lying: bool) -> None:
    """The number beside every bar, if there is room for all; and limits, which bars of no height don't give."""
    width, height = _points(axes, axes.bbox.width), _points(axes, axes.bbox.height)
    if len(values) * _size() * (1 if lying else 4.8) <= (height if lying else width):
        axes.bar_label(bars, [number(float(v)) for v in values], padding=3, fontsize=0.85 * _size())
        axes.use_sticky_edges = False  # a number may stand on either side of 0
        if lying:
            axes.set_xmargin(_margin(4.6 * _size(), width))
        else:
            axes.set_ymargin(_margin(1.6 * _size(), height))
    if not np.any(_finite(values)):
        (axes.set_xlim if lying else axes.set_ylim)(-1, 1)


def _margin(needed: float, length: float) -> float:
    """Margin as a share of the data, so that it is that many points at either end; of small Axes never most."""
    return needed / max(length - 2 * needed, 2 * needed)


def _legend(axes: Axes, signs: tuple[str, str], *, above: str = "") -> None:
    text = _meaning(signs, axes, axes.bbox.width)
    axes.set_xlabel(f"{above}\n{text}" if above else text, **PLAIN)


def _meaning(signs: tuple[str, str], axes: Axes, pixels: float) -> str:
    """What the colours say, as the terminal says it: in one line, or one a colour."""
    parts = [f"{which} {sign}" for which, sign in zip(("+ (red)", "- (blue)"), signs, strict=True) if sign]
    line = ", ".join(parts)
    return line if _fit(line, pixels, axes) == line else ",\n".join(_fit(part, pixels, axes) for part in parts)


def _heading(shown: Sample) -> list[str]:
    title = f"{shown.title}: " if shown.title else ""
    return [f"{title}{shown.explained}, score {number(shown.books.seed)}", shown.note]


def _title(axes: Axes, lines: Sequence[str]) -> None:
    axes.set_title("\n".join(_fit(line, axes.bbox.width, axes) for line in lines if line), fontsize=_size(), loc="left", **PLAIN)


def _fit(text: str, pixels: float, axes: Axes) -> str:
    """Text in lines of that length, by the width of an average letter."""
    return textwrap.fill(text, max(int(_points(axes, pixels) / (0.6 * _size())), 16))


def _points(axes: Axes, pixels: float) -> float:
    return pixels * 72 / axes.figure.dpi


def _size() -> float:
    """Points of a label's letters."""
    from matplotlib import rcParams

    return float(rcParams["font.size"])


def _finite(values: Any) -> np.ndarray:
    """What can be drawn of NaN and infinity is nothing; their numbers stand beside the bars."""
    array = np.asarray(values, np.float64)
    return np.where(np.isfinite(array), array, 0.0)
