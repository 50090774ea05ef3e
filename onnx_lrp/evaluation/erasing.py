"""Everything that is found by taking units away: curves, accuracies, comprehensiveness and sufficiency of one set of relevances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bench import Bench
from .curves import Grid, aopc, masks, order
from .metrics import bin_counts, erased, probabilities

__all__ = ["Erased", "Task", "erase"]


@dataclass(frozen=True, eq=False)
class Task:
    """What is asked of N samples.

    Attributes:
        bench: the samples.
        targets: (N,) the explained classes.
        scores: (N, C) of the samples as they are.
        labels: (N,) the true classes, None: not known.
        grid: where curves are read.
        signs: whether two classes share one score.
    """

    bench: Bench
    targets: np.ndarray
    scores: np.ndarray
    labels: np.ndarray | None
    grid: Grid
    signs: bool = False

    @property
    def predicted(self) -> np.ndarray:
        """(N,) the predicted classes."""
        return self.scores.argmax(1)

    @property
    def wrong(self) -> np.ndarray:
        """Which samples are classified wrongly; none where labels are not known."""
        return np.flatnonzero(self.predicted != self.labels) if self.labels is not None else np.zeros(0, np.intp)


@dataclass(frozen=True, eq=False)
class Erased:
    """Figures and curves of one set of relevances.

    Attributes:
        figures: {metric: (N,)}, NaN for samples that have none.
        curves: {name: (N, K + 1)}.
    """

    figures: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]


def erase(
    task: Task, relevance: Sequence[np.ndarray], for_true: Sequence[np.ndarray] | None = None, *, parts: frozenset[str]
) -> Erased:
    """Take units away by their relevance.

    Args:
        relevance: (N)(U,) for the explained classes.
        for_true: of the wrongly classified samples, in their order, for the true class.
        parts: "curves", "labels", "erasure".
    """
    bench, n, k = task.bench, len(task.targets), task.grid.points + 1
    which: list[int] = []
    gone: list[np.ndarray] = []
    units = [len(r) for r in relevance]
    bins = len(bin_counts(1))
    for i, own in enumerate(relevance):
        ranked = order(own)
        most = masks(ranked, task.grid.counts(units[i]))
        some = masks(ranked, bin_counts(units[i])) if "erasure" in parts else []
        least = [*masks(order(own, rising=True), task.grid.counts(units[i])), *(~m for m in most)] if "curves" in parts else []
        mine = [*most, *least, *some, *(~m for m in some)]
        gone += mine
        which += [i] * len(mine)
    scores = bench.scores(which, gone)
    classes = scores.shape[1]
    scores = scores.reshape(n, -1, classes)
    of_target = scores[np.arange(n), :, task.targets]
    chances = probabilities(scores.reshape(-1, classes), signs=task.signs).reshape(scores.shape)[np.arange(n), :, task.targets]
    figures: dict[str, np.ndarray] = {}
    curves = {"deletion": of_target[:, :k]}
    if "curves" in parts:
        curves |= {"deletion_least": of_target[:, k : 2 * k], "insertion": of_target[:, 2 * k : 3 * k]}
        figures["deletion"] = aopc(curves["deletion"])
        figures["deletion_least"] = aopc(curves["deletion_least"])
        figures["insertion"] = -aopc(curves["insertion"])
    if "erasure" in parts:
        lacking, alone = chances[:, -2 * bins : -bins], chances[:, -bins:]
        curves["probability"] = chances[:, :k]
        figures["comprehensiveness"] = erased(chances[:, 0], lacking)
        figures["sufficiency"] = erased(chances[:, 0], alone)
        figures["descriptive_accuracy"] = chances[:, :k].mean(1)
    if "labels" in parts and task.labels is not None:
        right = task.predicted == task.labels
        after = (scores[:, :k].argmax(2) == task.labels[:, None]).astype(np.float64)
        after[~right] = np.nan
        curves["accuracy_right"] = after
        figures["accuracy_fall"] = 1 - after[:, 1:].mean(1)
        wrong = task.wrong
        risen = np.full((n, k), np.nan)
        if len(wrong) and for_true is not None:
            sets = [masks(order(r, rising=True), task.grid.counts(len(r))) for r in for_true]
            found = bench.scores(np.repeat(wrong, k).tolist(), [m for own in sets for m in own])
            risen[wrong] = found.reshape(len(wrong), k, classes).argmax(2) == task.labels[wrong, None]
        curves["accuracy_wrong"] = risen
        figures["accuracy_rise"] = risen[:, 1:].mean(1)
    return Erased(figures, curves)
