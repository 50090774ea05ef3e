"""What the page is about: a model, what makes ids of its texts, and the way from a question to what is shown."""

from __future__ import annotations

import math
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, UnsupportedModel
from .guard import FILE, LIMITS

if TYPE_CHECKING:
    from ..comparison import Comparison
    from ..explainer import Explainer
    from ..explanation import Explanation
    from ..summary import Summary
    from ..text import Tokenizer
    from .jobs import Job

__all__ = ["Question", "Result", "Subject"]

KEPT = 4  # explainers, each with its compiled programs
FIELDS = {"--features": "the field Features", "--time": "Time column", "--id": "Series column"}  # on the page
SAMPLES, LONGEST = 100, 100_000  # texts, and characters of one


@dataclass(frozen=True)
class Question:
    """What the page asks; as it is typed, and "" where nothing is.

    Attributes:
        texts: one by one; empty: a file.
        file: the id of the one that was dropped.
        beside: a second method.
        rule: "rule:epsilon" or "composite:epsilon-plus".
        time, id, features: columns of a table.
    """

    texts: tuple[str, ...] = ()
    file: str = ""
    target: str = ""
    method: str = "lrp"
    beside: str = ""
    rule: str = "rule:epsilon"
    epsilon: float = 1e-3
    gates: str = "all"
    at: str = ""
    output: str = ""
    steps: int | None = None
    baseline: float | None = None
    by: str = ""
    time: str = ""
    id: str = ""
    features: str = ""

    @classmethod
    def read(cls, raw: Any) -> Question:
        """From JSON.

        Raises:
            InputError: an unknown field, or one of the wrong type.
        """
        if not isinstance(raw, dict):
            raise InputError(f"expected an object, got {type(raw).__name__}")
        known = {f.name for f in fields(cls)}
        given: dict[str, Any] = {}
        for name, value in raw.items():
            if name not in known:
                raise InputError(f"there is no field {name!r}; fields are {', '.join(sorted(known))}")
            if name == "texts":
                good = isinstance(value, list) and len(value) <= SAMPLES
                good = good and all(isinstance(t, str) and len(t) <= LONGEST for t in value)
                expected, value = (
                    f"a list of at most {SAMPLES} texts of at most {LONGEST:,} characters",
                    tuple(value) if good else value,
                )
            elif name in ("epsilon", "steps", "baseline"):
                number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
                good = (number and (name != "steps" or isinstance(value, int))) or (value is None and name != "epsilon")
                expected = "a whole number" if name == "steps" else "a number"
            else:
                good, expected = isinstance(value, str) and len(value) <= 10_000, "text"
            if not good:
                raise InputError(f"{name}: {str(value)[:60]!r}, expected {expected}")
            given[name] = value
        return cls(**given)

    @property
    def loading(self) -> dict[str, Any]:
        """What ``onnx_lrp.load`` takes.

        Raises:
            InputError: neither a rule nor a composite.
        """
        kind, _, name = self.rule.partition(":")
        if kind not in ("rule", "composite"):
            raise InputError(f"rule {self.rule!r}: expected rule:NAME or composite:NAME")
        how: dict[str, Any] = {"composite": name} if kind == "composite" else {"rule": name, "epsilon": self.epsilon}
        at = [name.strip() for name in self.at.split(",") if name.strip()]
        return {**how, "gates": self.gates, "at": at or None, "output": self.output or None}

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """{method: its options}.

        Raises:
            InputError: the same twice.
            RuleError: no such method, or a value that makes no sense.
        """
        from ..methods import METHODS, prepare_method

        if self.method == self.beside:
            raise InputError(f"{self.method} beside itself: choose another method to compare with")
        every = {"steps": self.steps, "baseline": self.baseline, "by": self.by or None}
        found = {}
        for name in filter(None, (self.method, self.beside)):
            found[name] = {k: every[k] for k in METHODS.get(name, ()) if every[k] is not None}
            prepare_method(name, found[name])
        return found

    @property
    def columns(self) -> dict[str, Any]:
        """What :func:`onnx_lrp.series.read_series` takes."""
        features = [c.strip() for c in self.features.split(",") if c.strip()]
        return {"time": self.time or None, "id": self.id or None, "features": features or None}


@dataclass(frozen=True)
class _File:
    """What was dropped: where it is kept, and what it is called where it comes from."""

    path: Path
    shown: str
    id: str = field(default_factory=lambda: secrets.token_hex(8))


@dataclass(frozen=True, eq=False)
class Result:
    """What was found.

    Attributes:
        parts: {method: explanation}, with what the flow through the layers needs.
        extra: what was kept for that alone.
        shown: HTML of the samples, to stand inside the page.
    """

    parts: Mapping[str, Explanation]
    extra: Sequence[str]
    summary: Summary
    classes: Sequence[str]
    title: str
    shown: str = ""

    @property
    def samples(self) -> int:
        return next(iter(self.parts.values())).seed.shape[-1]

    @property
    def whole(self) -> Explanation | Comparison:
        from ..comparison import compare

        parts = {name.replace("_", " "): part for name, part in self.parts.items()}
        return compare(parts, classes=self.classes) if len(parts) > 1 else next(iter(parts.values()))

    def html(self, scheme: str) -> str:
        """The page of its own, as ``explain --html`` writes it.

        Raises:
            InputError: no such scheme of colours.
        """
        from ..report.html import to_html

        return to_html(self.whole, title=self.title, classes=self.classes, summary=self.summary, scheme=scheme)

    def json(self, method: str) -> bytes:
        """An explanation as ``explain --save OUT.json`` writes it.

        Raises:
            InputError: no such method was asked for.
        """
        from ..report.flow import without

        if method not in self.parts:
            raise InputError(f"{method!r} was not asked for; there is {', '.join(self.parts)}")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "explanation.json"
            without(self.parts[method], self.extra).save(file)
            return file.read_bytes()


@dataclass(eq=False)
class Subject:
    """A model that questions are asked about.

    Args:
        model: what ``onnx_lrp.load`` takes.
        name: what it is called on the page.
        coder: makes ids of texts; None: it is explained on files alone.
        start: starts the engine.
        options: of ``onnx_lrp.load``, for every question.
        sentence: a text to begin with.

    Raises:
        ModelError: it can't be read, or not explained at any cut.
    """

    model: Any
    name: str
    start: Callable[[], object]
    coder: Tokenizer | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    sentence: str = ""
    _made: dict[Any, Explainer] = field(default_factory=dict)
    _folder: tempfile.TemporaryDirectory[str] = field(default_factory=lambda: tempfile.TemporaryDirectory(prefix="onnx-lrp-"))
    _file: _File | None = None

    def __post_init__(self) -> None:
        try:
            self._explainer(Question())
        except BaseException as error:
            if not (isinstance(error, UnsupportedModel) and error.cuts):
                self.close()
                raise

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, where the file beside the model has them."""
        return (self.coder.options.classes if self.coder is not None else None) or ()

    def describe(self) -> dict[str, Any]:
        """What there is to choose from."""
        from ..composites import PRESETS
        from ..methods import METHODS
        from ..report import colors
        from ..report.read import SUFFIXES, TABLES
        from ..report.wording import visible
        from ..rules import GATE_RULES, NAMES

        found: dict[str, Any] = {
            "name": visible(self.name),
            "texts": self.coder is not None,
            "sentence": self.sentence,
            "classes": [visible(name) for name in self.classes],
            "rules": list(NAMES),
            "composites": list(PRESETS),
            "gates": list(GATE_RULES),
            "methods": {name: list(options) for name, options in METHODS.items()},
            "schemes": {name: scheme.label for name, scheme in colors.SCHEMES.items()},
            "suffixes": list(SUFFIXES),
            "tables": list(TABLES),
            "largest": LIMITS[FILE],
            "inputs": [],
            "outputs": [],
            "tensors": [],
            "problem": "",
        }
        try:
            explainer = self._explainer(Question())
        except UnsupportedModel as error:
            return {**found, "problem": str(error), "tensors": list(error.cuts)}
        summary = explainer.summary()
        graph = explainer._graph
        return {
            **found,
            "inputs": [visible(text) for text in summary.inputs],
            "outputs": [v.name for v in graph.outputs],
            "explained": summary.explained,
            "tensors": [row.output for row in summary.rows],
        }

    def keep(self, name: str, body: bytes) -> dict[str, Any]:
        """A file to explain, in place of the last one.

        Args:
            name: what it is called; of it nothing but the suffix becomes the name of a file.

        Raises:
            InputError: of a kind that isn't read.
        """
        from ..report.read import SUFFIXES
        from ..report.wording import short, visible

        shown = visible(short(name, 200)) or "file"
        suffix = Path(name).suffix.lower()
        if suffix not in SUFFIXES:
            raise InputError(f"{shown}: inputs are read from {', '.join(SUFFIXES)}, not from {suffix or 'no suffix'}")
        old, new = self._file, _File(Path(self._folder.name) / f"input-{secrets.token_hex(8)}{suffix}", shown)
        new.path.write_bytes(body)
        self._file = new
        if old is not None:
            old.path.unlink(missing_ok=True)
        return {"id": new.id, "name": shown, "size": len(body)}

    def close(self) -> None:
        """Remove what was dropped."""
        self._folder.cleanup()

    def answer(self, question: Question, job: Job) -> Result:
        """Explain.

        Raises:
            OnnxLrpError: what any explanation may raise.
            Cancelled: it is no longer wanted.
        """
        from ..methods import LRP
        from ..ragged import check
        from ..report.flow import branching
        from ..report.html import to_samples
        from ..targets import from_text

        job.at("reading the input")
        methods = question.methods
        target = from_text(question.target.strip()) if question.target.strip() else None
        job.at("reading the model")
        explainer = self._explainer(question)
        data = self._data(question, explainer)
        check(data, explainer._plan)  # refuses bad input before TensorFlow is waited for
        job.at("starting TensorFlow")
        self.start()
        summary = explainer.summary()
        extra = branching(explainer, summary) if LRP in methods else []
        parts = {}
        for name, options in methods.items():
            job.at(f"explaining ({name.replace('_', ' ')})" if len(methods) > 1 else "explaining")
            keep = extra if name == LRP else []
            parts[name] = explainer.explain(data, target, method=name, keep=keep, progress=job.reached, **options)
        job.at("drawing")
        result = Result(parts, extra, summary, self.classes, self.name)
        return replace(result, shown=to_samples(result.whole, classes=self.classes, summary=summary))

    def _explainer(self, question: Question) -> Explainer:
        """Made once for every way to load the model; the last few are kept."""
        from .. import load

        how = question.loading
        key = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in how.items())
        found = self._made.pop(key, None) or load(self.model, **self.options, **how)
        self._made[key] = found  # the last one used is the last to go
        while len(self._made) > KEPT:
            del self._made[next(iter(self._made))]
        return found

    def _data(self, question: Question, explainer: Explainer) -> Any:
        from ..inputs import may_miss
        from ..report.read import TABLES, read_inputs

        if question.texts:
            if self.coder is None:
                raise InputError(f"{self.name}: nothing says how ids are made of texts; start view with --tokenizer or --vocab")
            return self.coder.encode(question.texts)
        if not question.file:
            raise InputError(
                "nothing to explain: type a text or choose a file" if self.coder else "nothing to explain: choose a file"
            )
        file = self._file
        if file is None or file.id != question.file:
            raise InputError("the file is gone, as another one was chosen since (in another window?): choose it again")
        missing = any(may_miss(v.name, explainer._plan) for v in explainer.inputs)
        columns = question.columns if file.path.suffix in TABLES else {}
        try:
            return read_inputs(str(file.path), stdin=None, **columns, missing=missing)
        except InputError as error:
            said = str(error).replace(str(file.path), file.shown)
            for option, label in FIELDS.items():
                said = said.replace(option, label)
            raise InputError(said) from error
