"""keras_to_onnx: recurrent Keras models of files and folders, and sizes that their Input fixes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tf2onnx")
keras = pytest.importorskip("keras")
pytestmark = pytest.mark.filterwarnings("ignore")  # TensorFlow's and tf2onnx's own

import onnx_lrp  # noqa: E402

L = keras.layers


def model(*layers, shape=(None, 4), batch=None, dtype="float32"):
    return keras.Sequential([keras.Input(batch_shape=(batch, *shape), dtype=dtype, name="x"), *layers])


def stacked():
    return model(L.Bidirectional(L.LSTM(6, return_sequences=True)), L.GRU(5), L.Dense(3, activation="softmax"))


@pytest.fixture(scope="module")
def script(converter):
    return converter("keras")


def checked(lines):
    assert "(5, 11" in lines[2]
    assert all("= onnx-lrp" in line for line in lines[1:])


def test_softmax_at_the_end(script):
    proto, lines, _ = script.to_onnx(stacked())
    checked(lines)
    assert "before output 'output'" in str(onnx_lrp.load(proto).summary())


def test_masked_ids(script):
    net = model(L.Embedding(20, 4, mask_zero=True), L.LSTM(6), L.Dense(3), shape=(None,), dtype="int32")
    _, lines, specs = script.to_onnx(net)
    checked(lines)
    assert specs["x"] == ("int32", ("B", "T"), (0, 19))


@pytest.mark.parametrize("length", [None, 30], ids=["open", "fixed"])
def test_what_a_layer_holds_besides_its_weights_is_kept(script, length):
    """Normalization computes with copies of its weights: no inputs, and not left behind where the model is built again."""
    data = np.random.default_rng(0).normal([10, 200, 3, 40], [1, 20, 3, 4], (64, 30, 4)).astype(np.float32)
    scale = L.Normalization()
    scale.adapt(data)
    net = model(scale, L.LSTM(6), L.Dense(2, activation="softmax"), shape=(length, 4))
    proto, lines, _ = script.to_onnx(net)
    checked(lines)
    assert [v.name for v in proto.graph.input] == ["x"]
    [found] = onnx_lrp.load(proto).predict(data[:3]).values()
    np.testing.assert_allclose(found, np.asarray(net(data[:3])), atol=1e-5)


def test_a_model_that_is_another_one_when_it_is_built_again_is_refused(script):
    class Held(L.Layer):
        """Adds what it holds besides its weights, and what its configuration says nothing of."""

        held = 0.0

        def call(self, x):
            return x + self.held

    layer = Held()
    layer.held = 5.0
    with pytest.raises(script.Refused, match="a layer holds something besides its weights"):
        script.to_onnx(model(layer, L.LSTM(6), L.Dense(2), shape=(9, 4)))


@pytest.mark.parametrize("batch", [None, 4])
def test_sizes_of_the_input_are_opened(script, batch):
    proto, lines, _ = script.to_onnx(model(L.LSTM(6), L.Dense(1, activation="sigmoid"), shape=(30, 4), batch=batch))
    checked(lines)
    assert [v.dims[2].size for v in [onnx_lrp.load(proto)._plan.vars["x"]]] == [4]


@pytest.mark.parametrize(
    "layers", [[L.LSTM(6, return_sequences=True), L.Flatten(), L.Dense(2)], [L.LSTM(6, unroll=True), L.Dense(2)]]
)
def test_a_length_that_the_network_needs(script, layers):
    net = model(*layers, shape=(9, 4))
    with pytest.raises(script.Refused, match="what helps: --fixed"):
        script.to_onnx(net)
    lines = script.to_onnx(net, fixed=True)[1]
    assert "(5, 9, 4)" in lines[2]


def test_what_has_no_onnx(script):
    with pytest.raises(script.Refused, match="stateful=True"):
        script.to_onnx(model(L.GRU(6, stateful=True), batch=4))
    x = keras.Input((None, 4))
    with pytest.raises(script.Refused, match="let the model give its scores"):
        script.to_onnx(keras.Model(x, keras.ops.argmax(L.Dense(3)(L.LSTM(6)(x)), -1)))


@pytest.mark.parametrize("name", ["net.keras", "net.h5", "saved"])
def test_files(script, tmp_path, capsys, name):
    net, path = stacked(), str(tmp_path / name)
    if name == "saved":
        net.export(path, verbose=False)
    else:
        net.save(path)
    assert script.main([path, "--out", str(tmp_path / "net.onnx")]) == 0
    assert "next: onnx-lrp inspect" in capsys.readouterr().out
    x = keras.random.normal((3, 6, 4)).numpy()
    got = onnx_lrp.load(tmp_path / "net.onnx", jit="eager").predict(x)["output"]
    assert abs(got - net(x).numpy()).max() < 1e-5


def test_keras_2(script, tmp_path):
    old = pytest.importorskip("tf_keras")
    net = old.Sequential([old.Input((9, 4)), old.layers.Bidirectional(old.layers.LSTM(6)), old.layers.Dense(2)])
    net.save(tmp_path / "old.h5")
    checked(script.to_onnx(script.load(str(tmp_path / "old.h5")))[1])


def test_weights_alone(script, tmp_path, capsys, monkeypatch):
    net, path = stacked(), str(tmp_path / "net.weights.h5")
    net.save_weights(path)
    assert script.main([path]) == 1
    assert f"--weights {path}" in capsys.readouterr().err
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "made_here.py").write_text(
        "import keras\nL = keras.layers\ndef make():\n    return keras.Sequential([keras.Input((None, 4)), L.Bidirectional("
        "L.LSTM(6, return_sequences=True)), L.GRU(5), L.Dense(3, activation='softmax')])\n"
    )
    assert script.main(["made_here:make", "--weights", path, "--out", str(tmp_path / "net.onnx")]) == 0
    x = keras.random.normal((3, 6, 4)).numpy()
    assert abs(onnx_lrp.load(tmp_path / "net.onnx", jit="eager").predict(x)["output"] - net(x).numpy()).max() < 1e-5
