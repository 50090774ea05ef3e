"""Laws over drawn models, run eagerly (tracing costs half a second a model); a fixed sample of models in every jit mode."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

import onnx_lrp
from onnx_lrp import testing
from onnx_lrp.registry import find
from onnx_lrp.testing.build import Builder

FAMILIES = testing.families()
RECURRENT = {"gru": testing.grus, "lstm": testing.lstms, "rnn": testing.rnns}
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
every_recurrence = pytest.mark.parametrize("family", RECURRENT.values(), ids=list(RECURRENT))
BIASES = st.sampled_from([0.0, 0.5, 1.0])
EPSILONS = st.sampled_from([0.001, 0.1])


def relevance(model, feeds, **options):
    return onnx_lrp.load(model, **{"precision": "float64", "jit": "eager", "verify": "never", **options}).explain(feeds)


def assert_equal(a, b, tolerance=1e-9):
    assert set(a.relevance) == set(b.relevance)
    for point, want in a.relevance.items():
        scale = max(np.abs(want).max(), 1e-9)
        error = np.abs(b.relevance[point] - want).max()
        assert error <= tolerance * scale, f"{point!r}: off by {error:.2e} of {scale:.2e}"


@every_family
@given(data=st.data())
def test_forward_is_onnxruntime(family, data):
    testing.assert_matches_runtime(*data.draw(family()))


@every_family
@given(data=st.data(), epsilon=EPSILONS)
def test_conserves(family, data, epsilon):
    case = data.draw(family())
    testing.assert_conserves(*case, epsilon=epsilon)
    testing.assert_conserves(*case, precision="float64", epsilon=epsilon)


@every_family
@given(data=st.data(), bias_factor=BIASES)
def test_conserves_with_bias_factor(family, data, bias_factor):
    testing.assert_conserves(*data.draw(family()), precision="float64", bias_factor=bias_factor, target=0)


@every_family
@settings(max_examples=settings.get_profile(settings.get_current_profile_name()).max_examples // 2)
@given(data=st.data(), seed=st.integers(0, 99))
def test_linear_in_the_seed(family, data, seed):
    testing.assert_linear(*data.draw(family()), seed=seed)


@every_family
@settings(max_examples=settings.get_profile(settings.get_current_profile_name()).max_examples // 2)
@given(data=st.data())
def test_batch_equivariant(family, data):
    options = {"fixed": False} if family in RECURRENT.values() else {}
    testing.assert_batch_equivariant(*data.draw(family(**options)))


@every_recurrence
@given(data=st.data(), bias_factor=BIASES)
def test_padding_is_neutral(family, data, bias_factor):
    testing.assert_padding_neutral(*data.draw(family(lengths=True)), bias_factor=bias_factor)


@every_recurrence
@given(data=st.data())
def test_bidirectional_is_forward_and_reverse(family, data):
    model, feeds = data.draw(family(direction="bidirectional"))
    assert_equal(relevance(model, feeds), relevance(testing.split_directions(model), feeds))


@every_recurrence
@given(data=st.data(), bias_factor=BIASES)
def test_layouts_are_equal(family, data, bias_factor):
    model, feeds = data.draw(family().filter(lambda case: case[0].opset_import[0].version >= 14))
    assert_equal(
        relevance(model, feeds, bias_factor=bias_factor), relevance(testing.batch_first(model), feeds, bias_factor=bias_factor)
    )


@every_recurrence
@given(data=st.data())
def test_layout_one_conserves(family, data):
    testing.assert_conserves(*data.draw(family(layout=1)), precision="float64")


@given(testing.dense_spellings(), EPSILONS, BIASES)
def test_dense_spellings_are_equal(case, epsilon, bias_factor):
    models, feeds = case
    first, *others = (relevance(m, feeds, epsilon=epsilon, bias_factor=bias_factor) for m in models)
    for other in others:
        assert_equal(first, other)  # halves and quarters are exact in float32


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@given(data=st.data(), epsilon=EPSILONS)
def test_cell_spellings_are_equal(op, data, epsilon):
    """Fused, unrolled, Scan and Loop: one network, one explanation."""
    models, feeds = data.draw(testing.cell_spellings(op=op))
    first, *others = (relevance(m, feeds, epsilon=epsilon) for m in models)
    for other in others:
        assert_equal(first, other)


@given(testing.activation_spellings(), EPSILONS)
def test_activations_written_out_are_equal(case, epsilon):
    models, feeds = case
    first, *others = (relevance(m, feeds, epsilon=epsilon) for m in models)
    for other in others:
        assert_equal(first, other)


@given(testing.attention_spellings(), EPSILONS, BIASES)
def test_attention_written_out_is_equal(case, epsilon, bias_factor):
    models, feeds = case
    first, *others = (relevance(m, feeds, epsilon=epsilon, bias_factor=bias_factor) for m in models)
    for model, other in zip(models[1:], others, strict=True):
        assert_equal(first, other, 1e-5)  # √D in float32
        testing.assert_matches_runtime(model, feeds)


@given(testing.selection_spellings(), EPSILONS)
def test_selections_are_equal(case, epsilon):
    models, feeds = case  # a mixture has two lower units where Where has one, so a bias factor tells them apart
    first, *others = (relevance(m, feeds, epsilon=epsilon) for m in models)
    for other in others:
        assert_equal(first, other)


@given(testing.einsum_spellings(), EPSILONS, BIASES)
def test_einsum_is_matmul(case, epsilon, bias_factor):
    pairs, feeds = case
    for pair in pairs:
        assert_equal(*(relevance(m, feeds, epsilon=epsilon, bias_factor=bias_factor) for m in pair))


@given(testing.layer_norm_spellings(), EPSILONS, BIASES)
def test_layer_norm_spellings_are_equal(case, epsilon, bias_factor):
    models, feeds = case
    models = [m for m in models if all(find(n.op_type, "", 17) for n in m.graph.node)]  # onnxruntime's part is in float32
    first, *others = (relevance(m, feeds, epsilon=epsilon, bias_factor=bias_factor) for m in models)
    testing.assert_conserves(models[0], feeds, precision="float64", epsilon=epsilon, bias_factor=bias_factor)
    for other in others:
        assert_equal(first, other)


@every_family
@given(data=st.data())
def test_values_stay_within_their_intervals(family, data):
    testing.assert_within_intervals(*data.draw(family()))


@pytest.mark.parametrize("softmax", ["Softmax", "written out"])
def test_softmax_written_out_is_a_gate(softmax):
    b = Builder(np.random.default_rng(0), 17)
    x, w = b.series(3, 2, 2), b.weight(2, 3)
    scores = b.op("MatMul", x, w)
    terms = b.op("Exp", scores)
    total = b.op("Unsqueeze", b.op("ReduceSum", terms, b.ints(2), keepdims=0), b.ints(2))
    gate = b.op("Softmax", scores, axis=2) if softmax == "Softmax" else b.op("Div", terms, total)
    y = b.op("MatMul", b.op("MatMul", gate, b.op("MatMul", x, b.weight(2, 2))), b.weight(2, 2))
    model, feeds = b.case(b.op("ReduceSum", y, b.ints(1), keepdims=0))
    plan = onnx_lrp.load(model)._plan
    assert plan.vars[gate].is_gate
    assert gate not in plan.path  # the values are the signal
    testing.assert_conserves(model, feeds)


def permuted(model, order):
    """The model with the gate blocks of its recurrent weights in another order."""
    copy = ModelProto()
    copy.CopyFrom(model)
    node = next(n for n in copy.graph.node if n.op_type in ("LSTM", "GRU"))
    names = set(node.input[1:4]) - {""}
    for tensor in copy.graph.initializer:
        if tensor.name in names:
            array = numpy_helper.to_array(tensor)
            halves = 2 if array.ndim == 2 else 1  # B is Wb and Rb
            blocks = array.reshape(len(array), halves, len(order), -1, *array.shape[2:])
            tensor.CopyFrom(numpy_helper.from_array(blocks[:, :, list(order)].reshape(array.shape).copy(), tensor.name))
    return copy


def fixed_lstm(strategy=testing.lstms, **options):
    """One model with several steps and units, found the same way every time."""
    from hypothesis import Phase, find

    return find(
        strategy(**options),
        lambda case: case[1]["x"].shape[0] > 2 and case[1]["x"].shape[1] > 1 and case[1]["x"].shape[2] > 1 and _units(case[0]) > 2,
        settings=settings(phases=[Phase.generate], derandomize=True, database=None, max_examples=2000),
    )


def _units(model):
    node = next(n for n in model.graph.node if n.op_type in ("LSTM", "GRU", "RNN"))
    return next(a.i for a in node.attribute if a.name == "hidden_size")


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 2, 1, 3), (0, 1, 3, 2), (3, 1, 2, 0)], ids=str)
def test_permuted_gates_are_noticed(order):
    """Distinct gates: an importer that swapped two would not have onnxruntime's outputs."""
    model, feeds = fixed_lstm(plain=True, direction="bidirectional")
    want = relevance(model, feeds).outputs
    got = relevance(permuted(model, order), feeds).outputs
    assert any(np.abs(got[n] - want[n]).max() > 1e-3 * np.abs(want[n]).max() for n in want)
    assert_equal(relevance(permuted(permuted(model, order), order), feeds), relevance(model, feeds))


JITTED = ["attentions", "concats", "convolutions", "einsums", "gathers", "dense", "indexings", "loops", "lstms", "lstms lens"]
JITTED += ["matmuls", "products", "paddings", "reductions", "scatters", "selections", "sequences", "choices"]


@pytest.mark.parametrize("jit", ["graph", "xla"])
@pytest.mark.parametrize("family", JITTED)
def test_every_jit_mode_agrees(family, jit):
    name, *lens = family.split()
    model, feeds = fixed_lstm(lengths=bool(lens)) if name == "lstms" else _sample(FAMILIES[name]())
    eager, other = relevance(model, feeds), relevance(model, feeds, jit=jit)
    assert_equal(eager, other)
    np.testing.assert_allclose(other.residual, 0, atol=1e-9)


def _sample(strategy):
    from hypothesis import Phase, find

    return find(
        strategy, lambda _: True, settings=settings(phases=[Phase.generate], derandomize=True, database=None, max_examples=50)
    )


@pytest.mark.parametrize("chain", [["Neg", "Neg"], ["Mul", "Mul"], ["Mul", "Neg", "Reshape", "Mul"]], ids="-".join)
def test_products_in_a_row_pass_relevance(chain):
    """A block without a sum passes relevance unchanged, however many nodes it has."""
    b = Builder(np.random.default_rng(0), 17)
    x = z = b.op("Tanh", b.rows(2, 3))
    for op in chain:
        more = {"Neg": [], "Mul": [b.weight(3)], "Reshape": [b.ints(0, 3)]}[op]
        z = b.op(op, z, *more)
    model, feeds = b.case(b.op("Identity", z))
    explanation = relevance(model, feeds)
    np.testing.assert_allclose(explanation.relevance["x"].sum(1), explanation.seed)
    assert not any(np.any(a) for a in explanation.absorbed.values())
    testing.assert_conserves(b.case(b.op("Add", z, x))[0], feeds)  # and inside a block with a sum
