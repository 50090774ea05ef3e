"""One JSON document on stdout."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["print_json"]


def print_json(document: Any) -> None:
    print(json.dumps(_strict(document), allow_nan=False))


def _strict(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, dict):
        return {k: _strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
