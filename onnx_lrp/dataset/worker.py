"""BatchExplainer: a model and how it is explained as a callable that other engines ship to their workers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..loading import load
from ..methods import OPTIONS, prepare_method
from .decoding import Decoder
from .engine import Engine, Found
from .places import need
from .reading import inputs_of
from .rows import Encode, Problem
from .tables import columns, objects

__all__ = ["BatchExplainer", "make_engine"]


def make_engine(
    model: Any, *, target: Any, method: str, per_step: bool, max_length: int | None, options: Mapping[str, Any]
) -> Engine:
    """An engine of the options of ``load`` and of the method together.

    jit="auto" is "graph" here: groups of equal length differ in their numbers of rows from window to window, and would be compiled
    again and again. Measured on 10,000 rows in shards of 1,000: 28 s of CPU time compiled, 5 s as a graph; alike in large groups.
    """
    if options.get("jit", "auto") == "auto":
        options = {**options, "jit": "graph"}
    own = {k: options[k] for k in OPTIONS if k in options}
    prepare_method(method, own)  # refuses what does not exist before the model is read
    explainer = load(model, **{k: v for k, v in options.items() if k not in own})
    return Engine(explainer, target=target, method=method, options=own, per_step=per_step, max_length=max_length)


class BatchExplainer:
    """Explains batches of rows; can be pickled, and reads its model where it is first called.

    For Ray Data ``dataset.map_batches(BatchExplainer, fn_constructor_args=[path], batch_format="pyarrow", concurrency=4)``, for
    Spark ``frame.mapInArrow(explainer.stream, schema)``, for Dask ``frame.map_partitions`` over a function that calls it.

    Args:
        model: path of a ``.onnx`` file, which every worker must be able to open, or its bytes.
        inputs: {graph input: column}, or several columns, or a pattern; what is left out is found by name.
        keep: columns to hand on.
        target: None (the predicted class), a class, one of :mod:`onnx_lrp.targets`, or the name of a column of classes.
        per_step: relevance summed over features, (T,) a row.
        method: see :meth:`Explainer.explain`.
        max_length: steps of the longest row that is explained.
        encode: text → token ids (T,), for columns of text.
        options: of :func:`onnx_lrp.load`, and of the method.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        inputs: Mapping[str, str | Sequence[str]] | None = None,
        keep: Sequence[str] = (),
        target: Any = None,
        per_step: bool = False,
        method: str = "lrp",
        max_length: int | None = None,
        encode: Encode | None = None,
        **options: Any,
    ) -> None:
        self._model = model if isinstance(model, bytes) else os.fspath(model)
        self._inputs = None if inputs is None else dict(inputs)
        self._keep = tuple(keep)
        self._target = None if isinstance(target, str) and target == "argmax" else target
        self._encode = encode
        self._how: dict[str, Any] = {"per_step": per_step, "method": method, "max_length": max_length, "options": options}
        self._engine: Engine | None = None  # made on the worker

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None}

    def __call__(self, batch: Any) -> Any:
        """Explain a batch.

        Args:
            batch: {column: array, rows first; ragged rows as an object array}, or a pyarrow Table or RecordBatch.

        Returns:
            the same kind, with as many rows: the columns to keep, ``prediction``, ``output``, ``target``, ``seed``, ``relevance``
            (an array a row; ``relevance_POINT`` of several attribution points), ``absorbed_KIND``, ``residual``, and ``error``,
            None where a row was explained. Of other rows the rest is null; in arrays None, NaN or -1.

        Raises:
            InputError: a column is missing, or options don't fit the model; never for a row.
        """
        if hasattr(batch, "schema"):
            return self._arrow(batch)
        given = {name: np.asarray(column) if not isinstance(column, list) else column for name, column in batch.items()}
        size = len(next(iter(given.values()))) if given else 0
        found, problems = self._run(given, size)
        made = {name: np.asarray(given[name]) for name in self._keep} | objects(found, size)
        made["error"] = np.full(size, None, object)
        for i, problem in problems.items():
            made["error"][i] = problem.reason
        return made

    def stream(self, batches: Iterable[Any]) -> Iterator[Any]:
        """pyarrow record batches in, record batches out, as Spark's ``mapInArrow`` wants it."""
        for batch in batches:
            yield self(batch)

    def _arrow(self, batch: Any) -> Any:
        arrow = need("pyarrow", "an Arrow batch")
        size = batch.num_rows
        given = {
            n: c.combine_chunks() if hasattr(c, "combine_chunks") else c
            for n, c in zip(batch.schema.names, batch.columns, strict=True)
        }
        found, problems = self._run(given, size)
        made: dict[str, Any] = {name: given[name] for name in self._keep}
        assert self._engine is not None
        like = found or [f for f in [self._engine.probe()] if f is not None]
        if like:
            rows, fields = columns(like)
            place = np.full(size, -1)
            if found:
                place[rows] = np.arange(len(rows))
            index = arrow.array(place, mask=place < 0)
            made |= {name: column.take(index) for name, column in fields.items()}
        made["error"] = arrow.array([problems[i].reason if i in problems else None for i in range(size)], arrow.string())
        return type(batch).from_pydict(made)

    def _run(self, given: Mapping[str, Any], size: int) -> tuple[list[Found], dict[int, Problem]]:
        for name in (*self._keep, *([self._target] if isinstance(self._target, str) else [])):
            if name not in given:
                raise InputError(f"no column {name!r}; there are: {', '.join(given)}")
        if self._engine is None:
            target = None if isinstance(self._target, str) else self._target
            self._engine = make_engine(self._model, target=target, **self._how)
        column = self._target if isinstance(self._target, str) else None
        others = (*self._keep, *([column] if column else []))
        inputs = inputs_of(self._inputs, self._engine.inputs, tuple(given), others)
        rows = Decoder(self._engine, inputs, column, self._encode).rows(given, size)
        found, problems = [], dict(rows.problems)
        for part in self._engine.run(rows.inputs, rows.good, rows.targets):
            if isinstance(part, Found):
                found.append(part)
            else:
                problems[part[0]] = part[1]
        return found, problems
