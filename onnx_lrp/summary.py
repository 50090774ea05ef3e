"""What was read of a model, for people: layers, shapes, axes, decisions. And the canonical weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .affine import Role, Scope
from .composites import Assignment
from .dims import Dim
from .layer import Layer
from .nested import sources
from .plan import Plan
from .printable import visible
from .recurrence import Recurrent
from .rules import Policy

__all__ = ["Row", "Summary", "canonical_weights", "summarize"]


@dataclass(frozen=True)
class Row:
    """One tensor on the relevance path, and the layer that makes it.

    Attributes:
        inputs: tensors that relevance goes on to from here.
        rule: how relevance is shared there, "" where there is nothing to share.
    """

    name: str
    op: str
    layer: str
    output: str
    shape: str
    role: str
    weights: str
    note: str = ""
    inputs: tuple[str, ...] = ()
    rule: str = ""


@dataclass(frozen=True)
class Summary:
    """What :meth:`Explainer.summary` returns; prints as text."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    explained: str
    points: tuple[str, ...]
    axes: Mapping[str, Any]
    rows: tuple[Row, ...]
    rule: str
    prefix: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As lists and strings, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"inputs              {', '.join(self.inputs)}",
            f"outputs             {', '.join(self.outputs)}",
            f"explained           {self.explained}",
            f"attribution points  {', '.join(self.points)}",
            f"axes                batch {self.axes['batch']}, time {self.axes['time']}, class {self.axes['class']}",
            f"rule                {self.rule}",
        ]
        if self.prefix:
            lines.append(f"by onnxruntime      {', '.join(self.prefix)}")
        lines += [f"note                {n}" for n in self.notes]
        widths = [max(len(getattr(r, c)) for r in self.rows) if self.rows else 0 for c in ("layer", "shape", "role")]
        lines.append("")
        for row in self.rows:
            cells = (row.layer.ljust(widths[0]), row.shape.ljust(widths[1]), row.role.ljust(widths[2]))
            lines.append("  ".join((*cells, row.note or row.weights or row.name)).rstrip())
        return "\n".join(map(visible, lines))

    def _repr_html_(self) -> str:
        from .report.html import card

        return card(self)


def _shape(plan: Plan, dims: Sequence[Dim] | None) -> str:
    if dims is None:
        return "(?)"
    out = []
    for dim in dims:
        parts = []
        for root in dim.roots:
            letter = "B" if plan.batch is not None and root is plan.batch.root else "T" if root in plan.times else ""
            parts.append(letter or (str(root.size) if root.size is not None else root.name or "?"))
        out.append("*".join(parts) or "1")
    return "(" + ", ".join(out) + ")"


ROLES = {
    Role.ROUTE: "routing",
    Role.ROOT: "affine block",
    Role.PASS: "passes",
    Role.SELECT: "selection",
    Role.INLINE: "in a block",
    Role.LAYER: "own",
    Role.END: "attribution point",
}


def _weights(layer: Layer) -> str:
    kept = {k: v for k, v in layer.parameters.items() if v.dtype.kind == "f" and v.ndim > 1}
    text = ", ".join(f"{k} {'x'.join(map(str, v.shape))}" for k, v in kept.items())
    if type(layer).__name__ == "LSTM":
        text += " (gates i, f, c, o)"
    return text


def _rows(plan: Plan, scope: Scope, rules: Assignment, inside: str) -> Iterator[Row]:
    """One row a tensor on the relevance path, those of a loop's body behind the loop."""
    for step in scope.steps:
        for output in step.outputs:
            if output in scope.path and output not in scope.leaves:
                shape, role = _shape(plan, scope.vars[output].dims), ROLES[scope.roles[output]]
                note = step.layer.decision([scope.vars[n] for n in step.inputs])
                name, layer = inside + step.name, inside + step.layer.title
                inputs = tuple(n for n in sources(step, output, scope.vars) if n in scope.path) if output not in scope.ends else ()
                rule = rules.of(scope, step.key if isinstance(step.layer, Recurrent) else output)
                yield Row(name, step.node.op, layer, output, shape, role, _weights(step.layer), note, inputs, str(rule or ""))
        if step.key in scope.inner:
            yield from _rows(plan, scope.inner[step.key], rules, inside + "  ")


def _from(plan: Plan, point: str) -> str:
    """The graph inputs behind an attribution point that is none itself."""
    names = plan.origins[point]
    return f" from {', '.join(names)}" if names and names != (point,) else ""


def summarize(plan: Plan, policy: Policy, rules: str, precision: str, assignment: Assignment) -> Summary:
    """The summary of a plan."""
    rows = list(_rows(plan, plan.scope, assignment, ""))
    points = tuple(f"{p} {_shape(plan, plan.vars[p].dims)}{_from(plan, p)}" for p in plan.points)
    batch = "none (one sample)" if plan.batch is None else "fixed at " + str(plan.fixed_batch) if plan.fixed_batch else "any"
    return Summary(
        inputs=tuple(str(v) for v in plan.graph.inputs),
        outputs=tuple(str(v) for v in plan.graph.outputs),
        explained=f"{plan.explained} {_shape(plan, plan.vars[plan.explained].dims)}"
        + (f", before output {plan.output!r}" if plan.explained != plan.output else "")
        + (f"; classes 0 and 1 start from {' and '.join('-z' if s < 0 else 'z' for s in plan.signs)}" if plan.signs else ""),
        points=points,
        axes={"batch": batch, "time": "yes" if plan.times else "none", "class": plan.class_axis},
        rows=tuple(rows),
        rule=f"{rules}, bias_factor {policy.bias_factor:g}, gates {policy.gates}, {precision}",
        prefix=plan.prefix,
        notes=plan.notes,
    )


def canonical_weights(plan: Plan) -> dict[str, dict[str, np.ndarray]]:
    """{layer name: {parameter: array}} of every layer with weights; gates in canonical order."""
    out: dict[str, dict[str, np.ndarray]] = {}
    for step in plan.steps:
        kept = {k: v.copy() for k, v in step.layer.parameters.items() if v.dtype.kind == "f" and v.ndim}
        if kept and step.layer.title != "Concat":
            out[step.name] = kept
    return out
