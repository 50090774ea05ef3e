"""Several explanations of the same samples side by side: methods, rules, targets or models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .explanation import Explanation

if TYPE_CHECKING:
    from .summary import Summary

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What :func:`compare` returns. ``parts``: {name: explanation}, all of the same samples and attribution points."""

    parts: Mapping[str, Explanation]

    def to_html(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        tokens: Any = None,
        title: str | None = None,
        classes: Sequence[str] = (),
        summary: Summary | None = None,
        scheme: str = "blue-white-red",
        shared: bool = True,
    ) -> str:
        """One self-contained HTML page, the explanations of every sample side by side; also written to ``path`` if given.

        Args:
            path, tokens, title, classes, summary, scheme: as :meth:`Explanation.to_html` takes them.
            shared: one scale of colours for all explanations of a sample, from -m to m with the largest relevance m of any of
                them; False: each has its own.

        Raises:
            InputError: tokens don't fit, or there is no such scheme.
            OSError: the file can't be written.
        """
        from .report.html import to_html

        page = to_html(self, tokens=tokens, title=title, classes=classes, summary=summary, scheme=scheme, shared=shared)
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page

    def _repr_html_(self) -> str:
        from .report.html import to_fragment

        return to_fragment(self)


def compare(
    explanations: Mapping[str, Explanation] | Sequence[Explanation] | Explanation, *, classes: Sequence[str] = ()
) -> Comparison:
    """Put explanations of the same samples beside each other.

    >>> # onnx_lrp.compare({"lrp": explainer.explain(x), "occlusion": explainer.explain(x, method="occlusion")}).to_html("x.html")

    Args:
        explanations: by name; or a list, named by method and target; or one of several classes, each of which is a part.
        classes: names of the classes, which such parts are called by.

    Raises:
        InputError: none or one of them, or they are not of the same samples and attribution points.
    """
    if isinstance(explanations, Explanation):
        if not explanations.several:
            raise InputError("one explanation of one class has nothing to be compared with; pass {name: explanation}")
        return Comparison(_classes(explanations, classes))
    given = dict(explanations) if isinstance(explanations, Mapping) else _named(explanations)
    parts: dict[str, Explanation] = {}
    for name, explanation in given.items():
        if not isinstance(explanation, Explanation):
            raise InputError(f"compare: {name!r} is {type(explanation).__name__}, expected an Explanation")
        if explanation.several:
            parts |= {f"{name}, {which}": part for which, part in _classes(explanation, classes).items()}
        else:
            parts[str(name)] = explanation
    if len(parts) < 2:
        raise InputError(f"compare: {len(parts)} explanation(s), expected two or more of the same samples")
    (first, own), *others = parts.items()
    for name, other in others:
        if len(other.seed) != len(own.seed):
            raise InputError(f"compare: {name!r} is of {len(other.seed)} sample(s), {first!r} of {len(own.seed)}")
        for point, array in own.relevance.items():
            found = set(other.relevance)
            if found != set(own.relevance):
                raise InputError(
                    f"compare: {name!r} attributes to {', '.join(sorted(found))}, {first!r} to {', '.join(own.relevance)}; "
                    "explain both with the same at="
                )
            if other.relevance[point].shape != array.shape:
                raise InputError(
                    f"compare: {point!r} is {other.relevance[point].shape} in {name!r} and {array.shape} in {first!r}; "
                    "explain the same inputs"
                )
    return Comparison(parts)


def _classes(explanation: Explanation, names: Sequence[str]) -> dict[str, Explanation]:
    ranked = str(explanation.settings.get("target", "")).startswith("top")
    named = not ranked and len(set(names)) == len(names)
    each = [explanation.select(k) for k in range(len(explanation.seed))]
    return {names[k] if named and k < len(names) else f"rank {k + 1}" if ranked else f"class {k}": e for k, e in enumerate(each)}


def _named(explanations: Sequence[Explanation]) -> dict[str, Explanation]:
    """By method; where these are the same, by rule or target, else numbered."""
    for words in (_method, _rule, _target):
        names = [words(e) for e in explanations]
        if len(set(names)) == len(names):
            return dict(zip(names, explanations, strict=True))
    return {f"{_method(e)}, {k}": e for k, e in enumerate(explanations, 1)}


def _method(explanation: Explanation) -> str:
    return explanation.method.replace("_", " ")


def _rule(explanation: Explanation) -> str:
    return f"{_method(explanation)}, {explanation.settings.get('rule', '')}, gates {explanation.settings.get('gates', '')}"


def _target(explanation: Explanation) -> str:
    import numpy as np

    said = explanation.settings.get("target")
    if said is not None:
        return f"{_method(explanation)}, {said}"
    classes = np.unique(np.asarray(explanation.target))
    return f"{_method(explanation)}, {f'class {classes[0]}' if len(classes) == 1 else 'a class each'}"
