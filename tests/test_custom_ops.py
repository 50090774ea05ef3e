"""The user's own custom ops: computed by onnxruntime where relevance does not pass, and never loaded at a model's word."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnx_lrp
from onnx_lrp import InputError, UnsupportedModel, cli
from onnx_lrp.testing.build import Builder


def library():
    return pytest.importorskip("onnxruntime_extensions").get_library_path()


def gated():
    """x·W + b where a row has a number above 0.3, which a custom op finds; and inputs."""
    b = Builder(np.random.default_rng(5), 17)
    x = b.rows(4, 3)
    _, positive = b.ops("NegPos", x, outputs=2, domain="ai.onnx.contrib")
    some = b.op("Greater", b.op("ReduceMax", positive, axes=[1]), b.const(0.3, np.float32))
    model, _ = b.case(b.op("Mul", b.gemm(x, 3, 2), b.op("Cast", some, to=TensorProto.FLOAT)))
    model.opset_import.add(domain="ai.onnx.contrib", version=1)
    model.graph.value_info.append(helper.make_tensor_value_info(positive, TensorProto.FLOAT, ["batch", 3]))
    return model, {"x": np.asarray([[1, 2, 3], [-1, -2, 0.2], [0.1, 0.2, 0.1], [-3, 4, 5]], np.float32)}


def test_a_custom_op_off_the_path_of_relevance():
    pytest.importorskip("onnxruntime")
    model, feeds = gated()
    plain = onnx_lrp.load(model, jit="eager", verify="always")
    assert "nothing is held against it" in str(plain.summary())
    with pytest.raises(UnsupportedModel, match=r"NegPos|contrib"):
        plain.explain(feeds)
    explainer = onnx_lrp.load(model, jit="eager", verify="always", custom_ops=library())
    assert "nothing is held" not in str(explainer.summary())
    explanation = explainer.explain(feeds, target=0)
    np.testing.assert_allclose(explanation.residual, 0, atol=1e-5)
    closed = np.asarray([False, True, True, False])
    assert np.all((explanation.relevance["x"] == 0).all(axis=1) == closed)
    assert np.all(explanation.outputs[model.graph.output[0].name][closed] == 0)


def test_a_forward_pass_is_held_against_a_model_of_custom_ops(monkeypatch):
    """Without the library nothing could be; with it a wrong bias is found."""
    from onnx_lrp.ops import gemm

    path = library()
    model, feeds = gated()
    monkeypatch.setattr(gemm.Linear, "bias", lambda self, trace: None)  # relevance alone: no matter to parity
    onnx_lrp.load(model, jit="eager", custom_ops=[path]).explain(feeds, target=0)
    run = gemm.Linear.run
    monkeypatch.setattr(gemm.Linear, "run", lambda self, xs, p: run(self, [2 * x for x in xs], p))
    with pytest.raises(onnx_lrp.ParityError):
        onnx_lrp.load(model, jit="eager", custom_ops=[path]).explain(feeds, target=0)


def test_a_library_that_is_none(tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match=r"custom_ops: .*nowhere\.so: no such file"):
        onnx_lrp.load(gated()[0], custom_ops=tmp_path / "nowhere.so")
    (tmp_path / "text.so").write_text("no library")
    explainer = onnx_lrp.load(gated()[0], custom_ops=[tmp_path / "text.so"])
    for use in (explainer.summary, lambda: explainer.explain(gated()[1])):
        with pytest.raises(InputError, match=r"can't load '.*text\.so'; expected a library that exports") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_a_model_cannot_name_a_library(tmp_path):
    """Neither its metadata nor the name of a domain is ever taken for a path."""
    pytest.importorskip("onnxruntime")
    model, _ = gated()
    (tmp_path / "evil.so").write_text("no library")
    path = str(tmp_path / "evil.so")
    for key in ("custom_ops", "ort.custom_ops_library", "session.custom_ops"):
        model.metadata_props.add(key=key, value=path)
    model.graph.node[0].domain = path
    model.opset_import.add(domain=path, version=1)
    explainer = onnx_lrp.load(model)
    assert explainer._runtime.graph.custom_ops == ()
    assert "nothing is held against it" in str(explainer.summary())


def test_custom_ops_of_the_command_line(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    model, feeds = gated()
    path = str(tmp_path / "model.onnx")
    onnx.save(model, path)
    np.savez(tmp_path / "x.npz", **feeds)
    (tmp_path / "text.so").write_text("no library")
    explain = ["explain", path, str(tmp_path / "x.npz"), "--jit", "eager", "--json"]
    for command in (["inspect", path], explain, ["check", path, "--max-examples", "1"]):
        code = cli.run([*command, "--custom-ops", str(tmp_path / "text.so")])
        out, err = capsys.readouterr()
        assert (code, out, err.count("\n")) == (4, "", 1)
        assert "text.so" in err
    with_library = ["--custom-ops", shutil.copy(library(), tmp_path / "own.so")]
    assert cli.run([*explain, *with_library]) == 0
    assert "relevance" in json.loads(capsys.readouterr().out)
    assert cli.run(["inspect", path, *with_library]) == 0
    assert "nothing is held" not in capsys.readouterr().out
    assert cli.run(["check", path, "--max-examples", "2", *with_library]) == 0
