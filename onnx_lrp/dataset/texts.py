"""A column of texts: ids for the model, and the pieces and words that they stand for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .rows import Problem

if TYPE_CHECKING:
    from ..graph import Value
    from ..text import Text, Tokenizer

__all__ = ["Texts"]


@dataclass(frozen=True, eq=False)
class Texts:
    """How texts become ids.

    Attributes:
        column: that holds them.
        tokenizer: that encodes them.
        words: whether relevance is added up over the pieces of each word.
    """

    column: str
    tokenizer: Tokenizer
    words: bool

    def described(self) -> dict[str, Any]:
        """For the manifest: the options, and what the ids are made with as a digest."""
        tokenizer = self.tokenizer
        known = tokenizer.vocabulary if tokenizer.backend is None else tokenizer.backend.to_str()
        held = known if isinstance(known, str) else json.dumps(dict(known or {}))
        options = {f.name: getattr(tokenizer.options, f.name) for f in fields(tokenizer.options)}
        own = {n: v for n, v in options.items() if v is not None and n not in ("tokenizer", "vocabulary")}
        return {"column": self.column, "words": self.words, "sha256": hashlib.sha256(held.encode()).hexdigest(), "options": own}

    def fed(self, values: Sequence[Value]) -> tuple[str, ...]:
        """The graph inputs that are made of a text: ids, and a mask and types where there are such.

        Raises:
            InputError: none takes ids, or it is not clear which.
        """
        from ..tokens import Tokens

        return tuple(Tokens(()).feeds(values))

    def rows(self, column: Any, values: Sequence[Value]) -> tuple[list[Text | None], dict[int, Problem], dict[str, list[Any]]]:
        """(each row's text, None where there is a problem; the problems; {graph input: an array a row}).

        Args:
            column: pyarrow array or list of Python values.
            values: the graph inputs.
        """
        from ..tokens import Tokens

        cells = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
        problems: dict[int, Problem] = {}
        for i, cell in enumerate(cells):
            if not isinstance(cell, str):
                reason = "no value" if cell is None else f"expected text, got {type(cell).__name__}"
                problems[i] = Problem("null" if cell is None else "text", f"column {self.column!r}: {reason}")
        good = [i for i in range(len(cells)) if i not in problems]
        texts: list[Text | None] = [None] * len(cells)
        for i, made in zip(good, self.tokenizer.each([cells[i] for i in good]), strict=True):
            if isinstance(made, InputError):
                problems[i] = Problem("text", f"column {self.column!r}: {made}")
            else:
                texts[i] = made
        fine = [(i, text) for i, text in enumerate(texts) if text is not None]
        inputs: dict[str, list[Any]] = {}
        for name, arrays in Tokens(tuple(text for _, text in fine)).feeds(values).items():
            inputs[name] = [None] * len(cells)
            for (i, _), array in zip(fine, arrays, strict=True):
                inputs[name][i] = np.asarray(array)
        return texts, problems, inputs
