"""What the tests of hostile files share: a name that means harm, and what a refusal must be."""

from __future__ import annotations

import numpy as np
import pytest
import worker

import onnx_lrp
from onnx_lrp import InvalidModel
from onnx_lrp.testing.build import Builder

NASTY = "\x1b[31mred\x1b]0;title\x07\u202e\u2028<script>alert(1)</script>&\"'\x00\x9b"


def builder():
    return Builder(np.random.default_rng(0), 17)


def refused(model, match, error=InvalidModel):
    with pytest.raises(error, match=match) as caught:
        onnx_lrp.load(model)
    assert "\n" not in str(caught.value)


def harmless(text, *, lines=True):
    assert worker.lies(text) == ""
    assert lines or "\n" not in text.rstrip("\n")
