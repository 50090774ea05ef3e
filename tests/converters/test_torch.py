"""torch_to_onnx: recurrent PyTorch models, their pitfalls, and what is said of those that no exporter brings over."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's own, of its exporters

from torch_nets import Bidirectional, Cells, Labels, Unscriptable  # noqa: E402

import onnx_lrp  # noqa: E402

X = {"x": ("float32", ("B", "T", 4), (0, 9))}
IDS = {"ids": ("int64", ("B", "T"), (0, 19))}


@pytest.fixture(scope="module")
def script(converter):
    return converter("torch")


def checked(lines, way):
    assert lines[0] == f"exported by {way}"
    assert "(5, 11" in lines[2]
    assert all("= onnx-lrp" in line for line in lines[1:])


@pytest.mark.parametrize("way", ["dynamo", "trace"])
def test_stacked_and_bidirectional(script, way):
    checked(script.to_onnx(Bidirectional(), IDS, exporter=way)[1], way)


def test_argmax_in_the_model(script):
    model, lines = script.to_onnx(Labels(), X, exporter="trace", outputs=["label"])
    checked(lines, "trace")
    assert "before output 'label'" in str(onnx_lrp.load(model).summary())


def test_loop_over_cells_is_kept_by_scripting(script):
    with pytest.raises(script.Refused, match=r"the length \(T=7\) is baked(.|\n)*what helps: --exporter script"):
        script.to_onnx(Cells(), X, exporter="trace")
    model, lines = script.to_onnx(Cells(), X)
    checked(lines, "script")
    assert "before output 'output'" in str(onnx_lrp.load(model).summary())


def test_a_baked_length_is_refused_with_what_helps(script):
    with pytest.raises(script.Refused) as caught:
        script.to_onnx(Unscriptable(), X)
    said = str(caught.value)
    for part in ("dynamo:", "trace: the length (T=7) is baked", "script:", "what helps:", "its number in place of the letter"):
        assert part in said
    checked_fixed = script.to_onnx(Unscriptable(), {"x": ("float32", ("B", 7, 4), (0, 9))}, exporter="trace")[1]
    assert "(5, 7, 4)" in checked_fixed[2]


def test_a_fixed_batch_is_named(script):
    with pytest.raises(script.Refused, match="the framework itself fails with x"):
        script.to_onnx(Labels(3), X, exporter="trace")


def test_files(script, tmp_path, capsys, monkeypatch):
    """TorchScript and torch.export files, and weights beside the code."""
    torch.manual_seed(0)
    net, x = Bidirectional().eval(), torch.zeros(3, 7, dtype=torch.int64)
    torch.jit.script(net).save(tmp_path / "net.pt")
    checked(script.to_onnx(script.load(str(tmp_path / "net.pt")), IDS)[1], "trace")
    torch.jit.trace(Cells().eval(), torch.zeros(3, 5, 4)).save(tmp_path / "cells.pt")
    with pytest.raises(script.Refused, match=r"nothing behind T=(.|\n)*torch\.jit\.script in place of"):
        script.to_onnx(script.load(str(tmp_path / "cells.pt")), X)
    torch.export.save(torch.export.export(net, (x,)), tmp_path / "net.pt2")
    with pytest.raises(script.Refused, match="dynamic_shapes"):
        script.to_onnx(script.load(str(tmp_path / "net.pt2")), IDS)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    monkeypatch.syspath_prepend(str(__file__).rsplit("/", 1)[0])
    given = [
        "torch_nets:Bidirectional",
        "--input",
        "ids:int64:B,T:0-19",
        "--exporter",
        "trace",
        "--out",
        str(tmp_path / "net.onnx"),
    ]
    assert script.main([*given, "--weights", str(tmp_path / "weights.pt")]) == 0
    assert "next: onnx-lrp inspect" in capsys.readouterr().out
    got = onnx_lrp.load(tmp_path / "net.onnx", jit="eager").predict(x.numpy())["output"]
    assert abs(got - net(x).detach().numpy()).max() < 1e-5
    assert script.main([str(tmp_path / "weights.pt"), "--input", "ids:int64:B,T"]) == 1
    assert "--weights" in capsys.readouterr().err


def test_other_files(script, tmp_path, capsys, monkeypatch):
    """A line or two about files that are missing, hold a pickled module, other weights, or something else."""
    monkeypatch.syspath_prepend(str(__file__).rsplit("/", 1)[0])
    torch.save(Bidirectional(), tmp_path / "whole.pt")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    (tmp_path / "junk.pt").write_text("hello")
    given = ["torch_nets:Bidirectional", "--input", "ids:int64:B,T", "--weights"]
    for name, said in {
        "whole.pt": "is no file of weights alone",
        "junk.pt": "is no file of weights alone",
        "other.pt": "does not fit torch_nets:Bidirectional",
        "missing.pt": "no such file",
    }.items():
        assert script.main([*given, str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    for name in ("missing.pt2", "whole.pt2"):
        (tmp_path / "whole.pt2").write_text("hello")
        assert script.main([str(tmp_path / name), *given[1:3]]) == 1
        assert name in capsys.readouterr().err
