"""Small .onnx files from numpy weights, for the examples here: Keras' own weights go in as they are, no exporter is needed.

Letters: T time, B batch, I features, H units, C classes.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Keras' gates → ONNX's: LSTM i, f, c, o → i, o, f, c; GRU z, r, h in both
ORDERS = {"LSTM": (0, 3, 1, 2), "GRU": (0, 1, 2)}


class Net:
    """Nodes and weights in the order in which they are added; every method takes and returns the name of a tensor."""

    def __init__(self):
        self.nodes, self.weights = [], {}

    def op(self, kind, inputs, outputs=None, **attributes):
        outputs = outputs or [f"{kind}_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=outputs[-1], **attributes))
        return outputs[-1]

    def constant(self, array):
        self.weights[f"w{len(self.weights)}"] = np.asarray(array)
        return list(self.weights)[-1]

    def embedding(self, ids, table):
        """ids (B, T) → (B, T, I)."""
        return self.op("Gather", [self.constant(np.float32(table)), ids])

    def recurrent(self, x, kind, *directions, steps=False):
        """x (B, T, I) → the last states (B, H), or all of them (B, T, H); of two directions 2H.

        directions: (kernel (I, nH), recurrent kernel (H, nH), bias) of one or two, as a Keras layer's weights are.
        """
        order, size = ORDERS[kind], np.shape(directions[0][1])[0]

        def gates(array):
            parts = np.split(np.float32(array), len(order), -1)
            return np.concatenate([parts[k] for k in order], -1)

        w = np.stack([gates(kernel).T for kernel, _, _ in directions])
        r = np.stack([gates(kernel).T for _, kernel, _ in directions])
        b = np.stack([np.concatenate([gates(row) for row in np.resize(bias, (2, len(order) * size))]) for _, _, bias in directions])
        if kind == "LSTM":  # Keras has one bias, ONNX two
            b[:, len(order) * size :] = 0
        extra = {"linear_before_reset": 1} if kind == "GRU" else {}
        direction = "bidirectional" if len(directions) == 2 else "forward"
        time_first = self.op("Transpose", [x], perm=[1, 0, 2])
        tensors = [time_first, self.constant(w), self.constant(r), self.constant(b)]
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.op(kind, tensors, [f"{name}_steps", name], hidden_size=size, direction=direction, **extra)
        if steps:  # (T, D, B, H) → (B, T, D·H)
            turned = self.op("Transpose", [f"{name}_steps"], perm=[2, 0, 1, 3])
            return self.op("Reshape", [turned, self.constant(np.array([0, 0, -1]))])
        turned = self.op("Transpose", [name], perm=[1, 0, 2])  # (D, B, H) → (B, D·H)
        return self.op("Reshape", [turned, self.constant(np.array([0, -1]))])

    def dense(self, x, kernel, bias):
        return self.op("Add", [self.op("MatMul", [x, self.constant(np.float32(kernel))]), self.constant(np.float32(bias))])

    def save(self, path, x, y, *, ids=False, domain=None):
        """x, y: (name, shape) of input and output; ``ids``: the input is int64. The output is the last tensor added."""
        self.op("Identity", [self.nodes[-1].output[-1]], [y[0]])
        kind = TensorProto.INT64 if ids else TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes,
            "example",
            [helper.make_tensor_value_info(x[0], kind, x[1])],
            [helper.make_tensor_value_info(y[0], TensorProto.FLOAT, y[1])],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        domains = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
        onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=8), path)
        return str(path)
