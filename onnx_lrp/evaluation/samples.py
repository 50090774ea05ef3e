"""The samples to evaluate on: rows of a dataset, or what a caller passes, each by itself, with the labels that are known."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ragged
from ..dataset.decoding import Decoder
from ..dataset.engine import Engine
from ..dataset.reading import Dataset, inputs_of
from ..dataset.rows import Encode
from ..errors import InputError
from ..explainer import Explainer
from ..inputs import prepare_inputs
from ..labels import Labelled
from ..lengths import lens
from ..seeds import scores_of

__all__ = ["Samples", "read_samples"]

REASONS, OTHERS = 5, "other reasons"  # a reason quotes the row: there may be as many as rows


@dataclass(frozen=True, eq=False)
class Samples:
    """N samples.

    Attributes:
        rows: (N) {graph input: array of one sample, its axis of samples kept, with one entry}.
        labels: (N,) the true classes, None where they are not known.
        left_out: how many rows can't be used, by reason, the commonest ones.
    """

    rows: list[dict[str, np.ndarray]]
    labels: np.ndarray | None
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.rows)


def read_samples(
    explainer: Explainer,
    dataset: Any,
    *,
    labels: Any = None,
    inputs: Mapping[str, str | Sequence[str]] | None = None,
    encode: Encode | None = None,
    limit: int | None = None,
) -> Samples:
    """The samples of a dataset.

    Args:
        dataset: a path, or several, as :func:`onnx_lrp.explain_dataset` reads them; or inputs as ``explainer.explain`` takes them.
        labels: the column of the true classes; of inputs (N,) classes. None: not known.
        inputs, encode: see :func:`onnx_lrp.explain_dataset`.
        limit: how many samples at most, the first ones.

    Raises:
        InputError: nothing to evaluate on, or labels that don't fit.
    """
    is_path = isinstance(dataset, str | os.PathLike) or (
        isinstance(dataset, list | tuple) and all(isinstance(d, str | os.PathLike) for d in dataset)
    )
    found = (
        _of_files(explainer, dataset, labels, inputs, encode, limit) if is_path else _of_inputs(explainer, dataset, labels, limit)
    )
    if not found.rows:
        why = "; ".join(f"{n} × {reason}" for reason, n in found.left_out.items())
        raise InputError(f"no sample to evaluate on{': ' + why if why else ''}")
    return found


def _of_files(explainer: Explainer, dataset: Any, labels: Any, inputs: Any, encode: Any, limit: int | None) -> Samples:
    if labels is not None and not isinstance(labels, str):
        raise InputError(f"labels of a dataset are the name of its column, got {type(labels).__name__}")
    engine = Engine(explainer)
    data = Dataset.open(dataset)
    if labels is not None and labels not in data.columns:
        raise InputError(f"no column {labels!r} in the dataset; there are: {', '.join(data.columns)}")
    decoder = Decoder(engine, inputs_of(inputs, engine.inputs, data.columns, [labels] if labels else []), labels, encode)
    rows: list[dict[str, np.ndarray]] = []
    true: list[int] = []
    left_out: Counter[str] = Counter()
    for _, _, block in data.blocks(decoder.columns, lambda first, last: limit is None or len(rows) < limit):
        some = decoder.rows(block.columns, block.size, block.broken)
        for i in range(block.size):
            if limit is not None and len(rows) == limit:
                break
            problem = some.problems.get(i) or engine._shapes([some.inputs[n][i].shape for n in engine.inputs])
            if problem is not None:
                left_out[problem.reason] += 1
                continue
            rows.append(_row(explainer, {n: some.inputs[n][i] for n in engine.inputs}))
            if some.targets is not None:
                true.append(int(some.targets[i]))
    told = dict(left_out.most_common(REASONS))
    rest = left_out.total() - sum(told.values())
    return Samples(rows, np.asarray(true, np.int64) if labels is not None else None, told | ({OTHERS: rest} if rest else {}))


def _row(explainer: Explainer, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One sample as a batch of one, its length added where the model asks for it."""
    plan = explainer._plan
    feeds: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        axis = plan.batch_axis(name)
        feeds[name] = array if axis is None else np.expand_dims(array, axis)
    told = lens(plan)
    if told is not None and told not in feeds:
        first = next(iter(arrays))
        time = plan.time_axis(first)
        feeds[told] = np.asarray([feeds[first].shape[time if time is not None else -1]])
    return prepare_inputs(feeds, plan)


def _of_inputs(explainer: Explainer, inputs: Any, labels: Any, limit: int | None) -> Samples:
    plan = explainer._plan
    if isinstance(inputs, Labelled):
        inputs = ragged.plain(inputs, plan)
    sequences = ragged.read(inputs, plan)
    rows: list[dict[str, np.ndarray]] = []
    if sequences is not None:
        count = len(sequences.lengths)
        for i in range(count if limit is None else min(limit, count)):
            rows.append(prepare_inputs(sequences.inputs(np.asarray([i])), plan))
    else:
        feeds = prepare_inputs(inputs, plan)
        count = explainer._runs.batch(feeds)
        for i in range(count if limit is None else min(limit, count)):
            row = {}
            for name, array in feeds.items():
                axis = plan.batch_axis(name)
                row[name] = array if axis is None or array.shape[axis] == 1 else np.take(array, [i], axis)
            rows.append(row)
    true = None if labels is None else _labels(labels, count, scores_of(plan).classes)
    return Samples(rows, None if true is None else true[: len(rows)], {})


def _labels(given: Any, count: int, classes: int | None) -> np.ndarray:
    array = np.asarray(given)
    if isinstance(given, str) or array.shape != (count,) or not np.all(array == np.round(array)):
        raise InputError(f"labels: expected {count} classes, one a sample, got {array.dtype} of shape {array.shape}")
    if array.size and (array.min() < 0 or (classes is not None and array.max() >= classes)):
        wrong = array.min() if array.min() < 0 else array.max()
        raise InputError(f"labels: there is no class {wrong}; this output has {classes}")
    return array.astype(np.int64)
