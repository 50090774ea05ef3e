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
from ..recurrence import Recurrent, check_shapes, directions, operands, scan
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
        p = trace.parameters
        (h0,), (hh, new, old, reset, zn) = trace.saved[f"{d}"]
        size, delta = self.hidden, rule.bias_factor
        w = p["W_h"][d][:, self.candidate]
        mixed = new + old  # h_t also where a padded step keeps the state before
        s_h, e_h = rule.reciprocal(mixed)
        s_n, _ = rule.reciprocal(zn)
        b: Any = 0.0
        if "b" in p:
            b = p["b"][d][self.candidate]
        if "b_h" in p:
            b = b + reset * p["b_h"][d]
        rows = [old * s_h, new * s_h * s_n, tf.concat([h0[None], hh[:-1]], 0), reset]
        if delta:
            rows += [e_h, s_n, rule.signed(zn) + b]
        fan_in = float(p["W_x"].shape[1] + size)

        def step(now: Sequence[Tensor], carry: Sequence[Tensor]) -> Any:
            keep, take, before, r = now[:4]
            (whole,) = carry
            s = take * whole
            kept = keep * whole
            even = 0.0
            if delta:
                even = delta * tf.reduce_sum(now[4] * whole, 1, keepdims=True) / (2.0 * size)
                s += even * now[5]
            pulled = tf.matmul(r * s, w, transpose_b=True) if self.reset_after else r * tf.matmul(s, w, transpose_b=True)
            left = kept + before * pulled
            if not delta:
                return (left,), (whole, s)
            share = delta * tf.reduce_sum(now[6] * s, 1, keepdims=True) / fan_in
            return (left + even + share,), (whole, s, share)

        around = self.masked(step, trace, rows, ry)
        left, (whole, s, *shared) = scan(around, rows, rs, widths=[size, size] + ([1] if delta else []), backwards=True)
        absorbed = {"stabilizer": tf.reduce_sum(e_h * whole, [0, 2]) + tf.reduce_sum(rule.signed(zn) * s, [0, 2])}
        if "b" in p or "b_h" in p:
            absorbed["bias"] = tf.reduce_sum(b * s, [0, 2])
        return s, shared[0] if shared else None, left, {k: (1.0 - delta) * v for k, v in absorbed.items()}


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
        outer, inner = B[:, : 3 * size].astype(np.float64), B[:, 3 * size :].astype(np.float64)
        if linear_before_reset:
            parameters["b_h"] = inner[:, 2 * size :]
            inner = np.concatenate([inner[:, : 2 * size], np.zeros_like(inner[:, 2 * size :])], 1)
        parameters["b"] = outer + inner
    slots, constants, inputs = operands(("x", "lens", "h0"), (X, sequence_lens, initial_h))
    layer = GRU(
        parameters={**parameters, **constants},
        hidden=size,
        backwards=directions(direction, node),
        functions=per_direction(activations, activation_alpha, activation_beta, ("Sigmoid", "Tanh"), count, node),
        clip=float(clip) if clip else None,
        batch_first=bool(layout),
        slots=slots,
        reset_after=bool(linear_before_reset),
    )
    return layer, inputs
