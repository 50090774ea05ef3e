"""evaluate: several methods explain the same samples, and every measure is taken of each, and of random relevances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..dataset.rows import Encode
from ..errors import InputError, OnnxLrpError, ParityError, RuleError, UnsupportedModel
from ..explainer import Explainer
from ..loading import load
from ..seeds import scores_of
from ..targets import Step
from .bench import Bench, make_bench
from .bootstrap import Interval, intervals
from .curves import Grid
from .erasing import Erased, Task, erase
from .methods import DEFAULT, RANDOM, Spec, specs
from .metrics import METRICS, rank_correlation, relative_change, sparsity
from .probing import other_class, random_weights, under_noise
from .result import Evaluation
from .samples import Samples, read_samples

__all__ = ["PARTS", "evaluate"]

PARTS = ("curves", "labels", "erasure", "sparsity", "completeness", "stability", "randomisation", "runtime")
MANY = 100  # units of a sample beyond which curves are read by shares
Tell = Callable[[str, float | None], None]


def evaluate(
    model: Any,
    dataset: Any,
    *,
    methods: str | Sequence[str] = DEFAULT,
    labels: Any = None,
    inputs: Mapping[str, str | Sequence[str]] | None = None,
    encode: Encode | None = None,
    target: Any = None,
    replace: str | int = "zero",
    points: int = 10,
    by: str | None = None,
    parts: Iterable[str] = PARTS,
    limit: int | None = None,
    probes: int = 100,
    noise: float = 0.05,
    draws: int = 5,
    networks: int = 3,
    seeds: int = 10,
    resamples: int = 1000,
    seed: int = 0,
    progress: Tell | None = None,
    **options: Any,
) -> Evaluation:
    """Measure how well explanations say what the model decides by.

    Args:
        model: path of a ``.onnx`` file, its bytes, or a ``ModelProto``.
        dataset: a path, or several, as :func:`onnx_lrp.explain_dataset` reads them; or inputs as
            :meth:`Explainer.explain` takes them.
        methods: their names; "lrp" with settings as in "lrp:gates=half:epsilon=0.01", others as in "occlusion:by=feature". Random
            relevances are always compared with.
        labels: the column of the true classes, or (N,) classes; None: what needs them is skipped, and named.
        inputs, encode: see :func:`onnx_lrp.explain_dataset`.
        target: None (each sample's predicted class), a class, or ``targets.step(k)``, also with a class. Of an output with a score
            at every position the last one, unless said.
        replace: what stands for a step or entry that is taken away: "zero", "mean" (of all samples'), a token id, or "remove":
            sequences get shorter.
        points: readings of a curve beside the first.
        by: "count": one by one; "share": of each sample's units; None: by count up to 100 units.
        parts: which measures, of "curves", "labels", "erasure", "sparsity", "completeness", "stability", "randomisation" and
            "runtime".
        limit: how many samples at most.
        probes: how many samples the slow parts (stability, randomisation) take.
        noise: of stability, in standard deviations of the attribution point's values; ``draws`` times.
        networks: how many random models randomisation averages over.
        seeds: how many random relevances are averaged, at least 10.
        resamples: of the bootstrap; its intervals hold 95 %.
        seed: of everything random.
        progress: is called with what is done now, and the share of it.
        options: of :func:`onnx_lrp.load`, for all methods.

    Raises:
        InputError: nothing to evaluate on, or options that don't fit the model.
        RuleError: no such method or part.
        ModelError: the model can't be read or explained.
    """
    wanted = frozenset(parts)
    unknown = sorted(wanted - set(PARTS))
    if unknown:
        raise RuleError(f"part {unknown[0]!r} does not exist; there is: {', '.join(PARTS)}")
    if by not in (None, "count", "share"):
        raise RuleError(f"by={by!r} does not exist; 'count' or 'share'")
    least = {"seeds": 10, "points": 1, "probes": 1, "draws": 1, "networks": 1, "resamples": 100, "seed": 0}
    for name, value in zip(least, (seeds, points, probes, draws, networks, resamples, seed), strict=True):
        if value < least[name]:
            raise InputError(f"{name} must be at least {least[name]}, got {value}")
    if not 0 <= noise < np.inf:
        raise InputError(f"noise must be a finite number >= 0, got {noise}")
    chosen = specs(methods)
    tell = progress if progress is not None else lambda what, share: None
    tell("reading the model and the samples", None)
    explainer = load(model, **options)
    step, index = _target(target)
    like = scores_of(explainer._plan)
    last = step is None and like.time is not None and like.shape[like.time] != 1
    samples = read_samples(explainer, dataset, labels=labels, inputs=inputs, encode=encode, limit=limit)
    bench = make_bench(explainer, model, samples, replace=replace, step=-1 if last else step, options=options)
    tell("starting", None)
    explainer.predict(samples.rows[0])  # held against onnxruntime's, as the options say
    run = _Run(explainer, bench, samples, index, wanted, Grid(points, by or _by(bench)), chosen, tell, seed)
    if last:
        run.skipped["other positions"] = (
            "there is a score at every one; the last is explained, targets.step(k) or step:k asks for another"
        )
    run.explain()
    run.erase(seeds)
    run.probe(model, probes, noise=noise, draws=draws, networks=networks)
    facts = {
        "samples": len(samples),
        "left_out": dict(samples.left_out),
        "right": None if samples.labels is None else int((run.task.predicted == samples.labels).sum()),
        "wrong": None if samples.labels is None else len(run.task.wrong),
        "units": {"of": "steps" if bench.of_steps else "entries", "mean": float(np.mean(bench.units)), "most": max(bench.units)},
        "replace": replace,
        "by": run.task.grid.by,
        "seeds": seeds,
        "probes": min(probes, len(samples)),
        "noise": noise,
        "networks": networks,
        "resamples": resamples,
        "seed": seed,
        "options": {k: str(v) for k, v in options.items()},
    }
    return run.finish(resamples, facts)


def _target(target: Any) -> tuple[int | None, Any]:
    """(step, class) of a target."""
    if isinstance(target, Step):
        if len(target.steps) != 1:
            raise InputError(f"target {target}: evaluation takes one step")
        return target.steps[0], target.index
    if target is not None and not np.issubdtype(np.asarray(target).dtype, np.integer):
        raise InputError(f"target {target!r}: evaluation takes None, a class, (N,) classes, or targets.step(k)")
    return None, target


def _by(bench: Bench) -> str:
    return "count" if max(bench.units) <= MANY else "share"


class _Run:
    """One call of evaluate."""

    def __init__(
        self,
        explainer: Explainer,
        bench: Bench,
        samples: Samples,
        index: Any,
        parts: frozenset[str],
        grid: Grid,
        chosen: Sequence[Spec],
        tell: Tell,
        seed: int,
    ) -> None:
        scores = bench.scores(range(len(samples)))
        like = scores_of(explainer._plan)
        best = scores.argmin(1) if like.lowest else scores.argmax(1)
        targets = best if index is None else np.broadcast_to(np.asarray(index, np.int64), best.shape)
        self.skipped: dict[str, str] = {}
        labels = samples.labels
        if labels is None:
            self.skipped["labels"] = "no labels were given: right and wrong samples apart, and accuracies"
        elif scores.shape[1] == 1 or index is not None or like.lowest:
            self.skipped["labels"] = "accuracies are of the predicted class among several, the highest score"
            labels = None
        if "labels" not in parts:
            self.skipped["labels"] = "not asked for"
        self.parts = parts - set(self.skipped)
        self.skipped |= {part: "not asked for" for part in PARTS if part not in parts}
        self.task = Task(bench, targets, scores, labels, grid, bool(like.signs))
        self.bench, self.specs, self.tell, self.seed = bench, list(chosen), tell, seed
        self.names = [spec.name for spec in chosen]
        self.benches = {spec.name: bench.variant(**spec.loading) if spec.loading else bench for spec in chosen}
        self.figures: dict[str, dict[str, np.ndarray]] = {name: {} for name in (*self.names, RANDOM)}
        self.curves: dict[str, dict[str, np.ndarray]] = {}
        self.relevance: dict[str, list[np.ndarray]] = {}
        self.for_true: dict[str, list[np.ndarray]] = {}
        self.random_means: dict[str, list[float]] = {}
        self.cascade: dict[str, tuple[list[str], np.ndarray]] = {}

    def explain(self) -> None:
        """Every sample by every method; one that fails on some sample is left out, and named."""
        failed: list[OnnxLrpError] = []
        for k, spec in enumerate(self.specs):
            self.tell("explaining", k / len(self.specs))
            try:
                self._explain(spec)
            except (ParityError, RuleError, UnsupportedModel) as error:
                failed.append(error)
                self.skipped[spec.name] = str(error)
        self.specs = [spec for spec in self.specs if spec.name not in self.skipped]
        self.names = [spec.name for spec in self.specs]
        if not self.specs:
            raise failed[0]

    def _explain(self, spec: Spec) -> None:
        """Every sample by one method; the wrongly classified also for their true class."""
        bench, own, wrong = self.benches[spec.name], self.figures[spec.name], self.task.wrong
        every = range(len(self.bench))
        found = bench.explain(every, self.task.targets, spec.method, timed="runtime" in self.parts, **spec.options)
        if "labels" in self.parts and len(wrong):
            assert self.task.labels is not None
            again = bench.explain(wrong.tolist(), self.task.labels[wrong], spec.method, **spec.options)
            self.for_true[spec.name] = again.relevance
        self.relevance[spec.name] = found.relevance
        if "sparsity" in self.parts:
            own["sparsity"] = np.asarray([sparsity(r) for r in found.relevance])
        if "completeness" in self.parts:
            own["gap"] = np.abs(found.score - [r.sum() for r in found.relevance])
            if np.isfinite(found.residual).any():
                own["residual"] = np.abs(found.residual)
        if "runtime" in self.parts:
            own["milliseconds"] = 1000 * found.seconds

    def erase(self, seeds: int) -> None:
        """Curves and the like of every method, and of random relevances."""
        if self.parts & {"curves", "labels", "erasure"}:
            for k, name in enumerate(self.names):
                self.tell("taking away", k / (len(self.names) + seeds))
                self._keep(name, erase(self.task, self.relevance[name], self.for_true.get(name), parts=self.parts))
        found: list[Erased] = []
        spread = []
        for k in range(seeds):
            self.tell("taking away", (len(self.names) + k) / (len(self.names) + seeds))
            random = self._random(k)
            if self.parts & {"curves", "labels", "erasure"}:
                found.append(erase(self.task, random, [random[i] for i in self.task.wrong], parts=self.parts))
            if "sparsity" in self.parts:
                spread.append(np.asarray([sparsity(r) for r in random]))
        if found:
            mean = Erased(
                {m: np.mean([f.figures[m] for f in found], axis=0) for m in found[0].figures},
                {c: np.mean([f.curves[c] for f in found], axis=0) for c in found[0].curves},
            )
            self._keep(RANDOM, mean)
            for metric in mean.figures:
                known = [f.figures[metric][np.isfinite(f.figures[metric])] for f in found]
                if len(known[0]):
                    self.random_means[metric] = [float(v.mean()) for v in known]
        if spread:
            self.figures[RANDOM]["sparsity"] = np.mean(spread, axis=0)
            self.random_means["sparsity"] = [float(s.mean()) for s in spread]
        self._seeds = seeds

    def _keep(self, name: str, found: Erased) -> None:
        self.figures[name] |= found.figures
        self.curves[name] = found.curves

    def _random(self, k: int) -> list[np.ndarray]:
        rng = np.random.default_rng((self.seed, k))
        return [rng.normal(size=units) for units in self.bench.units]

    def probe(self, model: Any, probes: int, *, noise: float, draws: int, networks: int) -> None:
        """Stability and randomisation, of some of the samples."""
        n = len(self.bench)
        which = np.sort(np.random.default_rng(self.seed).permutation(n)[:probes]).tolist()

        def keep(name: str, metric: str, values: Any) -> None:
            whole = np.full(n, np.nan)
            whole[which] = values
            self.figures[name][metric] = whole

        random = [self._random(k) for k in range(self._seeds)]
        other = [self._random(self._seeds + k) for k in range(self._seeds)]
        pairs = [(a, b) for a, b in zip(random, other, strict=True)]
        for k, spec in enumerate(self.specs):
            self.tell("shaking", k / len(self.specs))
            bench, own = self.benches[spec.name], self.relevance[spec.name]
            if "stability" in self.parts:
                found = under_noise(bench, self.task, spec, which, own, noise=noise, draws=draws, seed=self.seed)
                keep(spec.name, "instability", found)
            if "randomisation" in self.parts and self.task.scores.shape[1] > 1:
                keep(spec.name, "logit", other_class(bench, self.task, spec, which, own, seed=self.seed))
        if "stability" in self.parts:
            keep(RANDOM, "instability", np.mean([[relative_change(a[i], b[i]) for i in which] for a, b in pairs], axis=0))
        if "randomisation" not in self.parts:
            return
        chance = np.mean([[rank_correlation(a[i], b[i]) for i in which] for a, b in pairs], axis=0)
        if self.task.scores.shape[1] > 1:
            keep(RANDOM, "logit", chance)
        else:
            self.skipped["random logit"] = "there is one score, no other class"
        names, tables = random_weights(
            self.benches,
            self.task,
            self.specs,
            which,
            dict(self.relevance),
            model=model,
            networks=networks,
            seed=self.seed,
            tell=lambda share: self.tell("with random weights", share),
        )
        if not names:
            self.skipped["random model"] = "the file holds no float weights"
            return
        keep(RANDOM, "parameters", chance)
        for name, table in tables.items():
            keep(name, "parameters", table[-1])
            self.cascade[name] = (names, table)

    def finish(self, resamples: int, facts: dict[str, Any]) -> Evaluation:
        """Means, intervals, and differences to random and to the first method."""
        self.tell("resampling", None)
        methods = (*self.names, RANDOM)
        groups = {"all": np.ones(len(self.bench), bool)}
        if self.task.labels is not None and "labels" in self.parts:
            groups |= {"right": self.task.predicted == self.task.labels, "wrong": self.task.predicted != self.task.labels}
        flat: dict[str, np.ndarray] = {}
        for metric in METRICS:
            own_groups = groups if METRICS[metric].part in ("curves", "erasure") else {"all": groups["all"]}
            for group, rows in own_groups.items():
                for method in methods:
                    own = self.figures[method].get(metric)
                    if own is None or not rows.any() or not np.isfinite(own[rows]).any():
                        continue
                    flat[f"{metric}|{group}|{method}|"] = np.where(rows, own, np.nan)
                    for against in (RANDOM, methods[0]):
                        rival = self.figures[against].get(metric)
                        if rival is not None and method != against:
                            flat[f"{metric}|{group}|{method}|{against}"] = np.where(rows, own - rival, np.nan)
        curves: dict[str, dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
        readings = facts["by"]
        for method, own_curves in self.curves.items():
            for name, table in own_curves.items():
                if not np.isfinite(table).any():
                    continue
                found = list(intervals({str(k): table[:, k] for k in range(table.shape[1])}, resamples=resamples).values())
                triple = ([i.mean for i in found], [i.low for i in found], [i.high for i in found])
                curves.setdefault(name, {})[method] = (np.asarray(triple[0]), np.asarray(triple[1]), np.asarray(triple[2]))
        tables: dict[str, dict[str, dict[str, dict[str, Interval]]]] = {"": {}, RANDOM: {}, methods[0]: {}}
        for key, interval in intervals(flat, resamples=resamples, seed=self.seed).items():
            metric, group, method, against = key.rsplit("|", 3)
            tables[against].setdefault(metric, {}).setdefault(group, {})[method] = interval
        cascade = {}
        for method, (names, table) in self.cascade.items():
            found = list(intervals({str(k): row for k, row in enumerate(table)}, resamples=resamples).values())
            cascade[method] = list(zip(names, found, strict=True))
        points = self.task.grid.points
        return Evaluation(
            methods=methods,
            intervals=tables[""],
            above_random=tables[RANDOM],
            above_first=tables[methods[0]],
            random_seeds={m: (min(v), max(v)) for m, v in self.random_means.items()},
            curves=curves,
            readings=tuple(str(k) if readings == "count" else f"{k / points:.0%}" for k in range(points + 1)),
            cascade=cascade,
            skipped=self.skipped,
            facts=facts,
            figures=self.figures,
        )
