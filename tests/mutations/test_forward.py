"""Wrong results can't pass: a mutant of the engine that changes the forward pass is a ParityError of ``explain``."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import test_mutations as mutations
import test_twin

import onnx_lrp
from onnx_lrp import ParityError

# told here, so that the measurement below can't silently find none
FORWARD = {
    mutations.swapped_gates,
    mutations.candidate_swapped_with_output_gate,
    mutations.lengths_ignored,
    mutations.reverse_direction_forgotten,
    mutations.rows_of_an_embedding_shifted,
}
SUBJECTS = ("network", "without lengths", *mutations.NAMES)


def subject(name):
    if name in mutations.NAMES:
        return mutations.case(name)
    return test_twin.network(5, **{**mutations.OPTIONS, "lens": name == "network"})[:2]


def forward(name):
    """The engine's own results, which nothing is held against."""
    model, feeds = subject(name)
    return onnx_lrp.load(model, jit="eager", verify="never").predict(feeds)


sound = functools.cache(forward)


@pytest.mark.parametrize("mutant", mutations.KILLED_BY, ids=lambda mutant: mutant.__name__)
def test_a_mutant_of_the_forward_pass_is_a_parity_error(mutant, monkeypatch):
    pytest.importorskip("onnxruntime")
    before = {name: sound(name) for name in SUBJECTS}
    mutant(monkeypatch)
    changed = []
    for name in SUBJECTS:
        after = forward(name)
        if any(not np.allclose(after[k], y, rtol=1e-3, atol=1e-4) for k, y in before[name].items()):
            changed.append(name)
    assert bool(changed) == (mutant in FORWARD)
    for name in changed:
        model, feeds = subject(name)
        for jit in ("eager", "graph"):
            with pytest.raises(ParityError, match="layer that differs"):
                onnx_lrp.load(model, jit=jit).explain(feeds)
