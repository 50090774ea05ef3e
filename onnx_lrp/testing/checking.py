"""The check of a given model: hypothesis searches its inputs for a breach of any law, and shrinks what it finds."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity

from ..errors import InputError, OnnxLrpError, ParityError
from ..explainer import Explainer
from ..explanation import Explanation
from ..inputs import prepare_inputs
from ..loading import load
from ..parity import EFFECTS, differences, rounding, tolerance
from . import LAWS, measures
from .inputs import contradiction
from .inputs import feeds as draws
from .measures import CLOSED, SAME, Figure, worst

__all__ = ["Breach", "Report", "Verdict", "check", "replay_command"]

Feeds = Mapping[str, np.ndarray]
DEFAULTS = {"precision": "float32", "epsilon": 1e-3, "bias_factor": 0.0}
PATIENCE = 20.0  # seconds of shrinking a law


@dataclass(frozen=True, eq=False)
class Breach:
    """Inputs that break a law, as small as they were found, and what is off."""

    feeds: dict[str, np.ndarray]
    message: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the inputs as ``.npz``, by graph input name: what ``onnx-lrp check --replay`` and ``onnx-lrp explain`` take."""
        with zipfile.ZipFile(path, "w") as archive:  # np.savez has parameters that an input may be named like
            for name, array in self.feeds.items():
                with archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, _plain(array), allow_pickle=False)


def _plain(array: np.ndarray) -> np.ndarray:
    """In a dtype that needs no pickle: text for objects, float32 for what numpy itself does not know."""
    if array.dtype == object:
        return array.astype(str)
    return array if array.dtype.kind in "fiubSU" else array.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What became of one law.

    Attributes:
        law: one of ``LAWS``.
        examples: on how many inputs it was asked.
        worst, bound: the figure that came closest to its bound, or went furthest beyond; None where nothing was asked.
        note: why nothing was asked, if so.
        breach: None where the law holds.
    """

    law: str
    examples: int = 0
    worst: float | None = None
    bound: float | None = None
    note: str = ""
    breach: Breach | None = None


@dataclass(frozen=True, eq=False)
class Report:
    """All verdicts; ``ok`` if no law is broken."""

    verdicts: tuple[Verdict, ...]

    @property
    def ok(self) -> bool:
        """Whether no law is breached."""
        return not any(v.breach for v in self.verdicts)


def check(
    model: Any,
    *,
    max_examples: int = 50,
    seed: int = 0,
    laws: Sequence[str] = LAWS,
    replay: Feeds | None = None,
    precision: str = "float32",
    progress: Callable[[str, float | None], None] | None = None,
    **options: Any,
) -> Report:
    """Search the inputs of a model for a breach of any law.

    Parity, conservation, determinism and finiteness are asked in ``precision``, equivariance and linearity in float64: they are
    about the algorithm, and in float32 a stabilizer of 0.001 magnifies rounding a thousand times. The inputs are those of
    :func:`feeds`; those that onnxruntime refuses, or on which the model itself overflows, don't count. The same ``seed`` asks the
    same inputs.

    Args:
        model: a path, bytes or ``ModelProto``.
        max_examples: inputs to ask.
        seed: of the search.
        laws: which of ``LAWS``.
        replay: ask these inputs alone.
        precision: "float32" or "float64".
        progress: is told what is done now and which share of that, 0 to 1; None where nobody knows.
        options: others of :func:`onnx_lrp.load`.

    Raises:
        ModelError: the model can't be read or explained.
        InputError: an unknown law, ``replay`` doesn't fit the model, or no inputs are found that do.
    """
    unknown = [law for law in laws if law not in LAWS]
    if unknown or not laws:
        raise InputError(f"laws are {', '.join(LAWS)}, got {', '.join(unknown) or 'none'}")
    if max_examples < 1:
        raise InputError(f"max_examples must be 1 or more, got {max_examples}")
    # one program for all examples: "auto" may change to another one from the third on, and that rounds otherwise
    bench = _Bench(load(model, **{"precision": precision, "verify": "never", "jit": "graph", **options}))
    asked = [law for law in LAWS if law in laws and not bench.skips(law)]
    tally = _Tally()
    tell = progress or (lambda what, share: None)
    if replay is not None:
        given = prepare_inputs(replay, bench.explainer._plan, sizes=False)
        try:
            tally.add(given, bench.judge(given, asked))
        except _Refused as error:
            raise InputError(f"the model does not run on these inputs: {error}") from error
    elif asked:
        strategy = draws(bench.explainer)
        done = itertools.count(1)

        def judge(given: Feeds) -> None:
            tally.add(given, bench.judge(given, asked))
            tell(f"asking {max_examples} inputs", min(next(done) / max_examples, 1.0))

        tell(f"asking {max_examples} inputs", None)
        _explore(strategy, max_examples, seed, judge, tally)
        for law, breach in list(tally.breaches.items()):
            tell(f"{law} is broken: looking for a smaller input", None)
            tally.breaches[law] = _shrunk(bench, strategy, law, breach, max_examples, seed)
    return Report(tuple(tally.verdict(law, bench.skips(law)) for law in LAWS if law in laws))


def replay_command(model: str | os.PathLike[str], file: str | os.PathLike[str], **options: Any) -> str:
    """The command line that asks the laws again on saved inputs, with those options that are no defaults."""
    words = ["onnx-lrp", "check", os.fspath(model), "--replay", os.fspath(file)]
    for name, value in options.items():
        if value not in (None, (), [], False, DEFAULTS.get(name)):
            flag = "--" + name.replace("_", "-")
            words += (
                [flag] if value is True else [w for v in (value if isinstance(value, list) else [value]) for w in (flag, str(v))]
            )
    return shlex.join(words)


class _Refused(Exception):
    """Inputs on which there is nothing to judge."""


class _Broken(Exception):
    """Tells hypothesis that a law is broken."""


class _Bench:
    """The explainers of one model, in both precisions, and every law as a figure."""

    def __init__(self, explainer: Explainer) -> None:
        self.explainer = explainer
        self.single, self.double = (
            explainer if explainer._options.precision == precision else _in(explainer, precision) for precision in CLOSED
        )

    def skips(self, law: str) -> str:
        """Why a law is not asked of this model, "" if it is."""
        session, why = self.explainer._runtime.reference
        if law == "parity" and session is None:
            return f"onnxruntime can't run the model: {why}"
        plan = self.explainer._plan
        if law == "equivariance" and (plan.batch is None or plan.fixed_batch == 1):
            return "one sample at a time"
        return ""

    def judge(self, feeds: Feeds, laws: Iterable[str]) -> dict[str, Figure]:
        """A figure for each law that these inputs say something about."""
        expected = self._expected(feeds)
        try:
            found = self.explainer.explain(feeds)
        except ParityError as error:
            return {"finiteness": Figure(1, 0, str(error))} if "finiteness" in laws else {}
        except OnnxLrpError as error:
            raise _Refused(str(error)) from error
        except Exception as error:  # the engine's own: a crash where onnxruntime runs is a breach, too
            if expected is None or "parity" not in laws:
                raise _Refused(str(error)) from error
            return {"parity": Figure(float("inf"), 0, f"the engine fails where onnxruntime does not ({_short(error)})")}
        figures = {law: getattr(self, f"_{law}")(feeds, found, expected) for law in laws}
        return {law: figure for law, figure in figures.items() if figure is not None}

    def _expected(self, feeds: Feeds) -> Mapping[str, Any] | None:
        if self.explainer._runtime.reference[0] is None:
            return None
        try:
            expected = self.explainer._runtime.forward(feeds)
        except Exception as error:
            raise _Refused(_short(error)) from error
        for name, array in (expected or {}).items():
            if isinstance(array, np.ndarray) and array.dtype.kind == "f" and not np.all(np.isfinite(array)):
                raise _Refused(f"output {name!r} is not finite in onnxruntime either")
        if wrong := contradiction(self.explainer, feeds, expected or {}):
            raise _Refused(wrong)
        return expected

    def _parity(self, feeds: Feeds, found: Explanation, expected: Mapping[str, Any] | None) -> Figure | None:
        """As :func:`load` verifies it; an output that nearly cancels may be off by some times what rounding to float32 changes."""
        assert expected is not None
        variant = self.explainer._variant(feeds)
        plan = variant._plan
        before = variant._runtime.prefix(plan.prefix, feeds) if plan.prefix else {}
        given = {n: before[n] if n in before else feeds[n] for n in plan.feeds}

        def figures(absolute: Mapping[str, float]) -> list[Figure]:
            listed = differences(expected, found.outputs, tolerance(plan, self.explainer._options.precision), absolute)
            return [
                Figure(error, bound, f"output {name!r} is off, relative to onnxruntime's largest value")
                for name, error, bound in listed
            ]

        try:
            absolute = rounding(plan, given, found.outputs, self.explainer._options.precision)
            first = figures(absolute)
            if not first:
                return None
            if all(f.holds for f in first):
                return worst(first)
            one, two = self.single.predict(feeds), self.double.predict(feeds)
            return worst(figures({n: max(absolute.get(n, 0.0), EFFECTS * _apart(a, two[n])) for n, a in one.items()}))
        except ParityError as error:
            return Figure(float("inf"), 0, str(error))

    def _conservation(self, feeds: Feeds, found: Explanation, expected: Any) -> Figure:
        return worst(measures.conservation(found, CLOSED[self.explainer._options.precision]))

    def _equivariance(self, feeds: Feeds, found: Explanation, expected: Any) -> Figure | None:
        if self.explainer._plan.fixed_batch is not None and not self._interchangeable(feeds):
            return None
        whole = self.double.explain(feeds)
        figures = measures.equivariance(self.double, feeds, whole, SAME) if len(whole.seed) > 1 else []
        return worst(figures) if figures else None

    def _interchangeable(self, feeds: Feeds) -> bool:
        """Whether the model itself treats its samples alike: one for a fixed batch may hold a length or a state for each."""
        plan, reference = self.explainer._plan, self.explainer._runtime.reference[0] is not None
        forward = self.explainer._runtime.forward if reference else self.double.predict
        axes = {n: plan.batch_axis(n) for n in (*feeds, *plan.outputs)}
        turned = {n: a if axes[n] is None else np.flip(a, axes[n]) for n, a in feeds.items()}
        one, two = forward(feeds) or {}, forward(turned) or {}
        for name, array in one.items():
            axis = axes.get(name)
            if axis is None or not isinstance(array, np.ndarray) or array.dtype.kind != "f":
                continue
            if _apart(np.flip(array, axis), two[name]) > 1e-3 * max(float(np.abs(array).max(initial=0)), 1e-6):
                return False
        return True

    def _linearity(self, feeds: Feeds, found: Explanation, expected: Any) -> Figure | None:
        shape = measures.explained_shape(self.double, found)
        return None if shape is None else worst(measures.linearity(self.double, feeds, shape, 0, SAME))

    def _determinism(self, feeds: Feeds, found: Explanation, expected: Any) -> Figure:
        return measures.determinism(found, self.explainer.explain(feeds))

    def _finiteness(self, feeds: Feeds, found: Explanation, expected: Any) -> Figure:
        return measures.finiteness(found)


def _in(explainer: Explainer, precision: str) -> Explainer:
    """The same model, read already, in another precision."""
    options = replace(explainer._options, precision=precision)
    return Explainer(explainer._graph, explainer._plan, choose=explainer._choose, options=options)


def _apart(one: Any, two: Any) -> float:
    if not isinstance(one, np.ndarray) or one.dtype.kind != "f":
        return 0.0
    return float(np.abs(one.astype(np.float64) - np.asarray(two, np.float64)).max(initial=0.0))


def _short(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


class _Tally:
    """What was found so far, by law."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.figures: dict[str, Figure] = {}
        self.breaches: dict[str, Breach] = {}
        self.refused = ""

    def add(self, feeds: Feeds, figures: Mapping[str, Figure]) -> None:
        for law, figure in figures.items():
            self.counts[law] = self.counts.get(law, 0) + 1
            before = self.figures.get(law)
            if before is None or _ratio(figure) > _ratio(before):
                self.figures[law] = figure
            if not figure.holds and law not in self.breaches:
                self.breaches[law] = Breach(dict(feeds), str(figure))

    def verdict(self, law: str, note: str) -> Verdict:
        figure = self.figures.get(law)
        if figure is None:
            return Verdict(law, note=note or "no inputs say anything about it")
        return Verdict(law, self.counts[law], figure.value, figure.bound, breach=self.breaches.get(law))


def _ratio(figure: Figure) -> float:
    if not figure.holds:
        return float("inf")
    return figure.value / figure.bound if figure.bound else 0.0


def _search(strategy: Any, test: Any, max_examples: int, seed: int, *phases: Phase) -> None:
    settings = hypothesis.settings(
        max_examples=max_examples,
        database=None,
        deadline=None,
        derandomize=False,
        phases=phases,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )

    def ask(given: dict[str, np.ndarray]) -> None:
        test(given)

    settings(hypothesis.seed(seed)(hypothesis.given(strategy)(ask)))()


def _explore(strategy: Any, max_examples: int, seed: int, judge: Any, tally: _Tally) -> None:
    def ask(given: dict[str, np.ndarray]) -> None:
        try:
            judge(given)
        except _Refused as error:
            tally.refused = str(error)
            hypothesis.reject()

    try:
        _search(strategy, ask, max_examples, seed, Phase.generate)
    except hypothesis.errors.Unsatisfiable as error:
        raise InputError(f"no inputs were found on which the model runs; the last was refused: {tally.refused}") from error


def _shrunk(bench: _Bench, strategy: Any, law: str, breach: Breach, max_examples: int, seed: int) -> Breach:
    """The smallest breach found within some patience; the search takes the way it took before, but stops at the breach."""
    found = [breach]
    until: list[float] = []

    def ask(given: dict[str, np.ndarray]) -> None:
        if until and time.monotonic() > until[0]:
            return
        try:
            figure = bench.judge(given, [law]).get(law)
        except _Refused:
            hypothesis.reject()
        if figure is not None and not figure.holds:
            until[:] = until or [time.monotonic() + PATIENCE]
            found[0] = replace(breach, feeds=dict(given), message=str(figure))
            raise _Broken

    # flaky where patience ended, or where the breach comes and goes
    with contextlib.suppress(_Broken, hypothesis.errors.HypothesisException):
        _search(strategy, ask, max_examples, seed, Phase.generate, Phase.shrink)
    return found[0]
