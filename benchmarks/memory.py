"""Memory that the explanation of long sequences takes.

    python benchmarks/memory.py [--steps T …] [--max-bytes N] [--checkpoint auto|never|N] [--jit auto|graph|xla] [--json]

Bidirectional LSTM, I = 128, H = 256, B = 4, last states, dense head; T = 100,000 unless said otherwise, each T in a process of its
own. Taken is the process's peak less what it held after a call of 10 steps (TensorFlow, the program) less the inputs and the
result. Less than 1 GiB is wanted.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
from _measure import MIB, arguments, fresh, head, line, memory
from _models import batch, bilstm

FEATURES, HIDDEN, SAMPLES = 128, 256, 4
LONG, SHORT = 100_000, 10


def measure(steps: int, **options: Any) -> dict[str, Any]:
    """One row, of this process: it has to be a fresh one."""
    import onnx_lrp

    explainer = onnx_lrp.load(bilstm(FEATURES, HIDDEN, 2), **options)
    explainer.explain(batch(SHORT, SAMPLES, FEATURES))
    before = memory("VmRSS")
    x = batch(steps, SAMPLES, FEATURES)
    start = time.perf_counter()
    made = explainer.explain(x)
    seconds = time.perf_counter() - start
    peak = memory("VmHWM")
    result = sum(a.nbytes for group in (made.relevance, made.outputs) for a in group.values())
    return {
        "T": steps,
        "peak_mib": peak,
        "before_mib": before,
        "inputs_mib": x.nbytes / MIB,
        "result_mib": result / MIB,
        "taken_mib": peak - before - (x.nbytes + result) / MIB,
        "seconds": seconds,
        "residual": float(np.abs(made.residual).max() / max(np.abs(made.seed).max(), 1e-30)),
    }


def cells(row: dict[str, Any]) -> list[str]:
    sizes = [f"{row[f'{name}_mib']:.0f} MiB" for name in ("taken", "peak", "before", "inputs", "result")]
    return [str(row["T"]), *sizes, f"{row['seconds']:.1f} s", f"{row['residual']:.1e}"]


def main() -> None:
    parser = arguments(__doc__, pairs=None)
    parser.add_argument("--steps", type=int, nargs="+", default=[LONG], metavar="T")
    parser.add_argument("--max-bytes", type=int, help="budget of the explanation")
    parser.add_argument("--checkpoint", default="auto", help="steps between states that are kept")
    options = parser.parse_args()
    checkpoint = int(options.checkpoint) if options.checkpoint.isdigit() else options.checkpoint
    if options.here:
        how = {"jit": options.jit, "max_bytes": options.max_bytes, "checkpoint": checkpoint}
        print(json.dumps(measure(options.steps[0], **how)))
        return
    same = ["--jit", options.jit, "--checkpoint", checkpoint]
    same += [] if options.max_bytes is None else ["--max-bytes", options.max_bytes]
    if not options.json:
        print(head(["T", "taken", "peak", "after T = 10", "inputs", "result", "time", "residual / seed"]), flush=True)
    rows = []
    for steps in options.steps:
        rows.append(fresh(__file__, *same, "--steps", steps))
        if not options.json:
            print(line(cells(rows[-1])), flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
