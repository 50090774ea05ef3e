"""One index map, many spellings: whatever moves, picks or repeats entries gives equal relevance however a file writes it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

import onnx_lrp
from onnx_lrp import testing
from onnx_lrp.testing.build import Builder

END = 2**63 - 1


def explain(case, **options):
    model, feeds = case
    return onnx_lrp.load(model, **{"precision": "float64", "jit": "eager", "verify": "never", **options}).explain(feeds)


def assert_same(cases, *, tolerance=1e-12, **options):
    first, *others = (explain(c, **options) for c in cases)
    np.testing.assert_allclose(first.residual, 0, atol=1e-10)
    for other in others:
        for (point, want), got in zip(first.relevance.items(), other.relevance.values(), strict=True):
            scale = max(np.abs(want).max(), 1e-9)
            assert np.abs(got - want).max() <= tolerance * scale, point


def spelled(seed, sizes, around, spell):
    """A model of a series (B, T, F) with one spelling in its middle: ``spell`` is the map itself, ``around`` what follows it."""
    batch, time, width = sizes
    b = Builder(np.random.default_rng(seed), 18)
    x = b.series(time, batch, width)
    z = b.op("Tanh", b.op("MatMul", x, b.weight(width, 4)))
    return around(b, spell(b, z))


def summed(length, width=4):
    """Weighted over time, so that every entry counts differently, then a dense layer."""

    def around(b, y):
        y = b.op("Mul", y, b.const(np.linspace(0.5, 2, length * width).reshape(length, width).astype(np.float32)))
        return b.case(b.gemm(b.over("ReduceSum", y, 1, keepdims=0), width, 3))

    return around


SIZES = st.tuples(st.integers(1, 3), st.integers(2, 4), st.integers(1, 3))
SEEDS = st.integers(0, 999)


def dynamic(b, z, *axes):
    """Sizes of the axes of z, as computed (1,) tensors."""
    return [b.op("Shape", z, start=a, end=a + 1) for a in axes]


@given(SEEDS, SIZES, st.data())
def test_split_and_concat_is_the_identity(seed, sizes, data):
    time = sizes[1]
    first = data.draw(st.integers(1, time - 1))

    def split(b, z):
        return b.op("Concat", *b.ops("Split", z, b.ints(first, time - first), outputs=2, axis=1), axis=1)

    def computed(b, z):
        (steps,) = dynamic(b, z, 1)
        sizes = b.op("Concat", b.ints(first), b.op("Sub", steps, b.ints(first)), axis=0)
        return b.op("Concat", *b.ops("Split", z, sizes, outputs=2, axis=1), axis=-2)

    def sequence(b, z):
        return b.op("ConcatFromSequence", b.op("SplitToSequence", z, axis=1), axis=1)

    def unrolled(b, z):
        steps = b.op("SplitToSequence", z, axis=1, keepdims=0)
        rows = [b.op("SequenceAt", steps, b.const(i, np.int64)) for i in range(time)]
        return b.op("ConcatFromSequence", b.op("SequenceConstruct", *rows), axis=1, new_axis=1)

    spellings = [lambda b, z: z, split, computed, sequence, unrolled]
    assert_same([spelled(seed, sizes, summed(time), s) for s in spellings])


@given(SEEDS, SIZES, st.sampled_from(["eager", "graph"]))
def test_a_squeeze_without_axes_leaves_a_single_sample_its_axis(seed, sizes, jit):
    """The file says which axes have one entry; that a batch has one sample is a call's own affair."""
    batch, time, width = sizes

    def spell(*axes):
        def around(b, z):
            wide = b.over("Unsqueeze", z, 2)
            return b.over("Squeeze", wide, *axes) if axes else b.op("Squeeze", wide)

        return around

    cases = [spelled(seed, (batch, time, width), summed(time), spell(*axes)) for axes in ((2,), ())]
    for case in cases:  # of a file that leaves the batch open
        case[0].graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    assert_same(cases, jit=jit)


@given(SEEDS, SIZES, st.data())
def test_picked_steps_are_slices(seed, sizes, data):
    time = sizes[1]
    first = data.draw(st.integers(0, time - 1))
    last = data.draw(st.integers(first, time - 1))
    count = last - first + 1
    wanted = np.arange(first, last + 1)

    def grid(b, z):
        batch, _ = dynamic(b, z, 0, 2)
        shape = b.op("Concat", batch, b.ints(count, 4), axis=0)
        return b.op("Expand", b.const(wanted.reshape(1, -1, 1).astype(np.int64)), shape)

    def tuples(b, z):
        (batch,) = dynamic(b, z, 0)
        steps = b.op("Expand", b.const(wanted.reshape(1, -1, 1).astype(np.int64)), b.op("Concat", batch, b.ints(count, 1), axis=0))
        return b.op("GatherND", z, steps, batch_dims=1)

    def masked(b, z):
        return b.op("Compress", z, b.const(np.isin(np.arange(time), wanted)), axis=1)

    def open_slice(b, z):
        (steps,) = dynamic(b, z, 1)
        axis = b.op("Sub", steps, b.ints(time - 1))
        return b.op("Slice", z, b.ints(first), b.ints(last + 1), axis, b.op("Sub", steps, b.ints(time - 1)))

    spellings = [
        lambda b, z: b.op("Slice", z, b.ints(first), b.ints(last + 1), b.ints(1)),
        lambda b, z: b.op("Slice", z, b.ints(first - time), b.ints(END if last == time - 1 else last + 1 - time), b.ints(-2)),
        lambda b, z: b.op("Gather", z, b.const(wanted.astype(np.int64)), axis=1),
        lambda b, z: b.op("Gather", z, b.const((wanted - time).astype(np.int64)), axis=-2),
        lambda b, z: b.op("Gather", z, b.op("Range", *(b.const(v, np.int64) for v in (first, last + 1, 1))), axis=1),
        lambda b, z: b.op("GatherElements", z, grid(b, z), axis=1),
        lambda b, z: b.op("Pad", z, b.ints(0, -first, 0, 0, last + 1 - time, 0)),
        tuples,
        masked,
        open_slice,
    ]
    assert_same([spelled(seed, sizes, summed(count), s) for s in spellings])


@pytest.mark.parametrize("op", ["Max", "Min", "Mul"])
@given(seed=SEEDS, sizes=SIZES, fixed=st.booleans())
def test_a_scatter_to_every_place_is_the_op_itself(op, seed, sizes, fixed):
    time = sizes[1]

    def other(b, z):
        if fixed or op == "Mul":
            return b.op("Expand", b.weight(time, 4), b.op("Shape", z))
        return b.op("Add", b.op("Mul", z, b.weight(time, 4)), b.weight(4))

    def scattered(b, z):
        places = b.op("Expand", b.const(np.arange(time).reshape(1, -1, 1)), b.op("Shape", z))
        return b.op("ScatterElements", z, places, other(b, z), axis=1, reduction=op.lower())

    def tuples(b, z):
        batch, _ = dynamic(b, z, 0, 2)
        samples = b.op("Range", b.const(0, np.int64), b.over("Squeeze", batch, 0), b.const(1, np.int64))
        places = b.op("Expand", b.op("Reshape", samples, b.ints(-1, 1)), b.op("Concat", batch, b.ints(1), axis=0))
        return b.op("ScatterND", z, places, other(b, z), reduction=op.lower())

    assert_same([spelled(seed, sizes, summed(time), s) for s in (lambda b, z: b.op(op, z, other(b, z)), scattered, tuples)])


@given(SEEDS, st.integers(1, 3))
def test_a_diagonal_is_gathered(seed, batch):
    def gathered(b, z):
        places = b.op("Expand", b.const(np.arange(4).reshape(1, 4, 1)), b.op("Concat", *dynamic(b, z, 0), b.ints(4, 1), axis=0))
        return b.op("GatherElements", z, places, axis=2)

    def einsum(equation):
        return lambda b, z: b.over("Unsqueeze", b.op("Einsum", z, equation=equation), 2)

    spellings = [gathered, *map(einsum, ("bii->bi", "...ii->...i", "b...ii->b...i"))]
    assert_same([spelled(seed, (batch, 4, 3), summed(4, 1), s) for s in spellings])


@pytest.mark.parametrize("reduction", ["max", "min"])
def test_a_constant_that_updates_are_held_against_only_saturates(reduction):
    """As in Max and Min; where no update is, the constant takes what arrives."""
    b = Builder(np.random.default_rng(0), 18)
    x = b.input("x", np.asarray([[1.0, 2.0], [-2.0, -3.0]], np.float32), ["batch", 2])
    zeros = b.op(
        "Expand", b.const(np.zeros((1, 3), np.float32)), b.op("Concat", b.op("Shape", x, start=0, end=1), b.ints(3), axis=0)
    )
    places = b.op("Expand", b.ints(1), b.op("Shape", x))
    model, feeds = b.case(b.op("ScatterElements", zeros, places, x, axis=1, reduction=reduction))
    got = onnx_lrp.load(model, precision="float64", jit="eager").explain(feeds, onnx_lrp.targets.seed(np.ones((2, 3))))
    np.testing.assert_array_equal(got.relevance["x"], [[0, 1], [1, 0]] if reduction == "max" else [[1, 0], [0, 1]])
    np.testing.assert_array_equal(got.absorbed["constant"], [2, 2])


def test_the_first_of_equal_updates_wins():
    """Of the data and two updates at one place, all equal, the data; of the two updates alone the first."""
    for low, want in ((0.0, [1, 0, 0]), (-9.0, [0, 1, 0])):
        b = Builder(np.random.default_rng(0), 18)
        x = b.input("x", np.ones((2, 3), np.float32), ["batch", 3])
        data = b.op("Add", b.op("Slice", x, b.ints(0), b.ints(1), b.ints(1)), b.const(np.float32(low)))
        places = b.op("Expand", b.ints(0), b.op("Concat", b.op("Shape", x, start=0, end=1), b.ints(2), axis=0))
        updates = b.op("Slice", x, b.ints(1), b.ints(3), b.ints(1))
        case = b.case(b.op("ScatterElements", data, places, updates, axis=1, reduction="max"))
        np.testing.assert_allclose(explain(case).relevance["x"], [want, want], atol=1e-2)


def test_updates_that_multiply_carry_no_relevance():
    b = Builder(np.random.default_rng(0), 18)
    x = b.rows(2, 3)
    places = b.op("Expand", b.ints(0), b.op("Shape", x))
    model, _ = b.case(b.op("ScatterElements", x, places, b.op("Tanh", x), axis=1, reduction="mul"))
    with pytest.raises(onnx_lrp.UnsupportedModel, match="updates that carry relevance"):
        onnx_lrp.load(model, verify="never")


@given(SEEDS, SIZES)
def test_flips_are_equal(seed, sizes):
    """ReverseSequence, Slice with step -1 and a Gather of a reversed range; and what Keras' go_backwards is, all in one LSTM."""
    time = sizes[1]

    def sequence(b, z):
        batch, steps = dynamic(b, z, 0, 1)
        return b.op("ReverseSequence", z, b.op("Expand", steps, batch), batch_axis=0, time_axis=1)

    def computed(b, z):
        (steps,) = dynamic(b, z, 1)
        one, zero = b.const(1, np.int64), b.const(0, np.int64)
        last = b.op("Sub", b.over("Squeeze", steps, 0), one)
        return b.op("Gather", z, b.op("Sub", last, b.op("Range", zero, b.over("Squeeze", steps, 0), one)), axis=1)

    def unrolled(b, z):
        return b.op("Concat", *reversed(b.ops("Split", z, b.ints(*[1] * time), outputs=time, axis=1)), axis=1)

    spellings = [
        lambda b, z: b.op("Slice", z, b.ints(-1), b.ints(-END), b.ints(1), b.ints(-1)),
        lambda b, z: b.op("Slice", z, b.ints(END), b.ints(-END - 1), b.ints(1), b.ints(-1)),
        lambda b, z: b.op("Gather", z, b.const(np.arange(time)[::-1].astype(np.int64)), axis=1),
        sequence,
        computed,
        unrolled,
    ]
    assert_same([spelled(seed, sizes, summed(time), s) for s in spellings])

    def recurrent(direction):
        def around(b, y):
            steps = b.op("Transpose", y, perm=[1, 0, 2])
            weights = [b.weight(1, 8, 4), b.weight(1, 8, 2), b.weight(1, 16)]
            _, last = b.ops("LSTM", steps, *weights, outputs=2, hidden_size=2, direction=direction)
            return b.case(b.gemm(b.over("Squeeze", last, 0), 2, 3))

        return around

    cases = [spelled(seed, sizes, recurrent("forward"), s) for s in spellings]
    assert_same([spelled(seed, sizes, recurrent("reverse"), lambda b, z: z), *cases])


@given(SEEDS, SIZES)
def test_repeats_are_equal(seed, sizes):
    times = 3

    def one_step(b, z):
        return b.op("Slice", z, b.ints(0), b.ints(1), b.ints(1))

    def computed(b, z):
        (batch,) = dynamic(b, z, 0)
        return b.op("Expand", one_step(b, z), b.op("Concat", batch, b.ints(times, 1), axis=0))

    def repeats(b, z):
        (batch,) = dynamic(b, z, 0)
        return b.op("Tile", one_step(b, z), b.op("Concat", b.op("Div", batch, batch), b.ints(times, 1), axis=0))

    spellings = [
        lambda b, z: b.op("Expand", one_step(b, z), b.ints(1, times, 1)),
        lambda b, z: b.op("Tile", one_step(b, z), b.ints(1, times, 1)),
        lambda b, z: b.op("Gather", one_step(b, z), b.ints(0, 0, 0), axis=1),
        lambda b, z: b.op("Concat", *[one_step(b, z)] * times, axis=1),
        lambda b, z: b.op("Pad", one_step(b, z), b.ints(0, 1, 0, 0, 1, 0), mode="edge"),
        computed,
        repeats,
    ]
    assert_same([spelled(seed, sizes, summed(times), s) for s in spellings])


@given(SEEDS, SIZES, st.integers(0, 2), st.integers(0, 2))
def test_padding_and_cutting_is_the_identity(seed, sizes, before, after):
    time = sizes[1]
    back = [0, -before, 0, 0, -after, 0]
    pads = [-p for p in back]

    def padded(b, z, **mode):
        return b.op("Pad", z, b.ints(*pads), **mode)

    spellings = [lambda b, z: z, lambda b, z: b.op("Pad", padded(b, z), b.ints(*back))]
    spellings += [lambda b, z: b.op("Slice", padded(b, z), b.ints(before), b.ints(before + time), b.ints(1))]
    if max(before, after) < time:
        spellings += [lambda b, z: b.op("Pad", padded(b, z, mode="reflect"), b.ints(*back))]
    assert_same([spelled(seed, sizes, summed(time), s) for s in spellings])


@given(SEEDS, SIZES, st.data())
def test_overwriting_is_a_concat(seed, sizes, data):
    """One step written over: what was there gets nothing."""
    time = sizes[1]
    at = data.draw(st.integers(0, time - 1))

    def new(b, z):
        return b.op("Neg", b.op("Slice", z, b.ints(0), b.ints(1), b.ints(1)))

    def parts(b, z):
        cut = [
            b.op("Slice", z, b.ints(0), b.ints(at), b.ints(1)),
            new(b, z),
            b.op("Slice", z, b.ints(at + 1), b.ints(END), b.ints(1)),
        ]
        return b.op("Concat", *cut, axis=1)

    def elements(b, z):
        return b.op("ScatterElements", z, b.op("Expand", b.ints(at), b.op("Shape", new(b, z))), new(b, z), axis=1)

    def tuples(b, z):
        (batch,) = dynamic(b, z, 0)
        rows = b.op("Range", b.const(0, np.int64), b.over("Squeeze", batch, 0), b.const(1, np.int64))
        rows = b.op("Reshape", rows, b.ints(-1, 1, 1))
        step = b.op("Expand", b.const([[[at - time]]], np.int64), b.op("Shape", rows))
        return b.op("ScatterND", z, b.op("Concat", rows, step, axis=2), new(b, z))

    def sequence(b, z):
        steps = b.op("SequenceErase", b.op("SplitToSequence", z, axis=1), b.const(at, np.int64))
        return b.op("ConcatFromSequence", b.op("SequenceInsert", steps, new(b, z), b.const(at, np.int64)), axis=1)

    assert_same([spelled(seed, sizes, summed(time), s) for s in ([parts, elements, tuples, sequence] if time > 1 else [parts])])


@given(SEEDS, SIZES)
def test_adding_at_places_is_a_sum(seed, sizes):
    """ScatterElements that adds a step to itself doubles it, in the same block."""
    time = sizes[1]

    def scattered(b, z):
        places = b.op("Expand", b.const(np.arange(time).reshape(1, -1, 1).astype(np.int64)), b.op("Shape", z))
        return b.op("ScatterElements", z, places, b.op("Tanh", z), axis=1, reduction="add")

    assert_same([spelled(seed, sizes, summed(time), s) for s in (lambda b, z: b.op("Add", z, b.op("Tanh", z)), scattered)])


# embeddings


def embedded(seed, kind, *, ids_dtype=np.int64, values=np.float32, bias=False, opset=17):
    """Token ids (B, T) into rows of 3, then an RNN and a dense layer."""
    b = Builder(np.random.default_rng(seed), opset)
    ids = b.rng.integers(0, 5, (2, 3)).astype(ids_dtype)
    tokens, table = b.input("tokens", ids, ["batch", "time"]), b.weight(5, 3)
    if kind == "gather":
        y = b.op("Gather", table, tokens)
    elif kind == "equal":
        y = b.op("Cast", b.op("Equal", b.over("Unsqueeze", tokens, 2), b.const(np.arange(5), np.int64)), to=1)
        y = b.op("MatMul", y, table)
    else:
        y = b.op("OneHot", tokens, b.const(5, np.int64), b.const([0, 1], values), axis=2 if kind == "two" else -1)
        y = y if values == np.float32 else b.op("Cast", y, to=1)
        if kind == "flat":  # as tf2onnx writes a dense layer on three axes
            y = b.op("Reshape", b.op("MatMul", b.op("Reshape", y, b.ints(-1, 5)), table), b.ints(-1, 3, 3))
        else:
            y = b.op("MatMul", y, table)
    y = b.op("Add", y, b.weight(3)) if bias else y
    y = b.op("Transpose", y, perm=[1, 0, 2])
    _, last = b.ops("RNN", y, b.weight(1, 2, 3), b.weight(1, 2, 2), b.weight(1, 4), outputs=2, hidden_size=2)
    return b.case(b.gemm(b.over("Squeeze", last, 0), 2, 3))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("values", [np.float32, np.int64])
@pytest.mark.parametrize("kind", ["last", "two", "equal", "flat"])
def test_a_one_hot_product_is_an_embedding(kind, values, bias):
    """The row that is picked holds the relevance of the whole embedding; no stabilizer lies between them."""
    for seed in range(5):
        ids = np.int64
        rows = explain(embedded(seed, kind, ids_dtype=ids, values=values, bias=bias))
        want = explain(embedded(seed, "gather", ids_dtype=ids, bias=bias))
        (one_hot,), (table,) = rows.relevance.values(), want.relevance.values()
        assert one_hot.shape == (2, 3, 5)
        np.testing.assert_allclose(one_hot.sum(2), table.sum(2), rtol=1e-11, atol=1e-13)
        assert np.all((one_hot != 0).sum(2) <= 1)
        np.testing.assert_allclose(rows.residual, 0, atol=1e-12)


@given(SEEDS, SIZES)
def test_a_code_that_selects_is_a_gate(seed, sizes):
    """The last valid step by a one-hot code of the lengths: the step takes all, the code nothing (ε = 0: one term a sum)."""
    batch, time, _ = sizes

    def selected(kind):
        def spell(b, z):
            lens = b.input("lens", np.random.default_rng(seed).integers(1, time + 1, batch).astype(np.int64), ["batch"])
            last = b.op("Sub", lens, b.const(1, np.int64))
            if kind == "tuples":
                return b.op("GatherND", z, b.over("Unsqueeze", last, 1), batch_dims=1)
            if kind == "equal":
                code = b.op("Cast", b.op("Equal", b.over("Unsqueeze", last, 1), b.const(np.arange(time), np.int64)), to=1)
            else:
                code = b.op("OneHot", last, b.const(time, np.int64), b.const([0, 1], np.float32))
            if kind == "matmul":
                return b.over("Squeeze", b.op("MatMul", b.over("Unsqueeze", code, 1), z), 1)
            return b.over("ReduceSum", b.op("Mul", z, b.over("Unsqueeze", code, 2)), 1, keepdims=0)

        return spelled(seed, sizes, lambda b, y: b.case(b.gemm(b.op("Tanh", y), 4, 3)), spell)

    assert_same([selected(k) for k in ("tuples", "one-hot", "equal", "matmul")], tolerance=1e-9, epsilon=0.0)


# the last nodes


@pytest.mark.parametrize("op", ["TopK", "ArgMax"])
def test_a_choice_at_the_end_is_explained_by_its_scores(op):
    def case(kind):
        b = Builder(np.random.default_rng(0), 17)
        z = b.gemm(b.rows(3, 2), 2, 4)
        z = b.op("Softmax", z, axis=-1) if "softmax" in kind else z
        if kind == "scores":
            return b.case(z)
        if op == "ArgMax":
            return b.case(b.op("ArgMax", z, axis=1))
        values, indices = b.ops("TopK", z, b.ints(2), outputs=2)
        return b.case(values if "values" in kind else indices)

    want = explain(case("scores"))
    kinds = ["indices", "softmax indices"] + (["values", "softmax values"] if op == "TopK" else [])
    for kind in kinds:
        got = explain(case(kind))
        np.testing.assert_allclose(got.relevance["x"], want.relevance["x"])
        np.testing.assert_allclose(got.seed, want.seed)


@pytest.mark.parametrize("op", ["TopK", "ArgMin"])
def test_a_choice_of_the_lowest_is_explained_by_the_lowest_score(op):
    b = Builder(np.random.default_rng(0), 17)
    z = b.gemm(b.rows(3, 2), 2, 4)
    outputs = [b.op("ArgMin", z, axis=1)] if op == "ArgMin" else b.ops("TopK", z, b.ints(2), outputs=2, largest=0)
    for output in outputs:
        model, feeds = b.case(output)
        got = explain((model, feeds))
        want = explain((b.case(z)[0], feeds))
        scores = want.outputs[z]
        np.testing.assert_allclose(got.seed, scores.min(1))
        testing.assert_conserves(model, feeds, precision="float64")


def test_an_optional_that_holds_a_tensor_is_that_tensor():
    def held(b, z):
        return b.op("OptionalGetElement", b.op("Optional", z))

    assert_same([spelled(0, (2, 3, 2), summed(3), s) for s in (lambda b, z: z, held)])


@given(SEEDS, SIZES, st.data())
def test_parts_of_unequal_size_are_slices(seed, sizes, data):
    time = sizes[1]
    first = data.draw(st.integers(1, time - 1))
    last = data.draw(st.booleans())

    def part(b, z):
        return b.op("Slice", z, *((b.ints(first), b.ints(time)) if last else (b.ints(0), b.ints(first))), b.ints(1))

    def split(b, z):
        parts = b.op("SplitToSequence", z, b.ints(first, time - first), axis=1)
        return b.op("SequenceAt", parts, b.const(data.draw(st.sampled_from([1, -1] if last else [0, -2])), np.int64))

    def listed(b, z):
        many = b.op("SequenceConstruct", z, part(b, z))
        return b.op("SequenceAt", many, b.const(1, np.int64))

    around = summed(time - first if last else first)
    assert_same([spelled(seed, sizes, around, s) for s in (part, split, listed)])

    def joined(b, z):
        return b.op("ConcatFromSequence", b.op("SplitToSequence", z, b.ints(first, time - first), axis=-2), axis=1)

    def twice(b, z):
        return b.op("ConcatFromSequence", b.op("SequenceConstruct", part(b, z), z), axis=1)

    assert_same([spelled(seed, sizes, summed(time), s) for s in (lambda b, z: z, joined)])
    length = time + (time - first if last else first)
    assert_same([spelled(seed, sizes, summed(length), s) for s in (lambda b, z: b.op("Concat", part(b, z), z, axis=1), twice)])


def test_a_sequence_that_is_a_graph_input_is_refused_by_name():
    b = Builder(np.random.default_rng(0), 18)
    x = b.input("x", b.numbers(2, 5, 4), ["batch", 5, 4])
    b.inputs.append(helper.make_tensor_sequence_value_info("many", TensorProto.FLOAT, None))
    y = b.op("SequenceAt", b.op("SequenceInsert", "many", x), b.const(0, np.int64))
    model, _ = b.case(b.over("ReduceSum", y, 1, keepdims=0))
    with pytest.raises(onnx_lrp.UnsupportedModel, match=r"SequenceInsert.*graph input"):
        onnx_lrp.load(model, verify="never")


def test_books_of_samples_that_are_merged_with_time_at_the_embedding():
    b = Builder(np.random.default_rng(2), 17)
    ids = b.input("ids", np.array([[1, 2, 3, 0], [4, 4, 2, 1]]), ["batch", 4])
    rows = b.op("Gather", b.weight(5, 3), b.op("Reshape", ids, b.ints(-1)))
    h = b.op("MatMul", b.op("Reshape", rows, b.ints(-1, 4, 3)), b.weight(3, 4))
    model, feeds = b.case(b.gemm(b.op("ReduceMax", b.op("Tanh", h), axes=[1], keepdims=0), 4, 2))
    explanation = onnx_lrp.load(model, precision="float64", jit="eager").explain(feeds)
    assert explanation.relevance["ids"].shape == (8, 3)
    np.testing.assert_allclose(explanation.residual, 0, atol=1e-14)
    assert explanation.residual.shape == (2,)


@pytest.mark.parametrize("jit", ["eager", "graph"])
@pytest.mark.parametrize(("op", "keepdims"), [("ReduceMax", 0), ("ReduceMin", 1)])
def test_the_extreme_of_all_entries_takes_all(op, keepdims, jit):
    b = Builder(np.random.default_rng(3), 18)
    x = b.input("x", b.numbers(2, 3), [2, 3])
    case = b.case(b.op(op, x, keepdims=keepdims))
    got = onnx_lrp.load(case[0], precision="float64", jit=jit).explain(case[1], onnx_lrp.targets.seed(lambda z: np.ones_like(z)))
    want = np.zeros(6)
    want[(np.argmax if op == "ReduceMax" else np.argmin)(case[1]["x"])] = 1
    np.testing.assert_array_equal(got.relevance["x"], want.reshape(2, 3))


def _numbered(b, x):
    """0, 1, … for each entry of the last axis of x (B, T): computed, and the same for all samples."""
    count = b.op("Squeeze", b.op("Shape", x, start=1, end=2), b.ints(0))
    numbers = b.op("Range", b.const(0, np.int64), count, b.const(1, np.int64))
    return b.op("Cast", numbers, to=TensorProto.FLOAT)


def _scattered(b, x, updates):
    return b.op("ScatterND", x, b.const([[1, 0], [0, 2], [1, 2]], np.int64), updates)


def _selected(b, x):
    """m·x + (1 − m)·f with m and f the same for all samples."""
    f = _numbered(b, x)
    mask = b.op("Less", f, b.const(np.float32(1.5)))
    first, second = (b.op("Cast", m, to=TensorProto.FLOAT) for m in (mask, b.op("Not", mask)))
    return b.op("Add", b.op("Mul", first, x), b.op("Mul", second, f))


COMMON = {
    "Where": (lambda b, x: b.op("Where", b.const([True, False, False]), x, _numbered(b, x)), [[0, 1, 1], [0, 1, 1]]),
    "Pad": (
        lambda b, x: b.op("Pad", x, b.ints(0, 0, 0, 1), b.op("ReduceMax", _numbered(b, x), keepdims=0)),
        [[0, 0, 0, 1], [0, 0, 0, 1]],
    ),
    "computed updates": (lambda b, x: _scattered(b, x, _numbered(b, x)), [[0, 0, 1], [1, 0, 1]]),
    "constant updates": (lambda b, x: _scattered(b, x, b.const([5, 6, 7], np.float32)), [[0, 0, 1], [1, 0, 1]]),
    "constant rows": (lambda b, x: b.op("ScatterND", x, b.const([[1]], np.int64), b.weight(1, 3)), [[0, 0, 0], [1, 1, 1]]),
    "mask": (_selected, [[0, 0, 1], [0, 0, 1]]),
}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", COMMON)
def test_what_is_the_same_for_all_samples_absorbs_the_relevance_of_each(name, inside):
    """Constants that are computed without the batch axis, or written over the samples' own entries; ``inside`` a block, too."""
    make, taken = COMMON[name]
    b = Builder(np.random.default_rng(4), 18)
    x = b.input("x", b.numbers(2, 3), [2, 3] if name.startswith("co") else ["B", "T"])
    y = make(b, x)
    model, feeds = b.case(b.op("Add", y, b.op("Mul", y, b.const(np.float32(2)))) if inside else y)
    seed = np.arange(1.0, np.size(taken) + 1).reshape(np.shape(taken))
    got = onnx_lrp.load(model, epsilon=1e-9, precision="float64", jit="eager").explain(feeds, onnx_lrp.targets.seed(seed))
    np.testing.assert_allclose(got.residual, 0, atol=1e-12)
    if not inside:
        np.testing.assert_allclose(got.absorbed["constant"], (seed * taken).sum(1))


@pytest.mark.parametrize("gates", ["half", "abs", "prop"])
def test_a_constant_for_all_samples_absorbs_what_each_gate_leaves_it(gates):
    b = Builder(np.random.default_rng(4), 18)
    x = b.input("x", b.numbers(2, 3), ["B", "T"])
    model, feeds = b.case(b.op("Mul", b.op("Sigmoid", x), b.op("Add", _numbered(b, x), b.const(np.float32(1)))))
    explainer = onnx_lrp.load(model, gates=gates, precision="float64", jit="eager")
    got = explainer.explain(feeds, onnx_lrp.targets.seed(np.arange(6.0).reshape(2, 3)))
    np.testing.assert_allclose(got.residual, 0, atol=1e-12)


def test_elements_gathered_at_fewer_places_than_the_data_have():
    """Away from its axis a GatherElements has the lengths of its indices; a sum over the one entry that is left is none."""
    b = Builder(np.random.default_rng(4), 18)
    x = b.input("x", b.numbers(2, 4, 2), ["batch", 4, 2])
    y = b.op("GatherElements", x, b.const([[[0]], [[1]]], np.int64), axis=2)
    model, feeds = b.case(b.over("ReduceSum", y, 1, keepdims=0))
    explainer = onnx_lrp.load(model, epsilon=0.5, precision="float64", jit="eager")
    got = explainer.explain(feeds, onnx_lrp.targets.seed(np.array([[1.0], [2.0]])))
    want = np.zeros((2, 4, 2))
    want[0, 0, 0], want[1, 0, 1] = 1, 2
    np.testing.assert_array_equal(got.relevance["x"], want)
