"""Formulas as MathML, made while the pages are built: browsers draw it, so that nothing is loaded and no script runs."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.errors import ExtensionError


def mathml(latex: str, *, block: bool) -> str:
    """MathML of LaTeX; what can't be read is an error of the build."""
    try:
        return convert(latex, display="block" if block else "inline")
    except Exception as error:
        raise ExtensionError(f"formula {latex!r}: {type(error).__name__} {error}") from error


def inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(mathml(node.astext(), block=False))
    raise nodes.SkipNode


def block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math" tabindex="0">{mathml(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
