# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "onnx>=1.17", "onnxruntime>=1.20", "onnx-lrp"]
#
# [tool.uv.sources]
# onnx-lrp = { path = ".." }
# ///
"""A list of LSTM weights → ONNX, checked: numpy = onnxruntime = onnx-lrp.

    uv run converters/weights_to_onnx.py weights.npz --order ifco --out model.onnx
    uv run converters/weights_to_onnx.py weights.npz --order auto --pair pair.npz --out model.onnx

The list is W_x, W_h, b of the forward direction, the same of the backward one, and the weights and bias of the head, in the order
of the file: what ``model.get_weights()`` of a Keras Bidirectional(LSTM) and Dense gives. One direction, no bias or two, a
head without bias, and (4H, I) in place of (I, 4H) are seen from the shapes; Wxh_Left, bxh_Left, … as names as well.
``--order`` says how the four gates stand in the axis of 4H: i input, f forget, c or g cell candidate, o output. Keras: ifco,
PyTorch: ifgo, ONNX: iofc. ``auto`` tries all 24 on a pair x (B, T, I), y (B, C) of the model that the weights came from.
"""

from __future__ import annotations

import argparse
import sys

LEFT_RIGHT = ("Wxh_{}", "Whh_{}", "bxh_{}", "bhh_{}")  # a published numpy program's names; its head is Why_Left, Why_Right

# --- the check: these lines are the same in every converter, and a test holds them equal ---
SIZES = {"B": (3, 5), "T": (7, 11)}  # of a letter in a shape: in the first run, in the second


class Refused(Exception):
    """There is no file to trust; the message says why, and what helps."""


def parse_spec(text):
    """``name:dtype:B,T,4`` or, with a range of values, ``name:int64:B,T:0-999`` → (name, (dtype, shape, range))."""
    name, dtype, shape, *values = text.split(":")
    dims = tuple(int(d) if d.isdigit() else d for d in shape.split(",") if d)
    return name, (dtype, dims, tuple(int(v) for v in values[0].split("-")) if values else (0, 9))


def parse_sizes(texts):
    """``T=7,11`` → SIZES with the two sizes of that letter."""
    given = (text.split("=") for text in texts or ())
    return SIZES | {letter: tuple(int(n) for n in sizes.split(",")) for letter, sizes in given}


def there(*paths):
    """Refused where one of these files (None: none is asked for) is missing."""
    from pathlib import Path

    for path in paths:
        if path and not Path(path).exists():
            raise Refused(f"{path}: no such file or folder")


def made(text, expected):
    """What ``package.module:factory`` returns; expected: what else the text may be."""
    import importlib

    module, found, factory = text.partition(":")
    if not found:
        raise Refused(f"{text!r}: expected package.module:factory, or {expected}")
    sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError) as error:
        raise Refused(f"{text}: {error}; modules are looked for in this folder and in PYTHONPATH") from error
    except Exception as error:
        helps = (
            "what helps: a function without arguments that builds it, def make(): return Net(...), and its name in place of this"
        )
        raise Refused(f"{text} fails: {type(error).__name__}: {str(error).strip()[:300]}\n{helps}") from error


def feed(specs, second=(), sizes=SIZES):
    """Random inputs of specs {name: (dtype, shape, range)}; letters in ``second`` have their second size."""
    import numpy as np

    rng, made = np.random.default_rng(0), {}
    for name, (dtype, dims, (low, high)) in specs.items():
        shape = [d if isinstance(d, int) else sizes.get(d, (4, 6))[d in second] for d in dims]
        whole = np.dtype(dtype).kind in "iub"
        made[name] = (rng.integers(low, high + 1, shape) if whole else rng.normal(size=shape)).astype(dtype)
    return made


def check(model, run, specs, *, sizes=SIZES, helps="", tolerance=1e-4):
    """Framework = onnxruntime = onnx-lrp on random inputs of two sizes, else Refused; returns what was found, line by line.

    Args: the ModelProto; run: {input: array} → the framework's outputs in the graph's order; specs: as in feed;
    helps: the option that helps where a size is baked into the file; tolerance: of an output's largest value.
    """
    import numpy as np
    import onnxruntime

    options, engines, lines = onnxruntime.SessionOptions(), {}, []
    options.log_severity_level = 4  # what onnxruntime has to say is in its exception
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Refused(f"onnxruntime does not load the file: {error}") from error
    names = [o.name for o in session.get_outputs()]
    engines["onnxruntime"] = lambda inputs: dict(zip(names, session.run(None, inputs), strict=True))
    try:
        import onnx_lrp
        from onnx_lrp._lazy import start_quietly

        start_quietly()
        engines["onnx-lrp"] = onnx_lrp.load(model).predict
    except ImportError:
        lines.append("onnx-lrp is not installed here: compared with onnxruntime alone")
    except onnx_lrp.OnnxLrpError as error:
        lines.append(f"onnx-lrp can't explain it from its inputs: {error}")

    def wrong(second):
        """What goes wrong where these letters have their second size; "" if nothing does."""
        inputs = feed(specs, second, sizes)
        given = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
        try:
            expected = [np.asarray(a) for a in run(inputs)]
        except Exception as error:
            return f"the framework itself fails with {given}: {type(error).__name__}: {str(error).strip()[:400]}"
        errors = []
        for engine, call in engines.items():
            try:
                found, worst = call(inputs), 0.0
            except Exception as error:
                return f"{engine} fails with {given}: {str(error).strip()[:400]}"
            if len(expected) != len(names):
                return f"the framework has {len(expected)} outputs, the file {len(names)}"
            for name, want in zip(names, expected, strict=True):
                if name not in found:
                    return f"{engine} gives no output {name!r}, only {', '.join(found)}"
                got = np.asarray(found[name])
                if got.shape != want.shape:
                    return f"{engine}: output {name!r} is {got.shape} with {given}, the framework's {want.shape}"
                if want.dtype.kind != "f":  # labels
                    off = float(np.any(got != want))
                else:
                    off = np.abs(got - want).max(initial=0) / max(np.abs(want).max(initial=0), 1e-3)
                worst = float(np.maximum(worst, off))  # which keeps NaN
            if not worst <= tolerance:
                return f"{engine} differs from the framework by {worst:.1e} of the output with {given}"
            errors.append(f"{engine} ({worst:.0e})")
        lines.append(f"with {given}: framework = {' = '.join(errors)}")
        return ""

    letters = sorted({d for _, dims, _ in specs.values() for d in dims if isinstance(d, str)})
    if problem := wrong(()):
        raise Refused(problem)
    if problem := wrong(letters):
        baked = [letter for letter in letters if wrong((letter,))] or letters
        why = ", ".join({"B": "the batch", "T": "the length"}.get(b, f"the size of {b}") + f" ({b}={sizes[b][0]})" for b in baked)
        raise Refused(f"{why} is baked into the file: {problem}\nwhat helps: {helps}")
    return lines


def told(error):
    """An error in the words of the command line."""
    return f"{error}; uv run installs what this script needs, its first lines name it" if isinstance(error, ImportError) else error


def finish(model, out, lines, specs):
    """Write the file and print what was found, and the next commands."""
    from pathlib import Path

    Path(out).write_bytes(model.SerializeToString())
    kept = ", ".join(f"{name} ({', '.join(map(str, dims))})" for name, (_, dims, _) in specs.items())
    ids = any("int" in dtype and len(dims) == 2 for dtype, dims, _ in specs.values())
    then = '--text "..." --vocab words.txt (line k is the word of id k; or ids in INPUTS.npz)'
    then = then if ids else "INPUTS (.npz, .csv, …; onnx-lrp explain --help)"
    print(*lines, f"wrote {out}: {kept}", f"next: onnx-lrp inspect {out}", f"then: onnx-lrp explain {out} {then}", sep="\n")


# --- the end of the check ---


def split(arrays):
    """Arrays in the file's order → ([(W_x (I, 4H), W_h (H, 4H), b (4H,)), …] by direction, head (D·H, C), bias (C,)).

    Raises:
        Refused: they are not LSTM weights in one or two directions and a head.
    """
    import re

    import numpy as np

    arrays = [np.asarray(a, np.float32) for a in arrays]
    shapes = ", ".join(str(a.shape) for a in arrays)
    wanted = "expected W_x (I, 4H), W_h (H, 4H), b (4H,) once or twice, then a head (D·H, C) and its bias (C,)"
    if len(arrays) < 3 or arrays[1].ndim != 2:
        raise Refused(f"{wanted}; got {shapes or 'nothing'}")
    hidden = min(arrays[1].shape)
    turned = arrays[1].shape[0] != hidden  # (4H, H), as (out, in) throughout
    for k, a in enumerate(arrays):  # two biases in one array
        if k >= 2 and hidden != 2 and a.shape == (2, 4 * hidden):
            arrays[k] = a.sum(0)
    match = re.fullmatch(r"(22)(1{0,2})(?:(22)(1{0,2}))?(2)(1?)", "".join(str(a.ndim) for a in arrays))
    if match is None or max(arrays[1].shape) != 4 * hidden:
        raise Refused(f"{wanted}; got {shapes}")

    def straight(array):
        return array.T if turned else array

    left, cells = list(arrays), []
    for pair, biases in ((match[1], match[2]), (match[3], match[4])):
        if pair:
            w_x, w_h, *b = (left.pop(0) for _ in pair + biases)
            cells.append((straight(w_x), straight(w_h), sum(b, np.zeros(4 * hidden, np.float32))))
    head = straight(left.pop(0))
    bias = left.pop(0) if left else np.zeros(head.shape[1], np.float32)
    inputs = cells[0][0].shape[0]
    fits = all((w.shape, u.shape, b.shape) == ((inputs, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,)) for w, u, b in cells)
    if not fits or head.shape[0] != len(cells) * hidden or bias.shape != head.shape[1:]:
        raise Refused(f"{wanted}, here with I={inputs}, H={hidden}, D={len(cells)}; got {shapes}")
    return cells, head, bias


def forward(cells, head, bias, order, x):
    """x (B, T, I) → scores (B, C), in numpy: Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000."""
    import numpy as np

    order, ends = order.replace("g", "c"), []
    for w_x, w_h, b in cells:
        steps = x if not ends else x[:, ::-1]
        h = c = np.zeros((len(x), w_h.shape[0]), np.float32)
        for t in range(x.shape[1]):
            z = dict(zip(order, np.split(steps[:, t] @ w_x + h @ w_h + b, 4, axis=1), strict=True))
            i, f, o = (0.5 + 0.5 * np.tanh(0.5 * z[gate]) for gate in "ifo")
            c = f * c + i * np.tanh(z["c"])
            h = o * np.tanh(c)
        ends.append(h)
    return np.concatenate(ends, 1) @ head + bias


def find_order(arrays, x, y, *, tolerance=1e-3):
    """The order of the gates with which the weights map x (B, T, I) to y (B, C), scores or probabilities.

    Raises:
        Refused: no order fits, or several do.
    """
    from itertools import permutations

    import numpy as np

    cells, head, bias = split(arrays)
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    if x.ndim != 3 or x.shape[2] != cells[0][0].shape[0] or y.shape != (len(x), head.shape[1]):
        raise Refused(
            f"the pair: expected x (B, T, {cells[0][0].shape[0]}) and y (B, {head.shape[1]}), got {x.shape} and {y.shape}"
        )

    def miss(order):
        z = forward(cells, head, bias, order, x)
        e = np.exp(z - z.max(1, keepdims=True))
        readings = (z, e / e.sum(1, keepdims=True), 0.5 + 0.5 * np.tanh(0.5 * z))  # scores, softmax, sigmoid
        reachable = readings if np.all((y >= 0) & (y <= 1)) else readings[:1]
        return min(float(np.abs(r - y).max()) for r in reachable) / max(float(np.abs(y).max()), 1e-6)

    missed = sorted((miss(order), order) for order in map("".join, permutations("ifco")))
    fits = [order for off, order in missed if off <= tolerance]
    if len(fits) > 1:
        raise Refused(f"{len(fits)} orders fit the pair: {', '.join(fits)}; give a pair of more samples and steps, larger in value")
    if not fits:
        raise Refused(
            f"none of the 24 orders fits the pair; the nearest, {missed[0][1]}, is off by {missed[0][0]:.1e} of y. Another "
            "activation (hard_sigmoid), a head that reads more than the last states, or x before its preprocessing, would do that"
        )
    return fits[0]


def to_onnx(arrays, *, order="ifco", pair=None, opset=17):
    """Weights as in ``split`` → (ModelProto with x (B, T, I) → scores (B, C), what the check found).

    Args:
        arrays: the list.
        order: of the gates, four letters of i, f, c or g, o; or "auto" with ``pair`` = (x, y).
        opset: of the file.

    Raises:
        Refused: the weights, the order or the pair don't fit.
    """
    import numpy as np
    from onnx import TensorProto, checker, helper, numpy_helper

    cells, head, bias = split(arrays)
    if order == "auto" and pair is None:
        raise Refused("--order auto needs --pair FILE.npz: x (B, T, I) and y (B, C) of the model that the weights came from")
    tried = [f"the order {find_order(arrays, *pair)} fits, and no other of the 24"] if order == "auto" else []
    order = tried[0].split()[2] if tried else order
    if sorted(order.replace("g", "c")) != sorted("ifco"):
        raise Refused(f"--order {order}: expected the letters i, f, c (or g) and o, each once, or auto")

    def onnx_order(array):
        parts = dict(zip(order.replace("g", "c"), np.split(array, 4, axis=-1), strict=True))
        return np.concatenate([parts[gate] for gate in "iofc"], -1)

    hidden, inputs = cells[0][1].shape[0], cells[0][0].shape[0]
    weights = {
        "W": np.stack([onnx_order(w).T for w, _, _ in cells]),
        "R": np.stack([onnx_order(u).T for _, u, _ in cells]),
        "B": np.stack([np.concatenate([onnx_order(b), np.zeros(4 * hidden, np.float32)]) for _, _, b in cells]),
        "head": head,
        "bias": bias,
        "flat": np.array([-1, len(cells) * hidden]),
    }
    direction = "bidirectional" if len(cells) == 2 else "forward"
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "W", "R", "B"], ["", "last"], name="lstm", hidden_size=hidden, direction=direction),
        helper.make_node("Transpose", ["last"], ["by_sample"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["by_sample", "flat"], ["states"]),
        helper.make_node("Gemm", ["states", "head", "bias"], ["scores"], name="head"),
    ]
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", inputs])]
    scores = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", head.shape[1]])]
    constants = [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in weights.items()]
    graph = helper.make_graph(nodes, "lstm", values, scores, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    checker.check_model(model)
    lines = check(model, lambda given: [forward(cells, head, bias, order, given["x"])], specs_of(cells))
    return model, [*tried, *lines]


def specs_of(cells):
    """The inputs of the file, as ``feed`` takes them."""
    return {"x": ("float32", ("B", "T", cells[0][0].shape[0]), (0, 9))}


def load(path, *, allow_pickle=False):
    """The arrays of a .npz file, or of a pickled list or dictionary, in the file's order.

    Raises:
        Refused: another kind of file, or a pickle that nobody allowed.
    """
    import pickle

    import numpy as np

    there(path)
    if str(path).endswith(".npz"):
        with np.load(path, allow_pickle=False) as file:
            try:
                found = {name: file[name] for name in file.files}
            except ValueError as error:
                raise Refused(f"{path} holds pickled objects: save each array by itself, np.savez(path, *weights)") from error
    elif str(path).endswith((".pkl", ".pickle")):
        if not allow_pickle:
            raise Refused(f"{path}: a pickle runs whatever code is in it; --allow-pickle if you know where it comes from")
        with open(path, "rb") as stream:
            found = pickle.load(stream)  # only where the user allowed it
    else:
        raise Refused(f"{path}: expected .npz, or .pkl with --allow-pickle")
    if not isinstance(found, dict):
        return list(found)
    if "Wxh_Left" in found:
        sides = [side for side in ("Left", "Right") if f"Wxh_{side}" in found]
        cells = [found[n.format(side)] for side in sides for n in LEFT_RIGHT if n.format(side) in found]
        return [*cells, np.concatenate([found[f"Why_{side}"] for side in sides], axis=1)]
    return list(found.values())


def main(arguments=None):
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help=".npz, or .pkl with --allow-pickle")
    parser.add_argument("--order", default="ifco", help="of the gates: ifco, ifgo, igfo, iofc, any other, or auto (default: ifco)")
    parser.add_argument("--pair", help=".npz with x (B, T, I) and y (B, C), for --order auto")
    parser.add_argument("--allow-pickle", action="store_true", help="read a pickle, which can run any code")
    parser.add_argument("--out", default="model.onnx")
    options = parser.parse_args(arguments)
    try:
        arrays = load(options.weights, allow_pickle=options.allow_pickle)
        pair = load(options.pair) if options.pair else None
        model, lines = to_onnx(arrays, order=options.order, pair=pair)
    except (Refused, OSError, ValueError, ImportError) as error:
        print(f"{parser.prog}: {told(error)}", file=sys.stderr)
        return 1
    finish(model, options.out, lines, specs_of(split(arrays)[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
