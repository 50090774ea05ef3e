# /// script
# requires-python = ">=3.11"
# dependencies = ["onnx-lrp[cpu]", "torch>=2.6", "onnxscript", "tf2onnx>=1.17"]
# ///
"""One network, two frameworks, one explanation: the demo's weights in PyTorch and in Keras, each exported in its own way.

python examples/sentiment/frameworks.py ["a sentence about a film" …]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import onnx_lrp
from onnx_lrp import demo


def weights():
    """(embedding (V, E), [W_x (E, 4H), W_h (H, 4H), b (4H,) of each direction, gates i, f, c, o], head (2H, 2), its bias)."""
    embedding, lstm, head = onnx_lrp.load(demo.model()).weights().values()
    directions = [(lstm["W_x"][d], lstm["W_h"][d], lstm["b"][d]) for d in (0, 1)]
    return embedding["c0"], directions, head["weight"], head["bias"]


def from_torch(path):
    """torch.nn.LSTM: gates i, f, c, o in rows, two biases; written by torch.onnx.export."""
    import torch

    table, directions, kernel, bias = weights()

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(*table.shape)
            self.lstm = torch.nn.LSTM(table.shape[1], len(directions[0][1]), batch_first=True, bidirectional=True)
            self.head = torch.nn.Linear(*kernel.shape)

        def forward(self, ids):
            _, (h, _) = self.lstm(self.embedding(ids))
            return self.head(torch.cat([h[0], h[1]], 1))

    network, zeros = Network().eval(), np.zeros_like(directions[0][2])
    arrays = {"embedding.weight": table, "head.weight": kernel.T, "head.bias": bias}
    for suffix, (w_x, w_h, b) in zip(("", "_reverse"), directions, strict=True):
        arrays |= {f"lstm.weight_ih_l0{suffix}": w_x.T, f"lstm.weight_hh_l0{suffix}": w_h.T}
        arrays |= {f"lstm.bias_ih_l0{suffix}": b, f"lstm.bias_hh_l0{suffix}": zeros}
    network.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    open_sizes = {"ids": {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}}
    torch.onnx.export(
        network, (torch.ones(2, 5, dtype=torch.int64),), path, input_names=["ids"], dynamic_shapes=open_sizes, verbose=False
    )
    return path


def from_keras(path):
    """keras.layers.Bidirectional(LSTM): gates i, f, c, o in columns, one bias; written by tf2onnx, through Keras' own export."""
    import keras

    table, directions, kernel, bias = weights()
    embedding, head = keras.layers.Embedding(*table.shape), keras.layers.Dense(kernel.shape[1])
    both = keras.layers.Bidirectional(keras.layers.LSTM(len(directions[0][1])))
    inputs = keras.Input((None,), dtype="int64")
    model = keras.Model(inputs, head(both(embedding(inputs))))
    model(np.ones((2, 5)))
    for layer, arrays in ((embedding, [table]), (both, [*directions[0], *directions[1]]), (head, [kernel, bias])):
        layer.set_weights(arrays)
    model.export(path, format="onnx", verbose=False)
    return path


def main(*texts):
    encoded = [demo.encode(text)[1] for text in texts or demo.SENTENCES]
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "demo": demo.model(),
            "PyTorch": from_torch(str(Path(folder, "torch.onnx"))),
            "Keras": from_keras(str(Path(folder, "keras.onnx"))),
        }
        explainers = {name: onnx_lrp.load(file) for name, file in files.items()}
        found = {name: [explainer.explain(ids) for ids in encoded] for name, explainer in explainers.items()}
    for name, explainer in explainers.items():
        print(f"{name:8} {', '.join(layer for layer in explainer.weights())}")
    worst = {}
    for name in ("PyTorch", "Keras"):
        pairs = [(a.per_step(), b.per_step()) for a, b in zip(found["demo"], found[name], strict=True)]
        worst[name] = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)
        print(f"{name}: relevances differ from the demo's by at most {worst[name]:.0e} of the largest")
    return worst


if __name__ == "__main__":
    main(*sys.argv[1:])
