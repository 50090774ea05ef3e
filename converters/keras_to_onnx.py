# /// script
# requires-python = ">=3.11"
# dependencies = ["tensorflow>=2.18", "tf-keras", "tf2onnx>=1.17", "onnx>=1.17", "onnxruntime>=1.20", "numpy", "onnx-lrp"]
#
# [tool.uv.sources]
# onnx-lrp = { path = ".." }
# ///
"""Keras or a SavedModel → ONNX, with the batch and the length left open, and checked: Keras = onnxruntime = onnx-lrp.

    uv run converters/keras_to_onnx.py model.keras --out model.onnx
    uv run converters/keras_to_onnx.py my_models:make --weights model.weights.h5 --out model.onnx

The model is a .keras or .h5 file (of Keras 3, or of Keras 2, which then needs tf-keras), the folder of a SavedModel, or
``package.module:factory`` with the weights beside it. Sizes that the model's Input fixes are opened by building the same model on
an open Input; where the network itself needs them (a Flatten over time), ``--fixed`` keeps them. The exporter is tf2onnx, which
Keras' own ``model.export(format="onnx")`` calls as well: that one names no way to open a size, and wants the model called before.
"""

from __future__ import annotations

import argparse
import sys

HELPS = "--fixed, which keeps the sizes of the model's Input; or a layer that does not count steps, in place of Flatten or Reshape"

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


def to_onnx(model, *, fixed=False, sizes=SIZES, opset=17):
    """A Keras model (3 or 2), or a loaded SavedModel → (ModelProto, what the check found, its inputs as ``feed`` takes them).

    Args:
        model: the model; its inputs are tensors with the batch first, and (B, T, F) or (B, T) is taken to be a series.
        fixed: keep the sizes that its Input fixes.
        sizes: {letter: (first, second)}, the two sizes to check with.
        opset: of the file.

    Raises:
        Refused: a size is baked in, or the export is another function.
    """
    import onnx
    import tensorflow as tf

    try:
        import tf2onnx
    except ModuleNotFoundError as error:
        raise Refused('tf2onnx is not installed: pip install "tf2onnx>=1.17"') from error

    specs, call, shapes = _signature(model) if hasattr(model, "signatures") else _opened(model, fixed)
    names = list(specs)
    signature = [tf.TensorSpec(shape, specs[name][0], name=name) for name, shape in zip(names, shapes, strict=True)]
    function = tf.function(call, input_signature=signature)
    try:
        proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=opset)
    except Exception as error:
        told = [line.strip() for line in str(error).splitlines() if line.strip() and "File " not in line]
        told = next((line for line in told if "Error" in line or "annot" in line), told[0] if told else "")
        raise Refused(f"tf2onnx fails: {type(error).__name__}: {told[:300]}\nwhat helps: {HELPS}") from error
    unknown = {n.op_type for n in proto.graph.node if n.domain in ("", "ai.onnx") and not onnx.defs.has(n.op_type)}
    if unknown:
        raise Refused(
            f"tf2onnx knows no ONNX for {', '.join(sorted(unknown))}: end the model before the layer that makes them. "
            "keras.ops.argmax makes Bitcast and BitwiseAnd: let the model give its scores, or use tf.argmax"
        )
    freeze(proto, function.get_concrete_function(*signature))
    rename(proto, [name.split(":")[0] for name in names])
    letter(proto, specs)

    def run(inputs):
        return [a.numpy() for a in tf.nest.flatten(function(*(tf.constant(a) for a in inputs.values())))]

    return proto, [f"exported by tf2onnx {tf2onnx.__version__}", *check(proto, run, specs, sizes=sizes, helps=HELPS)], specs


def _letters(shape):
    """(None, None, 4) → ("B", "T", 4)."""
    return tuple(("B", "T", "S", "U", "V")[k] if d is None else int(d) for k, d in enumerate(shape))


def _opened(model, fixed):
    """(specs, function, shapes) of a Keras model, on an Input with an open batch and length."""
    clean = [t.name.split(":")[0].replace("/", "_") for t in model.inputs]
    stateful = [layer.name for layer in _layers(model) if getattr(layer, "stateful", False)]
    if stateful and any(hasattr(layer, "units") for layer in _layers(model) if layer.name in stateful):
        raise Refused(f"{', '.join(stateful)}: stateful=True keeps states from call to call, which a file can't; build it without")
    shapes = [tuple(t.shape) for t in model.inputs]
    high = min((layer.input_dim - 1 for layer in _layers(model) if hasattr(layer, "input_dim")), default=9)
    wanted = (
        shapes
        if fixed
        else [
            (None, None, *s[2:]) if len(s) == 3 or (len(s) == 2 and _ids(t)) else (None, *s[1:])
            for s, t in zip(shapes, model.inputs, strict=True)
        ]
    )

    def specs_of(sizes):
        return {n: (_dtype(t), _letters(s), (0, high)) for n, t, s in zip(clean, model.inputs, sizes, strict=True)}

    def caller(net):
        return lambda *xs: net(xs[0] if len(clean) == 1 else list(xs), training=False)

    if wanted == shapes:
        return specs_of(wanted), caller(model), wanted
    other = _rebuilt(model, wanted)
    _hold_equal(caller(model), caller(other), feed(specs_of(shapes)))
    return specs_of(wanted), caller(other), wanted


def _rebuilt(model, shapes):
    """The same layers and weights on Inputs of other shapes."""
    keras = sys.modules[type(model).__module__.split(".")[0]]
    try:
        inputs = [keras.Input(batch_shape=s, dtype=_dtype(t)) for s, t in zip(shapes, model.inputs, strict=True)]
        other = keras.models.clone_model(model, input_tensors=inputs if len(inputs) > 1 else inputs[0])
        other.set_weights(model.get_weights())
        for layer in _layers(other):
            if hasattr(layer, "finalize_state"):  # Normalization computes with copies of its weights
                layer.finalize_state()
    except Exception as error:
        old = ", ".join(str(tuple(t.shape)) for t in model.inputs)
        raise Refused(
            f"the model's Input is {old}, and the network can't be built on {', '.join(map(str, shapes))}: "
            f"{str(error).strip().splitlines()[0][:300]}\nwhat helps: {HELPS}"
        ) from error
    return other


def _hold_equal(one, other, inputs):
    """Refuse a model that was built again and is another function, at sizes that both take."""
    import numpy as np
    import tensorflow as tf

    given = [tf.constant(a) for a in inputs.values()]
    for a, b in zip(tf.nest.flatten(one(*given)), tf.nest.flatten(other(*given)), strict=True):
        want, got = np.asarray(a), np.asarray(b)
        off = np.abs(got - want).max(initial=0) / max(np.abs(want).max(initial=0), 1e-3)
        if not off <= 1e-4:
            raise Refused(
                f"built again on an open Input, the model is another one (off by {off:.1e} of the output): a layer holds something "
                f"besides its weights\nwhat helps: {HELPS}"
            )


def _signature(loaded):
    """(specs, function, shapes) of a SavedModel's serving signature."""
    if "serving_default" not in loaded.signatures:
        raise Refused(f"the SavedModel has no signature serving_default, only {', '.join(loaded.signatures) or 'none'}")
    serving = loaded.signatures["serving_default"]
    given = serving.structured_input_signature[1]
    fixed = {n: s.shape for n, s in given.items() if s.shape.rank is None or s.shape[0] is not None}
    if fixed:
        raise Refused(
            f"the SavedModel's signature fixes the batch: {fixed}\nwhat helps: model.export(path, input_signature=...) with None "
            "as batch and length when it is written, or the .keras file in its place"
        )
    specs = {n: (s.dtype.name, _letters(s.shape), (0, 9)) for n, s in given.items()}
    return specs, lambda *xs: list(serving(**dict(zip(given, xs, strict=True))).values()), [s.shape for s in given.values()]


def _layers(model):
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _layers(layer)
        for inner in ("layer", "forward_layer", "backward_layer"):
            if hasattr(layer, inner):
                yield getattr(layer, inner)


def _dtype(tensor):
    return getattr(tensor.dtype, "name", tensor.dtype)


def _ids(tensor):
    return "int" in _dtype(tensor)


def freeze(proto, function):
    """Initializers in place of the inputs that tf2onnx makes of tensors a layer holds, such as Normalization's mean."""
    from onnx import numpy_helper

    held = {inner.name: outer for outer, inner in function.graph.captures}
    for value in [v for v in proto.graph.input if v.name in held]:
        proto.graph.initializer.append(numpy_helper.from_array(held[value.name].numpy(), value.name))
        proto.graph.input.remove(value)


def rename(proto, inputs):
    """Plain names in place of tf2onnx's: inputs as given, outputs ``output`` or ``output_0``, …"""
    count = len(proto.graph.output)
    outputs = ["output"] if count == 1 else [f"output_{k}" for k in range(count)]
    new = dict(zip([o.name for o in proto.graph.output], outputs, strict=True))
    new |= dict(zip([i.name for i in proto.graph.input], inputs, strict=True))

    def walk(graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            value.name = new.get(value.name, value.name)
        for node in graph.node:
            node.input[:] = [new.get(n, n) for n in node.input]
            node.output[:] = [new.get(n, n) for n in node.output]
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    walk(attribute.g)

    walk(proto.graph)


def letter(proto, specs):
    """B and T in place of tf2onnx's unk__12, in inputs and wherever the same size stands; outputs begin with B."""
    letters = {}
    for value in proto.graph.input:
        for d, wanted in zip(value.type.tensor_type.shape.dim, specs[value.name][1], strict=True):
            letters |= {d.dim_param: str(wanted)} if d.dim_param else {}
    for value in proto.graph.output:
        first = value.type.tensor_type.shape.dim[:1]
        letters |= {d.dim_param: "B" for d in first if d.dim_param and d.dim_param not in letters}
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for d in value.type.tensor_type.shape.dim:
            if d.dim_param in letters:
                d.dim_param = letters[d.dim_param]


def load(text, weights=None):
    """A file, a SavedModel's folder, or ``package.module:factory`` with its weights.

    Raises:
        Refused: it can't be read, or the weights don't fit.
    """
    from pathlib import Path

    import keras
    import tensorflow as tf

    if Path(text).is_dir():
        return tf.saved_model.load(text)
    there(text if text.endswith((".keras", ".h5", ".hdf5")) else None, weights)
    if text.endswith((".keras", ".h5", ".hdf5")):
        if text.endswith(".weights.h5"):
            raise Refused(f"{text} holds weights alone: give the code as package.module:factory and the file as --weights {text}")
        try:
            return keras.models.load_model(text, compile=False)
        except Exception as error:  # of Keras 2, perhaps
            try:
                import tf_keras

                return tf_keras.models.load_model(text, compile=False)
            except Exception as other:
                why = [" ".join(str(e).split())[:200] for e in (error, other)]
                raise Refused(
                    f"{text} can't be read. Keras 3: {why[0]}; Keras 2 (tf-keras): {why[1]}\nwhat helps: for layers of your own, "
                    "package.module:factory, and --weights with what model.save_weights wrote"
                ) from other
    model = made(text, ".keras, .h5 or the folder of a SavedModel")
    if weights:
        try:
            model.load_weights(weights)
        except Exception as error:
            raise Refused(f"{weights} does not fit {text}: {' '.join(str(error).split())[:500]}") from error
    return model


def _quietly():
    """TensorFlow's start, without its notices where onnx-lrp is there to keep them back."""
    try:
        from onnx_lrp._lazy import start_quietly
    except ImportError:
        return
    start_quietly()


def main(arguments=None):
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help=".keras, .h5, the folder of a SavedModel, or package.module:factory")
    parser.add_argument("--weights", help=".weights.h5 for the factory's model")
    parser.add_argument("--fixed", action="store_true", help="keep the sizes that the model's Input fixes")
    parser.add_argument("--opset", type=int, default=17)
    parser.add_argument("--sizes", action="append", metavar="T=7,11", help="the two sizes of a letter to check with")
    parser.add_argument("--out", default="model.onnx")
    options = parser.parse_args(arguments)
    try:
        _quietly()
        model = load(options.model, options.weights)
        proto, lines, specs = to_onnx(model, fixed=options.fixed, sizes=parse_sizes(options.sizes), opset=options.opset)
    except (Refused, OSError, ValueError, ImportError) as error:
        print(f"{parser.prog}: {told(error)}", file=sys.stderr)
        return 1
    finish(proto, options.out, lines, specs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
