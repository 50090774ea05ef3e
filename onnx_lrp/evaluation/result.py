"""Evaluation: what was found, as figures with intervals; prints as tables, and is saved as JSON or a page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .bootstrap import Interval, intervals
from .metrics import METRICS

__all__ = ["Evaluation"]

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Explanations of N samples by several methods, measured.

    Attributes:
        methods: their names, "random" last.
        intervals: {metric: {group: {method: mean and interval}}}; the groups are "all", and with labels "right" and "wrong".
        above_random: the same of the differences to "random", sample by sample.
        above_first: the same of the differences to the first of the methods.
        random_seeds: {metric: (lowest, highest) mean of a single random seed}.
        curves: {curve: {method: (mean, low, high)}}, each (K + 1,).
        readings: what stands below a curve: units taken away, or shares of them.
        cascade: {method: [(what is random beside all before, correlation)]}.
        skipped: {what was not measured: why}.
        facts: samples, settings, versions.
        figures: {method: {metric: (N,)}}, of every sample, NaN where it has none.
    """

    methods: tuple[str, ...]
    intervals: Mapping[str, Mapping[str, Mapping[str, Interval]]]
    above_random: Mapping[str, Mapping[str, Mapping[str, Interval]]]
    above_first: Mapping[str, Mapping[str, Mapping[str, Interval]]]
    random_seeds: Mapping[str, tuple[float, float]]
    curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]]
    readings: tuple[str, ...]
    cascade: Mapping[str, list[tuple[str, Interval]]]
    skipped: Mapping[str, str]
    facts: Mapping[str, Any]
    figures: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"Evaluation({self.facts['samples']} sample(s), {', '.join(self.methods)})"

    def value(self, metric: str, method: str, group: str = "all") -> float:
        """The mean of a metric. KeyError: it was not measured."""
        return self.intervals[metric][group][method].mean

    def difference(self, metric: str, method: str, other: str, *, resamples: int = 1000, seed: int = 0) -> Interval:
        """By how much a method's figure is above another's, sample by sample. KeyError: one of them was not measured."""
        apart = self.figures[method][metric] - self.figures[other][metric]
        return intervals({metric: apart}, resamples=resamples, seed=seed)[metric]

    def beats_random(self, metric: str, method: str, group: str = "all") -> bool | None:
        """Whether the interval of the difference to random lies on the better side of zero; None: neither side is better, or
        nothing random to compare with.
        """
        better = METRICS[metric].better
        found = self.above_random.get(metric, {}).get(group, {}).get(method)
        if found is None or not better:
            return None
        return found.low > 0 if better > 0 else found.high < 0

    def to_dict(self) -> dict[str, Any]:
        """Everything but single samples, ready for JSON."""

        def nested(table: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> dict[str, Any]:
            return {
                metric: {group: {m: i.to_dict() for m, i in own.items()} for group, own in groups.items()}
                for metric, groups in table.items()
            }

        return {
            "schema": SCHEMA,
            **self.facts,
            "methods": list(self.methods),
            "metrics": {n: {"better": METRICS[n].better, "says": METRICS[n].says} for n in self.intervals},
            "intervals": nested(self.intervals),
            "above_random": nested(self.above_random),
            "above_first": nested(self.above_first),
            "random_seeds": {m: list(v) for m, v in self.random_seeds.items()},
            "readings": list(self.readings),
            "curves": {
                name: {m: dict(zip(("mean", "low", "high"), (a.tolist() for a in c), strict=True)) for m, c in own.items()}
                for name, own in self.curves.items()
            },
            "cascade": {m: [{"random": name, **i.to_dict()} for name, i in own] for m, own in self.cascade.items()},
            "skipped": dict(self.skipped),
        }

    def to_html(self, path: str | os.PathLike[str] | None = None, *, title: str | None = None) -> str:
        """One self-contained HTML page with tables and curves; also written to ``path`` if given.

        Raises:
            OSError: the file can't be written.
        """
        from ..report.evaluation_page import evaluation_page

        page = evaluation_page(self, title=title)
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page
