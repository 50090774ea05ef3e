"""The loops over time of the recurrent layers, and the sums over x and h that every step is made of.

Everything is written for few and large operations: a step forward is one product with [x, h], a step back one with the candidate's
weights; nothing is copied that can be read where it lies. Shapes: T time, B batch, I input features, H hidden units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._lazy import tf
from .precision import product
from .rules import mapped

__all__ = ["Lower", "Pass", "Sum", "back", "block_width", "flip", "forth", "project", "taken"]

Tensor = Any
CACHE = 896 * 1024  # bytes of weights that leave room for samples in a core's second-level cache of 1 MiB
MOST_PARTS = 2  # blocks a gate; more of them are slower than one product that the cores share


def block_width(rows: int, columns: int) -> int:
    """Width of the blocks in which a matrix of a gate is multiplied, 0: with all gates at once.

    oneDNN keeps a product on one core where its operands fit that core's cache. Then both directions and all gates run side by
    side, while products that are shared out make the cores wait for each other at every step. On a GPU one product is best.
    """
    if tf.config.list_logical_devices("GPU"):
        return 0
    for parts in range(1, MOST_PARTS + 1):
        if columns % parts == 0 and 4 * rows * (columns // parts) <= CACHE:
            return columns // parts
    return 0


def flip(x: Tensor, lens: Tensor | None) -> Tensor:
    """x (T, B, …) reversed in time; with lengths, each sample within its own."""
    if lens is None:
        return tf.reverse(x, [0])
    return tf.reverse_sequence(x, lens, seq_axis=0, batch_axis=1)


def project(x: Tensor, w: Tensor) -> Tensor:
    """x (T, B, I) times w (I, C) as one product over all steps."""
    shape = tf.concat([tf.shape(x)[:-1], [w.shape[1]]], 0)
    return tf.reshape(product(tf.reshape(x, [-1, w.shape[0]]), w), shape)


class Sum:
    """z = x_t W_x + h W_h + b of some gates, step by step.

    With few samples all x_t W_x are one product before the loop; with many, [x_t, h] W is computed a step, which keeps nothing of
    size (T, B, C): as one product, or a product a block of columns.

    Args:
        x: (T, B, I).
        w: (I + H, C), W_x above W_h.
        w_h: W_h alone, if it is held as well.
        blocks: the same as matrices (I + H, n) of equal width, so small that each product stays on one core; none: one product.
        b: (C,) or None.
        features: I.
        count: number of gates, each of C / count columns.
        ahead: all x_t W_x are computed before the loop.
    """

    def __init__(
        self,
        x: Tensor,
        w: Tensor,
        w_h: Tensor | None,
        blocks: Sequence[Tensor],
        b: Tensor | None,
        features: int,
        count: int,
        *,
        ahead: bool,
    ) -> None:
        self.x, self.b, self.count = x, b, count
        # a static number of samples: compiled, where one product is best
        self.blocks = () if x.shape[1] is not None else tuple(blocks)
        self.biases = None if b is None else tf.split(b, len(self.blocks) or 1)
        self.w = None if self.blocks else w
        self.w_x, self.w_h = w[:features], w[features:] if w_h is None else w_h
        self.ahead = self._biased(project(x, self.w_x)) if ahead else None

    def _biased(self, z: Tensor) -> Tensor:
        return z if self.b is None else tf.nn.bias_add(z, self.b)

    def __call__(self, t: Tensor, h: Tensor) -> Sequence[Tensor]:
        """Of every gate (B, C / count) at step t, with h (B, H)."""
        if self.ahead is not None:
            return self._gates([tf.gather(self.ahead, t) + product(h, self.w_h)])
        row = tf.concat([tf.gather(self.x, t), h], 1)
        parts = [product(row, w) for w in self.blocks or (self.w,)]
        if self.biases is not None:
            parts = [tf.nn.bias_add(z, b) for z, b in zip(parts, self.biases, strict=True)]
        return self._gates(parts)

    def _gates(self, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        if len(parts) == 1 < self.count:
            return tf.split(parts[0], self.count, 1)
        each = len(parts) // self.count
        return parts if each == 1 else [tf.concat(parts[k : k + each], 1) for k in range(0, len(parts), each)]

    def of_x(self, t: Tensor) -> Tensor:
        """x_t W_x + b alone, (B, C)."""
        if self.ahead is not None:
            return tf.gather(self.ahead, t)
        return self._biased(product(tf.gather(self.x, t), self.w_x))

    def of_h(self, h: Tensor) -> Tensor:
        """h W_h alone, (B, C)."""
        return product(h, self.w_h)


class _Steps:
    """A tensor (T, …), read as a TensorArray is."""

    def __init__(self, whole: Tensor) -> None:
        self.whole = whole

    def read(self, t: Tensor) -> Tensor:
        return tf.gather(self.whole, t)

    def stack(self) -> Tensor:
        return self.whole


@dataclass(frozen=True, eq=False)
class Pass:
    """One direction's run forward over some steps: what its way back needs.

    Attributes:
        x: (T, B, I).
        count: T.
        ends: steps that are run: those of the longest sample.
        down: the steps were taken from the last to the first.
        states: a TensorArray a state, T + 1 entries (B, H): those around the steps, in the order of time.
        kept: TensorArrays of T entries (B, H): what the cell keeps of every step.
        valid: (T, B, 1), 1 where a step is no padding; None: everywhere.
        parameters: of the layer.
        met: where the relevance of the states at every step is put, (T, B, H) each; None: nowhere.
        apart: the loop is a compiled program of its own, so is the one back.
    """

    x: Tensor
    count: Any
    ends: Any
    down: bool
    states: Sequence[Any]
    kept: Sequence[Any]
    valid: Tensor | None
    parameters: Mapping[str, Tensor]
    met: list[list[Tensor]] | None = None
    apart: bool = False

    def stacked(self, state: int) -> Tensor:
        """A state after every step, (T, B, H)."""
        around = self.states[state].stack()
        return around[:-1] if self.down else around[1:]


def _arrays(like: Tensor, size: Any, widths: Sequence[int]) -> tuple[Any, ...]:
    shapes = [[like.shape[0], w] for w in widths]
    return tuple(tf.TensorArray(like.dtype, size=size, element_shape=s, clear_after_read=False) for s in shapes)


def _loop(body: Callable[..., Any], start: Any, ends: Any, count: Any) -> Any:
    """``body`` for k = 0 … ends − 1, of ``count`` at most."""
    # a bound is a second counter, which only compiled gradients need, and these know T
    bound = count if isinstance(count, int) else None
    return tf.while_loop(lambda k, *_: k < ends, body, (tf.constant(0), *start), maximum_iterations=bound)[1:]


def _ends(valid: Tensor, count: Any) -> Tensor:
    """The steps of the longest sample, at least one (lists of nothing have no shape): those behind it are padding alone."""
    longest = tf.cast(tf.reduce_sum(tf.reduce_max(valid, [1, 2])), tf.int32)
    return tf.minimum(tf.maximum(longest, 1), count)


def _compiled(loop: Callable[[], Any]) -> Any:
    """A loop as a program of its own inside a graph, where it runs beside others; no TensorArray leaves it."""
    return tf.function(loop, jit_compile=True, autograph=False)()


def forth(
    cell: Callable[..., Any],
    x: Tensor,
    start: Sequence[Tensor],
    *,
    down: bool,
    valid: Tensor | None,
    parameters: Mapping[str, Tensor],
    saves: int,
    keep: bool = True,
    apart: bool = False,
) -> tuple[Sequence[Tensor], Pass | None]:
    """Run ``cell(t, states) → (new states, what is kept)`` over time, from the last step to the first if ``down``.

    With padding (``valid``) steps behind the longest sample are left out, and zeros. Not with ``down``, which then starts there.
    Returns the last states and the :class:`Pass`; without ``keep`` None, and nothing of the size of T is made.
    """
    count = x.shape[0] if x.shape[0] is not None else tf.shape(x)[0]
    width = start[0].shape[1]
    ends = count if valid is None else _ends(valid, count)

    def body(k: Tensor, states: Any, arrays: Any, kept: Any) -> Any:
        t = count - 1 - k if down else k
        new, more = cell(t, states)
        if valid is not None:
            real = tf.gather(valid, t) > 0
            new = [tf.where(real, a, b) for a, b in zip(new, states, strict=True)]
        arrays = tuple(a.write(t if down else t + 1, s) for a, s in zip(arrays, new, strict=False))
        return k + 1, tuple(new), arrays, tuple(a.write(t, s) for a, s in zip(kept, more, strict=False))

    def loop() -> Any:
        arrays = _arrays(start[0], count + 1, [width] * len(start)) if keep else ()
        arrays = tuple(a.write(count if down else 0, s) for a, s in zip(arrays, start, strict=False))
        return _loop(body, (tuple(start), arrays, _arrays(start[0], count, [width] * saves) if keep else ()), ends, count)

    def stacked() -> Any:
        states, arrays, kept = loop()
        return states, [a.stack() for a in arrays], [a.stack() for a in kept]

    if apart:
        states, arrays, kept = _compiled(stacked)
        arrays, kept = [_Steps(a) for a in arrays], [_Steps(a) for a in kept]
    else:
        states, arrays, kept = loop()
    return states, Pass(x, count, ends, down, arrays, kept, valid, parameters, apart=apart) if keep else None


@dataclass(frozen=True, eq=False)
class Step:
    """What the way back sees of one step: t, what the cell kept, the states before and after it, each (B, H)."""

    t: Tensor
    kept: Sequence[Tensor]
    before: Sequence[Tensor]
    after: Sequence[Tensor]


def back(
    step: Callable[[Step, Sequence[Tensor]], Any], run: Pass, ry: Tensor | None, rs: Sequence[Tensor], *, writes: int, shares: bool
) -> tuple[list[Tensor], Tensor | None, Sequence[Tensor], Tensor]:
    """The loop against the order of processing around ``step(Step, (states …, absorbed)) → (carry, (s …, share))``.

    Adds the relevance ``ry`` (T, B, H) of Y to the first state and leaves padded steps alone. ``rs``: relevance of the states
    after the last step, and what else is carried. ``shares``: an even share (B, 1) of x is written beside the ``writes``
    cotangents. Returns these (T, B, H), the shares (T, B, 1) or None, what is left at the states, and absorbed (B,). Where
    ``run.met`` is a list, the relevance that each state has at each step is appended to it: of h_t all that comes from Y and from
    later steps, of c_t that and its own, (T, B, H) each.
    """
    names = len(run.states) if run.met is not None else 0
    width = rs[0].shape[1]

    def body(k: Tensor, carry: Any, written: Any) -> Any:
        t = k if run.down else run.ends - 1 - k
        old, new = (t + 1, t) if run.down else (t, t + 1)
        now = Step(t, [a.read(t) for a in run.kept], [a.read(old) for a in run.states], [a.read(new) for a in run.states])
        carry = list(carry) if ry is None else [carry[0] + tf.gather(ry, t), *carry[1:]]
        after, (*rows, share) = step(now, carry)
        rows += [tf.add_n(carry[: n + 1]) for n in range(names)]
        rows += [share] if shares else []
        if run.valid is not None:
            real = tf.gather(run.valid, t) > 0
            after = [tf.where(real, a, b) for a, b in zip(after, carry, strict=True)]
            rows = [tf.where(real, w, tf.zeros_like(w)) for w in rows]
        return k + 1, tuple(after), tuple(a.write(t, w) for a, w in zip(written, rows, strict=True))

    def loop() -> Any:
        written = _arrays(rs[0], run.count, [*[width] * (writes + names), *([1] if shares else [])])
        left, written = _loop(body, ((*rs, tf.zeros_like(rs[0])), written), run.ends, run.count)
        return left, [a.stack() for a in written]

    (*left, absorbed), stacked = _compiled(loop) if run.apart else loop()
    if run.met is not None:
        run.met.append(stacked[writes : writes + names])
    return stacked[:writes], stacked[-1] if shares else None, left, tf.reduce_sum(absorbed, 1)


@dataclass(frozen=True, eq=False)
class Lower:
    """The sum z = x W_x + h W_h + b behind some columns of the pre-activations, as a rule shares it over x and h.

    ``W_x`` (I, n), ``W_h`` (H, n), ``b`` (n,) or None are those columns; ``back_x`` (n, I) and ``back_h``, blocks of columns of
    (n, H), the transposes, made once: a product with a transposed matrix takes up to twice as long.
    """

    rule: Any
    W_x: Tensor
    W_h: Tensor
    b: Tensor | None
    back_x: Tensor
    back_h: Sequence[Tensor]

    def hoisted(self, x: Tensor) -> list[Tensor]:
        """What x and the bias add to the sums the rule needs, (T, B, n) each, all steps at once."""
        rows = []
        for channel in self.rule.needs:
            z = project(channel.value(x), mapped(channel, self.W_x))
            constant = None if self.b is None else channel.constant(self.b)
            rows.append(z if constant is None else z + constant)
        return rows

    def share(self, z: Tensor, rows: Sequence[Tensor], h: Tensor, r: Tensor, factor: Tensor | None = None) -> Any:
        """(cotangents (B, n) in the order of the rule's channels, what ends in the stabilizer (B, n)) of relevance r of z.

        ``rows``: of :meth:`hoisted` at this step. ``factor``: h W_h is multiplied by it (B, n).
        """
        sums = {}
        for channel, row in zip(self.rule.needs, rows, strict=True):
            part = product(channel.value(h), mapped(channel, self.W_h))
            sums[channel] = row + (part if factor is None else mapped(channel, factor) * part)
        return taken(self.rule, z, sums, r)

    def to_h(self, cotangents: Sequence[Tensor], h: Tensor, factor: Tensor | None = None) -> Tensor:
        """Relevance (B, H) of h."""
        parts = []
        for channel, s in zip(self.rule.channels, cotangents, strict=True):
            s = s if factor is None else mapped(channel, factor) * s
            products = [product(s, mapped(channel, w)) for w in self.back_h]
            parts.append(channel.value(h) * (products[0] if len(products) == 1 else tf.concat(products, 1)))
        return parts[0] if len(parts) == 1 else tf.add_n(parts)

    def to_x(self, cotangents: Sequence[Tensor], x: Tensor) -> Tensor:
        """Relevance (T, B, I) of x from the cotangents of all steps, (T, B, n)."""
        parts = zip(self.rule.channels, cotangents, strict=True)
        return sum(channel.value(x) * project(s, mapped(channel, self.back_x)) for channel, s in parts)

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
    """(cotangents in the order of the rule's channels, what ends in the rule's stabilizer (B, n)) of relevance r (B, n) of z."""
    shares = rule.share(z, sums, r)
    lost = shares.stabilizer if shares.lost is None else shares.stabilizer + shares.lost
    return [shares.cotangents[channel] for channel in rule.channels], lost
