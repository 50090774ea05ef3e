"""GRU models: the whole operator of the standard, with distinct random gates."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .build import Case
from .recurrent import recurrent

__all__ = ["grus"]


@st.composite
def grus(
    draw: Any,
    *,
    lengths: bool | None = None,
    fixed: bool = True,
    direction: str | None = None,
    layout: int = 0,
    plain: bool = False,
) -> Case:
    """One GRU and a dense head that reads any of Y, Y_h. Shrinks to one step, one unit, forward, nothing optional.

    Args:
        lengths: with sequence_lens (graph input ``lens``), without, or either (None).
        fixed: constant initial states may be written for one batch size; else they are expanded to any.
        direction: "forward", "reverse", "bidirectional", or any (None).
        layout: 0, or 1 (which onnxruntime refuses).
        plain: no activations, clip or linear_before_reset but the default.
    """
    return recurrent(draw, "GRU", lengths=lengths, fixed=fixed, direction=direction, layout=layout, plain=plain)
