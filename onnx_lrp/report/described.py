"""Models as text for a terminal: what was read, what stands in the way, which laws hold, what passed inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ..errors import UnsupportedModel
from ..summary import Summary
from .sample import Passed
from .terminal import console, pair
from .wording import number, visible

if TYPE_CHECKING:
    from ..testing import Report

__all__ = ["describe", "describe_check", "describe_cuts", "describe_passed"]

MOST_CUTS = 20
MOST_ROWS = 1000  # layers of a model: a table of 60,000 takes longer to lay out than the model to read


def describe_passed(rows: Sequence[Passed], *, file: IO[str] | None = None) -> None:
    """Print the sums of the relevance that was kept inside, a column a sample."""
    count = max(len(row.sums) for row in rows)
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("relevance inside", overflow="fold")
    table.add_column("shape", no_wrap=True)
    for k in range(count):
        table.add_column(f"sample {k + 1}" if count > 1 else "sum", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(Text(row.name), row.shape, *map(number, row.sums))
    console(file).print(table)


def describe(summary: Summary, *, file: IO[str] | None = None) -> None:
    """Print what was read of a model."""
    axes = summary.axes
    pairs = [
        ("inputs", ", ".join(summary.inputs)),
        ("outputs", ", ".join(summary.outputs)),
        ("explained", summary.explained),
        ("relevance", "ends at " + ", ".join(summary.points)),
        ("axes", f"batch {axes['batch']}, time {axes['time']}, class {axes['class']}"),
        ("rule", summary.rule),
        *([("prefix", "by onnxruntime: " + ", ".join(summary.prefix))] if summary.prefix else []),
        *(("note", note) for note in summary.notes),
    ]
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    for column in ("layer", "name", "shape", "role", "weights, decisions"):
        table.add_column(column, overflow="fold")
    for row in summary.rows[:MOST_ROWS]:
        table.add_row(*(Text(visible(cell)) for cell in (row.layer, row.name, row.shape, row.role, row.note or row.weights)))
    out = console(file)
    for name, value in pairs:
        out.print(pair(name, Text(visible(value))))
    out.print()
    out.print(table)
    if len(summary.rows) > MOST_ROWS:
        out.print(f"… and {len(summary.rows) - MOST_ROWS} more (--json)")


def describe_cuts(error: UnsupportedModel, *, file: IO[str] | None = None) -> None:
    """Print the nodes in the way of relevance, and the tensors behind them from which on a model can be explained."""
    out = console(file)
    for title, entries in (("not read", error.nodes), ("cuts (at=)", error.cuts)):
        shown = [*entries[:MOST_CUTS], *([f"… and {len(entries) - MOST_CUTS} more (--json)"] if len(entries) > MOST_CUTS else [])]
        for index, entry in enumerate(shown):
            out.print(pair("" if index else title, Text(visible(entry))))


def describe_check(report: Report, replays: Mapping[str, str], *, file: IO[str] | None = None) -> None:
    """Print the laws and their figures, and for every breach the command that shows it again (in one line, to be copied)."""
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("law")
    for column in ("examples", "worst figure", "bound"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("ok")
    for verdict in report.verdicts:
        state = Text("skipped", "dim") if verdict.worst is None else Text("BROKEN", "bold red") if verdict.breach else Text("ok")
        figures = ["" if f is None else f"{f:.1e}" if f else "0" for f in (verdict.worst, verdict.bound)]
        table.add_row(Text(verdict.law), str(verdict.examples), *figures, state)
    out = console(file)
    out.print(table)
    for verdict in report.verdicts:
        if verdict.note:
            out.print(pair(verdict.law, Text(visible(f"skipped: {verdict.note}"))))
        if verdict.breach:
            out.print(pair(verdict.law, Text(visible(" ".join(verdict.breach.message.split())))))
            out.print(Text(visible(replays[verdict.law])), soft_wrap=True)
