"""One bit of a weight flipped: explained as onnxruntime runs it, or refused."""

from __future__ import annotations

import os
import random

import numpy as np
import onnx
import pytest
from bases import ZOO
from onnx import TensorProto

import onnx_lrp
from onnx_lrp import ModelError


def flipped(model, rng):
    """The model with one bit of one float weight flipped."""
    tensors = [t for t in model.graph.initializer if t.raw_data and t.data_type == TensorProto.FLOAT]
    if not tensors:
        return None
    tensor = rng.choice(tensors)
    data = bytearray(tensor.raw_data)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    tensor.raw_data = bytes(data)
    return model


BITS = sorted(ZOO.glob("*.onnx")) if ZOO.is_dir() else []
SOME = [p for k, p in enumerate(BITS) if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" or k % 25 == 3]


@pytest.mark.skipif(not SOME, reason="no zoo beside this checkout")
@pytest.mark.parametrize("path", SOME, ids=lambda p: p.stem)
def test_a_flipped_bit_is_explained_or_refused(path, tmp_path):
    model = flipped(onnx.load(path), random.Random(path.stem))
    if model is None or not path.with_suffix(".npz").is_file():
        pytest.skip("no float weights inside the file")
    with np.load(path.with_suffix(".npz")) as archive:
        feeds = {k: archive[k] for k in archive.files if not k.startswith("out__")}
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    try:
        explanation = onnx_lrp.load(tmp_path / "model.onnx", jit="eager").explain(feeds)  # held against onnxruntime's
    except ModelError:
        return
    assert np.all(np.isfinite(explanation.seed))
