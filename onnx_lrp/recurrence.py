"""What the recurrent ops share: directions, lengths, initial states, activations and the loop over time.

A subclass says what one step does forward and backward; everything around it (which operand is what, both directions, padding, the
projections outside the loop) stands here once.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ._lazy import tf
from .dims import fresh, unify
from .layer import Opaque, PerSample, Share, Trace
from .registry import Var
from .rules import mapped

__all__ = ["Recurrent", "activations", "directions", "flip", "operands", "scan"]

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


def flip(x: Tensor, lens: Tensor | None) -> Tensor:
    """x (T, B, …) reversed in time; with lengths, each sample within its own."""
    if lens is None:
        return tf.reverse(x, [0])
    return tf.reverse_sequence(x, lens, seq_axis=0, batch_axis=1)


def scan(
    step: Callable[[Sequence[Tensor], Sequence[Tensor]], tuple[Sequence[Tensor], Sequence[Tensor]]],
    xs: Sequence[Any],
    carry: Sequence[Tensor],
    *,
    steps: Any,
    widths: Sequence[int],
    backwards: bool = False,
) -> tuple[Sequence[Tensor], Sequence[Any]]:
    """Run ``step(rows, carry) → (carry, written)`` over ``steps`` of all ``xs``, from the end if ``backwards``.

    ``xs``: tensors (T, …) or TensorArrays of an earlier scan, which are read without a copy. ``widths``: last axis of what is
    written a step, each (B, width). Returns the final carry and what was written as TensorArrays, in the order of time.
    """
    dtype, batch = carry[0].dtype, carry[0].shape[0]
    arrays = [
        tf.TensorArray(x.dtype, size=steps, element_shape=x.shape[1:], clear_after_read=False).unstack(x) if tf.is_tensor(x) else x
        for x in xs
    ]
    writes = tuple(tf.TensorArray(dtype, size=steps, element_shape=[batch, w], clear_after_read=False) for w in widths)

    def body(k: Tensor, state: Any, outs: Any) -> Any:
        t = steps - 1 - k if backwards else k
        state, written = step([a.read(t) for a in arrays], state)
        return (
            k + 1,
            tuple(state),
            tuple(o.write(t, w) for o, w in zip(outs, written, strict=True)),
        )

    _, state, outs = tf.while_loop(
        lambda k, state, outs: k < steps,
        body,
        (tf.constant(0), tuple(carry), writes),
        maximum_iterations=steps,
        parallel_iterations=4,
    )
    return state, outs


def pick(array: np.ndarray, order: Sequence[int], size: int) -> np.ndarray:
    """Reorder the gate blocks of width ``size`` on the last axis."""
    return np.concatenate([array[..., k * size : (k + 1) * size] for k in order], axis=-1)


def project(x: Tensor, w: Tensor, *, transpose: bool = False) -> Tensor:
    """x (T, B, I) times w (I, C) as one GEMM over all steps."""
    rows = tf.reshape(x, [-1, w.shape[1 if transpose else 0]])
    shape = tf.concat([tf.shape(x)[:-1], [w.shape[0 if transpose else 1]]], 0)
    return tf.reshape(tf.matmul(rows, w, transpose_b=transpose), shape)


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


@dataclass(frozen=True, eq=False)
class Lower:
    """The sum z = x W_x + h W_h + b behind some columns of the pre-activations, as a rule shares it over x and h.

    ``columns``: which; W_x (I, n), W_h (H, n), b (n,) or None are those columns already.
    """

    rule: Any
    columns: slice
    W_x: Tensor
    W_h: Tensor
    b: Tensor | None

    def hoisted(self, x: Tensor) -> list[Tensor]:
        """What x and the bias add to the sums the rule needs, (T, B, n) each, all steps at once."""
        rows = []
        for channel in self.rule.needs:
            z = project(channel.value(x), mapped(channel, self.W_x))
            constant = None if self.b is None else channel.constant(self.b)
            rows.append(z if constant is None else z + constant)
        return rows

    def share(self, z: Tensor, rows: Sequence[Tensor], h: Tensor, r: Tensor, factor: Tensor | None = None) -> Any:
        """(cotangents (B, n) in the order of the rule's channels, what ends in the stabilizer (B, 1)) of relevance r of z.

        ``factor``: h W_h is multiplied by it (B, n).
        """
        sums = {}
        for channel, row in zip(self.rule.needs, rows, strict=True):
            part = tf.matmul(channel.value(h), mapped(channel, self.W_h))
            sums[channel] = row + (part if factor is None else mapped(channel, factor) * part)
        return taken(self.rule, z, sums, r)

    def to_h(self, cotangents: Sequence[Tensor], h: Tensor, factor: Tensor | None = None) -> Tensor:
        """Relevance (B, H) of h."""
        total: Any = 0.0
        for channel, s in zip(self.rule.channels, cotangents, strict=True):
            s = s if factor is None else mapped(channel, factor) * s
            total += channel.value(h) * tf.matmul(s, mapped(channel, self.W_h), transpose_b=True)
        return total

    def to_x(self, cotangents: Sequence[Tensor], x: Tensor) -> Tensor:
        """Relevance (T, B, I) of x from the cotangents of all steps, (T, B, n)."""
        parts = zip(self.rule.channels, cotangents, strict=True)
        return sum(channel.value(x) * project(s, mapped(channel, self.W_x), transpose=True) for channel, s in parts)

    def to_b(self, cotangents: Sequence[Tensor]) -> Tensor | None:
        """What the bias absorbs: (B,) of cotangents (T, B, n), (B, 1) of those of one step."""
        total = None
        for channel, s in zip(self.rule.channels, cotangents, strict=True):
            constant = None if self.b is None else channel.constant(self.b)
            if constant is not None:
                single = s.shape.rank == 2
                part = tf.reduce_sum(constant * s, 1, keepdims=True) if single else tf.linalg.matvec(tf.reduce_sum(s, 0), constant)
                total = part if total is None else total + part
        return total


def taken(rule: Any, z: Tensor, sums: Mapping[Any, Tensor], r: Tensor) -> tuple[list[Tensor], Tensor]:
    """(cotangents in the order of the rule's channels, what ends in the rule's stabilizer (B, 1)) of relevance r (B, n) of z."""
    shares = rule.share(z, sums, r)
    lost = shares.stabilizer if shares.lost is None else shares.stabilizer + shares.lost
    return [shares.cotangents[channel] for channel in rule.channels], tf.reduce_sum(lost, 1, keepdims=True)


def check_shapes(node: Any, count: int, rows: int, size: int, **weights: Any) -> None:
    """Refuse weights that are computed or don't fit hidden_size."""
    for name, weight in weights.items():
        if isinstance(weight, Var):
            raise node.refuse(f"{name} is computed; only constant weights are read")
    for name, shape in (("W", (count, rows * size)), ("R", (count, rows * size, size))):
        if weights[name].shape[: len(shape)] != shape:
            raise node.refuse(f"{name} has shape {weights[name].shape}, expected {shape} at the front")


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
    """

    hidden: int
    backwards: tuple[bool, ...]
    functions: tuple[tuple[tuple[str, Mapping[str, float]], ...], ...]
    clip: float | None = None
    batch_first: bool = False
    slots: tuple[int | str | None, ...]

    @property
    @abc.abstractmethod
    def states(self) -> Sequence[str]:
        """Names of the states, h0 first."""

    @property
    @abc.abstractmethod
    def candidate(self) -> slice:
        """Columns of the weights that carry relevance."""

    @property
    @abc.abstractmethod
    def saves(self) -> int:
        """How many tensors (B, H) a step of the forward loop keeps: the new states and what :meth:`cell` adds."""

    @abc.abstractmethod
    def cell(self, d: int, p: Mapping[str, Tensor]) -> Callable[..., Any]:
        """One step: (z (B, G·H), states) → (new states, what is kept beside them). The state h₋ before the step is kept last."""

    @abc.abstractmethod
    def back(self, d: int, rule: Any, trace: Trace, ry: Tensor | None, rs: Sequence[Tensor]) -> Any:
        """Relevance through one direction's loop, in processing order (ry (T, B, H), rs (B, H) a state).

        Returns (Lower, its cotangents (T, B, n)) for every sum that x is a term of, the even share of x (T, B, 1) or None, what is
        left at the initial states, and what was absorbed.
        """

    def lower(self, d: int, rule: Any, p: Mapping[str, Tensor], columns: slice) -> Lower:
        """The sum behind some columns of the pre-activations."""
        b = p["b"][d][columns] if "b" in p else None
        return Lower(rule.rule, columns, p["W_x"][d][:, columns], p["W_h"][d][:, columns], b)

    def ordered(self, d: int, trace: Trace, x: Tensor) -> Tensor:
        """x (T, B, …) in the order in which direction d processes it."""
        return flip(x, trace.saved.get("lens")) if self.backwards[d] else x

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

    def clamp(self, z: Tensor) -> Tensor:
        """Pre-activations after ``clip``."""
        return z if self.clip is None else tf.clip_by_value(z, -self.clip, self.clip)

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x: Tensor = self._operand("x", xs, p)
        lens = self._operand("lens", xs, p)
        if self.batch_first:
            x = tf.transpose(x, [1, 0, 2])
        saved: dict[str, Any] = {
            "x": x,
            "steps": x.shape[0] if x.shape[0] is not None else tf.shape(x)[0],
        }
        valid = None
        if lens is not None:
            lens = tf.cast(lens, tf.int32)
            valid = tf.expand_dims(tf.transpose(tf.sequence_mask(lens, tf.shape(x)[0], dtype=x.dtype)), 2)  # (T, B, 1)
            saved["valid"], saved["lens"] = valid, lens
        ys: list[Tensor] = []
        finals: list[Sequence[Tensor]] = []
        for d, backwards in enumerate(self.backwards):
            start = [self._state(name, d, xs, p, x) for name in self.states]
            z = project(x, p["W_x"][d])
            if "b" in p:
                z += p["b"][d]
            if backwards:
                z = flip(z, lens)
            cell = self.cell(d, p)

            def step(
                rows: Sequence[Tensor],
                carry: Sequence[Tensor],
                cell: Any = cell,
                masked: bool = valid is not None,
            ) -> Any:
                new, kept = cell(rows[0], carry)
                if masked:
                    new = [tf.where(rows[1] > 0, a, b) for a, b in zip(new, carry, strict=True)]
                return new, (*new, *kept, carry[0])

            rows = [z] if valid is None else [z, valid]
            final, kept = scan(
                step,
                rows,
                start,
                steps=saved["steps"],
                widths=[self.hidden] * (self.saves + 1),
            )
            saved[f"{d}"] = kept
            y = kept[0].stack()
            if valid is not None:
                y *= valid
            ys.append(flip(y, lens) if backwards else y)
            finals.append(final)
        y = tf.stack([tf.transpose(v, [1, 0, 2]) for v in ys], 2) if self.batch_first else tf.stack(ys, 1)
        axis = 1 if self.batch_first else 0
        return Trace(
            xs,
            [y, *(tf.stack(state, axis) for state in zip(*finals, strict=True))],
            p,
            saved,
        )

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        saved = trace.saved
        x, lens, valid = saved["x"], saved.get("lens"), saved.get("valid")
        met: list[list[Tensor]] = []  # relevance of the states at every step, by direction
        if "keep" in saved:
            trace = replace(trace, saved={**saved, "keep": met})
        into_x: Any = 0.0
        into: list[Sequence[Tensor]] = []
        totals: dict[str, Any] = {}
        for d, backwards in enumerate(self.backwards):
            ry, *ends = (self._part(r, k, d) for k, r in enumerate(rs))
            if ry is not None and backwards:
                ry = flip(ry, lens)
            if ry is not None and valid is not None:
                totals["constant"] = totals.get("constant", 0.0) + tf.reduce_sum(ry * (1 - valid), [0, 2])
                ry = ry * valid
            batch = x.shape[1] if x.shape[1] is not None else tf.shape(x)[1]
            zero = tf.zeros([batch, self.hidden], x.dtype)
            lowers, shared, left, absorbed = self.back(d, rule, trace, ry, [zero if r is None else r for r in ends])
            if backwards:
                met[d:] = [[flip(r, lens) for r in part] for part in met[d:]]
            for lower, cotangents in lowers:
                into_x += lower.to_x([flip(s, lens) for s in cotangents] if backwards else cotangents, x)
            if shared is not None:
                into_x += flip(shared, lens) if backwards else shared
            into.append(left)
            for kind, amount in absorbed.items():
                totals[kind] = totals.get(kind, 0.0) + amount
        axis = 1 if self.batch_first else 0
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

    def _part(self, r: Tensor | None, output: int, d: int) -> Tensor | None:
        if r is None:
            return None
        if output == 0:
            return tf.transpose(r[:, :, d], [1, 0, 2]) if self.batch_first else r[:, d]
        return r[:, d] if self.batch_first else r[d]

    def walk(
        self,
        step: Callable[..., Any],
        trace: Trace,
        rows: Sequence[Any],
        ry: Tensor | None,
        rs: Sequence[Tensor],
        *,
        shares: bool,
        writes: int = 1,
    ) -> tuple[list[Tensor], Tensor | None, Sequence[Tensor], Tensor]:
        """The loop over time from the last step to the first around ``step(rows, (states …, absorbed)) → (carry, (s …, share))``.

        Adds the relevance of Y to the first state and leaves padded steps alone. ``shares``: an even share (B, 1) of x is
        written beside the ``writes`` cotangents. Returns these (T, B, H), shares (T, B, 1) or None, what is left at the states,
        and absorbed (B,). Where ``trace.saved["keep"]`` is a list, the relevance that each state has at each step is appended to
        it: of h_t all that comes from Y and from later steps, of c_t that and its own, (T, B, H) each.
        """
        keep = trace.saved.get("keep")
        rows = list(rows)
        count = len(rows)
        valid = trace.saved.get("valid")
        rows += [] if ry is None else [ry]
        rows += [] if valid is None else [valid]

        def around(now: Sequence[Tensor], carry: Sequence[Tensor]) -> Any:
            state = list(carry) if ry is None else [carry[0] + now[count], *carry[1:]]
            new, written = step(now[:count], state)
            if keep is not None:
                written = [*written, *(tf.add_n(state[: k + 1]) for k in range(len(self.states)))]
            if valid is not None:
                real = now[-1] > 0
                new = [tf.where(real, a, b) for a, b in zip(new, state, strict=True)]
                written = [tf.where(real, w, tf.zeros_like(w)) for w in written]
            return new, written

        widths = [
            *[self.hidden] * writes,
            *([1] if shares else []),
            *([self.hidden] * len(self.states) if keep is not None else []),
        ]
        carry = (*rs, tf.zeros_like(rs[0][:, :1]))
        (*left, absorbed), written = scan(
            around,
            rows,
            carry,
            steps=trace.saved["steps"],
            widths=widths,
            backwards=True,
        )
        stacked = [w.stack() for w in written]
        if keep is not None:
            keep.append(stacked[-len(self.states) :])
        return stacked[:writes], stacked[writes] if shares else None, left, tf.reshape(absorbed, [-1])
