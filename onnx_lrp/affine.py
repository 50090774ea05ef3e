"""Neighbouring linear layers are one affine block with one stabilizer, so that spelling does not matter.

Inside a block the cotangent s = R / (z + ε·sign z) of its root travels; relevance travels outside. Which tensor is a root
follows from its readers alone, and is decided here once for the whole graph.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .layer import Affine, Routing
from .registry import Var

if TYPE_CHECKING:
    from .plan import Step

__all__ = ["Role", "mixed_by_gates", "roles"]

Mixture = tuple[tuple[str, str], ...]
GATED: Mixture = ()


class Role(enum.Enum):
    """How relevance leaves a tensor on the path towards what it was computed from."""

    END = "end"  # an attribution point
    ROUTE = "route"  # relevance and s follow the index map
    ROOT = "root"  # a block with a sum: R becomes s here
    SELECT = "select"  # m·a + (1 − m)·b with a mask m: relevance goes to the side selected
    PASS = "pass"  # a block without a sum: relevance passes unchanged
    INLINE = "inline"  # inside a block: only s arrives
    LAYER = "layer"  # anything else: the layer's own relevance


def roles(
    steps: Sequence[Step], vars: Mapping[str, Var], path: Iterable[str], points: Iterable[str], explained: str
) -> dict[str, Role]:
    """The role of every tensor on the relevance path."""
    on_path, ends = set(path), set(points)
    mixtures = mixed_by_gates(steps, vars, on_path)
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
            if outputs[0] in mixtures:
                masks = mixtures[outputs[0]]
                if masks == GATED:
                    taken.add(outputs[0])
                elif outputs[0] in taken:
                    taken |= {step.inputs[i] for i in signals}
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
                if name in taken and mixtures.get(name, GATED) != GATED:
                    found[name] = Role.SELECT
                elif name not in taken:
                    found[name] = Role.INLINE
                else:
                    found[name] = Role.ROOT if summed[name] else Role.PASS
            else:
                found[name] = Role.LAYER
    return found


def mixed_by_gates(steps: Sequence[Step], vars: Mapping[str, Var], path: Iterable[str]) -> dict[str, Mixture]:
    """Sums on the path that are g·a + (1 − g)·b, or a + g·(b − a).

    Value: ((term, mask), (term, mask)) where g is a mask, GATED where it is a gate.
    """
    made = {o: s for s in steps for o in s.outputs}
    found: dict[str, Mixture] = {}
    for name in path:
        step = made.get(name)
        terms = _terms(step) if step is not None else None
        if terms is None or len(terms) != 2:
            continue
        (a, fa), (b, fb) = terms
        first, second = _gate_of(a, made) or _mask_of(a, made, vars), _gate_of(b, made) or _mask_of(b, made, vars)
        if fa == fb == 1 and first and second and _complement(first, second, made):
            masks = vars[first].mask and vars[second].mask
            found[name] = ((a, first), (b, second)) if masks else GATED
            continue
        for base, sign_base, product, sign in ((a, fa, b, fb), (b, fb, a, fa)):
            gate = _gate_of(product, made)
            if not gate or sign_base != 1 or not vars[gate].is_gate:
                continue
            inner = _terms(made[_signal_of(product, made)]) if _signal_of(product, made) in made else None
            if inner and dict(inner).get(base) == -sign and sorted(f for _, f in inner) == [-1, 1]:
                found[name] = GATED
    return found


def _terms(step: Step | None) -> list[tuple[str, float]] | None:
    layer: Any = step.layer if step is not None else None
    if not hasattr(layer, "factors") or any(isinstance(s, str) for s in layer.slots):
        return None
    assert step is not None
    return [(step.inputs[s], f) for s, f in zip(layer.slots, layer.factors, strict=True)]


def _gate_of(name: str, made: Mapping[str, Step]) -> str | None:
    """The computed factor of a product of a signal and a coefficient."""
    step = made.get(name)
    layer: Any = step.layer if step is not None else None
    if step is None or type(layer).__name__ != "Gated" or layer.divide or len(step.inputs) != 2:
        return None
    return step.inputs[layer.slots[1 - layer.signal]]


def _mask_of(name: str, made: Mapping[str, Step], vars: Mapping[str, Var]) -> str | None:
    """The mask in a product of a mask and a constant."""
    step = made.get(name)
    layer: Any = step.layer if step is not None else None
    if step is None or type(layer).__name__ != "Gated" or layer.divide or len(step.inputs) != 1:
        return None
    return step.inputs[0] if vars[step.inputs[0]].mask else None


def _signal_of(name: str, made: Mapping[str, Step]) -> str:
    layer: Any = made[name].layer
    return made[name].inputs[layer.slots[layer.signal]]


def _complement(a: str, b: str, made: Mapping[str, Step]) -> bool:
    """Whether a + b = 1, by how they were made."""
    (base_a, sign_a), (base_b, sign_b) = _literal(a, made), _literal(b, made)
    return base_a == base_b and sign_a != sign_b


def _literal(name: str, made: Mapping[str, Step]) -> tuple[str, bool]:
    """(what a factor comes from, whether it is negated): through casts, Not and 1 − x."""
    negated = False
    while name in made:
        step = made[name]
        layer: Any = step.layer
        if step.node.op in ("Cast", "Identity"):
            name = step.inputs[0]
        elif step.node.op == "Not" or _is_one_minus(layer):
            name, negated = step.inputs[0], not negated
        else:
            break
    return name, negated


def _is_one_minus(layer: Any) -> bool:
    """1 − x with a constant 1."""
    if getattr(layer, "factors", None) != (1.0, -1.0) or layer.slots != ("c0", 0):
        return False
    return bool(np.all(layer.parameters["c0"] == 1))
