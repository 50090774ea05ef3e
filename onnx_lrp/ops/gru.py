"""GRU, both forms of the reset gate, forward and relevance.

h_t = (1 − z)·n + z·h₋ splits by the epsilon rule; n's pre-activation is one sum over x and r·h₋ (or r·(h₋ W + b)); z and r are
gates and get nothing (gate rule ``all``, Arras et al. 2017). Gates in the order z, r, h.
"""

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

__all__ = ["GRU"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class GRU(Recurrent):
    """parameters: W_x (D, I, 3H), W_h (D, H, 3H), b (D, 3H); with ``reset_after`` also b_h (D, H), inside the reset product."""

    reset_after: bool = False

    @property
    def states(self) -> Sequence[str]:
        return ("h0",)

    @property
    def candidate(self) -> slice:
        return slice(2 * self.hidden, 3 * self.hidden)

    @property
    def saves(self) -> int:
        return 5  # h, (1 − z)·n, z·h₋, r and the candidate's pre-activation

    def cell(self, d: int, p: Mapping[str, Tensor]) -> Any:
        size, w = self.hidden, p["W_h"][d]
        gate, squash = (activate(name, settings) for name, settings in self.functions[d])
        inside = p["b_h"][d] if "b_h" in p else None
        clamp = self.clamp

        def step(row: Tensor, carry: Sequence[Tensor]) -> Any:
            (h,) = carry
            if self.reset_after:
                zh = tf.matmul(h, w)
                both = gate(clamp(row[:, : 2 * size] + zh[:, : 2 * size]))
                z, r = both[:, :size], both[:, size:]
                recurrent = zh[:, self.candidate]
                zn = row[:, self.candidate] + r * (recurrent if inside is None else recurrent + inside)
            else:
                both = gate(clamp(row[:, : 2 * size] + tf.matmul(h, w[:, : 2 * size])))
                z, r = both[:, :size], both[:, size:]
                zn = row[:, self.candidate] + tf.matmul(r * h, w[:, self.candidate])
            new, old = (1 - z) * squash(clamp(zn)), z * h
            return (new + old,), (new, old, r, zn)

        return step

    def back(self, d: int, rule: Any, trace: Trace, ry: Tensor | None, rs: Sequence[Tensor]) -> Any:
        """Per step: h = (1 − z)·n + z·h₋ splits by the epsilon rule; n's pre-activation gets R_n and splits over x and h₋."""
        p, delta = trace.parameters, rule.bias_factor
        w = p["W_h"][d][:, self.candidate]
        outer = p["b"][d][self.candidate] if "b" in p else None
        inner = p["b_h"][d] if "b_h" in p else None
        fan_in = float(p["W_x"].shape[1] + self.hidden)

        def step(now: Sequence[Tensor], carry: Sequence[Tensor]) -> Any:
            new, old, r, zn, before = now
            s_h, lost_h = rule.ratio(new + old, carry[0])
            lost_h = tf.reduce_sum(lost_h, 1, keepdims=True)
            r_n, kept = new * s_h, old * s_h
            if delta:
                even = delta * lost_h / (2.0 * self.hidden)
                r_n, kept = r_n + even, kept + even
            s, lost_n = rule.ratio(zn, r_n)
            lost_n = tf.reduce_sum(lost_n, 1, keepdims=True)
            pulled = tf.matmul(r * s, w, transpose_b=True) if self.reset_after else r * tf.matmul(s, w, transpose_b=True)
            left = kept + before * pulled
            bias = tf.zeros_like(lost_n)
            if outer is not None:
                bias += tf.reduce_sum(outer * s, 1, keepdims=True)
            if inner is not None:
                bias += tf.reduce_sum(inner * r * s, 1, keepdims=True)
            state = (left, carry[1] + bias, carry[2] + lost_h + lost_n)
            if not delta:
                return state, (s,)
            share = delta * (lost_n + bias) / fan_in
            return (left + share, *state[1:]), (s, share)

        start = (
            *rs,
            tf.zeros_like(rs[0][:, :1]),
        )  # the bias inside the reset product needs r, so it adds up in the loop
        rows = trace.saved[f"{d}"][1:]
        s, shared, (left, bias), stabilizer = self.walk(step, trace, rows, ry, start, shares=delta > 0)
        amounts = {"stabilizer": stabilizer}
        if outer is not None or inner is not None:
            amounts["bias"] = tf.reshape(bias, [-1])
        return s, shared, [left], {k: (1.0 - delta) * v for k, v in amounts.items()}


@importer("GRU", since=7)
def gru(
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
    linear_before_reset: int = 0,
    node: Any,
) -> Any:
    size = int(hidden_size or R.shape[-1])
    count = len(directions(direction, node))
    check_shapes(node, count, 3, size, W=W, R=R, B=B)
    parameters = {"W_x": W.swapaxes(1, 2), "W_h": R.swapaxes(1, 2)}
    if B is not None and np.any(B):
        outer, inner = (
            B[:, : 3 * size].astype(np.float64),
            B[:, 3 * size :].astype(np.float64),
        )
        if linear_before_reset:
            parameters["b_h"] = inner[:, 2 * size :]
            inner = np.concatenate([inner[:, : 2 * size], np.zeros_like(inner[:, 2 * size :])], 1)
        parameters["b"] = outer + inner
    slots, constants, inputs = operands(("x", "lens", "h0"), (X, sequence_lens, initial_h))
    layer = GRU(
        parameters={**parameters, **constants},
        hidden=size,
        backwards=directions(direction, node),
        functions=per_direction(
            activations,
            activation_alpha,
            activation_beta,
            ("Sigmoid", "Tanh"),
            count,
            node,
        ),
        clip=float(clip) if clip else None,
        batch_first=bool(layout),
        slots=slots,
        reset_after=bool(linear_before_reset),
    )
    return layer, inputs
