"""LinearClassifier and LinearRegressor of the domain ai.onnx.ml: one dense layer, then what its post_transform says.

The scores that are explained are the dense layer's, whatever follows (:mod:`onnx_lrp.heads`); labels are looked up off the path.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Node
from ..rewrite import Rewriting, rewriter
from ..spelling import Spelling
from .features import CLASSICAL

__all__: list[str] = []

ZERO = 1e-7  # SOFTMAX_ZERO takes scores up to this for none


class _Linear(Spelling):
    """A dense layer and what becomes of its scores."""

    def dense(self, x: str, coefficients: Any, intercepts: Any, rows: int) -> str:
        weight = np.asarray(coefficients, np.float32)
        if not weight.size or weight.size % rows:
            raise self.graph.refuse(f"{weight.size} coefficients for {rows} rows")
        floats = self.cast(x)
        bias = [self.graph.constant(intercepts, np.float32)] if intercepts else []
        return self("Gemm", floats, self.graph.constant(weight.reshape(rows, -1)), *bias, transB=1)

    def transformed(self, z: str, post: str, *, to: str) -> None:
        """All columns, by ``post``."""
        make, graph = self, self.graph
        if post == "NONE":
            make("Identity", z, to=to)
        elif post == "LOGISTIC":
            make("Sigmoid", z, to=to)
        elif post == "SOFTMAX":
            make("Softmax", z, to=to, axis=1)
        elif post == "SOFTMAX_ZERO":  # a score of exactly 0 stays 0
            given = self.cast(make("Greater", make("Abs", z), graph.constant(ZERO, np.float32)))
            part = make("Mul", make("Softmax", z, axis=1), given)
            make("Normalizer", part, to=to, domain=CLASSICAL, version=1, norm="L1")
        else:
            raise graph.refuse(f"post_transform {post!r} is not read")


@rewriter("LinearRegressor", domain=CLASSICAL)
def linear_regressor(node: Node, graph: Rewriting) -> list[Node]:
    """Any post_transform of a single target is ignored, as onnxruntime does."""
    given = dict(node.attributes)
    targets, post = given.pop("targets", 1), given.pop("post_transform", "NONE")
    coefficients, intercepts = given.pop("coefficients", ()), given.pop("intercepts", ())
    if given:
        raise graph.refuse(f"attribute {next(iter(given))!r} is not read")
    make = _Linear(graph)
    z = make.dense(graph.input(0), coefficients, intercepts, targets)
    make.transformed(z, post if targets > 1 or post == "PROBIT" else "NONE", to=graph.output(0))
    return make.made


@rewriter("LinearClassifier", domain=CLASSICAL)
def linear_classifier(node: Node, graph: Rewriting) -> list[Node]:
    """Outputs: the label of the largest score, and all scores. Two classes may have one row of coefficients z: [1 − p, p] with
    p = sigmoid z, or without LOGISTIC [1 − z, z]; the second class is the label where z > 0.
    """
    given = dict(node.attributes)
    given.pop("multi_class", 0)
    post = given.pop("post_transform", "NONE")
    coefficients, intercepts = given.pop("coefficients", ()), given.pop("intercepts", ())
    labels = [np.asarray(given.pop(k, ()), kind) for k, kind in (("classlabels_ints", np.int64), ("classlabels_strings", object))]
    if given:
        raise graph.refuse(f"attribute {next(iter(given))!r} is not read")
    (names,) = [v for v in labels if v.size] or [np.zeros(0, np.int64)]
    rows = len(intercepts)
    if not names.size or (rows != names.size and (rows, names.size) != (1, 2)):
        raise graph.refuse(f"{rows} intercepts for {names.size} class labels")
    make = _Linear(graph)
    z = make.dense(graph.input(0), coefficients, intercepts, rows)
    if rows == 1 and names.size == 2:
        if post == "PROBIT":
            raise graph.refuse("post_transform 'PROBIT' is not read")
        p = make("Sigmoid", z) if post == "LOGISTIC" else z
        rest = make("Sub", graph.constant(1, np.float32), p)
        make("Concat", rest, p, to=graph.output(1), axis=1)
        second = make("Greater", make("Squeeze", z, graph.constant([1], np.int64)), graph.constant(0, np.float32))
        index = make.cast(second, np.int64)
    else:
        make.transformed(z, post, to=graph.output(1))
        index = make("ArgMax", z, axis=1, keepdims=0)
    if graph.output(0):
        make("Gather", graph.constant(names), index, to=graph.output(0))
    return make.made
