"""ONNX's own tests of single nodes, run by the engine's layers: what each came to, and which op it is a test of."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx

from onnx_lrp.backend import Engine


@dataclass(frozen=True)
class Outcome:
    """``op``: (domain, name) of the op under test. ``error``: None if the test passed. ``steps``: the layers that ran."""

    name: str
    op: tuple[str, str]
    error: str | None
    steps: tuple[Any, ...]


def cases() -> list[Any]:
    """All node tests of the installed onnx, with data made here; strictly speaking they are models of a few nodes."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx overflows and divides by zero on purpose
        return load_model_tests(kind="node")


def tested(case: Any, siblings: dict[str, Any]) -> tuple[str, str]:
    """The op a test is of: its one node's, or that of the test whose node it writes out in others (``*_expanded``)."""
    plain = re.sub(r"_expanded.*$", "", case.name)
    node = siblings.get(plain, case).model.graph.node[0]
    return node.domain, node.op_type


def compare(want: Any, got: Any, rtol: float, atol: float) -> None:
    """As onnx's runner does, but a sequence element by element: the runner asks each for its length, which a scalar has not."""
    from onnx.backend.test.runner import Runner

    assert len(got) == len(want)
    for one, other in zip(want, got, strict=True):
        if isinstance(one, list):
            assert isinstance(other, list)
            compare(one, other, rtol, atol)
        else:
            Runner.assert_similar_outputs([one], [other], rtol, atol)


def outcomes() -> Iterator[Outcome]:
    """Run every node test. One that no layer took part in (all of it was folded) has not passed."""
    from onnx.backend.test.runner import _normalize_tensor

    found = cases()
    siblings = {c.name: c for c in found}
    for case in found:
        op = tested(case, siblings)
        steps: tuple[Any, ...] = ()
        try:
            model = Engine.prepare(case.model)
            for inputs, outputs in case.data_sets:
                got = model.run([_normalize_tensor(x) for x in inputs])
                compare([_normalize_tensor(x) for x in outputs], got, case.rtol, case.atol)
            steps = tuple(model.steps)
            error = None if steps else "nothing was left to run: constants are folded"
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
        yield Outcome(case.name, op, error, steps)


def version() -> str:
    """The onnx whose tests these are."""
    return str(onnx.__version__)
