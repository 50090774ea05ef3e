"""Forward sums inside affine blocks, per channel: what a rule's denominators and a bias factor's even shares need beside z.

Of every tensor inside a block: Σ over the terms on the relevance path, and the constant part, both as a channel reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._lazy import tf
from .affine import Role, Scope
from .layer import Affine, Routing
from .nested import Step
from .rules import COUNT, PLAIN, Channel

__all__ = ["Sums"]

Tensor = Any
INSIDE = (Role.INLINE, Role.ROUTE)


class Sums:
    """The sums of one run, filled by :meth:`add`; ``terms`` and ``constants``: channel → tensor's name → value."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.terms: dict[Channel, dict[str, Tensor]] = {}
        self.constants: dict[Channel, dict[str, Tensor]] = {}

    def total(self, channel: Channel, name: str) -> Tensor:
        """Σ of a channel, constants included."""
        return self.terms[channel][name] + self.constants[channel][name]

    def add(self, channels: Iterable[Channel], steps: Sequence[Step], traces: Sequence[Any], env: Mapping[str, Tensor]) -> None:
        """Measure more channels in a run."""
        for channel in channels:
            self.terms.setdefault(channel, {})
            self.constants.setdefault(channel, {})
            for step, trace in zip(steps, traces, strict=True):
                if isinstance(step.layer, Affine | Routing):
                    self._step(channel, step, trace, env)

    def _inside(self, channel: Channel, name: str, index: int, layer: Any) -> bool:
        going_on = name in self.scope.leaves or self.scope.roles.get(name) in INSIDE
        return name in self.terms[channel] and going_on and index not in getattr(layer, "operands", ())

    def _step(self, channel: Channel, step: Step, trace: Any, env: Mapping[str, Tensor]) -> None:
        scope, layer = self.scope, step.layer
        for position, name in enumerate(step.outputs):
            if name not in scope.path or name in scope.ends or name in scope.leaves:
                continue
            terms, constants = [], []
            for index, source in enumerate(step.inputs):
                x = env[source]
                if self._inside(channel, source, index, layer):
                    terms.append(self.terms[channel][source])
                    constants.append(self.constants[channel][source])
                elif not x.dtype.is_floating:
                    terms.append(x)
                    constants.append(x)
                elif source in scope.path:
                    terms.append(channel.value(x))
                    constants.append(tf.zeros_like(x))
                else:
                    constant = channel.constant(x)
                    terms.append(tf.zeros_like(x))
                    constants.append(tf.zeros_like(x) if constant is None else constant)
            if isinstance(layer, Affine):
                linear = layer.linear(trace)
                linear = linear if channel.function is None else linear.mapped(channel.function)
                bias = layer.bias(trace)
                constant = None if bias is None else channel.constant(bias)
                shape = tf.shape(env[name])
                self.terms[channel][name] = tf.broadcast_to(linear.call(terms), shape)
                whole = linear.call(constants)
                self.constants[channel][name] = tf.broadcast_to(whole if constant is None else whole + constant, shape)
            else:
                assert isinstance(layer, Routing)
                self.terms[channel][name] = layer.move(trace, terms, constants=False)[position]
                # constants among a routing's operands are read as they are in the plain channel, by their size in the absolute one
                moved = layer.move(trace, constants, constants=channel.counts_constants)[position]
                self.constants[channel][name] = tf.abs(moved) if channel.inputs == "abs" else moved


NEEDED_BY_BIAS_FACTOR = (COUNT, PLAIN)
