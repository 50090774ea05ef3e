"""Explanation: relevances and their books, as plain numpy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .books import Books, Entry
from .errors import InputError
from .labels import Labels, fold
from .targets import Spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .summary import Summary

__all__ = ["Explanation", "Relevance"]


class Relevance(Mapping[str, np.ndarray]):
    """Relevance by attribution point; also answers to the graph input a point comes from, if that is one point alone."""

    def __init__(self, arrays: Mapping[str, np.ndarray], origins: Mapping[str, tuple[str, ...]]) -> None:
        self._arrays = dict(arrays)
        self._origins = dict(origins)

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self._arrays:
            return self._arrays[name]
        points = [p for p, inputs in self._origins.items() if name in inputs and p in self._arrays]
        if len(points) == 1:
            return self._arrays[points[0]]
        raise KeyError(f"{name}: attribution points are {', '.join(self._arrays)}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return "Relevance(" + ", ".join(f"{k!r}: {v.dtype} {v.shape}" for k, v in self._arrays.items()) + ")"


@dataclass(frozen=True, eq=False)
class Explanation:
    """The explanation of one batch; B samples.

    Where several classes were explained at once (``targets.all_classes``, ``targets.top_k``), relevance, seed, absorbed, ledger and
    residual have a leading axis of K classes, and :meth:`select` gives the explanation of one.

    Attributes:
        relevance: {attribution point: array of that tensor's shape}; positive raises the explained score.
        inputs, outputs: {name: array}, shapes and dtypes of the model.
        target: explained class, (B,) or one a position; the :class:`~onnx_lrp.targets.Spec` where there is none. Of several classes
            arange(K), or (K, B) for the top k. At a step behind a sample's own end it is -1.
        seed: (B,) relevance started from.
        absorbed: {kind: (B,)} relevance that ended in a bias, the stabilizer, an initial state or a constant; {} for other methods
            than LRP.
        ledger: {layer: {kind: (B,)}}, the same per layer.
        residual: (B,) seed - Σ relevance - Σ absorbed, in float64. Of integrated gradients what is missing to completeness, of
            methods without any NaN.
        axes: {attribution point: (batch axis, time axis)} of the tensor, without the axis of classes; None where there is none.
        explained: the graph output that was explained.
        settings: method, rule, epsilon, precision and the rest of what made these numbers.
        hidden: {name: array} relevance at the internal tensors and states that ``keep=`` asked for.
        arrived: {attribution point: (B,)} relevance summed per sample, in float64.
        lengths: (B,) steps of each sample, where sequences of different lengths were given: arrays are padded to the longest,
            relevance with zeros. None: all are of one length.
        passed: the same of what ``keep=`` asked for; (1,), of all samples, where a tensor does not tell them apart.
        labels: names of samples, steps, words and features, where the inputs brought some along.
    """

    relevance: Mapping[str, np.ndarray]
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, Any]
    target: np.ndarray | Spec
    seed: np.ndarray
    absorbed: Mapping[str, np.ndarray]
    ledger: Mapping[str, Mapping[str, np.ndarray]]
    residual: np.ndarray
    axes: Mapping[str, tuple[int | None, int | None]]
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    explained: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    hidden: Mapping[str, np.ndarray] = field(default_factory=dict)
    arrived: Mapping[str, np.ndarray] = field(default_factory=dict)
    passed: Mapping[str, np.ndarray] = field(default_factory=dict)
    lengths: np.ndarray | None = None
    labels: Labels | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "relevance", Relevance(self.relevance, self.origins))

    def __repr__(self) -> str:
        several = f"{len(self.seed)} classes, " if self.several else ""
        return f"Explanation(output {self.explained!r}, {several}{self.seed.shape[-1]} sample(s), {self.relevance!r})"

    @property
    def several(self) -> bool:
        """Whether several classes were explained, along a leading axis."""
        return np.ndim(self.seed) == 2

    def select(self, k: int) -> Explanation:
        """The explanation of one of several classes, without their axis.

        Args:
            k: index along the leading axis.

        Raises:
            InputError: only one class was explained, or there is no k-th.
        """
        if not self.several:
            raise InputError("one class was explained; select() is for targets.all_classes and targets.top_k")
        count = len(self.seed)
        if not 0 <= k < count:
            raise InputError(f"select({k}): there are {count} classes, 0 to {count - 1}")
        chosen = np.asarray(self.target)[k]
        return replace(
            self,
            relevance={n: a[k] for n, a in self.relevance.items()},
            target=np.full(self.seed.shape[1], chosen) if chosen.ndim == 0 else chosen,
            seed=self.seed[k],
            absorbed={kind: a[k] for kind, a in self.absorbed.items()},
            ledger={layer: {kind: a[k] for kind, a in kinds.items()} for layer, kinds in self.ledger.items()},
            residual=self.residual[k],
            hidden={n: a[k] for n, a in self.hidden.items()},
            arrived={n: a[k] for n, a in self.arrived.items()},
            passed={n: a[k] for n, a in self.passed.items()},
        )

    @property
    def method(self) -> str:
        """The method that made the relevance, "lrp" or one that keeps no books."""
        return str(self.settings.get("method", "lrp"))

    def _point(self, point: str | None) -> str:
        if point is None:
            if len(self.relevance) != 1:
                raise InputError(f"there are several attribution points, name one: {', '.join(self.relevance)}")
            return next(iter(self.relevance))
        if point in set(self.relevance):
            return point
        found = [p for p, inputs in self.origins.items() if point in inputs]
        if len(found) != 1:
            raise InputError(f"{point!r} is no attribution point; there are: {', '.join(self.relevance)}")
        return found[0]

    def per_step(self, point: str | None = None) -> np.ndarray:
        """Relevance summed over features, (B, T); (K, B, T) for several classes. Zero behind a sample's own ``lengths``.

        Args:
            point: attribution point or the graph input it comes from; may be left out if there is one.

        Raises:
            InputError: no such point, or several and none named.
        """
        name = self._point(point)
        if self.several:
            return np.stack([self.select(k).per_step(name) for k in range(len(self.seed))])
        array = self.relevance[name]
        batch, time = self.axes[name]
        if time is None and array.ndim > 1:
            time = next((a for a in range(array.ndim) if a != batch), None)
        kept = [a for a in (batch, time) if a is not None]
        summed = array.sum(axis=tuple(a for a in range(array.ndim) if a not in kept))
        if batch is None:
            return summed.reshape(1, -1)
        if time is None:
            return summed[:, None]
        return summed if batch < time else summed.T

    def per_word(self, point: str | None = None) -> list[np.ndarray]:
        """Relevance by word, (B)(W,): the sum over a word's pieces and over features. ``labels.words`` are the words.

        Args:
            point: attribution point or the graph input it comes from; may be left out if there is one.

        Raises:
            InputError: no such point, several classes (:meth:`select` one), or no texts were explained.
        """
        if self.several:
            raise InputError("several classes were explained: select(k) one, then ask for its words")
        if self.labels is None or not self.labels.words:
            raise InputError("per_word() needs the words of texts: explain what onnx_lrp.text.Tokenizer encoded")
        return [fold(row[: words[-1].stop], words) for row, words in zip(self.per_step(point), self.labels.words, strict=True)]

    def books(self, sample: int | None = None) -> Books:
        """Where relevance started and everywhere it ended; prints as a table.

        Args:
            sample: which one; None: all summed.

        Raises:
            InputError: no such sample, or several classes (:meth:`select` one).
        """
        if self.several:
            raise InputError("several classes were explained: select(k) one, then ask for its books")
        count = len(self.seed)
        if sample is not None and not 0 <= sample < count:
            raise InputError(f"sample {sample}: there are {count}, 0 to {count - 1}")

        def entry(amount: Any) -> float:
            array = np.ravel(np.asarray(amount, np.float64))
            return float(array.sum() if sample is None else array[sample if array.size > 1 else 0])

        return Books(
            seed=entry(self.seed),
            points={name: entry(amount) for name, amount in self.arrived.items()},
            ledger={layer: {kind: entry(amount) for kind, amount in kinds.items()} for layer, kinds in self.ledger.items()},
            residual=entry(self.residual),
        )

    def waterfall(self, sample: int | None = None, *, layers: bool = False) -> list[Entry]:
        """(label, value, kind) from the seed down to the residual, to be plotted; see :meth:`~onnx_lrp.books.Books.waterfall`."""
        return self.books(sample).waterfall(layers=layers)

    def to_dict(self) -> dict[str, Any]:
        """Everything as lists and numbers, ready for JSON."""

        def plain(value: Any) -> Any:
            if isinstance(value, Spec | Labels):
                return value.to_dict()
            if isinstance(value, np.ndarray):
                return value.astype(np.float64).tolist() if value.dtype.kind == "f" else value.tolist()
            if isinstance(value, Mapping):
                return {str(k): plain(v) for k, v in value.items()}
            if isinstance(value, list | tuple):
                return [plain(v) for v in value]
            return value.item() if isinstance(value, np.generic) else value

        from .saved import SCHEMA

        return {"schema": SCHEMA, **{name: plain(getattr(self, name)) for name in FIELDS}}

    def to_html(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        tokens: Any = None,
        title: str | None = None,
        classes: Sequence[str] = (),
        summary: Summary | None = None,
        scheme: str = "blue-white-red",
    ) -> str:
        """One self-contained HTML page; also written to ``path`` if given. Several classes stand side by side.

        Args:
            path: where to write it.
            tokens: the words of one sample, or a list of them a sample.
            title: heading of the page.
            classes: names of the classes.
            summary: :meth:`Explainer.summary` of the explainer that made this: the page shows the model's card and how relevance
                flowed through its layers. Where branches part, the books alone don't tell how much went along each:
                ``explain(keep=[...])`` of the tensors there does.
            scheme: "blue-white-red", "purple-white-orange" (colour-blind safe), or "captum" (red, white, green).

        Raises:
            InputError: tokens don't fit the explanation, or there is no such scheme.
            OSError: the file can't be written.
        """
        from .report.html import to_html

        page = to_html(self, tokens=tokens, title=title, classes=classes, summary=summary, scheme=scheme)
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page

    def plot(
        self,
        kind: str | None = None,
        *,
        point: str | None = None,
        sample: int | None = 0,
        tokens: Any = None,
        layers: bool = False,
        ax: Axes | None = None,
    ) -> Axes:
        """One sample as matplotlib Axes, red for what raises the explained score and blue for what lowers it.

        Args:
            kind: "bar": relevance by word, step or feature, (T,), summed over all features of a step.
                "heatmap": time × feature, (T, F), in colours that are symmetric about white at 0.
                "waterfall": the books, from the seed down to inputs, biases, stabilizer, initial state and residual.
                None: a heat map where a row has several features; bars for words, behind integer ids and where it is one number.
            point: attribution point or the graph input it comes from; may be left out if there is one.
            sample: which one; of a waterfall None: all summed.
            tokens: the words of that sample, or a list of them a sample.
            layers: in a waterfall one bar a layer and kind instead of one a kind.
            ax: Axes to draw on; pyplot is then left alone. None: those of a new figure.

        Raises:
            InputError: no such kind, point or sample; tokens that don't fit; an argument that this kind has no use for; several
                classes (:meth:`select` one); a waterfall of a method that keeps no books.
            MissingExtra: matplotlib is not installed.
        """
        from .report.plots import plot

        return plot(self, kind, point=point, sample=sample, tokens=tokens, layers=layers, ax=ax)

    def _repr_html_(self) -> str:
        from .report.html import to_fragment

        return to_fragment(self)

    def to_pandas(self, point: str | None = None, *, per_step: bool = False) -> Any:
        """The relevance as a pandas DataFrame: one row an entry, so that ``groupby`` and ``pivot`` do the rest.

        Columns, in this order; one that no point has is left out, one that only some have is empty at the others:

        - point: the attribution point.
        - rank, class: only of several classes, index along their axis and the class. ``rank`` is left out where it is the class
          (``targets.all_classes``), ``class`` where the positions of a sample have classes of their own.
        - sample: index in the batch; -1 in tensors in which samples and another axis are one.
        - step: time step, where the point has a time axis; behind integer ids their position.
        - feature: index along all other axes together, in row-major order.
        - relevance: in the precision it was computed in.
        - value: what the model read there: the input's value, or behind integer ids the id. Internal tensors (``at=``) have
          none, nor has under ``per_step`` a step of several values.

        ``attrs`` holds explained (the output's name), target, seed, residual (None for NaN) and settings, as lists and numbers.

        Args:
            point: attribution point or the graph input it comes from; None: all of them.
            per_step: one row a sample and step, summed over the features as :meth:`per_step` does.

        Raises:
            InputError: no such point.
            MissingExtra: pandas is not installed.
        """
        from .table import frame

        return frame(self, point, per_step=per_step)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as ``.npz`` (exact, no pickle), ``.json`` or ``.parquet`` (the table of :meth:`to_pandas`, all else as metadata).

        Raises:
            InputError: another suffix.
            MissingExtra: .parquet without pyarrow.
            OSError: the file can't be written.
        """
        from .saved import write

        write(self, Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: missing, not an explanation, or of a newer schema.
            MissingExtra: .parquet without pyarrow.
        """
        from .saved import read

        return cls(**read(Path(path)))


FIELDS = (
    "relevance",
    "inputs",
    "outputs",
    "target",
    "seed",
    "absorbed",
    "ledger",
    "residual",
    "axes",
    "origins",
    "explained",
    "settings",
    "hidden",
    "arrived",
    "passed",
    "lengths",
    "labels",
)
