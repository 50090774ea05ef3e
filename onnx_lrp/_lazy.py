"""TensorFlow, imported at its first use: reading and describing a model must not wait for it."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

__all__ = ["start_quietly", "tf"]


class _Lazy(ModuleType):
    """A module that loads itself when an attribute is asked for."""

    def __getattr__(self, attribute: str) -> Any:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # silences start-up notices, keeps errors
        module = sys.modules.get(self.__name__) or importlib.import_module(self.__name__)
        value = self.__dict__[attribute] = getattr(module, attribute)
        return value


tf: Any = _Lazy("tensorflow")


def start_quietly() -> None:
    """Import TensorFlow and find its devices, for a process of our own.

    Without its start-up notices on stderr, which no log level silences, and without Keras, which takes a third of the import's time
    and is loaded for optimizers in saved models only; ``tf.keras`` still loads when it is asked for.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _without_stderr(), _without("keras"):
        importlib.import_module("tensorflow").config.list_logical_devices()


@contextlib.contextmanager
def _without(package: str) -> Iterator[None]:
    """Whoever imports the package meanwhile is told that there is none, unless it is loaded already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # what the import statement takes for missing
    try:
        yield
    finally:
        del sys.modules[package]


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    try:
        kept = os.dup(2)
    except OSError:  # closed by the caller
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
