"""Names of what an explanation is about: its samples, time steps, words and features; and inputs that bring such names along."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    from .graph import Value

__all__ = ["Labelled", "Labels", "Word", "fold"]


@dataclass(frozen=True)
class Word:
    """A word of a text: the pieces ``first`` to ``stop`` - 1."""

    text: str
    first: int
    stop: int


@dataclass(frozen=True)
class Labels:
    """Names, each empty where there are none. B samples of T_b steps and F features.

    Attributes:
        samples: (B) the texts, or what ``--id`` calls a series.
        steps: (B)(T_b) pieces of a text, times of a series.
        time: what the steps of a series are called, unit included, such as "time [s]".
        words: (B)(W_b) of texts: which pieces are one word; in order, and every piece is in one.
        unknown: (B) of texts: positions of the pieces that the model does not know.
        left_out: (B) of texts: how many pieces the tokenizer cut off; empty where it cut none.
        features: (F) names of the features of a step.
        units: (F) their units, "" where a feature has none.
        also: internal tensors with the same features as the input, each scaled for itself.
    """

    samples: tuple[str, ...] = ()
    steps: tuple[tuple[str, ...], ...] = ()
    time: str = ""
    words: tuple[tuple[Word, ...], ...] = ()
    unknown: tuple[tuple[int, ...], ...] = ()
    left_out: tuple[int, ...] = ()
    features: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """(F) names of the features with their units: "pressure [bar]"."""
        units = self.units or ("",) * len(self.features)
        return tuple(f"{name} [{unit}]" if unit else name for name, unit in zip(self.features, units, strict=True))

    @property
    def of_text(self) -> bool:
        """Whether the steps are pieces of texts."""
        return bool(self.unknown)

    def to_dict(self) -> dict[str, Any]:
        """As lists and text, without what is empty."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}
        if "words" in found:
            found["words"] = [[[w.text, w.first, w.stop] for w in row] for row in self.words]
        return found

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Labels:
        """What :meth:`to_dict` made, also behind JSON."""
        found: dict[str, Any] = {f.name: raw[f.name] for f in fields(cls) if f.name in raw}
        for name in ("samples", "left_out", "features", "units", "also"):
            found[name] = tuple(found.get(name, ()))
        for name in ("steps", "unknown"):
            found[name] = tuple(tuple(row) for row in found.get(name, ()))
        found["words"] = tuple(tuple(Word(*entry) for entry in row) for row in found.get("words", ()))
        return cls(**found)


class Labelled(abc.ABC):
    """Inputs for :meth:`Explainer.explain` that know their names; the explanation keeps these as ``labels``."""

    @property
    @abc.abstractmethod
    def labels(self) -> Labels:
        """Names of the samples, steps and features."""

    @abc.abstractmethod
    def feeds(self, values: Sequence[Value]) -> dict[str, list[np.ndarray]]:
        """{graph input: B arrays, each without the axis of samples}, of the inputs that these are for.

        Args:
            values: the model's inputs.

        Raises:
            InputError: the model takes something else.
        """


def fold(array: np.ndarray, words: Sequence[Word]) -> np.ndarray:
    """Sums over the pieces of each word: (T, …) → (W, …).

    Raises:
        InputError: the words don't cover the T pieces one after the other.
    """
    firsts = [word.first for word in words]
    if [*firsts, len(array)] != [0, *(word.stop for word in words)] or any(word.first >= word.stop for word in words):
        raise InputError(f"{len(words)} words don't cover {len(array)} pieces, each in one word")
    return np.add.reduceat(array, firsts, axis=0)
