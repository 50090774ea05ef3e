"""Convolutions and transposed ones in one to three dimensions, in every spelling of their windows."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["convolutions"]


@st.composite
def convolutions(draw: Any, *, transpose: bool | None = None, axes: int | None = None) -> Case:
    """One Conv or ConvTranspose between a dense layer and a mean.

    ``transpose``: which of the two, either if None; ``axes``: how many spatial axes, one to three if None. Shrinks to a Conv
    with a window of one entry.
    """
    b = Builder(draw(generators()), draw(opsets()))
    back = draw(st.booleans()) if transpose is None else transpose
    rank = draw(st.integers(1, 3)) if axes is None else axes
    groups = draw(st.integers(1, 3))
    channels, filters = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel, strides, dilations = ([draw(st.integers(1, n)) for _ in range(rank)] for n in (3, 3, 2))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [draw(st.integers(n, n + 2)) for n in spans]
    batch = draw(st.integers(1, 3))
    sizes_named = [f"s{i}" if draw(st.booleans()) and not back else n for i, n in enumerate(sizes)]
    x = b.input("x", b.numbers(batch, channels, *sizes), ["batch", channels, *sizes_named])
    if draw(st.booleans()):
        x = b.op("Tanh", x)
    settings: dict[str, Any] = {"group": groups, "strides": strides, "dilations": dilations, "kernel_shape": kernel}
    padding = draw(st.sampled_from(["none", "pads", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if padding == "pads":
        settings["pads"] = [draw(st.integers(0, n - 1)) for n in spans * 2]
    elif padding != "none":
        settings["auto_pad"] = padding
        if padding.startswith("SAME") and not back:  # onnxruntime refuses the two together
            settings["dilations"] = [1] * rank
    if back and padding in ("none", "pads"):
        settings["output_padding"] = [draw(st.integers(0, s - 1)) for s in strides]
        pads = settings.get("pads", [0] * 2 * rank)
        outs = [
            s * (n - 1) + e + k - pads[i] - pads[rank + i]
            for i, (s, n, e, k) in enumerate(zip(strides, sizes, settings["output_padding"], spans, strict=True))
        ]
        if min(outs) < 1:
            settings.pop("pads", None)
    for name, default in (("strides", [1] * rank), ("dilations", [1] * rank), ("group", 1), ("kernel_shape", kernel)):
        if settings[name] == default and draw(st.booleans()):
            del settings[name]
    shape = [channels, filters // groups, *kernel] if back else [filters, channels // groups, *kernel]
    inputs = [x, b.weight(*shape)]
    if draw(st.booleans()):
        inputs.append(b.weight(filters))
    y = b.op("ConvTranspose" if back else "Conv", *inputs, **settings)
    if draw(st.booleans()):
        y = b.op("Relu", y)
    y = b.over("ReduceMean", y, *range(2, rank + 2), keepdims=0)
    return b.case(b.gemm(y, filters, draw(st.integers(1, 3))))
