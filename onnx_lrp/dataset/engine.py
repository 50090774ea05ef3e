"""Rows in, relevance out: bunches of like length run together, and a row that can't be explained takes nobody with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import ragged
from ..batches import BUDGET, kept_bytes, sizes_of, splits
from ..errors import InputError, ParityError, RuleError
from ..explainer import Explainer
from ..explanation import Explanation
from ..inputs import id_limits, may_miss
from ..lengths import lens
from ..precision import PRECISIONS
from ..seeds import samples_of_target, scores_of
from ..targets import AllClasses, Output, Seed, Spec, Step, TopK, by_sample
from .rows import Problem

__all__ = ["ABSORBED", "Engine", "Found"]

AT_ONCE = 3  # groups: 56 of 180 rows took 0.95 s instead of 1.16 s on two cores, with 2 as with 3, in the same CPU time
ABSORBED = ("bias", "stabilizer", "initial_state", "constant", "rule")


@dataclass(frozen=True, eq=False)
class Found:
    """Some rows that were explained together; b of them.

    Attributes:
        rows: (b,) which.
        fields: {name: (b, …) array}, one entry a row, each with the axes of a single row.
        lengths: (b,) the rows' own steps, where those of relevance are padded; else None.
        times: {name of a field: its axis of time, that of rows included}, of those that are padded.
        steps: the fields of relevance whose second axis is time.
    """

    rows: np.ndarray
    fields: Mapping[str, np.ndarray]
    lengths: np.ndarray | None
    times: Mapping[str, int]
    steps: frozenset[str] = frozenset()

    def between(self, first: int, last: int) -> Found:
        """Those of the rows ``first`` to ``last`` (exclusive)."""
        own = (self.rows >= first) & (self.rows < last)
        lengths = None if self.lengths is None else self.lengths[own]
        return replace(self, rows=self.rows[own], fields={n: a[own] for n, a in self.fields.items()}, lengths=lengths)


class Engine:
    """Explains rows, given as one array each.

    Args:
        explainer: of the model.
        target: None, a class or a :class:`~onnx_lrp.targets.Spec`, for all rows; one for each is passed with the rows.
        method, options: see :meth:`~onnx_lrp.explainer.Explainer.explain`.
        per_step: relevance summed over features.
        max_length: steps of the longest row that is explained.

    Raises:
        InputError: several classes at once, a seed array, or a file exported for a fixed batch.
    """

    def __init__(
        self,
        explainer: Explainer,
        *,
        target: Any = None,
        method: str = "lrp",
        options: Mapping[str, Any] | None = None,
        per_step: bool = False,
        max_length: int | None = None,
    ) -> None:
        if isinstance(target, Output) and explainer._branches is None:
            explainer, target = explainer._at_output(target.name), target.target
        plan = explainer._plan
        if by_sample(target):
            raise InputError(f"target {target}: one class for all rows, or the name of a column that holds one for each")
        if isinstance(target, AllClasses | TopK) or (isinstance(target, Seed) and not callable(target.value)):
            raise InputError(f"target {target}: a dataset is explained for one class a row; run once for each class")
        if plan.fixed_batch not in (None, 1):
            raise InputError(
                f"the file was exported for batches of {plan.fixed_batch}; export it with a dynamic batch axis (PyTorch: "
                "dynamic_shapes or dynamic_axes; tf2onnx: None in the input signature)"
            )
        self.explainer = explainer
        self.target = target
        self.method = method
        self.options = dict(options or {})
        self.per_step = per_step
        self.max_length = max_length
        told = lens(plan)
        self.inputs = tuple(v.name for v in plan.graph.inputs if v.name != told)
        self._ids = id_limits(plan)
        self._begun = False
        self._alone = plan.batch is None or not splits(plan)

    def rank(self, name: str) -> int | None:
        """Axes of one row of an input."""
        rank = self.explainer._plan.vars[name].rank
        return None if rank is None else rank - (self.explainer._plan.batch_axis(name) is not None)

    def reads_text(self, name: str) -> bool:
        """Whether an input takes strings."""
        return any(v.name == name and v.dtype == object for v in self.explainer.inputs)

    def row_bytes(self, name: str, shape: Sequence[int]) -> int:
        """What one row of an input may take up in results, estimated: the relevance of every step."""
        plan, total = self.explainer._plan, 0
        for point in plan.points:
            if name not in (*plan.origins.get(point, ()), point):
                continue
            dims = plan.vars[point].dims or ()
            axes = (plan.batch_axis(point), plan.time_axis(point))
            width = 1 if self.per_step else int(np.prod([d.size or 1 for a, d in enumerate(dims) if a not in axes]))
            total += 4 * width * (shape[0] if shape else 1)
        return total

    def probe(self) -> Found | None:
        """A row of zeros, explained: which fields there will be, and of which types. None where the model refuses it."""
        plan, row = self.explainer._plan, {}
        for value in self.explainer.inputs:
            if value.name in self.inputs:
                batch, time = plan.batch_axis(value.name), plan.time_axis(value.name)
                dims = enumerate(plan.vars[value.name].dims or ())
                shape = [d.size or (2 if a == time else 1) for a, d in dims if a != batch]
                row[value.name] = [np.full(shape, "" if value.dtype == object else 0, value.dtype)]
        for part in self.run(row, [0], None):
            if isinstance(part, Found):
                return part
        return None

    def run(
        self, inputs: Mapping[str, Sequence[np.ndarray]], rows: Sequence[int], targets: Sequence[Any] | None = None
    ) -> Iterator[Found | tuple[int, Problem]]:
        """Explain some rows.

        Args:
            inputs: {graph input: one array a row}.
            rows: which of them.
            targets: one a row, None: the target given for all.

        Yields:
            what was found, and every row with a problem, each row exactly once.
        """
        good = []
        seen: dict[Any, Problem | None] = {}
        for i in rows:
            shapes = tuple(inputs[n][i].shape for n in self.inputs)
            if shapes not in seen:
                seen[shapes] = self._shapes(shapes)
            problem = seen[shapes]
            if problem is None:
                good.append(i)
            else:
                yield i, problem
        for parts in self._side_by_side(self._groups(inputs, np.asarray(good, np.intp)), targets):
            yield from parts

    def _side_by_side(
        self, groups: Iterator[tuple[np.ndarray, dict[str, np.ndarray]]], targets: Sequence[Any] | None
    ) -> Iterator[list[Found | tuple[int, Problem]]]:
        """What is found of each group, a few at once: narrow ones fill the cores only together.

        The first is traced and compared with onnxruntime alone. A function of the caller's and a budget are for one at a time, and
        so is a group that takes more than its share of the memory that one explanation may.
        """
        explainer = self.explainer
        alone = isinstance(self.target, Seed) or explainer._options.max_bytes is not None
        size = PRECISIONS[explainer._options.precision].dtype.itemsize
        coming: deque[Future[Any]] = deque()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for which, feeds in groups:
                share = AT_ONCE * kept_bytes(explainer._plan, sizes_of(explainer._plan, feeds), size)
                if alone or not self._begun or share > BUDGET:
                    yield from (future.result() for future in coming)
                    coming.clear()
                    yield self._group(which, feeds, targets)
                    self._begun = True
                    continue
                coming.append(pool.submit(self._group, which, feeds, targets))
                if len(coming) == AT_ONCE:
                    yield coming.popleft().result()
            yield from (future.result() for future in coming)

    def _group(
        self, which: np.ndarray, feeds: dict[str, np.ndarray], targets: Sequence[Any] | None
    ) -> list[Found | tuple[int, Problem]]:
        """Rows that run together, those first that can't."""
        wrong = self._values(feeds, len(which))
        found: list[Found | tuple[int, Problem]] = [(int(which[k]), problem) for k, problem in wrong.items()]
        fine = np.setdiff1d(np.arange(len(which)), list(wrong))
        if len(fine):
            feeds = feeds if not wrong else self._some(feeds, fine)
            own = which[fine]
            found += self._explain(own, feeds, None if targets is None else [targets[i] for i in own])
        return found

    def _shapes(self, shapes: Sequence[tuple[int, ...]]) -> Problem | None:
        """What is wrong with rows of these shapes."""
        plan = self.explainer._plan
        for name, shape in zip(self.inputs, shapes, strict=True):
            rank, batch, dims = self.rank(name), plan.batch_axis(name), plan.vars[name].dims or ()
            if rank is not None and len(shape) != rank:
                return Problem("shape", f"input {name!r}: shape {shape}, expected {rank} axes")
            for axis, size in enumerate(shape):
                whole = axis + (batch is not None and axis >= batch)
                fixed = dims[whole].size if whole < len(dims) else None
                time = whole == plan.time_axis(name)
                what = f"input {name!r}: {size} steps" if time else f"input {name!r}: {size} along axis {axis} of shape {shape}"
                if size == 0:
                    return Problem("length" if time else "shape", f"{what}; there is nothing to explain")
                if fixed is not None and size != fixed:
                    return Problem("length" if time else "shape", f"{what}, expected {fixed}")
            time_axis = plan.time_axis(name)
            at = 0 if time_axis is None else time_axis - (batch is not None and batch < time_axis)
            if self.max_length is not None and at < len(shape) and shape[at] > self.max_length:
                return Problem("length", f"input {name!r}: {shape[at]} steps, more than the {self.max_length} allowed")
        return None

    def _groups(
        self, inputs: Mapping[str, Sequence[np.ndarray]], rows: np.ndarray
    ) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Rows that can run together, as arrays."""
        plan = self.explainer._plan
        axes = {n: plan.batch_axis(n) for n in self.inputs}
        if not len(rows):
            return
        if self._alone:
            for i in rows:
                feeds = {n: inputs[n][i] if a is None else np.expand_dims(inputs[n][i], a) for n, a in axes.items()}
                told = lens(plan)
                if told is not None:
                    feeds[told] = np.asarray([len(inputs[self.inputs[0]][i])])
                yield rows[rows == i], feeds
            return
        given: dict[str, Any] = {}
        for name in self.inputs:
            own = [inputs[name][i] for i in rows]
            given[name] = own if own[0].ndim else np.stack(own, axes[name] or 0)
        try:
            sequences = ragged.read(given, plan)
        except InputError:  # rows that differ in more than their length
            if len(rows) == 1:
                raise
            for i in rows:
                yield from self._groups(inputs, rows[rows == i])
            return
        if sequences is None:
            yield rows, given
            return
        for which in sequences.groups():
            feeds = sequences.inputs(which)
            yield rows[which], feeds

    def _some(self, feeds: Mapping[str, np.ndarray], which: np.ndarray) -> dict[str, np.ndarray]:
        plan = self.explainer._plan
        axes = {n: plan.batch_axis(n) for n in feeds}
        return {n: a if axes[n] is None else np.take(a, which, axes[n]) for n, a in feeds.items()}

    def _values(self, feeds: Mapping[str, np.ndarray], size: int) -> dict[int, Problem]:
        """Rows of a group whose values are not finite, or no rows of the embedding."""
        plan = self.explainer._plan
        found: dict[int, Problem] = {}
        for name, array in feeds.items():
            axis = plan.batch_axis(name)
            if array.dtype.kind not in "fiu" or name not in self.inputs or (axis is None and size > 1):
                continue
            table = (array if axis is None else np.moveaxis(array, axis, 0)).reshape(size, -1)
            if array.dtype.kind == "f":
                wrong = np.isinf(table) if may_miss(name, plan) else ~np.isfinite(table)
                kind, what = "nan", "inputs must be finite"
            elif name in self._ids:
                count, where = self._ids[name]
                wrong = (table < -count) | (table >= count)
                kind, what = "id", f"outside the embedding of {count} rows ({where})"
            else:
                continue
            for k in np.flatnonzero(wrong.any(1)):
                at = int(np.argmax(wrong[k]))
                found.setdefault(int(k), Problem(kind, f"input {name!r}: {table[k, at]} at entry {at}; {what}"))
        return found

    def _explain(
        self, rows: np.ndarray, feeds: Mapping[str, np.ndarray], targets: list[Any] | None
    ) -> Iterator[Found | tuple[int, Problem]]:
        """Explain a batch; where that fails, its halves, down to the rows that are to blame."""
        target = self.target if targets is None else targets
        try:
            given = target if targets is None else np.stack([np.asarray(t) for t in targets])
            explanation = self.explainer.explain(dict(feeds), given, method=self.method, **self.options)
            found = self._found(rows, explanation, argmax=given is None)
        except Exception as error:
            problem = self._blamed(error)
            if problem is None:
                raise
            if len(rows) > 1:
                middle = len(rows) // 2
                for some in (np.arange(middle), np.arange(middle, len(rows))):
                    own = None if targets is None else [targets[k] for k in some]
                    yield from self._explain(rows[some], self._some(feeds, some), own)
                return
            if isinstance(error, ParityError) and self._differs(feeds):
                raise
            yield int(rows[0]), problem
            return
        yield found

    def _blamed(self, error: Exception) -> Problem | None:
        """What an error says of the rows; None: they are not to blame."""
        if isinstance(error, ParityError):
            return Problem("model", str(error))
        if isinstance(error, InputError | RuleError):
            return Problem("target" if str(error).startswith(("target", "step")) else "input", str(error))
        if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
            return Problem("memory", "not enough memory for this row alone")
        if isinstance(error, ValueError) and "same shape" in str(error):  # np.stack of targets
            return Problem("target", "a target of another shape than its neighbours'")
        return None

    def _differs(self, feeds: Mapping[str, np.ndarray]) -> bool:
        """Whether it is the model whose forward pass is not onnxruntime's: then no row is to be trusted."""
        if self.explainer._options.verify == "always":
            return False  # every row has its own verdict
        self.explainer._runs.verified = True
        try:
            self.explainer.predict(dict(feeds))
        except ParityError:  # not finite
            return False
        finally:
            self.explainer._runs.verified = False
        return True

    def _found(self, rows: np.ndarray, explanation: Explanation, *, argmax: bool) -> Found:
        plan, count = self.explainer._plan, len(rows)

        def whole(array: np.ndarray, axis: int | None) -> np.ndarray:
            return np.moveaxis(array, axis, 0) if axis is not None and array.shape[axis] == count else array[None]

        fields: dict[str, np.ndarray] = {}
        times: dict[str, int] = {}
        steps = set()
        output = explanation.outputs.get(explanation.explained)
        axis = plan.batch_axis(explanation.explained) if explanation.explained in plan.vars else 0
        scores = whole(output, axis) if isinstance(output, np.ndarray) and output.ndim and output.dtype.kind in "fiub" else None
        at = self._at_target(explanation, count)
        predicted = at if argmax else self._predicted(scores)
        if predicted is not None:
            fields["prediction"] = predicted
        if scores is not None:
            fields["output"] = scores
        fields["target"] = at
        fields["seed"] = np.asarray(explanation.seed, np.float64)
        several = len(explanation.relevance) > 1
        lengths = self._lengths(explanation)
        for point, relevance in explanation.relevance.items():
            name = f"relevance_{point}" if several else "relevance"
            batch, time = explanation.axes[point]
            if self.per_step:
                fields[name], place = explanation.per_step(point), 1
            else:
                fields[name] = whole(relevance, batch)
                place = 1 if time is None else time + (batch is None or batch > time)
            if lengths is not None and time is not None:
                times[name] = place
            if time is not None and place == 1:
                steps.add(name)
        for kind in ABSORBED if explanation.method == "lrp" else ():
            fields[f"absorbed_{kind}"] = np.asarray(explanation.absorbed.get(kind, np.zeros(count)), np.float64)
        fields["residual"] = np.asarray(explanation.residual, np.float64)
        return Found(rows, fields, lengths, times, frozenset(steps))

    def _lengths(self, explanation: Explanation) -> np.ndarray | None:
        name = lens(self.explainer._plan)
        return None if name is None or name not in explanation.inputs else np.ravel(explanation.inputs[name]).astype(np.int64)

    def _at_target(self, explanation: Explanation, count: int) -> np.ndarray:
        target = explanation.target
        if isinstance(target, Spec):
            return np.full(count, str(target), object)
        array = np.asarray(target)
        axis = samples_of_target(self.explainer._plan, single=isinstance(self.target, Step) and len(self.target.steps) == 1)
        return np.moveaxis(array, axis, 0) if axis is not None and array.ndim > axis and array.shape[axis] == count else array[None]

    def _predicted(self, scores: np.ndarray | None) -> np.ndarray | None:
        """The class with the best score; (b,) or one a position."""
        like = scores_of(self.explainer._plan)
        if scores is None or scores.dtype.kind != "f":
            return scores
        if scores.ndim < 2 or like.classes == 1:
            return None
        axis = like.class_axis if like.class_axis is not None and scores.ndim == len(like.shape) else scores.ndim - 1
        axis += axis < (like.batch_axis or 0)  # that of the rows was moved to the front
        return np.asarray((np.argmin if like.lowest else np.argmax)(scores, axis))
