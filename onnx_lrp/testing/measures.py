"""What the laws measure: each breach as a figure beside its bound, so that a law can say how close it came, also where it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..explainer import Explainer
from ..explanation import Explanation
from ..inputs import prepare_inputs
from ..seeds import Target

__all__: list[str] = []

Feeds = Mapping[str, np.ndarray]
CLOSED = {"float32": 1e-5, "float64": 1e-10}  # of what moved
SAME = 1e-9  # of the largest relevance, in float64


@dataclass(frozen=True)
class Figure:
    """How far something is off, how far it may be, and what it is."""

    value: float
    bound: float
    what: str

    @property
    def holds(self) -> bool:
        return self.value <= self.bound  # NaN does not

    def __str__(self) -> str:
        return f"{self.what}: {self.value:.2e} (bound {self.bound:g})"


def worst(figures: Sequence[Figure]) -> Figure:
    """The first that fails, else the largest of those with the first one's bound."""
    failing = [f for f in figures if not f.holds]
    return failing[0] if failing else max((f for f in figures if f.bound == figures[0].bound), key=lambda f: f.value)


def compared(what: str, got: Any, want: Any, bound: float, scale: float | None = None) -> Figure:
    """The largest difference, relative to the largest of ``want`` or to ``scale``."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        return Figure(float("inf"), bound, f"{what}, shape {got.shape}, expected {want.shape}")
    scale = max(float(np.abs(want).max(initial=0)) if scale is None else scale, 1e-6)
    return Figure(float(np.abs(got - want).max(initial=0)) / scale, bound, f"{what} is off, relative to {scale:.2e}")


def magnitudes(explanation: Explanation) -> tuple[np.ndarray, np.ndarray]:
    """(Σ, Σ of magnitudes) of the relevance, each (B,), in float64."""
    total = size = np.zeros(len(explanation.seed))
    for point, relevance in explanation.relevance.items():
        axis, array = explanation.axes[point][0], relevance.astype(np.float64)
        over = tuple(a for a in range(array.ndim) if a != axis)
        total, size = total + array.sum(over), size + np.abs(array).sum(over)
    return total, size


def conservation(explanation: Explanation, bound: float) -> list[Figure]:
    """seed = Σ relevance + Σ absorbed for every sample, relative to what moved; residual and ledger say the same."""
    seed = explanation.seed.astype(np.float64)
    total, size = magnitudes(explanation)
    absorbed = {k: v.astype(np.float64) for k, v in explanation.absorbed.items()}
    left = seed - total - sum(absorbed.values())
    moved = np.maximum(np.abs(seed) + size + sum(np.abs(v) for v in absorbed.values()), 1e-300)
    figures = [
        Figure(float((np.abs(left) / moved).max()), bound, f"books open by {left} of {moved}"),
        Figure(float((np.abs(explanation.residual - left) / moved).max()), 1e-12, f"residual {explanation.residual}, it is {left}"),
    ]
    booked: dict[str, Any] = {}
    for kinds in explanation.ledger.values():
        for kind, amount in kinds.items():
            booked[kind] = booked.get(kind, 0) + amount.astype(np.float64)
    if booked.keys() != absorbed.keys():
        figures.append(Figure(float("inf"), 0, f"the ledger holds {sorted(booked)}, absorbed {sorted(absorbed)}"))
        return figures
    for kind, amount in absorbed.items():
        off = np.abs(booked[kind] - amount) / moved
        figures.append(Figure(float(off.max()), bound, f"ledger and absorbed differ in {kind!r}"))
    return figures


def finiteness(explanation: Explanation) -> Figure:
    """How many entries of anything in the result are NaN or infinite."""
    count = sum(int(np.sum(~np.isfinite(array))) for array in _arrays(explanation).values())
    return Figure(count, 0, "entries that are not finite")


def determinism(first: Explanation, second: Explanation, bound: float = 0.0) -> Figure:
    """The largest difference of two runs on the same inputs."""
    one, two = _arrays(first), _arrays(second)
    figures = [compared(name, two[name], array, bound) for name, array in one.items()]
    return worst(figures)


def _arrays(explanation: Explanation) -> dict[str, np.ndarray]:
    parts = {f"relevance at {n!r}": a for n, a in explanation.relevance.items()}
    parts |= {f"output {n!r}": a for n, a in explanation.outputs.items()} | {
        f"absorbed {n}": a for n, a in explanation.absorbed.items()
    }
    parts |= {"seed": explanation.seed, "residual": explanation.residual}
    return {n: np.asarray(a, np.float64) for n, a in parts.items() if isinstance(a, np.ndarray) and a.dtype.kind in "fiub"}


def relevance_of(explainer: Explainer, feeds: Feeds, seed: np.ndarray) -> dict[str, np.ndarray]:
    """Relevance from any seed of the explained tensor's shape."""
    variant = explainer._variant(feeds)
    found = variant._runs.chunks(prepare_inputs(feeds, variant._plan), Target("seed", seed), lambda result, part: result)
    return dict(found["relevance"])


def explained_shape(explainer: Explainer, explanation: Explanation) -> tuple[int, ...] | None:
    """Shape of the tensor that is explained, None where it is unknown."""
    plan = explainer._variant(explanation.inputs)._plan
    if plan.explained in explanation.outputs:
        return tuple(explanation.outputs[plan.explained].shape)
    known = dict(_sizes(plan, explanation))
    shape = []
    for dim in plan.vars[plan.explained].dims or ():
        sizes = [known.get(label, label.size) for label in dim.roots]
        if None in sizes:
            return None
        shape.append(int(np.prod([s for s in sizes if s is not None])))
    return None if plan.vars[plan.explained].dims is None else tuple(shape)


def _sizes(plan: Any, explanation: Explanation) -> Iterator[tuple[Any, int]]:
    for name, array in {**explanation.inputs, **explanation.outputs}.items():
        dims = plan.vars[name].dims if name in plan.vars and isinstance(array, np.ndarray) else None
        for dim, size in zip(dims or (), np.shape(array), strict=False):
            if len(dim.labels) == 1:
                yield dim.roots[0], size
    if plan.batch is not None:
        yield plan.batch.root, len(explanation.seed)


def linearity(explainer: Explainer, feeds: Feeds, shape: Sequence[int], seed: int, bound: float) -> list[Figure]:
    """R(2a − 3b) = 2 R(a) − 3 R(b) for two random seeds, relative to the parts (they may cancel) and to the seeds."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=shape), rng.normal(size=shape)
    first, second = relevance_of(explainer, feeds, a), relevance_of(explainer, feeds, b)
    both = relevance_of(explainer, feeds, 2 * a - 3 * b)
    return [
        compared(
            f"relevance at {point!r}, linear in the seed",
            relevance,
            2 * first[point] - 3 * second[point],
            bound,
            max(_largest(2 * first[point]), _largest(3 * second[point]), _largest(2 * a), _largest(3 * b)),
        )
        for point, relevance in both.items()
    ]


def equivariance(explainer: Explainer, feeds: Feeds, whole: Explanation, bound: float) -> list[Figure]:
    """Every sample is explained as if it were alone, and the order of samples does not matter; relative to the largest relevance
    or seed.

    The target is the whole batch's: which of two equal scores is the larger is no property of the explanation.
    """
    plan = explainer._variant(feeds)._plan
    axes = {n: plan.batch_axis(n) for n in feeds}
    count = len(whole.seed)
    figures = []
    alone = range(count) if plan.fixed_batch in (None, 1) else ()  # a file for batches of 2 takes no others
    for rows in (list(range(count))[::-1], *([k] for k in alone)):
        part = {n: a if axes[n] is None else np.take(a, rows, axes[n]) for n, a in feeds.items()}
        if explainer._variant(part)._plan is not plan:  # these inputs take another branch of the model
            continue
        found = explainer.explain(part, _rows(plan, whole, rows))
        scale = _largest(whole.seed)
        figures.append(compared(f"seed of samples {rows}", found.seed, whole.seed[rows], bound, scale))
        for point, relevance in whole.relevance.items():
            axis = whole.axes[point][0]
            want = relevance if axis is None else np.take(relevance, rows, axis)
            what = f"relevance at {point!r} of samples {rows}"
            figures.append(compared(what, found.relevance[point], want, bound, max(scale, _largest(relevance))))
    return figures


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=0))


def _rows(plan: Any, whole: Explanation, rows: Sequence[int]) -> np.ndarray | None:
    """The targets of some samples; None where every score stands for itself."""
    axis = plan.batch_axis(plan.explained)
    if plan.class_axis is None or axis is None:
        return None
    axis -= axis > plan.class_axis
    target = np.asarray(whole.target)
    return np.take(target, rows, axis) if target.shape[axis : axis + 1] == whole.seed.shape else None
