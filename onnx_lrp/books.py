"""The books of an explanation: where relevance started, and everywhere it ended, adding up; as a table, as JSON, as a waterfall."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .printable import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Books", "Entry", "Line"]

# the order in which a waterfall goes down; kinds that other rules add come before the residual
ORDER = ("bias", "stabilizer", "initial_state", "constant")


class Entry(NamedTuple):
    """One step of a waterfall; ``kind``: "seed", "input", a kind of absorption, or "residual"."""

    label: str
    value: float
    kind: str


class Line(NamedTuple):
    """One line of the table: what ended there, and how much of it by kind of absorption."""

    label: str
    value: float
    kinds: Mapping[str, float]


@dataclass(frozen=True)
class Books:
    """The books of one sample, or of several summed.

    Attributes:
        seed: relevance started from.
        points: {attribution point: what arrived there}.
        ledger: {layer: {kind: what ended there}}.
        residual: seed - Σ points - Σ ledger.
    """

    seed: float
    points: Mapping[str, float]
    ledger: Mapping[str, Mapping[str, float]]
    residual: float

    @property
    def absorbed(self) -> dict[str, float]:
        """Amounts that ended anywhere, by kind."""
        kinds = dict.fromkeys(kind for amounts in self.ledger.values() for kind in amounts)
        kinds = dict.fromkeys([k for k in ORDER if k in kinds] + list(kinds))
        return {kind: math.fsum(amounts.get(kind, 0.0) for amounts in self.ledger.values()) for kind in kinds}

    def waterfall(self, *, layers: bool = False) -> list[Entry]:
        """From the seed down: inputs, bias, stabilizer, initial state, constant, residual; all but the first add up to it.

        Args:
            layers: one entry a layer and kind instead of one a kind.
        """
        entries = [Entry(name, value, "input") for name, value in self.points.items()]
        for kind, total in self.absorbed.items():
            if layers:
                at = ((layer, amounts[kind]) for layer, amounts in self.ledger.items() if kind in amounts)
                entries += [Entry(f"{_words(kind)} in {layer}", amount, kind) for layer, amount in at]
            else:
                entries.append(Entry(_words(kind), total, kind))
        left = self.seed - math.fsum(entry.value for entry in entries)
        return [Entry("seed", self.seed, "seed"), *entries, Entry("residual", left, "residual")]

    @property
    def kinds(self) -> list[str]:
        """Kinds of absorption with anything in them."""
        return [k for k in self.absorbed if any(amounts.get(k) for amounts in self.ledger.values())]

    def lines(self) -> list[Line]:
        """The table, its last line being the seed, which the others add up to."""
        absorbed = self.absorbed
        return [
            *(Line(name, value, {}) for name, value in self.points.items()),
            *(Line(f"absorbed in {layer}", math.fsum(kinds.values()), kinds) for layer, kinds in self.ledger.items()),
            Line("absorbed, all layers", math.fsum(absorbed.values()), absorbed),
            Line("residual", self.residual, {}),
            Line("seed", self.seed, {}),
        ]

    def to_dict(self) -> dict[str, Any]:
        """As numbers, ready for JSON."""
        ledger = {layer: dict(kinds) for layer, kinds in self.ledger.items()}
        return {
            "seed": self.seed,
            "points": dict(self.points),
            "absorbed": self.absorbed,
            "ledger": ledger,
            "residual": self.residual,
        }

    def plot(self, ax: Axes | None = None, *, layers: bool = False) -> Axes:
        """The waterfall as matplotlib Axes: inputs in full colours, what was absorbed in pale ones.

        Args:
            ax: Axes to draw on; pyplot is then left alone. None: those of a new figure.
            layers: one bar a layer and kind instead of one a kind.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        from .report.plots import waterfall

        return waterfall(self, ax, layers=layers)

    def _repr_html_(self) -> str:
        from .report.html import ledger

        return ledger(self)

    def __str__(self) -> str:
        kinds = self.kinds if len(self.kinds) > 1 else []
        rows: list[Sequence[str]] = [["", "relevance", *map(_words, kinds)]]
        for line in self.lines():
            cells = [f"{line.kinds[k]:+.4g}" if k in line.kinds else "" for k in kinds]
            rows.append([visible(line.label), f"{line.value:+.4g}", *cells])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        padded = ([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))] for row in rows)
        return "\n".join("  ".join(row).rstrip() for row in padded)


def _words(kind: str) -> str:
    return kind.replace("_", " ")
