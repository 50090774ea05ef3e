"""Mutants led by coverage: ``tests/fuzz/coverage_guided.py [CORPUS] [--seconds S] [--faults FOLDER] [-runs=N]``, with atheris.

Optional: ``pip install atheris`` (Linux, CPython 3.11 to 3.13). What is no error of onnx-lrp ends the run, and the model is
written beside as ``crash-…``; with ``--faults`` it is written there, once for every fault, and the run goes on. A process that dies
all the same is libFuzzer's to report: start it again with the same corpus. ``--seconds`` are of the processor. Options with a
single dash are libFuzzer's own.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def main() -> None:
    import atheris

    parser = argparse.ArgumentParser(prog="python tests/fuzz/coverage_guided.py", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--faults", type=Path)
    own, given = parser.parse_known_args()
    with atheris.instrument_imports(include=["onnx_lrp"]):
        import worker

        import onnx_lrp.explainer
        import onnx_lrp.ops
        import onnx_lrp.report.terminal  # noqa: F401  (imported here, so that their branches count)
    from bases import bases, external_bytes
    from mutator import mutate

    folder = Path(tempfile.mkdtemp())
    worker.lay_out(folder, external_bytes())
    path = folder / "model.onnx"
    runs, slowest, start = 0, 0.0, time.process_time()

    def one(data: bytes) -> None:
        nonlocal runs, slowest
        before = time.process_time()
        path.write_bytes(data)
        verdict = worker.judge(path, worker.inspect)
        now = time.process_time()
        runs, slowest = runs + 1, max(slowest, now - before)
        if now - before > 10:
            verdict = "bug: more than 10 s of the processor"
        if verdict.startswith("bug") and own.faults is None:
            raise AssertionError(verdict)
        if verdict.startswith("bug"):
            own.faults.mkdir(parents=True, exist_ok=True)
            file = own.faults / f"{hashlib.sha256(verdict.split(': ')[1].encode()).hexdigest()[:12]}.onnx"
            if not file.exists():
                file.write_bytes(data)
                print(f"{file}: {verdict}", flush=True)
        if now - start > own.seconds:
            print(f"{runs} runs in {now - start:.0f} s of the processor, the slowest {slowest:.1f} s", flush=True)
            os._exit(0)  # libFuzzer has no other way to end well before its own time

    def structured(data: bytes, most: int, seed: int) -> bytes:
        """Half of the time the structure-aware mutator, else libFuzzer's own."""
        rng = random.Random(seed)
        if rng.random() < 0.5:
            try:
                changed = mutate(data, rng)[0]
            except Exception:  # no longer a model
                return atheris.Mutate(data, most)
            return changed if len(changed) <= most else data
        return atheris.Mutate(data, most)

    seeds = folder / "seeds"
    seeds.mkdir()
    for k, data in enumerate(bases(draw=1, zoo=False)):
        (seeds / str(k)).write_bytes(data)
    atheris.Setup([sys.argv[0], *given, str(seeds), "-max_len=65536"], one, custom_mutator=structured)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
