"""Explanations as one self-contained HTML page: nothing is loaded, everything is escaped, and it is read without its script too."""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from markupsafe import Markup

from .. import __version__
from ..books import Books
from ..comparison import Comparison, compare
from ..errors import InputError
from ..explanation import Explanation
from . import colors
from .blocks import Block, blocks_of, waterfall
from .flow import flow
from .lead import lead
from .rows import Tokens
from .sample import Sample
from .view import samples
from .wording import number, readable, visible, warning

if TYPE_CHECKING:
    from ..summary import Summary

__all__ = ["card", "ledger", "page", "script", "stylesheet", "to_fragment", "to_html", "to_samples", "with_flows", "write_html"]

SAMPLES, COLUMNS = 100, 8  # more samples, and more explanations of one, are counted, not shown
OPEN = 8  # up to so many samples show everything at once
NOTEBOOK = 10  # samples in a notebook's cell


def to_html(
    explanation: Explanation | Comparison,
    *,
    tokens: Tokens | None = None,
    title: str | None = None,
    classes: Sequence[str] = (),
    titles: Sequence[str] = (),
    summary: Summary | None = None,
    scheme: str = colors.DEFAULT,
    shared: bool = True,
) -> str:
    """The page of an explanation, or of several side by side.

    Args:
        tokens: names of the time steps, of one sample or a list for each.
        title: heading of the page.
        classes: names of the classes.
        titles: a heading for each sample.
        summary: of the explainer: the model's card and the flow through its layers are shown as well.
        scheme: of colours, one of ``colors.SCHEMES``.
        shared: one scale for all explanations of a sample.

    Raises:
        InputError: the tokens don't fit, or there is no such scheme.
    """
    _known(scheme)
    shown, left_out, more = _columns(explanation, tokens, classes, titles, summary, SAMPLES)
    return page(shown, title=title, left_out=left_out, more=more, summary=summary, scheme=scheme, shared=shared)


def to_fragment(explanation: Explanation | Comparison, *, tokens: Tokens | None = None) -> str:
    """The same without head and body, to stand inside another page such as a notebook."""
    shown, left_out, more = _columns(explanation, tokens, (), (), None, NOTEBOOK)
    return _render(
        "fragment.html", blocks=blocks_of(shown, True), left_out=left_out, more=more, scheme=colors.DEFAULT, is_open=False
    )


def to_samples(explanation: Explanation | Comparison, *, classes: Sequence[str] = (), summary: Summary | None = None) -> str:
    """The same without head, body and choice of colours; the page around has those, :func:`stylesheet` and :func:`script`."""
    shown, left_out, more = _columns(explanation, None, classes, (), summary, SAMPLES)
    return _render("shown.html", schemes={}, **_values(blocks_of(shown, True), left_out, more, summary))


def stylesheet() -> str:
    """What a page around :func:`to_samples` needs; its body is of the classes ``onnx-lrp page``."""
    return "\n".join([_source("style.css"), colors.css(), _source("page.css")])


def script() -> str:
    """Likewise; ``onnxLrpPage()`` is to be called whenever there are new samples."""
    return _source("tips.js") + _source("page.js")


def ledger(books: Books) -> str:
    """The waterfall and the table of the books alone, to stand inside another page."""
    return _render("books.html", books=readable(books), scheme=colors.DEFAULT, note=warning(books.seed))


def card(summary: Summary) -> str:
    """The model's card alone, to stand inside another page."""
    return _render("card_alone.html", summary=summary, scheme=colors.DEFAULT)


def write_html(
    explanation: Explanation | Comparison,
    path: str | os.PathLike[str],
    *,
    tokens: Tokens | None = None,
    title: str | None = None,
) -> None:
    """:func:`to_html` into a file.

    Raises:
        InputError: the tokens don't fit.
        OSError: the file can't be written.
    """
    Path(path).write_text(to_html(explanation, tokens=tokens, title=title), encoding="utf-8")


def page(
    shown: Sequence[Sample] | Mapping[str, Sequence[Sample]],
    *,
    title: str | None = None,
    left_out: int = 0,
    more: int = 0,
    summary: Summary | None = None,
    scheme: str = colors.DEFAULT,
    shared: bool = True,
) -> str:
    """The page of samples, which may come from several explanations.

    Args:
        shown: the samples; or {name: the same samples, explained in another way}.
        left_out: how many samples are not among them.
        more: how many explanations of each.
    """
    _known(scheme)
    columns = shown if isinstance(shown, Mapping) else {"": shown}
    blocks = blocks_of(columns, shared)
    return _render(
        "page.html",
        title=visible(title or "Explanation"),
        scheme=scheme,
        schemes=colors.SCHEMES,
        version=__version__,
        hashes=[_hash(name) for name in ("tips.js", "page.js")],
        **_values(blocks, left_out, more, summary, shared),
    )


def _values(blocks: list[Block], left_out: int, more: int, summary: Summary | None, shared: bool = True) -> dict[str, Any]:
    """What the templates of samples ask for."""
    return {
        "blocks": blocks,
        "left_out": left_out,
        "more": more,
        "summary": summary,
        "shared": shared,
        "predicted": list(dict.fromkeys(b.sample.predicted for b in blocks if b.sample.predicted)),
        "how": _how(blocks),
        "is_open": len(blocks) <= OPEN,
    }


def with_flows(shown: Sequence[Sample], explanation: Explanation, summary: Summary) -> list[Sample]:
    """The samples with their flow through the layers, where the summary is of what was explained."""
    if explanation.method != "lrp":
        return list(shown)
    count = len(explanation.seed)
    passed = {n: np.ravel(sums) for n, sums in explanation.passed.items() if np.size(sums) == count}
    return [
        replace(s, flow=flow(summary, explanation.books(b), {n: float(sums[b]) for n, sums in passed.items()}))
        for b, s in enumerate(shown)
    ]


def _known(scheme: str) -> None:
    if scheme not in colors.SCHEMES:
        raise InputError(f"scheme={scheme!r} does not exist; one of {', '.join(colors.SCHEMES)}")


def _columns(
    explanation: Explanation | Comparison,
    tokens: Tokens | None,
    classes: Sequence[str],
    titles: Sequence[str],
    summary: Summary | None,
    limit: int,
) -> tuple[dict[str, list[Sample]], int, int]:
    """{name: samples}, how many samples are left out, and how many explanations of each."""
    if isinstance(explanation, Explanation) and explanation.several and len(explanation.seed) > 1:
        explanation = compare(explanation, classes=classes)
    elif isinstance(explanation, Explanation) and explanation.several:
        explanation = explanation.select(0)
    parts = dict(explanation.parts) if isinstance(explanation, Comparison) else {"": explanation}
    names = list(parts)[:COLUMNS]
    if len(parts) > COLUMNS:  # of many classes those with the highest scores
        best = sorted(parts, key=lambda n: -float(np.mean(parts[n].seed)))[:COLUMNS]
        names = [n for n in parts if n in best]
    limit = min(limit, 3 * SAMPLES // len(names))
    shown: dict[str, list[Sample]] = {}
    for name in names:
        part = parts[name]
        found = samples(part, tokens=tokens, classes=classes, titles=titles, limit=limit)
        shown[visible(name)] = found if summary is None else with_flows(found, part, summary)
    count = len(next(iter(parts.values())).seed)
    return shown, count - min(count, limit), len(parts) - len(names)


def _how(blocks: Sequence[Block]) -> list[tuple[str, str]]:
    """(name, settings) of every explanation, where they are those of all samples; else nothing."""
    found = {tuple((name, s.settings) for name, s in b.columns) for b in blocks}
    if len(found) != 1:
        return []
    each = list(found.pop())
    return each if len({settings for _, settings in each}) > 1 else [("", each[0][1])]


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


def _source(name: str) -> str:
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), name)[0]


def _script(name: str) -> Markup:
    """A script of ours, as it is; it holds nothing of what is explained."""
    return Markup(_source(name))


def _hash(name: str) -> str:
    """What the page's policy allows to run, and nothing else."""
    return "sha256-" + base64.b64encode(hashlib.sha256(_source(name).encode()).digest()).decode()


def _share(part: float, whole: float) -> str:
    """In percent, "" where that says nothing."""
    if not (math.isfinite(part) and math.isfinite(whole)) or not whole or not 0 < part / whole < 10:
        return ""
    return f"{100 * part / whole:.0f} %"


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("onnx_lrp.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(lead=lead, number=number, visible=visible, waterfall=waterfall, share_of=_share)
    environment.globals.update(script=_script, shades=Markup(colors.css()), finite=math.isfinite)
    return environment
