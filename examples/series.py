# /// script
# requires-python = ">=3.11"
# dependencies = ["onnx-lrp[cpu]", "aeon>=1"]
# ///
"""Who is speaking, and in which of twelve coefficients is it heard? Series of different lengths from aeon's JapaneseVowels.

python examples/series.py [--html speakers.html]
"""

import argparse

import keras
import numpy as np
from to_onnx import Net

import onnx_lrp


def japanese_vowels():
    """((sequences, classes) to train, the same to test): 270 and 370 of 12 features and 7 to 29 steps, 9 speakers."""
    from aeon.datasets import load_japanese_vowels

    def read(split):
        x, y = load_japanese_vowels(split=split)
        return [np.float32(one.T) for one in x], np.array(y, int) - 1

    return read("train"), read("test")


def padded(sequences):
    """(B, T, I), zeros behind each sequence's end."""
    out = np.zeros((len(sequences), max(map(len, sequences)), sequences[0].shape[1]), np.float32)
    for row, sequence in zip(out, sequences, strict=True):
        row[: len(sequence)] = sequence
    return out


def train(x, y, *, units=32, epochs=60, path="speakers.onnx"):
    """An LSTM whose last state is read; padding is masked, so that the .onnx file needs none."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, x[0].shape[1]))
    lstm, head = keras.layers.LSTM(units), keras.layers.Dense(int(y.max()) + 1)
    model = keras.Model(inputs, head(lstm(keras.layers.Masking()(inputs))))
    model.compile(keras.optimizers.Adam(5e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(padded(x), y, epochs=epochs, batch_size=32, verbose=0)
    net = Net()
    net.dense(net.recurrent("x", "LSTM", lstm.get_weights()), *head.get_weights())
    return net.save(path, ("x", ["batch", "time", x[0].shape[1]]), ("scores", ["batch", int(y.max()) + 1]))


def main(argv=None, data=None, **options):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--html", help="a page of the first samples")
    arguments = parser.parse_args(argv)
    (x, y), (test, truth) = data or japanese_vowels()
    explainer = onnx_lrp.load(train(x, y, **options))
    explanation = explainer.explain(test)  # a list: every sequence is run at its own length
    right = explanation.outputs["scores"].argmax(1) == truth
    print(f"{len(test)} sequences of {explanation.lengths.min()} to {explanation.lengths.max()} steps, {right.mean():.1%} right")
    print(f"books closed to {np.abs(explanation.residual).max():.0e}")

    by_feature = np.abs(explanation.relevance["x"]).sum(axis=1)  # (B, I): padded steps have none
    share = by_feature / by_feature.sum(axis=1, keepdims=True)
    for speaker in range(int(y.max()) + 1):
        mean = share[explanation.target == speaker].mean(axis=0)
        best = np.argsort(mean)[::-1][:3]
        print(f"speaker {speaker}: " + ", ".join(f"coefficient {k} {mean[k]:.0%}" for k in best))
    if arguments.html:
        explanation.to_html(arguments.html, summary=explainer.summary())
    return explanation, right


if __name__ == "__main__":
    main()
