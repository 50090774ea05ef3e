"""Vocabularies, one word a line or a JSON object, and the simple splitting of texts that goes with them."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import InputError

__all__ = ["LARGEST", "SPLIT", "UNKNOWNS", "read_file", "read_vocabulary", "split"]

LARGEST = 2**63 - 1  # id: models read int64 at most
SPLIT = r"\w+|[^\w\s]"  # words, and every other character by itself
UNKNOWNS = ("<unk>", "[UNK]", "<UNK>", "<oov>", "<OOV>", "[OOV]")  # how a vocabulary may spell its entry for all other words


def read_file(path: Path, what: str) -> str:
    """The text of a file.

    Raises:
        InputError: it is missing or no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{what} {path}: can't be read: {error.strerror or error}") from error
    except UnicodeError as error:
        raise InputError(f"{what} {path}: not UTF-8: {error}") from error


def read_vocabulary(path: Path) -> dict[str, int]:
    """{word: id}.

    Args:
        path: a .json file with an object of ids by word; any other file one word a line, whose number counted from 0 is the id.

    Raises:
        InputError: missing, empty, or an entry makes no sense; says which.
    """
    text = read_file(path, "vocabulary")
    words = _object(path, text) if path.suffix.lower() == ".json" else _lines(path, text.removesuffix("\n").split("\n"))
    if not words:
        raise InputError(f"vocabulary {path}: no word in it")
    return words


def _lines(path: Path, lines: Iterable[str]) -> dict[str, int]:
    words: dict[str, int] = {}
    for i, line in enumerate(lines):
        word = line.removesuffix("\r")
        if word in words:
            raise InputError(f"vocabulary {path}, line {i + 1}: {word!r} stands on line {words[word] + 1} already")
        if word:
            words[word] = i
    return words


def _object(path: Path, text: str) -> dict[str, int]:
    try:
        raw: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"vocabulary {path}: not JSON: {error}") from error
    if isinstance(raw, dict) and isinstance(raw.get("model"), dict):
        raise InputError(
            f"vocabulary {path}: this is a tokenizer of the package tokenizers; give it as the tokenizer (--tokenizer)"
        )
    if not isinstance(raw, dict):
        raise InputError(f"vocabulary {path}: expected an object of ids by word, got {type(raw).__name__}")
    for word, index in raw.items():
        if type(index) is not int or not 0 <= index <= LARGEST:
            raise InputError(f"vocabulary {path}: the id of {word!r} is {index!r}, expected a whole number from 0 to {LARGEST}")
    return raw


@functools.lru_cache(maxsize=16)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _lowered(text: str, lowercase: bool, replace: Mapping[str, str]) -> tuple[str, list[int]]:
    """The text as it is looked up, and for each of its characters the place in the given text.

    Lower case may be longer than upper case (İ).
    """
    table = str.maketrans(dict(replace))
    own = (text.lower() if lowercase else text).translate(table)
    places = [i for i, c in enumerate(text) for _ in (c.lower() if lowercase else c).translate(table)]
    return own, places


def split(text: str, pattern: str = SPLIT, *, lowercase: bool = False, replace: Mapping[str, str] | None = None) -> Iterator[Any]:
    """(word, (start, stop)) of all matches of a pattern, in order, counted in characters of ``text``; the rest is dropped.

    Args:
        lowercase: words are looked for in the lower-cased text.
        replace: {character: what is read instead}, behind lower-casing.
    """
    own, places = _lowered(text, lowercase, replace or {})
    for match in _compiled(pattern).finditer(own):
        if match.group():
            yield match.group(), (places[match.start()], places[match.end() - 1] + 1)
