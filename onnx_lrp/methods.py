"""Other methods with the same call, as baselines: gradients by TensorFlow's autodiff, integrated gradients, occlusion.

They explain the same score as LRP, at the same attribution points, but keep no books: nothing is absorbed, and only integrated
gradients are meant to add up to anything.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._lazy import tf
from .asked import Asked, explained_at, reported
from .errors import InputError, RuleError
from .plan import Plan
from .probe import Mixed, Probe, needed, slopes
from .program import Program
from .progress import track
from .seeds import Target, classes, scores_of
from .seeds import start as make_seed

__all__ = ["LRP", "METHODS", "OPTIONS", "Method", "attribute", "part_of_baseline", "prepare_method"]

Tensor = Any
Arrays = Mapping[str, np.ndarray]

LRP = "lrp"
# which options each method takes
METHODS: Mapping[str, tuple[str, ...]] = {
    LRP: (),
    "sensitivity": (),
    "gradient": (),
    "gradient_x_input": (),
    "integrated_gradients": ("steps", "baseline"),
    "occlusion": ("baseline", "by"),
}
OPTIONS = ("steps", "baseline", "by")
UNITS = ("step", "feature")


@dataclass(frozen=True, eq=False)
class Method:
    """A method other than LRP, and its options.

    Attributes:
        steps: points on the way from the baseline to the input (integrated gradients).
        baseline: what stands for "nothing there": a number or an array for every attribution point, or {point: number or array}.
        by: "step": all features of a time step are occluded together; "feature": every entry by itself; None: by steps where there
            is a time axis.
    """

    name: str
    steps: int = 50
    baseline: Any = 0.0
    by: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The method and its options as JSON can hold them."""
        found: dict[str, Any] = {"method": self.name}
        for option in METHODS[self.name]:
            value = getattr(self, option)
            found[option] = _described(value) if option == "baseline" else value
        return {k: v for k, v in found.items() if v is not None}

    def part(self, rows: Sequence[int], count: int, plan: Plan) -> Method:
        """The method for some samples of ``count``."""
        return dataclasses.replace(self, baseline=part_of_baseline(self.baseline, rows, count, plan))


def part_of_baseline(given: Any, rows: Sequence[int], count: int, plan: Plan) -> Any:
    """A baseline for some samples of ``count``."""

    def row(point: str, value: Any) -> Any:
        axis, array = plan.batch_axis(point), np.asarray(value)
        rank = plan.vars[point].rank
        if axis is None or array.ndim != rank or array.shape[axis] != count:
            return value
        return np.take(array, rows, axis)

    if not isinstance(given, Mapping):
        if not np.ndim(given):
            return given
        given = dict.fromkeys(plan.points, given)
    return {p: row(_point(p, plan), v) for p, v in given.items()}


def _described(baseline: Any) -> Any:
    if isinstance(baseline, Mapping):
        return {str(k): _described(v) for k, v in baseline.items()}
    array = np.asarray(baseline)
    return float(array) if array.ndim == 0 else f"array of shape {array.shape}"


def prepare_method(name: str, options: Mapping[str, Any]) -> Method | None:
    """The method by name with its options; None: LRP.

    Raises:
        RuleError: no such method, an option that it does not take, or a value outside its range.
    """
    if name not in METHODS:
        raise RuleError(f"method {name!r} does not exist; there is: {', '.join(METHODS)}")
    takes = METHODS[name]
    for option in options:
        if option not in takes:
            others = ", ".join(m for m, known in METHODS.items() if option in known)
            whose = f"; {others} does" if others else ""
            raise RuleError(f"method {name!r} takes no option {option!r} (it takes {', '.join(takes) or 'none'}){whose}")
    if name == LRP:
        return None
    method = Method(name, **options)
    if isinstance(method.steps, bool) or not isinstance(method.steps, int | np.integer) or method.steps < 1:
        raise RuleError(f"steps must be a whole number >= 1, got {method.steps!r}")
    if method.by not in (None, *UNITS):
        raise RuleError(f"by={method.by!r} does not exist; one of {', '.join(UNITS)}")
    return dataclasses.replace(method, steps=int(method.steps))


def attribute(program: Program, feeds: Arrays, target: Target, method: Method) -> dict[str, Any]:
    """Run a method on one batch.

    Args:
        feeds: every tensor of ``plan.feeds``.

    Returns:
        what :class:`~onnx_lrp.program.Program` returns, with ``residual`` (B,).

    Raises:
        UnsupportedModel: the score also depends on an attribution point through what only onnxruntime can compute.
        InputError: a baseline that doesn't fit.
    """
    program.held(feeds)
    if target.several:
        return _each(program, feeds, target, method)
    plan = program.plan
    before = needed(plan)
    gradient = method.name in ("gradient", "sensitivity", "gradient_x_input")
    asked = Asked.of(target)
    key = ("gradient" if gradient else "score", asked)
    start = program.call(key, lambda tensors, given: _start(program, tensors, asked, given, gradient), feeds, target.arrays)
    inputs, scores = start["points"], start["seed"]
    residual = np.full(scores.shape, np.nan)
    if gradient:
        relevance = {p: _of_gradient(method.name, g, inputs[p]) for p, g in start["gradient"].items()}
    else:
        others = {n: np.asarray(feeds[n]) for n in before.feeds if n in feeds}
        probe = Probe(program, before, others, inputs, start["weights"], scores)
        baseline = _baselines(method.baseline, inputs, plan)
        if method.name == "occlusion":
            relevance = _occlusion(probe, baseline, method.by)
        else:
            relevance, residual = _integrated(probe, baseline, method.steps)
    return {
        "outputs": start["outputs"],
        "relevance": {p: np.asarray(r, program.dtype) for p, r in relevance.items()},
        "absorbed": {},
        "seed": scores,
        "hidden": {},
        "index": start["index"],
        "shape": start["shape"],
        "residual": residual,
    }


def _each(program: Program, feeds: Arrays, target: Target, method: Method) -> dict[str, Any]:
    """Every class by itself, along a leading axis."""
    asked = Asked.of(target)
    index = program.call(("classes", asked), lambda tensors, given: _classes(program, tensors, asked, given), feeds, target.arrays)
    parts = [attribute(program, feeds, Target("index", row), method) for row in track(index)]
    stacked = {name: np.stack([part[name] for part in parts]) for name in ("seed", "residual")}
    relevance = {p: np.stack([part["relevance"][p] for part in parts]) for p in program.plan.points}
    return {**parts[0], **stacked, "relevance": relevance, "index": index}


def _of_gradient(method: str, gradient: np.ndarray, x: np.ndarray) -> np.ndarray:
    if method == "sensitivity":  # Gevrey et al. 2003; SA in Arras et al. 2017, section 2.3: (∂f/∂x)²
        return gradient**2
    return gradient * x if method == "gradient_x_input" else gradient


def _classes(program: Program, feeds: Mapping[str, Tensor], asked: Asked, given: Mapping[str, Tensor]) -> Tensor:
    """The explained classes of every position."""
    scores = program.forward(feeds).env[program.plan.explained]
    return classes(asked.mode, given, asked.count, scores, scores_of(program.plan))


def _start(
    program: Program, feeds: Mapping[str, Tensor], asked: Asked, given: Mapping[str, Tensor], gradient: bool
) -> dict[str, Any]:
    """The forward pass: which scores are explained, and with ``gradient`` their derivatives."""
    plan = program.plan
    like = scores_of(plan)
    early = program.forward(feeds, needed(plan).before).env
    points = {p: early[p] for p in plan.points}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        if gradient:
            tape.watch(list(points.values()))
        run = program.forward({**feeds, **points})
        scores = run.env[plan.explained]
        index = classes(asked.mode, given, asked.count, scores, like)
        mask = explained_at(run, given.get("steps"))
        # the explained score is linear in the scores
        weights = make_seed(asked.mode, given, index, tf.ones_like(scores), like)
        weights = weights if mask is None else weights * tf.cast(mask, scores.dtype)
        seed = run.absorbed.per_sample(weights * scores, plan.explained)
    result = {
        "outputs": {n: run.env[n] for n in plan.outputs if n in run.env},
        "points": points,
        "weights": weights,
        "seed": seed,
        "index": reported(run, asked, index, mask),
        "shape": tf.shape(scores),
    }
    if gradient:
        result["gradient"] = slopes(tape, seed, points)
    return result


def _safely(probe: Probe, compute: Callable[[], Any]) -> Any:
    """Copies beside each other, else one by one."""
    try:
        return compute()
    except Mixed:
        probe.folds = False
        return compute()


def _integrated(probe: Probe, baseline: Arrays, steps: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Sundararajan et al. 2017, eq. 1: (x − x′) ∫ ∂f(x′ + α (x − x′))/∂x dα, by the Gauss-Legendre rule; and what is missing to
    completeness (proposition 1), f(x) − f(x′) − Σ attributions.
    """
    at, weights = _nodes(steps)
    # copy 0 is the input, the last the baseline: their scores are needed, their derivatives are not
    way = np.concatenate([[1.0], at, [0.0]])
    share = np.concatenate([[0.0], weights, [0.0]])

    def make(numbers: np.ndarray) -> Arrays:
        alpha = way[numbers]
        out = {}
        for p, x in probe.points.items():
            a = alpha.reshape(-1, *[1] * x.ndim)
            out[p] = baseline[p] + a * (x.astype(np.float64) - baseline[p])
        return out

    def compute() -> Any:
        sums = {p: np.zeros(x.shape) for p, x in probe.points.items()}
        last = probe.scores
        for numbers, found in probe.run(make, len(way), True):
            for p, g in found["gradient"].items():
                sums[p] += np.tensordot(share[numbers], g.astype(np.float64), 1)
            last = found["seed"][-1]
        return sums, last

    sums, last = _safely(probe, compute)
    relevance = {p: g * (probe.points[p] - baseline[p]) for p, g in sums.items()}
    residual = probe.scores.astype(np.float64) - last
    for p, r in relevance.items():
        residual = residual - probe.program.plan.per_sample(r, p, residual.shape)
    return relevance, residual


def _nodes(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(places in [0, 1], weights) of the Gauss-Legendre rule, on equal parts of at most 100 places: more are slow to find."""
    parts = np.array_split(np.arange(steps), math.ceil(steps / 100))
    rules = [np.polynomial.legendre.leggauss(len(part)) for part in parts]
    width = 1 / len(parts)
    at = [(k + (nodes + 1) / 2) * width for k, (nodes, _) in enumerate(rules)]
    return np.concatenate(at), np.concatenate([weights * width / 2 for _, weights in rules])


def _occlusion(probe: Probe, baseline: Arrays, by: str | None) -> dict[str, np.ndarray]:
    """Zeiler and Fergus 2014, section 4.2; Li et al. 2016, *Understanding neural networks through representation erasure*, eq. 1,
    as a difference: f(x) − f(x with a part set to the baseline), spread evenly over the part.
    """
    relevance = {}
    for point, x in track(probe.points.items()):
        axis = probe.axes[point]
        units = _units(probe, point, by)
        shape = [x.shape[a] for a in units]

        def make(numbers: np.ndarray, point: str = point, x: np.ndarray = x, units: Any = units, shape: Any = shape) -> Arrays:
            out = {p: np.broadcast_to(a, (len(numbers), *a.shape)) for p, a in probe.points.items()}
            copies = np.array(out[point])
            for k, number in enumerate(numbers):
                if number:
                    part: list[Any] = [slice(None)] * x.ndim
                    for a, i in zip(units, np.unravel_index(number - 1, shape), strict=True):
                        part[a] = int(i)
                    copies[(k, *part)] = baseline[point][tuple(part)]
            return {**out, point: copies}

        def compute(make: Any = make, count: int = 1 + math.prod(shape)) -> np.ndarray:
            return np.concatenate([found["seed"] for _, found in probe.run(make, count, False)])

        scores = _safely(probe, compute).astype(np.float64)
        change = scores[:1] - scores[1:]  # (units, B)
        lost = change if axis is not None else change.sum(1, keepdims=True)
        width = x.size // (max(math.prod(shape), 1) * (x.shape[axis] if axis is not None else 1))
        kept = units if axis is None else [*units, axis]
        spread = lost.reshape([x.shape[a] for a in kept]).transpose(np.argsort(kept))
        sizes = [x.shape[a] if a in kept else 1 for a in range(x.ndim)]
        relevance[point] = np.broadcast_to(spread.reshape(sizes) / width, x.shape)
    return relevance


def _units(probe: Probe, point: str, by: str | None) -> list[int]:
    """The axes whose every index is occluded by itself."""
    plan, x = probe.program.plan, probe.points[point]
    own, batch, time = probe.axes[point], plan.batch_axis(point), plan.time_axis(point)
    if by == "step" and time is None:
        raise InputError(f"{point!r} has no time axis, so there are no steps to occlude; by='feature' does entries")
    if by == "feature" or time is None:
        return [a for a in range(x.ndim) if a != own]
    # samples that are merged with something else on an axis are told apart by its index
    return sorted({time} | ({batch} if own is None and batch is not None else set()))


def _point(name: str, plan: Plan) -> str:
    """The attribution point that a name stands for: itself, or the only one from a graph input of that name."""
    if name in plan.points:
        return name
    found = [p for p in plan.points if name in plan.origins.get(p, ())]
    if len(found) != 1:
        raise InputError(f"baseline for {name!r}: attribution points are {', '.join(map(repr, plan.points))}")
    return found[0]


def _baselines(given: Any, points: Arrays, plan: Plan) -> dict[str, np.ndarray]:
    """A baseline of every attribution point's shape."""
    named = {_point(str(k), plan): v for k, v in given.items()} if isinstance(given, Mapping) else dict.fromkeys(points, given)
    out = {}
    for point, x in points.items():
        try:
            array = np.asarray(named.get(point, 0.0), np.float64)
            out[point] = np.broadcast_to(array, x.shape)
        except (ValueError, TypeError) as error:
            raise InputError(f"baseline for {point!r}: expected a number or an array for shape {x.shape}: {error}") from error
        with np.errstate(over="ignore"):
            finite = np.all(np.isfinite(array.astype(x.dtype)))
        if not finite:
            raise InputError(f"baseline for {point!r} must be finite in {x.dtype}")
    return out
