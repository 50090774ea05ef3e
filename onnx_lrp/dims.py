"""Symbolic dimensions: which axis of a tensor is the batch, which the time, also behind a Reshape.

A dimension is an ordered product of labels (outermost first). Operators unify the labels of axes that must be equal, so one
piece of evidence (axis 1 of an LSTM's input is the batch) names that axis in every tensor of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Dim", "Label", "Place", "apart", "broadcast", "fresh", "merged", "reshape", "split_axis", "unify"]

Place = tuple[int, int | None, bool]  # of a label: see split_axis


DIFFERENCE = "?"  # name of a label that stands for a difference: unlike a size, it may be 0


class Label:
    """One axis as it entered the graph. Mutable on purpose: a node of a union-find forest."""

    __slots__ = ("_parent", "name", "offset", "size")

    def __init__(self, size: int | None = None, name: str = "", offset: tuple[Dim, int] | None = None) -> None:
        self.size = size
        self.name = name
        self.offset = offset  # (dim, n) if it is that dim and n more
        self._parent: Label | None = None

    @property
    def root(self) -> Label:
        """The representative of all labels unified with this one."""
        node = self
        while node._parent is not None:
            node = node._parent
        return node

    def join(self, other: Label) -> None:
        """Make both labels one, unless their known sizes contradict."""
        a, b = self.root, other.root
        if a is b or (a.size is not None and b.size is not None and a.size != b.size):
            return
        if a.size is None:
            a.size = b.size
        a.name = a.name or b.name
        b._parent = a


@dataclass(frozen=True, eq=False)
class Dim:
    """One axis: the product of ``labels``, outermost first; no label at all is an axis of length 1."""

    labels: tuple[Label, ...] = ()

    @property
    def roots(self) -> Sequence[Label]:
        """The labels as they stand after all unifications."""
        return tuple(label.root for label in self.labels)

    @property
    def size(self) -> int | None:
        """The length if every label's is known, else None."""
        sizes = [label.size for label in self.roots]
        return None if None in sizes else math.prod(s for s in sizes if s is not None)

    def has(self, label: Label | None) -> bool:
        return label is not None and label.root in self.roots

    def same(self, other: Dim) -> bool:
        return tuple(self.roots) == tuple(other.roots)

    def __str__(self) -> str:
        known = self.size
        if known is not None and len(self.labels) < 2:
            return str(known)
        return "*".join(str(r.size) if r.size is not None else (r.name or "?") for r in self.roots)

    # Arithmetic on the values of shape tensors. What is no product of known labels becomes a new, unknown one.
    def __mul__(self, other: Dim | int) -> Dim:
        other = other if isinstance(other, Dim) else fresh(int(other))
        return Dim(self.labels + other.labels)

    def __rmul__(self, other: int) -> Dim:
        return Dim(fresh(int(other)).labels + self.labels)

    def __floordiv__(self, other: Dim | int) -> Dim:
        size, by = self.size, other.size if isinstance(other, Dim) else int(other)
        if by == 1:
            return self
        left = list(self.labels)
        for part in other.roots if isinstance(other, Dim) else (other,):  # what was multiplied in is taken out again
            at = next((i for i in reversed(range(len(left))) if left[i].root is part or left[i].root.size == part), None)
            if at is None:
                return fresh(size // by if size is not None and by else None)
            del left[at]
        return Dim(tuple(left))

    __truediv__ = __floordiv__

    def __add__(self, other: Dim | int) -> Dim:
        size, more = self.size, other.size if isinstance(other, Dim) else int(other)
        if more is None:
            return fresh(None)
        if size is not None:
            return self if more == 0 else fresh(size + more)
        base, n = self, more
        if len(self.labels) == 1 and self.labels[0].offset is not None:
            base, n = self.labels[0].offset[0], more + self.labels[0].offset[1]
        if n == 0:  # a step put in front of a series without its last one makes the series' length again
            return base
        return Dim((Label(None, DIFFERENCE if n < 0 else "", (base, n)),))

    __radd__ = __add__

    def __sub__(self, other: Dim | int) -> Dim:
        if isinstance(other, Dim) and self.labels and other.same(self):
            return fresh(0)
        less = other.size if isinstance(other, Dim) else int(other)
        return fresh(None, DIFFERENCE) if less is None else self + -less

    def __rsub__(self, other: int) -> Dim:
        return fresh(int(other) - self.size if self.size is not None else None, DIFFERENCE)


def fresh(size: int | None = None, name: str = "") -> Dim:
    """A dimension nobody else has; length 1 has no label, as it broadcasts."""
    return Dim() if size == 1 else Dim((Label(size, name),))


def unify(a: Dim, b: Dim) -> Dim:
    """Both are known to be equal: join their labels; returns the one that says more."""
    if len(a.labels) == len(b.labels):
        for left, right in zip(a.labels, b.labels, strict=True):
            left.join(right)
        return a
    return a if len(a.labels) > len(b.labels) else b


def broadcast(shapes: Iterable[Sequence[Dim]]) -> tuple[Dim, ...]:
    """The broadcast shape (numpy's rule); axes that meet are unified."""
    shapes = [tuple(s) for s in shapes]
    rank = max((len(s) for s in shapes), default=0)
    out: list[Dim] = []
    for axis in range(-rank, 0):
        result = Dim()
        for shape in shapes:
            if len(shape) < -axis:
                continue
            dim = shape[axis]
            if not dim.labels:
                continue
            if not result.labels or (result.size == 1 and dim.size != 1):
                result = dim
            elif dim.size != 1 or result.size == 1:
                result = unify(result, dim)
        out.append(result)
    return tuple(out)


def _take(pool: list[Label], want: Dim | int, *, back: bool) -> tuple[Label, ...] | None:
    """Remove from one end of ``pool`` the labels that make up ``want``; None if they don't."""
    end = -1 if back else 0
    if isinstance(want, Dim):
        labels = tuple(want.roots)
        if not labels:
            want = 1
        elif len(pool) >= len(labels):
            part = pool[-len(labels) :] if back else pool[: len(labels)]
            if tuple(p.root for p in part) == labels:
                del pool[-len(labels) if back else 0 : None if back else len(labels)]
                return tuple(part)
        if isinstance(want, Dim):
            if want.size is None:
                return None
            want = want.size
    if want == 0:
        return None
    if want == 1:
        return (pool.pop(end),) if pool and pool[end].root.size == 1 else ()
    taken: list[Label] = []
    left = want
    while left > 1:
        if not pool:
            return None
        label = pool[end]
        size = label.root.size
        if size is None:  # an exporter baked the traced length in
            if taken:
                return None
            pool.pop(end)
            return (label,)
        if size and left % size == 0:
            taken.insert(0 if back else len(taken), pool.pop(end))
            left //= size
        elif size and size % left == 0:
            outer, inner = Label(size // left), Label(left)
            pool[end] = outer if back else inner
            if not back:
                outer, inner = Label(left), Label(size // left)
                pool[end] = inner
                taken.append(outer)
            else:
                taken.insert(0, inner)
            left = 1
        else:
            return None
    return tuple(taken)


def reshape(shape: Sequence[Dim], target: Sequence[Dim | int]) -> tuple[Dim, ...]:
    """The dimensions of a tensor of ``shape`` after a row-major Reshape to ``target`` (one entry may be -1)."""
    pool = [label for dim in shape for label in dim.labels]
    parts: list[tuple[Label, ...] | None] = [None] * len(target)
    front, back = 0, len(target)
    while front < back:
        want = target[front]
        taken = None if isinstance(want, int) and want < 0 else _take(pool, want, back=False)
        if taken is None:
            break
        parts[front] = taken
        front += 1
    while back > front:
        want = target[back - 1]
        taken = None if isinstance(want, int) and want < 0 else _take(pool, want, back=True)
        if taken is None:
            break
        parts[back - 1] = taken
        back -= 1
    if back - front == 1:
        parts[front] = tuple(pool)
        pool = []
    out: list[Dim] = []
    for part, want in zip(parts, target, strict=True):
        if part is not None:
            out.append(Dim(part))
        elif isinstance(want, Dim):
            out.append(want)
        else:
            out.append(fresh(want if want >= 0 else None))
    # leftover labels of length 1 must not vanish when they are the only trace of a batch of one
    if pool and all(label.root.size == 1 for label in pool):
        for index, dim in enumerate(out):
            if not dim.labels and pool:
                out[index] = Dim((pool.pop(0),))
    return tuple(out)


def split_axis(shape: Sequence[Dim], label: Label | None) -> Place | None:
    """Where ``label`` stands: (axis, length of what is inside it on that axis or None, whether anything is outside it)."""
    if label is None:
        return None
    for axis, dim in enumerate(shape):
        roots = dim.roots
        if label.root in roots:
            at = roots.index(label.root)
            inner = Dim(dim.labels[at + 1 :]).size
            outer = any(r.size != 1 for r in roots[:at])
            return axis, inner, outer
    return None


def apart(array: np.ndarray, place: Place, count: int) -> np.ndarray:
    """An array whose ``count`` samples may share their axis with others, that axis as three: outside, samples, inside."""
    axis, inner, outer = place
    size = array.shape[axis]
    inside = inner or 1 if outer else size // count
    return array.reshape(*array.shape[:axis], size // (count * inside), count, inside, *array.shape[axis + 1 :])


def merged(array: np.ndarray, place: Place) -> np.ndarray:
    """The three axes of :func:`apart` as one again."""
    axis = place[0]
    return array.reshape(*array.shape[:axis], math.prod(array.shape[axis : axis + 3]), *array.shape[axis + 3 :])
