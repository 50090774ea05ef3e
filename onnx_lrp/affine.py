"""Neighbouring linear layers are one affine block with one stabilizer, so that spelling does not matter.

Inside a block the cotangent s = R / (z + ε·sign z) of its root travels; relevance travels outside. Which tensor is a root
follows from its readers alone, and is decided here once for the whole graph.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from .layer import Affine, Routing
from .registry import Var

if TYPE_CHECKING:
    from .plan import Step

__all__ = ["Role", "roles"]


class Role(enum.Enum):
    """How relevance leaves a tensor on the path towards what it was computed from."""

    END = "end"  # an attribution point
    ROUTE = "route"  # relevance and s follow the index map
    ROOT = "root"  # a block with a sum: R becomes s here
    PASS = "pass"  # a block without a sum: relevance passes unchanged
    INLINE = "inline"  # inside a block: only s arrives
    LAYER = "layer"  # anything else: the layer's own relevance


def roles(
    steps: Sequence[Step], vars: Mapping[str, Var], path: Iterable[str], points: Iterable[str], explained: str
) -> dict[str, Role]:
    """The role of every tensor on the relevance path."""
    on_path, ends = set(path), set(points)
    taken: set[str] = {explained}  # read as something else than an affine term
    for step in reversed(steps):
        outputs = [o for o in step.outputs if o in on_path]
        if not outputs:
            continue
        inputs = [vars[n] for n in step.inputs]
        signals = [i for i in step.layer.signals(inputs) if step.inputs[i] in on_path]
        if isinstance(step.layer, Routing):
            if any(o in taken for o in outputs):
                taken |= {step.inputs[i] for i in signals}
        elif isinstance(step.layer, Affine):
            taken |= {step.inputs[i] for i in signals if i in step.layer.operands}
        else:
            taken |= {step.inputs[i] for i in signals}
    found: dict[str, Role] = {name: Role.END for name in ends if name in on_path}
    summed: dict[str, bool] = {}  # whether the tree below a tensor, down to its leaves, holds a sum

    def below(name: str) -> bool:
        return found.get(name) in (Role.INLINE, Role.ROUTE) and summed.get(name, False)

    for step in steps:
        for name in step.outputs:
            if name not in on_path or name in ends:
                continue
            inputs = [vars[n] for n in step.inputs]
            sources = [step.inputs[i] for i in step.layer.signals(inputs) if step.inputs[i] in on_path]
            if isinstance(step.layer, Routing):
                found[name] = Role.ROUTE
                summed[name] = any(below(n) for n in sources)
            elif isinstance(step.layer, Affine):
                summed[name] = step.layer.sums(inputs) or any(below(n) for n in sources)
                if name not in taken:
                    found[name] = Role.INLINE
                else:
                    found[name] = Role.ROOT if summed[name] else Role.PASS
            else:
                found[name] = Role.LAYER
    return found
