"""What the recurrent ops share: directions, lengths, initial states and activations around the loops of :mod:`onnx_lrp.timeloop`.

A subclass says what one step does forward and backward; everything around it (which operand is what, both directions, padding,
segments that are run again on the way back) stands here once.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import segments
from ._lazy import tf
from .dims import fresh, unify
from .layer import Opaque, PerSample, Share, Trace
from .registry import Var
from .timeloop import Lower, Pass, Sum, block_width, flip, forth

__all__ = ["Recurrent", "activations", "check_shapes", "directions", "operands", "pick"]

Tensor = Any

# how many of alpha, beta an activation consumes, and onnxruntime's defaults
CONSUMES = {
    "Affine": ("alpha", "beta"),
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "ScaledTanh": ("alpha", "beta"),
    "ThresholdedRelu": ("alpha",),
}
SMALL = 5e6  # weights of a direction, up to which some are held twice for few samples
AHEAD = 9  # the most samples for which x W of all steps is computed at once,
AHEAD_COMPILED = 1  # and in a program compiled as a whole
NAMES = ("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus", *CONSUMES)


def directions(direction: str, node: Any) -> tuple[bool, ...]:
    """One flag a direction: whether it runs backwards."""
    table = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    if direction not in table:
        raise node.refuse(f"direction {direction!r} does not exist")
    return table[direction]


def activations(
    names: Sequence[str] | None,
    alphas: Sequence[float] | None,
    betas: Sequence[float] | None,
    defaults: Sequence[str],
    count: int,
    node: Any,
) -> tuple[tuple[tuple[str, dict[str, float]], ...], ...]:
    """Per direction the (name, parameters) of each activation; alpha and beta are consumed in order by those that take them."""
    listed = list(names) if names else list(defaults) * count
    if count == 1 and listed == list(defaults) * 2:  # onnxruntime writes the RNN's default for two directions in any case
        listed = list(defaults)
    if len(listed) != len(defaults) * count:
        raise node.refuse(f"{len(listed)} activations for {count} direction(s), expected {len(defaults) * count}")
    known = {n.lower(): n for n in NAMES}
    pools = {"alpha": list(alphas or ()), "beta": list(betas or ())}
    out = []
    for given in listed:
        name = known.get(given.lower())
        if name is None:
            raise node.refuse(f"activation {given!r} is not in the standard")
        settings = {key: float(pools[key].pop(0)) for key in CONSUMES.get(name, ()) if pools[key]}
        out.append((name, settings))
    size = len(defaults)
    return tuple(tuple(out[d * size : (d + 1) * size]) for d in range(count))


def pick(array: np.ndarray, order: Sequence[int], size: int) -> np.ndarray:
    """Reorder the gate blocks of width ``size`` on the last axis."""
    return np.concatenate([array[..., k * size : (k + 1) * size] for k in order], axis=-1)


def operands(
    names: Sequence[str], given: Sequence[Any]
) -> tuple[tuple[int | str | None, ...], dict[str, np.ndarray], tuple[Var, ...]]:
    """Slots, constant parameters and dynamic inputs of (x, lens, states …); an all-zero initial state is none."""
    slots: list[int | str | None] = []
    parameters: dict[str, np.ndarray] = {}
    inputs: list[Var] = []
    for name, operand in zip(names, given, strict=True):
        if operand is None or (name not in ("x", "lens") and isinstance(operand, np.ndarray) and not np.any(operand)):
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


def check_shapes(node: Any, count: int, rows: int, size: int, **weights: Any) -> None:
    """Refuse weights that are computed or don't fit hidden_size."""
    for name, weight in weights.items():
        if isinstance(weight, Var):
            raise node.refuse(f"{name} is computed; only constant weights are read")
    for name, shape in (("W", (count, rows * size)), ("R", (count, rows * size, size))):
        if weights[name].shape[: len(shape)] != shape:
            raise node.refuse(f"{name} has shape {weights[name].shape}, expected {shape} at the front")


def _each(matrices: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(m) for m in matrices]


def _blocks(matrices: np.ndarray, width: int) -> list[list[np.ndarray]]:
    """(D, rows, columns) cut into blocks of columns, a list a direction, (rows, width) each."""
    return [_each(np.moveaxis(m.reshape(len(m), -1, width), 1, 0)) for m in matrices]


@dataclass(frozen=True, eq=False, kw_only=True)
class Recurrent(Opaque):
    """parameters: W_x (D, I, G·H), W_h (D, H, G·H), b (D, G·H) unless without bias; more as the subclass says.

    Attributes:
        hidden: H.
        backwards: one flag a direction.
        functions: per direction the (name, settings) of its activations.
        clip: pre-activations are clamped to [-clip, clip]; relevance passes.
        batch_first: layout 1 of the standard: x (B, T, I), Y (B, T, D, H), states (B, D, H).
        slots: where x, lens and the initial states come from: an input's index, a parameter's name, or None.
        segment: keep the states before every so many steps only, and run these again on the way back; None: keep every step.
        silent: nobody reads Y, which is not made then (an empty tensor).
        apart: every direction's loops are compiled, as programs of their own.
    """

    hidden: int
    backwards: tuple[bool, ...]
    functions: tuple[tuple[tuple[str, Mapping[str, float]], ...], ...]
    clip: float | None = None
    batch_first: bool = False
    slots: tuple[int | str | None, ...]
    segment: int | None = None
    silent: bool = False
    apart: bool = False

    @property
    @abc.abstractmethod
    def states(self) -> Sequence[str]:
        """Names of the states, h0 first."""

    @property
    @abc.abstractmethod
    def candidate(self) -> int:
        """Which of the G blocks of H columns carries relevance."""

    @property
    @abc.abstractmethod
    def saves(self) -> int:
        """How many tensors (B, H) a step of the forward loop keeps beside the states."""

    @abc.abstractmethod
    def cell(self, d: int, x: Tensor, p: Mapping[str, Tensor]) -> Callable[..., Any]:
        """One step: (t, states) → (new states, what is kept beside them); x (T, B, I)."""

    @abc.abstractmethod
    def back(self, d: int, rule: Any, run: Pass, ry: Tensor | None, rs: Sequence[Tensor]) -> Any:
        """Relevance through one direction's loop (ry (T, B, H), rs (B, H) a state).

        Returns (Lower, its cotangents (T, B, n)) for every sum that x is a term of, the even share of x (T, B, 1) or None, what is
        left at the initial states, and what was absorbed by kind, (B,).
        """

    def tensors(self) -> Mapping[str, Any]:
        """Matrices are lists, one a direction, so that no call has to cut them: W (I + H, G·H), W_x above W_h, and where a product
        of all gates is better cut into pieces the same as "blocks" (I + H, n); of the candidate the transposes back_x (H, I) and
        back_h, blocks (H, n) of (H, H). Of small layers also W_h (H, G·H) alone, for few samples.
        """
        both = np.concatenate([self.parameters["W_x"], self.parameters["W_h"]], 1)
        back = both[:, :, self._columns(self.candidate)].swapaxes(1, 2)
        features, width = both.shape[1] - self.hidden, block_width(both.shape[1], self.hidden)
        found: dict[str, Any] = {name: array for name, array in self.parameters.items() if name not in ("W_x", "W_h")}
        found |= {"W": _each(both), "back_x": _each(back[:, :, :features])}
        found["back_h"] = _blocks(back[:, :, features:], block_width(self.hidden, self.hidden) or self.hidden)
        if self.work <= SMALL:
            found["W_h"] = _each(self.parameters["W_h"])
        return found | ({"blocks": _blocks(both, width)} if width else {})

    @property
    def matrices(self) -> Sequence[str]:
        return ("W", "W_h", "blocks", "back_x", "back_h")

    @property
    def work(self) -> int:
        """Multiplications of one sample, step and direction."""
        return sum(int(self.parameters[name][0].size) for name in ("W_x", "W_h"))

    def _columns(self, first: int, count: int = 1) -> slice:
        return slice(first * self.hidden, (first + count) * self.hidden)

    def sum(self, d: int, x: Tensor, p: Mapping[str, Tensor], first: int, count: int) -> Sum:
        """The pre-activations of ``count`` gates from the ``first`` on."""
        features, columns, blocks = p["W"][d].shape[0] - self.hidden, self._columns(first, count), []
        if "blocks" in p:
            each = self.hidden // p["blocks"][d][0].shape[1]
            blocks = p["blocks"][d][first * each : (first + count) * each]
        bias = p["b"][d][columns] if "b" in p else None
        few = AHEAD if self.apart or tf.executing_eagerly() else AHEAD_COMPILED
        ahead = x.shape[1] is not None and x.shape[1] <= few
        w_h = p["W_h"][d][:, columns] if ahead and "W_h" in p else None
        return Sum(x, p["W"][d][:, columns], w_h, blocks, bias, features, count, ahead=ahead)

    def lower(self, d: int, rule: Any, p: Mapping[str, Tensor], gate: int) -> Lower:
        """The sum behind a gate's or the candidate's pre-activations, on the way back."""
        features, columns = p["W"][d].shape[0] - self.hidden, self._columns(gate)
        w = p["W"][d][:, columns]
        w_x, w_h = w[:features], w[features:]
        own = gate == self.candidate
        back_x, back_h = (p["back_x"][d], p["back_h"][d]) if own else (tf.transpose(w_x), [tf.transpose(w_h)])
        return Lower(rule.rule, w_x, w_h, p["b"][d][columns] if "b" in p else None, back_x, back_h)

    def _names(self) -> Sequence[str]:
        return ("x", "lens", *self.states)

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        pairs = zip(self.slots, self._names(), strict=True)
        return sorted({s for s, name in pairs if isinstance(s, int) and name != "lens"})

    def lost_as(self, index: int) -> str:
        return "initial_state" if index in self.slots[2:] else "constant"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = xs[0]
        time, batch = fresh(None, "time"), fresh(None, "batch")
        if x.dims is not None and len(x.dims) == 3:
            batch, time = (x.dims[0], x.dims[1]) if self.batch_first else (x.dims[1], x.dims[0])
        for slot, name in zip(self.slots[1:], self._names()[1:], strict=True):
            dims = xs[slot].dims if isinstance(slot, int) else None
            if dims is not None:
                axis = 0 if name == "lens" or self.batch_first else 1
                if len(dims) > axis:
                    batch = unify(batch, dims[axis])
        d, h = fresh(len(self.backwards)), fresh(self.hidden)
        state = (batch, d, h) if self.batch_first else (d, batch, h)
        y = (batch, time, d, h) if self.batch_first else (time, d, batch, h)
        return [Var("", x.dtype, y), *(Var("", x.dtype, state) for _ in self.states)]

    def evidence(self, xs: Sequence[Var]) -> Mapping[str, Any]:
        """The batch and time dimension of the operands."""
        dims = xs[0].dims
        if dims is None or len(dims) != 3:
            return {}
        return {
            "batch": dims[0 if self.batch_first else 1],
            "time": dims[1 if self.batch_first else 0],
        }

    def _operand(self, name: str, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Tensor | None:
        slot = self.slots[self._names().index(name)]
        return None if slot is None else p[slot] if isinstance(slot, str) else xs[slot]

    def _state(
        self,
        name: str,
        d: int,
        xs: Sequence[Tensor],
        p: Mapping[str, Tensor],
        x: Tensor,
    ) -> Tensor:
        state = self._operand(name, xs, p)
        batch = x.shape[1] if x.shape[1] is not None else tf.shape(x)[1]
        if state is None:
            return tf.zeros([batch, self.hidden], x.dtype)
        state = state[:, d] if self.batch_first else state[d]
        return tf.broadcast_to(state, [batch, self.hidden]) if state.shape[0] == 1 else state

    @property
    def _started(self) -> bool:
        """Whether there is an initial state; onnxruntime ends a sequence without a step at zero all the same."""
        return any(slot is not None for slot in self.slots[2:])

    def clamp(self, z: Tensor) -> Tensor:
        """Pre-activations after ``clip``."""
        return z if self.clip is None else tf.clip_by_value(z, -self.clip, self.clip)

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x: Tensor = self._operand("x", xs, p)
        lens = self._operand("lens", xs, p)
        if self.batch_first:
            x = tf.transpose(x, [1, 0, 2])
        valid = None
        if lens is not None:
            lens = tf.cast(lens, tf.int32)
            valid = tf.expand_dims(tf.transpose(tf.sequence_mask(lens, tf.shape(x)[0], dtype=x.dtype)), 2)  # (T, B, 1)
        ys: list[Tensor] = []
        finals: list[Sequence[Tensor]] = []
        runs: list[Any] = []
        for d, backwards in enumerate(self.backwards):
            start = [self._state(name, d, xs, p, x) for name in self.states]
            # with lengths a direction starts at each sample's own end
            turned = flip(x, lens) if backwards and lens is not None else x
            final, run, y = self._forth(d, turned, start, valid, p)
            if lens is not None and self._started:
                final = [tf.where(lens[:, None] > 0, state, tf.zeros_like(state)) for state in final]
            if y is not None:
                ys.append(flip(y, lens) if turned is not x else y)
            finals.append(final)
            runs.append(run)
        axis = 1 if self.batch_first else 0
        if self.silent:
            y = tf.zeros([0], x.dtype)
        elif self.batch_first:
            y = tf.stack([tf.transpose(v, [1, 0, 2]) for v in ys], 2)
        else:
            y = tf.stack(ys, 1)
        outputs = [y, *(tf.stack(state, axis) for state in zip(*finals, strict=True))]
        return Trace(xs, outputs, p, {"x": x, "lens": lens, "valid": valid, "runs": runs})

    def within(self, trace: Trace) -> Tensor | None:
        lens = trace.saved["lens"]
        return None if lens is None else tf.reduce_all((lens >= 0) & (lens <= tf.shape(trace.saved["x"])[0]))

    def _forth(self, d: int, x: Tensor, start: Sequence[Tensor], valid: Tensor | None, p: Mapping[str, Tensor]) -> Any:
        """(last states, what the way back needs, Y of this direction or None where nobody reads it)."""
        down = self.backwards[d] and valid is None

        def part(x: Tensor, valid: Tensor | None, start: Sequence[Tensor], keep: bool = True) -> Any:
            cell = self.cell(d, x, p)
            return forth(cell, x, start, down=down, valid=valid, parameters=p, saves=self.saves, keep=keep, apart=self.apart)

        if self.segment is None:
            final, run = part(x, valid, start)
            y = None if self.silent else run.stacked(0) if valid is None else run.stacked(0) * valid
            return final, run, y
        return segments.forth(part, x, start, down=down, valid=valid, size=self.segment, silent=self.silent)

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        saved = trace.saved
        x, lens, valid = saved["x"], saved["lens"], saved["valid"]
        met: list[list[Tensor]] = []  # relevance of the states at every step, by direction
        of_inputs: list[Tensor] = []
        into: list[Sequence[Tensor]] = []
        totals: dict[str, Any] = {}
        for d, backwards in enumerate(self.backwards):
            ry, *ends = (self._part(r, k, d) for k, r in enumerate(rs))
            turned = backwards and lens is not None
            if ry is not None and turned:
                ry = flip(ry, lens)
            if ry is not None and valid is not None:
                totals["constant"] = totals.get("constant", 0.0) + tf.reduce_sum(ry * (1 - valid), [0, 2])
                ry = ry * valid
            batch = x.shape[1] if x.shape[1] is not None else tf.shape(x)[1]
            zero = tf.zeros([batch, self.hidden], x.dtype)
            ends = [zero if r is None else r for r in ends]
            if lens is not None and self._started:
                none = [tf.where(lens[:, None] > 0, zero, r) for r in ends]
                totals["constant"] = totals.get("constant", 0.0) + tf.reduce_sum(tf.add_n(none), 1)
                ends = [r - lost for r, lost in zip(ends, none, strict=True)]
            run = saved["runs"][d]
            if isinstance(run, Pass):
                seen: list[list[Tensor]] | None = [] if "keep" in saved else None
                of_x, left, absorbed = self._back(d, rule, replace(run, met=seen), ry, ends)
                met += [[flip(r, lens) if turned else r for r in part] for part in seen or ()]
            else:
                of_x, left, absorbed = run.back(lambda *given, d=d: self._back(d, rule, *given), ry, ends)
            of_inputs.append(flip(of_x, lens) if turned else of_x)
            into.append(left)
            for kind, amount in absorbed.items():
                totals[kind] = totals.get(kind, 0.0) + amount
        axis = 1 if self.batch_first else 0
        into_x = of_inputs[0] if len(of_inputs) == 1 else tf.add_n(of_inputs)
        shares = {"x": tf.transpose(into_x, [1, 0, 2]) if self.batch_first else into_x}
        shares |= {name: tf.stack(part, axis) for name, part in zip(self.states, zip(*into, strict=True), strict=True)}
        inputs: list[Tensor | None] = [None] * len(trace.inputs)
        for slot, name in zip(self.slots, self._names(), strict=True):
            if name == "lens":
                continue
            if isinstance(slot, int):  # one tensor may be several states
                inputs[slot] = shares[name] if inputs[slot] is None else inputs[slot] + shares[name]
            elif isinstance(slot, str) or rule.bias_factor or rule.rule.reaches_zeros:  # then even a zero state receives relevance
                start = tf.reduce_sum(shares[name], [1, 2] if self.batch_first else [0, 2])
                totals["initial_state"] = totals.get("initial_state", 0.0) + start
        states = {name[0]: tf.stack(part, 1) for name, part in zip(self.states, zip(*met, strict=True), strict=False)}
        return Share(inputs, {kind: PerSample(amount) for kind, amount in totals.items()}, states)

    def _back(self, d: int, rule: Any, run: Pass, ry: Tensor | None, rs: Sequence[Tensor]) -> Any:
        """(relevance of x (T, B, I), of the states before the first step, absorbed by kind)."""
        lowers, shared, left, absorbed = self.back(d, rule, run, ry, rs)
        into = [lower.to_x(cotangents, run.x) for lower, cotangents in lowers]
        total = into[0] if len(into) == 1 else tf.add_n(into)
        return total if shared is None else total + shared, left, absorbed

    def _part(self, r: Tensor | None, output: int, d: int) -> Tensor | None:
        if r is None:
            return None
        if output == 0:
            return tf.transpose(r[:, :, d], [1, 0, 2]) if self.batch_first else r[:, d]
        return r[:, d] if self.batch_first else r[d]
