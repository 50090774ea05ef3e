"""RNN: h_t = f(x W + h₋ R + b). Relevance passes the activation and splits over x and h₋ (Bach et al. 2015, eq. 58)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..layer import Trace
from ..recurrence import Recurrent, check_shapes, directions, operands
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
        p, delta = trace.parameters, rule.bias_factor
        lower = self.lower(d, rule, p, self.candidate)
        fan_in = float(p["W_x"].shape[1] + self.hidden)

        def step(now: Sequence[Tensor], carry: Sequence[Tensor]) -> Any:
            z, before, *sums = now
            s, lost = lower.share(z, sums, before, carry[0])
            left = lower.to_h(s, before)
            absorbed = carry[1] + lost
            if not delta:
                return (left, absorbed), s
            bias = lower.to_b(s)
            share = delta * (lost if bias is None else lost + bias) / fan_in
            return (left + share, absorbed), (*s, share)

        rows = [*trace.saved[f"{d}"][1:], *lower.hoisted(self.ordered(d, trace, trace.saved["x"]))]
        s, shared, left, stabilizer = self.walk(step, trace, rows, ry, rs, shares=delta > 0, writes=len(rule.rule.channels))
        amounts = {"stabilizer": stabilizer}
        bias = lower.to_b(s)
        if bias is not None:
            amounts["bias"] = bias
        return [(lower, s)], shared, left, {k: (1.0 - delta) * v for k, v in amounts.items()}


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
