"""How explanations take small noise, other classes, and a model whose weights are random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .bench import Bench
from .erasing import Task
from .methods import Spec
from .metrics import rank_correlation, relative_change
from .randomise import layers, proto_of, randomised, stages

__all__ = ["other_class", "random_weights", "under_noise"]


def under_noise(
    bench: Bench,
    task: Task,
    spec: Spec,
    which: Sequence[int],
    relevance: Sequence[np.ndarray],
    *,
    noise: float,
    draws: int,
    seed: int,
) -> np.ndarray:
    """(M,) the largest relative change of the relevances of some samples under ``draws`` draws of noise.

    Args:
        noise: its standard deviation, in those of the attribution point's own values over all samples.
    """
    rng = np.random.default_rng(seed)
    spread = {p.name: float(np.concatenate([f[p.name].ravel() for f in bench.feeds]).std()) for p in bench.layouts}
    worst = np.zeros(len(which))
    for _ in range(draws):
        added = {
            int(i): {p: rng.normal(0, noise * s, bench.feeds[i][p].shape) for p, s in spread.items()} for i in which
        }  # every method meets the same noise
        found = bench.explain(which, task.targets[list(which)], spec.method, noise=added, **spec.options)
        changes = [relative_change(relevance[i], after) for i, after in zip(which, found.relevance, strict=True)]
        worst = np.maximum(worst, changes)
    return worst


def other_class(
    bench: Bench, task: Task, spec: Spec, which: Sequence[int], relevance: Sequence[np.ndarray], *, seed: int
) -> np.ndarray:
    """(M,) rank correlation with the explanation of another class, drawn at random.

    Sixt et al. 2020, *When explanations lie*, section 4 (random logit).
    """
    classes = task.scores.shape[1]
    rng = np.random.default_rng(seed)
    own = task.targets[list(which)]
    other = (own + rng.integers(1, classes, len(own))) % classes
    found = bench.explain(which, other, spec.method, **spec.options)
    return np.asarray([rank_correlation(relevance[i], r) for i, r in zip(which, found.relevance, strict=True)])


def random_weights(
    benches: dict[str, Bench],
    task: Task,
    specs: Sequence[Spec],
    which: Sequence[int],
    relevance: dict[str, Sequence[np.ndarray]],
    *,
    model: Any,
    networks: int,
    seed: int,
    tell: Callable[[float], None] = lambda share: None,
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Rank correlations with the explanations of the model with ever more random layers, from the output down.

    Args:
        networks: how many random models are averaged.

    Returns:
        (names of the S stages, {method: (S, M)}).
    """
    proto = proto_of(model)
    steps = stages(layers(proto, [p.name for p in task.bench.layouts]))
    found = {spec.name: np.zeros((len(steps), len(which))) for spec in specs}
    total, done = max(networks * len(steps), 1), 0
    for draw in range(networks):
        rng = np.random.default_rng((seed, draw))
        current = proto
        for k, (_, names) in enumerate(steps):
            current = randomised(current, names, rng)
            changed: dict[Any, Bench] = {}
            for spec in specs:
                key = tuple(sorted(spec.loading.items()))
                if key not in changed:
                    changed[key] = benches[spec.name].variant(model=current)
                after = changed[key].explain(which, task.targets[list(which)], spec.method, **spec.options).relevance
                own = relevance[spec.name]
                found[spec.name][k] += [rank_correlation(own[i], r) for i, r in zip(which, after, strict=True)]
            done += 1
            tell(done / total)
    return [name for name, _ in steps], {name: sums / networks for name, sums in found.items()}
