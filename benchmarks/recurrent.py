"""Time of an explanation over onnxruntime's forward pass: same model, same batch, same process, interleaved pairs.

    python benchmarks/recurrent.py [--pairs N] [--jit graph|xla] [--json]

Bidirectional LSTM, last states, dense head; (I, H, C, T, B) as listed. Prints a Markdown table: medians of the pairs' ratios,
absolute medians, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GRID = ((60, 60, 5, 20, 64), (128, 256, 2, 100, 64), (200, 300, 2, 25, 100), (128, 256, 2, 100, 1), (300, 512, 10, 200, 32))


def model(i: int, h: int, c: int) -> onnx.ModelProto:
    """x (T, B, I) → bidirectional LSTM → last states of both directions → logits (B, C)."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(0, 1 / np.sqrt(h), shape).astype(np.float32), name)

    nodes = [
        helper.make_node("LSTM", ["x", "W", "R", "B"], ["", "state"], hidden_size=h, direction="bidirectional"),
        helper.make_node("Transpose", ["state"], ["rows"], perm=[1, 0, 2]),
        helper.make_node("Flatten", ["rows"], ["flat"]),
        helper.make_node("Gemm", ["flat", "V", "b"], ["logits"]),
    ]
    weights = [weight("W", 2, 4 * h, i), weight("R", 2, 4 * h, h), weight("B", 2, 8 * h), weight("V", 2 * h, c), weight("b", c)]
    graph = helper.make_graph(
        nodes,
        "bilstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", i])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", c])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def pairs(ours: Callable[[], Any], theirs: Callable[[], Any], count: int) -> tuple[float, float, float]:
    """(median of the ratios, median seconds of ours, of theirs), the two taking turns."""
    for function in (ours, theirs):
        function()
        function()
    rows = []
    for _ in range(count):
        seconds = []
        for function in (ours, theirs):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
        rows.append(seconds)
    return (
        statistics.median(a / b for a, b in rows),
        statistics.median(a for a, _ in rows),
        statistics.median(b for _, b in rows),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--jit", default="auto")
    parser.add_argument("--rows", type=int, nargs="*", default=list(range(len(GRID))), help="rows of the grid, from 0")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    import onnxruntime

    import onnx_lrp

    def measure(i: int, h: int, c: int, t: int, b: int) -> tuple[float, float, float]:
        proto = model(i, h, c)
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        x = np.random.default_rng(1).normal(size=(t, b, i)).astype(np.float32)
        explainer = onnx_lrp.load(proto, jit=options.jit)
        return pairs(lambda: explainer.explain(x), lambda: session.run(None, {"x": x}), options.pairs)

    rows = []
    for i, h, c, t, b in (GRID[k] for k in options.rows):
        ratio, ours, theirs = measure(i, h, c, t, b)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append({"I": i, "H": h, "C": c, "T": t, "B": b, "ratio": ratio, "explain_ms": 1e3 * ours, "forward_ms": 1e3 * theirs})
        rows[-1]["peak_mib"] = peak
    if options.json:
        print(json.dumps(rows))
        return
    print("| I, H, C, T, B | explanation / forward | explanation | onnxruntime forward | peak so far |")
    print("| --- | --- | --- | --- | --- |")
    for r in rows:
        print(
            f"| {r['I']}, {r['H']}, {r['C']}, {r['T']}, {r['B']} | {r['ratio']:.2f} | {r['explain_ms']:.1f} ms | "
            f"{r['forward_ms']:.1f} ms | {r['peak_mib']:.0f} MiB |"
        )


if __name__ == "__main__":
    main()
