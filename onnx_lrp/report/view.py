"""What a report shows of an Explanation, sample by sample, as plain names and numbers; terminal and HTML only lay it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..books import Books
from ..errors import InputError
from ..explanation import Explanation
from ..labels import Labels, fold
from ..targets import Spec
from .flow import Flow
from .images import Image, picture
from .rows import Rows, Tokens, behind_ids, columns_of, labelled, named, read_as
from .wording import SIGNS, number, percent, readable, short, visible, warning

__all__ = [
    "SIGNS",
    "Passed",
    "Point",
    "Sample",
    "Tokens",
    "behind_ids",
    "number",
    "one",
    "passed",
    "readable",
    "samples",
    "short",
    "visible",
    "warning",
]

MUCH = 5  # times the score: what a layer absorbs beside it, that it has to be said
LONGEST = 200  # characters of a sample's name in a heading


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
        flow: its way through the layers, where that is known.
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
    flow: Flow | None = None

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
    def before(self) -> bool:
        """Whether the explained score lies before probabilities that are shown."""
        return self.likely and all(abs(value - self.books.seed) > 1e-5 for _, value in self.scores)

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


def passed(explanation: Explanation, *, limit: int | None = None, classes: Sequence[str] = ()) -> list[Passed]:
    """What was kept, a row a tensor, or a tensor and class where several were explained.

    Args:
        limit: at most so many samples.
        classes: names of the classes.
    """
    if not explanation.several:
        count = len(explanation.seed)
        return [
            Passed(
                visible(name) + (", all samples" if sums.size != count else ""),
                "x".join(map(str, explanation.hidden[name].shape)) or "scalar",
                tuple(float(v) for v in sums[:limit]),
            )
            for name, sums in explanation.passed.items()
        ]
    rows = []
    target = np.asarray(explanation.target)
    for k in range(len(explanation.seed)):
        which = _class(int(target[k]), classes) if target.ndim == 1 else f"rank {k + 1}"
        rows += [replace(row, name=f"{row.name}, {which}") for row in passed(explanation.select(k), limit=limit)]
    return rows


def samples(
    explanation: Explanation,
    *,
    tokens: Tokens | None = None,
    classes: Sequence[str] = (),
    titles: Sequence[str] = (),
    unknown: bool = False,
    limit: int | None = None,
) -> list[Sample]:
    """The samples of a batch.

    Args:
        tokens: names of the time steps: of one sample, or a list for each; or encoded texts. None: the explanation's own labels.
        classes: names of the classes.
        titles: a heading for each sample.
        unknown: tokens ending in "?" mark words that the model doesn't know.
        limit: at most so many samples.

    Raises:
        InputError: the tokens don't fit the batch or the length of time.
    """
    if explanation.several:  # one after the other, by sample
        options: Any = {"tokens": tokens, "classes": classes, "titles": titles, "unknown": unknown, "limit": limit}
        each = [samples(explanation.select(k), **options) for k in range(len(explanation.seed))]
        return [sample for row in zip(*each, strict=True) for sample in row]
    explanation, tokens = labelled(explanation, tokens)
    count = len(explanation.seed)
    names = named(explanation, tokens, count)
    shown = range(count if limit is None else min(count, limit))
    return [_sample(explanation, b, names, classes, visible(titles[b]) if titles else None, unknown) for b in shown]


def one(explanation: Explanation, b: int, *, tokens: Tokens | None = None) -> Sample:
    """One sample of a batch.

    Args:
        tokens: names of its time steps, or of those of every sample in the batch.

    Raises:
        InputError: there is no such sample, or the tokens don't fit.
    """
    explanation, given = labelled(explanation, tokens)
    count = len(explanation.seed)
    if not 0 <= b < count:
        raise InputError(f"sample {b}: there are {count}, 0 to {count - 1}")
    if given is not None and all(isinstance(t, str) for t in given):
        own, lengths = [str(t) for t in given], explanation.lengths
        if lengths is not None and len(own) == lengths[b]:  # the others' steps are longer, or cut
            own += ["·"] * (int(lengths.max()) - len(own))
        given = [own] * count
    return _sample(explanation, b, named(explanation, given, count))


def _sample(
    explanation: Explanation,
    b: int,
    names: Mapping[str, Rows],
    classes: Sequence[str] = (),
    title: str | None = None,
    unknown: bool = False,
) -> Sample:
    count = len(explanation.seed)
    points = tuple(_point(explanation, name, b, count, names.get(name)) for name in explanation.relevance)
    scores, predicted = _scores(explanation, b, count, classes)
    settings = (f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in explanation.settings.items() if v is not False)
    return Sample(
        title=title if title is not None else _title(explanation.labels, b, count),
        explained=_explained(explanation, b, count, classes, bool(scores)),
        scores=scores,
        predicted=predicted,
        books=readable(explanation.books(b), [point.name for point in points]),
        points=points,
        settings=", ".join(settings),
        unknown=unknown or any(rows.unknown and rows.unknown[b] for rows in names.values()),
        method=explanation.method,
    )


def _title(labels: Labels | None, b: int, count: int) -> str:
    number = f"sample {b + 1} of {count}" if count > 1 else ""
    if labels is None or not labels.samples:
        return number
    name = labels.samples[b]
    name = visible(name if len(name) <= LONGEST else name[: LONGEST - 1] + "…")
    return name if labels.of_text or not number else f"{name} ({number})"


def _point(explanation: Explanation, name: str, b: int, count: int, names: Rows | None) -> Point:
    steps = explanation.per_step(name).astype(np.float64)
    row = b if len(steps) == count else 0
    batch, time = explanation.axes[name]
    length = None if explanation.lengths is None or time is None else int(explanation.lengths[b])
    array = np.asarray(explanation.relevance[name], np.float64)
    if batch is not None:
        time = None if time is None else time - (time > batch)
        array = np.take(array, row, batch)

    def rows_first(one: np.ndarray) -> np.ndarray:
        return one.reshape(1, 1) if one.ndim == 0 else np.moveaxis(one, time or 0, 0).reshape(steps.shape[1], -1)

    matrix = rows_first(array)
    read = explanation.inputs.get(read_as(explanation, name))
    values = whole = None
    if isinstance(read, np.ndarray) and read.shape == explanation.relevance[name].shape and read.dtype.kind in "fiu":
        whole = np.asarray(read if batch is None else np.take(read, row, batch), np.float64)
        values = rows_first(whole)
    embedded = behind_ids(explanation, name)
    columns = columns_of(explanation, name)
    image = None
    if time is None and names is None and not embedded and not (columns and len(columns) == matrix.shape[1]):
        image = picture(array, whole)
    unit = names.unit if names else "token" if embedded else "step" if time is not None else _unit(array.ndim)
    labels = names.of(b) if names else tuple(str(i) for i in range(steps.shape[1]))
    relevance = steps[row]
    if length is not None:  # a shorter sequence than the longest
        relevance, matrix = relevance[:length], matrix[:length]
        values = None if values is None else values[:length]
    if names and names.words:
        covered = names.words[b][-1].stop
        relevance, matrix = fold(relevance[:covered], names.words[b]), fold(matrix[:covered], names.words[b])
        values = None  # of pieces
    labels = labels[: len(relevance)]
    if unit == "feature" and len(columns) == len(labels):
        labels, columns = columns, ()
    if len(columns) != matrix.shape[1]:
        columns = ()
    word = "" if columns else "column" if unit == "row" else "feature"
    if not columns and array.ndim > 2 and not embedded:  # places in what is left of the axes
        columns = tuple(",".join(map(str, place)) for place in np.ndindex(*np.delete(array.shape, time or 0)))
    origins = tuple(n for n in explanation.origins.get(name, ()) if n != name)
    title = visible(name) + (f" (from {', '.join(map(visible, origins))})" if origins else "")
    return Point(
        title,
        unit,
        labels,
        relevance,
        matrix if matrix.shape[1] > 1 else None,
        columns,
        names.heading if names else "",
        values=values,
        embedded=embedded,
        image=image,
        word=word,
    )


def _unit(rank: int) -> str:
    """What the entries along the first axis are called where it is neither time nor a text."""
    return "feature" if rank <= 1 else "row" if rank == 2 else "channel"


def _class(index: int, classes: Sequence[str]) -> str:
    return visible(classes[index]) if index < len(classes) else f"class {index}"


def _scores(explanation: Explanation, b: int, count: int, classes: Sequence[str]) -> tuple[tuple[tuple[str, float], ...], str]:
    output = explanation.outputs.get(explanation.explained)
    if not isinstance(output, np.ndarray) or output.dtype.kind != "f" or output.ndim != 2 or len(output) != count:
        return (), ""
    if output.shape[1] < 2:
        return (), ""
    return tuple((_class(i, classes), float(v)) for i, v in enumerate(output[b])), _class(int(output[b].argmax()), classes)


def _explained(explanation: Explanation, b: int, count: int, classes: Sequence[str], vector: bool) -> str:
    name, target = visible(explanation.explained), explanation.target
    said = explanation.settings.get("target", "")  # of onnx_lrp.targets
    if isinstance(target, Spec):
        return f"{name}, {visible(target.words(lambda index: _class(index, classes), b))}"
    target = np.atleast_1d(target)
    where = f", {visible(said)}" if said.startswith("step ") else ""
    if (vector or where) and target.ndim == 1 and target.size in (1, count):
        index = int(target[b if target.size > 1 else 0])
        return f"{name}{where.split(', class')[0]}" + (f", {_class(index, classes)}" if index >= 0 else ", which is padding here")
    if target.ndim > 1:
        return f"{name}, the chosen class at every position"
    return name
