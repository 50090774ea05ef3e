# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.6", "onnxscript", "onnx>=1.17", "onnxruntime>=1.20", "numpy", "onnx-lrp"]
#
# [tool.uv.sources]
# onnx-lrp = { path = ".." }
# ///
"""PyTorch → ONNX, with the batch and the length left open, and checked: PyTorch = onnxruntime = onnx-lrp.

    uv run converters/torch_to_onnx.py my_models:make --weights model.pt --input ids:int64:B,T:0-9999 --out model.onnx

The model is ``package.module:factory`` (called without arguments; a class or a function that returns a module), a TorchScript
file (.pt, .ts) or a torch.export file (.pt2). ``--input NAME:DTYPE:SHAPE[:LOW-HIGH]``, in the order of ``forward``: B is the batch,
T the length, other letters are further open sizes, numbers are fixed. Three ways are tried until one survives the check:
``dynamo`` (torch.export), ``trace`` (the older exporter, which records one run) and ``script`` (the same behind
torch.jit.script, which keeps loops as loops).
"""

from __future__ import annotations

import argparse
import sys

WAYS = ("dynamo", "trace", "script")
HELPS = {
    "dynamo": "--exporter script, which keeps a loop over time as a loop; or nn.LSTM, nn.GRU in place of the loop over cells",
    "trace": "--exporter script, which keeps a loop over time as a loop; or nn.LSTM, nn.GRU in place of the loop over cells",
    "script": "sizes that are computed from x.shape in forward, not kept as numbers",
    "file": "torch.jit.script in place of torch.jit.trace when the file is made; torch.export.export(..., dynamic_shapes=...)",
}
FIXED = "; or its number in place of the letter in --input, if that size shall stay fixed"

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


def to_onnx(model, specs, *, exporter="auto", sizes=SIZES, outputs=(), opset=None):
    """A module, ScriptModule or ExportedProgram → (ModelProto, what the check found).

    Args:
        model: the module; it is put into eval mode.
        specs: {name: (dtype, shape, range of integers)} of its inputs, in the order of ``forward``.
        exporter: "dynamo", "trace", "script", or "auto", the first of these whose file survives the check.
        sizes: {letter: (first, second)}, the two sizes to check with.
        outputs: names of the outputs.
        opset: of the file; default: the exporter's.

    Raises:
        Refused: no way survives the check; the message has the reason of each.
    """
    import torch

    exported = isinstance(model, torch.export.ExportedProgram)
    scripted = isinstance(model, torch.jit.ScriptModule)
    if not exported and hasattr(model, "eval"):
        model.eval()
    call = model.module() if exported else model
    ways = ("dynamo",) if exported else ("trace",) if scripted else WAYS if exporter == "auto" else (exporter,)

    def run(inputs):
        with torch.no_grad():
            return [a.numpy() for a in _flat(call(*(torch.from_numpy(a) for a in inputs.values())))]

    if exported or scripted:
        _sees_all(run, specs, sizes)
    examples = tuple(torch.from_numpy(a) for a in feed(specs, (), sizes).values())
    names = list(outputs) or _names(len(run(feed(specs, (), sizes))))
    reasons = []
    for way in ways:
        helps = HELPS["file" if exported or scripted else way] + FIXED
        try:
            proto = _export(model, examples, specs, names, way, opset)
        except Exception as error:
            reasons.append(f"{way}: the exporter fails: {_reason(error)}\nwhat helps: {helps}")
            continue
        try:
            return proto, [f"exported by {way}", *check(proto, run, specs, sizes=sizes, helps=helps)]
        except Refused as error:
            reasons.append(f"{way}: {error}")
    raise Refused("\n".join(reasons))


def _sees_all(run, specs, sizes):
    """A traced file may hold a loop for one length: it runs on longer series, and ignores what follows. Refused if so."""
    import numpy as np

    for letter in sorted({d for _, dims, _ in specs.values() for d in dims if isinstance(d, str) and d != "B"}):
        first = sizes.get(letter, (4, 6))[0]
        inputs = feed(specs, (letter,), sizes)
        other = dict(inputs)
        for name, (_, dims, (low, high)) in specs.items():
            if letter in dims:
                behind = tuple(slice(first, None) if d == letter else slice(None) for d in dims)
                other[name] = inputs[name].copy()
                whole = inputs[name].dtype.kind in "iub"
                other[name][behind] = low + high - inputs[name][behind] if whole else inputs[name][behind] + 1
        try:
            same = all(np.array_equal(a, b) for a, b in zip(run(inputs), run(other), strict=True))
        except Exception:  # the check says what fails
            continue
        if same:
            raise Refused(
                f"nothing behind {letter}={first} has any effect on the output: the file was traced with a loop of a fixed length\n"
                f"what helps: {HELPS['file']}{FIXED}"
            )


def _export(model, examples, specs, names, way, opset):
    """A ModelProto by one exporter; its warnings are about matters that the check looks at."""
    import contextlib
    import io
    import logging
    import warnings

    import onnx
    import torch

    open_axes = {name: {k: d for k, d in enumerate(dims) if isinstance(d, str)} for name, (_, dims, _) in specs.items()}
    options = {"input_names": list(specs), "output_names": names, "opset_version": opset}
    quiet, logger, level = io.StringIO(), logging.getLogger("torch.onnx"), logging.getLogger("torch.onnx").level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), torch.no_grad():
            warnings.simplefilter("ignore")
            if way == "dynamo":
                if isinstance(model, torch.export.ExportedProgram):
                    return torch.onnx.export(model, (), dynamo=True, **options).model_proto
                dims = {d: torch.export.Dim(d, min=1) for axes in open_axes.values() for d in axes.values()}
                shapes = tuple({k: dims[d] for k, d in axes.items()} for axes in open_axes.values())
                return torch.onnx.export(model, examples, dynamo=True, dynamic_shapes=shapes, verbose=False, **options).model_proto
            buffer = io.BytesIO()
            if way == "script" and not isinstance(model, torch.jit.ScriptModule):
                model = torch.jit.script(model)
            torch.onnx.export(model, examples, buffer, dynamo=False, dynamic_axes=open_axes, **options)
            return onnx.load_from_string(buffer.getvalue())
    finally:
        logger.setLevel(level)


def _reason(error):
    """What an exporter has to say, without its advice: the last sentence that names an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((k for k, line in enumerate(lines) if "Exception summary" in line), None)
    lines = lines[told + 1 :] if told is not None else lines or [type(error).__name__]
    return " ".join(lines)[:300]


def _flat(value):
    """The tensors of an output, tuples and dictionaries opened, as the exporters count them."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _flat(part)]
    return [value]


def _names(count):
    return ["output"] if count == 1 else [f"output_{k}" for k in range(count)]


def load(text, weights=None):
    """``package.module:factory``, a TorchScript file or a torch.export file; ``weights``: a state_dict beside it.

    Raises:
        Refused: a pickled module, which would run code of the file, or weights that don't fit.
    """
    import torch

    files = (".pt2", ".pt", ".pth", ".ts", ".ckpt", ".bin")
    there(text if text.endswith(files) else None, weights)
    if text.endswith(".pt2"):
        try:
            return torch.export.load(text)
        except Exception as error:
            raise Refused(f"{text} can't be read by torch.export.load of PyTorch {torch.__version__}: {_reason(error)}") from error
    if text.endswith(files):
        try:
            return torch.jit.load(text, map_location="cpu")
        except RuntimeError as error:
            raise Refused(
                f"{text} is no TorchScript file: weights alone, or a pickled module, don't say how the network runs. "
                f"Give the code as package.module:factory and the file as --weights {text}"
            ) from error
    model = made(text, "a file .pt, .ts (TorchScript) or .pt2 (torch.export)")
    if not callable(model):
        raise Refused(f"{text} gives {type(model).__name__}, no module")
    if weights:
        _restore(model, text, weights)
    return model


def _restore(model, text, weights):
    """The weights of a file, which may hold them beside other things, in the module."""
    import torch

    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind, where the file is something else altogether
        raise Refused(
            f"{weights} is no file of weights alone (a pickled module would run code of the file): where the module is at hand, "
            "torch.save(model.state_dict(), path) writes one"
        ) from error
    for key in ("state_dict", "model_state_dict", "model_state", "model"):
        state = state[key] if isinstance(state, dict) and isinstance(state.get(key), dict) else state
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise Refused(f"{weights} does not fit {text}: {' '.join(str(error).split())[:500]}") from error


def main(arguments=None):
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="package.module:factory, a TorchScript file or a torch.export file")
    parser.add_argument("--input", action="append", required=True, help="NAME:DTYPE:SHAPE[:LOW-HIGH], once for each input")
    parser.add_argument("--weights", help="a state_dict (.pt) for the factory's module")
    parser.add_argument("--exporter", choices=("auto", *WAYS), default="auto")
    parser.add_argument("--outputs", default="", help="names of the outputs, with commas")
    parser.add_argument("--opset", type=int)
    parser.add_argument("--sizes", action="append", metavar="T=7,11", help="the two sizes of a letter to check with")
    parser.add_argument("--out", default="model.onnx")
    options = parser.parse_args(arguments)
    try:
        specs, sizes = dict(map(parse_spec, options.input)), parse_sizes(options.sizes)
        outputs = [name for name in options.outputs.split(",") if name]
        model = load(options.model, options.weights)
        proto, lines = to_onnx(model, specs, exporter=options.exporter, sizes=sizes, outputs=outputs, opset=options.opset)
    except (Refused, OSError, ValueError, ImportError) as error:
        print(f"{parser.prog}: {told(error)}", file=sys.stderr)
        return 1
    finish(proto, options.out, lines, specs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
