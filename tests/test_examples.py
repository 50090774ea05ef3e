"""The examples run, in small, and show what their page says they show."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from onnx_lrp.registry import registered

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(path for path in EXAMPLES.rglob("*.py") if path.parent.name != "arithmetic" and path.name != "train.py")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of Keras and exporters


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Import an example as ``python examples/…`` would, from a folder that it may write to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.syspath_prepend(str(EXAMPLES / "sentiment"))
    return importlib.import_module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_an_example_is_short_and_on_the_page(path):
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text(encoding="utf-8")
    assert path.relative_to(EXAMPLES.parent).as_posix() in page
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("steps", [False, True])
def test_kerass_weights_are_the_same_network(example, kind, steps):
    """to_onnx.py against Keras, with distinct gates and biases, both directions."""
    import keras

    rng, net = np.random.default_rng(0), example("to_onnx").Net()
    layer = keras.layers.Bidirectional(getattr(keras.layers, kind)(3, return_sequences=steps))
    x = rng.normal(size=(2, 5, 4)).astype(np.float32)
    layer(x)
    drawn = [rng.normal(size=w.shape).astype(np.float32) for w in layer.get_weights()]
    layer.set_weights(drawn)
    net.recurrent("x", kind, drawn[:3], drawn[3:], steps=steps)
    path = net.save("net.onnx", ("x", ["b", "t", 4]), ("y", ["b", "t", 6] if steps else ["b", 6]))
    [y] = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(y, layer(x).numpy(), atol=1e-5)


def closed(explanation):
    return np.abs(explanation.residual).max() < 1e-4 * max(1.0, np.abs(explanation.seed).max())


def test_series(example, capsys):
    """Two speakers that differ in one of three features."""
    rng = np.random.default_rng(0)

    def made(count):
        y = np.arange(count) % 2
        x = [rng.normal(size=(rng.integers(3, 9), 3)).astype(np.float32) * (0.3, 0.3, 1) + (0, 0, 2 * k - 1) for k in y]
        return [one.astype(np.float32) for one in x], y

    explanation, right = example("series").main(["--html", "p.html"], (made(120), made(40)), units=6, epochs=10)
    assert closed(explanation)
    assert right.mean() > 0.9
    assert (explanation.relevance["x"][0, explanation.lengths[0] :] == 0).all()
    assert np.abs(explanation.relevance["x"]).sum((0, 1)).argmax() == 2
    assert Path("p.html").stat().st_size > 10_000
    assert "40 sequences of" in capsys.readouterr().out


def test_series_of_aeon(example):
    pytest.importorskip("aeon")
    (x, y), (test, truth) = example("series").japanese_vowels()
    assert (len(x), len(test), x[0].shape[1], len(set(y))) == (270, 370, 12, 9)
    assert len({len(one) for one in x}) > 5
    assert set(truth) == set(y)


def test_events(example, capsys):
    explanation, hits, chance = example("events").main(count=1600, epochs=10)
    assert closed(explanation)
    assert hits > chance + 0.2
    assert "fail" in capsys.readouterr().out


def test_tagger(example):
    explanation, beside = example("tagger").main(count=800, epochs=8)
    assert closed(explanation)
    assert beside > 0.8
    assert np.shape(explanation.target) == (200,)


def test_forecast(example):
    explanation, share = example("forecast").main(count=2500, epochs=12)
    assert closed(explanation)
    assert share[5, 0] + share[7, 1] > 0.6
    assert (explanation.seed < 0).any()


def test_own_op(example, capsys):
    from onnx_lrp import registry

    explanation = example("own_op").main()
    try:
        assert closed(explanation)
        out = capsys.readouterr().out
        assert "com.example:Snake" in out.split("after:")[0]
        assert ("com.example", "Snake") in registered()
    finally:
        registry._IMPORTERS.pop(("com.example", "Snake"), None)


BLOCKED = """
import runpy, sys
for name in ("onnx_lrp", "onnx", "onnxruntime"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_an_explainer_without_onnx_lrp(example, tmp_path):
    ids, explanation = example("export").main(["explainer"])
    command = [sys.executable, "-c", BLOCKED, str(EXAMPLES / "tensorflow_only.py"), "explainer", *map(str, ids[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    [line] = [line for line in done.stdout.splitlines() if line.startswith("relevance there")]
    np.testing.assert_allclose([float(r) for r in line.split()[2:]], explanation.per_step()[0], atol=1e-3)
    assert "import onnx_lrp" not in (EXAMPLES / "tensorflow_only.py").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore")  # exporters warn of their own code
def test_two_frameworks(example):
    for package in ("torch", "onnxscript", "tf2onnx"):
        pytest.importorskip(package)
    worst = example("frameworks").main()
    assert set(worst) == {"PyTorch", "Keras"}
    assert max(worst.values()) < 1e-4
