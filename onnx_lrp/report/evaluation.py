"""An Evaluation as tables: which figures stand beside each other, and how they are written; the terminal's form of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ..evaluation.metrics import METRICS
from .terminal import console
from .wording import visible

if TYPE_CHECKING:
    from ..evaluation.bootstrap import Interval
    from ..evaluation.result import Evaluation

__all__ = ["Cell", "Sheet", "about", "describe_evaluation", "figure", "sheets"]

ARROWS = {1: " ↑", -1: " ↓", 0: ""}
# heading, and the columns below it: (metric, group)
TABLES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("what follows when units are taken away", (("deletion", "all"), ("deletion_least", "all"), ("insertion", "all"))),
    (
        "rightly and wrongly classified samples apart",
        (("deletion", "right"), ("deletion", "wrong"), ("accuracy_fall", "all"), ("accuracy_rise", "all")),
    ),
    ("the most relevant as the reasons", (("comprehensiveness", "all"), ("sufficiency", "all"), ("descriptive_accuracy", "all"))),
    (
        "the relevances themselves",
        (("sparsity", "all"), ("gap", "all"), ("residual", "all"), ("milliseconds", "all")),
    ),
    ("sanity", (("instability", "all"), ("parameters", "all"), ("logit", "all"))),
)
# what the differences to the first method are shown of: the first of these that was measured
APART = (
    (("deletion", "right"), ("deletion", "wrong"), ("insertion", "all")),
    (("deletion", "all"), ("deletion_least", "all"), ("insertion", "all")),
)


@dataclass(frozen=True)
class Cell:
    """A figure; ``best``: of all methods but random; ``chance``: no better than random."""

    text: str
    tip: str = ""
    best: bool = False
    chance: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table: ``columns`` of (title, what it says or ""), ``rows`` of (method, cells)."""

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def figure(value: float) -> str:
    """About four characters of a number."""
    size = abs(value)
    if not math.isfinite(value):
        return "–"
    return "0" if size == 0 else f"{value:.0e}" if size < 0.001 else f"{value:.3f}" if size < 10 else f"{value:.4g}"


def sheets(found: Evaluation) -> Iterator[Sheet]:
    """The tables that have any figures."""
    for title, wanted in TABLES:
        columns = [(m, g) for m, g in wanted if g in found.intervals.get(m, {})]
        if not columns:
            continue
        rows = []
        for method in found.methods:
            cells = tuple(_cell(found, metric, group, method) for metric, group in columns)
            if any(c.text for c in cells):
                rows.append((method, cells))
        heads = tuple((_title(m, g), METRICS[m].says) for m, g in columns)
        yield Sheet(title, heads, tuple(rows))
    apart = _apart(found)
    if apart is not None:
        yield apart


def _apart(found: Evaluation) -> Sheet | None:
    """The others' differences to the first method, of which samples say more than two means do."""
    first, *others = found.methods
    measured = [columns for columns in APART if all(g in found.above_first.get(m, {}) for m, g in columns)]
    if not measured or others == ["random"]:
        return None
    columns = measured[0]
    rows = []
    for method in others:
        own = [found.above_first[m][g].get(method) for m, g in columns]
        rows.append((method, tuple(Cell("") if i is None else _range(i) for i in own)))
    heads = tuple((_title(m, g), "") for m, g in columns)  # they are said above
    return Sheet(f"difference to {visible(first)}, sample by sample: 95 % intervals", heads, tuple(rows))


def _range(own: Interval) -> Cell:
    low, high = ("0" if v == 0 else f"{v:+.3f}" if 0.001 <= abs(v) < 100 else f"{v:+.0e}" for v in (own.low, own.high))
    return Cell(f"{low} … {high}", f"mean {figure(own.mean)}, {own.count} samples")


def _title(metric: str, group: str) -> str:
    title = METRICS[metric].title if group == "all" else f"{group}: {METRICS[metric].title}"
    return title + ARROWS[METRICS[metric].better]


def _cell(found: Evaluation, metric: str, group: str, method: str) -> Cell:
    own = found.intervals[metric][group].get(method)
    if own is None:
        return Cell("")
    better, others = METRICS[metric].better, found.intervals[metric][group]
    rivals = [i.mean for m, i in others.items() if m != "random" and math.isfinite(i.mean)]
    best = bool(better) and method != "random" and len(rivals) > 1 and own.mean * better == max(r * better for r in rivals)
    chance = found.beats_random(metric, method, group) is False
    tip = f"95 % interval {figure(own.low)} to {figure(own.high)}, {own.count} samples"
    return Cell(_plus_minus(own), tip, best, chance)


def _plus_minus(own: Interval) -> str:
    half = (own.high - own.low) / 2
    return figure(own.mean) if not half > 0 else f"{figure(own.mean)} ± {half:.1g}"


def about(found: Evaluation) -> list[str]:
    """What was measured, in lines."""
    facts = found.facts
    labels = "" if facts["right"] is None else f", {facts['right']} rightly and {facts['wrong']} wrongly classified"
    unit = "one by one" if facts["by"] == "count" else "by shares of them"
    replace = facts["replace"]
    gone = "left out" if replace == "remove" else f"replaced by {replace if isinstance(replace, str) else f'id {replace}'}"
    units = facts["units"]
    lines = [
        f"{facts['samples']} samples{labels}; {units['mean']:.3g} {units['of']} each on average, taken away {unit}, {gone}",
        f"± is half of the 95 % interval over {facts['resamples']} resamples; random is the mean of {facts['seeds']} seeds",
    ]
    if {"instability", "parameters", "logit"} & set(found.intervals):
        lines.append(
            f"sanity on {facts['probes']} samples: noise of {facts['noise']} standard deviations, "
            f"{facts['networks']} random model(s)"
        )
    lines += [f"{count} rows left out: {visible(reason)}" for reason, count in facts["left_out"].items()]
    lines += [f"skipped, {what}: {why}" for what, why in found.skipped.items()]
    return lines


def describe_evaluation(found: Evaluation, *, file: IO[str] | None = None) -> None:
    """Print the tables."""
    out = console(file)
    for line in about(found):
        out.print(Text(line, "dim"))
    said: dict[str, str] = {}
    chance = False
    for sheet in sheets(found):
        table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim", title=sheet.title, title_justify="left")
        table.title_style = "bold"
        table.add_column("", no_wrap=True)
        for title, says in sheet.columns:
            table.add_column(title, justify="right", overflow="fold")
            if says:
                said[title.split(": ")[-1] if title.startswith(("right: del", "wrong: del")) else title] = says
        for method, cells in sheet.rows:
            texts = [Text(c.text + (" ≈" if c.chance else "  " if c.text else ""), "bold" if c.best else "") for c in cells]
            chance |= any(c.chance for c in cells)
            table.add_row(Text(visible(method).replace("_", " ")), *texts)
        out.print()
        out.print(table)
    out.print()
    marks = "↑ more is better, ↓ less is better, bold is the best mean" + (", ≈ no better than random" if chance else "")
    out.print(Text(marks, "dim"))
    for title, says in said.items():
        out.print(Text(f"{title.rstrip(' ↑↓')}: {says}", "dim"))
