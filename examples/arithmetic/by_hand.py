"""LSTMs of one unit whose weights are set by hand, so that the right explanation has a closed form; cf. Hao 2020, *Evaluating
attribution methods using white-box LSTMs* (BlackboxNLP).

Counter: a step is (a, b, r), one of them 1. The cell counts the a since the last r: a adds 1, b nothing, r closes the forget gate.
The score is tanh(count): saturated from 3 on. Brackets: a step is (open, close). The cell is the depth: open adds 1, close takes 1
away.

    python examples/arithmetic/by_hand.py
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

import onnx_lrp

OPEN = 30.0  # a gate's pre-activation that is 1 in float32, and with the other sign 0
METHODS = {"LRP": "lrp", "gradient × input": "gradient_x_input", "occlusion": "occlusion"}

_spec = importlib.util.spec_from_file_location("arithmetic_train", Path(__file__).resolve().parent / "train.py")
training = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(training)


def counter():
    """x (B, T, 3) → tanh(how many a stand behind the last r)."""
    kernel = np.zeros((3, 4), np.float32)  # columns: i, f, c, o
    kernel[0, 2] = OPEN  # an a: the candidate is 1
    kernel[2, 1] = -2 * OPEN  # an r: the forget gate is 0
    return training.write(None, kernel, np.zeros((1, 4)), np.array([OPEN, OPEN, 0, OPEN]), np.ones((1, 1)))


def brackets(scale=0.01):
    """x (B, T, 2) → how many brackets are open, up to scale² / 3 of its cube, by which tanh is no straight line."""
    kernel = np.zeros((2, 4), np.float32)
    kernel[:, 2] = np.arctanh([scale, -scale])
    return training.write(None, kernel, np.zeros((1, 4)), np.array([OPEN, OPEN, 0, OPEN]), np.full((1, 1), 1 / scale))


def encode(text, symbols):
    """A text → (1, T, len(symbols)), one entry of each step 1."""
    return np.array([[[float(c == s) for s in symbols] for c in text]], np.float32)


def shapley(model, x):
    """(T,) Shapley values of the steps, a missing one being zero: the mean of what each adds, over all orders. Slow, exact."""
    explainer = onnx_lrp.load(model, jit="graph")
    steps = x.shape[1]
    kept = ((np.arange(2**steps)[:, None] >> np.arange(steps)) & 1).astype(np.float32)
    value = next(iter(explainer.predict(x * kept[:, :, None]).values()))[:, 0].astype(np.float64)
    size = kept.sum(1).astype(int)
    factorial = np.cumprod([1, *range(1, steps + 1)]).astype(np.float64)
    out = np.zeros(steps)
    for t in range(steps):
        without = np.flatnonzero(kept[:, t] == 0)
        weight = factorial[size[without]] * factorial[steps - size[without] - 1] / factorial[steps]
        out[t] = (weight * (value[without + (1 << t)] - value[without])).sum()
    return out


def steps_of(model, x, method="lrp", **settings):
    """(T,) relevance of the steps."""
    found = onnx_lrp.load(model, jit="graph", epsilon=settings.pop("epsilon", 1e-6), **settings)
    return found.explain(x, method=method).per_step()[0]


def main():
    """Print what each method says, below what is right."""
    for name, model, symbols, texts in (
        ("counter", counter(), "abr", ("abab", "aaaaaa", "aarab")),
        ("brackets", brackets(), "()", ("(()", "()(", "(())((")),
    ):
        for text in texts:
            x = encode(text, symbols)
            print(f"{name}, {text}")
            rows = {"Shapley value": shapley(model, x)} | {n: steps_of(model, x, m) for n, m in METHODS.items()}
            for title, row in rows.items():
                print(f"  {title:18}", *(f"{v:+7.3f}" for v in row), f"  sum {row.sum():+.3f}")


if __name__ == "__main__":
    main()
