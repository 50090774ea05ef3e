"""Options as text → what the library takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .app import Usage

__all__ = ["axes", "distinct", "mapping", "suffix", "target"]


def mapping(texts: Sequence[str]) -> dict[str, str]:
    """{graph input: column} of ``--input``."""
    pairs = [text.split("=", 1) for text in texts]
    for text, pair in zip(texts, pairs, strict=True):
        if len(pair) != 2 or not all(pair):
            raise Usage(f"--input {text}: expected NAME=COLUMN, the graph input and the column that feeds it")
    return dict(pairs)


def suffix(option: str, path: Path | None, *known: str) -> None:
    if path is not None and path.suffix not in known:
        raise Usage(f"{option} {path}: expected a name that ends in {' or '.join(known)}")


def distinct(paths: dict[str, str | Path | None]) -> None:
    seen: dict[str, str] = {}
    for option, path in paths.items():
        if path is not None and path != "-":
            other = seen.setdefault(os.path.realpath(path), option)
            if other != option and option in ("--save", "--html"):
                raise Usage(f"{option} would overwrite {other}: {path}")


def target(text: str | None) -> Any:
    """None, a class, a class for each sample, or one of ``onnx_lrp.targets``."""
    if text is None:
        return None
    from ..errors import InputError
    from ..targets import from_text

    try:
        return from_text(text)
    except InputError as error:
        raise Usage(f"--target {error}") from error


def axes(texts: Sequence[str] | None) -> int | dict[str, int] | None:
    if not texts:
        return None
    try:
        if len(texts) == 1 and "=" not in texts[0]:
            return int(texts[0])
        pairs = [text.rsplit("=", 1) for text in texts]
        return {name: int(axis) for name, axis in pairs}
    except ValueError as error:
        raise Usage(f"--batch-axis {' '.join(texts)}: expected an axis, or name=axis for each input") from error
