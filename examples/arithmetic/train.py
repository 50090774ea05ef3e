# /// script
# requires-python = ">=3.11"
# dependencies = ["tensorflow>=2.18", "onnx>=1.17"]
# ///
"""Train tiny LSTMs that add or subtract two marked numbers of a sequence, and write them as .onnx.

The task of Arras et al. 2019, *Evaluating recurrent neural network explanations* (BlackboxNLP): which inputs are relevant, and how
much each contributes, is known. A step is a pair: (n, 0) for a number to ignore, (0, n) for one of the two that count;
numbers are uniform in [-1, 1]. The network is LSTM → linear without bias, and sees sequences of 4 to 10 steps,
shorter ones behind zeros.

    python examples/arithmetic/train.py --out examples/arithmetic
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STEPS, SHORTEST = 10, 4
TASKS = {"add": 1.0, "subtract": -1.0}  # the second number's coefficient


def sequences(count, *, steps, second, rng):
    """(x (count, STEPS, 2), y (count,), places (count, 2)): the sum, or the first marked number minus the second.

    Behind STEPS - steps steps of zeros, as in training.
    """
    numbers = rng.uniform(-1, 1, (count, steps)).astype(np.float32)
    places = np.sort(np.argsort(rng.random((count, steps)), axis=1)[:, :2], axis=1)
    marked = np.zeros((count, steps), bool)
    np.put_along_axis(marked, places, True, 1)
    x = np.stack([np.where(marked, 0, numbers), np.where(marked, numbers, 0)], 2)
    chosen = np.take_along_axis(numbers, places, 1)
    lead = STEPS - steps
    return np.pad(x, [(0, 0), (lead, 0), (0, 0)]), chosen[:, 0] + second * chosen[:, 1], places + lead


def train(task, *, units, seed, batch=128, rounds=200, inner=200, rate=1e-2, goal=3e-5):
    """(weights, validation error): Keras' kernel (2, 4H), recurrent kernel (H, 4H), bias (4H,), head (H, 1); gates i, f, c, o."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(seed)
    inputs = tf.keras.Input((STEPS, 2))
    hidden = tf.keras.layers.LSTM(units, unroll=True)(inputs)
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(1, use_bias=False)(hidden))
    total = rounds * inner
    optimizer = tf.keras.optimizers.Adam(tf.keras.optimizers.schedules.CosineDecay(rate, total, 1e-3), clipnorm=1.0)
    optimizer.build(model.trainable_variables)
    second = TASKS[task]

    @tf.function(jit_compile=True)
    def some(start):
        for k in tf.range(inner):
            key = tf.stack([seed, start * inner + k])
            numbers = tf.random.stateless_uniform((batch, STEPS), key, -1, 1)
            # shorter sequences: zeros before the first step
            length = tf.random.stateless_uniform((batch, 1), key + 1000, SHORTEST, STEPS + 1, tf.int32)
            inside = tf.range(STEPS)[None] >= STEPS - length
            draw = tf.where(inside, tf.random.stateless_uniform((batch, STEPS), key + 2000), -1.0)
            two = tf.math.top_k(draw, 2).indices
            first, last = tf.reduce_min(two, 1), tf.reduce_max(two, 1)
            one, other = tf.one_hot(first, STEPS), tf.one_hot(last, STEPS)
            marked = one + other
            ignored = tf.where(inside, numbers * (1 - marked), 0.0)
            x = tf.stack([ignored, numbers * marked], 2)
            y = tf.reduce_sum(numbers * (one + second * other), 1)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x, training=True)[:, 0] - y) ** 2)
            optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True))

    rng = np.random.default_rng(10_000 + seed)
    parts = [sequences(400, steps=steps, second=second, rng=rng) for steps in range(SHORTEST, STEPS + 1)]
    x, y = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    error = np.inf
    for start in range(rounds):
        some(tf.constant(start))
        if start % 10 == 9:
            error = float(np.mean((model(x)[:, 0] - y) ** 2))
            if error < goal:
                break
    return [w.numpy() for w in model.trainable_variables], error


def write(path, kernel, recurrent, bias, head, *, note=""):
    """An LSTM with a linear head as .onnx: x (batch, time, I) → y (batch, 1).

    Args:
        kernel: (I, 4H), recurrent: (H, 4H), bias: (4H,), with gates i, f, c, o as Keras has them; head: (H, 1).
    """
    size, width = head.shape[0], kernel.shape[0]

    def reordered(array):  # i, f, c, o → ONNX's i, o, f, c, gates first
        i, f, c, o = np.split(np.asarray(array, np.float32), 4, -1)
        return np.concatenate([i, o, f, c], -1).T[None]

    tensors = {
        "W": reordered(kernel),
        "R": reordered(recurrent),
        "B": np.concatenate([reordered(bias), np.zeros((1, 4 * size), np.float32)], 1),
        "head": np.asarray(head, np.float32),
        "axis": np.array([0], np.int64),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], name="time_first", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "W", "R", "B"], ["", "last"], name="lstm", hidden_size=size),
        helper.make_node("Squeeze", ["last", "axis"], ["h"], name="direction"),
        helper.make_node("MatMul", ["h", "head"], ["y"], name="linear"),
    ]
    graph = helper.make_graph(
        nodes,
        "arithmetic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(a, n) for n, a in tensors.items()],
        doc_string=note,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    if path is not None:
        onnx.save(model, path)
    return model


def main(argv=None):
    """Train until there are enough networks of each task below the error, and write them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--networks", type=int, default=3, help="of each task")
    parser.add_argument("--tries", type=int, default=12, help="seeds to try for each task")
    parser.add_argument("--error", type=float, default=1e-4, help="mean squared validation error to reach")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--task", choices=TASKS, action="append")
    parser.add_argument("--subtract-units", type=int, default=24)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    for task in options.task or TASKS:
        units = 1 if task == "add" else options.subtract_units
        kept = 0
        for seed in range(options.tries):
            start = time.perf_counter()
            weights, error = train(task, units=units, seed=seed, rounds=options.rounds)
            print(f"{task}, {units} unit(s), seed {seed}: error {error:.1e}, {time.perf_counter() - start:.0f} s", flush=True)
            if error >= options.error:
                continue
            write(options.out / f"{task}-{kept}.onnx", *weights, note=f"{task}, seed {seed}, validation error {error:.2e}")
            kept += 1
            if kept == options.networks:
                break
        if kept < options.networks:
            raise SystemExit(f"{task}: {kept} of {options.networks} networks reached {options.error:g}")


if __name__ == "__main__":
    main()
