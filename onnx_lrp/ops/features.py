"""Feature preparation in the domain ai.onnx.ml: Scaler, Normalizer, Imputer, Binarizer, and what selects, joins or names features.

Integers are cast first, so relevance ends at their values in floating point.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import Dim, fresh
from ..graph import Node
from ..layer import Affine, Opaque, Plain, Routing, Share, Trace, constant_dims, fill, mixed
from ..linear import LinearMap
from ..registry import Var, importer
from ..rewrite import Rewriting, rewriter
from ..spelling import Spelling
from .gather import inside
from .reshape import Same

__all__ = ["Columns", "Imputer", "Normalizer"]

Tensor = Any
CLASSICAL = "ai.onnx.ml"


@rewriter("Scaler", domain=CLASSICAL)
def scaler(node: Node, graph: Rewriting) -> list[Node]:
    """(x − offset) · scale, in float32 whatever the input is."""
    numbers = {k: np.asarray(node.attributes.get(k, ()), np.float32) for k in ("offset", "scale")}
    if set(node.attributes) - set(numbers) or not all(v.size for v in numbers.values()):
        raise graph.refuse("it has offset and scale, no other attributes")
    make = Spelling(graph)
    shifted = make("Sub", make.cast(graph.input(0)), graph.constant(numbers["offset"]))
    make("Mul", shifted, graph.constant(numbers["scale"]), to=graph.output(0))
    return make.made


@rewriter("FeatureVectorizer", domain=CLASSICAL)
def feature_vectorizer(node: Node, graph: Rewriting) -> list[Node]:
    """Columns of all inputs side by side; ``inputdimensions`` are their numbers, which the inputs have anyway."""
    if set(node.attributes) - {"inputdimensions"}:
        raise graph.refuse("it has inputdimensions, no other attributes")
    make = Spelling(graph)
    make("Concat", *(make.cast(x) for x in node.inputs), to=graph.output(0), axis=1)
    return make.made


@dataclass(frozen=True, eq=False, kw_only=True)
class Normalizer(Affine):
    """x / norm(x) over axis 1, or the only one; a norm of 0 divides nothing.

    The norm is a constant for relevance (Ali et al. 2022).
    """

    norm: str

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        dtype = xs[0].dtype if xs[0].is_float else np.dtype(np.float32)
        return [Var("", dtype, xs[0].dims)]

    def sums(self, xs: Sequence[Var]) -> bool:
        return False

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x = xs[0] if xs[0].dtype.is_floating else tf.cast(xs[0], p["precision"].dtype)
        axis = min(1, x.shape.rank - 1)
        if self.norm == "MAX":
            norm = tf.reduce_max(x, axis, keepdims=True)
        elif self.norm == "L1":
            norm = tf.reduce_sum(tf.abs(x), axis, keepdims=True)
        else:
            norm = tf.sqrt(tf.reduce_sum(x * x, axis, keepdims=True))
        factor = tf.where(norm == 0, tf.ones_like(norm), 1 / norm)
        return Trace(xs, [x * factor], p, {"factor": factor})

    def linear(self, trace: Trace) -> LinearMap:
        return _scaled(trace.saved["factor"])


def _scaled(factor: Tensor) -> LinearMap:
    return LinearMap(call=lambda xs: xs[0] * factor, pull=lambda s: [s * factor], mapped=lambda f: _scaled(f(factor)))


PRECISION = {"precision": np.zeros((), np.float32)}  # a float parameter takes the precision of the run


@importer("Normalizer", domain=CLASSICAL)
def normalizer(X: Any, *, norm: str = "MAX", node: Any) -> Any:
    if norm not in ("MAX", "L1", "L2"):
        raise node.refuse(f"norm {norm!r} does not exist")
    return Normalizer(norm=norm, parameters=PRECISION), (X,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Imputer(Opaque):
    """Missing entries (``missing``, or NaN) become constants: parameters: values (C,) or (1,). Relevance there is absorbed.

    Not an index map: x · s would be NaN where x is.
    """

    missing: float

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [dataclasses.replace(xs[0], value=None, origin=frozenset(), interval=(-np.inf, np.inf))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        gone = tf.math.is_nan(x) if np.isnan(self.missing) else tf.equal(x, tf.cast(self.missing, x.dtype))
        values = tf.cast(p["values"], x.dtype)
        return Trace(xs, [tf.where(gone, values, x)], p, {"gone": gone})

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        r: Tensor = rs[0]
        zero, gone = tf.zeros_like(r), trace.saved["gone"]
        return Share([tf.where(gone, zero, r)], {"constant": tf.where(gone, r, zero)})


@importer("Imputer", domain=CLASSICAL)
def imputer(
    X: Any,
    *,
    imputed_value_floats: Any = None,
    imputed_value_int64s: Any = None,
    replaced_value_float: float = 0.0,
    replaced_value_int64: int = 0,
    node: Any,
) -> Any:
    values, missing = (
        (imputed_value_floats, replaced_value_float) if X.is_float else (imputed_value_int64s, float(replaced_value_int64))
    )
    if not values:
        raise node.refuse(f"it has no values for {X.dtype}")
    return Imputer(missing=missing, parameters={"values": np.asarray(values, np.float32 if X.is_float else np.int64)}), (X,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Columns(Routing):
    """Entries of the last axis by index. Slots: data, indices, of which one is constant; one axis of data becomes two."""

    slots: tuple[int | str, ...]

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if isinstance(self.slots[0], int) and xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        first, second = self.slots
        data, indices = (constant_dims(self.parameters[s]) if isinstance(s, str) else xs[s].dims for s in self.slots)
        dtype = self.parameters[first].dtype if isinstance(first, str) else xs[first].dtype
        if data is None or indices is None:
            return [Var("", dtype, None)]
        count = Dim(tuple(label for d in indices for label in d.labels))
        if isinstance(second, str):
            count = fresh(self.parameters[second].size)
        interval = (-np.inf, np.inf) if isinstance(first, str) else xs[first].interval
        return [Var("", dtype, (*(data[:-1] or (Dim(),)), count), interval=interval)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices = fill(self.slots, xs, p)
        y = tf.gather(data, tf.reshape(indices, [-1]), axis=-1)
        return Trace(xs, [y if data.shape.rank > 1 else y[None]], p)

    def within(self, trace: Trace) -> Tensor | None:
        data, indices = fill(self.slots, trace.inputs, trace.parameters)
        return inside(indices, tf.shape(data)[-1])

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        data, indices = fill(self.slots, trace.inputs, trace.parameters)
        r: Tensor = rs[0] if data.shape.rank > 1 else rs[0][0]  # type: ignore[index]
        last = r.shape.rank - 1
        turn = [last, *range(last)]
        summed = tf.math.unsorted_segment_sum(tf.transpose(r, turn), tf.reshape(indices, [-1]), tf.shape(data)[-1])
        back = tf.transpose(summed, [*range(1, last + 1), 0])
        return [back, *[None] * (len(trace.inputs) - 1)]


@importer("ArrayFeatureExtractor", domain=CLASSICAL)
def array_feature_extractor(X: Any, Y: Any, *, node: Any) -> Any:
    slots, parameters, inputs = mixed(X, Y)
    return Columns(slots=slots, parameters=parameters), inputs


@importer("ZipMap", domain=CLASSICAL)
def zip_map(X: Any, *, classlabels_int64s: Any = None, classlabels_strings: Any = None) -> Any:
    """Names every column; here the output stays the array of the columns, in the order of the labels."""
    return Same(), (X,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Binarizer(Plain):
    """1 where x > ``threshold``, else 0: a mask, where relevance stops."""

    threshold: float

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", xs[0].dtype, xs[0].dims, mask=True, interval=(0.0, 1.0))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        return Trace(xs, [tf.cast(x > tf.cast(self.threshold, x.dtype), x.dtype)], p)


@importer("Binarizer", domain=CLASSICAL)
def binarizer(X: Any, *, threshold: float = 0.0) -> Any:
    return Binarizer(threshold=threshold), (X,)
