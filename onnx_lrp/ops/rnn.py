"""RNN: h_t = f(x W + h₋ R + b). Relevance passes the activation and splits over x and h₋ (Bach et al. 2015, eq. 58)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..layer import Trace
from ..recurrence import Recurrent, check_shapes, directions, operands, scan
from ..recurrence import activations as per_direction
from ..registry import importer
from .activation import activate

__all__ = ["RNN"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class RNN(Recurrent):
    """parameters: W_x (D, I, H), W_h (D, H, H), b (D, H)."""

    @property
    def states(self) -> Sequence[str]:
        return ("h0",)

    @property
    def candidate(self) -> slice:
        return slice(0, self.hidden)

    @property
    def saves(self) -> int:
        return 2  # h and its pre-activation

    def cell(self, d: int, p: Mapping[str, Tensor]) -> Any:
        w = p["W_h"][d]
        ((name, settings),) = self.functions[d]
        squash = activate(name, settings)

        def step(row: Tensor, carry: Sequence[Tensor]) -> Any:
            z = row + tf.matmul(carry[0], w)
            return (squash(self.clamp(z)),), (z,)

        return step

    def back(self, d: int, rule: Any, trace: Trace, ry: Tensor | None, rs: Sequence[Tensor]) -> Any:
        p = trace.parameters
        (h0,), (hh, z) = trace.saved[f"{d}"]
        delta, w = rule.bias_factor, p["W_h"][d]
        b = p["b"][d] if "b" in p else None
        s_z, _ = rule.reciprocal(z)
        rows = [s_z, tf.concat([h0[None], hh[:-1]], 0)]
        if delta:
            rows.append(rule.signed(z) + (0.0 if b is None else b))
        fan_in = float(p["W_x"].shape[1] + self.hidden)

        def step(now: Sequence[Tensor], carry: Sequence[Tensor]) -> Any:
            s = now[0] * carry[0]
            left = now[1] * tf.matmul(s, w, transpose_b=True)
            if not delta:
                return (left,), (s,)
            share = delta * tf.reduce_sum(now[2] * s, 1, keepdims=True) / fan_in
            return (left + share,), (s, share)

        around = self.masked(step, trace, rows, ry)
        left, (s, *shared) = scan(around, rows, rs, widths=[self.hidden] + ([1] if delta else []), backwards=True)
        absorbed = {"stabilizer": tf.reduce_sum(rule.signed(z) * s, [0, 2])}
        if b is not None:
            absorbed["bias"] = tf.reduce_sum(b * s, [0, 2])
        return s, shared[0] if shared else None, left, {k: (1.0 - delta) * v for k, v in absorbed.items()}


@importer("RNN", since=7)
def rnn(
    X: Any,
    W: Any,
    R: Any,
    B: Any = None,
    sequence_lens: Any = None,
    initial_h: Any = None,
    *,
    activation_alpha: Any = None,
    activation_beta: Any = None,
    activations: Any = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    node: Any,
) -> Any:
    size = int(hidden_size or R.shape[-1])
    count = len(directions(direction, node))
    check_shapes(node, count, 1, size, W=W, R=R, B=B)
    parameters = {"W_x": W.swapaxes(1, 2), "W_h": R.swapaxes(1, 2)}
    if B is not None and np.any(B):
        parameters["b"] = B[:, :size].astype(np.float64) + B[:, size:]
    slots, constants, inputs = operands(("x", "lens", "h0"), (X, sequence_lens, initial_h))
    layer = RNN(
        parameters={**parameters, **constants},
        hidden=size,
        backwards=directions(direction, node),
        functions=per_direction(activations, activation_alpha, activation_beta, ("Tanh",), count, node),
        clip=float(clip) if clip else None,
        batch_first=bool(layout),
        slots=slots,
    )
    return layer, inputs
