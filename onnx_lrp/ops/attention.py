"""Attention: softmax weights are the gate, values the signal, so an attention is linear in V and in nothing else.

The fused ops are rewritten (:mod:`onnx_lrp.attention`) into these layers and a MatMul: the domain ``onnx_lrp`` is nobody else's.
RotaryEmbedding is linear in its operand, the angles being constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import fresh, unify
from ..layer import Affine, Plain, Routing, Trace, fill, mixed
from ..linear import LinearMap
from ..registry import Var, importer
from .add import read_sum
from .gather import inside
from .reshape import Held, Same

__all__ = ["AttentionWeights", "RepeatedHeads", "Rotation", "SplitHeads"]

Tensor = Any
OWN = "onnx_lrp"


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionWeights(Plain):
    """softmax(scale · q kᵀ + bias) of q (B, H, S, D) and k (B, H_kv, L, D): (B, H, S, L). A row without a key is zero.

    Operands: q, k, mask (bool: may be attended; float: added; integer: lengths or 0/1), lengths (B,), past (its axis 2 is the
    offset of a causal mask); second output: the scores at stage ``mode``.
    """

    slots: tuple[int | str | None, ...]
    scale: float | None = None
    causal: bool = False
    softcap: float = 0.0
    window: tuple[int, int] = (-1, -1)
    mode: int = 0
    filtered: float = -np.inf  # what a masked score is lowered by

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        q, k = xs[self.slots[0]].dims, xs[self.slots[1]].dims  # type: ignore[index]
        dims = None
        if q is not None and k is not None:
            unify(q[0], k[0])
            dims = (q[0], q[1], q[2], k[2])
        dtype = xs[0].dtype
        return [Var("", dtype, dims, interval=(0.0, 1.0)), Var("", dtype, dims)]

    def _operands(self, xs: Sequence[Any], p: Mapping[str, Any]) -> list[Any]:
        return [None if s is None else p[s] if isinstance(s, str) else xs[s] for s in self.slots]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        q, k, mask, lengths, past = self._operands(xs, p)
        k = repeat_heads(k, q)
        rows, columns = tf.shape(q)[2], tf.shape(k)[2]
        scale = 1 / tf.sqrt(tf.cast(tf.shape(q)[3], q.dtype)) if self.scale is None else tf.cast(self.scale, q.dtype)
        stages = [scale * tf.matmul(q, k, transpose_b=True)]
        z = stages[0]
        if self.softcap:
            z = self.softcap * tf.tanh(z / self.softcap)
        stages.append(z)
        z, allowed = self._masked(z, mask, columns)
        allowed &= self._near(rows, columns, lengths, past)
        if lengths is not None:
            allowed &= (tf.range(columns)[None, :] < tf.cast(lengths, tf.int32)[:, None])[:, None, None, :]
        low = tf.cast(self.filtered, z.dtype)
        z = tf.where(allowed, z, low if np.isinf(self.filtered) else z + low)
        stages.append(z)
        if np.isinf(self.filtered):  # a row of −∞ has no softmax
            best = tf.reduce_max(z, -1, keepdims=True)
            terms = tf.exp(z - tf.where(tf.math.is_inf(best), tf.zeros_like(best), best))
            weights = tf.math.divide_no_nan(terms, tf.reduce_sum(terms, -1, keepdims=True))
        else:
            weights = tf.nn.softmax(z)
        stages.append(weights)
        return Trace(xs, [weights, stages[self.mode]], p)

    def _masked(self, z: Tensor, mask: Tensor | None, columns: Tensor) -> tuple[Tensor, Tensor]:
        """The scores with a float mask added, and where a bool or integer mask allows them."""
        everywhere = tf.ones_like(z, tf.bool)
        if mask is None:
            return z, everywhere
        if mask.dtype.is_integer:
            if mask.shape.rank == 1:  # valid keys of each sample
                mask = tf.range(columns)[None, :] < tf.cast(mask, tf.int32)[:, None]
            if mask.shape.rank == 2:
                mask = mask[:, None, None, :]
            elif mask.shape.rank == 3:
                mask = mask[:, None]
            return z, everywhere & tf.cast(mask, tf.bool)
        missing = columns - tf.shape(mask)[-1]  # a mask shorter than the keys allows no more of them
        pads = [[0, 0]] * (mask.shape.rank - 1) + [[0, missing]]
        if mask.dtype == tf.bool:
            return z, everywhere & tf.pad(mask, pads)
        return z + tf.pad(mask, pads, constant_values=tf.cast(-np.inf, mask.dtype)), everywhere

    def _near(self, rows: Tensor, columns: Tensor, lengths: Tensor | None, past: Tensor | None) -> Tensor:
        """(B or 1, 1, S, L): where a causal mask and a window allow a key."""
        offset = tf.zeros([1], tf.int32)
        if past is not None:
            offset += tf.shape(past)[2]
        elif lengths is not None:
            offset = tf.cast(lengths, tf.int32) - rows
        at = (offset[:, None] + tf.range(rows)[None, :])[:, None, :, None]
        key = tf.range(columns)[None, None, None, :]
        near = tf.ones_like(at + key, tf.bool)
        left, right = self.window
        if self.causal:
            near &= key <= at
        if left >= 0:
            near &= key >= at - left
        return near & (key <= at + right) if right >= 0 else near


@importer("AttentionWeights", domain=OWN)
def attention_weights(
    Q: Any,
    K: Any,
    mask: Any = None,
    lengths: Any = None,
    past: Any = None,
    *,
    scale: float | None = None,
    is_causal: int = 0,
    softcap: float = 0.0,
    left: int = -1,
    right: int = -1,
    mode: int = 0,
    filtered: float = -np.inf,
    node: Any,
) -> Any:
    Q, K = (_computed(x, node, hint) for x, hint in ((Q, "queries"), (K, "keys")))
    given = [v for v in (Q, K, mask, lengths, past) if v is not None]
    used, parameters, inputs = mixed(*given)
    places = iter(used)
    slots = tuple(None if v is None else next(places) for v in (Q, K, mask, lengths, past))
    layer = AttentionWeights(
        parameters=parameters,
        slots=slots,
        scale=scale,
        causal=bool(is_causal),
        softcap=softcap,
        window=(left, right),
        mode=mode,
        filtered=filtered,
    )
    return layer, inputs


def repeat_heads(x: Tensor, like: Tensor) -> Tensor:
    """x (B, H_kv, …) with every head repeated to as many as ``like`` (B, H, …) has."""
    heads, want = x.shape[1], like.shape[1]
    if heads is not None and heads == want:
        return x
    return tf.repeat(x, tf.shape(like)[1] // tf.shape(x)[1], axis=1)


@dataclass(frozen=True, eq=False, kw_only=True)
class RepeatedHeads(Routing):
    """Grouped queries: every head of the first operand (B, H_kv, L, D) serves the same number of heads of the second (B, H, …)."""

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x, like = xs[0].dims, xs[1].dims
        dims = None if x is None or like is None else (x[0], like[1], *x[2:])
        return [Var("", xs[0].dtype, dims, interval=xs[0].interval)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [repeat_heads(*xs)], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        shape = tf.shape(trace.inputs[0])
        return [tf.reduce_sum(tf.reshape(rs[0], tf.concat([shape[:2], [-1], shape[2:]], 0)), 2), None]


def _computed(x: Any, node: Any, hint: str) -> Var:
    """A constant operand (learned queries, say) as a tensor like the others."""
    return x if isinstance(x, Var) else node.before(Held(parameters={"value": x}), (), hint)[0]


@importer("RepeatHeads", domain=OWN)
def repeat(x: Any, like: Any, *, node: Any) -> Any:
    if not isinstance(x, Var):
        raise node.refuse("the values are constant: relevance would have to pass the attention's weights, which are its gate")
    return RepeatedHeads(), (x, _computed(like, node, "queries"))


@dataclass(frozen=True, eq=False, kw_only=True)
class SplitHeads(Routing):
    """(B, S, H·D) → (B, H, S, D)."""

    heads: int

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        if x.dims is None:
            return [Var("", x.dtype, None, interval=x.interval)]
        width = x.dims[2].size
        dims = (x.dims[0], fresh(self.heads), x.dims[1], fresh(None if width is None else width // self.heads))
        return [Var("", x.dtype, dims, interval=x.interval)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        shape = tf.shape(x)
        parts = tf.reshape(x, tf.stack([shape[0], shape[1], self.heads, shape[2] // self.heads]))
        return Trace(xs, [tf.transpose(parts, [0, 2, 1, 3])], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [tf.reshape(tf.transpose(rs[0], [0, 2, 1, 3]), tf.shape(trace.inputs[0]))]


@importer("SplitHeads", domain=OWN)
def split_heads(x: Any, *, heads: int, node: Any) -> Any:
    """A tensor of rank 4 has its heads on axis 1 already."""
    if x.rank not in (3, 4):
        raise node.refuse(f"operands of rank {x.rank} are not read")
    return (Same() if x.rank == 4 else SplitHeads(heads=heads)), (x,)


@importer("PackedBias", domain=OWN)
def packed_bias(x: Any, bias: Any, *, part: int, node: Any) -> Any:
    """x plus its part (0: q, 1: k, 2: v) of a bias of q, k and v one after the other."""
    if isinstance(bias, Var):
        raise node.refuse("the bias must be constant")
    x = _computed(x, node, "operand")
    size = x.dims[-1].size if x.rank == 3 else None
    if size is None:
        if len(bias) % 3:
            raise node.refuse("the widths of q, k and v are unknown")
        size = len(bias) // 3
    first = (0, size, len(bias) - size)[part]
    return read_sum([x, bias[first : first + size]], [1.0, 1.0])


@dataclass(frozen=True, eq=False, kw_only=True)
class Rotation(Affine):
    """Pairs of features turned by an angle a position: slots x, cos, sin, maybe positions; x (B, H, S, D) or (B, S, H·D)."""

    slots: tuple[int | str, ...]
    heads: int
    width: int
    interleaved: bool

    @property
    def title(self) -> str:
        return "RotaryEmbedding"

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", xs[0].dtype, xs[0].dims)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, cos, sin, *positions = fill(self.slots, xs, p)
        if positions:
            cos, sin = tf.gather(cos, positions[0]), tf.gather(sin, positions[0])
        angles = {"cos": cos[:, :, None, :], "sin": sin[:, :, None, :]}  # (B, S, 1, width / 2)
        return Trace(xs, [self._turn(x, angles["cos"], angles["sin"], angles["sin"])], p, angles)

    def within(self, trace: Trace) -> Tensor | None:
        _, cos, _, *positions = fill(self.slots, trace.inputs, trace.parameters)
        return inside(positions[0], tf.shape(cos)[0]) if positions else None

    def linear(self, trace: Trace) -> LinearMap:
        cos, sin = trace.saved["cos"], trace.saved["sin"]
        return self._map(cos, sin, sin, tf.ones([], cos.dtype), len(trace.inputs))

    def _map(self, cos: Tensor, up: Tensor, down: Tensor, rest: Tensor, count: int) -> LinearMap:
        # real = cos·x₁ − up·x₂, imaginary = down·x₁ + cos·x₂
        return LinearMap(
            call=lambda xs: self._turn(xs[0], cos, up, down, rest),
            pull=lambda s: [self._turn(s, cos, -down, -up, rest), *[None] * (count - 1)],
            mapped=lambda f: self._map(f(cos), -f(-up), f(down), f(rest), count),
        )

    def _turn(self, x: Tensor, cos: Tensor, up: Tensor, down: Tensor, rest: Tensor | None = None) -> Tensor:
        shape = tf.shape(x)
        flat = x.shape.rank == 3
        y = tf.reshape(x, tf.stack([shape[0], shape[1], self.heads, -1])) if flat else tf.transpose(x, [0, 2, 1, 3])
        width = self.width or tf.shape(y)[-1]
        turned, kept = y[..., :width], y[..., width:]
        half = width // 2
        if self.interleaved:
            first, second = turned[..., 0::2], turned[..., 1::2]
        else:
            first, second = turned[..., :half], turned[..., half:]
        real, imaginary = cos * first - up * second, down * first + cos * second
        if self.interleaved:
            turned = tf.reshape(tf.stack([real, imaginary], -1), tf.shape(turned))
        else:
            turned = tf.concat([real, imaginary], -1)
        y = tf.concat([turned, kept if rest is None else rest * kept], -1)
        return tf.reshape(y, shape) if flat else tf.transpose(y, [0, 2, 1, 3])


@importer("RotaryEmbedding", since=23)
def rotary(
    X: Any,
    cos_cache: Any,
    sin_cache: Any,
    position_ids: Any = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    node: Any,
) -> Any:
    if not isinstance(X, Var) or any(isinstance(v, Var) and v.live for v in (cos_cache, sin_cache)):
        raise node.refuse("the angles depend on an attribution point")
    slots, parameters, inputs = mixed(X, cos_cache, sin_cache, position_ids)
    layer = Rotation(parameters=parameters, slots=slots, heads=num_heads, width=rotary_embedding_dim, interleaved=bool(interleaved))
    return layer, inputs
