"""Input files of the command line: .npz, .npy, .json, .csv, .parquet and JSON on stdin, read into what ``explain`` takes."""

from __future__ import annotations

import csv
import json
import lzma
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import InputError, MissingExtra
from ..limits import Limits, over
from ..series import read_series

__all__ = ["SUFFIXES", "TABLES", "read_inputs", "read_texts", "read_tokens"]

DAMAGED = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    SyntaxError,
    NotImplementedError,
    RuntimeError,
    csv.Error,
    zipfile.BadZipFile,
    tokenize.TokenError,
    zlib.error,
    lzma.LZMAError,
)  # what numpy, zipfile and csv raise on damaged files


def read_inputs(name: str, *, stdin: IO[str] | None, most: int = Limits.file_bytes, **columns: Any) -> Any:
    """An array, arrays by graph input name, or the :class:`Series` of a table.

    Args:
        name: a path, or "-" for JSON on ``stdin``.
        most: bytes that the file, and the arrays in it, may have.
        columns: of a table, see :func:`read_series`.

    Raises:
        InputError: missing, of no known suffix, or damaged.
        MissingExtra: .parquet without pyarrow.
    """
    if name == "-":
        try:
            text = stdin.read(most + 1) if stdin is not None else ""
            _within(len(text), most, "stdin")
            return _json(text, "stdin")
        except UnicodeError as error:
            raise InputError(f"stdin: not text: {error}") from error
    path = Path(name)
    reader = SUFFIXES.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{name}: inputs are read from {', '.join(SUFFIXES)} or - (JSON on stdin), not from {path.suffix or 'no suffix'}"
        )
    if not os.path.isfile(path):  # False also of names that no file can have, where Path.is_file raises
        raise InputError(f"{name}: {'is a folder' if os.path.isdir(path) else 'no such file'}")
    try:
        _within(path.stat().st_size, most, name)
        if path.suffix.lower() in (".npz", ".npy"):
            _measure(path, most)
        return reader(path, **columns) if path.suffix.lower() in TABLES else reader(path)
    except (InputError, MissingExtra):
        raise
    except DAMAGED as error:
        raise InputError(f"{name}: can't be read as {path.suffix}: {error or type(error).__name__}") from error


def _within(size: int, most: int, what: str) -> None:
    if size > most:
        raise over("file_bytes", most, size, what, error=InputError)


def _measure(path: Path, most: int) -> None:
    """Hold what .npy headers declare against the bytes that are there, before numpy allocates it."""
    if path.suffix.lower() == ".npy":
        with path.open("rb") as stream:
            needs = _declared(stream)
            _fits(needs, path.stat().st_size, str(path))
        return
    total = 0
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            what = f"{path}: {info.filename}"
            if info.filename.endswith(".npy"):
                with archive.open(info) as member:
                    needs = _declared(member)
                _fits(needs, info.file_size, what)
                total += needs
                _within(total, most, what)


def _declared(stream: IO[bytes]) -> int:
    """Bytes of the array that a .npy header declares; that of objects is refused by numpy later."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if any(n < 0 for n in shape):
        raise ValueError(f"shape {shape} has a negative size")
    return math.prod(shape) * dtype.itemsize


def _fits(needs: int, there: int, what: str) -> None:
    if needs > there:
        raise InputError(f"{what}: declares an array of {needs} bytes, and holds {there}: damaged")


def read_texts(path: str, *, stdin: IO[str] | None) -> list[str]:
    """Texts, one a line; "-" is stdin.

    Raises:
        InputError: it can't be read, there is no line, or one has no text in it.
    """
    try:
        text = (stdin.read() if stdin is not None else "") if path == "-" else Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: texts can't be read: {error}") from error
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    for n, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(f"{path}, line {n}: no text; every line is one")
    return lines


def read_tokens(path: Path) -> list[str] | list[list[str]]:
    """Names of the time steps.

    A .json file holds a list, or a list of lists (one a sample); any other file one token a line, an empty line between samples.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: tokens can't be read: {error}") from error
    if path.suffix.lower() != ".json":
        rows = [block.split("\n") for block in text.replace("\r\n", "\n").strip("\n").split("\n\n")]
        return rows[0] if len(rows) == 1 else [[t for t in row if t] for row in rows]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    flat = isinstance(value, list) and all(isinstance(t, str) for t in value)
    if flat or (isinstance(value, list) and all(isinstance(r, list) and all(isinstance(t, str) for t in r) for r in value)):
        return value
    raise InputError(f"{path}: tokens are a list of strings, or one such list a sample")


def _json(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    if not isinstance(value, dict | list | int | float):
        raise InputError(f"{where}: expected an array or an object of arrays by input name, got {type(value).__name__}")
    return {k: _array(v) for k, v in value.items()} if isinstance(value, dict) else _array(value)


def _array(value: Any) -> Any:
    """An array; rows of different lengths stay a list: sequences, one a sample."""
    try:
        return np.asarray(value)
    except ValueError:
        return value


def _npz(path: Path) -> Any:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return arrays["arr_0"] if list(arrays) == ["arr_0"] else arrays


SUFFIXES: dict[str, Callable[..., Any]] = {
    ".npz": _npz,
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".json": lambda path: _json(path.read_text(encoding="utf-8-sig"), str(path)),
    ".csv": read_series,
    ".parquet": read_series,
}
TABLES = tuple(suffix for suffix, reader in SUFFIXES.items() if reader is read_series)
