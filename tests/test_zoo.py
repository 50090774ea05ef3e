"""The hand-written models of the zoo that lies beside a checkout; skipped where there is none."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import onnx_lrp

ZOO = Path(__file__).resolve().parents[2] / "shared" / "zoo"


def rows():
    if not (ZOO / "INDEX.tsv").is_file():
        return []
    with (ZOO / "INDEX.tsv").open() as stream:
        return [r for r in csv.DictReader(stream, delimiter="\t") if r["name"].startswith("handmade__") and r["stage"] == "1"]


ROWS = rows()


@pytest.mark.skipif(not ROWS, reason="no zoo beside this checkout")
@pytest.mark.parametrize("row", ROWS, ids=[r["name"] for r in ROWS])
def test_model_of_the_zoo(row):
    with np.load(ZOO / f"{row['name']}.npz") as archive:
        arrays = {k: archive[k] for k in archive.files}
    feeds = {k: v for k, v in arrays.items() if not k.startswith("out__")}
    explainer = onnx_lrp.load(ZOO / f"{row['name']}.onnx", precision="float64", jit="eager")
    explanation = explainer.explain(feeds)
    for name, want in arrays.items():
        if name.startswith("out__") and want.dtype.kind == "f":
            got = explanation.outputs[name[5:]]
            assert np.abs(got - want).max() <= float(row["tolerance"]) * np.abs(want).max()
    moved = np.abs(explanation.seed) + sum(np.abs(a) for a in explanation.absorbed.values())
    assert np.all(np.abs(explanation.residual) <= 1e-10 * moved)
    reference = ZOO / "relevance" / f"{row['name']}.npz"
    if reference.is_file():
        with np.load(reference) as archive:
            for point, relevance in explanation.relevance.items():
                if f"R__{point}" in archive.files:
                    want = archive[f"R__{point}"]
                    assert np.abs(relevance - want).max() <= 1e-5 * np.abs(want).max(), point
