"""GRU, both forms of the reset gate, forward and relevance.

h_t = (1 − z)·n + z·h₋ splits by the epsilon rule; n's pre-activation is one sum over x and r·h₋ (or r·(h₋ W + b)); z and r are
gates and get nothing (gate rule ``all``, Arras et al. 2017). Gates in the order z, r, h.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..errors import RuleError
from ..layer import Trace
from ..recurrence import Recurrent, check_shapes, directions, operands, project, taken
from ..recurrence import activations as per_direction
from ..registry import importer
from ..rules import mapped
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
        if rule.gates != "all":
            return self.back_with_gates(d, rule, trace, ry, rs)
        p, delta = trace.parameters, rule.bias_factor
        lower = self.lower(d, rule, p, self.candidate)
        inner = p["b_h"][d] if "b_h" in p else None
        fan_in = float(p["W_x"].shape[1] + self.hidden)

        def step(now: Sequence[Tensor], carry: Sequence[Tensor]) -> Any:
            new, old, r, zn, before, *sums = now
            s_h, lost_h = rule.ratio(new + old, carry[0])
            lost_h = tf.reduce_sum(lost_h, 1, keepdims=True)
            r_n, kept = new * s_h, old * s_h
            if delta:
                even = delta * lost_h / (2.0 * self.hidden)
                r_n, kept = r_n + even, kept + even
            h, factor = (before, r) if self.reset_after else (r * before, None)
            if inner is not None:
                sums = [
                    z if channel.constant(inner) is None else z + mapped(channel, r) * channel.constant(inner)
                    for channel, z in zip(rule.rule.needs, sums, strict=True)
                ]
            s, lost_n = lower.share(zn, sums, h, r_n, factor)
            left = kept + lower.to_h(s, h, factor)
            bias = _total(lower.to_b(s), _inside(rule.rule, inner, r, s), tf.zeros_like(lost_n))
            state = (left, carry[1] + bias, carry[2] + lost_h + lost_n)
            if not delta:
                return state, s
            share = delta * (lost_n + bias) / fan_in
            return (left + share, *state[1:]), (*s, share)

        start = (*rs, tf.zeros_like(rs[0][:, :1]))  # the bias inside the reset product needs r, so it adds up in the loop
        rows = [*trace.saved[f"{d}"][1:], *lower.hoisted(self.ordered(d, trace, trace.saved["x"]))]
        writes = len(rule.rule.channels)
        s, shared, (left, bias), stabilizer = self.walk(step, trace, rows, ry, start, shares=delta > 0, writes=writes)
        amounts = {"stabilizer": stabilizer}
        if "b" in p or inner is not None:
            amounts["bias"] = tf.reshape(bias, [-1])
        return [(lower, s)], shared, [left], {k: (1.0 - delta) * v for k, v in amounts.items()}

    def back_with_gates(self, d: int, rule: Any, trace: Trace, ry: Tensor | None, rs: Sequence[Tensor]) -> Any:
        """As :meth:`back`, but (1 − z)·n, z·h₋ and r·h₋ (or r·u with u = h₋ W + b) share between gate and signal.

        1 − z is a sum of its own: what z gets of it is −z · s, the 1 is a bias. z's and r's pre-activations are sums over x and h₋.
        """
        p, delta, size = trace.parameters, rule.bias_factor, self.hidden
        if delta:
            raise RuleError("bias_factor is for gate rule 'all' in recurrent layers")
        if "keep" in trace.saved:
            raise RuleError("the relevance of a recurrent layer's states is kept under gate rule 'all' only")
        x = self.ordered(d, trace, trace.saved["x"])
        lowers = [self.lower(d, rule, p, slice(k * size, (k + 1) * size)) for k in range(3)]
        inner = p["b_h"][d] if "b_h" in p else None
        gate, squash = (activate(name, settings) for name, settings in self.functions[d])
        needs = len(rule.rule.needs)
        zx = project(x, p["W_x"][d]) + (p["b"][d] if "b" in p else 0.0)

        def step(now: Sequence[Tensor], carry: Sequence[Tensor]) -> Any:
            r, zn, before, row, *sums = now
            z_pre = row[:, :size] + tf.matmul(before, lowers[0].W_h)
            r_pre = row[:, size : 2 * size] + tf.matmul(before, lowers[1].W_h)
            z, n = gate(self.clamp(z_pre)), squash(self.clamp(zn))
            s_h, lost = rule.ratio((1 - z) * n + z * before, carry[0])
            lost, bias = tf.reduce_sum(lost, 1, keepdims=True), tf.zeros_like(carry[1])
            r_rest, r_n, a = rule.split(1 - z, n, (1 - z) * n * s_h)
            r_z, left, b = rule.split(z, before, z * before * s_h)
            s_rest, c = rule.ratio(1 - z, r_rest)  # 1 − z
            r_z, bias = r_z - z * s_rest, bias + tf.reduce_sum(s_rest, 1, keepdims=True)
            for part in (a, b, c):
                lost = lost if part is None else lost + tf.reduce_sum(part, 1, keepdims=True)
            if self.reset_after:
                u = tf.matmul(before, lowers[2].W_h) + (0.0 if inner is None else inner)
                terms = {ch: part + ch.value(r * u) for ch, part in zip(rule.rule.needs, sums[2 * needs :], strict=True)}
                s_n, more = taken(rule.rule, zn, terms, r_n)
                bias = _total(lowers[2].to_b(s_n), None, bias)
                pairs = zip(rule.rule.channels, s_n, strict=True)
                r_ru = sum(ch.value(r * u) * mapped(ch, tf.ones_like(s)) * s for ch, s in pairs)
                r_r, r_u, part = rule.split(r, u, r_ru)
                bare = dataclasses.replace(lowers[2], b=inner)
                zero = [
                    tf.zeros_like(u) if inner is None or ch.constant(inner) is None else ch.constant(inner)
                    for ch in rule.rule.needs
                ]
                s_u, more_u = bare.share(u, zero, before, r_u)
                left, bias, lost = left + bare.to_h(s_u, before), _total(bare.to_b(s_u), None, bias), lost + more + more_u
            else:
                s_n, more = lowers[2].share(zn, sums[2 * needs :], r * before, r_n)
                bias, lost = _total(lowers[2].to_b(s_n), None, bias), lost + more
                r_r, r_h, part = rule.split(r, before, lowers[2].to_h(s_n, r * before))
                left += r_h
            lost = lost if part is None else lost + tf.reduce_sum(part, 1, keepdims=True)
            s_z, more_z = lowers[0].share(z_pre, sums[:needs], before, r_z)
            s_r, more_r = lowers[1].share(r_pre, sums[needs : 2 * needs], before, r_r)
            for lower, s in ((lowers[0], s_z), (lowers[1], s_r)):
                left, bias = left + lower.to_h(s, before), _total(lower.to_b(s), None, bias)
            return (left, carry[1] + bias, carry[2] + lost + more_z + more_r), (*s_z, *s_r, *s_n)

        rows = [*trace.saved[f"{d}"][3:], zx, *(row for lower in lowers for row in lower.hoisted(x))]
        start = (*rs, tf.zeros_like(rs[0][:, :1]))
        count = len(rule.rule.channels)
        s, _, (left, bias), stabilizer = self.walk(step, trace, rows, ry, start, shares=False, writes=3 * count)
        parts = [(lower, s[k * count : (k + 1) * count]) for k, lower in enumerate(lowers)]
        return parts, None, [left], {"stabilizer": stabilizer, "bias": tf.reshape(bias, [-1])}


def _inside(rule: Any, inner: Tensor | None, r: Tensor, cotangents: Sequence[Tensor]) -> Tensor | None:
    """What the bias inside the reset product absorbs in one step, (B, 1)."""
    total = None
    for channel, s in zip(rule.channels, cotangents, strict=True):
        constant = None if inner is None else channel.constant(inner)
        if constant is not None:
            part = tf.reduce_sum(constant * mapped(channel, r) * s, 1, keepdims=True)
            total = part if total is None else total + part
    return total


def _total(a: Tensor | None, b: Tensor | None, start: Tensor) -> Tensor:
    for part in (a, b):
        start = start if part is None else start + part
    return start


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
