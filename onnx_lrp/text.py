"""Texts as a model reads them: a :class:`Tokenizer` makes ids of texts and keeps which pieces, and which words, they stand for.

tokenizer = Tokenizer.load("tokenizer.json")        # or vocabulary.txt, or model.tokens.json
tokens = tokenizer.encode(["a fine film"])
explanation = explainer.explain(tokens)             # explanation.labels has the pieces and words
explanation.per_word()                              # relevance of each word: the sum of its pieces'
"""

from __future__ import annotations

import functools
import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError, MissingExtra
from .labels import Word
from .tokens import Span, Text, Tokens
from .tokensfile import SUFFIX, TextOptions, beside
from .vocabulary import SPLIT, UNKNOWNS, read_file, read_vocabulary, split

__all__ = ["Text", "TextOptions", "Tokenizer", "Tokens", "Word", "beside"]


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Texts → ids. By a vocabulary and simple splitting, or by a tokenizer.json of the package tokenizers.

    Args:
        options: see :class:`TextOptions`.
        vocabulary: {word: id} instead of a file.
        backend: a ``tokenizers.Tokenizer`` instead of a file.

    Raises:
        InputError: nothing to tokenize with, a file that can't be read, a word that the vocabulary does not have.
        MissingExtra: a tokenizer.json without the package tokenizers.
    """

    options: TextOptions = field(default_factory=TextOptions)
    vocabulary: Mapping[str, int] | None = None
    backend: Any = None

    def __post_init__(self) -> None:
        options, words, backend = self.options, self.vocabulary, self.backend
        if words is None and backend is None:
            if options.tokenizer is not None:
                backend = _backend(Path(options.tokenizer))
            elif options.vocabulary is not None:
                words = read_vocabulary(Path(options.vocabulary))
            else:
                raise InputError("neither a tokenizer.json nor a vocabulary to make ids of texts with")
        object.__setattr__(self, "vocabulary", words)
        object.__setattr__(self, "backend", backend)
        if backend is not None:
            object.__setattr__(self, "backend", _limited(backend, options))
        _ = self._special

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Any) -> Tokenizer:
        """From a file: options such as ``model.tokens.json``, a ``tokenizer.json``, or a vocabulary.

        Args:
            options: fields of :class:`TextOptions`, which win.

        Raises:
            InputError: it can't be read as one of them.
            MissingExtra: a tokenizer.json without the package tokenizers.
        """
        file = Path(path)
        if file.name.endswith(SUFFIX):
            return cls(TextOptions.read(file).but(**options))
        own = TextOptions(vocabulary=str(file))
        if file.suffix.lower() == ".json":
            try:
                raw = json.loads(read_file(file, "tokenizer"))
            except (json.JSONDecodeError, RecursionError) as error:
                raise InputError(f"tokenizer {file}: not JSON: {error}") from error
            if isinstance(raw, dict) and isinstance(raw.get("model"), dict):
                own = TextOptions(tokenizer=str(file))
        return cls(own.but(**options))

    @classmethod
    def beside(cls, model: str | os.PathLike[str], **options: Any) -> Tokenizer | None:
        """From the options beside a model, with those given in their place; None where there are neither.

        Raises:
            InputError, MissingExtra: see :class:`Tokenizer`.
        """
        file = beside(model)
        own = {name: value for name, value in options.items() if value is not None}
        there = os.path.isfile(file)
        stored = TextOptions.read(file) if there else TextOptions()
        return cls(stored.but(**own)) if own or there else None

    def encode(self, texts: str | Sequence[str]) -> Tokens:
        """Ids, pieces and words of every text, each by itself.

        Raises:
            InputError: a text without any piece, or with a word that neither the vocabulary nor ``unknown`` covers.
        """
        given = [texts] if isinstance(texts, str) else list(texts)
        if not given:
            raise InputError("no text to encode")
        found = []
        for i, made in enumerate(self.each(given)):
            if isinstance(made, InputError):
                raise InputError(f"text {i + 1} of {len(given)}: {made}" if len(given) > 1 else f"text: {made}")
            found.append(made)
        return Tokens(tuple(found))

    def each(self, texts: Sequence[str]) -> list[Text | InputError]:
        """Every text, or what is wrong with it: see :meth:`encode`. A tokenizer.json encodes them side by side."""
        backend, lowercase = self.backend, bool(self.options.lowercase)
        # lone surrogates are no text
        whole = [text.encode("utf-8", "replace").decode() if isinstance(text, str) else text for text in texts]
        read: list[Any] = [None] * len(whole)
        if backend is not None:
            own = [i for i, text in enumerate(whole) if isinstance(text, str)]
            made = backend.encode_batch([_lower(whole[i]) if lowercase else whole[i] for i in own])
            for i, encoding in zip(own, made, strict=True):
                read[i] = encoding
        return [self._encoded(text, encoding) for text, encoding in zip(whole, read, strict=True)]

    def _encoded(self, text: str, encoding: Any) -> Text | InputError:
        if not isinstance(text, str):
            return InputError(f"expected text, got {type(text).__name__}")
        try:
            parts = self._by_vocabulary(text) if encoding is None else self._by_backend(encoding)
            if all(start == stop for start, stop in parts.spans):  # nothing, or only what is put around a text
                raise InputError(f"no word in {text[:60]!r}")
            return self._finished(text, parts)
        except InputError as error:
            return error

    def _by_vocabulary(self, text: str) -> _Parts:
        words, unknown = self.vocabulary or {}, self._special["unknown"]
        out = _Parts()
        for word, span in split(
            text, self.options.split or SPLIT, lowercase=bool(self.options.lowercase), replace=self.options.replace
        ):
            index = words.get(word, unknown)
            if index is None:
                raise InputError(
                    f"{word!r} is not in the vocabulary, which has no entry for unknown words "
                    f"({', '.join(UNKNOWNS[:2])}, …); name one with the text option unknown"
                )
            if word not in words:
                out.unknown.append(len(out.ids))
            out.add(index, word, span, len(out.ids))
        return out

    def _by_backend(self, found: Any) -> _Parts:
        out, unknown = _Parts(), self._special["unknown"]
        padded, special, groups = found.attention_mask, found.special_tokens_mask, found.word_ids  # lists made anew at every look
        for k, (index, piece, span) in enumerate(zip(found.ids, found.tokens, found.offsets, strict=True)):
            added = special[k] and span[0] == span[1]
            if index == unknown and not added:
                out.unknown.append(k)
            if not padded[k]:
                out.padding.append(k)
            out.add(index, piece, span, None if added else groups[k])
        overlap = self.backend.truncation["stride"] if found.overflowing else 0  # of each part that is left with the one before
        out.left_out = sum(part.special_tokens_mask.count(0) - overlap for part in found.overflowing)
        return out

    def _finished(self, text: str, parts: _Parts) -> Text:
        """Cut, with what stands before and behind, and filled up."""
        options = self.options
        ends = [self._special["bos"], self._special["eos"]]
        if self.backend is None and options.max_length is not None:
            room = options.max_length - sum(e is not None for e in ends)
            if room < 1:
                raise InputError(f"text option max_length: {options.max_length} leaves no room beside bos and eos")
            parts = parts.part(room, options.cut)
        before, behind = ([] if e is None else [e] for e in ends)
        fill = []
        if options.pad is not None:
            fill = [self._special["padding"]] * ((options.max_length or 0) - len(parts.ids) - len(before) - len(behind))
        left, right = (fill, []) if options.pad == "left" else ([], fill)
        lead, tail = [*left, *before], [*behind, *right]
        n, shift = len(parts.ids), len(lead)
        ids = [*lead, *parts.ids, *tail]
        names = [self._piece(i) for i in lead], [self._piece(i) for i in tail]
        words = _words(text, parts)
        start, stop = parts.spans[0][0], parts.spans[-1][1]
        return Text(
            text=text,
            ids=np.asarray(ids, np.int64),
            pieces=(*names[0], *parts.pieces, *names[1]),
            spans=(*[(start, start)] * shift, *parts.spans, *[(stop, stop)] * len(tail)),
            words=(
                *(Word(name, k, k + 1) for k, name in enumerate(names[0])),
                *(Word(w.text, w.first + shift, w.stop + shift) for w in words),
                *(Word(name, shift + n + k, shift + n + k + 1) for k, name in enumerate(names[1])),
            ),
            unknown=tuple(k + shift for k in parts.unknown),
            padding=(
                *range(len(left)),
                *(k + shift for k in parts.padding),
                *range(len(ids) - len(right), len(ids)),
            ),
            left_out=parts.left_out,
        )

    @functools.cached_property
    def _special(self) -> dict[str, int | None]:
        return {name: self._id(name) for name in ("unknown", "bos", "eos", "padding")}

    @functools.cached_property
    def _spelled(self) -> dict[int, str]:
        return {i: word for word, i in (self.vocabulary or {}).items()}

    def _id(self, name: str) -> int | None:
        """The id that an option says, as a number or as a word."""
        value = getattr(self.options, name)
        if isinstance(value, str):
            found = self.vocabulary.get(value) if self.vocabulary is not None else self.backend.token_to_id(value)
            if found is None:
                raise InputError(f"text option {name}: {value!r} is not in the vocabulary")
            return int(found)
        if value is None and name == "unknown":
            if self.vocabulary is not None:
                return next((self.vocabulary[word] for word in UNKNOWNS if word in self.vocabulary), None)
            return _unknown_of(self.backend)
        return value

    def _piece(self, index: Any) -> str:
        """How the vocabulary spells an id."""
        return (self._spelled.get(index) if self.vocabulary is not None else self.backend.id_to_token(index)) or f"<{index}>"


@dataclass
class _Parts:
    """What becomes of one text, before anything is added or cut."""

    ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    groups: list[int | None] = field(default_factory=list)  # the word that a piece is of, by the tokenizer; None: of none
    unknown: list[int] = field(default_factory=list)
    padding: list[int] = field(default_factory=list)
    left_out: int = 0

    def add(self, index: int, piece: str, span: Span, group: int | None) -> None:
        self.ids.append(index)
        self.pieces.append(piece)
        self.spans.append(span if span[0] < span[1] else (self.spans[-1][1],) * 2 if self.spans else (0, 0))
        self.groups.append(group)

    def part(self, length: int, side: str | None) -> _Parts:
        """At most so many."""
        n = len(self.ids)
        start, stop = (max(n - length, 0), n) if side == "left" else (0, min(n, length))
        kept = slice(start, stop)
        unknown, padding = ([k - start for k in where if start <= k < stop] for where in (self.unknown, self.padding))
        left_out = self.left_out + n - (stop - start)
        return _Parts(self.ids[kept], self.pieces[kept], self.spans[kept], self.groups[kept], unknown, padding, left_out)


def _words(text: str, parts: _Parts) -> Iterator[Word]:
    """Neighbouring pieces that the tokenizer calls one word and no space parts; a space alone belongs to what follows it."""
    starts = [k for k in range(len(parts.ids)) if k == 0 or _apart(text, parts, k)]
    for first, stop in zip(starts, [*starts[1:], len(parts.ids)], strict=True):
        shown = text[parts.spans[first][0] : parts.spans[stop - 1][1]].strip()
        yield Word(shown or "".join(parts.pieces[first:stop]), first, stop)


def _apart(text: str, parts: _Parts, k: int) -> bool:
    """Whether a word begins at piece k."""
    if parts.groups[k] is None or parts.groups[k] != parts.groups[k - 1]:
        return True
    (start, stop), (_, before) = parts.spans[k - 1], parts.spans[k]
    if not text[start:stop].strip():
        return False
    own = text[parts.spans[k][0] : before]
    first = parts.spans[k][0] + len(own) - len(own.lstrip())
    return any(c.isspace() for c in text[stop:first])


# the package tokenizers


def _backend(file: Path) -> Any:
    text = read_file(file, "tokenizer")
    try:
        package = importlib.import_module("tokenizers")
    except ImportError as error:
        raise MissingExtra("tokenizers", extra="text", purpose="a tokenizer.json") from error
    try:
        return package.Tokenizer.from_str(text)
    except Exception as error:  # the package knows no other
        raise InputError(
            f"tokenizer {file}: not a tokenizer.json ({str(error)[:200]}); a list of words is a vocabulary (--vocab)"
        ) from error


def _lower(text: str) -> str:
    """In lower case, every character in its place."""
    own = text.lower()
    return own if len(own) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _limited(backend: Any, options: TextOptions) -> Any:
    """A copy that cuts where the options say; its own limits stay where they say nothing."""
    copied = type(backend).from_str(backend.to_str())
    if options.max_length is not None:
        room = options.max_length - sum(value is not None for value in (options.bos, options.eos))
        least = copied.num_special_tokens_to_add(False) + 1
        if room < least:
            raise InputError(f"text option max_length: {options.max_length} leaves no room beside what is put around a text")
        copied.enable_truncation(room, direction=options.cut or "right")
    if options.pad is not None or (copied.padding is not None and copied.padding["length"] is None):
        copied.no_padding()  # each text comes alone: filling up to the longest adds nothing
    return copied


def _unknown_of(backend: Any) -> int | None:
    """The id of what stands for unknown pieces."""
    name = getattr(backend.model, "unk_token", None)
    if name is not None:
        found = backend.token_to_id(name)
        return None if found is None else int(found)
    index = json.loads(backend.to_str())["model"].get("unk_id")  # Unigram
    return None if index is None else int(index)
