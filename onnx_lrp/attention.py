"""Fused attention in terms of layers: heads split, weights computed (the gate), a MatMul with the values, heads joined.

ai.onnx's Attention as exporters write it, and onnxruntime's MultiHeadAttention and Attention as its optimizer does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import Node
from .rewrite import Rewriting, rewriter

__all__: list[str] = []

OWN = "onnx_lrp"
SWAPPED = [0, 2, 1, 3]


def _apply(graph: Rewriting, nodes: list[Node], op: str, *inputs: str, **settings: Any) -> str:
    nodes.append(graph.make(op, *inputs, **settings))
    return nodes[-1].outputs[0]


def _attend(
    graph: Rewriting, nodes: list[Node], q: str, k: str, v: str, *more: str, to: str, scores: str = "", **settings: Any
) -> None:
    """softmax(q kᵀ) v of q (B, H, S, D), k and v (B, H_kv, L, D); ``more``: mask, lengths, past."""
    outputs = (graph.fresh("weights"), scores) if scores else graph.fresh("weights")
    weights = _apply(graph, nodes, "AttentionWeights", q, k, *more, to=outputs, domain=OWN, **settings)
    values = _apply(graph, nodes, "RepeatHeads", v, q, domain=OWN)
    _apply(graph, nodes, "MatMul", weights, values, to=to)


def _split(graph: Rewriting, nodes: list[Node], x: str, heads: int) -> str:
    """(B, S, H·D) → (B, H, S, D)."""
    value = graph.value(x)
    if value is None:
        return _apply(graph, nodes, "SplitHeads", x, domain=OWN, heads=heads)
    if value.ndim == 4:
        return x
    return graph.constant(value.reshape(*value.shape[:2], heads, -1).transpose(SWAPPED))


def _join(graph: Rewriting, nodes: list[Node], y: str, to: str) -> None:
    """(B, H, S, D) → (B, S, H·D)."""
    rows = _apply(graph, nodes, "Transpose", y, perm=SWAPPED)
    _apply(graph, nodes, "Reshape", rows, graph.constant([0, 0, -1], np.int64), to=to)


@rewriter("Attention", domain="")
def attention(node: Node, graph: Rewriting) -> list[Node]:
    """ai.onnx, opset 23 on: with the attributes of head counts the operands are (B, S, H·D), else (B, H, S, D)."""
    own = dict(node.attributes)
    own.pop("softmax_precision", None)  # the engine has one
    heads, kv_heads = own.pop("q_num_heads", 0), own.pop("kv_num_heads", 0)
    settings: dict[str, Any] = {k: own.pop(k) for k in ("scale", "softcap", "is_causal") if k in own}
    for name, short in (("left_window_size", "left"), ("right_window_size", "right"), ("qk_matmul_output_mode", "mode")):
        if name in own:
            settings[short] = own.pop(name)
    if own:
        raise graph.refuse(f"attribute {sorted(own)[0]!r} is not read")
    nodes: list[Node] = []
    q, k, v, mask, past_key, past_value, lengths = (graph.input(i) for i in range(7))
    if heads:
        q = _split(graph, nodes, q, heads)
        k, v = (_split(graph, nodes, x, kv_heads or heads) for x in (k, v))
    if past_key:
        k = _apply(graph, nodes, "Concat", past_key, k, axis=2, to=graph.output(1))
        v = _apply(graph, nodes, "Concat", past_value, v, axis=2, to=graph.output(2))
    else:
        for index, x in ((1, k), (2, v)):
            if graph.output(index):
                _apply(graph, nodes, "Identity", x, to=graph.output(index))
    y = graph.fresh("heads") if heads else graph.output(0)
    _attend(graph, nodes, q, k, v, mask, lengths, past_key, to=y, scores=graph.output(3), **settings)
    if heads:
        _join(graph, nodes, y, graph.output(0))
    return nodes


@rewriter("MultiHeadAttention")
def multi_head_attention(node: Node, graph: Rewriting) -> list[Node]:
    """com.microsoft: query (B, S, H·D); key and value (B, L, H·D), or (B, H, L, D) where they come from elsewhere."""
    own = dict(node.attributes)
    heads = own.pop("num_heads")
    settings: dict[str, Any] = {"filtered": float(own.pop("mask_filter_value", -10000.0))}
    if own.get("scale"):
        settings["scale"] = own["scale"]
    settings["is_causal"] = own.pop("unidirectional", 0)
    own.pop("scale", None)
    if own:
        raise graph.refuse(f"attribute {sorted(own)[0]!r} is not read")
    query, key, value, bias, padding, added, past_key, past_value = (graph.input(i) for i in range(8))
    if not (key and value):
        raise graph.refuse("packed queries, keys and values are not read")
    if any(graph.input(i) for i in (8, 9)) or graph.output(3):
        raise graph.refuse("a shared buffer of past keys is not read")
    if padding and (added or settings["is_causal"]):
        raise graph.refuse("a padding mask together with another mask is not read")
    if settings["is_causal"]:
        settings["filtered"] = -np.inf
    nodes: list[Node] = []
    operands = []
    for part, x in enumerate((query, key, value)):
        if bias:
            x = _apply(graph, nodes, "PackedBias", x, bias, domain=OWN, part=part)
        operands.append(_split(graph, nodes, x, heads))
    q, k, v = operands
    if past_key:
        k = _apply(graph, nodes, "Concat", past_key, k, axis=2, to=graph.output(1))
        v = _apply(graph, nodes, "Concat", past_value, v, axis=2, to=graph.output(2))
    else:
        for index, x in ((1, k), (2, v)):
            if graph.output(index):
                _apply(graph, nodes, "Identity", x, to=graph.output(index))
    y = graph.fresh("heads")
    _attend(graph, nodes, q, k, v, padding or added, "", past_key, to=y, **settings)
    _join(graph, nodes, y, graph.output(0))
    return nodes


@rewriter("Attention")
def packed_attention(node: Node, graph: Rewriting) -> list[Node]:
    """com.microsoft: q, k and v are one product of the input with constant weights (I, 2·H·D + H·D_v)."""
    own = dict(node.attributes)
    heads = own.pop("num_heads")
    settings: dict[str, Any] = {"filtered": float(own.pop("mask_filter_value", -10000.0))}
    causal = own.pop("unidirectional", 0)
    if own.get("scale"):
        settings["scale"] = own["scale"]
    own.pop("scale", None)
    sizes = own.pop("qkv_hidden_sizes", None)
    for name in [n for n in own if n in ("do_rotary", "past_present_share_buffer", "rotary_embedding_dim") and not own[n]]:
        own.pop(name)
    if own:
        raise graph.refuse(f"attribute {sorted(own)[0]!r} is not read")
    x, weights, bias, mask, past, added = (graph.input(i) for i in range(6))
    w, b = graph.value(weights), graph.value(bias)
    if w is None or (bias and b is None):
        raise graph.refuse("weights and bias must be constant")
    if past or graph.output(1) or graph.input(6):
        raise graph.refuse("past keys are not read")
    if sum(map(bool, (mask, added, causal))) > 1:
        raise graph.refuse("two masks at once are not read")
    if causal:
        settings |= {"is_causal": 1, "filtered": -np.inf}
    ends = np.cumsum(sizes)[:-1] if sizes is not None else 3
    nodes: list[Node] = []
    operands = []
    parts = np.split(w, ends, axis=1)
    offsets = np.split(b, ends) if b is not None else [None] * 3
    for own_weights, own_bias in zip(parts, offsets, strict=True):
        y = _apply(graph, nodes, "MatMul", x, graph.constant(own_weights))
        if own_bias is not None:
            y = _apply(graph, nodes, "Add", y, graph.constant(own_bias))
        operands.append(_split(graph, nodes, y, heads))
    y = graph.fresh("heads")
    _attend(graph, nodes, *operands, mask or added, to=y, **settings)
    _join(graph, nodes, y, graph.output(0))
    return nodes
