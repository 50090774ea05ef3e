"""Time of an explanation over onnxruntime's forward pass, PyTorch's, and Captum's explanations: same network, same batch, in turns.

    python benchmarks/recurrent.py [--pairs N] [--jit auto|graph|xla] [--settle SECONDS] [--[no-]torch] [--json]

Bidirectional LSTM, last states, dense head; (I, H, C, T, B) as listed, every row in a process of its own. Prints a Markdown table:
medians of the turns' ratios, absolute medians, and the peak memory of the process before PyTorch is imported; in parentheses those
of the same calls repeated without a rest. Where PyTorch and Captum are installed, they are compared with, unless ``--no-torch``;
integrated gradients in fewer turns, as they take long.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from _measure import AGAIN, Seconds, arguments, fresh, head, line, machine, median_ms, memory, options_of, ratio, turns
from _models import batch, bilstm, session
from _twin import STEPS, missing, others

Shape = tuple[int, ...]  # I, H, C, T, B

# the last two are those of the published TensorFlow program's own benchmark
GRID = (
    (60, 60, 5, 20, 64),
    (128, 256, 2, 100, 64),
    (128, 256, 2, 100, 1),
    (300, 512, 10, 200, 32),
    (200, 300, 2, 25, 10),
    (200, 300, 2, 25, 100),
)
FEW = 5  # turns of integrated gradients, at most
COLUMNS = {
    "forward": "/ onnxruntime forward",
    "torch": "/ PyTorch forward",
    "gradient_x_input": "/ Captum gradient × input",
    "integrated_gradients": f"/ Captum integrated gradients, {STEPS} steps",
}


def measure(shape: Shape, *, pairs: int, settle: float, jit: str, torch: bool) -> dict[str, Any]:
    """One row: {"peak_mib", of every function "…_ms", and of all but ours "over_…"}, each also with "…_again"."""
    import onnx_lrp

    i, h, c, t, b = shape
    model, x = bilstm(i, h, c), batch(t, b, i)
    explainer, theirs = onnx_lrp.load(model, jit=jit), session(model)
    explain = {"explain": lambda: explainer.explain(x)}
    seconds = turns({**explain, "forward": lambda: theirs.run(None, {"x": x})}, pairs, settle=settle)
    row: dict[str, Any] = dict(zip(("I", "H", "C", "T", "B"), shape, strict=True))
    row |= {"peak_mib": memory("VmHWM"), **_times(seconds, "explain"), **_over(seconds, "forward")}
    if not torch:
        return row
    (logits,) = theirs.run(None, {"x": x})
    functions = others(model, x, logits)
    slow = {name: functions.pop(name) for name in list(functions) if name.startswith("integrated_gradients")}
    for group, count, warm in ((functions, pairs, 4), (slow, min(pairs, FEW), 1)):
        seconds = turns({**explain, **group}, count, settle=settle, warm=warm)
        row |= {key: value for name in group for key, value in _over(seconds, name).items()}
    at_once = {key: row.pop(key) for key in list(row) if "_at_once" in key}
    if at_once and at_once["integrated_gradients_at_once_ms_again"] < row["integrated_gradients_ms_again"]:
        row |= {key.replace("_at_once", ""): value for key, value in at_once.items()}  # Captum's better way counts
    return row


def _times(seconds: Seconds, name: str) -> dict[str, float]:
    return {f"{name}_ms": median_ms(seconds, name), f"{name}_ms_again": median_ms(seconds, name + AGAIN)}


def _over(seconds: Seconds, name: str) -> dict[str, float]:
    again = ratio(seconds, "explain" + AGAIN, name + AGAIN)
    return {f"over_{name}": ratio(seconds, "explain", name), f"over_{name}_again": again, **_times(seconds, name)}


def titles(*, torch: bool) -> list[str]:
    kept = [title for name, title in COLUMNS.items() if torch or name == "forward"]
    return ["I, H, C, T, B", *kept, "explanation", "onnxruntime forward", "peak"]


def cells(row: dict[str, Any]) -> list[str]:
    keys = [f"over_{name}" for name in COLUMNS if f"over_{name}" in row]
    ratios = [f"{row[key]:#.3g} ({row[f'{key}_again']:#.3g})" for key in keys]
    times = [f"{row[key]:.1f} ms ({row[f'{key}_again']:.1f})" for key in ("explain_ms", "forward_ms")]
    return [", ".join(str(row[k]) for k in "IHCTB"), *ratios, *times, f"{row['peak_mib']:.0f} MiB"]


def _shape(text: str) -> Shape:
    numbers = tuple(int(n) for n in text.split(","))
    if len(numbers) != 5:
        raise argparse.ArgumentTypeError(f"{text!r} is not I,H,C,T,B")
    return numbers


def main() -> None:
    parser = arguments(__doc__, pairs=15)
    parser.add_argument("--shapes", type=_shape, nargs="+", default=GRID, metavar="I,H,C,T,B", help="instead of the grid")
    parser.add_argument("--torch", action=argparse.BooleanOptionalAction, help="compare with PyTorch and Captum; if installed")
    options = options_of(parser)
    absent = missing()
    if options.torch and absent:
        parser.error(f"not installed: {', '.join(absent)}")
    torch = not absent if options.torch is None else options.torch
    how = {"pairs": options.pairs, "settle": options.settle, "jit": options.jit}
    if options.here:
        print(json.dumps([measure(shape, **how, torch=torch) for shape in options.shapes]))
        return
    if not options.json:
        print(head(titles(torch=torch)), flush=True)
    rows = []
    same = [word for key, value in how.items() for word in (f"--{key}", value)] + ["--torch" if torch else "--no-torch"]
    for shape in options.shapes:
        rows += fresh(__file__, *same, "--shapes", ",".join(map(str, shape)))
        if not options.json:
            print(line(cells(rows[-1])), flush=True)
    if options.json:
        print(json.dumps(rows))
        return
    print(f"\nMedians of our time over theirs; in parentheses of calls repeated at once. {machine(**how)}")
    if not torch:
        print(f"No comparison with PyTorch and Captum: {'not installed' if absent else 'not asked for'}.")


if __name__ == "__main__":
    main()
