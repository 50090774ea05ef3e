"""Output files, all or nothing: checked before the work starts, written beside their place, moved there together at the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["OutputError", "Outputs"]


class OutputError(Exception):
    """An output can't be written."""


class Outputs:
    """A set of files to write; a context that removes what was not committed."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._staged: dict[Path, Path] = {}
        for path in paths:
            folder = _place(path).parent
            if os.path.isdir(path):  # False also of names that no file can have, where Path.is_dir raises
                raise OutputError(f"{path} is a folder")
            if not os.path.isdir(folder):
                raise OutputError(f"{path}: there is no folder {folder}")
            if not os.access(folder, os.W_OK | os.X_OK) or (os.path.exists(path) and not os.access(path, os.W_OK)):
                raise OutputError(f"{path}: no permission to write there")

    def stage(self, path: Path, write: Callable[[Path], object]) -> None:
        """Let ``write`` write a temporary file of the same suffix."""
        place = _place(path)
        part = place.with_name(f".{place.stem}.{os.getpid()}{place.suffix}")
        self._staged[part] = place
        try:
            write(part)
        except OSError as error:
            raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error

    def commit(self) -> None:
        """Move every staged file to its place."""
        for part, place in list(self._staged.items()):
            try:
                os.replace(part, place)
            except OSError as error:
                raise OutputError(f"{place}: can't be written: {error.strerror or error}") from error
            del self._staged[part]

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, *_: object) -> None:
        for part in self._staged:
            with contextlib.suppress(OSError):  # such as of a name too long to be there; what went wrong was said by stage()
                part.unlink(missing_ok=True)


def _place(path: Path) -> Path:
    return Path(os.path.realpath(path))
