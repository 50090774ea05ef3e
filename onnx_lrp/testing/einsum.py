"""Einsum equations of one operand and two: transposed sums, dense layers, elementwise products, attention."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["einsum_spellings", "einsums"]

# equation of x (B, T, W) and → axes of a constant second factor ("": there is none)
EQUATIONS: dict[str, str] = {
    "btw->bwt": "",
    "...w->...": "",
    "btw -> bw": "",
    "btw": "",
    "b...->...b": "",
    "btw,wh->bth": "wh",
    "...w,wh->...h": "wh",
    "btw,wh": "wh",  # implicit: bht
    "ht,btw->bhw": "ht",
    "btw,t->bw": "t",
    "btw,w->btw": "w",
    "btw,hw->bt": "hw",
    "btw,h->bwth": "h",
    "btw,...w->bt...": "w",
    "...tw,...tw->...w": "1tw",  # onnxruntime wants both ellipses to be of one rank
}
# equation of x·w (B, T, T), or with a constant second factor
DIAGONALS: dict[str, str] = {"btt->bt": "", "...tt": "", "btt,th->bh": "th", "btt,tt->bt": "tt", "btt,bss->b": "", "...tt->...": ""}
SIGNALS = ("btw,bsw->bts", "...tw,...sw->...ts", "btw,btw->btw", "btw,btv->bwv", "btw,bsv->b")
GATED = ("bst,btw->bsw", "...st,...tw->...sw", "btw,bst->bsw")


@st.composite
def einsums(draw: Any, *, equation: str | None = None) -> Case:
    """One Einsum between dense layers. ``equation``: one of ``EQUATIONS``, or any (None). Shrinks to a transpose."""
    b = Builder(draw(generators()), draw(opsets(least=13)))
    batch, time, width, hidden = (draw(st.integers(1, 3)) for _ in range(4))
    sizes = {"b": batch, "t": time, "w": width, "h": hidden, "1": 1}
    x = b.series(time, batch, width)
    z = b.op("Tanh", x) if draw(st.booleans()) else b.op("Add", b.op("MatMul", x, b.weight(width, width)), b.weight(width))
    equation = equation or draw(st.sampled_from([*EQUATIONS, *SIGNALS, *GATED, *DIAGONALS]))
    if equation in EQUATIONS:
        axes = EQUATIONS[equation]
        operands = (z, b.weight(*(sizes[a] for a in axes))) if axes else (z,)
        if equation.startswith("ht"):
            operands = operands[::-1]
        y = b.op("Einsum", *operands, equation=equation)
    elif equation in DIAGONALS:
        axes = DIAGONALS[equation]
        square = b.op("MatMul", z, b.weight(width, time))
        others = (b.weight(*(sizes[a] for a in axes)),) if axes else (b.op("Tanh", square),) if "," in equation else ()
        y = b.op("Einsum", square, *others, equation=equation)
    elif equation in SIGNALS:
        y = b.op("Einsum", z, b.op("Tanh", b.op("MatMul", x, b.weight(width, width))), equation=equation)
    else:
        gate = b.op("Softmax", b.op("MatMul", x, b.weight(width, time)), axis=2)
        y = b.op("Einsum", *((z, gate) if equation.startswith("btw") else (gate, z)), equation=equation)
    last = b.op("Tanh", y) if draw(st.booleans()) else y
    front = equation.replace(" ", "").partition("->")[2] or ("bht" if "," in equation else equation)
    if front.endswith("b") and front != "b":
        last = b.op("Transpose", last, perm=[2, 0, 1])
    rows = b.op("Reshape", last, b.ints(0, -1))
    return b.case(b.over("ReduceSum", rows, 1, keepdims=1))


@st.composite
def einsum_spellings(draw: Any) -> tuple[list[Any], dict[str, Any]]:
    """Networks written with MatMul and with Einsum: (pairs of models, inputs). Equal networks must get equal relevance."""
    rng = draw(generators())
    batch, time, width, hidden = (draw(st.integers(1, 3)) for _ in range(4))
    array = rng.normal(0, 1, (batch, time, width)).astype("float32")
    arrays = [rng.normal(0, 1, s).astype("float32") for s in ((width, hidden), (hidden,), (width, time), (hidden, 2))]
    pairs = []
    for kind in draw(st.lists(st.sampled_from(["dense", "attention", "signals", "transpose", "scale"]), min_size=1, unique=True)):
        models = []
        for spelled in (False, True):
            b = Builder(rng, 17)
            x = b.input("x", array, ["batch", time, width])
            w, c, scores, v = (b.const(a) for a in arrays)
            z = b.op("Add", b.op("Einsum", x, w, equation="btw,wh->bth") if spelled else b.op("MatMul", x, w), c)
            if kind == "attention":
                gate = b.op("Softmax", b.op("MatMul", x, scores), axis=2)
                z = b.op("Einsum", gate, z, equation="bst,btw->bsw") if spelled else b.op("MatMul", gate, z)
            elif kind == "signals":
                other = b.op("Transpose", b.op("Tanh", z), perm=[0, 2, 1])
                product = b.op("Einsum", z, other, equation="bij,bjk->bik") if spelled else b.op("MatMul", z, other)
                z = b.op("MatMul", product, z) if not spelled else b.op("Einsum", product, z, equation="...ij,...jk->...ik")
            elif kind == "transpose":
                z = b.op("Einsum", z, equation="bij->bji") if spelled else b.op("Transpose", z, perm=[0, 2, 1])
                z = b.op("Transpose", b.op("Tanh", z), perm=[0, 2, 1])
            elif kind == "scale":
                z = b.op("Einsum", z, c, equation="bij,j->bij") if spelled else b.op("Mul", z, c)
            y = b.op("Einsum", z, equation="bij->bj") if spelled else b.over("ReduceSum", z, 1, keepdims=0)
            models.append(b.case(b.op("Einsum", y, v, equation="bj,jk->bk") if spelled else b.op("MatMul", y, v))[0])
        pairs.append(models)
    return pairs, {"x": array}
