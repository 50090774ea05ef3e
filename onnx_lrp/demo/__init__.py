"""The sentiment model that ships with the package: how its text becomes ids. MODEL_CARD.md says where it comes from."""

from __future__ import annotations

import functools
import json
from importlib import resources

import numpy as np

from ..errors import ModelError
from ..text import TextOptions, Tokenizer

__all__ = ["CLASSES", "SENTENCES", "encode", "model", "tokenize", "tokenizer", "vocabulary"]

CLASSES = ("negative", "positive")
SENTENCES = (
    "neither funny nor suspenseful nor particularly well-drawn .",
    "a warm , funny and beautifully acted film .",
    "the plot is thin , but the two leads are wonderful .",
)


def _read(name: str) -> bytes:
    try:
        return resources.files(__name__).joinpath(name).read_bytes()
    except OSError as error:
        raise ModelError(f"the demo's {name} is not in this installation ({error.strerror}); install onnx-lrp again") from error


def model() -> bytes:
    """The .onnx file; input ``token_ids`` int64 (B, T), output ``logits`` (B, 2)."""
    return _read("sentiment.onnx")


@functools.cache
def vocabulary() -> dict[str, int]:
    """{token: id}; 0 is padding, 1 unknown."""
    return {token: i for i, token in enumerate(_read("vocabulary.txt").decode("utf-8").splitlines())}


@functools.cache
def tokenizer() -> Tokenizer:
    """As ``sentiment.tokens.json`` beside the model says."""
    return Tokenizer(TextOptions(**json.loads(_read("sentiment.tokens.json"))), vocabulary=vocabulary())


def tokenize(text: str) -> list[str]:
    """All words of the lower-cased text, with ’ read as '; the rest is dropped.

    >>> tokenize("It isn't well-drawn ...")
    ['it', 'is', "n't", 'well', 'drawn', '...']

    Raises:
        InputError: no word in it.
    """
    return tokenizer().encode(text).pieces[0]


def encode(text: str) -> tuple[list[str], np.ndarray]:
    """(tokens, ids (1, T)) of a sentence.

    Raises:
        InputError: no word in it.
    """
    [found] = tokenizer().encode(text)
    return list(found.pieces), found.ids[None]
