"""A slice of what ``python tests/fuzz`` runs by the hundred thousand."""

from __future__ import annotations

import ast
import os
import random
from pathlib import Path

import apart
import pytest
import worker
from bases import bases, external_bytes
from mutator import mutate

EACH = 600 if os.environ.get("HYPOTHESIS_PROFILE") == "ci" or os.environ.get("CI") else 60  # about a minute, or a tenth of it


@pytest.fixture(scope="module")
def originals():
    return bases(draw=0, zoo=False)


@pytest.mark.parametrize("part", range(5))
def test_mutants(part, originals, tmp_path):
    (tmp_path / "weights.bin").write_bytes(external_bytes())
    path = tmp_path / "model.onnx"
    for index in range(part * EACH, (part + 1) * EACH):
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


FOUND = sorted((Path(worker.__file__).parent / "corpus").glob("*.onnx"))


@pytest.mark.parametrize("path", FOUND, ids=lambda p: p.stem)
def test_what_was_found_once_stays_mended(path, tmp_path):
    """Files that once ended the process, took memory without end or came as a bug; in a process of their own, with limits."""
    script = (
        "import sys, worker; from pathlib import Path\n"
        "print([worker.judge(Path(sys.argv[1]), task) for task in (worker.inspect, worker.explain)])"
    )
    done = apart.python(script, path, gib=6, seconds=25)
    assert done.returncode == 0, done.stderr[-3000:]
    read, explained = (verdict.split(":")[0] for verdict in ast.literal_eval(done.stdout))
    assert read in ("read", "refused")
    assert explained in ("explained", "refused")


def test_there_is_something_to_stay_mended():
    assert len(FOUND) >= 7
