"""LSTM: the whole operator of the standard, forward and relevance.

Gate rule ``all`` (Arras et al. 2017, section 2.2): the signal of a gated product takes all, gates get nothing. Shapes: T time,
B batch, I input features, H hidden units, D directions; gates in the order i, f, c, o.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..errors import RuleError
from ..recurrence import Recurrent, check_shapes, directions, operands, pick
from ..recurrence import activations as per_direction
from ..registry import importer
from ..rules import mapped
from ..timeloop import Pass, Step, back
from .activation import activate

__all__ = ["LSTM"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class LSTM(Recurrent):
    """parameters: W_x (D, I, 4H), W_h (D, H, 4H), b (D, 4H) unless without bias, P (D, 3H: i, f, o) with peepholes.

    ``functions`` are f, g, h of the standard (gates, candidate, output); ``input_forget``: f = 1 - i.
    """

    input_forget: bool = False

    @property
    def states(self) -> Sequence[str]:
        return ("h0", "c0")

    @property
    def candidate(self) -> int:
        return 2

    @property
    def saves(self) -> int:
        return 2  # i·g and the candidate's pre-activation; f·c₋ is c less i·g

    def cell(self, d: int, x: Tensor, p: Mapping[str, Tensor]) -> Any:
        size, pre = self.hidden, self.sum(d, x, p, 0, 4)
        peep = p["P"][d] if "P" in p else None
        gate, squash, emit = (activate(name, settings) for name, settings in self.functions[d])
        clamp = self.clamp

        def step(t: Tensor, states: Sequence[Tensor]) -> Any:
            h, c = states
            zi, zf, zc, zo = pre(t, h)
            if peep is not None:
                zi, zf = zi + peep[:size] * c, zf + peep[size : 2 * size] * c
            i = gate(clamp(zi))
            f = 1 - i if self.input_forget else gate(clamp(zf))
            ig = i * squash(clamp(zc))
            new_c = f * c + ig
            o = gate(clamp(zo if peep is None else zo + peep[2 * size :] * new_c))
            return (o * emit(new_c), new_c), (ig, zc)

        return step

    def back(self, d: int, rule: Any, run: Pass, ry: Tensor | None, rs: Sequence[Tensor]) -> Any:
        """Per step: R_c += R_h; the cell's sum c = f·c₋ + i·g splits by the epsilon rule; the candidate's pre-activation
        gets R_g and splits over x and h₋.
        """
        if rule.gates != "all":
            return self.back_with_gates(d, rule, run, ry, rs)
        p, delta = run.parameters, rule.bias_factor
        lower = self.lower(d, rule, p, self.candidate)
        rows = lower.hoisted(run.x)
        fan_in = float(p["W"][d].shape[0])

        def step(now: Step, carry: Sequence[Tensor]) -> Any:
            r_h, r_c, absorbed = carry
            ig, zc = now.kept
            before, c = now.before[0], now.after[1]
            s_c, lost_c = rule.ratio(c, r_c + r_h)
            r_g, new_c = ig * s_c, (c - ig) * s_c
            if delta:
                even = delta * tf.reduce_sum(lost_c, 1, keepdims=True) / (2.0 * self.hidden)
                r_g, new_c = r_g + even, new_c + even
            s, lost_z = lower.share(zc, [tf.gather(row, now.t) for row in rows], before, r_g)
            new_h = lower.to_h(s, before)
            absorbed = tf.add_n([absorbed, lost_c, lost_z])
            if not delta:
                return (new_h, new_c, absorbed), (*s, None)
            bias, lost = lower.to_b(s), tf.reduce_sum(lost_z, 1, keepdims=True)
            share = delta * (lost if bias is None else lost + bias) / fan_in
            return (new_h + share, new_c, absorbed), (*s, share)

        s, shared, left, stabilizer = back(step, run, ry, rs, shares=delta > 0, writes=len(rule.rule.channels))
        amounts = {"stabilizer": stabilizer}
        bias = lower.to_b(s)
        if bias is not None:
            amounts["bias"] = bias
        return [(lower, s)], shared, left, {k: (1.0 - delta) * v for k, v in amounts.items()}

    def back_with_gates(self, d: int, rule: Any, run: Pass, ry: Tensor | None, rs: Sequence[Tensor]) -> Any:
        """As :meth:`back`, but o·tanh(c), i·g and f·c₋ share between gate and signal, and every gate's pre-activation is a sum over
        x, h₋ and, with peepholes, the cell's state (Arras et al. 2019, section 11.3.2).
        """
        if rule.bias_factor:
            raise RuleError("bias_factor is for gate rule 'all' in recurrent layers")
        if run.met is not None:
            raise RuleError("the relevance of a recurrent layer's states is kept under gate rule 'all' only")
        p, size, count, needs = run.parameters, self.hidden, len(rule.rule.channels), len(rule.rule.needs)
        lowers = [self.lower(d, rule, p, k) for k in range(4)]
        sums = [row for lower in lowers for row in lower.hoisted(run.x)]
        gate, squash, emit = (activate(name, settings) for name, settings in self.functions[d])
        peep = [None, None, None, None]
        if "P" in p:
            peep = [p["P"][d][:size], p["P"][d][size : 2 * size], None, p["P"][d][2 * size :]]
        pre = self.sum(d, run.x, p, 0, 4)

        def block(k: int, z: Tensor, now: Step, c: Tensor, r: Tensor) -> Any:
            """(cotangents, lost, relevance of h, relevance of the cell's state) of one gate's or the candidate's sum."""
            rows = [tf.gather(row, now.t) for row in sums[k * needs : (k + 1) * needs]]
            h = now.before[0]
            if peep[k] is not None:
                rows = [row + ch.value(c) * mapped(ch, peep[k]) for ch, row in zip(rule.rule.needs, rows, strict=True)]
            s, lost = lowers[k].share(z, rows, h, r)
            into_c: Any = 0.0
            if peep[k] is not None:
                into_c = sum(ch.value(c) * mapped(ch, peep[k]) * part for ch, part in zip(rule.rule.channels, s, strict=True))
            return s, lost, lowers[k].to_h(s, h), into_c

        def step(now: Step, carry: Sequence[Tensor]) -> Any:
            r_h, r_c, bias, absorbed = carry
            (before, old), c = now.before, now.after[1]
            zi, zf, zg, zo = pre(now.t, before)
            if "P" in p:
                zi, zf, zo = zi + peep[0] * old, zf + peep[1] * old, zo + peep[3] * c
            i, f, g, o = gate(self.clamp(zi)), gate(self.clamp(zf)), squash(self.clamp(zg)), gate(self.clamp(zo))
            f = 1 - i if self.input_forget else f
            r_o, r_e, part = rule.split(o, emit(c), r_h)
            parts = [part]
            s_o, lost, new_h, into_c = block(3, zo, now, c, r_o)
            s_c, part = rule.ratio(c, r_c + r_e + into_c)
            parts.append(part)
            r_i, r_g, part = rule.split(i, g, i * g * s_c)
            parts.append(part)
            r_f, new_c, part = rule.split(f, old, f * old * s_c)
            parts.append(part)
            if self.input_forget:  # f = 1 − i
                s_f, part = rule.ratio(f, r_f)
                parts.append(part)
                r_i, r_f, bias = r_i - i * s_f, tf.zeros_like(r_f), bias + s_f
            written = {3: s_o}
            for k, z, r in ((0, zi, r_i), (1, zf, r_f), (2, zg, r_g)):
                written[k], more, into_h, into_c = block(k, z, now, old, r)
                lost, new_h, new_c = lost + more, new_h + into_h, new_c + into_c
            absorbed = tf.add_n([absorbed, lost, *(part for part in parts if part is not None)])
            return (new_h, new_c, bias, absorbed), (*(s for k in range(4) for s in written[k]), None)

        start = (*rs, tf.zeros_like(rs[0]))
        s, _, (r_h, r_c, bias), stabilizer = back(step, run, ry, start, shares=False, writes=4 * count)
        parts = [(lower, s[k * count : (k + 1) * count]) for k, lower in enumerate(lowers)]
        total = tf.reduce_sum(bias, 1)
        for lower, cotangents in parts:
            more = lower.to_b(cotangents)
            total = total if more is None else total + more
        return parts, None, [r_h, r_c], {"stabilizer": stabilizer, "bias": total}


@importer("LSTM", since=7)
def lstm(
    X: Any,
    W: Any,
    R: Any,
    B: Any = None,
    sequence_lens: Any = None,
    initial_h: Any = None,
    initial_c: Any = None,
    P: Any = None,
    *,
    activation_alpha: Any = None,
    activation_beta: Any = None,
    activations: Any = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    node: Any,
) -> Any:
    size = int(hidden_size or R.shape[-1])
    count = len(directions(direction, node))
    check_shapes(node, count, 4, size, W=W, R=R, B=B, P=P)
    order = (0, 2, 3, 1)  # i, o, f, c → i, f, c, o
    parameters = {
        "W_x": pick(W.swapaxes(1, 2), order, size),
        "W_h": pick(R.swapaxes(1, 2), order, size),
    }
    if B is not None and np.any(B):
        both = B.astype(np.float64)  # float16 biases must not be rounded again
        parameters["b"] = pick(both[:, : 4 * size] + both[:, 4 * size :], order, size)
    if P is not None:
        parameters["P"] = pick(P, (0, 2, 1), size)  # i, o, f → i, f, o
    slots, constants, inputs = operands(("x", "lens", "h0", "c0"), (X, sequence_lens, initial_h, initial_c))
    layer = LSTM(
        parameters={**parameters, **constants},
        hidden=size,
        backwards=directions(direction, node),
        functions=per_direction(
            activations,
            activation_alpha,
            activation_beta,
            ("Sigmoid", "Tanh", "Tanh"),
            count,
            node,
        ),
        clip=float(clip) if clip else None,
        input_forget=bool(input_forget),
        batch_first=bool(layout),
        slots=slots,
    )
    return layer, inputs
