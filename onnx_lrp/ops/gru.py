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
from ..errors import RuleError
from ..precision import product
from ..recurrence import Recurrent, check_shapes, directions, operands
from ..recurrence import activations as per_direction
from ..registry import importer
from ..rules import mapped
from ..timeloop import Pass, Step, back, taken
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
    def candidate(self) -> int:
        return 2

    @property
    def saves(self) -> int:
        return 4  # (1 − z)·n, z·h₋, r and the candidate's pre-activation

    def cell(self, d: int, x: Tensor, p: Mapping[str, Tensor]) -> Any:
        gates, candidate = self.sum(d, x, p, 0, 2), self.sum(d, x, p, self.candidate, 1)
        gate, squash = (activate(name, settings) for name, settings in self.functions[d])
        inside = p["b_h"][d] if "b_h" in p else None
        clamp = self.clamp

        def step(t: Tensor, states: Sequence[Tensor]) -> Any:
            (h,) = states
            z, r = (gate(clamp(part)) for part in gates(t, h))
            if self.reset_after:
                recurrent = candidate.of_h(h)
                zn = candidate.of_x(t) + r * (recurrent if inside is None else recurrent + inside)
            else:
                (zn,) = candidate(t, r * h)
            new, old = (1 - z) * squash(clamp(zn)), z * h
            return (new + old,), (new, old, r, zn)

        return step

    def back(self, d: int, rule: Any, run: Pass, ry: Tensor | None, rs: Sequence[Tensor]) -> Any:
        """Per step: h = (1 − z)·n + z·h₋ splits by the epsilon rule; n's pre-activation gets R_n and splits over x and h₋."""
        if rule.gates != "all":
            return self.back_with_gates(d, rule, run, ry, rs)
        p, delta = run.parameters, rule.bias_factor
        lower = self.lower(d, rule, p, self.candidate)
        rows = lower.hoisted(run.x)
        inner = p["b_h"][d] if "b_h" in p else None
        fan_in = float(p["W"][d].shape[0])

        def step(now: Step, carry: Sequence[Tensor]) -> Any:
            (new, old, r, zn), (before,) = now.kept, now.before
            s_h, lost_h = rule.ratio(now.after[0], carry[0])
            r_n, kept = new * s_h, old * s_h
            if delta:
                even = delta * tf.reduce_sum(lost_h, 1, keepdims=True) / (2.0 * self.hidden)
                r_n, kept = r_n + even, kept + even
            h, factor = (before, r) if self.reset_after else (r * before, None)
            sums = [tf.gather(row, now.t) for row in rows]
            if inner is not None:
                sums = [
                    z if channel.constant(inner) is None else z + mapped(channel, r) * channel.constant(inner)
                    for channel, z in zip(rule.rule.needs, sums, strict=True)
                ]
            s, lost_n = lower.share(zn, sums, h, r_n, factor)
            left = kept + lower.to_h(s, h, factor)
            # the bias inside the reset product needs r, so that it adds up in the loop
            inside = _inside(rule.rule, inner, r, s)
            absorbed = tf.add_n([carry[2], lost_h, lost_n])
            if not delta:
                return (left, carry[1] if inside is None else carry[1] + inside, absorbed), (*s, None)
            bias = lower.to_b(s)
            lost = tf.reduce_sum(lost_n if inside is None else lost_n + inside, 1, keepdims=True)
            share = delta * (lost if bias is None else lost + bias) / fan_in
            return (left + share, carry[1] if inside is None else carry[1] + inside, absorbed), (*s, share)

        start = (*rs, tf.zeros_like(rs[0]))
        s, shared, (left, within), stabilizer = back(step, run, ry, start, shares=delta > 0, writes=len(rule.rule.channels))
        amounts = {"stabilizer": stabilizer}
        bias = lower.to_b(s)
        if bias is not None or inner is not None:
            amounts["bias"] = tf.reduce_sum(within, 1) if bias is None else tf.reduce_sum(within, 1) + bias
        return [(lower, s)], shared, [left], {k: (1.0 - delta) * v for k, v in amounts.items()}

    def back_with_gates(self, d: int, rule: Any, run: Pass, ry: Tensor | None, rs: Sequence[Tensor]) -> Any:
        """As :meth:`back`, but (1 − z)·n, z·h₋ and r·h₋ (or r·u with u = h₋ W + b) share between gate and signal.

        1 − z is a sum of its own: what z gets of it is −z · s, the 1 is a bias. z's and r's pre-activations are sums over x and h₋.
        """
        p, delta = run.parameters, rule.bias_factor
        if delta:
            raise RuleError("bias_factor is for gate rule 'all' in recurrent layers")
        if run.met is not None:
            raise RuleError("the relevance of a recurrent layer's states is kept under gate rule 'all' only")
        lowers = [self.lower(d, rule, p, k) for k in range(3)]
        hoisted = [lower.hoisted(run.x) for lower in lowers]
        inner = p["b_h"][d] if "b_h" in p else None
        gate, squash = (activate(name, settings) for name, settings in self.functions[d])
        gates = self.sum(d, run.x, p, 0, 2)

        def step(now: Step, carry: Sequence[Tensor]) -> Any:
            (_, _, r, zn), (before,) = now.kept, now.before
            z_pre, r_pre = gates(now.t, before)
            z, n = gate(self.clamp(z_pre)), squash(self.clamp(zn))
            s_h, lost_h = rule.ratio((1 - z) * n + z * before, carry[0])
            lost = [lost_h]
            r_rest, r_n, *parts = rule.split(1 - z, n, (1 - z) * n * s_h)
            r_z, left, part = rule.split(z, before, z * before * s_h)
            s_rest, more = rule.ratio(1 - z, r_rest)  # 1 − z
            lost += [more, part, *parts]
            r_z, constant = r_z - z * s_rest, [s_rest]
            rows = [[tf.gather(row, now.t) for row in own] for own in hoisted]
            if self.reset_after:
                u = product(before, lowers[2].W_h) + (0.0 if inner is None else inner)
                terms = {ch: part + ch.value(r * u) for ch, part in zip(rule.rule.needs, rows[2], strict=True)}
                s_n, more = taken(rule.rule, zn, terms, r_n)
                pairs = zip(rule.rule.channels, s_n, strict=True)
                r_ru = sum(ch.value(r * u) * mapped(ch, tf.ones_like(s)) * s for ch, s in pairs)
                r_r, r_u, part = rule.split(r, u, r_ru)
                zero = [
                    tf.zeros_like(u) if inner is None or ch.constant(inner) is None else ch.constant(inner)
                    for ch in rule.rule.needs
                ]
                s_u, more_u = lowers[2].share(u, zero, before, r_u)
                left += lowers[2].to_h(s_u, before)
                within = _inside(rule.rule, inner, None, s_u)
                constant += [] if within is None else [within]
                lost += [part, more, more_u]
            else:
                s_n, more = lowers[2].share(zn, rows[2], r * before, r_n)
                r_r, r_h, part = rule.split(r, before, lowers[2].to_h(s_n, r * before))
                left += r_h
                lost += [part, more]
            s_z, more_z = lowers[0].share(z_pre, rows[0], before, r_z)
            s_r, more_r = lowers[1].share(r_pre, rows[1], before, r_r)
            for lower, s in ((lowers[0], s_z), (lowers[1], s_r)):
                left += lower.to_h(s, before)
            absorbed = tf.add_n([carry[2], more_z, more_r, *(part for part in lost if part is not None)])
            return (left, tf.add_n([carry[1], *constant]), absorbed), (*s_z, *s_r, *s_n, None)

        start = (*rs, tf.zeros_like(rs[0]))
        count = len(rule.rule.channels)
        s, _, (left, constants), stabilizer = back(step, run, ry, start, shares=False, writes=3 * count)
        parts = [(lower, s[k * count : (k + 1) * count]) for k, lower in enumerate(lowers)]
        bias = tf.reduce_sum(constants, 1)
        for lower, cotangents in parts:
            more = lower.to_b(cotangents)
            bias = bias if more is None else bias + more
        return parts, None, [left], {"stabilizer": stabilizer, "bias": bias}


def _inside(rule: Any, inner: Tensor | None, r: Tensor | None, cotangents: Sequence[Tensor]) -> Tensor | None:
    """What the bias inside the reset product absorbs in one step, (B, H), r multiplied in if given; None: there is none."""
    total = None
    for channel, s in zip(rule.channels, cotangents, strict=True):
        constant = None if inner is None else channel.constant(inner)
        if constant is not None:
            part = constant * s if r is None else constant * mapped(channel, r) * s
            total = part if total is None else total + part
    return total


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
