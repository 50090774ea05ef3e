"""An Explanation as one self-contained HTML page: no script, nothing loaded, light and dark."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np

from .. import __version__
from ..books import Books
from ..explanation import Explanation
from .view import Sample, Tokens, number, readable, samples, visible

__all__ = ["ledger", "page", "to_fragment", "to_html", "write_html"]

SAMPLES, HEIGHT, WIDTH = 20, 400, 32  # more samples, rows and features than these are counted, not shown


def to_html(
    explanation: Explanation, *, tokens: Tokens | None = None, title: str | None = None, classes: Sequence[str] = ()
) -> str:
    """The page of an explanation.

    Args:
        tokens: names of the time steps, of one sample or a list for each.
        title: heading of the page.
        classes: names of the classes.

    Raises:
        InputError: the tokens don't fit.
    """
    shown = samples(explanation, tokens=tokens, classes=classes, limit=SAMPLES)
    return page(shown, title=title, left_out=explanation.seed.shape[-1] - min(explanation.seed.shape[-1], SAMPLES))


def to_fragment(explanation: Explanation, *, tokens: Tokens | None = None) -> str:
    """The same without head and body, to stand inside another page such as a notebook."""
    shown = samples(explanation, tokens=tokens, limit=SAMPLES)
    return _render("body.html", shown, left_out=explanation.seed.shape[-1] - min(explanation.seed.shape[-1], SAMPLES))


def ledger(books: Books) -> str:
    """The table of the books alone, to stand inside another page."""
    table = _environment().get_template("ledger.html").render(books=readable(books))
    return _environment().get_template("style.html").render() + f'<div class="onnx-lrp">\n{table}</div>\n'


def write_html(
    explanation: Explanation, path: str | os.PathLike[str], *, tokens: Tokens | None = None, title: str | None = None
) -> None:
    """:func:`to_html` into a file.

    Raises:
        InputError: the tokens don't fit.
        OSError: the file can't be written.
    """
    Path(path).write_text(to_html(explanation, tokens=tokens, title=title), encoding="utf-8")


def page(shown: Sequence[Sample], *, title: str | None = None, left_out: int = 0) -> str:
    """The page of samples, which may come from several explanations."""
    return _render("page.html", shown, title=visible(title or "Explanation"), left_out=left_out, version=__version__)


def _render(template: str, shown: Sequence[Sample], **values: object) -> str:
    return _environment().get_template(template).render(samples=shown, width=WIDTH, height=HEIGHT, **values)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("onnx_lrp.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(number=number, share=_share, strongest=_strongest, largest=_largest)
    return environment


def _share(value: float, largest: float) -> str:
    return f"{min(abs(value) / largest, 1.0):.3f}"


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=0)) or 1.0


def _strongest(features: np.ndarray, count: int) -> list[int]:
    """The columns of (T, F) that moved most relevance, in their order."""
    order = np.argsort(-np.abs(features).sum(0), kind="stable")[:count]
    return sorted(int(k) for k in order)
