"""Neighbouring linear layers are one affine block with one stabilizer, so that spelling does not matter.

Inside a block the cotangent s = R / (z + ε·sign z) of its root travels; relevance travels outside. Which tensor is a root
follows from its readers alone, and is decided here once for the whole graph.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .layer import Affine, Plain, Routing
from .nested import Nested, Step
from .registry import Var

__all__ = ["Role", "Scope", "analyse"]

Mixture = tuple[tuple[str, str], ...]
GATED: Mixture = ()
BINARY = ("Abs", "Max", "Min", "Mul", "Relu")  # of zeros and ones make zeros and ones


class Role(enum.Enum):
    """How relevance leaves a tensor on the path towards what it was computed from."""

    END = "end"  # an attribution point
    ROUTE = "route"  # relevance and s follow the index map
    ROOT = "root"  # a block with a sum: R becomes s here
    SELECT = "select"  # m·a + (1 − m)·b with a mask m: relevance goes to the side selected
    PASS = "pass"  # a block without a sum: relevance passes unchanged
    INLINE = "inline"  # inside a block: only s arrives
    LAYER = "layer"  # anything else: the layer's own relevance


@dataclass(frozen=True, eq=False)
class Scope:
    """A program or the body of a loop, and how relevance leaves each of its tensors.

    Attributes:
        path: tensors that relevance passes.
        ends: where it stops here: attribution points, the states of a loop before the step.
        leaves: tensors of a body that are (rows of) tensors around it: blocks go on there.
        selections: sums that select one of two terms by a mask.
        inner: scopes of the loops among the steps, by the step's key.
    """

    steps: tuple[Step, ...]
    vars: Mapping[str, Var]
    path: frozenset[str]
    ends: frozenset[str]
    leaves: Mapping[str, str]
    roles: Mapping[str, Role]
    selections: Mapping[str, Mixture]
    inner: Mapping[str, Scope]

    @functools.cached_property
    def made(self) -> Mapping[str, Step]:
        """The step that makes each tensor."""
        return {o: s for s in self.steps for o in s.outputs}


def analyse(steps: Sequence[Step], vars: Mapping[str, Var], path: Iterable[str], ends: Iterable[str], explained: str) -> Scope:
    """The scope of a whole program, those of its loops inside."""
    top = _Analysis(steps, vars, frozenset(path), frozenset(ends), {explained}, {}, None)
    top.find_taken()
    top.find_roles()
    return top.scope()


class _Analysis:
    """One scope in the making: first which tensors are read as something else than an affine term, then the roles."""

    def __init__(
        self,
        steps: Sequence[Step],
        vars: Mapping[str, Var],
        path: frozenset[str],
        ends: frozenset[str],
        taken: set[str],
        leaves: Mapping[str, str],
        parent: _Analysis | None,
    ) -> None:
        self.steps = steps
        self.vars = vars
        self.path = path
        self.ends = ends
        self.taken = taken
        self.leaves = leaves
        self.parent = parent
        self.made = {o: s for s in steps for o in s.outputs}
        self.mixtures = mixed_by_gates(self)
        self.found: dict[str, Role] = {}
        self.summed: dict[str, bool] = {}  # whether the tree below a tensor, down to its leaves, holds a sum
        self.inner: dict[str, _Analysis] = {}

    def scope(self) -> Scope:
        inner = {name: child.scope() for name, child in self.inner.items()}
        mixtures = {name: m for name, m in self.mixtures.items() if m != GATED}
        return Scope(tuple(self.steps), self.vars, self.path, self.ends, self.leaves, self.found, mixtures, inner)

    def find_taken(self) -> None:
        for step in reversed(self.steps):
            outputs = [o for o in step.outputs if o in self.path and o not in self.leaves]
            if not outputs:
                continue
            inputs = [self.vars[n] for n in step.inputs]
            signals = [i for i in step.layer.signals(inputs) if step.inputs[i] in self.path]
            if isinstance(step.layer, Nested):
                self.enter(step, step.layer)
            elif isinstance(step.layer, Routing):
                if any(o in self.taken for o in outputs):
                    self.taken |= {step.inputs[i] for i in signals}
            elif isinstance(step.layer, Affine):
                self.taken |= {step.inputs[i] for i in signals if i in step.layer.operands}
                masks = self.mixtures.get(outputs[0])
                if masks == GATED:
                    self.taken.add(outputs[0])
                elif masks is not None and outputs[0] in self.taken:
                    self.taken |= {step.inputs[i] for i in signals}
            else:
                self.taken |= {step.inputs[i] for i in signals}

    def enter(self, step: Step, layer: Nested) -> None:
        """A loop: carried states and results are roots, blocks may come in through rows and captured tensors."""
        wanted = [k for k, o in enumerate(step.outputs) if o in self.path]
        path, _ = layer.reach(wanted)
        states = {name: out for name, out, _ in layer.states if name in path}
        taken = {layer.results[k] for k in wanted} | set(states.values())
        leaves = layer.outside(step.inputs)
        child = _Analysis(layer.body.steps, layer.body.vars, path, frozenset(states), taken, leaves, self)
        child.find_taken()
        self.inner[step.key] = child
        self.taken |= {outer for name, outer in leaves.items() if name in child.taken and outer in self.path}
        starts = {step.inputs[i] for name, _, i in layer.states if name in states and isinstance(i, int)}
        self.taken |= starts & self.path

    def below(self, name: str) -> bool:
        """Whether a sum is reached from a tensor before its blocks end."""
        if name in self.leaves:
            return self.parent is not None and self.parent.below(self.leaves[name])
        return self.found.get(name) in (Role.INLINE, Role.ROUTE) and self.summed.get(name, False)

    def find_roles(self) -> None:
        self.found.update({name: Role.END for name in self.ends if name in self.path})
        for step in self.steps:
            if step.key in self.inner:
                self.inner[step.key].find_roles()
            for name in step.outputs:
                if name not in self.path or name in self.ends or name in self.leaves:
                    continue
                self.found[name] = self.role(step, name)

    def role(self, step: Step, name: str) -> Role:
        inputs = [self.vars[n] for n in step.inputs]
        sources = [step.inputs[i] for i in step.layer.signals(inputs) if step.inputs[i] in self.path]
        inside = any(self.below(n) for n in sources)
        if isinstance(step.layer, Routing):
            self.summed[name] = inside
            return Role.ROUTE
        if not isinstance(step.layer, Affine):
            return Role.LAYER
        self.summed[name] = step.layer.sums(inputs) or inside
        if name in self.taken and self.mixtures.get(name, GATED) != GATED:
            return Role.SELECT
        if name not in self.taken:
            return Role.INLINE
        return Role.ROOT if self.summed[name] else Role.PASS


def mixed_by_gates(scope: _Analysis) -> dict[str, Mixture]:
    """Sums on the path that are g·a + (1 − g)·b, or a + g·(b − a).

    Value: ((term, mask), (term, mask)) where g is a mask of zeros and ones, GATED where it is a gate.
    """
    made, vars = scope.made, scope.vars
    found: dict[str, Mixture] = {}
    for name in scope.path:
        step = made.get(name)
        terms = _terms(step) if step is not None and name not in scope.leaves else None
        if terms is None or len(terms) != 2:
            continue
        (a, fa), (b, fb) = terms
        first, second = (_gate_of(n, made) or _held(n, made, vars) for n in (a, b))
        if fa == fb == 1 and first and second and _complement(first, second, scope):
            masks = all(vars[n].mask and _is_binary(n, scope) for n in (first, second))
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


def _held(name: str, made: Mapping[str, Step], vars: Mapping[str, Var]) -> str | None:
    """The gate or mask in its product with a constant (an initial state)."""
    step = made.get(name)
    layer: Any = step.layer if step is not None else None
    if step is None or type(layer).__name__ != "Gated" or layer.divide or len(step.inputs) != 1:
        return None
    return step.inputs[0] if vars[step.inputs[0]].mask or vars[step.inputs[0]].is_gate else None


def _signal_of(name: str, made: Mapping[str, Step]) -> str:
    layer: Any = made[name].layer
    return made[name].inputs[layer.slots[layer.signal]]


def _complement(a: str, b: str, scope: _Analysis) -> bool:
    """Whether a + b = 1, by how they were made."""
    (base_a, sign_a), (base_b, sign_b) = _literal(a, scope), _literal(b, scope)
    return base_a == base_b and sign_a != sign_b


def _literal(name: str, scope: _Analysis) -> tuple[Any, bool]:
    """(what a factor comes from, whether it is negated): through casts, Not and 1 − x, out of a loop too."""
    negated = False
    while name in scope.made and name not in scope.leaves:
        step = scope.made[name]
        layer: Any = step.layer
        if step.node.op in ("Cast", "Identity"):
            name = step.inputs[0]
        elif step.node.op == "Not" or _is_one_minus(layer):
            name, negated = step.inputs[0], not negated
        else:
            break
    if name in scope.leaves and scope.parent is not None:
        outer, flipped = _literal(scope.leaves[name], scope.parent)
        made = scope.made.get(name)  # rows with different numbers are different tensors
        return (outer, made.inputs[1:] if made is not None else ()), negated != flipped
    return name, negated


def _is_binary(mask: str, scope: _Analysis) -> bool:
    """Whether a mask's entries are 0 or 1, by how it was made: one that was scaled mixes its terms, and selects none."""
    left, met = [(mask, scope)], set()
    while left:
        name, inside = left.pop()
        if (name, inside) in met or inside.vars[name].dtype == np.dtype(bool):
            continue
        met.add((name, inside))
        if name in inside.leaves and inside.parent is not None:
            left.append((inside.leaves[name], inside.parent))
            continue
        step = inside.made.get(name)
        layer: Any = step.layer if step is not None else None
        if step is None or not (isinstance(layer, Plain | Routing) or _is_one_minus(layer) or step.node.op in BINARY):
            return False
        if not all(np.isin(v, (0, 1)).all() for v in layer.parameters.values() if v.dtype.kind == "f"):
            return False
        if not isinstance(layer, Plain):  # which makes zeros and ones of anything
            left += [(n, inside) for n in step.inputs if inside.vars[n].is_float or inside.vars[n].mask]
    return True


def _is_one_minus(layer: Any) -> bool:
    """1 − x with a constant 1."""
    if getattr(layer, "factors", None) != (1.0, -1.0) or layer.slots != ("c0", 0):
        return False
    return bool(np.all(layer.parameters["c0"] == 1))
