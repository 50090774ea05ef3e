"""Names that a file chose, made safe to print: nothing in them is obeyed by a terminal, and none fills a screen."""

from __future__ import annotations

import unicodedata

__all__ = ["BIDI", "short", "visible"]

BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
LONGEST = 200  # characters of a name in a message


def visible(text: str) -> str:
    """Text with control characters, bidirectional overrides and lone surrogates spelled out.

    >>> visible("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if c in BIDI or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text
    )


def short(text: str) -> str:
    """A name as it is, or the two ends of a very long one."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 4 :]}"
