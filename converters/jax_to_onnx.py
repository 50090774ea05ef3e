# /// script
# requires-python = ">=3.11"
# dependencies = ["jax", "flax>=0.10", "jax2onnx>=0.9", "onnx>=1.17", "onnxruntime>=1.20", "numpy", "onnx-lrp"]
#
# [tool.uv.sources]
# onnx-lrp = { path = ".." }
# ///
"""JAX (flax nnx, or any function) → ONNX, with the batch and the length left open, and checked: JAX = onnxruntime = onnx-lrp.

    uv run converters/jax_to_onnx.py my_models:make --input x:float32:B,T,40 --out model.onnx

The model is ``package.module:factory``: what the factory returns, a flax nnx module or a function of arrays, is called with the
inputs in the order of ``--input NAME:DTYPE:SHAPE[:LOW-HIGH]`` (B is the batch, T the length, other letters are further open sizes,
numbers are fixed). The exporter is jax2onnx. It can't trace ``nnx.RNN`` as that is written, which draws its zero state from a
random generator; while it traces, nnx.RNN is ``jax.lax.scan`` over the same cell, and becomes a Loop. Parameters
beside the file (orbax, msgpack) are restored in the factory.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

HELPS = "nnx.RNN or jax.lax.scan in place of a loop over steps in Python; or its number in place of the letter in --input"

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


def to_onnx(model, specs, *, sizes=SIZES, outputs=()):
    """An nnx module or a function of arrays → (ModelProto, what the check found).

    Args:
        model: the module; it is put into eval mode.
        specs: {name: (dtype, shape, range of integers)} of its inputs, in the order of the call.
        sizes: {letter: (first, second)}, the two sizes to check with.
        outputs: names of the outputs.

    Raises:
        Refused: jax2onnx can't trace it, a size is baked in, or the export is another function.
    """
    from importlib.metadata import version

    import jax
    import jax.numpy as jnp
    import jax2onnx
    import numpy as np

    if hasattr(model, "eval"):
        model.eval()

    def run(inputs):
        return [np.asarray(a) for a in jax.tree.leaves(model(*(jnp.asarray(a) for a in inputs.values())))]

    names = list(outputs) or _names(len(run(feed(specs, (), sizes))))
    shapes = [jax.ShapeDtypeStruct(dims, jnp.dtype(dtype)) for dtype, dims, _ in specs.values()]
    try:
        with _plain_rnn():
            proto = jax2onnx.to_onnx(lambda *xs: model(*xs), inputs=shapes, input_names=list(specs), output_names=names)
    except Exception as error:
        told = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise Refused(f"jax2onnx fails: {type(error).__name__}: {told[:300]}\nwhat helps: {HELPS}") from error
    return proto, [f"exported by jax2onnx {version('jax2onnx')}", *check(proto, run, specs, sizes=sizes, helps=HELPS)]


def _names(count):
    return ["output"] if count == 1 else [f"output_{k}" for k in range(count)]


@contextlib.contextmanager
def _plain_rnn():
    """nnx.RNN without random numbers: zeros, and a scan over the cell."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    def call(self, inputs, *, initial_carry=None, rngs=None, seq_lengths=None, **given):
        if seq_lengths is not None:
            raise NotImplementedError("nnx.RNN with seq_lengths: leave them out, and pass sequences of one length a batch")
        chosen = {n: getattr(self, n) for n in ("time_major", "reverse", "keep_order", "return_carry")}
        chosen |= {n: value for n, value in given.items() if value is not None}
        steps = inputs if chosen["time_major"] else jnp.swapaxes(inputs, 0, 1)
        steps = steps[::-1] if chosen["reverse"] else steps
        zeros = jnp.zeros((steps.shape[1], self.cell.hidden_features), inputs.dtype)
        pair = isinstance(self.cell, nnx.LSTMCell | nnx.OptimizedLSTMCell)
        carry = initial_carry if initial_carry is not None else (zeros, zeros) if pair else zeros
        carry, out = jax.lax.scan(lambda state, x: self.cell(state, x), carry, steps)
        out = out[::-1] if chosen["reverse"] and chosen["keep_order"] else out
        out = out if chosen["time_major"] else jnp.swapaxes(out, 0, 1)
        return (carry, out) if chosen["return_carry"] else out

    own, nnx.RNN.__call__ = nnx.RNN.__call__, call
    try:
        yield
    finally:
        nnx.RNN.__call__ = own


def main(arguments=None):
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="package.module:factory, of an nnx module or a function of arrays")
    parser.add_argument("--input", action="append", required=True, help="NAME:DTYPE:SHAPE[:LOW-HIGH], once for each input")
    parser.add_argument("--outputs", default="", help="names of the outputs, with commas")
    parser.add_argument("--sizes", action="append", metavar="T=7,11", help="the two sizes of a letter to check with")
    parser.add_argument("--out", default="model.onnx")
    options = parser.parse_args(arguments)
    try:
        specs, sizes = dict(map(parse_spec, options.input)), parse_sizes(options.sizes)
        outputs = [name for name in options.outputs.split(",") if name]
        proto, lines = to_onnx(
            made(options.model, "one that also restores parameters from a file"),
            specs,
            sizes=sizes,
            outputs=outputs,
        )
    except (Refused, OSError, ValueError, ImportError) as error:
        print(f"{parser.prog}: {told(error)}", file=sys.stderr)
        return 1
    finish(proto, options.out, lines, specs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
