"""How a plan is run: the options of :func:`onnx_lrp.load` that are not about what the graph is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .composites import Assignment, Composite, assign
from .methods import LRP
from .plan import Plan
from .program import Program
from .rules import Policy

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """As :func:`onnx_lrp.load` takes them, checked.

    Attributes:
        policy: stabilizer, bias factor, gate rule.
        composite: which rule each layer gets.
        precision: of everything the engine computes.
        device: of TensorFlow's.
        jit: "auto", "graph", "xla" or "eager".
        verify: "first", "always" or "never".
        max_bytes: what a run may keep in memory, None: a share of what is free.
        checkpoint: "auto", "never", or the steps of a segment.
    """

    policy: Policy
    composite: Composite
    precision: str
    device: str | None
    jit: str
    verify: str
    max_bytes: int | None
    checkpoint: str | int

    @property
    def segment(self) -> int | None:
        """The steps of a segment, where they were given."""
        return None if isinstance(self.checkpoint, str) else int(self.checkpoint)

    @property
    def settings(self) -> dict[str, Any]:
        """What an explanation tells of how it was made."""
        return {
            "method": LRP,
            "rule": str(self.composite),
            "epsilon": self.policy.epsilon,
            "bias_factor": self.policy.bias_factor,
            "gates": self.policy.gates,
        }

    def rules(self, plan: Plan) -> Assignment:
        """The rule of every affine block and recurrent layer."""
        return assign(plan, self.composite)

    def program(self, plan: Plan) -> Program:
        """What runs a plan; TensorFlow is imported for it."""
        rules = self.rules(plan)
        return Program(plan, policy=self.policy, rules=rules, precision=self.precision, jit=self.jit, device=self.device)
