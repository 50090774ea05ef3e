"""Models that public packages ship, exported as a user would and explained: a speaker encoder and an intrusion detector.

``pip install --no-deps resemblyzer network-intrusion-detection``, and ``librosa webrtcvad setuptools`` for the former.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import onnx_lrp

pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages
RNG = np.random.default_rng(0)


def books_close(explanation):
    """The residual, as a share of the seed and of what moved."""
    moved = np.abs(explanation.seed) + sum(np.abs(r).reshape(len(r), -1).sum(1) for r in explanation.relevance.values())
    share = np.abs(explanation.residual) / moved
    assert share.max() < 1e-5, share
    return share.max()


@pytest.fixture(scope="module")
def voice(converter, tmp_path_factory):
    """Explainer of resemblyzer's encoder, three LSTMs: mels (B, T, 40) → embedding (B, 256), not negative and of length 1."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    pytest.importorskip("resemblyzer", exc_type=ImportError)
    out = tmp_path_factory.mktemp("voice") / "voice.onnx"
    given = ["resemblyzer:VoiceEncoder", "--input", "mels:float32:B,T,40", "--exporter", "trace", "--out", str(out)]
    assert converter("torch").main(given) == 0
    return onnx_lrp.load(out, verify="always")


def utterance(pitch):
    """(160, 40): 1.6 s of a vowel of that pitch in Hz, as the package itself hears it."""
    from resemblyzer import audio

    time = np.arange(25600) / 16000
    turns = pitch * (time + 0.004 * np.sin(10 * np.pi * time))
    wave = sum(np.sin(2 * np.pi * k * turns) / k * np.exp(-(((k * pitch - 700) / 600) ** 2)) for k in range(1, 30))
    return audio.wav_to_mel_spectrogram((0.1 * wave).astype(np.float32))[:160]


def test_why_two_voices_are_alike(voice):
    """The seed is each number's part in the cosine of two embeddings; with itself they add up to 1."""
    import torch
    from resemblyzer import VoiceEncoder

    mels = np.stack([utterance(110), utterance(220)])
    (name,) = voice.predict(mels)
    embedded = voice.predict(mels)[name]
    with torch.no_grad():
        np.testing.assert_allclose(embedded, VoiceEncoder("cpu", verbose=False)(torch.from_numpy(mels)), atol=1e-5)
    itself = voice.explain(mels, onnx_lrp.targets.seed(embedded**2))
    np.testing.assert_allclose(itself.seed, 1, rtol=1e-5)
    other = voice.explain(mels, onnx_lrp.targets.seed(embedded * embedded[::-1]))
    np.testing.assert_allclose(other.seed, (embedded[0] * embedded[1]).sum(), rtol=1e-4)
    books_close(itself)
    books_close(other)
    assert np.all(np.isfinite(itself.relevance["mels"]))
    assert np.abs(itself.relevance["mels"]).sum() > 0


def test_one_number_of_an_embedding(voice):
    explanation = voice.explain(np.stack([utterance(110), utterance(220), utterance(115)]))
    books_close(explanation)
    alone = voice.explain(utterance(220)[None], int(explanation.target[1]))
    np.testing.assert_allclose(alone.relevance["mels"][0], explanation.relevance["mels"][1], atol=1e-5)


@pytest.mark.parametrize("fixed", [False, True])
def test_intrusion_detector(converter, tmp_path, fixed):
    """A Keras .h5: Conv1D, max pooling, LSTM, dense, sigmoid over 76 numbers of a flow, (B, 76, 1); with 76 open and kept."""
    pytest.importorskip("tf2onnx")
    keras = pytest.importorskip("keras")
    found = importlib.util.find_spec("network_intrusion_detection")
    if found is None:
        pytest.skip("network-intrusion-detection is not installed")
    path = str(Path(found.origin).with_name("cnn_lstm_unsw_finetuned.h5"))
    out = tmp_path / "flows.onnx"
    assert converter("keras").main([path, "--out", str(out), *["--fixed"] * fixed]) == 0
    explainer = onnx_lrp.load(out, verify="always")
    flows = RNG.normal(size=(6, 76, 1)).astype(np.float32)
    expected = keras.models.load_model(path, compile=False)(flows).numpy()
    np.testing.assert_allclose(explainer.predict(flows)["output"], expected, atol=1e-5)
    explanation = explainer.explain(flows)
    books_close(explanation)
    assert "before output 'output'" in str(explainer.summary())
    np.testing.assert_allclose(1 / (1 + np.exp(-explanation.seed)), expected[:, 0], atol=1e-5)  # from the score, not from p
    (relevance,) = explanation.relevance.values()
    assert relevance.shape == flows.shape
