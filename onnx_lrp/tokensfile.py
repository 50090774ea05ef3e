"""How a model's texts become ids, as a file beside the model: ``model.tokens.json`` beside ``model.onnx``.

An object with these fields, of which the first or the second is needed:

========== ===================================================================================================================
tokenizer  a ``tokenizer.json`` of the package tokenizers; a path from the file's own folder on
vocabulary one word a line (its number, counted from 0, is the id), or a .json object of ids by word; likewise
split      of a vocabulary: a regular expression whose matches are the words; ``\\S+`` splits at spaces. Default: ``\\w+|[^\\w\\s]``
lowercase  true: texts are lower-cased first
replace    of a vocabulary: an object {character: what is read instead}, behind lower-casing
unknown    id or word that stands for words outside the vocabulary. Default: the vocabulary's <unk>, [UNK] or <oov>
bos, eos   id or word put before and behind every text (a tokenizer.json mostly does so itself)
max_length at most so many ids, bos and eos included; what is beyond is cut off, and reports say how many
cut        where: "right" (default) or "left"
pad        "right" or "left": texts shorter than max_length are filled up to it, as models with a fixed length need
padding    id or word to fill up with
classes    a list: what the model's classes are called, from class 0 on
========== ===================================================================================================================
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .errors import InputError
from .vocabulary import LARGEST, read_file

__all__ = ["SUFFIX", "TextOptions", "beside", "check"]

SUFFIX = ".tokens.json"
SIDES = ("left", "right")
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "tokenizer": ((str,), "a path"),
    "vocabulary": ((str,), "a path"),
    "split": ((str,), "a regular expression"),
    "lowercase": ((bool,), "true or false"),
    "replace": ((dict,), "an object of text by character"),
    "unknown": ((int, str), "an id or a word"),
    "bos": ((int, str), "an id or a word"),
    "eos": ((int, str), "an id or a word"),
    "padding": ((int, str), "an id or a word"),
    "max_length": ((int,), "a whole number from 1 on"),
    "cut": ((str,), "left or right"),
    "pad": ((str,), "left or right"),
    "classes": ((list, tuple), "a list of names"),
}


def beside(model: str | os.PathLike[str]) -> Path:
    """Where the options of a model are kept: ``model.tokens.json`` for ``model.onnx``."""
    path = Path(model)
    return path.parent / f"{path.stem}{SUFFIX}"  # with_suffix() refuses "." and "/"


@dataclass(frozen=True)
class TextOptions:
    """The fields of the file, checked; None is a field's default. Paths stand as they are opened.

    Raises:
        InputError: a field of the wrong type, an impossible combination, or neither tokenizer nor vocabulary nor ``words``.
    """

    tokenizer: str | None = None
    vocabulary: str | None = None
    split: str | None = None
    lowercase: bool | None = None
    replace: Mapping[str, str] | None = field(default=None, hash=False)
    unknown: int | str | None = None
    bos: int | str | None = None
    eos: int | str | None = None
    padding: int | str | None = None
    max_length: int | None = None
    cut: str | None = None
    pad: str | None = None
    classes: Sequence[str] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        for name in KINDS:
            check(name, getattr(self, name))
        if self.classes is not None:  # a list, as it comes from JSON
            object.__setattr__(self, "classes", tuple(self.classes))
        self._combined()

    def _combined(self) -> None:
        if self.tokenizer is not None:
            if self.vocabulary is not None:
                raise InputError(f"text options: tokenizer {self.tokenizer} and vocabulary {self.vocabulary}: give one of them")
            for name in ("split", "replace"):
                if getattr(self, name) is not None:
                    raise InputError(f"text option {name}: of a vocabulary alone; a tokenizer.json splits by its own rules")
        if self.pad is not None and (self.padding is None or self.max_length is None):
            raise InputError(f"text option pad: filling up {self.pad} needs padding (with what) and max_length (how far)")

    def but(self, **given: Any) -> TextOptions:
        """These, with what is given (not None) in their place; a tokenizer or vocabulary drops what belongs to the other one."""
        given = {name: value for name, value in given.items() if value is not None}
        _known(given, "text options")
        if given.get("tokenizer") is not None:
            given = {"vocabulary": None, "split": None, "replace": None, **given}
        elif given.get("vocabulary") is not None:
            given = {"tokenizer": None, **given}
        return replace(self, **given)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> TextOptions:
        """The options in a file.

        Raises:
            InputError: missing, not JSON, an unknown field, or a value that makes no sense.
        """
        file = Path(path)
        try:
            raw: Any = json.loads(read_file(file, "text options"))
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{file}: not JSON: {error}") from error
        if not isinstance(raw, dict):
            raise InputError(f"{file}: expected an object with the fields {', '.join(KINDS)}, got {type(raw).__name__}")
        _known(raw, str(file))
        for name in ("tokenizer", "vocabulary"):
            if isinstance(raw.get(name), str):
                raw[name] = str(file.parent / raw[name])
                if os.path.exists(raw[name]) and not os.path.isfile(raw[name]):  # a device or pipe may never end
                    raise InputError(f"{file}: {name} {raw[name]}: expected a regular file")
        try:
            return cls(**raw)
        except InputError as error:
            raise InputError(f"{file}: {error}") from error

    def write(self, path: str | os.PathLike[str], *, folder: str | os.PathLike[str] | None = None) -> None:
        """What :meth:`read` reads; paths become relative to the file's folder.

        Args:
            folder: relative to this one instead, where the file will lie in the end.

        Raises:
            OSError: it can't be written.
        """
        file = Path(path)
        start = os.path.realpath(file.parent if folder is None else folder)
        raw: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        for name in ("tokenizer", "vocabulary"):
            if name in raw:
                raw[name] = Path(os.path.relpath(os.path.realpath(raw[name]), start)).as_posix()
        file.write_text(json.dumps(raw, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check(name: str, value: Any) -> None:
    """Refuse a value that a field can't have, whatever the others are; None is its default.

    Raises:
        InputError: it says what was expected, or that there is no such field.
    """
    _known({name: value}, "text options")
    types, expected = KINDS[name]
    good = value is None or (isinstance(value, types) and (bool in types or not isinstance(value, bool)))
    if good and isinstance(value, int) and not isinstance(value, bool):
        good = (1 if name == "max_length" else 0) <= value <= LARGEST
    if good and name in ("cut", "pad") and value is not None:
        good = value in SIDES
    if good and isinstance(value, Mapping):
        good = all(len(key) == 1 and isinstance(text, str) for key, text in value.items())
    if good and isinstance(value, list | tuple):
        good = all(isinstance(each, str) for each in value)
    if not good:
        raise InputError(f"text option {name}: {value!r}, expected {expected}")
    if name == "split" and value is not None:
        try:
            re.compile(value)
        except re.error as error:
            raise InputError(f"text option split: {value!r} is no regular expression: {error}") from error


def _known(raw: Mapping[str, Any], where: str) -> None:
    unknown = sorted(set(raw) - set(KINDS))
    if unknown:
        raise InputError(f"{where}: there is no field {unknown[0]!r}; fields are {', '.join(KINDS)}")
