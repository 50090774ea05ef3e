"""LRP's time against gradient × input's and integrated gradients' (50 steps), of the demo model, by the size of the batch.

Sentences of 22 words, as long as those of its test set on average. Integrated gradients run many steps at once, so small batches,
which leave a processor idle, flatter them; where it is busy their 50 gradients are 50 gradients.

    python benchmarks/methods.py --batches 1,32,256,1024
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import onnx_lrp

MODEL = Path(onnx_lrp.__file__).resolve().parent / "demo" / "sentiment.onnx"
METHODS = ("lrp", "gradient_x_input", "integrated_gradients")
WORDS, KNOWN = 22, 4000


def measure(batch: int, *, jit: str, runs: int) -> dict[str, float]:
    """{method: median milliseconds of a batch}, after two runs that don't count."""
    explainer = onnx_lrp.load(MODEL, jit=jit)
    ids = np.random.default_rng(0).integers(2, KNOWN, (batch, WORDS))
    found = {}
    for method in METHODS:
        times = []
        for run in range(runs + 2):
            start = time.perf_counter()
            explainer.explain(ids, method=method)
            if run >= 2:
                times.append(time.perf_counter() - start)
        found[method] = 1000 * float(np.median(times))
    return found


def main(argv: list[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", default="1,32,256,1024")
    parser.add_argument("--jit", default="graph")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(argv)
    print(f"{'batch':>6} {'LRP':>9} {'gradient x input':>17} {'integrated gradients':>21}   ms, and as many times LRP's")
    for batch in map(int, options.batches.split(",")):
        found = measure(batch, jit=options.jit, runs=options.runs)
        one, *others = (found[m] for m in METHODS)
        print(
            f"{batch:6} {one:9.2f} {others[0]:10.2f} {others[0] / one:5.1f}x {others[1]:13.1f} {others[1] / one:6.0f}x", flush=True
        )


if __name__ == "__main__":
    main()
