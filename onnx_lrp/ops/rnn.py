"""RNN: h_t = f(x W + h₋ R + b). Relevance passes the activation and splits over x and h₋ (Bach et al. 2015, eq. 58)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..recurrence import Recurrent, check_shapes, directions, operands
from ..recurrence import activations as per_direction
from ..registry import importer
from ..timeloop import Pass, Step, back
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
    def candidate(self) -> int:
        return 0

    @property
    def saves(self) -> int:
        return 1  # the pre-activation

    def cell(self, d: int, x: Tensor, p: Mapping[str, Tensor]) -> Any:
        pre = self.sum(d, x, p, 0, 1)
        ((name, settings),) = self.functions[d]
        squash = activate(name, settings)

        def step(t: Tensor, states: Sequence[Tensor]) -> Any:
            (z,) = pre(t, states[0])
            return (squash(self.clamp(z)),), (z,)

        return step

    def back(self, d: int, rule: Any, run: Pass, ry: Tensor | None, rs: Sequence[Tensor]) -> Any:
        p, delta = run.parameters, rule.bias_factor
        lower = self.lower(d, rule, p, self.candidate)
        rows = lower.hoisted(run.x)
        fan_in = float(p["W"][d].shape[0])

        def step(now: Step, carry: Sequence[Tensor]) -> Any:
            (z,), (before,) = now.kept, now.before
            s, lost = lower.share(z, [tf.gather(row, now.t) for row in rows], before, carry[0])
            left = lower.to_h(s, before)
            absorbed = carry[1] + lost
            if not delta:
                return (left, absorbed), (*s, None)
            bias, lost = lower.to_b(s), tf.reduce_sum(lost, 1, keepdims=True)
            share = delta * (lost if bias is None else lost + bias) / fan_in
            return (left + share, absorbed), (*s, share)

        s, shared, left, stabilizer = back(step, run, ry, rs, shares=delta > 0, writes=len(rule.rule.channels))
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
