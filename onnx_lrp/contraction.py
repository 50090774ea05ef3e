"""Products of two tensors summed over shared axes, and their transposes in each factor: matrix products and Einsum.

One pair of classes gives every layer with weights, attention weights or two signals the same three maps.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ._lazy import tf
from .dims import Dim, broadcast, unify
from .layer import unbroadcast

__all__ = ["Contraction", "Einsum", "MatrixProduct", "axes_of", "einsum_dims", "einsum_sums", "parse", "single", "single_back"]

Tensor = Any
Dims = tuple[Dim, ...] | None


class Contraction(abc.ABC):
    """A bilinear map of two tensors."""

    @abc.abstractmethod
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """The product."""

    @abc.abstractmethod
    def to_a(self, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The transpose in the first factor: a cotangent of the product → a cotangent shaped like ``a``."""

    @abc.abstractmethod
    def to_b(self, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The transpose in the second factor."""

    @abc.abstractmethod
    def dims(self, a: Dims, b: Dims) -> Dims:
        """Dims of the product; axes that meet are unified."""

    @abc.abstractmethod
    def sums(self, a: Dims, b: Dims) -> bool:
        """Whether an entry of the product is a sum of more than one term."""

    @property
    @abc.abstractmethod
    def contracts(self) -> bool:
        """Whether an axis of both factors is summed over, as weights are applied to an operand."""


@dataclass(frozen=True)
class MatrixProduct(Contraction):
    """a @ b by numpy's rules (vectors, broadcast leading axes), each factor's last two axes swapped first if asked."""

    transpose_a: bool = False
    transpose_b: bool = False

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        y = tf.matmul(_rows(a), _columns(b), transpose_a=self.transpose_a, transpose_b=self.transpose_b)
        if a.shape.rank == 1:
            y = tf.squeeze(y, -2)
        return tf.squeeze(y, -1) if b.shape.rank == 1 else y

    def _full(self, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
        s = tf.expand_dims(s, -1) if b.shape.rank == 1 else s
        return tf.expand_dims(s, -2) if a.shape.rank == 1 else s

    def to_a(self, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
        s, rows, b = self._full(s, a, b), _rows(a), _columns(b)
        if self.transpose_a:
            back = tf.matmul(b, s, transpose_a=self.transpose_b, transpose_b=True)
        else:
            back = tf.matmul(s, b, transpose_b=not self.transpose_b)
        back = unbroadcast(back, rows)
        return tf.squeeze(back, 0) if a.shape.rank == 1 else back

    def to_b(self, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
        s, a, columns = self._full(s, a, b), _rows(a), _columns(b)
        if self.transpose_b:
            back = tf.matmul(s, a, transpose_a=True, transpose_b=self.transpose_a)
        else:
            back = tf.matmul(a, s, transpose_a=not self.transpose_a)
        back = unbroadcast(back, columns)
        return tf.squeeze(back, 1) if b.shape.rank == 1 else back

    def dims(self, a: Dims, b: Dims) -> Dims:
        if not a or not b:
            return None
        left = (Dim(), a[0]) if len(a) == 1 else (*a[:-2], *(a[-2:] if not self.transpose_a else a[:-3:-1]))
        right = (b[0], Dim()) if len(b) == 1 else (*b[:-2], *(b[-2:] if not self.transpose_b else b[:-3:-1]))
        unify(left[-1], right[-2])
        out = broadcast([left[:-2], right[:-2]])
        return (*out, *(() if len(a) == 1 else left[-2:-1]), *(() if len(b) == 1 else right[-1:]))

    def sums(self, a: Dims, b: Dims) -> bool:
        inner = []
        if a:
            inner.append(a[-2 if self.transpose_a and len(a) > 1 else -1].size)
        if b:
            inner.append(b[-1 if self.transpose_b or len(b) == 1 else -2].size)
        return 1 not in inner

    @property
    def contracts(self) -> bool:
        return True


def _rows(a: Tensor) -> Tensor:
    return tf.expand_dims(a, 0) if a.shape.rank == 1 else a


def _columns(b: Tensor) -> Tensor:
    return tf.expand_dims(b, 1) if b.shape.rank == 1 else b


@dataclass(frozen=True)
class Einsum(Contraction):
    """An equation of two terms. Each of ``a``, ``b``, ``out``: a letter an axis, '.' for the axes of the ellipsis."""

    a: str
    b: str
    out: str

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return tf.einsum(f"{spelled(self.a)},{spelled(self.b)}->{spelled(self.out)}", a, b)

    def to_a(self, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return _transposed(s, self.out, b, self.b, a, self.a)

    def to_b(self, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return _transposed(s, self.out, a, self.a, b, self.b)

    def dims(self, a: Dims, b: Dims) -> Dims:
        return einsum_dims([(self.a, a), (self.b, b)], self.out)

    def sums(self, a: Dims, b: Dims) -> bool:
        return einsum_sums([(self.a, a), (self.b, b)], self.out)

    @property
    def contracts(self) -> bool:
        return any(label in self.b and label not in self.out for label in self.a)


def parse(equation: str, count: int, *, diagonals: bool = False) -> tuple[list[str], str]:
    """(terms, output) of an equation, the ellipsis as '.', the output in numpy's order if it is implicit.

    Raises:
        ValueError: a diagonal (of an operand, unless ``diagonals``), a wrong number of terms, or an ellipsis that the output drops.
    """
    text = re.sub(r"\s", "", equation).replace("...", ".")
    left, arrow, out = text.partition("->")
    terms = left.split(",")
    if len(terms) != count:
        raise ValueError(f"equation {equation!r} has {len(terms)} terms for {count} operands")
    letters = [c for term in terms for c in term if c != "."]
    if not arrow:
        out = ("." if "." in left else "") + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    if any(len(set(t)) != len(t) for t in (out, *(() if diagonals else terms))):
        raise ValueError(f"equation {equation!r} takes a diagonal")
    if "." in left and "." not in out:
        raise ValueError(f"equation {equation!r} sums over its ellipsis")
    if not set(out) <= {*letters, "."}:
        raise ValueError(f"equation {equation!r} has an output axis that no operand has")
    return terms, out


def spelled(term: str) -> str:
    """A term as an equation has it."""
    return term.replace(".", "...")


def _transposed(s: Tensor, out: str, other: Tensor | None, term: str, x: Tensor, own: str) -> Tensor:
    """The cotangent of ``x`` (axes ``own``), given that of the product and the other factor, if there is one."""
    known = [c for c in own if c != "." and (c in out or c in term)]
    lone = [c for c in own if c != "." and c not in known]  # summed over in x alone: every entry gets a copy
    lead = "..." if "." in out else ""
    back = tf.einsum(f"{spelled(out)},{spelled(term)}->{lead}{''.join(known)}", s, other) if other is not None else None
    if back is None:
        back = tf.einsum(f"{spelled(out)}->{lead}{''.join(known)}", s)
    if not lead and not lone:
        return back  # known is own
    order = axes_of(own, [*("." if "." in own else ""), *known, *lone], x.shape.rank)
    like = tf.transpose(x, order)
    if lone:
        back = tf.reshape(back, tf.concat([tf.shape(back), [1] * len(lone)], 0))
    one = like[(..., *[slice(0, 1)] * len(lone))] if lone else like
    back = tf.broadcast_to(unbroadcast(back, one), tf.shape(like))
    return tf.transpose(back, sorted(range(len(order)), key=order.__getitem__))


def axes_of(own: str, order: Sequence[str], rank: int) -> list[int]:
    """The axes of a term in another order of its labels."""
    width = rank - len(own.replace(".", ""))
    axes: dict[str, list[int]] = {}
    at = 0
    for label in own:
        count = width if label == "." else 1
        axes[label] = list(range(at, at + count))
        at += count
    return [a for label in order for a in axes[label]]


def single(x: Tensor, own: str, out: str) -> Tensor:
    """The equation ``own -> out`` of one operand."""
    return tf.einsum(f"{spelled(own)}->{spelled(out)}", x)


def single_back(s: Tensor, x: Tensor, own: str, out: str) -> Tensor:
    """Its transpose."""
    return _transposed(s, out, None, "", x, own)


def _labelled(terms: Sequence[tuple[str, Dims]]) -> dict[str, Any] | None:
    """Dims by letter, and of the ellipsis; None if a rank is unknown."""
    found: dict[str, Any] = {}
    leads = []
    for term, dims in terms:
        if dims is None:
            return None
        axes = {label: axes_of(term, [label], len(dims)) for label in term}
        for label, places in axes.items():
            if label == ".":
                leads.append([dims[a] for a in places])
            else:
                dim = dims[places[0]]
                found[label] = (
                    unify(found[label], dim)
                    if label in found and dim.labels and found[label].labels
                    else (dim if label not in found or dim.labels else found[label])
                )
    found["."] = broadcast(leads)
    return found


def einsum_dims(terms: Sequence[tuple[str, Dims]], out: str) -> Dims:
    """Dims of an equation's output."""
    found = _labelled(terms)
    if found is None:
        return None
    return tuple(d for label in out for d in (found["."] if label == "." else (found[label],)))


def einsum_sums(terms: Sequence[tuple[str, Dims]], out: str) -> bool:
    """Whether an equation sums over an axis that may be longer than 1."""
    found = _labelled(terms)
    if found is None:
        return any(label not in out for term, _ in terms for label in term)
    return any(label not in out and dim.size != 1 for label, dim in found.items() if label != ".")
