"""Laws that every model keeps, as plain functions: give a model and its inputs, get an AssertionError with numbers if it is broken.

A model is anything :func:`onnx_lrp.load` takes. Its options pass through, so a law can be asked under any rule; all run eagerly
unless ``jit`` says otherwise. Every tolerance is relative to something that is stated, and can be passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from ..errors import ParityError
from ..explainer import Explainer
from ..loading import load
from . import measures
from .measures import CLOSED, SAME, Figure, compared

__all__ = [
    "assert_batch_equivariant",
    "assert_conserves",
    "assert_deterministic",
    "assert_finite",
    "assert_linear",
    "assert_matches_runtime",
    "assert_padding_neutral",
    "assert_within_intervals",
]

Feeds = Mapping[str, np.ndarray]


def _load(model: Any, options: dict[str, Any]) -> Explainer:
    return load(model, **{"jit": "eager", "verify": "never", **options})


def _hold(figures: Sequence[Figure]) -> None:
    broken = "; ".join(str(f) for f in figures if not f.holds)
    assert not broken, broken


def assert_matches_runtime(model: Any, feeds: Feeds, *, tolerance: float = 1e-4, **options: Any) -> None:
    """The forward pass is onnxruntime's, relative to the largest magnitude of each output."""
    explainer = _load(model, options)
    want = explainer._runtime.forward(feeds)
    assert want is not None, f"onnxruntime can't run the model: {explainer._runtime.reference[1]}"
    got = explainer.predict(feeds)
    _hold([compared(f"output {n!r}", got[n], a, tolerance) for n, a in want.items()])


def assert_conserves(
    model: Any, feeds: Feeds, *, target: Any = None, precision: str = "float32", tolerance: float | None = None, **options: Any
) -> None:
    """seed = Σ relevance + Σ absorbed for every sample and class, relative to what moved; residual and ledger say the same.

    What moved: ``|seed| + Σ |relevance| + Σ |absorbed|``. ``tolerance``: default 1e-5 in float32, 1e-10 in float64.
    """
    explanation = _load(model, {"precision": precision, **options}).explain(feeds, target)
    for one in [explanation.select(k) for k in range(len(explanation.seed))] if explanation.several else [explanation]:
        _hold(measures.conservation(one, CLOSED[precision] if tolerance is None else tolerance))


def assert_batch_equivariant(
    model: Any, feeds: Feeds, *, precision: str = "float64", tolerance: float = SAME, **options: Any
) -> None:
    """Every sample is explained as if it were alone, and the order of samples does not matter.

    Relative to the largest relevance or seed; ``tolerance``: rounding of float64, however often the stabilizer magnifies it.
    """
    explainer = _load(model, {"precision": precision, **options})
    _hold(measures.equivariance(explainer, feeds, explainer.explain(feeds), tolerance))


def assert_linear(
    model: Any, feeds: Feeds, *, seed: int = 0, precision: str = "float64", tolerance: float = SAME, **options: Any
) -> None:
    """Relevance is linear in the seed: R(2a − 3b) = 2 R(a) − 3 R(b), relative to the largest of the parts and of the seeds."""
    explainer = _load(model, {"precision": precision, **options})
    shape = measures.explained_shape(explainer, explainer.explain(feeds))
    assert shape is not None, f"the shape of {explainer._plan.explained!r} is unknown"
    _hold(measures.linearity(explainer, feeds, shape, seed, tolerance))


def assert_deterministic(
    model: Any, feeds: Feeds, *, target: Any = None, precision: str = "float32", tolerance: float = 0.0, **options: Any
) -> None:
    """Two runs give the same numbers, to the last bit unless ``tolerance`` (relative to each array's largest) says otherwise."""
    explainer = _load(model, {"precision": precision, **options})
    _hold([measures.determinism(explainer.explain(feeds, target), explainer.explain(feeds, target), tolerance)])


def assert_finite(model: Any, feeds: Feeds, *, target: Any = None, precision: str = "float32", **options: Any) -> None:
    """No entry of outputs, relevance, absorbed, seed or residual is NaN or infinite.

    Raises:
        AssertionError: one is, or the forward pass is not onnxruntime's.
    """
    try:
        explanation = _load(model, {"precision": precision, **options}).explain(feeds, target)
    except ParityError as error:
        raise AssertionError(str(error)) from error
    _hold([measures.finiteness(explanation)])


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
        _hold([compared(f"relevance at {point!r} with other padding", after.relevance[point], relevance, tolerance)])


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
        if name not in variables or isinstance(array, list) or array.dtype.kind not in "fiub":  # a list is a sequence
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
