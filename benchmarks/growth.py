"""How the time of an explanation grows with time steps, samples and hidden units.

    python benchmarks/growth.py [--pairs N] [--jit auto|graph|xla] [--settle SECONDS] [--axes T B H] [--json]

Bidirectional LSTM with I = 64, one of T, B and H varied around T = 50, B = 32, H = 128, the sizes taking turns. The slope is that
of log time over log size (1: linear, 2: quadratic), fitted over the sizes where a call takes more than 5 ms: below, the overhead of
a call rules. At most 1.1 is wanted along T and B, 2.2 along H.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from _measure import AGAIN, arguments, head, line, machine, median_ms, options_of, turns
from _models import batch, bilstm

from onnx_lrp._lazy import start_quietly

BASE = {"T": 50, "B": 32, "H": 128}
FEATURES = 64
SIZES: Mapping[str, Sequence[int]] = {
    "T": (1, 3, 10, 30, 100, 300, 1000),
    "B": (1, 4, 16, 64, 256, 1024),
    "H": (16, 32, 64, 128, 256, 512, 1024),
}
BARS = {"T": 1.1, "B": 1.1, "H": 2.2}
LEAST = 5.0  # ms


def grow(axis: str, sizes: Sequence[int], *, pairs: int, settle: float, jit: str) -> dict[int, float]:
    """{size: median ms} along one axis."""
    import onnx_lrp

    explainers: dict[int, Any] = {}  # one of each H
    functions = {}
    for size in sizes:
        at = {**BASE, axis: size}
        if at["H"] not in explainers:
            explainers[at["H"]] = onnx_lrp.load(bilstm(FEATURES, at["H"], 2), jit=jit)
        explainer, x = explainers[at["H"]], batch(at["T"], at["B"], FEATURES)
        functions[str(size)] = lambda explainer=explainer, x=x: explainer.explain(x)
    seconds = turns(functions, pairs, settle=settle)
    # the overhead of a rest would hide in the small sizes and make slopes flat
    return {size: median_ms(seconds, str(size) + AGAIN) for size in sizes}


def slope(times: Mapping[int, float], least: float = LEAST) -> float | None:
    """Of log time over log size where a call takes longer than ``least`` ms; None: fewer than two sizes."""
    kept = [(size, ms) for size, ms in times.items() if ms > least]
    return float(np.polyfit(*np.log(np.asarray(kept)).T, 1)[0]) if len(kept) > 1 else None


def cells(axis: str, times: Mapping[int, float]) -> list[str]:
    found = slope(times)
    points = ", ".join(f"{size}: {ms:.1f}" for size, ms in times.items())
    return [axis, points, "–" if found is None else f"{found:.2f}", f"≤ {BARS[axis]}"]


def main() -> None:
    parser = arguments(__doc__, pairs=7)
    parser.add_argument("--axes", nargs="+", choices=list(SIZES), default=list(SIZES))
    options = options_of(parser)
    start_quietly()
    how = {"pairs": options.pairs, "settle": options.settle, "jit": options.jit}
    if not options.json:
        print(head(["axis", "size: ms", "slope", "wanted"]), flush=True)
    rows = []
    for axis in options.axes:
        times = grow(axis, SIZES[axis], **how)
        rows.append({"axis": axis, "ms": times, "slope": slope(times), "wanted": BARS[axis]})
        if not options.json:
            print(line(cells(axis, times)), flush=True)
    if options.json:
        print(json.dumps(rows))
        return
    rest = ", ".join(f"{name} = {size}" for name, size in BASE.items())
    print(f"\nI = {FEATURES}, else {rest}; slopes over calls of more than {LEAST:g} ms. {machine(**how)}")


if __name__ == "__main__":
    main()
