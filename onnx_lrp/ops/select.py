"""Where, Trilu, Max and Min of several operands: each entry's relevance goes to the operand that was selected there.

Max and Min with a constant are activations (a Relu, a Clip), and so is an expression that selects between x and a function of x
by x itself: relevance passes (Bach et al. 2015, section 2.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._lazy import tf
from ..intervals import bounds, hull, origin_of
from ..layer import Opaque, Routing, Share, Trace, constant_dims, fill, mixed, operand_dims, unbroadcast
from ..registry import Var, importer
from .reshape import Same

__all__ = ["Largest", "Limited", "PieceWise", "Triangle", "Where"]

Tensor = Any


def _where_var(slots: Sequence[int | str], xs: Sequence[Var], p: Mapping[str, Any]) -> Var:
    _, a, b = fill(slots, xs, p)
    sides = [v for v in (a, b) if isinstance(v, Var)]
    dims = operand_dims(slots, xs, p)
    return Var("", a.dtype, dims, interval=hull([bounds(a), bounds(b)]), mask=all(s.mask for s in sides), origin=origin_of(xs))


@dataclass(frozen=True, eq=False, kw_only=True)
class Where(Routing):
    """Slots: condition, the operand where it holds, the other."""

    slots: tuple[int | str, ...]

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [_where_var(self.slots, xs, self.parameters)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.where(*fill(self.slots, xs, p))], p)

    def _parts(self, trace: Trace, r: Tensor) -> list[Tensor]:
        condition, *_ = fill(self.slots, trace.inputs, trace.parameters)
        zero = tf.zeros_like(r)
        return [tf.where(condition, r, zero), tf.where(condition, zero, r)]

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        back: list[Tensor | None] = [None] * len(trace.inputs)
        for slot, part in zip(self.slots[1:], self._parts(trace, rs[0]), strict=True):
            if isinstance(slot, int) and trace.inputs[slot].dtype.is_floating:
                back[slot] = unbroadcast(part, trace.inputs[slot])
        return back

    def lost(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[tuple[Tensor, Tensor]]:
        parts = zip(self.slots[1:], self._parts(trace, rs[0]), strict=True)
        return [(trace.parameters[slot], part) for slot, part in parts if isinstance(slot, str)]


@dataclass(frozen=True, eq=False, kw_only=True)
class PieceWise(Opaque):
    """A choice between x and a function of x (or a constant) that x itself makes: an activation."""

    slots: tuple[int | str, ...]
    signal: int  # input that is x

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (self.signal,)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [_where_var(self.slots, xs, self.parameters)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.where(*fill(self.slots, xs, p))], p)

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        return Share([unbroadcast(rs[0], x) if i == self.signal else None for i, x in enumerate(trace.inputs)])


def _taken(condition: Var, X: Any, Y: Any) -> Var | None:
    """The side of an If in a loop that is always taken, if it is computed: whether an optional is there, say."""
    if condition.value is None or condition.dims != ():
        return None
    side = X if bool(condition.value) else Y
    return side if isinstance(side, Var) else None


@importer("Where", since=9)
def where(condition: Any, X: Any, Y: Any) -> Any:
    slots, parameters, inputs = mixed(condition, X, Y)
    if isinstance(condition, Var):
        taken = _taken(condition, X, Y)
        if taken is not None:
            return Same(), (taken,)
        for side, other in ((X, Y), (Y, X)):
            chosen = isinstance(side, Var) and side.live and side.name in condition.origin
            if chosen and (not isinstance(other, Var) or side.name in other.origin):
                return PieceWise(parameters=parameters, slots=slots, signal=inputs.index(side)), inputs
    return Where(parameters=parameters, slots=slots), inputs


def _extreme(largest: bool, operands: Sequence[Any]) -> Any:
    pick = tf.maximum if largest else tf.minimum
    out = operands[0]
    for operand in operands[1:]:
        out = pick(out, operand)
    return out


def _winners(largest: bool, operands: Sequence[Tensor]) -> list[Tensor]:
    """For each operand, where it is the first among the extreme ones (broadcast to the output)."""
    best = _extreme(largest, operands)
    taken = tf.zeros_like(best, tf.bool)
    out = []
    for operand in operands:
        wins = tf.equal(operand, best) & ~taken
        out.append(wins)
        taken |= wins
    return out


def _extreme_var(largest: bool, slots: Sequence[int | str], xs: Sequence[Var], p: Mapping[str, Any]) -> Var:
    operands = fill(slots, xs, p)
    lows, highs = zip(*(bounds(o) for o in operands), strict=True)
    pick = max if largest else min
    masks = all(x.mask for x in xs)
    return Var("", xs[0].dtype, operand_dims(slots, xs, p), interval=(pick(lows), pick(highs)), mask=masks, origin=origin_of(xs))


@dataclass(frozen=True, eq=False, kw_only=True)
class Largest(Routing):
    """The largest (or smallest) of signals, entry by entry: the first winner in the operands' order takes all."""

    largest: bool = True

    @property
    def title(self) -> str:
        return "Max" if self.largest else "Min"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [_extreme_var(self.largest, range(len(xs)), xs, {})]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [_extreme(self.largest, xs)], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        wins = _winners(self.largest, trace.inputs)
        r: Tensor = rs[0]
        return [unbroadcast(tf.where(w, r, tf.zeros_like(r)), x) for w, x in zip(wins, trace.inputs, strict=True)]

    def move(self, trace: Trace, xs: Sequence[Tensor], *, constants: bool) -> Sequence[Tensor]:
        wins = _winners(self.largest, trace.inputs)
        parts = [tf.where(w, x, tf.zeros_like(x)) for w, x in zip(wins, xs, strict=True)]
        return [sum(parts[1:], parts[0])]


@dataclass(frozen=True, eq=False, kw_only=True)
class Limited(Opaque):
    """Max or Min of signals and of limits (constants, or computed without relevance): the limits only saturate."""

    slots: tuple[int | str, ...]
    sources: tuple[int, ...]  # inputs that are signals
    largest: bool = True

    @property
    def title(self) -> str:
        return "Max" if self.largest else "Min"

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return [i for i in self.sources if xs[i].is_float]

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [_extreme_var(self.largest, self.slots, xs, self.parameters)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [_extreme(self.largest, fill(self.slots, xs, p))], p)

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        r: Tensor = rs[0]
        shares: list[Tensor | None] = [None] * len(trace.inputs)
        sources = [trace.inputs[i] for i in self.sources]
        for index, x, wins in zip(self.sources, sources, _winners(self.largest, sources), strict=True):
            shares[index] = unbroadcast(tf.where(wins, r, tf.zeros_like(r)), x)
        return Share(shares)


def _register(op: str, largest: bool) -> None:
    @importer(op, since=6)
    def read(*data_0: Any) -> Any:
        if len(data_0) == 1:
            return Same(), data_0
        slots, parameters, inputs = mixed(*data_0)
        live = [i for i, x in enumerate(inputs) if x.live]
        if len(live) == len(data_0):
            return Largest(largest=largest), inputs
        # with a single signal this is an activation; off the path it does not matter who is
        sources = tuple(live) or tuple(range(len(inputs)))
        return Limited(parameters=parameters, slots=slots, sources=sources, largest=largest), inputs


_register("Max", True)
_register("Min", False)


@dataclass(frozen=True, eq=False, kw_only=True)
class Triangle(Routing):
    """The last two axes' entries on one side of the diagonal ``k``, zero elsewhere. Slots: x, maybe k."""

    slots: tuple[int | str, ...]
    upper: bool

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if self.slots[0] == 0 and xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = fill(self.slots, xs, self.parameters)[0]
        dims = x.dims if isinstance(x, Var) else constant_dims(x)
        mask = isinstance(x, Var) and x.mask
        return [Var("", x.dtype, dims, interval=hull([bounds(x), (0.0, 0.0)]), mask=mask)]

    def _kept(self, x: Tensor, k: Tensor) -> Tensor:
        rows, columns = (tf.range(tf.shape(x, tf.int64)[axis]) for axis in (-2, -1))
        distance = columns[None, :] - rows[:, None] - tf.cast(tf.reshape(k, []), tf.int64)
        return distance >= 0 if self.upper else distance <= 0

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, *k = fill(self.slots, xs, p)
        kept = self._kept(x, k[0] if k else tf.zeros([], tf.int64))
        return Trace(xs, [tf.where(kept, x, tf.zeros_like(x))], p, {"kept": kept})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        r: Tensor = rs[0]
        return [tf.where(trace.saved["kept"], r, tf.zeros_like(r)), *[None] * (len(trace.inputs) - 1)]

    def lost(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[tuple[Tensor, Tensor]]:
        r: Tensor = rs[0]
        zero = tf.zeros_like(r)
        return [(zero, tf.where(trace.saved["kept"], zero, r))]


@importer("Trilu", since=14)
def trilu(input: Any, k: Any = None, *, upper: int = 1) -> Any:
    slots, parameters, inputs = mixed(input, k)
    return Triangle(parameters=parameters, slots=slots, upper=bool(upper)), inputs
