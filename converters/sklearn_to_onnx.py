# /// script
# requires-python = ">=3.11"
# dependencies = ["scikit-learn", "skl2onnx>=1.17", "onnx>=1.17", "onnxruntime>=1.20", "numpy", "onnx-lrp"]
#
# [tool.uv.sources]
# onnx-lrp = { path = ".." }
# ///
"""scikit-learn → ONNX, with the batch left open, and checked: scikit-learn = onnxruntime = onnx-lrp.

    uv run converters/sklearn_to_onnx.py my_models:fitted --out model.onnx
    uv run converters/sklearn_to_onnx.py model.joblib --allow-pickle --out model.onnx

The model is a fitted estimator or pipeline, from ``package.module:factory`` or from a pickle. Classifiers give ``label`` and
``probabilities`` (an array, no list of dictionaries); onnx-lrp explains the scores before both. A window of steps flattened to a
row is what scikit-learn sees of a series: (B, T·F) names nothing, so ``--series T,F`` puts the axes back in front of the model.
"""

from __future__ import annotations

import argparse
import sys

HELPS = "an estimator without a fixed number of samples in it"

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


def to_onnx(model, *, series=None, sizes=SIZES, opset=None):
    """A fitted estimator or pipeline → (ModelProto, what the check found, its input as ``feed`` takes it).

    Args:
        model: fitted on rows (B, n_features_in_) of numbers.
        series: (T, F) with T·F = n_features_in_: the file then takes (B, T, F).
        sizes: {letter: (first, second)}, the two sizes to check with.
        opset: of the file.

    Raises:
        Refused: not fitted, nothing that skl2onnx converts, or another function.
    """
    import numpy as np
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    width = getattr(model, "n_features_in_", None)
    if width is None:
        raise Refused(f"{type(model).__name__} is not fitted (it has no n_features_in_): fit it before it is exported")
    if series and series[0] * series[1] != width:
        raise Refused(f"--series {series[0]},{series[1]} is {series[0] * series[1]} numbers a row, the model was fitted on {width}")
    classifier = hasattr(model, "predict_proba")
    options = {id(model): {"zipmap": False}} if classifier else None
    try:
        proto = skl2onnx.to_onnx(model, initial_types=[("x", FloatTensorType([None, width]))], options=options, target_opset=opset)
    except Exception as error:
        raise Refused(f"skl2onnx does not convert {type(model).__name__}: {str(error).strip()[:300]}") from error
    if series:
        _before(proto, series, width)
    specs = {"x": ("float32", ("B", *(series or (width,))), (0, 9))}
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "B"

    def run(inputs):
        rows = inputs["x"].reshape(len(inputs["x"]), -1)
        if classifier:
            return [model.predict(rows), model.predict_proba(rows).astype(np.float32)]
        found = np.asarray(model.predict(rows) if hasattr(model, "predict") else model.transform(rows), np.float32)
        return [found.reshape(len(rows), -1)]

    found = check(proto, run, specs, sizes=sizes, helps=HELPS, tolerance=1e-3)  # it computes in float64, the file in float32
    return proto, [f"exported by skl2onnx {skl2onnx.__version__}", *found], specs


def _before(proto, series, width):
    """A Reshape from (B, T, F) to the rows that the model takes."""
    from onnx import TensorProto, helper

    old = proto.graph.input[0].name
    proto.graph.initializer.append(helper.make_tensor("row", TensorProto.INT64, [2], [-1, width]))
    proto.graph.node.insert(0, helper.make_node("Reshape", ["series", "row"], [old], name="rows"))
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("series", TensorProto.FLOAT, ["B", *series]))
    for node in proto.graph.node:
        node.input[:] = ["x_rows" if n == old else "x" if n == "series" else n for n in node.input]
        node.output[:] = ["x_rows" if n == old else n for n in node.output]
    proto.graph.input[0].name = "x"


def load(text, *, allow_pickle=False):
    """``package.module:factory``, or a pickle (.pkl, .joblib) that the user allowed.

    Raises:
        Refused: neither, or a pickle that nobody allowed.
    """
    if text.endswith((".pkl", ".pickle", ".joblib")):
        if not allow_pickle:
            raise Refused(f"{text}: a pickle runs whatever code is in it; --allow-pickle if you know where it comes from")
        there(text)
        import joblib

        try:
            return joblib.load(text)
        except Exception as error:
            raise Refused(
                f"{text} can't be unpickled: {type(error).__name__}: {str(error).strip()[:300]}; the code of its classes, and the "
                "version of scikit-learn that wrote it, have to be installed here"
            ) from error
    return made(text, ".pkl or .joblib with --allow-pickle")


def main(arguments=None):
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="package.module:factory, or .pkl or .joblib with --allow-pickle")
    parser.add_argument("--allow-pickle", action="store_true", help="read a pickle, which can run any code")
    parser.add_argument("--series", metavar="T,F", help="a row is a window of T steps with F features: the file takes (B, T, F)")
    parser.add_argument("--opset", type=int)
    parser.add_argument("--out", default="model.onnx")
    options = parser.parse_args(arguments)
    try:
        series = tuple(int(n) for n in options.series.split(",")) if options.series else None
        model = load(options.model, allow_pickle=options.allow_pickle)
        proto, lines, specs = to_onnx(model, series=series, opset=options.opset)
    except (Refused, OSError, ValueError, ImportError) as error:
        print(f"{parser.prog}: {told(error)}", file=sys.stderr)
        return 1
    finish(proto, options.out, lines, specs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
