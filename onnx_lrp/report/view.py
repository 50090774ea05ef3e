"""What a report shows of an Explanation, sample by sample, as plain names and numbers; terminal and HTML only lay it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..explanation import Explanation
from ..labels import Labels, fold
from ..targets import Contrast, Spec
from .images import picture
from .rows import Rows, Tokens, behind_ids, columns_of, labelled, named, read_as
from .sample import Passed, Point, Sample
from .wording import readable, visible

__all__ = ["one", "passed", "samples"]

LONGEST = 200  # characters of a sample's name in a heading


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
        before=_before(explanation, b, count, np.array([value for _, value in scores])),
        left_out=labels.left_out[b] if (labels := explanation.labels) is not None and labels.left_out else 0,
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
    name = classes[index] if index < len(classes) else ""
    return visible(name) if name.strip() else f"class {index}"


def _scores(explanation: Explanation, b: int, count: int, classes: Sequence[str]) -> tuple[tuple[tuple[str, float], ...], str]:
    output = explanation.outputs.get(explanation.explained)
    if not isinstance(output, np.ndarray) or output.dtype.kind != "f" or output.ndim != 2 or len(output) != count:
        return (), ""
    if output.shape[1] < 2:
        return (), ""
    return tuple((_class(i, classes), float(v)) for i, v in enumerate(output[b])), _class(int(output[b].argmax()), classes)


def _before(explanation: Explanation, b: int, count: int, scores: np.ndarray) -> bool:
    """Whether relevance started before the softmax or sigmoid whose probabilities, or their logarithms, are the scores."""
    probable = ((scores >= 0) & (scores <= 1)).all() or abs(np.exp(scores).sum() - 1) < 1e-3
    target = explanation.target
    chosen = (target.a, target.b) if isinstance(target, Contrast) else () if isinstance(target, Spec) else (target,)
    indices = [np.ravel(index) for index in chosen]
    if not scores.size or not probable or explanation.settings.get("from_probabilities"):
        return False
    if not indices or any(index.size not in (1, count) for index in indices):
        return False
    shown = [float(scores[int(index[b if index.size > 1 else 0])]) for index in indices]
    return abs(shown[0] - sum(shown[1:]) - float(explanation.seed[b])) > 1e-3  # float16 rounds the shown ones


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
