# /// script
# requires-python = ">=3.11"
# dependencies = ["onnx-lrp[cpu]"]
# ///
"""An op that nobody has, explained: ``com.example:Snake`` in a file, and the few lines that teach onnx-lrp to read it.

python examples/own_op.py
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from to_onnx import Net

import onnx_lrp
from onnx_lrp.layer import Elementwise, Trace
from onnx_lrp.registry import Var, importer


@dataclass(frozen=True, eq=False, kw_only=True)
class Snake(Elementwise):
    """x + sin²(a·x) / a (Ziyin et al. 2020): an activation, so relevance passes unchanged."""

    a: float

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        """The output has the input's sizes, and is no constant."""
        return [dataclasses.replace(xs[0], value=None, origin=frozenset())]

    def run(self, xs: Sequence[Any], p: Mapping[str, Any]) -> Trace:
        import tensorflow as tf

        return Trace(xs, [xs[0] + tf.sin(self.a * xs[0]) ** 2 / self.a], p)


def register():
    """From here on files with the op are read: positional parameters are its inputs, keywords its attributes."""

    @importer("Snake", domain="com.example")
    def snake(X, *, a=1.0):
        return Snake(a=a), (X,)


def model(path="snake.onnx", seed=0):
    """x (B, 4) → dense → Snake → dense → (B, 2)."""
    rng, net = np.random.default_rng(seed), Net()
    z = net.dense("x", rng.normal(size=(4, 6)), rng.normal(size=6))
    net.dense(net.op("Snake", [z], domain="com.example", a=0.5), rng.normal(size=(6, 2)), rng.normal(size=2))
    return net.save(path, ("x", ["batch", 4]), ("scores", ["batch", 2]), domain="com.example")


def main():
    path, x = model(), np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    try:
        onnx_lrp.load(path)
    except onnx_lrp.UnsupportedModel as error:
        print(f"before: {error}")
    register()
    # onnxruntime doesn't know the op either, so there is nothing to compare the forward pass with
    explainer = onnx_lrp.load(path, verify="never")
    explanation = explainer.explain(x)
    print("after:  relevance of the first sample " + " ".join(f"{r:+.3f}" for r in explanation.relevance["x"][0]))
    print(f"books closed to {np.abs(explanation.residual).max():.0e}")
    return explanation


if __name__ == "__main__":
    main()
