"""Encoded texts: ids, the pieces and words they stand for, and where these stand in the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .labels import Labelled, Labels, Word

if TYPE_CHECKING:
    from .graph import Value

__all__ = ["Span", "Text", "Tokens"]

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Text:
    """One text of T pieces.

    Attributes:
        text: as it was given.
        ids: (T,) int64, what the model reads.
        pieces: (T) the pieces as the vocabulary spells them.
        spans: (T) characters of ``text`` that a piece stands for, (start, stop); empty for those that were added.
        words: the pieces of each word, in order; every piece is in one.
        unknown: positions of the pieces that stand for what the vocabulary does not have.
        padding: positions that only fill up.
        left_out: how many pieces more the text has, which ``max_length`` cut off.
    """

    text: str
    ids: np.ndarray
    pieces: tuple[str, ...]
    spans: tuple[Span, ...]
    words: tuple[Word, ...]
    unknown: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def span(self, word: Word) -> Span:
        """Characters of ``text`` that a word stands for, without the spaces around it."""
        start, stop = self.spans[word.first][0], self.spans[word.stop - 1][1]
        own = self.text[start:stop]
        return (start + len(own) - len(own.lstrip()), stop - len(own) + len(own.rstrip())) if own.strip() else (start, stop)

    @property
    def shown(self) -> tuple[str, ...]:
        """(T) the pieces, but as they stand in the text where the vocabulary spells something else: bytes, or unknown."""
        parts = [self.text[start:stop].strip() for start, stop in self.spans]
        return tuple(
            part if part and part.casefold() not in piece.casefold() else piece
            for part, piece in zip(parts, self.pieces, strict=True)
        )


@dataclass(frozen=True, eq=False)
class Tokens(Labelled, Sequence[Text]):
    """B encoded texts; what ``explainer.explain`` and ``explainer.predict`` take.

    Attributes:
        texts: one after the other, of different lengths.
    """

    texts: tuple[Text, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: Any) -> Any:
        return Tokens(self.texts[index]) if isinstance(index, slice) else self.texts[index]

    @property
    def ids(self) -> list[np.ndarray]:
        """(B)(T,) int64."""
        return [text.ids for text in self.texts]

    @property
    def pieces(self) -> list[list[str]]:
        """(B)(T) pieces as the vocabulary spells them."""
        return [list(text.pieces) for text in self.texts]

    @property
    def words(self) -> list[list[str]]:
        """(B)(W) words as they stand in the texts."""
        return [[word.text for word in text.words] for text in self.texts]

    @property
    def labels(self) -> Labels:
        """The texts, their pieces and words."""
        return Labels(
            samples=tuple(text.text for text in self.texts),
            steps=tuple(text.shown for text in self.texts),
            words=tuple(text.words for text in self.texts),
            unknown=tuple(text.unknown for text in self.texts),
            left_out=tuple(text.left_out for text in self.texts) if any(text.left_out for text in self.texts) else (),
        )

    def feeds(self, values: Sequence[Value]) -> dict[str, list[np.ndarray]]:
        """The ids for the model's input of ids; ones for one called …mask… (zeros at padding), zeros for …type….

        Raises:
            InputError: there is no input of ids, or there are several that might be.
        """
        whole = [v for v in values if v.shape is None or len(v.shape) in (1, 2)]
        masks = [v.name for v in whole if "mask" in v.name.lower()]
        types = [v.name for v in whole if "type" in v.name.lower() and v.name not in masks]
        found = [v.name for v in whole if v.name not in (*masks, *types) and (len(values) == 1 or not _of_lengths(v))]
        if len(found) != 1:
            raise InputError(
                f"{'no' if not found else 'more than one'} input of this model may take the ids of texts; it has "
                f"{', '.join(map(str, values))}; pass the ids by input name"
            )

        def mask(text: Text) -> np.ndarray:
            out = np.ones(len(text), np.int64)
            out[list(text.padding)] = 0
            return out

        return {
            found[0]: self.ids,
            **{name: [mask(text) for text in self.texts] for name in masks},
            **{name: [np.zeros(len(text), np.int64) for text in self.texts] for name in types},
        }


def _of_lengths(value: Value) -> bool:
    """A second input with no axis but that of samples: how long each text is."""
    return value.shape is not None and len(value.shape) == 1
