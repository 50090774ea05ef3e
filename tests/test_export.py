"""Exported explanations run in a process that can't import onnx_lrp, and say what the explainer says."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnx_lrp
from onnx_lrp import demo, targets
from onnx_lrp.errors import InputError, UnsupportedModel
from onnx_lrp.testing.build import Builder

B, T, F, H = 3, 5, 4, 6
QUIET = {"verify": "never"}

# what a stranger writes to run an artifact; each takes a folder of artifacts with inputs, and leaves the results beside them
SAVED_MODEL = """
import json, pathlib, sys
sys.modules["onnx_lrp"] = sys.modules["onnx"] = sys.modules["onnxruntime"] = None
import numpy as np, tensorflow as tf
for inputs in pathlib.Path(sys.argv[1]).glob("*.inputs.npz"):
    folder = inputs.with_name(inputs.name.removesuffix(".inputs.npz"))
    explain = tf.saved_model.load(str(folder)).signatures["serving_default"]
    manifest = json.loads((folder / "assets.extra" / "manifest.json").read_text())
    given = np.load(inputs)
    results = explain(**{a["key"]: tf.constant(given[a["name"]]) for a in manifest["arguments"]})
    assert sorted(results) == [r["key"] for r in manifest["results"]]
    np.savez(folder.with_name(folder.name + ".results.npz"), *[results[r["key"]].numpy() for r in manifest["results"]])
"""
STABLEHLO = """
import json, pathlib, sys
sys.modules["onnx_lrp"] = sys.modules["onnx"] = sys.modules["onnxruntime"] = None
import ml_dtypes, numpy as np
RUNTIME
for inputs in pathlib.Path(sys.argv[1]).glob("*.inputs.npz"):
    path = inputs.with_name(inputs.name.removesuffix(".inputs.npz"))
    artifact, given = np.load(path), np.load(inputs)
    manifest = json.loads(artifact["manifest.json"])
    arguments = [artifact[a["name"]] if a["kind"] == "weight" else given[a["name"]] for a in manifest["arguments"]]
    arguments = [x.view(ml_dtypes.bfloat16) if a["dtype"] == "bfloat16" else x for a, x in zip(manifest["arguments"], arguments)]
    np.savez(path.with_name(path.name + ".results.npz"), *run(artifact["program.mlirbc"], arguments, manifest["results"]))
"""
# TensorFlow's op for programs that other frameworks made: it reads the bytecode as any StableHLO runtime does
TENSORFLOW = """
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla
def run(program, arguments, results):
    call = lambda *xs: xla.call_module(xs, version=9, module=program, platforms=["CPU"],
        Tout=[r["dtype"] for r in results], Sout=[r["shape"] for r in results])
    return [t.numpy() for t in tf.function(call, jit_compile=True, autograph=False)(*arguments)]
"""
JAX = """
sys.modules["tensorflow"] = None
import jax
from jaxlib import xla_client
jax.config.update("jax_enable_x64", True)
def run(program, arguments, results):
    device = jax.devices("cpu")[0]
    compiled = device.client.compile_and_load(program, xla_client.DeviceList((device,)), xla_client.CompileOptions())
    outputs = compiled.execute_sharded([jax.device_put(a, device) for a in arguments]).disassemble_into_single_device_arrays()
    return [np.asarray(o[0]) for o in outputs]
"""
HAS_JAX = importlib.util.find_spec("jax") is not None


def lstm(b, x, width, hidden=H, **slots):
    """Y of an LSTM over (T, B, width)."""
    weights = [b.weight(1, 4 * hidden, width), b.weight(1, 4 * hidden, hidden), b.weight(1, 8 * hidden)]
    return b.ops("LSTM", x, *weights, outputs=3, hidden_size=hidden, **slots)


def classifier():
    b = Builder(np.random.default_rng(0), 17)
    x = b.op("Transpose", b.input("x", b.numbers(B, T, F), ["batch", "time", F]), perm=[1, 0, 2])
    return b.case(b.op("Softmax", b.gemm(b.op("Squeeze", lstm(b, x, F)[1], b.ints(0)), H, 3)))


def tagger():
    """Every step has a class of its own, (B, T, C)."""
    b = Builder(np.random.default_rng(1), 17)
    y = lstm(b, b.op("Transpose", b.series(T, B, F), perm=[1, 0, 2]), F)[0]
    rows = b.op("Transpose", b.op("Squeeze", y, b.ints(1)), perm=[1, 0, 2])
    return b.case(b.op("Add", b.op("MatMul", rows, b.weight(H, 3)), b.weight(3)))


def odd_names():
    """Graph names that no Python argument may have, two that differ in case alone, and one that the artifact's own has."""
    b = Builder(np.random.default_rng(2), 17)
    names = ["class", "x:0", "X:0", "0", "target"]
    total = b.op("Sum", *(b.gemm(b.rows(B, F, name), F, H) for name in names))
    return b.case(b.gemm(b.op("Tanh", total), H, 3))


def looped():
    """A cell written out in a Scan."""
    b = Builder(np.random.default_rng(3), 17)
    x, u, w = b.op("Transpose", b.series(T, B, F), perm=[1, 0, 2]), b.weight(H, H), b.weight(F, H)
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["x_t", w], ["a"]),
            helper.make_node("MatMul", ["h", u], ["c"]),
            helper.make_node("Add", ["a", "c"], ["z"]),
            helper.make_node("Tanh", ["z"], ["h_next"]),
        ],
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("h", "x_t")],
        [helper.make_tensor_value_info("h_next", TensorProto.FLOAT, None)],
    )
    batch = b.op("Shape", x, start=1, end=2)
    first = b.op("Expand", b.const(np.float32(0)), b.op("Concat", batch, b.ints(H), axis=0))
    return b.case(b.gemm(b.op("Scan", first, x, body=body, num_scan_inputs=1), H, 2))


def sentiment():
    model = onnx.load_model_from_string(demo.model())
    return model, {"token_ids": np.random.default_rng(4).integers(2, 50, (B, T))}


def halves():
    """A model in float16, whose answer is quantized."""
    b = Builder(np.random.default_rng(5), 17)
    x = b.input("x", b.numbers(B, F).astype(np.float16), ["batch", F])
    dense = b.op(
        "MatMul", b.op("Tanh", b.op("MatMul", x, b.const(b.numbers(F, H), np.float16))), b.const(b.numbers(H, 3), np.float16)
    )
    model, feeds = b.case(dense)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    return model, feeds


def gelu():
    """An error function, which StableHLO has not."""
    b = Builder(np.random.default_rng(6), 17)
    x = b.gemm(b.rows(B, F), F, H)
    return b.case(b.gemm(b.op("Mul", x, b.op("Add", b.op("Erf", x), b.const(np.float32(1)))), H, 3))


GIVEN = np.array([2, 0, 1])
# name: (model, target of the explainer, options of load, options of export)
CASES = {
    "classifier": (classifier, None, {}, {}),
    "index": (classifier, 1, {}, {"target": 1, "ledger": True}),
    "given": (classifier, GIVEN, {}, {"target": "input"}),
    "all": (classifier, targets.all_classes(), {}, {"target": targets.all_classes()}),
    "rules": (classifier, None, {"composite": "epsilon-plus"}, {}),
    "shared": (classifier, None, {"bias_factor": 1.0, "gates": "all"}, {}),
    "precise": (classifier, None, {"precision": "float64"}, {}),
    "coarse": (classifier, None, {"precision": "bfloat16", "jit": "xla"}, {}),
    "inside": (classifier, None, {"at": "transpose0_0"}, {}),
    "segments": (classifier, None, {"checkpoint": 2}, {}),
    "tagger": (tagger, targets.step(-1), {}, {"target": targets.step(-1)}),
    "positions": (tagger, np.arange(B * T).reshape(B, T) % 3, {}, {"target": "input"}),
    "names": (odd_names, GIVEN, {}, {"target": "input"}),
    "looped": (looped, None, {}, {}),
    "sentiment": (sentiment, None, {}, {}),
    "halves": (halves, None, {}, {}),
    "gelu": (gelu, None, {}, {}),
    "precise gelu": (gelu, None, {"precision": "float64"}, {}),
}
COARSE = {"coarse": 1e-2}  # compilers round to bfloat16 in other places


def expected(explanation):
    """{key of the manifest: array}."""
    found = {f"outputs/{n}": a for n, a in explanation.outputs.items()}
    found |= {f"relevance/{n}": a for n, a in explanation.relevance.items()}
    found |= {f"absorbed/{kind}": a for kind, a in explanation.absorbed.items()}
    found |= {f"absorbed/{layer}|{kind}": a for layer, part in explanation.ledger.items() for kind, a in part.items()}
    found["seed"] = explanation.seed
    if (
        isinstance(explanation.target, np.ndarray) and explanation.seed.ndim == 1
    ):  # of several classes the artifact says all positions
        found["index"] = explanation.target
    return found


def written(folder, name, path):
    """Export a case and lay its inputs beside; returns what the explainer says."""
    make, target, load, options = CASES[name]
    model, feeds = make()
    explainer = onnx_lrp.load(model, **QUIET, **load)
    explanation = explainer.explain(feeds, target)
    if name == "inside":
        feeds = {"transpose0_0": np.transpose(feeds["x"], [1, 0, 2])}
    explainer.export(folder / path, **options, **({"inputs": feeds} if path.endswith(".stablehlo") else {}))
    if isinstance(options.get("target"), str):
        feeds = {**feeds, "target_" if "target" in feeds else "target": target}
    np.savez(folder / f"{path}.inputs.npz", **feeds)
    return expected(explanation)


def stranger(script, folder):
    run = subprocess.run([sys.executable, "-I", "-c", script, str(folder)], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]


def compare(path, manifest, want, tolerance):
    with np.load(path) as archive:
        results = {r["key"]: archive[n] for r, n in zip(manifest["results"], archive.files, strict=True)}
    for entry in manifest["results"]:
        got = results[entry["key"]]
        assert entry["dtype"] == str(got.dtype)
        assert all(size in (None, n) for size, n in zip(entry["shape"], got.shape, strict=True))
        if entry["key"] in want:
            scale = max(1.0, np.abs(want[entry["key"]]).max())
            np.testing.assert_allclose(got, want[entry["key"]], rtol=0, atol=tolerance * scale, err_msg=entry["key"])
    assert {"seed", "index"} < set(results)
    assert {k for k in want if not k.startswith("absorbed")} <= set(results)
    by_layer = any("|" in k for k in results)
    assert {k for k in want if k.startswith("absorbed") and ("|" in k) == by_layer} <= set(results)


@pytest.fixture(scope="module")
def saved_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    want = {name: written(folder, name, name) for name in CASES}
    stranger(SAVED_MODEL, folder)
    return folder, want


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    return folder, {name: written(folder, name, f"{name}.stablehlo") for name in CASES}


@pytest.fixture(scope="module")
def ran(programs):
    stranger(STABLEHLO.replace("RUNTIME", TENSORFLOW), programs[0])
    return programs


@pytest.mark.parametrize("name", CASES)
def test_a_saved_model_says_what_the_explainer_says(saved_models, name):
    folder, want = saved_models
    manifest = json.loads((folder / name / "assets.extra" / "manifest.json").read_text())
    compare(folder / f"{name}.results.npz", manifest, want[name], COARSE.get(name, 1e-6))


@pytest.mark.parametrize("name", CASES)
def test_a_compiled_program_says_what_the_explainer_says(ran, name):
    folder, want = ran
    with np.load(folder / f"{name}.stablehlo") as archive:
        manifest = json.loads(archive["manifest.json"])
        assert archive["program.mlirbc"].startswith(b"ML\xefR")
        assert b"site-packages" not in archive["program.mlirbc"]  # nor any other place on the machine that made it
    compare(folder / f"{name}.stablehlo.results.npz", manifest, want[name], COARSE.get(name, 1e-5))


@pytest.mark.skipif(not HAS_JAX, reason="JAX is not installed")
def test_jax_runs_the_compiled_programs(programs, tmp_path):
    folder, want = programs
    for path in (*folder.glob("*.stablehlo"), *folder.glob("*.inputs.npz")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    stranger(STABLEHLO.replace("RUNTIME", JAX), tmp_path)
    for name in CASES:
        with np.load(folder / f"{name}.stablehlo") as archive:
            manifest = json.loads(archive["manifest.json"])
        compare(tmp_path / f"{name}.stablehlo.results.npz", manifest, want[name], COARSE.get(name, 1e-5))


def test_other_sizes_than_those_it_was_made_with_run(tmp_path):
    import tensorflow as tf

    model, _ = classifier()
    explainer = onnx_lrp.load(model, **QUIET)
    explainer.export(tmp_path / "model")
    explain = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    for batch, time in ((1, 1), (7, 11)):
        x = np.random.default_rng(batch).normal(size=(batch, time, F)).astype(np.float32)
        np.testing.assert_allclose(explain(x=tf.constant(x))["relevance/x"], explainer.explain(x).relevance["x"], atol=1e-6)


def test_a_class_that_does_not_exist_is_refused_by_the_saved_model(tmp_path):
    import tensorflow as tf

    model, feeds = classifier()
    onnx_lrp.load(model, **QUIET).export(tmp_path / "model", target="input")
    explain = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="out of range"):
        explain(x=tf.constant(feeds["x"]), target=tf.constant([0, 1, 3], tf.int64))


def test_shapes_may_be_given_and_are_kept(tmp_path):
    model, _ = classifier()
    explainer = onnx_lrp.load(model, **QUIET)
    explainer.export(tmp_path / "model", shapes=(2, 7, F))
    explainer.export(tmp_path / "model.stablehlo", shapes={"x": (2, 7, F)})
    saved = json.loads((tmp_path / "model" / "assets.extra" / "manifest.json").read_text())
    with np.load(tmp_path / "model.stablehlo") as archive:
        compiled = json.loads(archive["manifest.json"])
    for manifest in (saved, compiled):
        first = manifest["arguments"][0]
        assert (first["name"], first["shape"], first["batch_axis"], first["time_axis"]) == ("x", [2, 7, F], 0, 1)
        shapes = {r["key"]: r["shape"] for r in manifest["results"]}
        assert (shapes["relevance/x"], shapes["seed"]) == ([2, 7, F], [2])


def test_what_is_fixed_in_the_file_is_fixed_in_the_artifact(tmp_path):
    b = Builder(np.random.default_rng(0), 17)
    x = b.op("Transpose", b.input("x", b.numbers(1, T, F), [1, T, F]), perm=[1, 0, 2])
    model, feeds = b.case(b.gemm(b.op("Squeeze", lstm(b, x, F)[1], b.ints(0)), H, 3))
    explainer = onnx_lrp.load(model, **QUIET)
    explainer.export(tmp_path / "one.stablehlo")
    with np.load(tmp_path / "one.stablehlo") as archive:
        assert json.loads(archive["manifest.json"])["arguments"][0]["shape"] == [1, T, F]
    with pytest.raises(InputError, match="exported for batches of 1"):
        explainer.export(tmp_path / "many", inputs=np.repeat(feeds["x"], 3, 0))


def refused(tmp_path, model, match, *, load=None, path="model", error=UnsupportedModel, **options):
    with pytest.raises(error, match=match):
        onnx_lrp.load(model, **QUIET, **(load or {})).export(tmp_path / path, **options)
    assert not (tmp_path / path).exists()


def test_what_onnxruntime_computes_is_named(tmp_path):
    b = Builder(np.random.default_rng(0), 17)
    x = b.rows(B, F)
    noise = b.op("Sum", x, b.op("RandomNormalLike", x))
    model, _ = b.case(b.gemm(b.op("Mul", b.op("Tanh", b.gemm(x, F, H)), b.op("Sigmoid", b.gemm(noise, F, H))), H, 3))
    refused(tmp_path, model, "onnxruntime computes .*RandomNormalLike")


def test_outputs_that_only_onnxruntime_computes_can_be_left_out(tmp_path):
    b = Builder(np.random.default_rng(0), 17)
    logits = b.gemm(b.rows(B, F), F, 3)
    model, _ = b.case(logits, b.op("RandomNormalLike", logits))
    refused(tmp_path, model, r"only onnxruntime computes the output\(s\) .*leave them out: outputs=\['gemm0_0'\]")
    onnx_lrp.load(model, **QUIET).export(tmp_path / "model", outputs="gemm0_0")
    refused(tmp_path, model, "output 'y' does not exist", path="other", error=InputError, outputs=["y"])


def test_a_branch_that_each_call_takes_is_no_artifact(tmp_path):
    b = Builder(np.random.default_rng(0), 17)
    x, flag = b.rows(B, F), b.input("flag", np.array(True), [])

    def branch(op):
        out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, [x], ["out"])], op, [], [out])

    chosen = b.op("If", flag, then_branch=branch("Tanh"), else_branch=branch("Relu"))
    refused(tmp_path, b.case(b.gemm(chosen, F, 3))[0], "which branch of an If")


def test_shapes_that_are_missing_or_wrong_are_refused(tmp_path):
    model, feeds = classifier()
    refused(tmp_path, model, r"leaves some open: x \(batch, time, 4\)", path="a.stablehlo", error=InputError)
    refused(tmp_path, model, "expected positive sizes", error=InputError, shapes=(2, 0, F))
    refused(tmp_path, model, "expected 4", error=InputError, shapes=(2, 3, F + 1))
    refused(tmp_path, model, "not both", error=InputError, shapes=(2, 3, F), inputs=feeds)


def test_targets_of_one_batch_are_refused(tmp_path):
    model, _ = classifier()
    refused(tmp_path, model, "target='input'", error=InputError, target=[0, 1, 2])
    refused(tmp_path, model, "a seed tensor belongs to one batch", error=InputError, target=targets.seed(np.ones((1, 3))))
    refused(tmp_path, model, "out of range", error=InputError, target=3)


def test_a_place_that_is_taken_is_left_alone(tmp_path):
    model, feeds = classifier()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.stablehlo").mkdir()
    explainer = onnx_lrp.load(model, **QUIET)
    for path in ("file", "folder.stablehlo"):
        with pytest.raises(InputError, match="nothing was written"):
            explainer.export(tmp_path / path, inputs=feeds)
    assert (tmp_path / "file").read_text() == "mine"
