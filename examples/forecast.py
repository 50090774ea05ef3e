# /// script
# requires-python = ">=3.11"
# dependencies = ["onnx-lrp[cpu]"]
# ///
"""Which hours does a forecast rest on? A GRU with one number as output: a regression has no classes, its value itself is explained.

    python examples/forecast.py

Made-up data whose right answer is known: the load of the next hour is that of three hours ago and a bit of the temperature now.
"""

import keras
import numpy as np
from to_onnx import Net

import onnx_lrp

STEPS, LAG = 8, 3
FEATURES = ("load", "temperature", "noise")


def data(count, seed):
    """x (B, T, 3), y (B, 1)."""
    x = np.random.default_rng(seed).normal(size=(count, STEPS, len(FEATURES))).astype(np.float32)
    return x, x[:, STEPS - LAG, :1] + 0.5 * x[:, -1, 1:2]


def train(count=4000, epochs=25, units=24, path="forecast.onnx"):
    keras.utils.set_random_seed(0)
    gru, head = keras.layers.GRU(units), keras.layers.Dense(1)
    inputs = keras.Input((None, len(FEATURES)))
    model = keras.Model(inputs, head(gru(inputs)))
    model.compile(keras.optimizers.Adam(5e-3), "mse")
    model.fit(*data(count, seed=0), epochs=epochs, batch_size=64, verbose=0)
    net = Net()
    net.dense(net.recurrent("x", "GRU", gru.get_weights()), *head.get_weights())
    return net.save(path, ("x", ["batch", "time", len(FEATURES)]), ("load", ["batch", 1]))


def main(**options):
    x, y = data(300, seed=1)
    explainer = onnx_lrp.load(train(**options))
    explanation = explainer.explain(x)  # no target: there is one value, and it starts with its sign
    error = float(np.mean((explanation.outputs["load"] - y) ** 2))
    print(f"squared error {error:.3f} of a variance of {y.var():.2f}; books closed to {np.abs(explanation.residual).max():.0e}")

    share = np.abs(explanation.relevance["x"]).mean(axis=0)  # (T, I)
    share /= share.sum()
    print("share of relevance  " + "".join(f"{name:>13}" for name in FEATURES))
    for step, row in enumerate(share):
        print(f"{STEPS - step} hours before       " + "".join(f"{value:13.1%}" for value in row))

    negative = explanation.seed < 0
    print(f"{negative.sum()} forecasts are below zero: there positive relevance still means that it raises the value")
    return explanation, share


if __name__ == "__main__":
    main()
