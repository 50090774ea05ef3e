"""A slice of what ``python tests/fuzz`` runs by the hundred thousand."""

from __future__ import annotations

import random

import pytest
import worker
from bases import bases, external_bytes
from mutator import mutate


@pytest.fixture(scope="module")
def originals():
    return bases(draw=0, zoo=False)


@pytest.mark.parametrize("part", range(5))
def test_mutants(part, originals, tmp_path):
    (tmp_path / "weights.bin").write_bytes(external_bytes())
    path = tmp_path / "model.onnx"
    for index in range(part * 60, part * 60 + 60):
        rng = random.Random(f"slice/{index}")
        data, done = mutate(originals[rng.randrange(len(originals))], rng)
        path.write_bytes(data)
        verdict = worker.judge(path, worker.inspect)
        assert not verdict.startswith("bug"), (index, done, verdict)


def test_the_mutants_are_of_every_kind(originals, tmp_path):
    """The judge sees a bug, and the slice has models that are read as well as such that are refused."""
    path, verdicts = tmp_path / "model.onnx", set()
    for index in range(40):
        rng = random.Random(f"slice/{index}")
        path.write_bytes(mutate(originals[rng.randrange(len(originals))], rng)[0])
        verdicts.add(worker.judge(path, worker.inspect).split(":")[0])
    assert verdicts >= {"read", "refused"}
    assert worker.judge(path, lambda p: 1 // 0).startswith("bug: ZeroDivisionError")
