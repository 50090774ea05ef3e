"""An Explanation as text for a terminal: 80 columns, numbers beside every colour, also through pipes and with NO_COLOR."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import IO

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ..books import Books
from .images import Image, binned
from .sample import Point, Sample
from .wording import behind, number

__all__ = ["console", "pair", "render", "show"]

RAISES, LOWERS = ((251, 220, 208), (200, 55, 40)), ((212, 226, 250), (40, 85, 190))  # weak, strong
BARS = " ▏▎▍▌▋▊▉█"
BAR = 20  # cells of the longest bar
SPARKS = "▁▂▃▄▅▆▇█"
LEAST = 1 / 16  # share of the largest below which a course shows nothing
FEATURES = 12  # of more, the strongest are shown
REGIONS = 8  # along an image's longer side
ROWS = 24  # longer series are shown as a line and their strongest steps


class _Console(Console):
    """rich's own answer to a closed pipe is SystemExit(1)."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "the pipe was closed")


def console(file: IO[str] | None = None) -> Console:
    """A console that interprets nothing in the text it gets."""
    return _Console(file=file, highlight=False, markup=False, emoji=False)


def show(samples: Sequence[Sample], *, file: IO[str] | None = None, left_out: int = 0) -> None:
    """Print samples, and how many were left out."""
    out = console(file)
    for sample in samples:
        out.print(render(sample, out.width))
    if left_out:
        out.print(f"{left_out} more samples are not shown; --json, --save and --html have them.")


def heat(share: float) -> Style:
    """Red for a positive share in [-1, 1], blue for a negative one."""
    if not abs(share) >= 0.03:  # nan too
        return Style()
    weak, strong = RAISES if share > 0 else LOWERS
    mix = min(abs(share), 1.0)
    r, g, b = (round(w + (s - w) * mix) for w, s in zip(weak, strong, strict=True))
    return Style(color="white" if mix > 0.55 else "black", bgcolor=f"rgb({r},{g},{b})")


def bar(share: float, width: int) -> str:
    """A bar from 0 to 1 in eighths of a character."""
    eighths = round(min(abs(share), 1.0) * width * 8) if share == share else 0
    return (BARS[-1] * (eighths // 8) + (BARS[eighths % 8] if eighths % 8 else "")) or ("▏" if share else "")


def render(sample: Sample, width: int) -> RenderableType:
    """One sample: heading, relevance at each attribution point, the books."""
    parts: list[RenderableType] = []
    if sample.title:
        parts.append(Text(sample.title, style="bold"))
    if sample.predicted:
        scores = ", ".join(f"{name}{behind(name)} {sample.written(value)}" for name, value in sample.scores[:8])
        more = f", … {len(sample.scores) - 8} more" if len(sample.scores) > 8 else ""
        parts.append(pair("predicted", Text.assemble((sample.predicted, "bold"), f"  ({scores}{more})")))
    before = ", before the probabilities" if sample.before else ""
    parts.append(
        pair("explained", Text(f"{sample.explained}{behind(sample.explained)}, score {number(sample.books.seed)}{before}"))
    )
    parts += [pair("note", Text(note)) for note in (sample.cut, sample.note, sample.cancels) if note]
    for point in sample.points:
        parts.append(Text())
        parts += _words(point, width) if point.is_text else _image(point, point.image) if point.image else _steps(point, width)
    up, down = sample.signs
    legend = f"+ (red) {up}" + (f", - (blue) {down}" if down else "")
    parts += [Text(), Text(legend + ("; ? = unknown to the model" if sample.unknown else "."))]
    parts += [Text(), Text(sample.instead) if sample.instead else _books(sample.books), Text()]
    return Group(*parts)


def pair(name: str, value: Text) -> Table:
    """A name, and beside it what may take several lines."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", width=max(10, cell_len(name)))
    grid.add_column(overflow="fold")
    grid.add_row(name, value)
    return grid


def _name(point: Point) -> Text:
    return Text.assemble((point.name, "bold"), f", relevance by {point.unit}, sum {number(float(point.relevance.sum()))}")


def _words(point: Point, width: int) -> list[RenderableType]:
    """Words in reading order, each with its number; a pair is never broken."""
    lines: list[RenderableType] = [_name(point)]
    line, used = Text(), 0
    for word, value in zip(point.labels, point.relevance, strict=True):
        figure = " " + number(value)
        mark = "?" if word.endswith("?") else ""  # of an unknown word, which is not cut off
        room = max(width - len(figure) - 1, 4) - len(mark)
        word = _cut(word.removesuffix("?"), room) + mark if word.strip() else "␣" * max(min(len(word), 4), 1)
        size = cell_len(word) + len(figure)
        if used and used + 3 + size > width:
            lines.append(line)
            line, used = Text(), 0
        if used:
            line.append("   ")
            used += 3
        line.append(word, heat(value / point.largest)).append(behind(word)).append(figure, "dim")
        used += size
    return [*lines, line]


def _cut(text: str, room: int) -> str:
    """Text in at most so many cells."""
    # no character takes less than a cell but marks: a text that long is cut before its cells are counted
    text = text[: 8 * room]
    return text if cell_len(text) <= room else set_cell_size(text, room - 1).rstrip() + "…"


def _steps(point: Point, width: int) -> list[RenderableType]:
    """A bar a row; of a long series its course and the strongest rows; of a series of several features the course of each."""
    parts: list[RenderableType] = [_name(point)]
    count = len(point.relevance)
    rows = np.arange(count)
    apart = point.unit == "step" and not point.embedded and (point.features is not None or bool(point.columns)) and count > 1
    if apart:
        parts += [*_courses(point, width), Text()]
    if count > ROWS:
        rows = np.sort(np.argsort(-np.abs(point.relevance), kind="stable")[: ROWS // 2])
        if not apart:
            parts.append(_course(point.relevance, point.largest, width))
        parts.append(Text(f"the {len(rows)} strongest of {count}:"))
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column(_cut(point.heading or point.unit, width // 3), justify="right", overflow="fold")
    table.add_column("relevance", justify="right", no_wrap=True)
    table.add_column("")
    if point.features is not None:
        table.add_column("strongest feature", overflow="fold")
    labels = [name + behind(name) for name in (_cut(point.labels[t], width // 3) for t in rows)]
    room = max(width - max(map(cell_len, labels)) - len("+1.23e+04") - BAR - 6 - len(": +1.23e+04"), 6)
    for label, t in zip(labels, rows, strict=True):
        share = float(point.relevance[t]) / point.largest
        style = "red" if share > 0 else "blue"
        cells: list[RenderableType] = [
            Text(label),
            Text(number(float(point.relevance[t]))),
            Text(bar(share, BAR), style),
        ]
        if point.features is not None:
            k = int(np.abs(point.features[t]).argmax())
            name = _cut(point.column(k), room)
            cells.append(Text(f"{name}{behind(name)}: {number(float(point.features[t, k]))}"))
        table.add_row(*cells)
    return [*parts, table]


def _image(point: Point, image: Image) -> list[RenderableType]:
    """The sums of channels, and the strongest of some regions of the whole."""
    channels, height, width = image.relevance.shape
    total = number(float(point.relevance.sum()))
    parts: list[RenderableType] = [Text.assemble((point.name, "bold"), f", relevance by row and column, sum {total}")]
    if channels > 1:
        sums = image.relevance.sum((1, 2))
        order = np.sort(np.argsort(-np.abs(sums), kind="stable")[:FEATURES])
        rows = [(f"channel {k}", float(sums[k])) for k in order]
        parts += [
            _ranked("channel", rows),
            *([Text(f"the {FEATURES} strongest of {channels}")] if len(order) < channels else []),
            Text(),
        ]
    every = -(-max(height, width) // REGIONS)
    regions = binned(np.nan_to_num(image.whole, posinf=0, neginf=0), every)
    strongest = np.sort(np.argsort(-np.abs(regions), axis=None, kind="stable")[:FEATURES])

    def span(k: int, size: int) -> str:
        first, last = k * every, min((k + 1) * every, size) - 1
        return f"{first}" if first == last else f"{first} – {last}"

    rows = []
    for k in strongest:
        y, x = divmod(int(k), regions.shape[1])
        rows.append((f"{span(y, height)}, {span(x, width)}", float(regions[y, x])))
    whole = f"the {len(rows)} strongest of {regions.size} regions of {height} × {width}:"
    return [*parts, *([Text(whole)] if len(rows) < regions.size else []), _ranked("rows, columns", rows)]


def _ranked(heading: str, rows: Sequence[tuple[str, float]]) -> Table:
    """A bar a row, the longest for the largest."""
    largest = max((abs(value) for _, value in rows if value == value), default=0.0) or 1.0
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column(heading, justify="right", overflow="fold")
    table.add_column("relevance", justify="right", no_wrap=True)
    table.add_column("")
    for label, value in rows:
        share = value / largest
        table.add_row(label, number(value), Text(bar(share, BAR), "red" if share > 0 else "blue"))
    return table


def _course(relevance: np.ndarray, largest: float, width: int) -> Text:
    """A series in one line: the strongest of each stretch, + above and - below as two rows of blocks, as far as there is any."""
    stretches = np.array_split(relevance, min(len(relevance), max(width - 2, 8)))
    rows = []
    for sign, style in (("+", "red"), ("-", "blue")):
        shares = [max(float((part if sign == "+" else -part).max()), 0.0) / largest for part in stretches]
        if any(share > LEAST for share in shares):
            blocks = "".join(SPARKS[min(int(share * 8), 7)] if share > LEAST else " " for share in shares)
            rows.append(Text.assemble(f"{sign} ", (blocks.rstrip(), style)))
    return Text("\n").join(rows)


def _courses(point: Point, width: int) -> list[RenderableType]:
    """Name, course and sum of the features that moved most relevance, and of all together; on one scale."""
    matrix = point.relevance[:, None] if point.features is None else point.features
    total = matrix.shape[1]
    strongest = np.sort(np.argsort(-np.abs(matrix).sum(0), kind="stable")[:FEATURES])
    names = [name + behind(name) for name in (_cut(point.column(int(k)), width // 3) for k in strongest)]
    lines = [matrix[:, k] for k in strongest]
    if total > 1:
        names.append(f"all {total}")
        lines.append(point.relevance)
    largest = max(float(np.abs(line).max(initial=0)) for line in lines) or 1.0
    room = width - max(cell_len("feature"), *map(cell_len, names)) - len("+1.23e+04") - 4
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("feature", no_wrap=True)
    wide = max(min(room, len(matrix) + 2), len("course"))
    title = f"course over {len(matrix)} steps"
    table.add_column(title if len(title) <= wide else "course", no_wrap=True, width=wide)
    table.add_column("sum", justify="right", no_wrap=True)
    for name, line in zip(names, lines, strict=True):
        table.add_row(Text(name), _course(line, largest, room), number(float(line.sum())))
    return [table, *([Text(f"the {len(strongest)} strongest of {total} features")] if total > len(strongest) else [])]


def _books(books: Books) -> Table:
    """Layers by kinds of absorption, and the sums that must match."""
    kinds = books.kinds if len(books.kinds) > 1 else []
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("where the relevance went", overflow="fold")
    table.add_column("relevance", justify="right", no_wrap=True)
    for kind in kinds:
        table.add_column(kind.replace("_", " "), justify="right", overflow="fold")
    lines = books.lines()
    styles = [None] * (len(lines) - 3) + ["dim", None, "bold"]  # the last are the sum, the residual and the seed
    for line, style in zip(lines, styles, strict=True):
        cells = [number(line.kinds[k]) if k in line.kinds else "" for k in kinds]
        table.add_row(Text(line.label), number(line.value), *cells, style=style)
    return table
