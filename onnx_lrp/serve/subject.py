"""What the page is about: a model, what makes ids of its texts, and the way from a question to what is shown."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, UnsupportedModel
from .guard import FILE, LIMITS
from .question import Question, parameters

if TYPE_CHECKING:
    from ..comparison import Comparison
    from ..explainer import Explainer
    from ..explanation import Explanation
    from ..summary import Summary
    from ..text import Tokenizer
    from .jobs import Job

__all__ = ["Result", "Subject"]

KEPT = 4  # explainers, each with its compiled programs
FIELDS = {"--features": "the field Features", "--time": "Time column", "--id": "Series column"}  # on the page


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
        pieces: texts are shown in pieces, not in words.
        shown: HTML of the samples, to stand inside the page.
    """

    parts: Mapping[str, Explanation]
    extra: Sequence[str]
    summary: Summary
    classes: Sequence[str]
    title: str
    pieces: bool = False
    shown: str = ""

    @property
    def samples(self) -> int:
        return next(iter(self.parts.values())).seed.shape[-1]

    @property
    def whole(self) -> Explanation | Comparison:
        from ..comparison import compare
        from ..report.rows import in_pieces

        parts = {name.replace("_", " "): in_pieces(part) if self.pieces else part for name, part in self.parts.items()}
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
        names: of the classes; else those in the file beside the model.

    Raises:
        ModelError: it can't be read, or not explained at any cut.
    """

    model: Any
    name: str
    start: Callable[[], object]
    coder: Tokenizer | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    sentence: str = ""
    names: Sequence[str] = ()
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
        """Names of the classes, where they are given or the file beside the model has them."""
        return self.names or (self.coder.options.classes if self.coder is not None else None) or ()

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
            "rules": {name: parameters(name) for name in NAMES},
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
        methods, pieces = question.methods, question.pieces
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
        result = Result(parts, extra, summary, self.classes, self.name, pieces)
        return replace(result, shown=to_samples(result.whole, classes=self.classes, summary=summary))

    def _explainer(self, question: Question) -> Explainer:
        """Made once for every way to load the model; the last few are kept."""
        from .. import load

        how = question.loading
        key = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in how.items())
        found = self._made.pop(key, None) or load(self.model, **self.options, **how)
        self._made[key] = found  # the last one used is the last to go
        for old in list(self._made)[:-KEPT]:
            self._made.pop(old, None)  # which another thread may have taken meanwhile
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
