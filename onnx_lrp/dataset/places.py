"""Where a dataset lies: the files of a folder, a pattern, a list, or of any address that fsspec opens."""

from __future__ import annotations

import contextlib
import glob
import gzip
import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..errors import InputError, MissingExtra

__all__ = ["File", "Stream", "find", "need"]

Stream = IO[bytes] | gzip.GzipFile


def need(module: str, purpose: str) -> Any:
    """An optional module.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(module.split(".")[0], extra="data", purpose=purpose) from error


@dataclass(frozen=True)
class File:
    """One file of a dataset.

    Attributes:
        name: its path or address.
        size: in bytes.
        system: the fsspec file system it lies on, None: a local file.
        path: its path there.
    """

    name: str
    size: int
    system: Any = None
    path: str = ""

    @property
    def suffix(self) -> str:
        """Of what is inside: ``.csv`` of ``a.csv.gz``."""
        return PurePosixPath(self.name.lower().removesuffix(".gz")).suffix

    @contextlib.contextmanager
    def open(self) -> Iterator[Stream]:
        """A stream of its bytes, decompressed."""
        with open(self.name, "rb") if self.system is None else self.system.open(self.path, "rb") as stream:
            if not self.name.lower().endswith(".gz"):
                yield stream
                return
            with gzip.open(stream) as inside:
                yield inside

    @contextlib.contextmanager
    def source(self) -> Iterator[Any]:
        """What pyarrow opens: a local path, which it reads without Python's lock, or a stream."""
        if self.system is None:
            yield self.name
            return
        with self.open() as stream:
            yield stream


def find(dataset: str | os.PathLike[str] | Sequence[Any], suffixes: Iterable[str]) -> tuple[File, ...]:
    """The files of a dataset, in the order of their names; a list keeps its own order.

    Args:
        dataset: a file, a folder (with all folders in it; names that begin with . or _ are left out), a pattern with * ? [ or **,
            an address of these such as ``s3://bucket/folder``, or a list of them.
        suffixes: of the files that can be read.

    Raises:
        InputError: nothing there, or a file of another kind.
        MissingExtra: an address without fsspec.
    """
    known = tuple(suffixes)
    if not isinstance(dataset, str | os.PathLike):
        return tuple(file for part in dataset for file in find(part, known))
    address = os.fspath(dataset)
    if not address:  # else the current folder, by which nobody means ""
        raise InputError("the dataset has an empty name")
    files = _remote(address, known) if "://" in address else _local(address, known)
    if not files:
        raise InputError(f"{address}: no file there that ends in {', '.join(known)}")
    for file in files:
        if file.suffix not in known:
            raise InputError(f"{file.name}: a dataset is read from {', '.join(known)}, not from {file.suffix or 'no suffix'}")
    return tuple(files)


def _shown(path: str, folder: str, known: Sequence[str]) -> bool:
    inside = PurePosixPath(os.path.relpath(path, folder)).parts
    return not any(part.startswith((".", "_")) for part in inside) and File(path, 0).suffix in known


def _local(address: str, known: Sequence[str]) -> list[File]:
    path = Path(address)
    if os.path.isdir(path):
        names = sorted(str(p) for p in path.rglob("*") if p.is_file() and _shown(str(p), address, known))
    elif os.path.isfile(path):
        names = [address]
    elif glob.has_magic(address):
        names = sorted(name for name in glob.glob(address, recursive=True) if os.path.isfile(name))
    else:
        raise InputError(f"{address}: no such file or folder")
    return [File(name, os.path.getsize(name)) for name in names]


def _remote(address: str, known: Sequence[str]) -> list[File]:
    core = need("fsspec.core", f"reading {address}")
    try:
        system, path = core.url_to_fs(address)
        if glob.has_magic(path):
            paths = sorted(system.glob(path))
        elif system.isdir(path):
            paths = sorted(p for p in system.find(path) if _shown(p, path, known))
        else:
            paths = [path]
        return [File(system.unstrip_protocol(p), int(system.size(p) or 0), system, p) for p in paths]
    except ImportError as error:  # of s3fs, gcsfs, …
        raise MissingExtra(str(error), extra="data", purpose=f"reading {address}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{address}: can't be read: {error}") from error
