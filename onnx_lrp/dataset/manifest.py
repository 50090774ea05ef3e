"""manifest.json: what was asked, of which model and files, with which versions, and which rows are done."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from .. import __version__
from ..errors import InputError
from .shards import Done, replace

__all__ = ["Manifest", "digest", "versions"]

SCHEMA = 1
EVERY = 2.0  # seconds between two writings; what is done is told by the shards themselves


def digest(model: Any) -> dict[str, Any]:
    """Name and SHA-256 of a model file, and of the files of weights it points to."""
    if isinstance(model, bytes):
        return {"path": None, "sha256": hashlib.sha256(model).hexdigest()}
    if not isinstance(model, str | os.PathLike):
        return {"path": None, "sha256": hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()}
    import onnx

    path = Path(model)
    found: dict[str, Any] = {"path": str(path), "sha256": _sha(path)}
    held = onnx.load(path, load_external_data=False)
    names = {e.value for t in held.graph.initializer for e in t.external_data if e.key == "location"}
    if names:
        found["weights"] = {name: _sha(path.parent / name) for name in sorted(names)}
    return found


def _sha(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Of everything that numbers depend on."""
    found = {"onnx-lrp": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in ("tensorflow", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "pyarrow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


class Manifest:
    """The manifest of one worker.

    Args:
        folder: of the run.
        asked: all that decides the numbers, as JSON can hold it.
        shard: (i, n): this worker and how many there are.
        size: rows of a shard.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any], shard: tuple[int, int], size: int) -> None:
        self._folder = folder
        self._asked = json.loads(json.dumps(asked, default=str))
        self._shard = shard
        self._size = size
        self._start = time.monotonic()
        self._written = -math.inf
        self.done: dict[int, Done] = {}

    @property
    def path(self) -> Path:
        """The file."""
        i, n = self._shard
        return self._folder / ("manifest.json" if n == 1 else f"manifest-{i}-of-{n}.json")

    def hold_against_others(self, *, resume: bool) -> None:
        """Refuse a folder that holds another run, or this one unless it is to be resumed.

        Raises:
            InputError: it does.
        """
        others = sorted(self._folder.glob("manifest*.json"))
        if not resume and (self.path in others or (self._shard[1] == 1 and others)):
            raise InputError(f"{self._folder} holds a run already; go on with it by --resume (resume=True), or name another folder")
        for path in others:
            try:
                known = _core(json.loads(path.read_text(encoding="utf-8"))["asked"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path}: not a manifest: {error}; name another folder") from error
            asked = _core(self._asked)
            for key in dict.fromkeys([*known, *asked]):
                was, now = known.get(key), asked.get(key)
                if was != now:
                    raise InputError(
                        f"{self._folder} holds another run: {key} was {_short(was)}, now {_short(now)}; "
                        "repeat the command of that run, or name another folder"
                    )

    @property
    def errors(self) -> Counter[str]:
        """{kind: rows}."""
        return sum((Counter(d.errors) for d in self.done.values()), Counter())

    def to_dict(self, status: str) -> dict[str, Any]:
        """What the file holds."""
        worst = max((d for d in self.done.values() if d.worst is not None), key=lambda d: d.worst or 0.0, default=None)
        return {
            "schema": SCHEMA,
            "status": status,
            "asked": self._asked,
            "worker": list(self._shard),
            "done": self._ranges(),
            "rows": sum(d.last - d.first for d in self.done.values()),
            "explained": sum(d.explained for d in self.done.values()),
            "errors": dict(self.errors),
            "worst_residual": None if worst is None else {"value": worst.worst, "row": worst.row},
            "seconds": round(time.monotonic() - self._start, 3),
            "versions": versions(),
        }

    def _ranges(self) -> list[list[int]]:
        """Rows that are done, [first, last) each, neighbours joined."""
        found: list[list[int]] = []
        for done in sorted(self.done.values(), key=lambda d: d.first):
            if found and found[-1][1] == done.first:
                found[-1][1] = done.last
            else:
                found.append([done.first, done.last])
        return found

    def write(self, status: str, *, at_once: bool = True) -> dict[str, Any]:
        """Write it, whole or not at all; every few seconds only unless ``at_once``."""
        held = self.to_dict(status) if at_once or time.monotonic() - self._written > EVERY else {}
        if held:
            part = self.path.with_name(f".{self.path.stem}.tmp")
            part.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
            replace(part, self.path)
            self._written = time.monotonic()
        return held


def _core(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the numbers: where the same files lie does not."""
    model = {k: v for k, v in asked["model"].items() if k != "path"}
    return {**asked, "model": model, "files": [[PurePath(name).name, size] for name, size in asked["files"]]}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 100 else text[:97] + "…"
