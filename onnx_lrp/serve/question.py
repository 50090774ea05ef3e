"""What the page asks: typed as it is, checked, and turned into what ``load`` and ``explain`` take."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from typing import Any

from ..errors import InputError

__all__ = ["LONGEST", "SAMPLES", "Question", "parameters"]

SAMPLES, LONGEST = 100, 100_000  # texts, and characters of one
LARGEST = sys.float_info.max
NEEDED = ("epsilon", "bias_factor")
NUMBERS = (*NEEDED, "steps", "baseline", "gamma", "alpha", "low", "high")


def parameters(rule: str) -> list[str]:
    """Numbers that a rule has besides the stabilizer; β follows from α. Empty for a rule that doesn't exist."""
    from ..rules import NAMES

    return [f.name for f in fields(NAMES[rule]) if f.name not in ("epsilon", "beta")] if rule in NAMES else []


def _whole(text: str) -> bool:
    """Whether there is no half of a surrogate pair in it, which JSON can spell and no answer can hold."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


@dataclass(frozen=True)
class Question:
    """What the page asks; as it is typed, and "" where nothing is.

    Attributes:
        texts: one by one; empty: a file.
        file: the id of the one that was dropped.
        beside: a second method.
        rule: "rule:epsilon" or "composite:epsilon-plus".
        gamma, alpha, low, high: numbers of the rules that have them, None: their own; an alpha-beta rule's β is α − 1.
        time, id, features: columns of a table.
        show: of texts "word" (also where nothing is said) or "piece".
    """

    texts: tuple[str, ...] = ()
    file: str = ""
    target: str = ""
    method: str = "lrp"
    beside: str = ""
    rule: str = "rule:epsilon"
    epsilon: float = 1e-3
    bias_factor: float = 0.0
    gamma: float | None = None
    alpha: float | None = None
    low: float | None = None
    high: float | None = None
    gates: str = "all"
    at: str = ""
    output: str = ""
    steps: int | None = None
    baseline: float | None = None
    by: str = ""
    time: str = ""
    id: str = ""
    features: str = ""
    show: str = ""

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
                good = good and all(isinstance(t, str) and len(t) <= LONGEST and _whole(t) for t in value)
                expected, value = (
                    f"a list of at most {SAMPLES} texts of at most {LONGEST:,} characters",
                    tuple(value) if good else value,
                )
            elif name in NUMBERS:
                number = isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST
                good = (number and (name != "steps" or isinstance(value, int))) or (value is None and name not in NEEDED)
                expected = "a whole number" if name == "steps" else "a number"
            else:
                good, expected = isinstance(value, str) and len(value) <= 10_000 and _whole(value), "text"
            if not good:
                raise InputError(f"{name}: {str(value)[:60]!r}, expected {expected}")
            given[name] = value
        return cls(**given)

    @property
    def loading(self) -> dict[str, Any]:
        """What ``onnx_lrp.load`` takes.

        Raises:
            InputError: neither a rule nor a composite.
            RuleError: a number that the rule can't have.
        """
        kind, _, name = self.rule.partition(":")
        if kind not in ("rule", "composite"):
            raise InputError(f"rule {self.rule!r}: expected rule:NAME or composite:NAME")
        how: dict[str, Any] = {"composite": name}
        if kind == "rule":
            how = {"rule": self._rule(name), "epsilon": self.epsilon, "bias_factor": self.bias_factor}
        at = [name.strip() for name in self.at.split(",") if name.strip()]
        return {**how, "gates": self.gates, "at": at or None, "output": self.output or None}

    def _rule(self, name: str) -> Any:
        """By its name, or with the numbers that were given for it."""
        from ..rules import NAMES

        given = {k: getattr(self, k) for k in parameters(name) if getattr(self, k) is not None}
        if not given:
            return name
        if "alpha" in given:
            given["beta"] = given["alpha"] - 1
        return NAMES[name](self.epsilon, **given)

    @property
    def pieces(self) -> bool:
        """Whether texts are shown in pieces, not in words.

        Raises:
            InputError: in neither.
        """
        if self.show not in ("", "word", "piece"):
            raise InputError(f"show {self.show!r}: expected word or piece")
        return self.show == "piece"

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
