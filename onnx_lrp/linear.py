"""LinearMap: all that a rule ever sees of an affine layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["LinearMap"]

Tensor = Any


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A linear map of one or more inputs, by its action (never by its matrix).

    Attributes:
        call: inputs → output.
        pull: cotangent of the output → cotangents of the inputs (the transpose; None: not a signal).
        mapped: the same map with a function applied to its weights and factors, as rules need (w+, |w|, 1).
    """

    call: Callable[[Sequence[Tensor]], Tensor]
    pull: Callable[[Tensor], Sequence[Tensor | None]]
    mapped: Callable[[Callable[[Tensor], Tensor]], LinearMap]
