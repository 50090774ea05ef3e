"""Attention as one node of the standard or of onnxruntime, and written out."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import helper

from .build import Builder, Case, generators

__all__ = ["attention_spellings", "attentions"]

MICROSOFT = "com.microsoft"
KINDS = ("standard", "heads", "grouped", "masked", "causal", "past", "rotary", "multi-head", "packed")


def _finish(b: Builder, y: str, width: int, out: int) -> Case:
    model, feeds = b.case(b.op("MatMul", b.over("ReduceMean", y, 1, keepdims=0), b.weight(width, out)))
    model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return model, feeds


def _split(b: Builder, x: str, heads: int, width: int) -> str:
    """(B, S, H·D) → (B, H, S, D)."""
    return b.op("Transpose", b.op("Reshape", x, b.ints(0, 0, heads, width)), perm=[0, 2, 1, 3])


@st.composite
def attentions(draw: Any, *, kind: str | None = None) -> Case:
    """One fused attention over a series, pooled. ``kind``: one of ``KINDS`` or any (None). Shrinks to ai.onnx's Attention."""
    kind = kind or draw(st.sampled_from(KINDS))
    b = Builder(draw(generators()), 23)
    batch, time, width, heads, size = (draw(st.integers(1, n)) for n in (2, 3, 3, 2, 2))
    size = 2 * size if kind == "rotary" else size
    kv_heads = 1 if kind == "grouped" else heads
    x = b.series(time, batch, width)
    q = b.op("MatMul", x, b.weight(width, heads * size))
    k, v = (b.op("MatMul", x, b.weight(width, kv_heads * size)) for _ in range(2))
    v = b.op("Add", v, b.weight(kv_heads * size)) if draw(st.booleans()) else b.op("Tanh", v)
    settings = {"q_num_heads": heads, "kv_num_heads": kv_heads}
    if kind == "multi-head":
        bias = b.weight(3 * heads * size) if draw(st.booleans()) else ""
        y = b.op("MultiHeadAttention", q, k, v, *([bias] if bias else []), domain=MICROSOFT, num_heads=heads)
    elif kind == "packed":
        lengths = b.rng.integers(1, time + 1, batch).astype(np.int32)
        mask = b.input("lens", lengths, ["batch"]) if draw(st.booleans()) else ""
        operands = [x, b.weight(width, 3 * heads * size), b.weight(3 * heads * size), mask]
        y = b.op("Attention", *operands, domain=MICROSOFT, num_heads=heads)
    elif kind in ("heads", "past"):
        q, k, v = (_split(b, t, heads, size) for t in (q, k, v))
        more = []
        if kind == "past":
            more = ["", *(b.input(n, b.numbers(batch, heads, 2, size), ["batch", heads, 2, size]) for n in ("pk", "pv"))]
        y = b.ops("Attention", q, k, v, *more, outputs=3 if more else 1, scale=0.7)[0]
        y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.ints(0, 0, heads * size))
    elif kind == "masked":
        allowed = np.tril(np.ones((time, time), bool))
        mask = b.const(allowed) if draw(st.booleans()) else b.const(np.where(allowed, 0, -3).astype(np.float32))
        y = b.op("Attention", q, k, v, mask, softcap=draw(st.sampled_from([0.0, 2.0])), **settings)
    elif kind == "rotary":
        angles = np.arange(time)[:, None] * np.linspace(0.3, 1, size // 2)
        places = b.const(np.tile(np.arange(time), (1, 1)))
        caches = [b.const(f(angles), np.float32) for f in (np.cos, np.sin)]
        places = b.op("Expand", places, b.op("Concat", b.op("Shape", x, start=0, end=1), b.ints(1), axis=0))
        turned = [b.op("RotaryEmbedding", t, *caches, places, num_heads=heads) for t in (q, k, v)]
        y = b.op("Attention", *turned, **settings)
    else:
        y = b.op("Attention", q, k, v, is_causal=int(kind == "causal"), **settings)
    return _finish(b, y, heads * size, draw(st.integers(1, 3)))


@st.composite
def attention_spellings(draw: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    """One attention as Attention, MultiHeadAttention, com.microsoft's Attention, and written out: (models, inputs)."""
    rng = draw(generators())
    batch, time, width, heads, size = (draw(st.integers(1, n)) for n in (2, 3, 3, 2, 2))
    array = rng.normal(0, 1, (batch, time, width)).astype(np.float32)
    w = rng.normal(0, 1, (width, 3 * heads * size)).astype(np.float32)
    c = rng.normal(0, 1, 3 * heads * size).astype(np.float32)
    last = rng.normal(0, 1, (heads * size, 2)).astype(np.float32)
    models = []
    for kind in ("written out", "standard", "heads", "multi-head", "bias inside", "packed"):
        b = Builder(rng, 23)
        x = b.input("x", array, ["batch", time, width])
        parts = []
        for weights, bias in zip(np.split(w, 3, 1), np.split(c, 3), strict=True):
            y = b.op("MatMul", x, b.const(weights))
            parts.append(y if kind == "bias inside" else b.op("Add", y, b.const(bias)))
        if kind == "standard":
            y = b.op("Attention", *parts, q_num_heads=heads, kv_num_heads=heads)
        elif kind == "multi-head":
            y = b.op("MultiHeadAttention", *parts, domain=MICROSOFT, num_heads=heads)
        elif kind == "bias inside":
            y = b.op("MultiHeadAttention", *parts, b.const(c), domain=MICROSOFT, num_heads=heads)
        elif kind == "packed":
            b.nodes.clear()
            y = b.op("Attention", x, b.const(w), b.const(c), domain=MICROSOFT, num_heads=heads)
        else:
            q, k, v = (_split(b, t, heads, size) for t in parts)
            if kind == "heads":
                y = b.op("Attention", q, k, v)
            else:
                scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2]))
                gate = b.op("Softmax", b.op("Div", scores, b.const(np.float32(size**0.5))), axis=-1)
                y = b.op("MatMul", gate, v)
            y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.ints(0, 0, heads * size))
        pooled = b.op("ReduceMean", y, b.ints(1), keepdims=0)
        model, _ = b.case(b.op("MatMul", pooled, b.const(last)))
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        models.append(model)
    return models, {"x": array}
