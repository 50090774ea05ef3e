"""The same network in PyTorch, with the same weights, and Captum's explanations of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

STEPS = 50  # of integrated gradients
CLOSE = 1e-4  # logits of PyTorch and onnxruntime
ENTRIES = 2**26  # of the states of all copies of a batch; about a dozen arrays of that size are held


def missing() -> list[str]:
    """What is not installed of that which the comparison needs."""
    return [name for name in ("torch", "captum") if importlib.util.find_spec(name) is None]


def twin(model: onnx.ModelProto) -> Any:
    """``_models.bilstm`` as a ``torch.nn.Module``: (B, T, I) → (B, C), samples in front as Captum wants them."""
    import torch

    weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    hidden, features = weights["R"].shape[2], weights["W"].shape[2]

    def gates(rows: np.ndarray) -> Any:
        """ONNX's i, o, f, c as PyTorch's i, f, g, o."""
        i, o, f, c = np.split(rows, 4)
        return torch.from_numpy(np.concatenate([i, f, c, o]))

    state = {"head.weight": torch.from_numpy(weights["V"].T.copy()), "head.bias": torch.from_numpy(weights["b"].copy())}
    for d, suffix in enumerate(("", "_reverse")):
        of_x, of_h = np.split(weights["B"][d], 2)
        parts = {"weight_ih": weights["W"][d], "weight_hh": weights["R"][d], "bias_ih": of_x, "bias_hh": of_h}
        state |= {f"lstm.{name}_l0{suffix}": gates(rows) for name, rows in parts.items()}

    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(features, hidden, bidirectional=True, batch_first=True)
            self.head = torch.nn.Linear(*weights["V"].shape)

        def forward(self, x: Any) -> Any:
            _, (last, _) = self.lstm(x)
            return self.head(torch.cat([last[0], last[1]], 1))

    made = Twin()
    made.load_state_dict(state)
    return made.eval().requires_grad_(False)  # nobody asks for the weights' gradients


def others(model: onnx.ModelProto, x: np.ndarray, logits: np.ndarray) -> dict[str, Callable[[], Any]]:
    """PyTorch's forward pass, Captum's gradient × input and integrated gradients of the predicted classes, as functions of nothing.

    Args:
        model: of ``_models.bilstm``.
        x: (T, B, I).
        logits: (B, C), onnxruntime's.

    Raises:
        AssertionError: PyTorch's logits are not onnxruntime's, so it is another network.
    """
    import torch
    from captum.attr import InputXGradient, IntegratedGradients

    network = twin(model)
    rows = torch.from_numpy(np.ascontiguousarray(x.swapaxes(0, 1)))
    with_gradient = rows.clone().requires_grad_()

    def forward() -> Any:
        with torch.inference_mode():
            return network(rows)

    difference = float(np.abs(forward().numpy() - logits).max())
    assert difference <= CLOSE, f"PyTorch's logits differ from onnxruntime's by {difference:.1e}"
    target = torch.from_numpy(logits.argmax(1))
    gradient, integrated = InputXGradient(network), IntegratedGradients(network)

    def integrated_gradients(at_once: int | None) -> Any:
        return integrated.attribute(with_gradient, target=target, n_steps=STEPS, internal_batch_size=at_once)

    found: dict[str, Callable[[], Any]] = {
        "torch": forward,
        "gradient_x_input": lambda: gradient.attribute(with_gradient, target=target),
        # one step's copy of the batch at a time: often the faster way, and the only one where all 50 don't fit
        "integrated_gradients": lambda: integrated_gradients(len(rows)),
    }
    if STEPS * rows.shape[0] * rows.shape[1] * network.lstm.hidden_size * 2 <= ENTRIES:
        found["integrated_gradients_at_once"] = lambda: integrated_gradients(None)  # Captum's default
    return found
