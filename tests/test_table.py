"""Explanations as DataFrames and in .parquet: every entry once, at its place, and the sums those of the explanation."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import test_inputs
import test_targets
import test_twin
from onnx import TensorProto, helper

import onnx_lrp
from onnx_lrp import targets
from onnx_lrp.testing.build import Builder

LIKE = {"jit": "eager", "verify": "never"}


def explained(which, target=None, **options):
    if which == "words":
        return onnx_lrp.load(test_inputs.tokens(), **LIKE, **options).explain([[0, 1, 4], [2, 2, 3]], target)
    if which == "series":
        model, feeds, _ = test_twin.network(5, direction="bidirectional", lens=True, states=("h0",), mean=True)
    elif which == "tagger":
        model, feeds = test_targets.tagger()
    else:
        model, feeds = test_targets.dense()
    return onnx_lrp.load(model, **LIKE, **options).explain(feeds, target)


WAYS = {
    "words": ("words", None, ("point", "sample", "step", "feature", "relevance", "value")),
    "series": ("series", None, ("point", "sample", "step", "feature", "relevance", "value")),
    "rows": ("dense", None, ("point", "sample", "feature", "relevance", "value")),
    "all": ("dense", targets.all_classes(), ("point", "class", "sample", "feature", "relevance", "value")),
    "top": ("dense", targets.top_k(2), ("point", "rank", "class", "sample", "feature", "relevance", "value")),
    "all positions": ("tagger", targets.all_classes(), ("point", "class", "sample", "step", "feature", "relevance", "value")),
    "top positions": ("tagger", targets.top_k(2), ("point", "rank", "sample", "step", "feature", "relevance", "value")),
    "contrast": ("dense", targets.contrast(0, 1), ("point", "sample", "feature", "relevance", "value")),
}


@pytest.fixture(params=WAYS)
def way(request):
    which, target, names = WAYS[request.param]
    return explained(which, target), names


def test_columns_and_sums(way):
    """Grouped by point and sample (and class) the rows sum up to what arrived."""
    pandas = pytest.importorskip("pandas")
    explanation, names = way
    frame = explanation.to_pandas()
    assert tuple(frame.columns) == names
    assert len(frame) == sum(a.size for a in explanation.relevance.values())
    lead = next((n for n in ("rank", "class") if n in frame), None)
    sums = frame.astype({"relevance": "float64"}).groupby(["point", *([lead] if lead else []), "sample"]).relevance.sum()
    for point, want in explanation.arrived.items():
        np.testing.assert_allclose(sums.loc[point].to_numpy().reshape(want.shape), want, rtol=1e-9, atol=1e-12)
    assert isinstance(frame.index, pandas.RangeIndex)
    assert frame.relevance.dtype == np.float32
    assert not frame.relevance.isna().any()
    if "class" in frame and "rank" in frame:
        for rank, row in enumerate(explanation.target):
            for sample, want in enumerate(row):
                assert set(frame[(frame["rank"] == rank) & (frame["sample"] == sample)]["class"]) == {want}


def test_every_entry_is_at_its_place():
    pytest.importorskip("pandas")
    explanation = explained("series")
    frame = explanation.to_pandas("x")
    assert set(frame.point) == {"x"}
    for row in frame.sample(20, random_state=0).itertuples():
        assert row.relevance == explanation.relevance["x"][row.step, row.sample, row.feature]  # the model is time-major
        assert row.value == explanation.inputs["x"][row.step, row.sample, row.feature]
    both = explanation.to_pandas()
    state = both[both.point == "h0"]
    assert state.step.isna().all()  # a state has no time
    assert both.step.dtype == "Int64"
    batch, _ = explanation.axes["h0"]
    for row in state.itertuples():
        assert row.relevance == np.take(explanation.relevance["h0"], row.sample, batch).reshape(-1)[row.feature]
    classes = explained("dense", targets.all_classes())
    for row in classes.to_pandas().sample(20, random_state=0).itertuples(index=False):
        assert row.relevance == classes.relevance["x"][row[1], row.sample, row.feature]


def test_steps_sum_over_features():
    pytest.importorskip("pandas")
    words = explained("words")
    frame = words.to_pandas(per_step=True)
    assert list(frame.columns) == ["point", "sample", "step", "relevance", "value"]
    np.testing.assert_array_equal(frame.relevance.to_numpy().reshape(2, 3), words.per_step())
    assert frame.value.tolist() == [0, 1, 4, 2, 2, 3]  # the ids
    assert set(words.to_pandas("ids").groupby(["sample", "step"]).value.nunique()) == {1}
    series = explained("series")
    frame = series.to_pandas("x", per_step=True)
    assert list(frame.columns) == ["point", "sample", "step", "relevance"]  # a step has several values
    np.testing.assert_array_equal(frame.pivot(index="sample", columns="step", values="relevance"), series.per_step("x"))
    tagger = explained("tagger", targets.all_classes())
    frame = tagger.to_pandas(per_step=True)
    np.testing.assert_array_equal(frame.relevance.to_numpy().reshape(tagger.per_step().shape), tagger.per_step())
    assert list(frame["class"].unique()) == [0, 1, 2, 3]


def test_an_internal_tensor_has_no_values():
    pytest.importorskip("pandas")
    model, feeds = test_targets.dense()
    hidden = next(n.output[0] for n in model.graph.node if n.op_type == "Tanh")
    frame = onnx_lrp.load(model, at=hidden, **LIKE).explain(feeds).to_pandas()
    assert list(frame.columns) == ["point", "sample", "feature", "relevance"]


def test_words_and_numbers_share_a_column():
    """Numbers are read as their own type where they stand alone; a picture's axes are one index."""
    pandas = pytest.importorskip("pandas")
    b = Builder(np.random.default_rng(0), 17)
    picture = b.input("picture", b.numbers(2, 3, 4, 5), ["batch", 3, 4, 5])
    flat = b.op("Flatten", b.op("Relu", b.op("Conv", picture, b.weight(2, 3, 2, 2))))
    model, feeds = b.case(b.gemm(flat, 24, 2))
    explanation = onnx_lrp.load(model, **LIKE).explain(feeds)
    frame = explanation.to_pandas()
    back = frame.sort_values(["sample", "feature"]).value.to_numpy().reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(back, feeds["picture"])
    assert "step" not in frame
    assert isinstance(frame, pandas.DataFrame)


def test_attrs_survive_what_pandas_does(way, tmp_path):
    """Arrays in them would break concat; what is no JSON would break to_parquet."""
    pandas = pytest.importorskip("pandas")
    explanation, _ = way
    frame = explanation.to_pandas()
    assert set(frame.attrs) == {"explained", "target", "seed", "residual", "settings"}
    json.dumps(frame.attrs, allow_nan=False)
    np.testing.assert_allclose(frame.attrs["seed"], explanation.seed)
    np.testing.assert_allclose(frame.attrs["residual"], explanation.residual)
    if isinstance(explanation.target, np.ndarray):
        np.testing.assert_array_equal(frame.attrs["target"], explanation.target)
    assert pandas.concat([frame, frame]).attrs == frame.attrs
    model, feeds = test_targets.dense()
    gradient = onnx_lrp.load(model, **LIKE).explain(feeds, method="gradient").to_pandas()
    assert gradient.attrs["residual"] == [None] * 3


def test_no_such_point():
    pytest.importorskip("pandas")
    with pytest.raises(onnx_lrp.InputError, match="nowhere"):
        explained("series").to_pandas("nowhere")


@pytest.mark.parametrize(("package", "use"), [("pandas", "to_pandas"), ("pyarrow", "save"), ("pyarrow", "load")])
def test_missing_extras(package, use, monkeypatch, tmp_path):
    explanation = explained("words")
    monkeypatch.setitem(sys.modules, package, None)
    file = tmp_path / "saved.parquet"
    with pytest.raises(onnx_lrp.MissingExtra, match=r'pip install "onnx-lrp\[data\]"'):
        {"to_pandas": lambda: explanation.to_pandas(), "save": lambda: explanation.save(file)}.get(
            use, lambda: onnx_lrp.Explanation.load(file)
        )()
    assert not file.exists()


def test_parquet_is_the_table(way, tmp_path):
    """pandas reads back what to_pandas gives, and load the explanation itself."""
    pytest.importorskip("pyarrow")
    before, _ = way
    before.save(tmp_path / "saved.parquet")
    after = onnx_lrp.Explanation.load(tmp_path / "saved.parquet")
    for part in ("relevance", "inputs", "outputs", "absorbed", "arrived"):
        one, two = getattr(before, part), getattr(after, part)
        assert list(one) == list(two)
        for name in one:
            assert (one[name].dtype, one[name].shape) == (two[name].dtype, two[name].shape)
            np.testing.assert_array_equal(one[name], two[name])
    np.testing.assert_array_equal(before.residual, after.residual)
    assert before.to_dict() == after.to_dict()
    pandas = pytest.importorskip("pandas")
    pandas.testing.assert_frame_equal(
        pandas.read_parquet(tmp_path / "saved.parquet"), before.to_pandas(), check_dtype=False, check_column_type=False
    )


def test_parquet_of_words(tmp_path):
    """Text as input: a column of words beside numbers is words."""
    pytest.importorskip("pyarrow")
    nodes = [
        helper.make_node(
            "LabelEncoder", ["word"], ["v"], domain="ai.onnx.ml", keys_strings=["red", "blue"], values_floats=[1.0, 2.0]
        ),
        helper.make_node("Add", ["v", "x"], ["z"]),
        helper.make_node("Tanh", ["z"], ["y"]),
    ]
    infos = [
        helper.make_tensor_value_info("word", TensorProto.STRING, ["B", 1]),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 1]),
    ]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 1])])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    before = onnx_lrp.load(model, **LIKE).explain({"word": np.asarray([["red"], ["blue"]], object), "x": np.ones((2, 1))})
    before.save(tmp_path / "saved.parquet")
    after = onnx_lrp.Explanation.load(tmp_path / "saved.parquet")
    for name, array in before.relevance.items():
        np.testing.assert_array_equal(after.relevance[name], array)


def test_no_explanation_in_parquet(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"relevance": [1.0]}), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    explained("words").save(tmp_path / "whole.parquet")
    whole = parquet.read_table(tmp_path / "whole.parquet")
    parquet.write_table(whole.slice(0, 3), tmp_path / "cut.parquet")
    for name in ("other", "text", "cut", "none"):
        with pytest.raises(onnx_lrp.InputError, match=name):
            onnx_lrp.Explanation.load(tmp_path / f"{name}.parquet")
