# /// script
# requires-python = ">=3.11"
# dependencies = ["paddlepaddle>=3", "paddle2onnx>=2", "setuptools", "onnxruntime>=1.20", "numpy", "onnx-lrp"]
#
# [tool.uv.sources]
# onnx-lrp = { path = ".." }
# ///
"""PaddlePaddle → ONNX, with the batch and the length left open, and checked: Paddle = onnxruntime = onnx-lrp.

    uv run converters/paddle_to_onnx.py my_models:make --weights model.pdparams --input ids:int64:B,T:0-9999 --out model.onnx
    uv run converters/paddle_to_onnx.py saved/model.json --input x:float32:B,T,40 --out model.onnx

The model is ``package.module:factory`` (called without arguments; a class or a function that returns a layer), with the weights
beside it, or what ``paddle.jit.save`` wrote (model.json with model.pdiparams beside it). ``--input NAME:DTYPE:SHAPE[:LOW-HIGH]``,
in the order of ``forward``: B is the batch, T the length, other letters are further open sizes, numbers are fixed. The exporter is
Paddle2ONNX, in a process of its own, as it ends the process at an operation that it does not know; constants are not folded
by Polygraphy, which installs packages where it misses some.
"""

from __future__ import annotations

import argparse
import sys

HELPS = (
    "nn.LSTM, nn.GRU, or a loop over steps with x.shape[1], in place of a number of steps in the code or in the InputSpec of "
    "paddle.jit.save; or its number in place of the letter in --input, if that size shall stay fixed"
)

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


def to_onnx(model, specs, *, sizes=SIZES, outputs=(), opset=17):
    """A layer, or what ``load`` read from a file → (ModelProto, what the check found).

    Args:
        model: the layer; it is put into eval mode.
        specs: {name: (dtype, shape, range of integers)} of its inputs, in the order of ``forward``.
        sizes: {letter: (first, second)}, the two sizes to check with.
        outputs: names of the outputs.
        opset: of the file.

    Raises:
        Refused: Paddle or Paddle2ONNX can't write it, a size is baked in, or the export is another function.
    """
    import tempfile
    from importlib.metadata import version
    from pathlib import Path

    import onnx
    import paddle

    model.eval()

    def run(inputs):
        with paddle.no_grad():
            return [a.numpy() for a in _flat(model(*(paddle.to_tensor(a) for a in inputs.values())))]

    try:
        count = len(run(feed(specs, (), sizes)))
    except Exception as error:
        given = ", ".join(f"{name} {array.shape}" for name, array in feed(specs, (), sizes).items())
        raise Refused(f"the model itself fails with {given}: {_last(error)}") from error
    with tempfile.TemporaryDirectory() as folder:
        try:
            _save(model, specs, Path(folder, "model"))
        except Exception as error:
            raise Refused(f"paddle.jit.save fails: {_last(error)}\nwhat helps: {_help(str(error))}") from error
        proto = onnx.load(_export(folder, opset))
    _well_formed(proto)
    names = list(outputs) or (["output"] if count == 1 else [f"output_{k}" for k in range(count)])
    _name(proto, specs, names)
    return proto, [f"exported by Paddle2ONNX {version('paddle2onnx')}", *check(proto, run, specs, sizes=sizes, helps=HELPS)]


def _save(model, specs, path):
    """What Paddle2ONNX reads: the file that ``load`` found, or the layer traced with these sizes open."""
    import shutil
    from pathlib import Path

    import paddle

    if hasattr(model, "found_at"):
        for suffix in (".json", ".pdmodel", ".pdiparams"):
            if Path(f"{model.found_at}{suffix}").exists():
                shutil.copy(f"{model.found_at}{suffix}", f"{path}{suffix}")
        return
    given = [
        paddle.static.InputSpec([None if isinstance(d, str) else d for d in dims], dtype, name)
        for name, (dtype, dims, _) in specs.items()
    ]
    paddle.jit.save(model, str(path), given)


def _export(folder, opset):
    """The path of the file that Paddle2ONNX writes of ``folder``/model.json."""
    import subprocess
    from pathlib import Path

    # at an operation that it does not know, Paddle2ONNX ends the whole process
    call = [sys.executable, "-m", "paddle2onnx.command", "--model_dir", folder, "--params_filename", "model.pdiparams"]
    call += ["--model_filename", "model.json" if Path(folder, "model.json").exists() else "model.pdmodel"]
    call += ["--save_file", f"{folder}/model.onnx", "--opset_version", str(opset), "--optimize_tool", "None"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode or not Path(folder, "model.onnx").exists():
        said = [line.split("]")[-1].strip() for line in (done.stdout + done.stderr).splitlines() if "[ERROR]" in line]
        raise Refused(
            f"Paddle2ONNX fails: {' '.join(said)[:300] or done.stderr.strip()[-300:]}\n"
            "what helps: nn.LSTM or nn.GRU in place of nn.RNN around a cell (which it does not know), or a loop over the cell"
        )
    return f"{folder}/model.onnx"


def _well_formed(proto):
    """Refused where Paddle2ONNX left out what it can't write, without a word: a layer, or an input."""
    made = {n for node in proto.graph.node for n in node.output} | {i.name for i in (*proto.graph.input, *proto.graph.initializer)}
    read = {n for node in proto.graph.node for n in _reads(node)}
    if missing := sorted({n for node in proto.graph.node for n in node.input} - made - {""}):
        raise Refused(
            f"Paddle2ONNX left out the layer that makes {missing[0]}\n"
            "what helps: nn.LSTM or nn.GRU in place of nn.SimpleRNN, or a loop over nn.SimpleRNNCell"
        )
    if unread := [i.name for i in proto.graph.input if i.name not in read]:
        raise Refused(
            f"nothing in the file reads {', '.join(unread)}: Paddle2ONNX leaves out the sequence_length of nn.LSTM and nn.GRU\n"
            "what helps: without sequence_length, mean or sum over time with a mask of the steps in place of the last one "
            "(in one direction the steps before the end are the same); or sequences of one length a batch, without lengths"
        )


def _reads(node):
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node if attribute.HasField("g") else ():
            yield from _reads(inner)


def _name(proto, specs, outputs):
    """Letters and plain names in place of Paddle2ONNX's; a size that is a number stays one."""
    letters, new = {}, dict(zip([o.name for o in proto.graph.output], outputs, strict=True))
    for value in proto.graph.input:
        for d, wanted in zip(value.type.tensor_type.shape.dim, specs[value.name][1], strict=True):
            if d.dim_param:
                letters[d.dim_param] = str(wanted)
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        value.name = new.get(value.name, value.name)
        for d in value.type.tensor_type.shape.dim:
            if d.dim_param in letters:
                d.dim_param = letters[d.dim_param]
    for node in proto.graph.node:
        node.input[:] = [new.get(n, n) for n in node.input]
        node.output[:] = [new.get(n, n) for n in node.output]


def _last(error):
    """What an exception of Paddle says, behind the source of the model: the last line that names an error, else the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in reversed(lines) if "Error: " in line), lines[-1])[:300]


def _help(said):
    if "while_loop" in said:
        return "the cell's first state given before the loop, h = c = paddle.zeros([x.shape[0], hidden]), in place of None"
    if "requires" in said and "arguments" in said:
        return "the first parameter of forward called self, and one --input for each of the others"
    return HELPS


def _flat(value):
    """The tensors of an output, tuples and dictionaries opened."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _flat(part)]
    return [value]


def load(text, weights=None, *, allow_pickle=False):
    """``package.module:factory`` and its weights, or a file of paddle.jit.save.

    Raises:
        Refused: it can't be read, the weights don't fit, or are a pickle that nobody allowed.
    """
    from pathlib import Path

    import paddle

    paddle.set_device("cpu")
    if text.endswith((".json", ".pdmodel", ".pdiparams")):
        prefix = str(Path(text).with_suffix(""))
        there(text, f"{prefix}.pdiparams")  # which paddle.jit.save writes side by side
        try:
            model = paddle.jit.load(prefix)
        except Exception as error:
            raise Refused(f"{text}: paddle.jit.load fails: {_last(error)}") from error
        model.found_at = prefix
        return model
    if text.endswith(".pdparams"):
        raise Refused(f"{text} holds weights alone: give the code as package.module:factory and the file as --weights {text}")
    there(weights)
    if weights and not allow_pickle and not weights.endswith(".safetensors"):
        raise Refused(f"{weights} is a pickle, which runs whatever code is in it; --allow-pickle if you know where it comes from")
    model = made(text, "model.json of paddle.jit.save")
    if weights:
        missing, unexpected = model.set_state_dict(paddle.load(weights))
        if missing or unexpected:
            raise Refused(f"{weights} does not fit {text}: missing {missing or 'none'}, unexpected {unexpected or 'none'}")
    return model


def main(arguments=None):
    import os
    import warnings

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GLOG_minloglevel", "3")  # Paddle's notices
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="package.module:factory, or model.json of paddle.jit.save")
    parser.add_argument("--input", action="append", required=True, help="NAME:DTYPE:SHAPE[:LOW-HIGH], once for each input")
    parser.add_argument("--weights", help="a state_dict (.pdparams) for the factory's layer")
    parser.add_argument("--allow-pickle", action="store_true", help="read .pdparams, which is a pickle and can run any code")
    parser.add_argument("--outputs", default="", help="names of the outputs, with commas")
    parser.add_argument("--opset", type=int, default=17)
    parser.add_argument("--sizes", action="append", metavar="T=7,11", help="the two sizes of a letter to check with")
    parser.add_argument("--out", default="model.onnx")
    options = parser.parse_args(arguments)
    try:
        specs, sizes = dict(map(parse_spec, options.input)), parse_sizes(options.sizes)
        outputs = [name for name in options.outputs.split(",") if name]
        model = load(options.model, options.weights, allow_pickle=options.allow_pickle)
        proto, lines = to_onnx(model, specs, sizes=sizes, outputs=outputs, opset=options.opset)
    except (Refused, OSError, ValueError, ImportError) as error:
        print(f"{parser.prog}: {told(error)}", file=sys.stderr)
        return 1
    finish(proto, options.out, lines, specs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
