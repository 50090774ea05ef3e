"""Relevance at internal tensors: which tensor, or which state of a recurrent layer, a caller's name means."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .dims import Place, split_axis
from .errors import InputError
from .nested import Step
from .plan import Plan
from .recurrence import Recurrent

__all__ = ["Kept", "resolve"]


@dataclass(frozen=True)
class Kept:
    """What is kept of a way back.

    Attributes:
        key: its name in the explanation.
        tensor: the tensor; of a recurrent layer's state the key of its step.
        loop: key of the loop in whose body the tensor is: one entry a step, along a leading axis. "": the graph itself.
        state: "h" or "c" of a recurrent layer, (T, D, B, H); "": the tensor itself.
    """

    key: str
    tensor: str
    loop: str = ""
    state: str = ""

    def place(self, plan: Plan) -> Place | None:
        """Where the axis of the samples is, and what is merged with it; None if there is none."""
        if self.state:
            return 2, 1, False
        if not self.loop:
            return plan.place(self.tensor)
        inside = split_axis(plan.scope.inner[self.loop].vars[self.tensor].dims or (), plan.batch)
        return None if inside is None else (inside[0] + 1, *inside[1:])

    def time_axis(self, plan: Plan) -> int | None:
        """Axis of time, None if there is none."""
        return 0 if self.state or self.loop else plan.time_axis(self.tensor)

    def per_sample(self, plan: Plan, relevance: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """What is kept, summed by sample in float64: (B,), or (K, B) of several classes; (1,) or (K, 1), where it can't be told
        which sample it belongs to.

        Args:
            relevance: what is kept.
            shape: (B,) or (K, B).
        """
        if not relevance.size:  # none arrived
            return np.zeros(shape)
        if len(shape) == 2:
            return np.stack([self.per_sample(plan, r, shape[1:]) for r in relevance])
        whole = relevance.astype(np.float64)
        if not self.loop and not self.state:
            return plan.per_sample(whole, self.tensor, shape)
        place = self.place(plan)
        axis = 0 if place is None else place[0]
        if place is None or whole.shape[axis] != shape[0]:
            return whole.sum().reshape(1)
        return whole.sum(tuple(a for a in range(whole.ndim) if a != axis))


def resolve(plan: Plan, names: str | Sequence[str]) -> tuple[Kept, ...]:
    """What names mean: a tensor on the relevance path, one in a loop's body, a layer (its output, and a recurrent one's states), or
    ``layer:h`` and ``layer:c``.

    Raises:
        InputError: there is no such name, or relevance does not pass there.
    """
    found: dict[str, Kept] = {}
    for name in (names,) if isinstance(names, str) else names:
        for kept in _meant(plan, name):
            found[kept.key] = kept
    return tuple(found.values())


def _meant(plan: Plan, name: str) -> Iterator[Kept]:
    layer = next((s for s in plan.steps if s.name == name and _outputs(plan, s)), None)
    states = {f"{s.name}:{state}": Kept(f"{s.name}:{state}", s.key, state=state) for s in _cells(plan) for state in _states(s)}
    if name in states:
        yield states[name]
        return
    inside = [key for key, scope in plan.scope.inner.items() if name in scope.path]
    if name in plan.path:
        yield Kept(name, name)
    elif layer is not None:
        yield Kept(name, _outputs(plan, layer)[0])
    elif len(inside) == 1:
        yield Kept(name, name, loop=inside[0])
    elif inside:
        raise InputError(f"keep={name!r}: {len(inside)} loops have a tensor of that name")
    else:
        raise InputError(_complaint(plan, name, [*states]))
    if layer is not None:
        yield from (kept for kept in states.values() if kept.tensor == layer.key)


def _outputs(plan: Plan, step: Step) -> list[str]:
    return [o for o in step.outputs if o in plan.path]


def _cells(plan: Plan) -> list[Step]:
    return [s for s in plan.steps if isinstance(s.layer, Recurrent) and _outputs(plan, s)]


def _states(step: Step) -> list[str]:
    assert isinstance(step.layer, Recurrent)
    return [name[0] for name in step.layer.states]  # h0, c0


def _complaint(plan: Plan, name: str, states: Sequence[str]) -> str:
    if name in plan.vars or name in plan.graph.constants or any(s.name == name for s in plan.steps):
        return f"keep={name!r} is off the relevance path: no relevance arrives there"
    known = [*plan.path, *(s.name for s in plan.steps if _outputs(plan, s)), *states]
    known += [n for scope in plan.scope.inner.values() for n in scope.path]
    near = difflib.get_close_matches(name, dict.fromkeys(known), n=4, cutoff=0.4)
    return f"keep={name!r} does not exist" + (
        f"; there is {', '.join(map(repr, near))}" if near else "; summary() lists the layers"
    )
