"""What ends on the way back, summed by sample: the entries of the ledger, as the program makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._lazy import tf
from .dims import split_axis
from .layer import PerSample
from .nested import Step
from .order import to_samples
from .plan import Plan
from .registry import Var

__all__ = ["Absorbed", "add"]

Tensor = Any


def add(into: dict[Any, Tensor], name: Any, value: Tensor | None) -> None:
    """Add to what is there by that name, if anything is."""
    if value is not None:
        into[name] = into[name] + value if name in into else value


class Absorbed:
    """Amounts (B,) by ``layer|kind``.

    Args:
        plan: whose batch axis tells the samples apart.
        vars: what is known of the tensors of this scope.
        env: these tensors.
        order: (B,) numbers of the samples that stand along a tensor's batch axis, where they are moved.
        size: B, None: told by a tensor whose batch axis is not merged with another.
    """

    def __init__(
        self,
        plan: Plan,
        vars: Mapping[str, Var],
        env: Mapping[str, Tensor],
        order: Mapping[str, Tensor],
        size: Tensor | None = None,
    ) -> None:
        self.amounts: dict[str, Tensor] = {}
        self.size = size
        self._plan = plan
        self._vars = vars
        self._env = env
        self._order = order

    def per_sample(self, x: Tensor, name: str) -> Tensor:
        """Sum a tensor with the axes of ``name`` to shape (B,)."""
        return self.summed(x, split_axis(self._vars[name].dims or (), self._plan.batch))

    def summed(self, x: Tensor, place: tuple[int, int | None, bool] | None) -> Tensor:
        """(B,): sum over everything but the batch, which stands at ``place``."""
        if place is None:
            return tf.reshape(tf.reduce_sum(x), [1])
        axis, inner, outer = place
        whole = tf.reduce_sum(x, [a for a in range(x.shape.rank) if a != axis])
        if not outer and inner == 1:
            return whole
        if not outer:
            return tf.reduce_sum(tf.reshape(whole, [self._batch(), -1]), 1)
        return tf.reduce_sum(tf.reshape(whole, [-1, self._batch(), inner or 1]), [0, 2])

    def add(self, step: Step, kind: str, amount: Tensor | PerSample, name: str) -> None:
        """What a layer absorbs, with the axes of the tensor ``name``, or already by sample."""
        if isinstance(amount, PerSample):
            # a layer's own samples: the words of all sentences, where it reads their letters
            layer: Any = step.layer
            own = layer.evidence([self._vars[n] for n in step.inputs]).get("batch")
            if own is None and self._plan.batch is not None:  # a tensor of no known rank; its samples are those of the model
                total = amount.amount
            else:
                total = self.summed(amount.amount, split_axis(() if own is None else (own,), self._plan.batch))
        else:
            total = self.per_sample(amount, name)
        self.add_sums(f"{step.name}|{kind}", total, name)

    def add_sums(self, key: str, amount: Tensor, name: str) -> None:
        """(B,) amounts, by the places that samples have in the tensor ``name``."""
        if name in self._order:
            amount = to_samples(amount, self._order[name], self._batch())
        add(self.amounts, key, amount)

    def _batch(self) -> Tensor:
        if self.size is not None:
            return self.size
        for name, tensor in self._env.items():
            for axis, dim in enumerate(self._plan.vars[name].dims or () if name in self._plan.vars else ()):
                if tuple(dim.roots) == (self._plan.batch.root if self._plan.batch else None,):
                    return tf.shape(tensor)[axis]
        raise AssertionError("no tensor has the batch as an axis of its own")
