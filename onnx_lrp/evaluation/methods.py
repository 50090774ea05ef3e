"""What is compared: a method by its name and settings, as ``lrp``, ``lrp:gates=half:epsilon=0.01``, ``occlusion:baseline=0``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import RuleError
from ..methods import LRP, METHODS, prepare_method

__all__ = ["DEFAULT", "RANDOM", "Spec", "specs"]

RANDOM = "random"
DEFAULT = (LRP, "gradient_x_input", "integrated_gradients", "sensitivity", "occlusion", RANDOM)
RULES = ("rule", "epsilon", "bias_factor", "gates", "composite")  # of load


@dataclass(frozen=True)
class Spec:
    """One of the methods compared; ``loading``: options of ``load``, ``options``: of the method."""

    name: str
    method: str
    loading: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def specs(given: str | Sequence[str]) -> list[Spec]:
    """The methods by name, "random" left out as it is compared with anyway.

    Raises:
        RuleError: no such method or setting, or one twice.
    """
    names = [n.strip() for n in (given.split(",") if isinstance(given, str) else given)]
    found = [_spec(name) for name in names if name != RANDOM]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise RuleError(f"method {twice[0]!r} is named twice")
    if not found:
        raise RuleError(f"no method to evaluate beside 'random'; there is: {', '.join(METHODS)}")
    return found


def _spec(name: str) -> Spec:
    method, *settings = name.split(":")
    if method not in METHODS:
        raise RuleError(f"method {method!r} does not exist; there is: {', '.join((*METHODS, RANDOM))}")
    loading: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise RuleError(f"method {name!r}: {setting!r} is no setting such as {'gates=half' if method == LRP else 'baseline=0'}")
        if method == LRP and key not in RULES:
            raise RuleError(f"method {name!r}: no setting {key!r}; there is: {', '.join(RULES)}")
        (loading if method == LRP else options)[key] = _value(text)
    prepare_method(method, options)
    return Spec(name, method, loading, options)


def _value(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
