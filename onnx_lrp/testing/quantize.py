"""Quantized models, on a grid: inputs, weights and scales are such that rounding has nothing to do, and saturation often has.

So onnxruntime's forward pass, which rounds, equals the dequantized network's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["quantizations"]

KINDS = ("pair", "axes", "integer", "dynamic", "fused dynamic", "to float", "embedding", "blocks", "16 bits")
MICROSOFT = {"domain": "com.microsoft"}
X, W = 1 / 16, 1 / 8  # scales of inputs and weights


class Grid(Builder):
    """Numbers on the grid, and the constants of quantized tensors."""

    def grid(self, *shape: int, reach: int = 4) -> np.ndarray:
        return self.rng.integers(-reach, reach + 1, shape)

    def points(self, batch: int, width: int) -> str:
        """A graph input (batch, width) of multiples of X, some beyond what 8 bits hold."""
        return self.input("x", (self.grid(batch, width, reach=160) * X).astype(np.float32), ["batch", width])

    def extremes(self, batch: int, width: int) -> str:
        """A graph input (batch, width) that a dynamic quantization finds on the grid: its range is 255 steps."""
        steps = self.grid(batch, width, reach=30)
        steps[0, 0], steps[-1, -1] = -128, 127
        return self.input("x", (steps * X).astype(np.float32), ["batch", width])

    def scaled(self, scale: Any, zero: Any, dtype: Any) -> tuple[str, str]:
        """Scale and zero point as constants."""
        return self.const(scale, np.float32), self.const(zero, dtype)

    def weights(self, *shape: int, zero: int = 0) -> str:
        return self.const(self.grid(*shape) + zero, np.int8)


@st.composite
def quantizations(draw: Any, *, kind: str | None = None) -> Case:
    """A dense layer between quantized tensors. ``kind``: one of ``KINDS`` or any (None). Shrinks to a pair."""
    kind = kind or draw(st.sampled_from(KINDS))
    b = Grid(draw(generators()), draw(opsets(least=13)))
    batch, width, out = (draw(st.integers(1, 3)) for _ in range(3))
    if kind in ("dynamic", "fused dynamic"):
        return _dynamic(draw, b, batch, width + 1, out, fused=kind != "dynamic")
    if kind == "embedding":
        ids = b.input("tokens", b.rng.integers(0, 5, (batch, 2)), ["batch", "time"])
        rows = b.op("Gather", b.weights(5, width), ids)
        table = b.op("DequantizeLinear", rows, *b.scaled(W, 2, np.int8))
        return b.case(b.gemm(b.over("ReduceMean", table, 1, keepdims=0), width, out))
    if kind == "blocks":
        return _blocks(draw, b, batch, out)
    if kind == "16 bits":  # with float weights: onnxruntime has 8-bit ones meet activations that it rounds to 8 bits, too
        b.opset = max(b.opset, 21)
        around = b.scaled(X, -9, np.int16)
        q = b.op("QuantizeLinear", b.points(batch, width), *around)
        return b.case(b.gemm(b.op("DequantizeLinear", q, *around), width, out))
    dtype, zero = draw(st.sampled_from([(np.uint8, 120), (np.int8, 3), (np.int8, 0)]))
    x = b.points(batch, width)
    q = b.op("QuantizeLinear", x, *b.scaled(X, zero, dtype))
    if kind in ("integer", "to float"):
        w, w_zero = b.weights(width, out, zero=2), b.const(2, np.int8)
        if kind == "integer":
            z = b.op("MatMulInteger", q, w, b.const(zero, dtype), w_zero)
            z = b.op("Mul", b.op("Cast", z, to=1), b.const(np.float32(X * W)))
            z = b.op("Add", z, b.weight(out))
        else:
            rest = (b.const(X, np.float32), b.const(W, np.float32), b.const(zero, dtype), w_zero, b.weight(out))
            z = b.op("MatMulIntegerToFloat", q, w, *rest, **MICROSOFT)
        return b.case(b.gemm(b.op("Tanh", z), out, draw(st.integers(1, 3))))
    x = b.op("DequantizeLinear", q, *b.scaled(X, zero, dtype))
    scales = np.full(out, W) / 2.0 ** b.rng.integers(0, 3, out) if kind == "axes" else W
    w = b.op("DequantizeLinear", b.weights(width, out), *b.scaled(scales, np.zeros_like(scales), np.int8), axis=1)
    z = b.op("MatMul", x, w)
    if draw(st.booleans()):
        z = b.op(
            "Add", z, b.op("DequantizeLinear", b.const(b.grid(out, reach=9), np.int32), b.const(X * scales, np.float32), axis=0)
        )
    after = b.scaled(X * scales, np.full_like(scales, zero), dtype)
    q = b.op("QuantizeLinear", z, *after, axis=1)
    if kind == "pair":
        for move in draw(st.lists(st.sampled_from(["Transpose", "Reshape", "Concat"]), max_size=2)):
            if move == "Transpose":
                q = b.op("Transpose", b.op("Transpose", q, perm=[1, 0]), perm=[1, 0])
            elif move == "Reshape":
                q = b.op("Reshape", b.over("Unsqueeze", q, 1), b.ints(-1, out))
            else:
                q, out = b.op("Concat", q, q, axis=1), 2 * out
    z = b.op("DequantizeLinear", q, *after, axis=1)
    if draw(st.booleans()):
        z = b.gemm(b.op("Relu", z), out, draw(st.integers(1, 3)))
    return b.case(z)


def _dynamic(draw: Any, b: Grid, batch: int, width: int, out: int, *, fused: bool) -> Case:
    x = b.extremes(batch, width)
    w, zero = b.weights(width, out, zero=1), b.const(1, np.int8)
    if fused:
        z = b.op("DynamicQuantizeMatMul", x, w, b.const(W, np.float32), zero, b.weight(out), **MICROSOFT)
    else:
        q, scale, offset = b.ops("DynamicQuantizeLinear", x, outputs=3)
        product = b.op("Cast", b.op("MatMulInteger", q, w, offset, zero), to=1)
        z = b.op("Add", b.op("Mul", product, b.op("Mul", scale, b.const(W, np.float32))), b.weight(out))
    return b.case(b.gemm(b.op("Relu", z), out, draw(st.integers(1, 3))))


def _blocks(draw: Any, b: Grid, batch: int, out: int) -> Case:
    width, size, bits = draw(st.sampled_from([16, 20, 32])), 16, draw(st.sampled_from([4, 8]))
    count = -(-width // size)
    packed = b.const(b.rng.integers(0, 256, (out, count, size * bits // 8)), np.uint8)
    inputs = [packed, b.const(np.abs(b.numbers(out * count)) + 0.1)]
    if draw(st.booleans()):
        inputs.append(b.const(b.rng.integers(0, 256, out * (-(-count * bits // 8))), np.uint8))
    z = b.op("MatMulNBits", b.rows(batch, width), *inputs, K=width, N=out, bits=bits, block_size=size, **MICROSOFT)
    return b.case(b.gemm(b.op("Tanh", z), out, draw(st.integers(1, 3))))
