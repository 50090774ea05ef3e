"""paddle_to_onnx: recurrent Paddle models, and what Paddle2ONNX leaves out of them without a word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")  # Paddle's own
paddle = pytest.importorskip("paddle")
pytest.importorskip("paddle2onnx")

from paddle_nets import Bidirectional, Cells, Flat, Last, Lengths, around_a_cell  # noqa: E402

import onnx_lrp  # noqa: E402

X = {"x": ("float32", ("B", "T", 4), (0, 9))}
IDS = {"ids": ("int64", ("B", "T"), (0, 19))}
LENGTHS = X | {"lengths": ("int64", ("B",), (1, 7))}


@pytest.fixture(scope="module")
def script(converter):
    return converter("paddle")


def checked(lines):
    assert "(5, 11" in lines[2]
    assert all("= onnx-lrp" in line for line in lines[1:])


def test_softmax_at_the_end(script):
    model, lines = script.to_onnx(Bidirectional(), IDS)
    checked(lines)
    said = str(onnx_lrp.load(model).summary())
    assert "ids int64 (B, T)" in said
    assert "before output 'output'" in said


def test_argmax_in_the_model(script):
    model, lines = script.to_onnx(Last(label=True), X, outputs=["label"])
    checked(lines)
    assert "before output 'label'" in str(onnx_lrp.load(model).summary())


def test_lengths(script):
    with pytest.raises(script.Refused, match=r"nothing in the file reads lengths(.|\n)*what helps: (.|\n)*a mask of the steps"):
        script.to_onnx(Lengths(), LENGTHS)
    checked(script.to_onnx(Lengths(mask=True), LENGTHS)[1])


def test_a_loop_over_a_cell(script):
    checked(script.to_onnx(Cells(), X)[1])
    with pytest.raises(script.Refused, match=r"what helps: the cell's first state"):
        script.to_onnx(Cells(state=False), X)


def test_a_head_for_one_length(script):
    seven = {"x": ("float32", ("B", 7, 4), (0, 9))}
    with pytest.raises(script.Refused, match=r"the length \(T=7\) is baked(.|\n)*its number in place of the letter"):
        script.to_onnx(Flat(), X)
    assert "(5, 7, 4)" in script.to_onnx(Flat(), seven)[1][2]


def test_layers_that_the_exporter_does_not_know(script):
    with pytest.raises(script.Refused, match=r"left out the layer(.|\n)*in place of nn\.SimpleRNN"):
        script.to_onnx(Last(paddle.nn.SimpleRNN), X)
    with pytest.raises(script.Refused, match=r"Paddle2ONNX fails: (.|\n)*in place of nn\.RNN around a cell"):
        script.to_onnx(around_a_cell(), X)


def test_files(script, tmp_path, capsys, monkeypatch):
    """Of paddle.jit.save, with open and with fixed sizes, and weights beside the code."""
    paddle.seed(0)
    net, x = Last(), paddle.randn([3, 7, 4])
    for name, length in (("open", None), ("fixed", 7)):
        paddle.jit.save(net, str(tmp_path / name), [paddle.static.InputSpec([None, length, 4], "float32", "x")])
    checked(script.to_onnx(script.load(str(tmp_path / "open.json")), X)[1])
    with pytest.raises(script.Refused, match=r"the length \(T=7\) is baked(.|\n)*in the InputSpec of paddle\.jit\.save"):
        script.to_onnx(script.load(str(tmp_path / "fixed.json")), X)
    weights, out = str(tmp_path / "net.pdparams"), tmp_path / "net.onnx"
    paddle.save(net.state_dict(), weights)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    given = ["paddle_nets:Last", "--input", "x:float32:B,T,4", "--weights", weights, "--out", str(out)]
    assert script.main(given) == 1
    assert "--allow-pickle" in capsys.readouterr().err
    assert script.main([*given, "--allow-pickle"]) == 0
    assert "next: onnx-lrp inspect" in capsys.readouterr().out
    assert abs(onnx_lrp.load(out, jit="eager").predict(x.numpy())["output"] - net(x).numpy()).max() < 1e-5
    for wrong, said in (
        ([weights, *given[1:3]], f"--weights {weights}"),
        (["nothing.json", *given[1:3]], "nothing.json: no such file"),
        (["paddle_nets:Nothing", *given[1:3]], "has no attribute 'Nothing'"),
        ([*given[:3], "--weights", "nothing.pdparams"], "nothing.pdparams: no such file"),
        (["paddle_nets:Flat", *given[1:], "--allow-pickle"], "does not fit paddle_nets:Flat"),
    ):
        assert script.main(wrong) == 1
        assert said in capsys.readouterr().err


def test_nothing_else_is_printed(tmp_path):
    """A process of its own: what Paddle, Paddle2ONNX and TensorFlow say at their start stays off both streams."""
    path = Path(__file__).parents[2] / "converters" / "paddle_to_onnx.py"
    call = [sys.executable, str(path), "paddle_nets:Last", "--input", "x:float32:B,T,4", "--out", str(tmp_path / "net.onnx")]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 6
