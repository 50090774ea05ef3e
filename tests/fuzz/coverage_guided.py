"""``python tests/fuzz/coverage_guided.py [CORPUS] [-runs=N]``: libFuzzer's own mutants of models, led by coverage, with atheris.

Optional: ``pip install atheris`` (Linux, CPython 3.11 to 3.13). What is no error of onnx-lrp ends the run, and the model is written
beside as ``crash-…``.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def main() -> None:
    import atheris

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

    def one(data: bytes) -> None:
        path.write_bytes(data)
        verdict = worker.judge(path, worker.inspect)
        if verdict.startswith("bug"):
            raise AssertionError(verdict)

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

    given = [a for a in sys.argv[1:] if not a.startswith("-")]
    if not given:
        corpus = folder / "corpus"
        corpus.mkdir()
        for k, data in enumerate(bases(draw=0, zoo=False)):
            (corpus / str(k)).write_bytes(data)
        sys.argv.append(str(corpus))
    atheris.Setup([*sys.argv, "-max_len=65536"], one, custom_mutator=structured)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
