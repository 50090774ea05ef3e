"""Normalizers in every spelling, and what is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

import onnx_lrp
from onnx_lrp.testing.build import Builder


def relevance(model, feeds):
    return onnx_lrp.load(model, precision="float64", jit="eager", verify="never").explain(feeds)


def one(b):
    return b.const(np.float32(1))


INVERSES = {
    "Reciprocal": lambda b, v: b.op("Reciprocal", v),
    "Div": lambda b, v: b.op("Div", one(b), v),
    "Pow": lambda b, v: b.op("Pow", v, b.const(np.float32(-1))),
    "root twice": lambda b, v: b.op("Pow", b.op("Mul", v, v), b.const(np.float32(-0.5))),
    "Sqrt": lambda b, v: b.op("Div", one(b), b.op("Sqrt", b.op("Mul", v, v))),
}


@pytest.mark.parametrize("how", INVERSES)
def test_normalizers_are_constants(how):
    """x · 1/v gives x everything and v nothing, however 1/v is written; a division does the same."""

    def build(inverse):
        b = Builder(np.random.default_rng(1), 17)
        x, v = b.rows(2, 3), b.rows(2, 3, "v")
        positive = b.op("Add", b.op("Abs", v), one(b))
        z = b.op("Add", b.op("MatMul", x, b.weight(3, 3)), b.weight(3))
        y = b.op("Div", z, positive) if inverse is None else b.op("Mul", z, inverse(b, positive))
        return b.case(b.op("MatMul", b.op("Add", y, b.op("Mul", v, b.const(np.float32(0.1)))), b.weight(3, 2)))

    want, got = relevance(*build(None)), relevance(*build(INVERSES[how]))
    for point, array in want.relevance.items():
        np.testing.assert_allclose(got.relevance[point], array, atol=1e-9 * np.abs(array).max())


def three(b, x):
    return b.op("Einsum", x, x, x, equation="bi,bi,bi->bi")


REFUSED = {
    "3 operands; at most two are read": three,
    "base and exponent both depend": lambda b, x: b.op("Pow", b.op("Abs", x), x),
    "the slope depends": lambda b, x: b.op("PRelu", x, b.op("Tanh", x)),
    "the axis must be constant": lambda b, x: b.op("CumSum", x, b.op("Sub", b.op("Size", b.op("Shape", x)), b.const(1, np.int64))),
    "axes must be constant": lambda b, x: b.op(
        "ReduceSum", x, b.op("Mul", b.op("Shape", x, start=0, end=1), b.const([0], np.int64)), keepdims=1
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_refused_says_so(why):
    b = Builder(np.random.default_rng(0), 17)
    model, _ = b.case(b.op("Tanh", REFUSED[why](b, b.rows(2, 3))))
    with pytest.raises(onnx_lrp.UnsupportedModel, match=why):
        onnx_lrp.load(model)


@pytest.mark.parametrize("jit", ["eager", "graph"])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("equation", "shape", "other"), [("bij,bjk->bik", (1, 4, 2), (3, 4, 2)), ("bij,jk->bik", (1, 2), (4, 2))])
def test_an_axis_of_one_entry_is_repeated_in_an_einsum(equation, shape, other, first, jit):
    """As numpy and onnxruntime do; ``first``: the constant is the first operand."""

    def build(expanded):
        b = Builder(np.random.default_rng(2), 17)
        x = b.series(2, 3, 4)
        w = b.numbers(*shape)
        w = b.const(np.broadcast_to(w, other) if expanded else w)
        left, right = equation.split("->")[0].split(",")
        operands, terms = ((w, x), (right, left)) if first else ((x, w), (left, right))
        y = b.op("Einsum", *operands, equation=f"{terms[0]},{terms[1]}->bik")
        return b.case(b.op("MatMul", b.op("Tanh", y), b.weight(2, 3)))

    got, want = (onnx_lrp.load(m, precision="float64", jit=jit).explain(feeds) for m, feeds in map(build, (False, True)))
    np.testing.assert_allclose(got.relevance["x"], want.relevance["x"], rtol=1e-9)
    np.testing.assert_allclose(got.residual, 0, atol=1e-12)


MASKS = {
    "Cast": (lambda b, m: b.op("Cast", m, to=1), 1.0, 0.0),
    "product": (lambda b, m: b.op("Mul", b.op("Cast", m, to=1), b.op("Cast", m, to=1)), 1.0, 0.0),
    "Where": (lambda b, m: b.op("Where", m, b.const(np.float32(1)), b.const(np.float32(0))), 1.0, 0.0),
    "scaled": (lambda b, m: b.op("Mul", b.op("Cast", m, to=1), b.const(np.float32(0.25))), 0.25, 0.0),
    "two weights": (lambda b, m: b.op("Where", m, b.const(np.float32(0.75)), b.const(np.float32(0.5))), 0.75, 0.5),
    "Sigmoid": (lambda b, m: b.op("Sigmoid", b.op("Cast", m, to=1)), 1 / (1 + np.exp(-1)), 0.5),
}


@pytest.mark.parametrize("how", MASKS)
def test_a_mask_that_mixes_shares_by_the_terms(how):
    """m·a + (1 − m)·b selects where m is 0 or 1; weights that a bool chooses between share as any others."""
    make, true, false = MASKS[how]
    b = Builder(np.random.default_rng(2), 17)
    x, y = b.rows(2, 3), b.rows(2, 3, "y")
    given = np.array([[1, 0, 1], [0, 1, 1]], bool)
    m = make(b, b.input("m", given, ["batch", 3]))
    rest = b.op("Sub", one(b), m)
    z = b.op("Add", b.op("Mul", m, x), b.op("Mul", rest, y))
    model, feeds = b.case(b.op("Tanh", z))
    epsilon = 0.1
    got = onnx_lrp.load(model, epsilon=epsilon, precision="float64", jit="eager").explain(
        feeds, onnx_lrp.targets.seed(np.ones((2, 3)))
    )
    weight = np.where(given, true, false)
    first, second = weight * feeds["x"], (1 - weight) * feeds["y"]
    total = first + second
    whole = weight if {true, false} == {0, 1} else first / (total + epsilon * np.sign(total))
    other = 1 - weight if {true, false} == {0, 1} else second / (total + epsilon * np.sign(total))
    np.testing.assert_allclose(got.relevance["x"], whole, rtol=1e-6)
    np.testing.assert_allclose(got.relevance["y"], other, rtol=1e-6)


@pytest.mark.parametrize("fixed", ["q", "k", "qk"])
@pytest.mark.parametrize("op", ["Attention", "MultiHeadAttention"])
def test_an_attention_with_learned_queries_is_its_spelling(op, fixed):
    """Queries and keys that are constant, and values that aren't; one head."""

    def build(fused):
        b = Builder(np.random.default_rng(5), 23 if op == "Attention" else 17)
        x = b.input("x", b.numbers(1, 4, 3), [1, 4, 3])
        learned = {c: b.weight(1, 4, 3) for c in "qk"}
        q, k = (learned[c] if c in fixed else x for c in "qk")
        if fused:
            own = {"q_num_heads": 1, "kv_num_heads": 1} if op == "Attention" else {"num_heads": 1, "domain": "com.microsoft"}
            y = b.op(op, q, k, x, **own)
        else:
            scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 2, 1]))
            weights = b.op("Softmax", b.op("Mul", scores, b.const(np.float32(3**-0.5))), axis=-1)
            y = b.op("MatMul", weights, x)
        return b.case(b.op("MatMul", b.op("Tanh", y), b.weight(3, 2)))

    got, want = (onnx_lrp.load(m, precision="float64", jit="eager").explain(f).relevance["x"] for m, f in map(build, (True, False)))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("fixed", ["v", "kv"])
def test_an_attention_to_constant_values_is_refused_by_what_is_wrong(fixed):
    b = Builder(np.random.default_rng(5), 23)
    x = b.input("x", b.numbers(1, 4, 3), [1, 4, 3])
    operands = [b.weight(1, 4, 3) if c in fixed else x for c in "qkv"]
    model, _ = b.case(b.op("Attention", *operands, q_num_heads=1, kv_num_heads=1))
    with pytest.raises(onnx_lrp.UnsupportedModel, match="values are constant"):
        onnx_lrp.load(model, verify="never")


@pytest.mark.parametrize(("data", "slope"), [((1, 3), (2, 3)), ((4, 3), (1, 4, 3))])
def test_a_slope_that_is_wider_than_the_data_is_refused(data, slope):
    """It would repeat them, which onnxruntime does and the standard does not."""
    b = Builder(np.random.default_rng(5), 17)
    model, _ = b.case(b.op("PRelu", b.input("x", b.numbers(*data), data), b.weight(*slope)))
    with pytest.raises(onnx_lrp.UnsupportedModel, match="does not broadcast"):
        onnx_lrp.load(model, verify="never")
