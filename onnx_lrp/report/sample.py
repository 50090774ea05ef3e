"""What a report shows of one sample, as plain names and numbers: where relevance arrived, the scores, the books."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..books import Books
from .flow import Flow
from .images import Image
from .wording import SIGNS, number, percent, warning

__all__ = ["Passed", "Point", "Sample"]

MUCH = 5  # times the score: what a layer absorbs beside it, that it has to be said


@dataclass(frozen=True, eq=False)
class Point:
    """One attribution point of one sample.

    Attributes:
        unit: what a row is: "word", "piece" (of a word), "token" (an id without its word), "step" (of time), "feature", or of
            other axes "row" or "channel".
        labels: name of each of the T rows.
        relevance: (T,) summed over features.
        features: (T, F), None where a row is one number.
        columns: (F) names of the features with their units, () where they have none.
        word: what to say before such a name, or before a feature's number: "feature", "column"; "" where names are known.
        heading: what the rows are called, where that is not the unit: the time column of a series.
        values: what the model read there, (T, F), or (T, 1) where a row is one number; None for internal tensors.
        embedded: the features are an embedding's, which mean nothing one by one.
        image: the same by channel, row and column, where it looks like a picture.
    """

    name: str
    unit: str
    labels: tuple[str, ...]
    relevance: np.ndarray
    features: np.ndarray | None
    columns: tuple[str, ...] = ()
    heading: str = ""
    values: np.ndarray | None = None
    embedded: bool = False
    image: Image | None = None
    word: str = ""

    @property
    def is_text(self) -> bool:
        """Whether the rows are read one after the other as a text."""
        return self.unit in ("word", "piece")

    def column(self, k: int) -> str:
        """The name of the k-th feature, or its number."""
        return self.columns[k] if self.columns else str(k)

    @property
    def largest(self) -> float:
        """The largest size of a row's relevance; 1 where all are zero."""
        return float(np.abs(self.relevance).max(initial=0)) or 1.0


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample: what was explained, where relevance went, and the books.

    Attributes:
        explained: the score in words, such as "logits, class 1 (positive)".
        scores: [(class, score)] of the explained output, empty where it is no vector of classes.
        predicted: the class with the largest score, "" where there are no scores.
        books: where relevance started and ended, by the names that are shown.
        before: the explained score lies before probabilities, which are what the scores show.
        flow: its way through the layers, where that is known.
        left_out: how many tokens of a text were cut off.
    """

    title: str
    explained: str
    scores: tuple[tuple[str, float], ...]
    predicted: str
    books: Books
    points: tuple[Point, ...]
    settings: str
    unknown: bool = False
    method: str = "lrp"
    before: bool = False
    flow: Flow | None = None
    left_out: int = 0

    @property
    def signs(self) -> tuple[str, str]:
        """What a positive and a negative number say; the second is empty where there are none."""
        return SIGNS.get(self.method, SIGNS["lrp"])

    @property
    def instead(self) -> str:
        """Empty for LRP; of a method that keeps no books, what there is to say instead."""
        if self.method == "lrp":
            return ""
        name = self.method.replace("_", " ")
        if np.isnan(self.books.residual):
            return f"{name}: no relevance is conserved, so there are no books to close."
        rest = number(self.books.residual)
        return f"{name}: score - score of the baseline - sum = {rest} (completeness); layers keep no books."

    @property
    def likely(self) -> bool:
        """Whether the scores are probabilities: how sure the model is."""
        values = [value for _, value in self.scores]
        return bool(values) and min(values) >= 0 and abs(sum(values) - 1) < 1e-3

    def written(self, value: float) -> str:
        """One of the scores; probabilities in percent."""
        return percent(value) if self.likely else number(value)

    @property
    def cut(self) -> str:
        """What to bear in mind where the model did not read the whole text, else empty."""
        if not self.left_out:
            return ""
        more = "1 token more was" if self.left_out == 1 else f"{self.left_out} tokens more were"
        return f"The model did not read all of this text: {more} cut off."

    @property
    def cancels(self) -> str:
        """What to bear in mind where much more relevance moved than there was score, else empty."""
        taken = {name: sum(kinds.values()) for name, kinds in self.books.ledger.items()}
        name = max(taken, key=lambda n: abs(taken[n]), default="")
        if self.method != "lrp" or not name or not MUCH * abs(self.books.seed) < abs(taken[name]) < np.inf:
            return ""
        return (
            f"Much more moved than the score: {name} absorbed {number(taken[name])}, and the inputs got as much more or less. "
            "Compare sizes with each other here, not with the score."
        )

    @property
    def note(self) -> str:
        """A warning where the explained score is negative, else empty."""
        return "" if self.method == "sensitivity" else warning(self.books.seed)


@dataclass(frozen=True)
class Passed:
    """What passed one internal tensor that was kept.

    Attributes:
        shape: of what is kept, the axis of classes left out.
        sums: by sample, as far as they are shown; of all together where the tensor does not tell them apart.
    """

    name: str
    shape: str
    sums: tuple[float, ...]
