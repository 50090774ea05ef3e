"""LSTM: the whole operator of the standard, forward and relevance.

Gate rule ``all`` (Arras et al. 2017, section 2.2): the signal of a gated product takes all, gates get nothing. Shapes: T time,
B batch, I input features, H hidden units, D directions; gates in the order i, f, c, o.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import fresh, unify
from ..layer import Opaque, PerSample, Share, Trace
from ..recurrence import activations as per_direction
from ..recurrence import directions, flip, pick, scan
from ..registry import Var, importer
from .activation import activate
from .gemm import dense

__all__ = ["LSTM"]

Tensor = Any
OPERANDS = ("x", "lens", "h0", "c0")


@dataclass(frozen=True, eq=False, kw_only=True)
class LSTM(Opaque):
    """parameters: W_x (D, I, 4H), W_h (D, H, 4H), b (D, 4H) unless without bias, P (D, 3H: i, f, o) with peepholes.

    Attributes:
        hidden: H.
        backwards: one flag a direction.
        functions: per direction (f, g, h): (name, settings) of gate, candidate and output activation.
        clip: pre-activations are clamped to [-clip, clip]; relevance passes.
        input_forget: f = 1 - i.
        batch_first: layout 1 of the standard: x (B, T, I), Y (B, T, D, H), states (B, D, H).
        slots: where x, lens, h0, c0 come from: an input's index, a parameter's name, or None.
        used: which of Y, Y_h, Y_c somebody reads.
    """

    hidden: int
    backwards: tuple[bool, ...]
    functions: tuple[tuple[tuple[str, Mapping[str, float]], ...], ...]
    clip: float | None = None
    input_forget: bool = False
    batch_first: bool = False
    slots: tuple[int | str | None, ...] = (0, None, None, None)
    used: tuple[bool, ...] = (True, True, True)

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return [s for s, name in zip(self.slots, OPERANDS, strict=True) if isinstance(s, int) and name != "lens"]

    def lost_as(self, index: int) -> str:
        return "initial_state" if index in self.slots[2:] else "constant"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = xs[0]
        time, batch = fresh(None, "time"), fresh(None, "batch")
        if x.dims is not None and len(x.dims) == 3:
            batch, time = (x.dims[0], x.dims[1]) if self.batch_first else (x.dims[1], x.dims[0])
        for slot, name in zip(self.slots[1:], OPERANDS[1:], strict=True):
            if isinstance(slot, int) and xs[slot].dims is not None:
                dims = xs[slot].dims or ()
                axis = 0 if name == "lens" or self.batch_first else 1
                if len(dims) > axis:
                    batch = unify(batch, dims[axis])
        d, h = fresh(len(self.backwards)), fresh(self.hidden)
        bounds = {"Tanh": (-1.0, 1.0), "Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0), "Softsign": (-1.0, 1.0)}
        interval = bounds.get(self.functions[0][2][0], (-np.inf, np.inf))
        interval = (min(interval[0], 0.0) if self.slots[2] is None else -np.inf, interval[1] if self.slots[2] is None else np.inf)
        state = (batch, d, h) if self.batch_first else (d, batch, h)
        y = (batch, time, d, h) if self.batch_first else (time, d, batch, h)
        one = Var("", x.dtype, y, interval=interval)
        return [one, dataclasses.replace(one, dims=state), Var("", x.dtype, state)]

    def evidence(self, xs: Sequence[Var]) -> Mapping[str, Any]:
        """Evidence: the batch and time dimension of the operands."""
        dims = xs[0].dims
        if dims is None or len(dims) != 3:
            return {}
        return {"batch": dims[0 if self.batch_first else 1], "time": dims[1 if self.batch_first else 0]}

    def _operand(self, name: str, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Tensor | None:
        slot = self.slots[OPERANDS.index(name)]
        return None if slot is None else p[slot] if isinstance(slot, str) else xs[slot]

    def _state(self, name: str, d: int, xs: Sequence[Tensor], p: Mapping[str, Tensor], like: Tensor) -> Tensor:
        state = self._operand(name, xs, p)
        if state is None:
            return tf.zeros([like.shape[1] if like.shape[1] is not None else tf.shape(like)[1], self.hidden], like.dtype)
        state = state[:, d] if self.batch_first else state[d]
        batch = like.shape[1] if like.shape[1] is not None else tf.shape(like)[1]
        return tf.broadcast_to(state, [batch, self.hidden]) if state.shape[0] == 1 and batch is not None else state

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x: Tensor = self._operand("x", xs, p)
        lens = self._operand("lens", xs, p)
        if self.batch_first:
            x = tf.transpose(x, [1, 0, 2])
        if lens is not None:
            lens = tf.cast(lens, tf.int32)
        saved: dict[str, Any] = {"x": x}
        ys, hs, cs = [], [], []
        valid = None
        if lens is not None:
            valid = tf.sequence_mask(lens, tf.shape(x)[0], dtype=x.dtype)
            valid = tf.expand_dims(tf.transpose(valid), 2)  # (T, B, 1)
            saved["valid"] = valid
            saved["lens"] = lens
        for d, backwards in enumerate(self.backwards):
            h0, c0 = self._state("h0", d, xs, p, x), self._state("c0", d, xs, p, x)
            z = dense(x, p["W_x"][d])
            if "b" in p:
                z += p["b"][d]
            if backwards:
                z = flip(z, lens)
            step = self._cell(d, p, masked=valid is not None)
            rows = [z] if valid is None else [z, valid]
            (h, c), (hh, cc, ig, fc, zc) = scan(step, rows, (h0, c0), widths=[self.hidden] * 5)
            saved[f"{d}"] = (h0, c0, hh, cc, ig, fc, zc)
            y = hh if valid is None else hh * valid
            ys.append(flip(y, lens) if backwards else y)
            hs.append(h)
            cs.append(c)
        axis = 2 if self.batch_first else 1
        y = tf.stack([tf.transpose(v, [1, 0, 2]) for v in ys], 2) if self.batch_first else tf.stack(ys, axis)
        state_axis = 1 if self.batch_first else 0
        return Trace(xs, [y, tf.stack(hs, state_axis), tf.stack(cs, state_axis)], p, saved)

    def _cell(self, d: int, p: Mapping[str, Tensor], *, masked: bool) -> Any:
        size = self.hidden
        w = p["W_h"][d]
        peep = p["P"][d] if "P" in p else None
        (fn, fs), (gn, gs), (hn, hs) = self.functions[d]
        gate, squash, emit = activate(fn, fs), activate(gn, gs), activate(hn, hs)
        clip = self.clip

        def clamp(v: Tensor) -> Tensor:
            return v if clip is None else tf.clip_by_value(v, -clip, clip)

        def step(rows: Sequence[Tensor], carry: Sequence[Tensor]) -> Any:
            h, c = carry
            z = rows[0] + tf.matmul(h, w)
            if peep is None:
                both = gate(clamp(z[:, : 2 * size]))
                i, f = both[:, :size], both[:, size:]
            else:
                i = gate(clamp(z[:, :size] + peep[:size] * c))
                f = gate(clamp(z[:, size : 2 * size] + peep[size : 2 * size] * c))
            if self.input_forget:
                f = 1 - i
            zc = z[:, 2 * size : 3 * size]
            ig = i * squash(clamp(zc))
            fc = f * c
            new_c = fc + ig
            zo = z[:, 3 * size :]
            o = gate(clamp(zo if peep is None else zo + peep[2 * size :] * new_c))
            new_h = o * emit(new_c)
            if masked:
                m = rows[1] > 0
                new_h, new_c = tf.where(m, new_h, h), tf.where(m, new_c, c)
            return (new_h, new_c), (new_h, new_c, ig, fc, zc)

        return step

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        p, saved = trace.parameters, trace.saved
        x, lens, valid = saved["x"], saved.get("lens"), saved.get("valid")
        into_x = None
        into_h, into_c = [], []
        bias = stabilizer = constant = 0.0
        for d, backwards in enumerate(self.backwards):
            ry, rh, rc = (self._part(r, k, d) for k, r in enumerate(rs))
            if ry is not None and backwards:
                ry = flip(ry, lens)
            if ry is not None and valid is not None:
                constant += tf.reduce_sum(ry * (1 - valid), [0, 2])
                ry = ry * valid
            sg, shared, rh, rc, kept = self._back(d, rule, trace, ry, rh, rc)
            w = p["W_x"][d][:, 2 * self.hidden : 3 * self.hidden]
            if backwards:
                sg = flip(sg, lens)
            rx = x * dense(sg, w, transpose=True)
            if shared is not None:
                rx += flip(shared, lens) if backwards else shared
            into_x = rx if into_x is None else into_x + rx
            into_h.append(rh)
            into_c.append(rc)
            bias += kept["bias"]
            stabilizer += kept["stabilizer"]
        shares: dict[str, Tensor] = {
            "x": tf.transpose(into_x, [1, 0, 2]) if self.batch_first else into_x,
            "h0": tf.stack(into_h, 1 if self.batch_first else 0),
            "c0": tf.stack(into_c, 1 if self.batch_first else 0),
        }
        absorbed: dict[str, Any] = {"stabilizer": PerSample(stabilizer)}
        if "b" in p:
            absorbed["bias"] = PerSample(bias)
        if valid is not None:
            absorbed["constant"] = PerSample(constant)
        inputs: list[Tensor | None] = [None] * len(trace.inputs)
        start = 0.0
        for slot, name in zip(self.slots, OPERANDS, strict=True):
            if name == "lens":
                continue
            if isinstance(slot, int):
                if inputs[slot] is not None:  # one tensor as h0 and c0
                    inputs[slot] = inputs[slot] + shares[name]
                else:
                    inputs[slot] = shares[name]
            elif isinstance(slot, str):
                start += tf.reduce_sum(shares[name], [1, 2] if self.batch_first else [0, 2])
        if any(isinstance(s, str) for s in self.slots[2:]):
            absorbed["initial_state"] = PerSample(start)
        elif self.bias_reaches_start(rule):
            start = 0.0
            for slot, name in zip(self.slots[2:], OPERANDS[2:], strict=True):
                if slot is None:
                    start += tf.reduce_sum(shares[name], [1, 2] if self.batch_first else [0, 2])
            if not isinstance(start, float):
                absorbed["initial_state"] = PerSample(start)
        return Share(inputs, absorbed)

    def bias_reaches_start(self, rule: Any) -> bool:
        """With a bias factor even a zero state receives relevance."""
        return rule.bias_factor > 0

    def _part(self, r: Tensor | None, output: int, d: int) -> Tensor | None:
        if r is None:
            return None
        if output == 0:
            return tf.transpose(r[:, :, d], [1, 0, 2]) if self.batch_first else r[:, d]
        return r[:, d] if self.batch_first else r[d]

    def _back(self, d: int, rule: Any, trace: Trace, ry: Any, rh: Any, rc: Any) -> Any:
        """Relevance through one direction's loop, in processing order (ry (T, B, H), rh and rc (B, H) or None).

        Per step: R_c += R_h; the cell's sum c = f·c₋ + i·g splits by the epsilon rule; the candidate's pre-activation
        gets R_g and splits over x and h₋. Returns s of the candidate (T, B, H), the even share of x (T, B, 1) or None,
        what is left at the initial states, and what was absorbed.
        """
        p, valid = trace.parameters, trace.saved.get("valid")
        h0, _, hh, cc, ig, fc, zc = trace.saved[f"{d}"]
        size, delta = self.hidden, rule.bias_factor
        w = p["W_h"][d][:, 2 * size : 3 * size]
        b = p["b"][d][2 * size : 3 * size] if "b" in p else None
        one = tf.ones_like(cc)
        s_c, e_c = rule.ratio(cc, one)
        s_z, _ = rule.ratio(zc, one)
        keep, take = fc * s_c, ig * s_c * s_z
        before = tf.concat([h0[None], hh[:-1]], 0)
        zero = tf.zeros_like(h0)
        rh = zero if rh is None else rh
        rc = zero if rc is None else rc
        rows = [keep, take, before]
        if valid is not None:
            rows.append(valid)
        if ry is not None:
            rows.append(ry)
        if delta:
            # what goes evenly to all lower units, as a multiple of R_c and of s_g
            rows += [e_c, s_z, rule.signed(zc) + (0.0 if b is None else b)]
        fan_in = float(p["W_x"].shape[1] + size)

        def step(now: Sequence[Tensor], carry: Sequence[Tensor]) -> Any:
            r_h, r_c = carry
            now = list(now)
            keep_t, take_t, before_t = now[:3]
            at = 3
            m = None
            if valid is not None:
                m = now[at] > 0
                at += 1
            if ry is not None:
                r_h = r_h + now[at]
                at += 1
            whole = r_c + r_h
            sg = take_t * whole
            new_c = keep_t * whole
            extra: list[Tensor] = []
            if delta:
                ec, sz, lost = now[at:]
                even = delta * tf.reduce_sum(ec * whole, 1, keepdims=True) / (2.0 * size)
                new_c += even
                sg += even * sz
                share = delta * tf.reduce_sum(lost * sg, 1, keepdims=True) / fan_in
            new_h = before_t * tf.matmul(sg, w, transpose_b=True)
            if delta:
                new_h += share
                extra = [share]
            if m is not None:
                new_h, new_c = tf.where(m, new_h, r_h), tf.where(m, new_c, r_c)
                whole, sg = tf.where(m, whole, zero), tf.where(m, sg, zero)
                extra = [tf.where(m, e, tf.zeros_like(e)) for e in extra]
            return (new_h, new_c), (whole, sg, *extra)

        widths = [size, size] + ([1] if delta else [])
        (rh, rc), (whole, sg, *shared) = scan(step, rows, (rh, rc), widths=widths, backwards=True)
        left = 1.0 - delta
        absorbed = {
            "stabilizer": left * (tf.reduce_sum(e_c * whole, [0, 2]) + tf.reduce_sum(rule.signed(zc) * sg, [0, 2])),
            "bias": 0.0 if b is None else left * tf.reduce_sum(b * sg, [0, 2]),
        }
        return sg, shared[0] if shared else None, rh, rc, absorbed


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
    for name, weight in (("W", W), ("R", R), ("B", B), ("P", P)):
        if isinstance(weight, Var):
            raise node.refuse(f"{name} is computed; only constant weights are read")
    size = int(hidden_size or R.shape[-1])
    count = len(directions(direction, node))
    for name, weight, shape in (("W", W, (count, 4 * size)), ("R", R, (count, 4 * size, size))):
        if weight.shape[: len(shape)] != shape:
            raise node.refuse(f"{name} has shape {weight.shape}, expected {shape} at the front")
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
    slots, constants, inputs = _slots(X, sequence_lens, initial_h, initial_c)
    layer = LSTM(
        parameters={**parameters, **constants},
        hidden=size,
        backwards=directions(direction, node),
        functions=per_direction(activations, activation_alpha, activation_beta, ("Sigmoid", "Tanh", "Tanh"), count, node),
        clip=float(clip) if clip else None,
        input_forget=bool(input_forget),
        batch_first=bool(layout),
        slots=slots,
        used=tuple(bool(o) for o in node.outputs),
    )
    return layer, inputs


def _slots(X: Any, *others: Any) -> Any:
    """Slots, parameters and inputs; an all-zero initial state is none."""
    operands = [X, *others]
    for k in (2, 3):
        if isinstance(operands[k], np.ndarray) and not np.any(operands[k]):
            operands[k] = None
    slots: list[int | str | None] = []
    parameters: dict[str, np.ndarray] = {}
    inputs: list[Var] = []
    for name, operand in zip(OPERANDS, operands, strict=True):
        if operand is None:
            slots.append(None)
        elif isinstance(operand, Var):
            same = next((i for i, v in enumerate(inputs) if v.name == operand.name), None)
            slots.append(len(inputs) if same is None else same)
            if same is None:
                inputs.append(operand)
        else:
            slots.append(name)
            parameters[name] = np.asarray(operand)
    return tuple(slots), parameters, tuple(inputs)
