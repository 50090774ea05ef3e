"""Sphinx: ``sphinx-build -W --keep-going -n docs build/site`` makes the documentation, of these pages and the docstrings.

Nothing on a built page comes from the network: Furo's own files, the system's fonts, and formulas as MathML, which browsers draw.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import onnx_lrp  # noqa: E402

project = "onnx-lrp"
author = "The onnx-lrp developers"
copyright = "the onnx-lrp developers, MIT licence"
version = release = onnx_lrp.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "formulas", "sources"]
exclude_patterns = ["_ext", "_static"]
templates_path: list[str] = []
nitpicky = True
# types of other packages, aliases of types, and two that only the engine makes; everything else has to be on a page
ELSEWHERE = r"(hypothesis|st|collections\.abc|numpy|np|os|onnx|matplotlib)\..*|Axes|ModelProto|Case|Encode|Progress|Value|Block"
INSIDE = r"onnx_lrp\.(affine\.Scope|plan\.Plan|graph\.Graph)"
nitpick_ignore_regex = [("py:.*", f"{ELSEWHERE}|{INSIDE}")]

myst_enable_extensions = ["dollarmath", "attrs_block"]
myst_heading_anchors = 3
highlight_language = "text"
suppress_warnings = ["myst.header"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = "onnx-lrp"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
