"""Lists of sequences of different lengths: each is explained as if it came alone, in the caller's order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import test_twin
from hypothesis import given
from hypothesis import strategies as st
from test_batches import bilstm, runs

import onnx_lrp
from onnx_lrp import Explanation, InputError, cli, targets
from onnx_lrp.report.view import samples
from onnx_lrp.testing.build import Builder


def sequences(lengths, width=3, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, width)).astype(np.float32) for n in lengths]


def words():
    """ids (B, T) → embedding → GRU → two classes at every step."""
    b = Builder(np.random.default_rng(2), 17)
    ids = b.input("ids", np.asarray([[1, 4, 2], [0, 3, 5]]), ["batch", "time"])
    x = b.op("Transpose", b.op("Gather", b.weight(7, 4), ids), perm=[1, 0, 2])
    y = b.op("GRU", x, b.weight(1, 9, 4), b.weight(1, 9, 3), b.weight(1, 18), hidden_size=3)
    return b.case(b.op("MatMul", b.op("Transpose", b.op("Squeeze", y, b.ints(1)), perm=[1, 0, 2]), b.weight(3, 2)))[0]


def four_classes():
    """x (T, B, 3) → GRU → four classes at every step, (T, B, 4)."""
    b = Builder(np.random.default_rng(4), 17)
    x = b.input("x", b.numbers(5, 2, 3), ["T", "B", 3])
    y = b.op("Squeeze", b.op("GRU", x, b.weight(1, 9, 3), b.weight(1, 9, 3), hidden_size=3), b.ints(1))
    return b.case(b.op("MatMul", y, b.weight(3, 4)))[0]


def with_lengths():
    """x (T, B, 3), lens (B,) → bidirectional LSTM → last states → two classes."""
    b = Builder(np.random.default_rng(3), 17)
    x = b.input("x", b.numbers(6, 2, 3), ["T", "B", 3])
    lens = b.input("lens", np.asarray([6, 4], np.int32), ["B"])
    weights = [b.weight(2, 16, 3), b.weight(2, 16, 4), b.weight(2, 32)]
    _, last = b.ops("LSTM", x, *weights, lens, outputs=2, hidden_size=4, direction="bidirectional")
    features = b.op("Reshape", b.op("Transpose", last, perm=[1, 0, 2]), b.ints(0, -1))
    return b.case(b.op("MatMul", features, b.weight(8, 2)))[0]


@given(lengths=st.lists(st.integers(1, 6), min_size=2, max_size=7).filter(lambda n: len(set(n)) > 1))
def test_each_is_explained_as_if_it_came_alone(lengths):
    model, _ = bilstm()
    given = sequences(lengths)
    explainer = onnx_lrp.load(model, jit="eager", precision="float64")
    together = explainer.explain(given)
    assert together.lengths.tolist() == lengths
    assert together.relevance["x"].shape == (max(lengths), len(lengths), 3)
    for k, sequence in enumerate(given):
        alone = explainer.explain(sequence[:, None])
        np.testing.assert_allclose(together.relevance["x"][: len(sequence), k], alone.relevance["x"][:, 0], rtol=1e-9, atol=1e-13)
        assert not together.relevance["x"][len(sequence) :, k].any()
        assert together.target[k] == alone.target[0]
        np.testing.assert_allclose(together.seed[k], alone.seed[0], rtol=1e-12)
        np.testing.assert_allclose(together.residual[k], alone.residual[0], atol=1e-12)
        np.testing.assert_array_equal(together.inputs["x"][: len(sequence), k], sequence)
        np.testing.assert_allclose(explainer.predict(given)[alone.explained][k], alone.outputs[alone.explained][0], rtol=1e-9)
        for kind, amount in alone.absorbed.items():
            np.testing.assert_allclose(together.absorbed[kind][k], amount[0], rtol=1e-9, atol=1e-13)


def test_arrays_in_a_list_are_samples_also_of_one_length():
    """Stacked as they come they would be taken for the steps of a model whose time axis stands in front."""
    model, _ = bilstm()
    explainer = onnx_lrp.load(model, jit="eager")
    given = sequences([4, 4])
    made = explainer.explain(given)
    assert_same(made, explainer.explain(np.stack(given, 1)))
    assert made.lengths.tolist() == [4, 4]
    np.testing.assert_allclose(explainer.predict(given[:1])[made.explained], made.outputs[made.explained][:1], rtol=1e-5)
    as_numbers = np.stack(given, 1).tolist()  # numbers alone are an array as ever
    assert explainer.explain(as_numbers).lengths is None


def test_one_run_a_length(monkeypatch):
    model, _ = bilstm()
    seen = runs(monkeypatch)
    onnx_lrp.load(model).explain(sequences([4, 2, 4, 4, 2]))
    assert sorted(shape[:2] for shape in seen) == [(2, 2), (4, 3)]


def test_padded_together_where_the_model_takes_lengths(monkeypatch):
    """A direction's last state does not see padding; a mean over time would."""
    model = with_lengths()
    explainer = onnx_lrp.load(model, precision="float64", jit="eager")
    given = sequences([10, 9, 4, 8, 10])
    seen = runs(monkeypatch)
    together = explainer.explain(given)
    assert sorted(shape[:2] for shape in seen) == [(4, 1), (10, 4)]
    for k, sequence in enumerate(given):
        alone = explainer.explain({"x": sequence[:, None], "lens": np.asarray([len(sequence)], np.int32)})
        np.testing.assert_allclose(together.relevance["x"][: len(sequence), k], alone.relevance["x"][:, 0], rtol=1e-9, atol=1e-13)
        assert not together.relevance["x"][len(sequence) :, k].any()
    assert_same(explainer.explain({"x": given, "lens": [10, 9, 4, 8, 10]}), together)
    with pytest.raises(InputError, match=r"'lens'.*leave it out"):
        explainer.explain({"x": given, "lens": [10, 9, 4, 8, 9]})


def test_not_padded_where_something_else_reads_along_time(monkeypatch):
    model, _, _ = test_twin.network(5, direction="bidirectional", lens=True, states=(), mean=True)
    seen = runs(monkeypatch)
    explainer = onnx_lrp.load(model, precision="float64", jit="eager")
    given = sequences([10, 9, 4, 9])
    together = explainer.explain(given)
    assert sorted(shape[:2] for shape in seen) == [(4, 1), (9, 2), (10, 1)]
    alone = explainer.explain({"x": given[1][:, None], "lens": np.asarray([9], np.int32)})
    np.testing.assert_allclose(together.relevance["x"][:9, 1], alone.relevance["x"][:, 0], rtol=1e-9, atol=1e-13)


def assert_same(a, b):
    for name, array in a.relevance.items():
        np.testing.assert_array_equal(array, b.relevance[name])


def test_words_and_a_class_at_every_position():
    explainer = onnx_lrp.load(words(), precision="float64", jit="eager")
    given = [[1, 4], [2, 0, 6, 3], [5], [3, 3]]
    together = explainer.explain(given, keep="gru2_0")
    point = next(iter(together.relevance))
    assert together.relevance[point].shape == (4, 4, 4)
    assert together.target.shape == (4, 4)
    for k, ids in enumerate(given):
        alone = explainer.explain([ids], keep="gru2_0")
        np.testing.assert_allclose(together.relevance[point][k, : len(ids)], alone.relevance[point][0], rtol=1e-9)
        assert together.target[k].tolist() == [*alone.target[0], *[-1] * (4 - len(ids))]
    assert together.inputs["ids"].tolist()[0] == [1, 4, 0, 0]
    # of K classes
    several = explainer.explain(given, targets.all_classes())
    assert several.relevance[point].shape == (2, 4, 4, 4)
    for k in range(2):
        assert_same(several.select(k), explainer.explain(given, k))
    assert explainer.explain(given, targets.top_k(2)).target.shape[0] == 2
    # targets of one's own
    own = [[0] * len(ids) for ids in given]
    assert_same(explainer.explain(given, own), explainer.explain(given, 0))
    assert_same(explainer.explain(given, targets.step(-1, [0, 1, 0, 1])), explainer.explain(given, targets.step(-1, [0, 1, 0, 1])))


def test_classes_at_every_step_where_time_comes_first():
    explainer = onnx_lrp.load(four_classes(), precision="float64", jit="eager")
    given = sequences([3, 5, 5, 4, 5, 5, 5])  # five of length five: an axis that is not turned would not show
    for target in (targets.step(-1), targets.step(0, [0, 1, 2, 3, 0, 1, 2])):
        together = explainer.explain(given, target)
        assert together.target.shape == (7,)
        for k, sequence in enumerate(given):
            own = target if target.index is None else targets.step(0, int(target.index[k]))
            alone = explainer.explain(sequence[:, None], own)
            np.testing.assert_allclose(together.relevance["x"][: len(sequence), k], alone.relevance["x"][:, 0], rtol=1e-9)
            assert together.target[k] == alone.target[0]
    ranked = explainer.explain(given, targets.top_k(2)).target
    assert ranked.shape == (2, 5, 7)
    own = [np.random.default_rng(k).integers(4, size=len(sequence)) for k, sequence in enumerate(given)]
    chosen = explainer.explain(given, own).target
    for k, sequence in enumerate(given):
        np.testing.assert_array_equal(
            ranked[:, : len(sequence), k], explainer.explain(sequence[:, None], targets.top_k(2)).target[:, :, 0]
        )
        assert chosen[:, k].tolist() == [*own[k], *[-1] * (5 - len(sequence))]


@pytest.mark.parametrize("jit", ["eager", "graph", "xla"])
def test_a_step_that_some_sequences_do_not_have(jit):
    """It is padding there: nothing is explained. One that none has is an error."""
    explainer = onnx_lrp.load(four_classes(), precision="float64", jit=jit)
    given = sequences([3, 5, 2, 5])
    for step in (3, -4):
        found = explainer.explain(given, targets.step(step, [0, 1, 2, 3]))
        assert (found.seed != 0).tolist() == [False, True, False, True]
        assert found.target.tolist() == [-1, 1, -1, 3]
        assert not found.relevance["x"][:, [0, 2]].any()
        alone = explainer.explain(given[3][:, None], targets.step(step, 3))
        np.testing.assert_allclose(found.relevance["x"][:, 3], alone.relevance["x"][:, 0], rtol=1e-9)
        assert explainer.explain(given, targets.step([step, 0])).seed.all()
    for step in (5, -6):
        with pytest.raises(InputError, match="5 steps"):
            explainer.explain(given, targets.step(step))


def test_a_target_a_sample():
    model, _ = bilstm()
    explainer = onnx_lrp.load(model, precision="float64", jit="eager")
    given, classes = sequences([2, 5, 2, 3]), np.asarray([1, 0, 0, 1])
    together = explainer.explain(given, classes)
    np.testing.assert_array_equal(together.target, classes)
    contrast = explainer.explain(given, targets.contrast(classes, 1 - classes))
    for k, sequence in enumerate(given):
        one = explainer.explain(sequence[:, None], int(classes[k]))
        np.testing.assert_allclose(together.relevance["x"][: len(sequence), k], one.relevance["x"][:, 0], rtol=1e-9, atol=1e-13)
        other = explainer.explain(sequence[:, None], targets.contrast(int(classes[k]), int(1 - classes[k])))
        np.testing.assert_allclose(contrast.relevance["x"][: len(sequence), k], other.relevance["x"][:, 0], rtol=1e-9, atol=1e-13)
    with pytest.raises(InputError, match="seed array"):
        explainer.explain(given, targets.seed(np.ones((4, 2))))
    seeded = explainer.explain(given, targets.seed(lambda scores: np.ones_like(scores)))
    assert seeded.seed.tolist() == [2.0] * 4


def test_other_methods_take_them_too():
    model, _ = bilstm()
    given = sequences([2, 4, 3])
    for method in ("gradient_x_input", "integrated_gradients", "occlusion"):
        together = onnx_lrp.explain(model, given, method=method)
        alone = onnx_lrp.explain(model, given[1][:, None], method=method)
        np.testing.assert_allclose(together.relevance["x"][:4, 1], alone.relevance["x"][:, 0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("steps", [5, 1])
@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_a_baseline_a_sample(method, steps):
    """Sequences that run together are sorted; their baselines go with them."""
    explainer = onnx_lrp.load(with_lengths(), precision="float64", jit="eager")
    given, baseline = sequences([4, 5, 4, 5]), np.random.default_rng(0).normal(size=(steps, 4, 3))
    together = explainer.explain(given, 0, method=method, baseline=baseline)
    for k, sequence in enumerate(given):
        feeds = {"x": sequence[:, None], "lens": np.asarray([len(sequence)], np.int32)}
        alone = explainer.explain(feeds, 0, method=method, baseline=baseline[: len(sequence), k : k + 1])
        np.testing.assert_allclose(together.relevance["x"][: len(sequence), k], alone.relevance["x"][:, 0], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_saved_shown_and_tabled(tmp_path, suffix):
    explainer = onnx_lrp.load(bilstm()[0])
    made = explainer.explain(sequences([2, 4, 3]))
    made.save(tmp_path / f"e{suffix}")
    back = Explanation.load(tmp_path / f"e{suffix}")
    np.testing.assert_array_equal(back.lengths, [2, 4, 3])
    assert [len(sample.points[0].labels) for sample in samples(back)] == [2, 4, 3]
    assert "step" in made.to_html()
    assert made.per_step().shape == (3, 4)


def test_lists_in_a_file(tmp_path, capsys):
    model, ids, tokens = (str(tmp_path / name) for name in ("words.onnx", "ids.json", "words.json"))
    onnx.save(words(), model)
    Path(ids).write_text("[[1, 4], [2, 0, 6, 3], [5]]")
    Path(tokens).write_text(json.dumps([["a", "b"], list("cdef"), ["g"]]))
    assert cli.run(["explain", model, ids, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lengths"] == [2, 4, 1]
    assert cli.run(["explain", model, ids, "--tokens", tokens]) == 0
    assert "·" not in capsys.readouterr().out  # no padding is shown
    for wrong, said in (("[[1, 4], [2, 99, 3]]", "id 99"), ("[[1, 4], [[2]], [5]]", "numbers of axes")):
        Path(ids).write_text(wrong)
        assert cli.run(["explain", model, ids]) == 4
        assert said in capsys.readouterr().err


def test_a_frame_has_no_rows_of_padding():
    pytest.importorskip("pandas")
    made = onnx_lrp.load(bilstm()[0]).explain(sequences([2, 4, 3]))
    assert len(made.to_pandas(per_step=True)) == 9
    assert len(made.to_pandas()) == 27


def test_masked_entries_are_refused():
    rows = [np.ma.masked_greater(row, 0) for row in sequences([2, 3])]
    with pytest.raises(InputError, match="entries are masked"):
        onnx_lrp.load(bilstm()[0], jit="eager").explain(rows)


def test_what_is_no_list_of_sequences_is_refused():
    explainer = onnx_lrp.load(bilstm()[0])
    with pytest.raises(InputError, match="sequence 1 has shape"):
        explainer.explain([np.zeros((2, 3)), np.zeros((3, 4))])
    with pytest.raises(InputError, match="expected 2"):
        explainer.explain([np.zeros(2), np.zeros(3)])
    with pytest.raises(InputError, match="numbers of axes"):
        explainer.explain([np.zeros((2, 3)), np.zeros(3)])
    with pytest.raises(InputError, match="empty"):
        explainer.explain([np.zeros((2, 3)), np.zeros((0, 3))])
    with pytest.raises(InputError, match="unknown input 'y'"):
        explainer.explain({"y": sequences([1, 2])})
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(4), ["n"])
    alone, _ = b.case(b.op("ReduceSum", b.op("Tanh", x), keepdims=1))
    with pytest.raises(InputError, match="no axis of samples"):
        onnx_lrp.load(alone).explain([[1.0, 2.0], [1.0]])


def tagger(flat=False):
    """x (T, B, 3) → LSTM → three classes at every step, (T, B, 3) or all steps one below the other, (T · B, 3)."""
    b = Builder(np.random.default_rng(3), 17)
    x = b.input("x", b.numbers(6, 2, 3), ["T", "B", 3])
    y = b.op("LSTM", x, b.weight(1, 16, 3), b.weight(1, 16, 4), b.weight(1, 32), hidden_size=4)
    y = b.op("Reshape", y, b.ints(-1, 4)) if flat else b.op("Squeeze", y, b.ints(1))
    return b.case(b.op("MatMul", y, b.weight(4, 3)))[0]


def by_steps():
    """x (T, B, 3) → LSTM → a dense layer over (T · B, 4) → the sum of all steps → two classes, and the name of what is merged."""
    b = Builder(np.random.default_rng(3), 17)
    x = b.input("x", b.numbers(6, 2, 3), ["T", "B", 3])
    y = b.op("Squeeze", b.op("LSTM", x, b.weight(1, 16, 3), b.weight(1, 16, 4), b.weight(1, 32), hidden_size=4), b.ints(1))
    dense = b.op("Tanh", b.op("MatMul", b.op("Reshape", y, b.ints(-1, 4)), b.weight(4, 4)))
    total = b.op("ReduceSum", b.op("Reshape", dense, b.op("Shape", y)), b.ints(0), keepdims=0)
    return b.case(b.op("MatMul", total, b.weight(4, 2)))[0], dense


def test_what_shares_its_axis_with_the_samples():
    model, dense = by_steps()
    explainer = onnx_lrp.load(model, precision="float64", jit="eager")
    given = sequences([3, 5, 4, 5])
    together = explainer.explain(given, keep=dense)
    hidden = together.hidden[dense].reshape(5, 4, 4)
    for k, sequence in enumerate(given):
        alone = explainer.explain(sequence[:, None], keep=dense)
        np.testing.assert_allclose(hidden[: len(sequence), k], alone.hidden[dense], rtol=1e-9, atol=1e-13)
        assert not hidden[len(sequence) :, k].any()
        np.testing.assert_allclose(together.passed[dense][k], alone.passed[dense][0], rtol=1e-9)
    flat = onnx_lrp.load(tagger(flat=True), precision="float64", jit="eager")
    made, same = flat.explain(given), onnx_lrp.load(tagger(), precision="float64", jit="eager").explain(given)
    np.testing.assert_allclose(made.outputs[made.explained].reshape(5, 4, 3), same.outputs[same.explained], rtol=1e-9)
    np.testing.assert_array_equal(made.target.reshape(5, 4), same.target)
    np.testing.assert_allclose(flat.predict(given)[made.explained], made.outputs[made.explained], rtol=1e-9)


def test_targets_where_time_stands_in_front():
    explainer = onnx_lrp.load(tagger(), precision="float64", jit="eager")
    given = sequences([3, 5, 3])
    own = [np.asarray([k] * len(sequence)) for k, sequence in enumerate(given)]
    for target, of in (
        (targets.top_k(2), lambda k: targets.top_k(2)),
        (targets.step(-1, [0, 1, 2]), lambda k: targets.step(-1, k)),
        (targets.step([0, -1]), lambda k: targets.step([0, -1])),
        (own, lambda k: k),
    ):
        together = explainer.explain(given, target)
        for k, sequence in enumerate(given):
            alone = explainer.explain(sequence[:, None], of(k))
            np.testing.assert_allclose(together.seed[..., k], alone.seed[..., 0], rtol=1e-9)
            if isinstance(together.target, np.ndarray):
                wanted = alone.target[..., 0]
                found = together.target[..., : len(sequence), k] if together.target.ndim > 1 else together.target[k]
                np.testing.assert_array_equal(found, wanted)
    alike = sequences([4, 4, 4])
    rows = [np.asarray([k] * 4) for k in range(3)]
    np.testing.assert_array_equal(explainer.explain(alike, rows).target, np.stack(rows, 1))


def test_the_target_is_that_of_all_samples(tmp_path):
    """In their order, also where it is no class."""
    model, _ = bilstm()
    explainer = onnx_lrp.load(model, jit="eager")
    given = sequences([2, 5, 2, 3])
    contrast = targets.contrast([1, 0, 0, 1], [0, 1, 1, 0])
    assert explainer.explain(given, contrast).target == contrast
    seeded = explainer.explain(given, targets.seed(lambda scores: 2 * scores))
    seeded.save(tmp_path / "e.npz")
    for found in (seeded, Explanation.load(tmp_path / "e.npz")):
        np.testing.assert_allclose(found.target.value, 2 * seeded.outputs[seeded.explained], rtol=1e-6)
    alike = [sequence for sequence in given if len(sequence) == 2] + sequences([3, 3])
    for few in ([0, 1], targets.contrast([0, 1], 0)):  # as many as a group has samples
        with pytest.raises(InputError, match="2 entries for 4 samples"):
            explainer.explain(alike, few)
    for uneven in ([[0], [1, 2]], [[0], [1, 2], [0], [1]]):
        with pytest.raises(InputError, match="target"):
            explainer.explain(given, uneven)


def test_another_output_may_have_other_axes():
    """At its own places; one with time keeps padding from reaching it, where the default one would let sequences run together."""
    b = Builder(np.random.default_rng(3), 17)
    x = b.input("x", b.numbers(6, 2, 3), ["T", "B", 3])
    y, last = b.ops("LSTM", x, b.weight(1, 16, 3), b.weight(1, 16, 4), b.weight(1, 32), hidden_size=4, outputs=2)
    classes = b.op("MatMul", b.op("Squeeze", last, b.ints(0)), b.weight(4, 2))
    tags = b.op("MatMul", b.op("Squeeze", y, b.ints(1)), b.weight(4, 3))
    model = b.case(classes, tags)[0]
    given = sequences([4, 5, 4])
    made = onnx_lrp.load(model, jit="eager").explain(given, targets.output(tags), keep=y)
    assert_same(made, onnx_lrp.load(model, jit="eager", output=tags).explain(given))
    assert made.target.shape == (5, 3)
    assert made.hidden[y].shape == (5, 1, 3, 4)


def test_what_is_given_beside_sequences_fits_them():
    b = Builder(np.random.default_rng(3), 17)
    x = b.input("x", b.numbers(6, 2, 3), ["T", "B", 3])
    h = b.input("h", b.numbers(1, 2, 4), [1, "B", 4])
    parts = [b.weight(1, 16, 3), b.weight(1, 16, 4), b.weight(1, 32), "", h]
    _, last = b.ops("LSTM", x, *parts, hidden_size=4, outputs=2)
    explainer = onnx_lrp.load(b.case(b.op("MatMul", b.op("Squeeze", last, b.ints(0)), b.weight(4, 2)))[0], jit="eager")
    given = sequences([3, 5, 5])
    assert explainer.explain({"x": given, "h": np.ones((1, 3, 4))}).relevance["h"].shape == (1, 3, 4)
    for wrong in (np.ones((1, 2, 4)), np.ones((1, 6, 4))):
        with pytest.raises(InputError, match="there are 3 sequences"):
            explainer.explain({"x": given, "h": wrong})
    for wrong in (np.ones(3), 0.0, None, [[1.0, [2.0]], [3.0, 4.0]]):
        with pytest.raises(InputError, match=r"'h': (got shape|not an array)"):
            explainer.explain({"x": given, "h": wrong})
