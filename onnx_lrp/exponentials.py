"""Softmaxes, their logarithms and tanh written out with exponentials and sums, read as the op that they are.

JAX, TensorFlow 1 and hand-written attention write exp(x) / Σ exp(x), with or without the largest entry subtracted first. As its
own nodes this is no head to step back over, and its weights are no gate, whose bounds are known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from .graph import Node
from .rewrite import Rewriting

__all__ = ["softmaxes", "tanhs"]

SAME = ("Identity", "Expand")  # the first input, at most repeated: what a reduced axis is broadcast by
DEPTH = 4  # how far back two tensors are looked at that may be computed twice


def softmaxes(nodes: Sequence[Node], constants: Mapping[str, np.ndarray]) -> list[Node]:
    """Nodes with every softmax and logarithm of one, however it is spelled, as a Softmax or LogSoftmax."""
    seen = _Seen({name: node for node in nodes if not node.domain for name in node.outputs}, constants)
    out: list[Node] = []
    for node in nodes:
        found = None if node.domain else seen.softmax(node) or seen.log_softmax(node)
        if found is None:
            out.append(node)
            continue
        op, x, axis = found
        made = Rewriting(node, constants).make(op, x, to=node.outputs[0], axis=axis)
        made = dataclasses.replace(made, name=node.name, origin=None)
        seen.made[node.outputs[0]] = made
        out.append(made)
    return out


def tanhs(nodes: Sequence[Node], constants: Mapping[str, np.ndarray]) -> list[Node]:
    """Nodes with every 2 · sigmoid(2x) − 1 and (exp(x) − exp(−x)) / (exp(x) + exp(−x)) as a Tanh."""
    seen = _Seen({name: node for node in nodes if not node.domain for name in node.outputs}, constants)
    out: list[Node] = []
    for node in nodes:
        x = None if node.domain else seen.tanh(node)
        if x is None:
            out.append(node)
        else:
            made = Rewriting(node, constants).make("Tanh", x, to=node.outputs[0])
            out.append(dataclasses.replace(made, name=node.name, origin=None))
    return out


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What makes a tensor, and what is known of it."""

    made: dict[str, Node]
    constants: Mapping[str, np.ndarray]

    def softmax(self, node: Node) -> tuple[str, str, int] | None:
        """exp(z) / Σ exp(z), or exp(z) · (1 / Σ exp(z))."""
        if node.op == "Div":
            pairs = [(node.inputs[0], node.inputs[1])]
        elif node.op == "Mul":
            whole = [(a, self.behind(b)) for a, b in (node.inputs, node.inputs[::-1])]
            pairs = [(a, b.inputs[0]) for a, b in whole if b is not None and b.op == "Reciprocal"]
        else:
            return None
        for top, bottom in pairs:
            exponential, total = self.behind(top), self.reduced(bottom, "ReduceSum")
            if exponential is None or exponential.op != "Exp" or total is None or not self.same(total[0], top):
                continue
            return "Softmax", self.unshifted(exponential.inputs[0], total[1]), total[1]
        return None

    def log_softmax(self, node: Node) -> tuple[str, str, int] | None:
        """z − log Σ exp(z), z − (m + log Σ exp(z − m)), or the logarithm of a softmax."""
        if node.op == "Log":
            soft = self.behind(node.inputs[0])
            if soft is None or soft.op != "Softmax" or soft.version < 13:
                return None
            return "LogSoftmax", soft.inputs[0], int(soft.attributes.get("axis", -1))
        if node.op != "Sub":
            return None
        z, total = node.inputs
        found = self.reduced(total, "ReduceLogSumExp") or self.logarithm(total)
        if found is not None:
            return ("LogSoftmax", self.unshifted(z, found[1]), found[1]) if self.same(found[0], z) else None
        added = self.behind(total)
        if added is None or added.op != "Add":
            return None
        for shift, rest in (added.inputs, added.inputs[::-1]):
            found, largest = self.logarithm(rest), self.reduced(shift, "ReduceMax")
            if found is None or largest is None or found[1] != largest[1] or not self.same(largest[0], z):
                continue
            if self.same(self.unshifted(found[0], found[1]), z):
                return "LogSoftmax", z, found[1]
        return None

    def tanh(self, node: Node) -> str | None:
        """x if a node is tanh x."""
        if node.op == "Div":
            top, bottom = (self.made.get(n) for n in node.inputs)
            if top is None or bottom is None or (top.op, bottom.op) != ("Sub", "Add"):
                return None
            first, second = (self.made.get(n) for n in top.inputs)
            if first is None or second is None or first.op != "Exp" or second.op != "Exp":
                return None
            pairs = (bottom.inputs, bottom.inputs[::-1])
            if not any(all(self.same(a, b) for a, b in zip(top.inputs, pair, strict=True)) for pair in pairs):
                return None
            minus = self.made.get(second.inputs[0])
            negated = minus is not None and minus.op == "Neg" and self.same(minus.inputs[0], first.inputs[0])
            return first.inputs[0] if negated or self.scaled(second.inputs[0], -1) == first.inputs[0] else None
        if node.op not in ("Sub", "Add"):
            return None
        doubled, one = node.inputs if node.op == "Sub" or self.number(node.inputs[1]) is not None else node.inputs[::-1]
        if self.number(one) != (1 if node.op == "Sub" else -1):
            return None
        sigmoid = self.made.get(self.scaled(doubled, 2) or "")
        return self.scaled(sigmoid.inputs[0], 2) if sigmoid is not None and sigmoid.op == "Sigmoid" else None

    def number(self, name: str) -> float | None:
        """The value of a constant that holds one number."""
        array = self.constants.get(name)
        return float(array.reshape(-1)[0]) if array is not None and array.dtype.kind in "fiu" and array.size == 1 else None

    def scaled(self, name: str, by: float) -> str | None:
        """x if a tensor is x times this number."""
        node = self.made.get(name)
        if node is None or node.op != "Mul":
            return None
        return next((x for x, c in (node.inputs, node.inputs[::-1]) if self.number(c) == by), None)

    def logarithm(self, name: str) -> tuple[str, int] | None:
        """(z, axis) if a tensor is log Σ exp(z) over an axis that stays."""
        summed = self.reduced(name, "ReduceSum", logarithm=True)
        exponential = None if summed is None else self.behind(summed[0])
        if summed is None or exponential is None or exponential.op != "Exp":
            return None
        return exponential.inputs[0], summed[1]

    def unshifted(self, z: str, axis: int) -> str:
        """x if z is x less its largest entry along the axis, else z: a softmax is the same."""
        node = self.behind(z)
        if node is None or node.op != "Sub":
            return z
        largest = self.reduced(node.inputs[1], "ReduceMax")
        return node.inputs[0] if largest is not None and largest[1] == axis and self.same(largest[0], node.inputs[0]) else z

    def reduced(self, name: str, op: str, *, logarithm: bool = False) -> tuple[str, int] | None:
        """(what is reduced, axis) if a tensor is the reduction of another over one axis that stays with length 1.

        ``logarithm``: of the logarithm of the reduction.
        """
        node, back, logs = self.behind(name), None, 0
        while node is not None and node.op != op:
            if node.op == "Log" and logarithm and not logs:
                logs += 1
            elif node.op in ("Unsqueeze", "Reshape") and back is None:
                back = node
            elif node.op != "Max":
                return None
            node = self.behind(node.inputs[0] if node.op != "Max" else self.unbounded(node) or "")
        axes = None if node is None else self.axes(node)
        if node is None or axes is None or len(axes) != 1 or logs != logarithm:
            return None
        if bool(node.attributes.get("keepdims", 1)) == (back is not None):
            return None
        axis = axes[0]
        if back is not None and back.op == "Reshape":
            shape = self.constants.get(back.inputs[1])
            if shape is None or not -shape.size <= axis < shape.size or shape[axis] != 1:
                return None
        elif back is not None and self.axes(back) != axes:
            return None
        return node.inputs[0], axis

    def unbounded(self, node: Node) -> str | None:
        """x if a maximum is max(−∞, x), which JAX writes."""
        rest = [n for n in node.inputs if n not in self.constants or not np.all(np.isneginf(self.constants[n]))]
        return rest[0] if len(rest) == 1 else None

    def axes(self, node: Node) -> tuple[int, ...] | None:
        """The axes that a node names, by attribute or input."""
        listed = node.attributes.get("axes")
        if listed is None and len(node.inputs) > 1:
            listed = self.constants.get(node.inputs[1])
        return None if listed is None else tuple(int(a) for a in np.atleast_1d(np.asarray(listed)))

    def behind(self, name: str) -> Node | None:
        """The node that computes a tensor, before it is repeated."""
        node = self.made.get(name)
        while node is not None and node.op in SAME:
            node = self.made.get(node.inputs[0])
        return node

    def same(self, one: str, other: str, depth: int = DEPTH) -> bool:
        """Whether two tensors are one, or are computed in the same way from the same ones."""
        if one == other:
            return True
        a, b = self.made.get(one), self.made.get(other)
        if a is None or b is None or not depth:
            left, right = self.constants.get(one), self.constants.get(other)
            return left is not None and right is not None and left.shape == right.shape and bool(np.array_equal(left, right))
        if a.op == "Identity" or b.op == "Identity":
            one, other = (n.inputs[0] if n.op == "Identity" else name for n, name in ((a, one), (b, other)))
            return self.same(one, other, depth - 1)
        if a.op != b.op or a.op.startswith("Random") or a.graphs or len(a.inputs) != len(b.inputs) or a.attributes != b.attributes:
            return False
        index = (a.outputs.index(one), b.outputs.index(other))
        return index[0] == index[1] and all(self.same(x, y, depth - 1) for x, y in zip(a.inputs, b.inputs, strict=True))
