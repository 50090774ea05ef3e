"""Explanations as values: saved and read back, summed per step, answering to the graph's input."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import onnx
import pytest
import test_inputs
import test_twin

import onnx_lrp
from onnx_lrp.testing.build import Builder


@pytest.fixture(scope="module")
def series():
    model, feeds, _ = test_twin.network(5, direction="bidirectional", lens=True, states=("h0",), mean=True)
    return onnx_lrp.load(model, jit="eager").explain(feeds)


@pytest.fixture(scope="module")
def words():
    return onnx_lrp.load(test_inputs.tokens(), jit="eager").explain([[0, 1, 4], [2, 2, 3]])


@pytest.mark.parametrize("suffix", [".npz", ".json"])
@pytest.mark.parametrize("which", ["series", "words"])
def test_round_trip(which, suffix, tmp_path, request):
    before = request.getfixturevalue(which)
    before.save(tmp_path / f"saved{suffix}")
    after = onnx_lrp.Explanation.load(tmp_path / f"saved{suffix}")
    for part in ("relevance", "inputs", "outputs", "absorbed"):
        a, b = getattr(before, part), getattr(after, part)
        assert list(a) == list(b)
        for name in a:
            assert a[name].shape == b[name].shape
            if part != "absorbed":
                assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name])
    for part in ("target", "seed", "residual"):
        np.testing.assert_array_equal(getattr(before, part), getattr(after, part))
    assert {k: set(v) for k, v in before.ledger.items()} == {k: set(v) for k, v in after.ledger.items()}
    for layer, kinds in before.ledger.items():
        for kind, amount in kinds.items():
            np.testing.assert_array_equal(amount, after.ledger[layer][kind])
    assert (before.axes, before.origins, before.explained) == (after.axes, after.origins, after.explained)
    assert before.settings == after.settings
    for point in before.relevance:
        np.testing.assert_array_equal(before.per_step(point), after.per_step(point))


def of_labels() -> onnx_lrp.Explanation:
    """A classifier whose first output are words."""
    b = Builder(np.random.default_rng(0), 17)
    x = b.rows(2, 3)
    numbers = {"coefficients": [1.0, -2.0, 0.5, 0.0, 1.0, 1.0], "intercepts": [0.0, 0.1]}
    label, scores = b.ops(
        "LinearClassifier", x, outputs=2, domain="ai.onnx.ml", classlabels_strings=["ä\0", "b"], post_transform="SOFTMAX", **numbers
    )
    model = b.case(scores)[0]
    model.graph.output.insert(0, onnx.helper.make_tensor_value_info(label, onnx.TensorProto.STRING, ["batch"]))
    return onnx_lrp.load(model, jit="eager").explain(np.ones((2, 3)))


def of_bfloat16() -> onnx_lrp.Explanation:
    b = Builder(np.random.default_rng(0), 17)
    x = b.rows(2, 3)
    y = b.op("Cast", b.gemm(b.op("Cast", x, to=onnx.TensorProto.FLOAT), 3, 2), to=onnx.TensorProto.BFLOAT16)
    model = b.case(y)[0]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16
    return onnx_lrp.load(model, jit="eager", verify="never").explain(np.ones((2, 3)))


def of_missing() -> onnx_lrp.Explanation:
    b = Builder(np.random.default_rng(0), 17)
    filled = b.op("Imputer", b.rows(2, 3), domain="ai.onnx.ml", imputed_value_floats=[0.5], replaced_value_float=float("nan"))
    model = b.case(b.gemm(filled, 3, 2))[0]
    return onnx_lrp.load(model, jit="eager").explain(np.asarray([[1, np.nan, 2], [0, 1, 2]], np.float32))


@pytest.mark.parametrize("suffix", [".npz", ".json", ".parquet"])
@pytest.mark.parametrize("made", [of_labels, of_bfloat16, of_missing])
def test_round_trip_of_what_is_no_common_number(made, suffix, tmp_path):
    before, file = made(), tmp_path / f"saved{suffix}"
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    before.save(file)
    after = onnx_lrp.Explanation.load(file)
    for part in ("relevance", "inputs", "outputs"):
        a, b = getattr(before, part), getattr(after, part)
        assert list(a) == list(b)
        for name in a:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name])
    if suffix == ".json":
        json.loads(file.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_saved_without_pickle(series, tmp_path):
    series.save(tmp_path / "saved.npz")
    with np.load(tmp_path / "saved.npz", allow_pickle=False) as archive:
        assert {"meta", "seed", "residual", "target"} <= set(archive.files)
        assert all(archive[name].dtype != object for name in archive.files)


def test_other_suffix(series, tmp_path):
    with pytest.raises(onnx_lrp.InputError, match=r"\.npz"):
        series.save(tmp_path / "saved.pickle")


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_file_that_contradicts_itself_is_no_explanation(suffix, series, tmp_path):
    """Whatever stands where something else belongs, one error class tells."""
    series.save(tmp_path / f"good{suffix}")
    if suffix == ".npz":
        with np.load(tmp_path / "good.npz") as archive:
            arrays = dict(archive)
        whole = json.loads(str(arrays["meta"]))
    else:
        whole = json.loads((tmp_path / "good.json").read_text())
    for name in whole:
        for wrong in (None, 5, "x", [[1]], {"a": None}):
            document, file = {**whole, name: wrong}, tmp_path / f"wrong{suffix}"
            if suffix == ".npz":
                np.savez(file, **{**arrays, "meta": np.asarray(json.dumps(document))})
            else:
                file.write_text(json.dumps(document))
            with contextlib.suppress(onnx_lrp.InputError):
                onnx_lrp.Explanation.load(file)


def test_flipped_bits_are_no_explanation(series, tmp_path):
    series.save(tmp_path / "good.npz")
    data, rng = (tmp_path / "good.npz").read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        other = bytearray(data)
        for place in rng.integers(len(data), size=3):
            other[place] = rng.integers(256)
        (tmp_path / "wrong.npz").write_bytes(other)
        with contextlib.suppress(onnx_lrp.InputError):
            onnx_lrp.Explanation.load(tmp_path / "wrong.npz")


DAMAGED = ["none.npz", "none.json", "text.npz", "text.json", "list.json", "other.json", "newer.json", "short.npz"]


@pytest.mark.parametrize("name", DAMAGED)
def test_not_an_explanation(name, series, tmp_path):
    series.save(tmp_path / "good.npz")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "text.json").write_text("hello")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "newer.json").write_text(json.dumps({**series.to_dict(), "schema": 99, "dtypes": {}}))
    (tmp_path / "short.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:300])
    with pytest.raises(onnx_lrp.InputError):
        onnx_lrp.Explanation.load(tmp_path / name)


def test_per_step_sums_features(series, words):
    np.testing.assert_array_equal(series.per_step("x"), series.relevance["x"].sum(2).T)
    assert words.per_step().shape == (2, 3)
    np.testing.assert_allclose(words.per_step(), words.relevance["ids"].sum(2))


def test_relevance_answers_to_the_graph_input(words):
    (point,) = words.relevance
    assert point != "ids"
    assert words.relevance["ids"] is words.relevance[point]
    np.testing.assert_array_equal(words.per_step("ids"), words.per_step(point))
    with pytest.raises(KeyError, match="nowhere"):
        words.relevance["nowhere"]
    with pytest.raises(onnx_lrp.InputError, match="nowhere"):
        words.per_step("nowhere")


def test_several_points_must_be_named(series):
    with pytest.raises(onnx_lrp.InputError, match="h0"):
        series.per_step()


def test_shapes_and_dtypes(series):
    assert series.relevance["x"].shape == series.inputs["x"].shape
    assert series.relevance["h0"].shape == series.inputs["h0"].shape
    assert series.relevance["x"].dtype == np.float32
    assert series.seed.shape == series.residual.shape == series.target.shape == (3,)
    assert series.inputs["lens"].dtype == np.int32
    assert "Explanation" in repr(series)


def test_nothing_of_the_engine_leaves(series):
    for part in ("relevance", "inputs", "outputs", "absorbed"):
        assert all(type(v) is np.ndarray for v in getattr(series, part).values())


def test_it_keeps_what_was_given_whatever_becomes_of_that():
    """Whoever reads batches into one buffer changes no explanation he has."""
    explainer = onnx_lrp.load(test_inputs.tokens(), jit="eager")
    array, rows = np.asarray([[0, 1, 4], [2, 2, 3]], np.int32), [np.asarray([0, 1, 4], np.int32), np.asarray([2, 3], np.int32)]
    chosen, start = np.asarray([0, 1]), np.ones((2, 2))
    found = [explainer.explain(array), explainer.explain({"ids": array}), explainer.explain(rows)]
    aims = [explainer.explain(array, aim) for aim in (onnx_lrp.targets.contrast(chosen, 0), onnx_lrp.targets.seed(start))]
    aims.append(explainer.explain(rows, onnx_lrp.targets.contrast(chosen, 0)))
    for given in (array, *rows, chosen, start):
        given[...] = 0
    for explanation in found[:2]:
        np.testing.assert_array_equal(explanation.inputs["ids"], [[0, 1, 4], [2, 2, 3]])
    np.testing.assert_array_equal(found[2].inputs["ids"], [[0, 1, 4], [2, 3, 0]])
    assert [aim.target.a.tolist() for aim in (aims[0], aims[2])] == [[0, 1]] * 2
    assert aims[1].target.value.all()


def test_targets():
    model, x = test_inputs.dense(), np.asarray([[1, 2, 3], [3, 1, -2]], np.float32)
    explainer = onnx_lrp.load(model, jit="eager")
    both = [explainer.explain(x, k) for k in (0, 1)]
    mixed = explainer.explain(x, [0, 1])
    for k in (0, 1):
        np.testing.assert_allclose(mixed.relevance["x"][k], both[k].relevance["x"][k])
        np.testing.assert_allclose(both[k].seed, next(iter(both[k].outputs.values()))[:, k], rtol=1e-6)
    predicted = explainer.explain(x)
    np.testing.assert_array_equal(predicted.target, next(iter(predicted.outputs.values())).argmax(1))
