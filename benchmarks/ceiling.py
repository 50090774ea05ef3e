"""How far a deletion curve can fall: words taken away greedily, each time the one whose absence lowers the score most.

No relevances are that good, as these are chosen by the very measure. The distance between a method and this order says how much
room there is above it, and between two methods whether samples are enough to tell them apart.

    python benchmarks/ceiling.py onnx_lrp/demo/sentiment.onnx test.csv --label label
"""

from __future__ import annotations

import argparse

import numpy as np

import onnx_lrp
from onnx_lrp.evaluation.bench import Bench, make_bench
from onnx_lrp.evaluation.bootstrap import intervals
from onnx_lrp.evaluation.curves import aopc
from onnx_lrp.evaluation.samples import read_samples
from onnx_lrp.text import Tokenizer


def greedy(bench: Bench, targets: np.ndarray, points: int) -> np.ndarray:
    """(N, K + 1) scores of the target while units go, each time the one that lowers it most."""
    count = len(bench)
    gone = [np.zeros(units, bool) for units in bench.units]
    curve = np.zeros((count, points + 1))
    curve[:, 0] = bench.scores(range(count))[np.arange(count), targets]
    for k in range(1, points + 1):
        curve[:, k] = curve[:, k - 1]
        which, masks, unit = [], [], []
        for i, own in enumerate(gone):
            for u in np.flatnonzero(~own):
                mask = own.copy()
                mask[u] = True
                which.append(i)
                masks.append(mask)
                unit.append(u)
        if not which:
            break
        rows = np.asarray(which)
        scores = bench.scores(which, masks)[np.arange(len(rows)), targets[rows]]
        for i in np.unique(rows):
            own = np.flatnonzero(rows == i)
            best = own[scores[own].argmin()]
            curve[i, k] = scores[best]
            gone[i][unit[best]] = True
    return curve


def main(argv: list[str] | None = None) -> None:
    """Print the area of the greedy order, for all samples and the rightly classified."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("dataset")
    parser.add_argument("--label")
    parser.add_argument("--replace", default="zero")
    parser.add_argument("--points", type=int, default=10)
    parser.add_argument("--limit", type=int)
    options = parser.parse_args(argv)
    explainer = onnx_lrp.load(options.model)
    coder = Tokenizer.beside(options.model)
    samples = read_samples(
        explainer, options.dataset, labels=options.label, encode=lambda text: coder.encode(text)[0].ids, limit=options.limit
    )
    bench = make_bench(explainer, options.model, samples, replace=options.replace, step=None, options={})
    targets = bench.scores(range(len(bench))).argmax(1)
    area = aopc(greedy(bench, targets, options.points))
    groups = {"all": np.ones(len(area), bool)}
    if samples.labels is not None:
        groups |= {"right": targets == samples.labels, "wrong": targets != samples.labels}
    for name, rows in groups.items():
        own = intervals({"deletion": np.where(rows, area, np.nan)})["deletion"]
        print(f"{name:6} {own.mean:.3f}, 95 % {own.low:.3f} to {own.high:.3f}, {own.count} samples")


if __name__ == "__main__":
    main()
