"""Explain the LSTMs that train.py made: of a sum it is known what each number contributes.

Of a sum of two numbers the relevance of each is the number itself, and all others have none. Reported as Arras et al. 2019
(*Evaluating recurrent neural network explanations*, table 1): the correlation of each number with its relevance, the share of
relevance that lies on the two, and the mean squared error of their relevances' sum against the prediction.

    python examples/arithmetic/explain.py
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np

import onnx_lrp

HERE = Path(__file__).resolve().parent
GATES = ("all", "prop", "abs", "half")
OTHERS = ("gradient_x_input", "occlusion")


def _neighbour(name):
    spec = importlib.util.spec_from_file_location(f"arithmetic_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


training = _neighbour("train")


def cases(task, count, *, seed=0):
    """[(x (n, T, 2), places (n, 2))] of every length from the shortest to the longest."""
    rng = np.random.default_rng(seed)
    lengths = range(training.SHORTEST, training.STEPS + 1)
    drawn = [training.sequences(count // len(lengths), steps=t, second=training.TASKS[task], rng=rng) for t in lengths]
    return [(x, places) for x, _, places in drawn]


def explained(model, method, data, *, gates="all", epsilon=1e-6, precision="float64"):
    """(the two numbers (N, 2), their relevances (N, 2), |relevance| of all steps (N,), predictions (N,)), of all lengths."""
    explainer = onnx_lrp.load(model, gates=gates, epsilon=epsilon, precision=precision, jit="graph")
    numbers, own, sizes, outputs = [], [], [], []
    for x, places in data:
        found = explainer.explain(x, method=method)
        steps = found.per_step()
        numbers.append(np.take_along_axis(x[:, :, 1], places, 1))
        own.append(np.take_along_axis(steps, places, 1))
        sizes.append(np.abs(steps).sum(1))
        outputs.append(found.outputs["y"][:, 0])
    return tuple(np.concatenate(part) for part in (numbers, own, sizes, outputs))


def figures(task, numbers, own, sizes, outputs):
    """What table 1 of the paper lists."""
    signs = np.array([1.0, training.TASKS[task]])
    return {
        "correlation a": float(np.corrcoef(numbers[:, 0] * signs[0], own[:, 0])[0, 1]),
        "correlation b": float(np.corrcoef(numbers[:, 1] * signs[1], own[:, 1])[0, 1]),
        "share": float(np.mean(np.abs(own).sum(1) / np.maximum(sizes, 1e-300))),
        "squared error": float(np.mean((own.sum(1) - outputs) ** 2)),
    }


def table(task, *, folder=HERE, count=2100, epsilon=1e-6):
    """{method: {figure: (mean, standard deviation) over the networks}}."""
    data = cases(task, count)
    paths = sorted(folder.glob(f"{task}-*.onnx"))
    rows = {}
    for name in (*(f"LRP, {g}" for g in GATES), *OTHERS):
        lrp = name.startswith("LRP")
        settings = {"gates": name[5:], "epsilon": epsilon} if lrp else {}
        each = [figures(task, *explained(path, "lrp" if lrp else name, data, **settings)) for path in paths]
        columns = {key: np.array([e[key] for e in each]) for key in each[0]}
        rows[name] = {key: (float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else 0.0) for key, v in columns.items()}
    return rows


def main(argv=None):
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2100, help="sequences")
    parser.add_argument("--epsilon", type=float, default=1e-6)
    parser.add_argument("--folder", type=Path, default=HERE, help="where the networks are")
    options = parser.parse_args(argv)
    for task in training.TASKS:
        count = len(list(options.folder.glob(f"{task}-*.onnx")))
        if not count:
            continue
        print(f"{task}: {count} network(s), epsilon {options.epsilon:g}")
        print(f"  {'':18} {'corr. a':>18} {'corr. b':>18} {'share':>16} {'sq. error':>18}   mean (standard deviation)")
        for name, row in table(task, folder=options.folder, count=options.count, epsilon=options.epsilon).items():
            a, b, share, error = (
                f"{mean:.{k}} ({sd:.1g})" for (mean, sd), k in zip(row.values(), ("5f", "5f", "4f", "1e"), strict=True)
            )
            print(f"  {name:18} {a:>18} {b:>18} {share:>16} {error:>18}", flush=True)


if __name__ == "__main__":
    main()
