"""Resized images and series, and blocks of pixels that become channels."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["resizes"]

KINDS = ("nearest", "linear", "cubic", "DepthToSpace", "SpaceToDepth")
COORDINATES = ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners", "tf_crop_and_resize")
ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


@st.composite
def resizes(draw: Any, *, kind: str | None = None) -> Case:
    """One Resize, Upsample (before opset 10), DepthToSpace or SpaceToDepth before a mean. ``kind``: one of ``KINDS`` or any.

    Shrinks to the nearest entries of an image that keeps its size.
    """
    kind = kind or draw(st.sampled_from(KINDS))
    b = Builder(draw(generators()), draw(opsets(least=11 if kind == "cubic" else 7)))
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    sizes = [draw(st.integers(1, 5)) for _ in range(2)]
    block = draw(st.integers(1, 2))
    if kind == "DepthToSpace":
        channels *= block * block
    elif kind == "SpaceToDepth":
        sizes = [n * block for n in sizes]
    named = [f"s{i}" if draw(st.booleans()) else n for i, n in enumerate(sizes)]
    x = b.input("x", b.numbers(batch, channels, *sizes), ["batch", channels, *named])
    if draw(st.booleans()):
        x = b.op("Tanh", x)
    if kind in ("nearest", "linear", "cubic"):
        y = _resized(draw, b, x, kind, batch, channels, sizes)
    else:
        mode = {"mode": draw(st.sampled_from(["DCR", "CRD"]))} if kind == "DepthToSpace" and b.opset >= 11 else {}
        y = b.op(kind, x, blocksize=block, **mode)
        channels = channels // block**2 if kind == "DepthToSpace" else channels * block**2
    if draw(st.booleans()):
        y = b.op("Relu", y)
    return b.case(b.gemm(b.over("ReduceMean", y, 2, 3, keepdims=0), channels, draw(st.integers(1, 3))))


def _resized(draw: Any, b: Builder, x: str, mode: str, batch: int, channels: int, sizes: list[int]) -> str:
    scales = [1.0, 1.0, *(draw(st.sampled_from([1.0, 2.0, 3.0, 1.5])) for _ in sizes)]
    factors = np.asarray(scales, np.float32)
    if b.opset < 9:
        return b.op("Upsample", x, mode=mode, scales=scales)
    if b.opset < 10:
        return b.op("Upsample", x, b.const(factors), mode=mode)
    coordinates = draw(st.sampled_from(COORDINATES))
    settings: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates}
    smooth = mode != "nearest" and b.opset >= 18 and coordinates != "tf_crop_and_resize"
    if mode == "nearest":
        settings["nearest_mode"] = draw(st.sampled_from(ROUNDINGS))
    elif smooth and draw(st.booleans()):
        settings["antialias"] = 1
    if mode == "cubic":
        settings["cubic_coeff_a"] = draw(st.sampled_from([-0.75, -0.5]))
        settings["exclude_outside"] = int(draw(st.booleans()))
    none = "" if b.opset >= 13 else b.const(np.zeros(0, np.float32))
    axes = b.opset >= 18 and draw(st.booleans())
    roi = none
    if coordinates == "tf_crop_and_resize":  # quarters, so that no rounding decides what lies outside
        low, high = ([draw(st.integers(a, b)) / 4 for _ in sizes] for a, b in ((-1, 2), (2, 5)))
        roi = b.const([*low, *high] if axes else [0, 0, *low, 1, 1, *high], np.float32)
        settings["extrapolation_value"] = draw(st.sampled_from([0.0, 0.7]))
    if axes:
        settings["axes"] = [2, 3]
    if draw(st.booleans()):
        shrunk = [draw(st.sampled_from([f, f, 0.5, 0.3])) if n > 3 else f for f, n in zip(scales[2:], sizes, strict=True)]
        factors = np.asarray(shrunk if axes else [1, 1, *shrunk], np.float32)
        return b.op("Resize", x, roi, b.const(factors), **settings)
    want = [draw(st.integers(1, 5)) for _ in sizes]
    if axes:
        if draw(st.booleans()):
            settings["keep_aspect_ratio_policy"] = "stretch"
        return b.op("Resize", x, roi, none, b.ints(*want), **settings)
    # as exporters write it: the batch and the channels of x itself
    kept = b.slice(b.op("Shape", x), [0], [2], [0])
    return b.op("Resize", x, roi, none, b.op("Concat", kept, b.ints(*want), axis=0), **settings)
