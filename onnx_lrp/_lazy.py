"""TensorFlow, imported at its first use: reading and describing a model must not wait for it."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

__all__ = ["tf"]


class _Lazy(ModuleType):
    """A module that loads itself when an attribute is asked for."""

    def __getattr__(self, attribute: str) -> Any:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # silences start-up notices, keeps errors
        module = sys.modules.get(self.__name__) or importlib.import_module(self.__name__)
        value = self.__dict__[attribute] = getattr(module, attribute)
        return value


tf: Any = _Lazy("tensorflow")
