"""Batches that a model sorts on its way and puts back: which sample stands at each place of a tensor.

Packing sequences by length (PyTorch's ``enforce_sorted=False``) gathers the samples by computed numbers, once to sort them and once
to put them back. In between the batch axis is the same axis in another order: what is absorbed there belongs to other samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._lazy import tf
from .dims import Label
from .nested import Step
from .ops.gather import Gather, from_start
from .registry import Var

__all__ = ["orders", "to_samples"]

Tensor = Any


def orders(steps: Sequence[Step], vars: Mapping[str, Var], env: Mapping[str, Tensor], batch: Label | None) -> dict[str, Tensor]:
    """Tensor → (B,) numbers of the samples that stand along its batch axis; none where nothing has moved them."""
    if batch is None or not any(_moves(step, vars, batch) for step in steps):
        return {}
    found: dict[str, Tensor] = {}
    for step in steps:
        before = next((found[name] for name in step.inputs if name in found), None)
        if _moves(step, vars, batch):
            layer: Any = step.layer
            data, indices = (step.inputs[slot] for slot in layer.slots)
            before = found.get(data)
            places = from_start(env[indices], tf.shape(env[data])[layer.axis])
            before = places if before is None else tf.gather(before, places)
        if before is not None:
            found.update(dict.fromkeys(step.outputs, before))
    return found


def _moves(step: Step, vars: Mapping[str, Var], batch: Label) -> bool:
    """Whether a step takes as many samples as there are, in an order that is computed."""
    layer = step.layer
    if not isinstance(layer, Gather) or any(isinstance(slot, str) for slot in layer.slots):
        return False
    data, indices = (vars[step.inputs[slot]].dims for slot in layer.slots if not isinstance(slot, str))
    if not data or indices is None or len(indices) != 1:
        return False
    return all(tuple(dim.roots) == (batch.root,) for dim in (data[layer.axis], *indices))


def to_samples(amounts: Tensor, order: Tensor | None, count: Tensor) -> Tensor:
    """(B,) amounts by place as amounts by sample."""
    return amounts if order is None else tf.math.unsorted_segment_sum(amounts, order, count)
