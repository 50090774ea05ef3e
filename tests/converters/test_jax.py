"""jax_to_onnx: recurrent flax nnx modules, and loops in Python, which jax2onnx writes for one length."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
pytest.importorskip("jax2onnx")
jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")
pytestmark = pytest.mark.filterwarnings("ignore")  # JAX's and jax2onnx's own

import onnx_lrp  # noqa: E402

X = {"x": ("float32", ("B", "T", 4), (0, 9))}


class Series(nnx.Module):
    def __init__(self, cell, end=lambda z: z):
        rngs = nnx.Rngs(0)
        self.rnn, self.head, self.end = nnx.RNN(cell(4, 6, rngs=rngs)), nnx.Linear(6, 3, rngs=rngs), end

    def __call__(self, x):
        return self.end(self.head(self.rnn(x)[:, -1]))


class Words(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        one, other = (nnx.RNN(nnx.LSTMCell(4, 6, rngs=rngs)) for _ in range(2))
        self.embed, self.rnn = nnx.Embed(20, 4, rngs=rngs), nnx.Bidirectional(one, other)
        self.head = nnx.Linear(12, 3, rngs=rngs)

    def __call__(self, ids):
        return self.head(self.rnn(self.embed(ids)).mean(1))


class Loop(Series):
    def __call__(self, x):
        h = jax.numpy.zeros((x.shape[0], 6))
        for t in range(x.shape[1]):
            h, _ = self.rnn.cell(h, x[:, t])
        return self.head(h)


@pytest.fixture(scope="module")
def script(converter):
    return converter("jax")


def checked(lines):
    assert "(5, 11" in lines[2]
    assert all("= onnx-lrp" in line for line in lines[1:])


@pytest.mark.parametrize("cell", [nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell])
def test_cells(script, cell):
    own = nnx.RNN.__call__
    checked(script.to_onnx(Series(cell), X)[1])
    assert nnx.RNN.__call__ is own


def test_bidirectional_over_ids(script):
    checked(script.to_onnx(Words(), {"ids": ("int32", ("B", "T"), (0, 19))})[1])


def test_argmax_in_the_model(script):
    proto, lines = script.to_onnx(Series(nnx.GRUCell, lambda z: z.argmax(-1)), X, outputs=["label"])
    checked(lines)
    assert "before output 'label'" in str(onnx_lrp.load(proto).summary())


def test_softmax_at_the_end(script):
    checked(script.to_onnx(Series(nnx.LSTMCell, jax.nn.softmax), X)[1])


def test_a_loop_in_python(script):
    with pytest.raises(script.Refused, match=r"what helps: nnx\.RNN or jax\.lax\.scan"):
        script.to_onnx(Loop(nnx.GRUCell), X)
    assert "(5, 7, 4)" in script.to_onnx(Loop(nnx.GRUCell), {"x": ("float32", ("B", 7, 4), (0, 9))})[1][2]
