"""Texts on the command line: which there are, and what makes ids of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .app import Usage

if TYPE_CHECKING:
    from ..text import Tokenizer, Tokens

__all__ = [
    "TextFile",
    "TextOption",
    "Texts",
    "TokenizerFile",
    "Vocabulary",
    "by_of",
    "options_of",
    "texts_of",
    "tokenizer_of",
    "tokens_of",
]

Texts = Annotated[list[str] | None, typer.Option("--text", metavar="TEXT", help="A text, instead of INPUTS; may be repeated.")]
TextFile = Annotated[
    str | None, typer.Option("--text-file", metavar="FILE", help="Texts, one a line, instead of INPUTS; - is stdin.")
]
TokenizerFile = Annotated[
    str | None, typer.Option("--tokenizer", metavar="FILE", help="A tokenizer.json, which makes ids of texts (extra: text).")
]
Vocabulary = Annotated[
    str | None,
    typer.Option("--vocab", metavar="FILE", help="Instead: one word a line, its number from 0 is the id; or JSON {word: id}."),
]
TextOption = Annotated[
    list[str] | None,
    typer.Option(
        "--text-option",
        metavar="NAME=VALUE",
        help="lowercase=true, unknown=1, bos=, eos=, padding=, pad=right, max_length=, cut=left, split=REGEX; may be repeated.",
    ),
]


def options_of(tokenizer: str | None, vocab: str | None, text_option: Sequence[str] | None) -> dict[str, Any]:
    """What the options say, by the fields of :class:`onnx_lrp.text.TextOptions`."""
    from ..tokensfile import check

    found: dict[str, Any] = {}
    for entry in text_option or ():
        name, equals, value = entry.partition("=")
        if not equals:
            raise Usage(f"--text-option {entry}: expected NAME=VALUE, such as lowercase=true")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
        try:
            check(name, found[name])
        except InputError as error:
            raise Usage(f"--text-option {entry}: {error}") from error
    if tokenizer is not None and vocab is not None:
        raise Usage("--tokenizer and --vocab: give one of them")
    return found | {name: path for name, path in (("tokenizer", tokenizer), ("vocabulary", vocab)) if path is not None}


def by_of(given: list[str] | None, texts: bool) -> tuple[bool, str | None]:
    """(whether pieces are folded to words, what occlusion takes away)."""
    of_texts = [b for b in given or () if b in ("word", "piece")]
    others = [b for b in given or () if b not in ("word", "piece")]
    if len(of_texts) > 1 or len(others) > 1:
        raise Usage(f"--by {' --by '.join(given or ())}: word or piece, and step or feature for occlusion")
    if of_texts and not texts:
        raise Usage(f"--by {of_texts[0]}: of texts, which --text gives")
    return of_texts != ["piece"], others[0] if others else None


def texts_of(text: Sequence[str] | None, text_file: str | None) -> list[str]:
    """The texts of both options, in this order."""
    from ..report.read import read_texts

    return [*(text or ()), *(read_texts(text_file, stdin=sys.stdin) if text_file is not None else ())]


def tokenizer_of(model: str, options: dict[str, Any]) -> Tokenizer:
    """By the options, in place of those beside the model.

    Raises:
        Usage: there are neither.
        InputError, MissingExtra: see :class:`onnx_lrp.text.Tokenizer`.
    """
    from ..text import Tokenizer, beside

    stored = beside(model)
    if not os.path.isfile(stored) and not {"tokenizer", "vocabulary"} & set(options):
        raise Usage(f"texts need --tokenizer tokenizer.json or --vocab FILE, as there is no {stored} that says how ids are made")
    found = Tokenizer.beside(model, **options)
    assert found is not None
    return found


def tokens_of(tokenizer: Tokenizer, texts: Sequence[str], source: str | None) -> Tokens:
    """Encoded texts; errors say where the texts come from."""
    try:
        return tokenizer.encode(texts)
    except InputError as error:
        raise InputError(f"{source}: {error}" if source is not None else str(error)) from error
