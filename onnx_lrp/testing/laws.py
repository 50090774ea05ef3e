"""Laws that every model keeps, as plain functions: give a model and its inputs, get an AssertionError with numbers if it is broken.

Options of :func:`onnx_lrp.load` pass through, so a law can be asked under any rule; all run eagerly unless ``jit`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from ..explainer import Explainer, load
from ..explanation import Explanation
from ..inputs import prepare_inputs
from ..seeds import Target

__all__ = [
    "assert_batch_equivariant",
    "assert_conserves",
    "assert_linear",
    "assert_matches_runtime",
    "assert_padding_neutral",
    "assert_within_intervals",
]

Feeds = Mapping[str, np.ndarray]
CLOSED = {"float32": 1e-5, "float64": 1e-10}


def _load(model: Any, options: dict[str, Any]) -> Explainer:
    return load(model, **{"jit": "eager", "verify": "never", **options})


def _close(what: str, got: Any, want: Any, tolerance: float) -> None:
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    scale = max(float(np.abs(want).max(initial=0)), 1e-6)
    error = float(np.abs(got - want).max(initial=0))
    assert error <= tolerance * scale, f"{what}: off by {error:.2e} of {scale:.2e} (tolerance {tolerance:g})"


def assert_matches_runtime(model: Any, feeds: Feeds, *, tolerance: float = 1e-4, **options: Any) -> None:
    """The forward pass is onnxruntime's, relative to the largest magnitude of each output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    want = dict(zip([o.name for o in session.get_outputs()], session.run(None, dict(feeds)), strict=True))
    got = _load(model, options).predict(feeds)
    for name, array in want.items():
        _close(f"output {name!r}", got[name], array, tolerance)


def _magnitudes(explanation: Explanation) -> tuple[np.ndarray, np.ndarray]:
    """(Σ, Σ of magnitudes) of the relevance, each (B,), in float64."""
    total = size = np.zeros(len(explanation.seed))
    for point, relevance in explanation.relevance.items():
        axis, array = explanation.axes[point][0], relevance.astype(np.float64)
        over = tuple(a for a in range(array.ndim) if a != axis)
        total, size = total + array.sum(over), size + np.abs(array).sum(over)
    return total, size


def assert_conserves(
    model: Any, feeds: Feeds, *, target: Any = None, precision: str = "float32", tolerance: float | None = None, **options: Any
) -> None:
    """seed = Σ relevance + Σ absorbed for every sample and class, relative to what moved; residual and ledger say the same.

    ``tolerance``: default 1e-5 in float32, 1e-10 in float64.
    """
    explanation = _load(model, {"precision": precision, **options}).explain(feeds, target)
    for one in [explanation.select(k) for k in range(len(explanation.seed))] if explanation.several else [explanation]:
        _assert_closed(one, CLOSED[precision] if tolerance is None else tolerance)


def _assert_closed(explanation: Explanation, bound: float) -> None:
    seed = explanation.seed.astype(np.float64)
    total, size = _magnitudes(explanation)
    absorbed = {k: v.astype(np.float64) for k, v in explanation.absorbed.items()}
    left = seed - total - sum(absorbed.values())
    moved = np.abs(seed) + size + sum(np.abs(v) for v in absorbed.values())
    assert np.all(np.abs(left) <= bound * moved), f"books open by {left} of {moved} (bound {bound:g})"
    assert np.all(np.abs(explanation.residual - left) <= 1e-12 * moved), f"residual says {explanation.residual}, it is {left}"
    booked: dict[str, Any] = {}
    for kinds in explanation.ledger.values():
        for kind, amount in kinds.items():
            booked[kind] = booked.get(kind, 0) + amount.astype(np.float64)
    assert booked.keys() == absorbed.keys(), f"the ledger holds {sorted(booked)}, absorbed {sorted(absorbed)}"
    for kind, amount in absorbed.items():
        off = np.abs(booked[kind] - amount)
        assert np.all(off <= bound * moved), f"ledger and absorbed differ in {kind!r} by {off}"


def assert_batch_equivariant(
    model: Any, feeds: Feeds, *, precision: str = "float64", tolerance: float = 1e-9, **options: Any
) -> None:
    """Every sample is explained as if it were alone, and the order of samples does not matter."""
    explainer = _load(model, {"precision": precision, **options})
    axes = {n: explainer._plan.batch_axis(n) for n in feeds}
    whole = explainer.explain(feeds)
    count = len(whole.seed)
    for rows in (list(range(count))[::-1], *([k] for k in range(count))):
        part = explainer.explain({n: a if axes[n] is None else np.take(a, rows, axes[n]) for n, a in feeds.items()})
        _close(f"seed of samples {rows}", part.seed, whole.seed[rows], tolerance)
        for point, relevance in whole.relevance.items():
            axis = whole.axes[point][0]
            want = relevance if axis is None else np.take(relevance, rows, axis)
            _close(f"relevance at {point!r} of samples {rows}", part.relevance[point], want, tolerance)


def relevance_of(explainer: Explainer, feeds: Feeds, seed: np.ndarray) -> dict[str, np.ndarray]:
    """Relevance from any seed of the explained tensor's shape."""
    return explainer._run(prepare_inputs(feeds, explainer._plan), Target("seed", seed))["relevance"]


def assert_linear(
    model: Any, feeds: Feeds, *, seed: int = 0, precision: str = "float64", tolerance: float = 1e-9, **options: Any
) -> None:
    """Relevance is linear in the seed: R(2a − 3b) = 2 R(a) − 3 R(b)."""
    explainer = _load(model, {"precision": precision, **options})
    scores = explainer.explain(feeds)
    shape = _explained_shape(explainer, feeds, scores)
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=shape), rng.normal(size=shape)
    first, second = relevance_of(explainer, feeds, a), relevance_of(explainer, feeds, b)
    both = relevance_of(explainer, feeds, 2 * a - 3 * b)
    for point, relevance in both.items():
        # where 2 R(a) and 3 R(b) cancel, rounding is relative to the parts
        scale = max(np.abs(2 * first[point]).max(), np.abs(3 * second[point]).max(), 1e-9)
        error = np.abs(relevance - (2 * first[point] - 3 * second[point])).max()
        assert error <= tolerance * scale, f"relevance at {point!r} is not linear in the seed: off by {error:.2e} of {scale:.2e}"


def _explained_shape(explainer: Explainer, feeds: Feeds, explanation: Explanation) -> tuple[int, ...]:
    plan = explainer._plan
    if plan.explained in explanation.outputs:
        return explanation.outputs[plan.explained].shape
    sizes = []
    for dim in plan.vars[plan.explained].dims or ():
        sizes.append(len(explanation.seed) if dim.has(plan.batch) else dim.size)
    assert None not in sizes, f"the shape of {plan.explained!r} is unknown"
    return tuple(int(s) for s in sizes if s is not None)


def assert_padding_neutral(
    model: Any, feeds: Feeds, *, lengths: str = "lens", precision: str = "float64", tolerance: float = 1e-12, **options: Any
) -> None:
    """A step past a sample's length gets exactly zero, and its values change nothing.

    ``lengths``: the graph input that holds them, (B,).
    """
    explainer = _load(model, {"precision": precision, **options})
    before = explainer.explain(feeds)
    padded = dict(feeds)
    for point, relevance in before.relevance.items():
        batch, time = before.axes[point]
        if batch is None or time is None or point not in feeds:
            continue
        steps = np.arange(relevance.shape[time])
        past = steps[:, None] >= feeds[lengths][None]  # (T, B)
        past = past if time < batch else past.T
        past = past.reshape([relevance.shape[a] if a in (batch, time) else 1 for a in range(relevance.ndim)])
        assert not np.any(relevance * past), f"relevance at padded steps of {point!r}: up to {np.abs(relevance * past).max():.2e}"
        padded[point] = np.where(past, feeds[point] * -3 + 5, feeds[point]).astype(feeds[point].dtype)
    after = explainer.explain(padded)
    for point, relevance in before.relevance.items():
        _close(f"relevance at {point!r} with other padding", after.relevance[point], relevance, tolerance)


def assert_within_intervals(model: Any, feeds: Feeds, *, tolerance: float = 1e-9, **options: Any) -> None:
    """Every tensor of the graph keeps the bounds that gates are recognised by, and has the sizes it is said to have."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    known = {o.name for o in opened.graph.output}
    opened.graph.output.extend(
        onnx.ValueInfoProto(name=o) for node in opened.graph.node for o in node.output if o and o not in known
    )
    explainer = _load(opened, {"precision": "float64", **options})
    variables = explainer._plan.vars
    for name, array in explainer.predict(feeds).items():
        if name not in variables or array.dtype.kind not in "fiub":
            continue
        (low, high), array = variables[name].interval, np.asarray(array, np.float64)
        finite = array[np.isfinite(array)]
        slack = tolerance * max(1.0, float(np.abs(finite).max(initial=0)))
        assert np.all(finite >= low - slack), f"{name!r}: {finite.min()} is below {low}"
        assert np.all(finite <= high + slack), f"{name!r}: {finite.max()} is above {high}"
        sizes = variables[name].shape
        if sizes is not None:
            fits = len(sizes) == array.ndim and all(s in (None, n) for s, n in zip(sizes, array.shape, strict=True))
            assert fits, f"{name!r}: has shape {array.shape}, said to be {sizes}"
