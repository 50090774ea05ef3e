"""Targets beyond a class index: time steps, differences of classes, all classes at once, another output, any seed.

Each function returns a value to pass as ``target``. Positive relevance always means *raises the explained score*.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .errors import InputError

__all__ = [
    "AllClasses",
    "Contrast",
    "Output",
    "Seed",
    "Spec",
    "Step",
    "TopK",
    "all_classes",
    "by_sample",
    "contrast",
    "from_text",
    "output",
    "seed",
    "step",
    "top_k",
]


@dataclass(frozen=True, eq=False)
class Spec(abc.ABC):
    """What to explain, where that is not one class index a sample; a value that can be compared, printed and saved."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @property
    def kind(self) -> str:
        """Its name in saved files."""
        return next(name for name, kind in KINDS.items() if kind is type(self))

    @abc.abstractmethod
    def __str__(self) -> str:
        """In words, as reports say it."""

    def words(self, named: Callable[[int], str], sample: int) -> str:
        """In words for one sample; ``named`` gives a class its name."""
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        """As lists and numbers, ready for JSON.

        Raises:
            InputError: a function is part of it.
        """

        def plain(value: Any) -> Any:
            if isinstance(value, Spec):
                return value.to_dict()
            if callable(value):
                raise InputError("a seed that is a function has no form that can be saved")
            return value.tolist() if isinstance(value, np.ndarray) else value

        return {"target": self.kind, **{f.name: plain(getattr(self, f.name)) for f in fields(self)}}

    @staticmethod
    def from_dict(raw: Mapping[str, Any]) -> Spec:
        """What :meth:`to_dict` wrote."""
        kind = KINDS[raw["target"]]
        given = {k: tuple(v) if isinstance(v, list) and k == "steps" else v for k, v in raw.items() if k != "target"}
        return kind(**{k: np.asarray(v) if isinstance(v, list) else v for k, v in given.items()})


@dataclass(frozen=True, eq=False)
class Step(Spec):
    """The scores at some positions in time; ``index``: None (the class predicted there), a class, or (B,) classes; ``strict``:
    whether a step that the output does not have is an error, as it is not for the shorter ones of a list of sequences.
    """

    steps: tuple[int, ...]
    index: Any = None
    strict: bool = True

    def __str__(self) -> str:
        word = "step" if len(self.steps) == 1 else "steps"
        chosen = "" if self.index is None else f", {_named(self.index)}"
        return f"{word} {', '.join(map(str, self.steps))}{chosen}"


@dataclass(frozen=True, eq=False)
class Contrast(Spec):
    """The score of class ``a`` minus that of class ``b``."""

    a: Any
    b: Any

    def __str__(self) -> str:
        return f"{_named(self.a)} - {_named(self.b)}"

    def words(self, named: Callable[[int], str], sample: int) -> str:
        a, b = (np.ravel(index) for index in (self.a, self.b))
        return " - ".join(named(int(index[sample if index.size > 1 else 0])) for index in (a, b))


@dataclass(frozen=True, eq=False)
class AllClasses(Spec):
    """Every class by itself."""

    def __str__(self) -> str:
        return "all classes"


@dataclass(frozen=True, eq=False)
class TopK(Spec):
    """The ``k`` highest classes of every sample."""

    k: int

    def __str__(self) -> str:
        return f"top {self.k}"


@dataclass(frozen=True, eq=False)
class Seed(Spec):
    """A seed tensor, or a function that makes it of the scores."""

    value: Any

    def __str__(self) -> str:
        return "a given seed"


@dataclass(frozen=True, eq=False)
class Output(Spec):
    """A target at another output of the graph."""

    name: str
    target: Any = None

    def __str__(self) -> str:
        return f"output {self.name}"


KINDS: dict[str, type[Spec]] = {
    "all": AllClasses,
    "contrast": Contrast,
    "output": Output,
    "seed": Seed,
    "step": Step,
    "top": TopK,
}


def by_sample(target: Any) -> bool:
    """Whether a target has classes of its own for the samples of one batch."""
    if isinstance(target, Spec):
        return any(by_sample(getattr(target, f.name)) for f in fields(target) if f.name not in ("steps", "value"))
    return isinstance(target, list | tuple | np.ndarray) and np.ndim(target) > 0


def _named(index: Any) -> str:
    return f"class {int(index)}" if np.ndim(index) == 0 else "a class for each sample"


def _classes(index: Any) -> Any:
    """A class or an array of classes; whether they exist is known when the model is."""
    try:
        array = np.asarray(index)
    except ValueError as error:
        raise InputError(f"classes are no array: {error}") from error
    if array.dtype.kind == "f" and np.all(array == np.round(array)):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise InputError(f"expected a class index or an array of them, got {index!r}")
    return int(array) if array.ndim == 0 else array.astype(np.int64)


def _integer(what: str, value: Any) -> int:
    if isinstance(value, bool) or np.ndim(value) != 0 or int(value) != value:
        raise InputError(f"{what} must be an integer, got {value!r}")
    return int(value)


def step(t: Any, index: Any = None) -> Step:
    """The score at time step ``t`` of an output with a score at every position.

    Args:
        t: a step, or several that are explained together. A negative one counts from each sample's own end: -1 is its last step
            that is no padding. A step behind a sample's own end is padding: its seed, and so its relevance, is zero.
        index: a class, or (B,) classes; None: the class predicted there.

    Raises:
        InputError: not integers.
    """
    steps = tuple(_integer("a step", s) for s in np.atleast_1d(np.asarray(t)).tolist())
    if not steps:
        raise InputError("no step given")
    return Step(steps, None if index is None else _classes(index))


def contrast(a: Any, b: Any) -> Contrast:
    """The score of class ``a`` minus the score of class ``b``: why this one rather than that one.

    Args:
        a, b: a class, or (B,) classes.

    Raises:
        InputError: not integers.
    """
    return Contrast(_classes(a), _classes(b))


def all_classes() -> AllClasses:
    """Every class by itself, from one forward pass.

    The explanation has a leading axis of K classes: relevance (K, …), seed, absorbed and residual (K, B). ``target`` is
    ``arange(K)``, and ``explanation.select(k)`` the explanation of one class.
    """
    return AllClasses()


def top_k(k: int) -> TopK:
    """The ``k`` highest classes of every sample, the highest first, with a leading axis as all_classes has; ``target`` is (k, B).

    Raises:
        InputError: not a positive integer.
    """
    if _integer("k", k) < 1:
        raise InputError(f"k must be positive, got {k}")
    return TopK(int(k))


def seed(value: Any) -> Seed:
    """Relevance starts from any tensor of the explained scores' shape.

    Args:
        value: an array, or a function that is given the scores as an array and returns one; it costs a second forward pass.

    Raises:
        InputError: not numbers, or not finite ones.
    """
    if callable(value):
        return Seed(value)
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or not np.all(np.isfinite(array)):
        raise InputError("a seed is an array of finite numbers")
    return Seed(array)


def output(name: str, target: Any = None) -> Output:
    """Another graph output for this call, with a target of its own. The plan of every output is made once and kept.

    Raises:
        InputError: its target is an output as well.
    """
    if isinstance(target, Output):
        raise InputError("an output's target can't be another output")
    return Output(name, target)


def from_text(text: str) -> Any:
    """A target as people type it: ``2``, ``1,0,1`` (one a sample), ``step:3``, ``step:-1:2``, ``contrast:0,1``, ``all``, ``top:3``.

    Raises:
        InputError: it is none of these.
    """
    kind, *parts = text.split(":")
    try:
        if kind == "step" and len(parts) in (1, 2):
            return step(*map(_numbers, parts))
        if kind == "contrast" and len(parts) == 1:
            a, b = map(int, parts[0].split(","))
            return contrast(a, b)
        if kind == "top" and len(parts) == 1:
            return top_k(int(parts[0]))
        return all_classes() if text == "all" else _numbers(text)
    except ValueError as error:  # InputError is one
        raise InputError(
            f"{text}: expected a class index, one a sample as in 1,0,1, step:3, step:-1:2, contrast:0,1, all or top:3"
        ) from error


def _numbers(text: str) -> int | list[int]:
    numbers = [int(part) for part in text.split(",")]
    return numbers if "," in text else numbers[0]
