"""Sequences of different lengths in one call: steps a second, over those of the same work in batches of equal length.

    python benchmarks/ragged.py [--count N] [--pairs N] [--jit auto|graph|xla] [--settle SECONDS] [--json]

10,000 sequences of 5 to 200 steps in random order; bidirectional LSTM, I = 32, H = 128, once without and once with an input for
lengths (there, sequences of nearly the same length run together). Against batches of their mean length, as many steps in all, in
the size that runs fastest. Every sequence is compared, in float64, with the explanation of a batch of its own length: the order is
the caller's.
Few sequences make narrow groups, which are compiled at the third call: that is over before calls are timed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from _measure import AGAIN, Seconds, arguments, head, line, machine, options_of, ratio, turns
from _models import batch, bilstm

from onnx_lrp._lazy import start_quietly
from onnx_lrp.ways import Way

FEATURES, HIDDEN = 32, 128
SHORTEST, LONGEST = 5, 200
SIZES = (16, 32, 64, 128, 256)  # of equal-length batches
CLOSE = 1e-9  # of the largest relevance of a sequence, in float64: in float32 one of 10,000 cancels so far that rounding shows


def sequences(count: int) -> list[np.ndarray]:
    """(T, I) each."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(SHORTEST, LONGEST + 1, count)
    return [rng.standard_normal((n, FEATURES), dtype=np.float32) for n in lengths]


def measure(given: Sequence[np.ndarray], *, lens: bool, pairs: int, settle: float, jit: str) -> dict[str, Any]:
    """One row."""
    import onnx_lrp

    model = bilstm(FEATURES, HIDDEN, 2, lens=lens)
    explainer, equal = onnx_lrp.load(model, jit=jit), onnx_lrp.load(model, jit=jit)
    steps = sum(map(len, given))
    size = _fastest(equal, steps // len(given), lens=lens, settle=settle)
    x = _equal(steps // len(given), size, lens=lens)
    times = max(1, round(steps / (size * (steps // len(given)))))
    start = time.perf_counter()
    explainer.explain(given)
    first = time.perf_counter() - start
    functions = {"ragged": lambda: explainer.explain(given), "equal": lambda: [equal.explain(x) for _ in range(times)]}
    seconds = turns(functions, pairs, settle=settle, warm=2)
    exact = onnx_lrp.load(model, jit=jit, precision="float64")
    # the work is equal but for a part of a batch
    whole = times * size * (steps // len(given)) / steps
    return {
        "lens": lens,
        "sequences": len(given),
        "steps": steps,
        "first_seconds": first,  # tracing included
        "steps_per_second": steps / _median(seconds, "ragged"),
        "batch": size,
        "equal_steps_per_second": whole * steps / _median(seconds, "equal"),
        "throughput_over_equal": ratio(seconds, "equal", "ragged") / whole,
        "traces": traces(explainer),
        "wrong": wrong(exact, given, exact.explain(given), lens=lens),
    }


def _median(seconds: Seconds, name: str) -> float:
    return float(np.median([*seconds[name], *seconds[name + AGAIN]]))  # of seconds: a rest makes no difference


def _equal(steps: int, size: int, *, lens: bool) -> Any:
    x = batch(steps, size, FEATURES)
    return {"x": x, "lens": np.full(size, steps, np.int32)} if lens else x


def _fastest(explainer: Any, steps: int, *, lens: bool, settle: float) -> int:
    """The batch size with the most steps a second."""
    given = {str(size): _equal(steps, size, lens=lens) for size in SIZES}
    functions = {name: lambda x=x: explainer.explain(x) for name, x in given.items()}
    seconds = turns(functions, 3, settle=settle)
    return min(SIZES, key=lambda size: _median(seconds, str(size)) / size)


def traces(explainer: Any) -> int:
    """How many graphs were traced, compiled programs included."""
    programs = [each._program for each in (explainer, *explainer._variants.values())]
    graphs = sum(key[1] is Way.GRAPH for program in programs for key in program._modes)
    return graphs + sum(program.habits.programs for program in programs)


def wrong(explainer: Any, given: Sequence[np.ndarray], made: Any, *, lens: bool) -> int:
    """How many sequences have not got the relevance that they have in a batch of exactly their length, and zeros behind it."""
    lengths = np.asarray([len(rows) for rows in given])
    assert np.array_equal(made.lengths, lengths), "lengths are not those of the sequences, in their order"
    (relevance,) = made.relevance.values()
    found = 0
    for length in np.unique(lengths):
        which = np.flatnonzero(lengths == length)
        x = np.stack([given[k] for k in which], 1)
        alone = explainer.explain({"x": x, "lens": lengths[which].astype(np.int32)} if lens else x)
        (expected,) = alone.relevance.values()
        difference = np.abs(relevance[:length, which] - expected).max((0, 2), initial=0)
        behind = np.abs(relevance[length:, which]).max((0, 2), initial=0)
        found += int(np.sum((difference > CLOSE * np.abs(expected).max((0, 2))) | (behind > 0)))
    return found


def cells(row: dict[str, Any]) -> list[str]:
    return [
        "with lengths" if row["lens"] else "without",
        f"{row['steps_per_second']:,.0f} steps/s",
        f"{row['equal_steps_per_second']:,.0f} steps/s in batches of {row['batch']}",
        f"{row['throughput_over_equal']:.2f}",
        str(row["traces"]),
        "kept" if row["wrong"] == 0 else f"{row['wrong']} wrong",
    ]


def main() -> None:
    parser = arguments(__doc__, pairs=3)
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="sequences; 10,000")
    options = options_of(parser)
    start_quietly()
    how = {"pairs": options.pairs, "settle": options.settle, "jit": options.jit}
    given = sequences(options.count)
    if not options.json:
        titles = ["model", "sequences of all lengths", "of one length", "throughput over that", "traces", "order"]
        print(head(titles), flush=True)
    rows = []
    for lens in (False, True):
        rows.append(measure(given, lens=lens, **how))
        if not options.json:
            print(line(cells(rows[-1])), flush=True)
    if options.json:
        print(json.dumps(rows))
        return
    print(f"\n{len(given)} sequences, {rows[0]['steps']:,} steps, I = {FEATURES}, H = {HIDDEN}. {machine(**how)}")


if __name__ == "__main__":
    main()
