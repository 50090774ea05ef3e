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
from ..layer import Trace
from ..recurrence import Recurrent, check_shapes, directions, operands, pick
from ..recurrence import activations as per_direction
from ..registry import importer
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
    def candidate(self) -> slice:
        return slice(2 * self.hidden, 3 * self.hidden)

    @property
    def saves(self) -> int:
        return 5  # h, c, i·g, f·c₋ and the candidate's pre-activation

    def cell(self, d: int, p: Mapping[str, Tensor]) -> Any:
        size, w = self.hidden, p["W_h"][d]
        peep = p["P"][d] if "P" in p else None
        gate, squash, emit = (activate(name, settings) for name, settings in self.functions[d])
        clamp = self.clamp

        def step(row: Tensor, carry: Sequence[Tensor]) -> Any:
            h, c = carry
            z = row + tf.matmul(h, w)
            if peep is None:
                both = gate(clamp(z[:, : 2 * size]))
                i, f = both[:, :size], both[:, size:]
            else:
                i = gate(clamp(z[:, :size] + peep[:size] * c))
                f = gate(clamp(z[:, size : 2 * size] + peep[size : 2 * size] * c))
            if self.input_forget:
                f = 1 - i
            zc = z[:, self.candidate]
            ig = i * squash(clamp(zc))
            fc = f * c
            new_c = fc + ig
            zo = z[:, 3 * size :]
            o = gate(clamp(zo if peep is None else zo + peep[2 * size :] * new_c))
            return (o * emit(new_c), new_c), (ig, fc, zc)

        return step

    def back(self, d: int, rule: Any, trace: Trace, ry: Tensor | None, rs: Sequence[Tensor]) -> Any:
        """Per step: R_c += R_h; the cell's sum c = f·c₋ + i·g splits by the epsilon rule; the candidate's pre-activation
        gets R_g and splits over x and h₋.
        """
        p, delta = trace.parameters, rule.bias_factor
        w = p["W_h"][d][:, self.candidate]
        b = p["b"][d][self.candidate] if "b" in p else None
        fan_in = float(p["W_x"].shape[1] + self.hidden)

        def step(now: Sequence[Tensor], carry: Sequence[Tensor]) -> Any:
            c, ig, fc, zc, before = now
            r_h, r_c, absorbed = carry
            s_c, lost_c = rule.ratio(c, r_c + r_h)
            lost_c = tf.reduce_sum(lost_c, 1, keepdims=True)
            r_g, new_c = ig * s_c, fc * s_c
            if delta:
                even = delta * lost_c / (2.0 * self.hidden)
                r_g, new_c = r_g + even, new_c + even
            s, lost_z = rule.ratio(zc, r_g)
            lost_z = tf.reduce_sum(lost_z, 1, keepdims=True)
            new_h = before * tf.matmul(s, w, transpose_b=True)
            absorbed += lost_c + lost_z
            if not delta:
                return (new_h, new_c, absorbed), (s,)
            bias = 0.0 if b is None else tf.reduce_sum(b * s, 1, keepdims=True)
            share = delta * (lost_z + bias) / fan_in
            return (new_h + share, new_c, absorbed), (s, share)

        s, shared, left, stabilizer = self.walk(step, trace, trace.saved[f"{d}"][1:], ry, rs, shares=delta > 0)
        amounts = {"stabilizer": stabilizer}
        if b is not None:
            amounts["bias"] = tf.linalg.matvec(tf.reduce_sum(s, 0), b)
        return s, shared, left, {k: (1.0 - delta) * v for k, v in amounts.items()}


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
