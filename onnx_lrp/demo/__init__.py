"""The sentiment model that ships with the package: how its text becomes ids. MODEL_CARD.md says where it comes from."""

from __future__ import annotations

import functools
import re
from importlib import resources

import numpy as np

from ..errors import InputError, ModelError

__all__ = ["CLASSES", "SENTENCES", "UNKNOWN", "encode", "model", "tokenize", "vocabulary"]

CLASSES = ("negative", "positive")
UNKNOWN = 1
SENTENCES = (
    "neither funny nor suspenseful nor particularly well-drawn .",
    "a warm , funny and beautifully acted film .",
    "the plot is thin , but the two leads are wonderful .",
)
TOKEN = re.compile(r"[^\W_]+?(?=n't\b)|n't\b|'(?:s|m|d|re|ve|ll)\b|[^\W_]+|\.\.\.|[.,;:!?()]")


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


def tokenize(text: str) -> list[str]:
    """All matches of TOKEN in the lower-cased text, with ’ read as '; the rest is dropped.

    >>> tokenize("It isn't well-drawn ...")
    ['it', 'is', "n't", 'well', 'drawn', '...']
    """
    return TOKEN.findall(text.lower().replace("’", "'"))


def encode(text: str) -> tuple[list[str], np.ndarray]:
    """(tokens, ids (1, T)) of a sentence.

    Raises:
        InputError: no token in it.
    """
    tokens = tokenize(text)
    if not tokens:
        raise InputError(f"no word in the sentence {text!r}")
    ids = vocabulary()
    return tokens, np.array([[ids.get(token, UNKNOWN) for token in tokens]], np.int64)
