"""weights_to_onnx: a list of arrays in any spelling is the network that they came from."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest

import onnx_lrp

ORDERS = ["".join(p) for p in itertools.permutations("ifco")]
I, H, C = 3, 4, 2  # noqa: E741


@pytest.fixture(scope="module")
def weights(converter):
    return converter("weights")


def arrays(*, directions=2, biases=1, head_bias=True, seed=0):
    """W_x, W_h, b…, head, bias, with gates i, f, c, o."""
    rng = np.random.default_rng(seed)
    shapes = ([(I, 4 * H), (H, 4 * H)] + [(4 * H,)] * biases) * directions + [(directions * H, C)] + [(C,)] * head_bias
    return [rng.normal(size=s).astype(np.float32) for s in shapes]


def reordered(given, order):
    """The same network with its gates in another order."""

    def turn(a):
        parts = dict(zip("ifco", np.split(a, 4, axis=-1), strict=True))
        return np.concatenate([parts[gate] for gate in order], -1)

    return [turn(a) if a.shape[-1] == 4 * H else a for a in given]


def scores(given, x):
    """A twin of the scripts' forward pass, one sample, step and gate at a time, for one bias."""
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    directions, out = (len(given) - 1) // 3, []
    for sample in x.astype(np.float64):
        ends = []
        for d in range(directions):
            w, u, b = given[3 * d : 3 * d + 3]
            h, c = np.zeros(H), np.zeros(H)
            for step in sample if d == 0 else sample[::-1]:
                i, f, g, o = np.split(step @ w + h @ u + b, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            ends.append(h)
        out.append(np.concatenate(ends) @ given[3 * directions] + given[3 * directions + 1])
    return np.array(out)


def pair(given, seed=1):
    x = np.random.default_rng(seed).normal(size=(3, 5, I)).astype(np.float32)
    return x, scores(given, x)


@pytest.mark.parametrize("order", ORDERS)
def test_auto_finds_every_order(weights, order):
    given = arrays()
    assert weights.find_order(reordered(given, order), *pair(given)) == order


def test_auto_reads_probabilities(weights):
    given = arrays()
    x, z = pair(given)
    e = np.exp(z)
    assert weights.find_order(reordered(given, "ofic"), x, e / e.sum(1, keepdims=True)) == "ofic"


@pytest.mark.parametrize("directions", [1, 2])
def test_file_is_the_network(weights, directions):
    """Against the twin, and the canonical weights are the given ones."""
    given = arrays(directions=directions)
    model, lines = weights.to_onnx(reordered(given, "ocfi"), order="ocfi")
    x, y = pair(given)
    explainer = onnx_lrp.load(model, jit="eager")
    np.testing.assert_allclose(explainer.predict(x)["scores"], y, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(explainer.weights()["lstm"]["W_x"], np.stack(given[0 : 3 * directions : 3]))
    assert len(lines) == 2
    assert "(5, 11, 3)" in lines[1]
    assert all("onnx-lrp" in line for line in lines)


def test_spellings_are_one_network(weights):
    given = arrays(biases=2)
    plain = [*given[:2], given[2] + given[3], *given[4:6], given[6] + given[7], *given[8:]]
    stacked = [*given[:2], np.stack(given[2:4]), *given[4:6], np.stack(given[6:8]), *given[8:]]
    turned = [a.T for a in given]
    want = weights.to_onnx(plain)[0].SerializeToString()
    for spelled in (given, stacked, turned):
        assert weights.to_onnx(spelled)[0].SerializeToString() == want


@pytest.mark.parametrize(("biases", "head_bias"), [(0, True), (0, False), (1, False)])
def test_what_is_left_out_is_zero(weights, biases, head_bias):
    given = arrays(biases=biases, head_bias=head_bias)
    cells, _, bias = weights.split(given)
    assert len(cells) == 2
    assert not any(b.any() for _, _, b in cells) or biases
    assert bias.any() == head_bias
    weights.to_onnx(given)


def test_left_and_right_by_name(weights, tmp_path):
    given = arrays(biases=2, head_bias=False)
    named = {}
    for k, side in enumerate(("Left", "Right")):
        w, u, b, r = given[4 * k : 4 * k + 4]
        named |= {
            f"Wxh_{side}": w.T,
            f"bxh_{side}": b,
            f"Whh_{side}": u.T,
            f"bhh_{side}": r,
            f"Why_{side}": given[8][k * H :][:H].T,
        }
    np.savez(tmp_path / "named.npz", **named)
    found = weights.to_onnx(weights.load(tmp_path / "named.npz"), order="igfo")[0]
    assert found.SerializeToString() == weights.to_onnx(given, order="igfo")[0].SerializeToString()


def test_command(weights, tmp_path, capsys):
    given = arrays()
    np.savez(tmp_path / "w.npz", *reordered(given, "iofc"))
    np.savez(tmp_path / "pair.npz", *pair(given))
    out = tmp_path / "model.onnx"
    called = [str(tmp_path / "w.npz"), "--order", "auto", "--pair", str(tmp_path / "pair.npz"), "--out", str(out)]
    assert weights.main(called) == 0
    printed = capsys.readouterr().out
    assert "the order iofc fits" in printed
    assert f"next: onnx-lrp inspect {out}" in printed
    assert onnx_lrp.load(out).summary()


def test_a_pickle_is_asked_for(weights, tmp_path, capsys):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(arrays()))
    called = [str(tmp_path / "w.pkl"), "--out", str(tmp_path / "model.onnx")]
    assert weights.main(called) == 1
    assert "--allow-pickle" in capsys.readouterr().err
    assert weights.main([*called, "--allow-pickle"]) == 0


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        (arrays()[:5], {}, "expected W_x"),
        ([*arrays()[:-2], np.zeros((H, C))], {}, "D=2"),
        (arrays(), {"order": "ifca"}, "each once"),
        (arrays(), {"order": "auto"}, "--pair"),
        (arrays(), {"order": "auto", "pair": pair(arrays(seed=5))}, "none of the 24"),
        (arrays(), {"order": "auto", "pair": (np.zeros((1, 2, 9)), np.zeros((1, 2)))}, "expected x (B, T, 3)"),
        ([0 * a for a in arrays()], {"order": "auto", "pair": (np.zeros((1, 2, I)), np.zeros((1, C)))}, "24 orders fit"),
    ],
)
def test_refused_by_name(weights, given, options, said):
    with pytest.raises(weights.Refused) as caught:
        weights.to_onnx(given, **options)
    assert said in str(caught.value)
