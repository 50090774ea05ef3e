"""Time of an explanation on a GPU: TensorFlow graph and XLA, TF32 on and off, beside the forward pass of torch.nn.LSTM (cuDNN).

    python benchmarks/gpu.py [--batches 64 256 …] [--hidden 256 …] [--jit graph xla] [--tf32 on off] [--seconds N]
    python benchmarks/gpu.py --cpu         tiny shapes on the CPU: does this script work?

The model of recurrent.py (bidirectional LSTM, last states, dense head; I 128, C 2, T 100). Columns: ``explain``, numpy in and numpy
out; ``on the device``, the exported program on tensors that are there already; torch's forward and gradient × input, likewise, in a
process of its own (two copies of cuDNN don't share one). Prints a Markdown table, row by row, and the same as one line of JSON.
Runs from a clone, installed or not. Exit codes: 0 done, 2 there is no GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
FEATURES, CLASSES = 128, 2
WHOLE = 2**40  # bytes: a batch is never split here, it fits or it does not
COLUMNS = ("explain", "on the device", "torch forward", "torch gradient × input")


def median(function: Callable[[], Any], repeats: int) -> float:
    """Milliseconds of a call that returns when it is done; two calls before are not counted."""
    seconds = []
    for k in range(repeats + 2):
        start = time.perf_counter()
        function()
        if k >= 2:
            seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


def torch_times(options: argparse.Namespace) -> list[dict[str, Any]]:
    """In a process of its own: rows of torch's times."""
    import torch
    from stablehlo import torch_lstm

    rows = []
    for tf32 in options.tf32:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32 == "on"
        for h in options.hidden:
            for b in options.batches:
                functions = torch_lstm((FEATURES, h, CLASSES, options.steps, b), "cpu" if options.cpu else "gpu")
                row: dict[str, Any] = {"H": h, "B": b, "tf32": tf32}
                for name, function in functions.items():
                    try:
                        row[name] = median(function, options.repeats)
                    except torch.cuda.OutOfMemoryError:
                        row[name] = None
                rows.append(row)
    return rows


def ask_torch(arguments: list[str]) -> dict[tuple[int, int, str], dict[str, Any]]:
    """{(H, B, TF32): times}, {} where torch is not installed or fails (which is said)."""
    if importlib.util.find_spec("torch") is None:
        return {}
    run = subprocess.run([sys.executable, str(Path(__file__)), *arguments, "--torch"], capture_output=True, text=True)
    if run.returncode:
        print(f"torch: {(run.stderr.strip().splitlines() or ['failed'])[-1]}", file=sys.stderr)
        return {}
    rows = json.loads(run.stdout.splitlines()[-1])
    return {(row.pop("H"), row.pop("B"), row.pop("tf32")): row for row in rows}


def explain_times(h: int, b: int, jit: str, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of both columns, None: out of memory; the seconds until the first result are those of tracing and compiling."""
    import tensorflow as tf
    from _models import bilstm

    import onnx_lrp

    explainer = onnx_lrp.load(bilstm(FEATURES, h, CLASSES), jit=jit, verify="never", max_bytes=WHOLE)
    x = np.random.default_rng(1).normal(size=(options.steps, b, FEATURES)).astype(np.float32)
    row: dict[str, Any] = {}
    try:
        start = time.perf_counter()
        residual = np.abs(explainer.explain(x).residual).max()
        row |= {"first_s": time.perf_counter() - start, "residual": float(residual)}
        row["explain"] = median(lambda: explainer.explain(x), options.repeats)
        with tempfile.TemporaryDirectory() as folder:
            explainer.export(folder, inputs=x)
            exported = tf.saved_model.load(folder).signatures["serving_default"]
        there = tf.constant(x)

        def on_the_device() -> None:
            exported(x=there)
            tf.test.experimental.sync_devices()

        row["on the device"] = median(on_the_device, options.repeats)
    except tf.errors.ResourceExhaustedError:
        row.setdefault("explain", None)
        row.setdefault("on the device", None)
    return row


def shown(row: dict[str, Any], column: str) -> str:
    if column not in row:
        return ""
    return "out of memory" if row[column] is None else f"{row[column]:.2f} ms"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--hidden", type=int, nargs="+")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--jit", nargs="+", choices=("graph", "xla"), default=["graph", "xla"])
    parser.add_argument("--tf32", nargs="+", choices=("on", "off"), default=["on", "off"])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no row after that time")
    parser.add_argument("--cpu", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument("--torch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.batches = options.batches or ([2, 4] if options.cpu else [64, 256, 1024, 4096])
    options.hidden = options.hidden or ([8] if options.cpu else [256, 512, 1024])
    options.steps = options.steps or (5 if options.cpu else 100)
    if options.torch:
        print(json.dumps(torch_times(options)))
        return 0
    start = time.perf_counter()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if importlib.util.find_spec("onnx_lrp") is None:
        sys.path.insert(0, str(HERE.parent))
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if options.cpu:
        tf.config.set_visible_devices([], "GPU")
    elif not gpus:
        print("no GPU that TensorFlow sees (pip install 'tensorflow[and-cuda]'); --cpu tests this script", file=sys.stderr)
        return 2
    for gpu in [] if options.cpu else gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    device = "CPU" if options.cpu else tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    theirs = ask_torch(sys.argv[1:])
    print(f"{device}, TensorFlow {tf.__version__}; I {FEATURES}, C {CLASSES}, T {options.steps}\n")
    print(f"| H | B | TF32 | jit | {' | '.join(COLUMNS)} | on the device / torch forward |")
    print(f"| {' | '.join(['---'] * (len(COLUMNS) + 5))} |", flush=True)
    rows = []
    for tf32 in options.tf32:
        tf.config.experimental.enable_tensor_float_32_execution(tf32 == "on")
        for h in options.hidden:
            for b in options.batches:
                for jit in options.jit:
                    if time.perf_counter() - start > options.seconds:
                        continue
                    row = {"H": h, "B": b, "tf32": tf32, "jit": jit, **theirs.get((h, b, tf32), {})}
                    row |= explain_times(h, b, jit, options)
                    own, other = row["on the device"], row.get("torch forward")
                    row["ratio"] = own / other if own and other else None
                    rows.append(row)
                    cells = [str(row[k]) for k in ("H", "B", "tf32", "jit")] + [shown(row, c) for c in COLUMNS]
                    print(f"| {' | '.join(cells)} | {'' if row['ratio'] is None else format(row['ratio'], '.2f')} |", flush=True)
    print()
    print(json.dumps({"device": device, "tensorflow": tf.__version__, "T": options.steps, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
