"""One bit of a weight flipped: explained as onnxruntime runs it, or refused."""

from __future__ import annotations

import os
import random

import numpy as np
import onnx
import pytest
from bases import ZOO
from mutator import tensors
from onnx import TensorProto, numpy_helper

import onnx_lrp
from onnx_lrp import ModelError


def flipped(model, rng):
    """The model with one bit of one weight flipped: of a float one, or of a quantized one where all are; None without any."""
    found = [t for t in tensors(model) if t.data_type in FLOATS] or [t for t in tensors(model) if t.data_type in WHOLE]
    found = [t for t in found if numpy_helper.to_array(t).size > 1] or found
    if not found:
        return None
    tensor = rng.choice(found)
    array = numpy_helper.to_array(tensor)
    data = bytearray(array.tobytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    changed = np.frombuffer(bytes(data), array.dtype).reshape(array.shape)
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    return model


FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16}
WHOLE = {TensorProto.INT8, TensorProto.UINT8}
BITS = sorted(ZOO.glob("*.onnx")) if ZOO.is_dir() else []
SOME = [p for k, p in enumerate(BITS) if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" or k % 25 == 3]


@pytest.mark.skipif(not SOME, reason="no zoo beside this checkout")
@pytest.mark.parametrize("path", SOME, ids=lambda p: p.stem)
def test_a_flipped_bit_is_explained_or_refused(path, tmp_path, record_property):
    model = flipped(onnx.load(path), random.Random(path.stem))
    if model is None or not path.with_suffix(".npz").is_file():
        pytest.skip("no weights in the file")
    with np.load(path.with_suffix(".npz")) as archive:
        feeds = {k: archive[k] for k in archive.files if not k.startswith("out__")}
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    try:
        explainer = onnx_lrp.load(tmp_path / "model.onnx", jit="eager", verify="always")
        explanation = explainer.explain(feeds)  # its forward pass is held against onnxruntime's of the same file
    except ModelError as error:
        record_property("verdict", f"refused: {type(error).__name__}: {str(error)[:150]}")
        return
    unable = explainer._runtime.unable()
    record_property(
        "verdict", f"explained, {'onnxruntime can not load it: ' + unable[:80] if unable else 'held against onnxruntime'}"
    )
    assert np.all(np.isfinite(explanation.seed))
