"""What the rows and columns of an attribution point are called: words, pieces, steps, features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..explanation import Explanation
from ..labels import Labelled, Word
from .wording import visible

__all__ = ["Rows", "Tokens", "behind_ids", "columns_of", "in_pieces", "labelled", "named", "read_as"]

Tokens = Sequence[str] | Sequence[Sequence[str]] | Labelled


def behind_ids(explanation: Explanation, name: str) -> bool:
    """Whether an attribution point is an embedding: its rows are the ids' positions, be there a time axis or not."""
    origins = [explanation.inputs[n] for n in explanation.origins.get(name, ()) if n in explanation.inputs]
    ids = bool(origins) and all(np.asarray(a).dtype.kind in "iu" for a in origins)
    return ids and explanation.relevance[name].ndim > 2


@dataclass(frozen=True, eq=False)
class Rows:
    """Names of the steps of one attribution point, by sample."""

    labels: Sequence[Sequence[str]]
    unit: str
    words: Sequence[Sequence[Word]] = ()
    unknown: Sequence[Sequence[int]] = ()
    heading: str = ""

    def of(self, b: int) -> tuple[str, ...]:
        unknown = set(self.unknown[b]) if self.unknown else set()
        if not self.words:
            return tuple(name + "?" if t in unknown else name for t, name in enumerate(self.labels[b]))
        return tuple(
            visible(word.text) + ("?" if not unknown.isdisjoint(range(word.first, word.stop)) else "") for word in self.words[b]
        )


def labelled(explanation: Explanation, tokens: Any) -> tuple[Explanation, Any]:
    """With the labels of encoded texts as the explanation's own."""
    return (replace(explanation, labels=tokens.labels), None) if isinstance(tokens, Labelled) else (explanation, tokens)


def in_pieces(explanation: Explanation) -> Explanation:
    """Without its words: pieces are shown then."""
    labels = explanation.labels
    return explanation if labels is None else replace(explanation, labels=replace(labels, words=()))


def _lengths(explanation: Explanation) -> dict[str, int]:
    """{attribution point with steps to name: how many}."""
    return {
        p: explanation.per_step(p).shape[1]
        for p, (_, time) in explanation.axes.items()
        if time is not None or behind_ids(explanation, p)
    }


def named(explanation: Explanation, tokens: Any, count: int) -> dict[str, Rows]:
    """{attribution point: names of its steps} for every point that the tokens, or else the explanation's own labels, fit."""
    own = explanation.labels
    if tokens is None:
        if own is None or len(own.steps) != count:
            return {}
        longest = max(map(len, own.steps))
        labels = [[visible(t) for t in row] + ["·"] * (longest - len(row)) for row in own.steps]
        unit = "word" if own.words else "piece" if own.of_text else "step"
        rows = Rows(labels, unit, own.words, own.unknown, visible(own.time))
        return {p: rows for p, n in _lengths(explanation).items() if n == longest}
    lists = [[str(t) for t in tokens]] if all(isinstance(t, str) for t in tokens) else [[str(t) for t in row] for row in tokens]
    if len(lists) != count:
        raise InputError(f"tokens for {len(lists)} sample(s), but there are {count}")
    longest = max(len(row) for row in lists)
    lengths = _lengths(explanation)
    if longest not in lengths.values():
        known = ", ".join(f"{visible(p)} has {n}" for p, n in lengths.items()) or "no attribution point has a time axis"
        raise InputError(f"{longest} tokens don't fit the steps: {known}")
    padded = [[visible(t) for t in row] + ["·"] * (longest - len(row)) for row in lists]
    return {p: Rows(padded, "word") for p, n in lengths.items() if n == longest}


def columns_of(explanation: Explanation, name: str) -> tuple[str, ...]:
    """Names of the features of a graph input, also where they are scaled one by one; other points have features of their own."""
    labels = explanation.labels
    known = labels is not None and (name in explanation.inputs or name in labels.also)
    return tuple(map(visible, labels.columns)) if labels is not None and known else ()


def read_as(explanation: Explanation, name: str) -> str:
    """The tensor whose numbers a reader knows: of a scaled input the input itself."""
    scaled = explanation.labels is not None and name in explanation.labels.also
    sources = explanation.origins.get(name, ())
    return sources[0] if scaled and len(sources) == 1 else name
