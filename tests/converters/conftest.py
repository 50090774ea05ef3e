"""Each converter is a script: it is loaded from its file, as nothing installs it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "converters"


@pytest.fixture(scope="session")
def converter():
    """name → the module of converters/NAME_to_onnx.py."""

    def load(name):
        path = FOLDER / f"{name}_to_onnx.py"
        if path.stem not in sys.modules:
            spec = importlib.util.spec_from_file_location(path.stem, path)
            sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        return sys.modules[path.stem]

    return load
