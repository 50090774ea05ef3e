"""Optionals that hold a tensor or a sequence are that; whether they do is known before the program runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..layer import Plain, Trace
from ..registry import Var, importer
from .reshape import Same

__all__ = ["Truth"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Truth(Plain):
    """A bool that is known. parameters: value ()."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", np.dtype(bool), (), value=self.parameters["value"])]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [p["value"]], p)


def _full(input: Any, node: Any) -> Var:
    if not isinstance(input, Var) or input.dtype == np.dtype(object):
        raise node.refuse("only an optional that holds a computed tensor is read")
    return input


@importer("Optional", since=15)
def optional(input: Any = None, *, type: Any = None, node: Any) -> Any:
    return Same(), (_full(input, node),)


@importer("OptionalGetElement", since=15)
def optional_get_element(input: Any, *, node: Any) -> Any:
    return Same(), (_full(input, node),)


@importer("OptionalHasElement", since=15)
def optional_has_element(input: Any = None, *, node: Any) -> Any:
    there = input is not None
    return Truth(parameters={"value": np.asarray(there)}), (_full(input, node),) if there else ()
