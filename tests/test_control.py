"""If, Loop and Scan in forms that no cell spelling has: branches by call or shape, directions, early ends, nesting, captures."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_lrp
from onnx_lrp import testing

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
RNG = np.random.default_rng(3)


def info(name, kind=FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def const(name, array, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(array, dtype), name)


def numbers(*shape):
    return RNG.normal(0, 0.8, shape).astype(np.float32)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attributes)


def graph(nodes, inputs, outputs, constants=(), name="body"):
    return helper.make_graph(nodes, name, inputs, outputs, list(constants))


def model(nodes, inputs, outputs, constants=(), opset=17):
    made = helper.make_model(
        graph(nodes, inputs, outputs, constants, "main"), opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )
    return made


def laws(made, feeds):
    testing.assert_matches_runtime(made, feeds)
    for jit in ("eager", "graph"):
        testing.assert_conserves(made, feeds, jit=jit)
        testing.assert_conserves(made, feeds, precision="float64", jit=jit)
    testing.assert_conserves(made, feeds, precision="float64", bias_factor=1.0)
    testing.assert_batch_equivariant(made, feeds)
    testing.assert_linear(made, feeds)


def relevance(made, feeds, **options):
    options = {"precision": "float64", "jit": "eager", "verify": "always", **options}
    return onnx_lrp.load(made, **options).explain(feeds).relevance


# If

WEIGHTS = [const("w1", numbers(3, 2)), const("w2", numbers(3, 2)), const("b", numbers(2))]


def branching(condition_nodes, condition="go", inputs=()):
    then = graph([node("MatMul", ["x", "w1"], ["h"]), node("Add", ["h", "b"], ["y1"])], [], [info("y1")], name="then")
    otherwise = graph([node("MatMul", ["x", "w2"], ["h"]), node("Identity", ["h"], ["y2"])], [], [info("y2")], name="else")
    nodes = [*condition_nodes, node("If", [condition], ["y"], then_branch=then, else_branch=otherwise)]
    return model(nodes, [info("x", shape=["batch", 3]), *inputs], [info("y")], WEIGHTS)


def straight(weight, bias):
    nodes = [node("MatMul", ["x", weight], ["h"]), node("Add", ["h", "b"], ["y"]) if bias else node("Identity", ["h"], ["y"])]
    return model(nodes, [info("x", shape=["batch", 3])], [info("y")], WEIGHTS)


@pytest.mark.parametrize("taken", [True, False])
def test_a_branch_by_input_is_the_graph_without_it(taken):
    x = numbers(2, 3)
    made = branching([], inputs=[info("go", BOOL, [])])
    explainer = onnx_lrp.load(made, precision="float64", jit="eager")
    plain = relevance(straight("w1" if taken else "w2", taken), {"x": x})["x"]
    for _ in range(2):  # both ways from one explainer
        got = explainer.explain({"x": x, "go": np.asarray(taken)})
        np.testing.assert_allclose(got.relevance["x"], plain, rtol=1e-12)
        explainer.explain({"x": x, "go": np.asarray(not taken)})
    laws(made, {"x": x, "go": np.asarray(taken)})


def test_a_branch_by_values():
    count = [node("ReduceSum", ["x"], ["s"], keepdims=0), node("Greater", ["s", "zero"], ["go"])]
    made = branching(count)
    made.graph.initializer.append(const("zero", 0.0))
    x = np.abs(numbers(2, 3))
    np.testing.assert_allclose(relevance(made, {"x": x})["x"], relevance(straight("w1", True), {"x": x})["x"], rtol=1e-12)
    np.testing.assert_allclose(relevance(made, {"x": -x})["x"], relevance(straight("w2", False), {"x": -x})["x"], rtol=1e-12)


@pytest.mark.parametrize(("size", "says"), [(1, "one sample at a time"), (2, "for batches of 2; export it with")])
def test_a_branch_of_a_file_for_one_batch_size(size, says):
    made = branching([node("ReduceSum", ["x"], ["s"], keepdims=0), node("Greater", ["s", "zero"], ["go"])])
    made.graph.initializer.append(const("zero", 0.0))
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    explainer = onnx_lrp.load(made, jit="eager")
    assert explainer.explain(numbers(size, 3)).seed.shape == (size,)
    for asked in (explainer.explain, explainer.predict):
        with pytest.raises(onnx_lrp.InputError, match="'x': batch 3, but") as caught:
            asked(numbers(3, 3))
        assert says in str(caught.value)
    with pytest.raises(onnx_lrp.InputError, match="axis 1 has size 4, expected 3"):
        explainer.explain(numbers(size, 4))


def test_a_branch_by_shape():
    """As PyTorch writes squeeze(1): only where that axis has length 1."""
    then = graph([node("Squeeze", ["h", "one"], ["a"])], [], [info("a")], name="then")
    otherwise = graph([node("Identity", ["h"], ["c"])], [], [info("c")], name="else")
    nodes = [
        node("MatMul", ["x", "w1"], ["h"]),
        node("Shape", ["h"], ["shape"]),
        node("Gather", ["shape", "one"], ["size"]),
        node("Equal", ["size", "one"], ["go"]),
        node("If", ["go"], ["y"], then_branch=then, else_branch=otherwise),
    ]
    made = model(nodes, [info("x", shape=["batch", "length", 3])], [info("y")], [*WEIGHTS, const("one", [1], np.int64)])
    explainer = onnx_lrp.load(made, verify="always")
    for length in (1, 4):
        x = numbers(2, length, 3)
        explanation = explainer.explain(x)
        assert explanation.outputs["y"].shape == ((2, 2) if length == 1 else (2, length, 2))
        np.testing.assert_allclose(explanation.residual, 0, atol=1e-5)


def test_nested_branches():
    inner = graph([node("MatMul", ["x", "w1"], ["p"])], [], [info("p")], name="inner")
    other = graph([node("MatMul", ["x", "w2"], ["p"])], [], [info("p")], name="other")  # both may use one name
    then = graph(
        [node("If", ["b2"], ["q"], then_branch=inner, else_branch=other), node("Add", ["q", "b"], ["y1"])],
        [],
        [info("y1")],
        name="then",
    )
    otherwise = graph([node("MatMul", ["x", "w2"], ["p"])], [], [info("p")], name="else")
    nodes = [node("If", ["b1"], ["y"], then_branch=then, else_branch=otherwise)]
    made = model(nodes, [info("x", shape=["batch", 3]), info("b1", BOOL, []), info("b2", BOOL, [])], [info("y")], WEIGHTS)
    for first, second in ((True, True), (True, False), (False, True)):
        laws(made, {"x": numbers(2, 3), "b1": np.asarray(first), "b2": np.asarray(second)})


def test_summary_says_that_branches_are_open():
    text = str(onnx_lrp.load(branching([], inputs=[info("go", BOOL, [])])).summary())
    assert "condition" in text


# Loop and Scan

CELL = [
    const("W", numbers(3, 4)),
    const("U", numbers(4, 4)),
    const("c", numbers(4)),
    const("head", numbers(4, 2)),
    const("zero", np.zeros((2, 4))),
]


def cell(row="row", before="before", after="after", extra=()):
    return [
        node("MatMul", [row, "W"], ["xw"]),
        node("MatMul", [before, "U"], ["hu"]),
        node("Sum", ["xw", "hu", "c"], ["z"]),
        node("Tanh", ["z"], [after]),
        *extra,
    ]


def scanned(directions=(0,), axes=(0,), out_axes=(0,), out_directions=(0,), shape=("time", 2, 3)):
    body = graph(cell(extra=[node("Identity", ["after"], ["out"])]), [info("before"), info("row")], [info("after"), info("out")])
    nodes = [
        node("Scan", ["zero", "x"], ["last", "all"], body=body, num_scan_inputs=1, scan_input_directions=list(directions),
             scan_input_axes=list(axes), scan_output_axes=list(out_axes), scan_output_directions=list(out_directions)),
        node("ReduceMean", ["all"], ["mean"], axes=[out_axes[0]], keepdims=0),
        node("Add", ["mean", "last"], ["sum"]),
        node("MatMul", ["sum", "head"], ["y"]),
    ]  # fmt: skip
    return model(nodes, [info("x", shape=list(shape))], [info("y")], CELL)


@pytest.mark.parametrize("backwards", [0, 1])
@pytest.mark.parametrize("flipped", [0, 1])
def test_scan_directions(backwards, flipped):
    x = numbers(5, 2, 3)
    made = scanned((backwards,), out_directions=(flipped,))
    testing.assert_matches_runtime(made, {"x": x})
    testing.assert_conserves(made, {"x": x}, precision="float64", jit="graph")
    forward = relevance(scanned(), {"x": x[::-1].copy() if backwards else x})["x"]
    np.testing.assert_allclose(relevance(made, {"x": x})["x"], forward[::-1] if backwards else forward, rtol=1e-10)


@pytest.mark.parametrize("axis", [1, -2])
def test_scan_axes(axis):
    x = numbers(2, 5, 3)
    made = scanned(axes=(axis,), out_axes=(1,), shape=(2, "time", 3))
    testing.assert_matches_runtime(made, {"x": x})
    for jit in ("eager", "graph"):
        got = relevance(made, {"x": x}, jit=jit)["x"]
        np.testing.assert_allclose(got, relevance(scanned(), {"x": x.swapaxes(0, 1).copy()})["x"].swapaxes(0, 1), rtol=1e-10)


def looped(condition=(), stop="going", trips="steps", row="number"):
    """A loop over rows of x (time, batch, 3) that also adds its states up."""
    extra = [node("Add", ["total", "after"], ["sum"]), *condition, node("Identity", ["after"], ["out"])]
    nodes = [node("Gather", ["x", row], ["row"], axis=0), *cell(extra=extra)]
    inputs = [info("number", INT, []), info("going", BOOL, []), info("before"), info("total")]
    body = graph(nodes, inputs, [info(stop, BOOL, []), info("after"), info("sum"), info("out")])
    outer = [
        node("Shape", ["x"], ["shape"], start=0, end=1),
        node("Squeeze", ["shape"], ["steps"]),
        node("Shape", ["x"], ["two"], start=1, end=2),
        node("Concat", ["two", "four"], ["size"], axis=0),
        node("Expand", ["zeros", "size"], ["start"]),
        node("Loop", [trips, "", "start", "start"], ["last", "totals", "all"], body=body),
        node("ReduceMax", ["all"], ["most"], axes=[0], keepdims=0),
        node("Sum", ["last", "totals", "most"], ["v"]),
        node("MatMul", ["v", "head"], ["y"]),
    ]
    more = [const("four", [4], np.int64), const("zeros", np.zeros((1, 4))), const("limit", 3, np.int64), const("small", 1e-3)]
    return model(outer, [info("x", shape=["time", "batch", 3])], [info("y")], [*CELL[:-1], *more])


def test_loop_with_a_number_of_steps():
    laws(looped(), {"x": numbers(4, 2, 3)})


@pytest.mark.parametrize("op", ["Identity", "Cast"])
def test_a_condition_handed_on_is_none(op):
    """Scripted loops give their condition another name, or cast it to the bool that it is: only their steps end them."""
    how = {"to": BOOL} if op == "Cast" else {}
    made, feeds = looped([node(op, ["going"], ["kept"], **how), node("Identity", ["kept"], ["on"])], "on"), {"x": numbers(4, 2, 3)}
    laws(made, feeds)
    (layer,) = (step.layer for step in onnx_lrp.load(made)._plan.steps if step.node.op == "Loop")
    assert layer.condition is None


def test_a_body_that_reads_its_condition():
    """It is true at every step, whatever ends the loop."""
    made, feeds = looped(), {"x": numbers(4, 2, 3)}
    body = next(n for n in made.graph.node if n.op_type == "Loop").attribute[0].g
    body.node[-1].CopyFrom(node("Where", ["going", "after", "before"], ["out"]))
    laws(made, feeds)
    np.testing.assert_allclose(relevance(made, feeds)["x"], relevance(looped(), feeds)["x"], rtol=1e-10)


def test_loop_that_ends_by_its_counter():
    """Fewer steps than rows: the rest gets nothing."""
    stop = [node("Less", ["number", "limit"], ["more"])]
    made, feeds = looped(stop, "more", trips=""), {"x": numbers(7, 2, 3)}
    laws(made, feeds)
    got = relevance(made, feeds)["x"]
    assert np.all(got[4:] == 0)
    assert np.all(np.abs(got[:4]).sum((1, 2)) > 0)


def test_loop_that_ends_by_a_state():
    """The number of steps depends on the values, so the whole batch is one sample of it."""
    stop = [node("ReduceMax", ["after"], ["most_"], keepdims=0), node("Less", ["most_", "bound"], ["more"])]
    made = looped(stop, "more")
    made.graph.initializer.append(const("bound", 0.9))
    x = numbers(6, 1, 3)
    testing.assert_matches_runtime(made, {"x": x})
    for jit in ("eager", "graph"):
        testing.assert_conserves(made, {"x": x}, precision="float64", jit=jit)


def test_a_counter_that_becomes_a_vector_of_one():
    """() before the first step, (1,) behind it, and () by what the file declares: Paddle writes its loops so."""
    made = looped()
    loop = next(n for n in made.graph.node if n.op_type == "Loop")
    body = loop.attribute[0].g
    rest = list(body.node)[1:]
    del body.node[:]
    body.node.extend([
        node("Reshape", ["own", "one"], ["here"]),
        node("Add", ["here", "one"], ["end"]),
        node("Slice", ["x", "here", "end", "first_axis"], ["rows"]),
        node("Squeeze", ["rows", "first_axis"], ["row"]),
        *rest,
        node("Add", ["own", "one"], ["next"]),
    ])  # fmt: skip
    body.input.append(info("own", INT, []))
    body.output.insert(3, info("next", INT, []))
    loop.input.append("first")
    loop.output.insert(2, "counted")
    made.graph.initializer.extend([const("one", [1], np.int64), const("first_axis", [0], np.int64), const("first", 0, np.int64)])
    x = numbers(4, 2, 3)
    laws(made, {"x": x})
    np.testing.assert_allclose(relevance(made, {"x": x})["x"], relevance(looped(), {"x": x})["x"], rtol=1e-10)


def test_loop_over_rows_from_the_end():
    """The row's number is computed in the body."""
    made = looped(row="place")
    body = next(n for n in made.graph.node if n.op_type == "Loop").attribute[0].g
    before = [node("Sub", ["last_row", "number"], ["place"])]
    rest = list(body.node)
    del body.node[:]
    body.node.extend([*before, *rest])
    at = next(k for k, n in enumerate(made.graph.node) if n.op_type == "Loop")
    nodes = list(made.graph.node)
    nodes.insert(at, node("Sub", ["steps", "unit"], ["last_row"]))
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    made.graph.initializer.append(const("unit", 1, np.int64))
    x = numbers(4, 2, 3)
    laws(made, {"x": x})
    np.testing.assert_allclose(relevance(made, {"x": x})["x"], relevance(looped(), {"x": x[::-1].copy()})["x"][::-1], rtol=1e-10)


def test_rows_read_again_collect_all_their_relevance():
    """A row's number that is no counter: the tensor is captured as a whole."""
    made = looped(row="place")
    body = next(n for n in made.graph.node if n.op_type == "Loop").attribute[0].g
    rest = list(body.node)
    del body.node[:]
    body.node.extend([node("Mod", ["number", "pair"], ["place"]), *rest])
    made.graph.initializer.append(const("pair", 2, np.int64))
    x = numbers(5, 2, 3)
    laws(made, {"x": x})
    got = relevance(made, {"x": x})["x"]
    assert np.all(got[2:] == 0)


def residual(row, before, after):
    """tanh(x U + x + h): the row is the operand of a product, and a term of the sum behind it."""
    return [
        node("MatMul", [row, "U"], [f"product_{after}"]),
        node("Sum", [f"product_{after}", row, before], [f"sum_{after}"]),
        node("Tanh", [f"sum_{after}"], [after]),
    ]


@pytest.mark.parametrize("jit", ["eager", "graph", "xla"])
def test_rows_that_are_operands_and_terms_at_once(jit):
    x, end = numbers(3, 2, 4), node("MatMul", ["last", "head"], ["y"])
    body = graph(residual("row", "before", "after"), [info("before"), info("row")], [info("after")])
    nodes = [node("Scan", ["zero", "x"], ["last"], body=body, num_scan_inputs=1), end]
    made = model(nodes, [info("x", shape=[3, 2, 4])], [info("y")], CELL)
    steps = [residual(f"x{t}", f"h{t}", f"h{t + 1}" if t < 2 else "last") for t in range(3)]
    rows = [node("Gather", ["x", f"t{t}"], [f"x{t}"], axis=0) for t in range(3)]
    more = [*(const(f"t{t}", t, np.int64) for t in range(3)), const("h0", np.zeros((2, 4)))]
    unrolled = model([*rows, *(n for step in steps for n in step), end], [info("x", shape=[3, 2, 4])], [info("y")], [*CELL, *more])
    for options in ({}, {"rule": "gamma"}):
        got, want = (relevance(m, {"x": x}, jit=jit, **options)["x"] for m in (made, unrolled))
        np.testing.assert_allclose(got, want, rtol=1e-9)


def test_a_captured_signal_inside_a_loop():
    """A decoder that sees the encoder's mean at every step."""
    made = looped()
    loop = next(n for n in made.graph.node if n.op_type == "Loop")
    body = loop.attribute[0].g
    sums = next(n for n in body.node if n.op_type == "Sum")
    sums.input.append("context")
    nodes = list(made.graph.node)
    at = nodes.index(loop)
    nodes[at:at] = [node("ReduceMean", ["x"], ["middle"], axes=[0], keepdims=0), node("MatMul", ["middle", "W2"], ["context"])]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    made.graph.initializer.append(const("W2", numbers(3, 4)))
    laws(made, {"x": numbers(4, 2, 3)})


def test_a_branch_inside_a_loop_may_go_otherwise_at_each_step():
    made = looped([node("Mod", ["number", "pair"], ["odd"]), node("Cast", ["odd"], ["is_odd"], to=BOOL)])
    made.graph.initializer.append(const("pair", 2, np.int64))
    body = next(n for n in made.graph.node if n.op_type == "Loop").attribute[0].g
    then = graph([node("Relu", ["after"], ["p"])], [], [info("p")], name="then")
    otherwise = graph([node("Neg", ["after"], ["p"])], [], [info("p")], name="else")
    last = body.node[-1]
    assert last.op_type == "Identity"
    last.op_type, last.input[0] = "If", "is_odd"
    last.attribute.extend([helper.make_attribute("then_branch", then), helper.make_attribute("else_branch", otherwise)])
    laws(made, {"x": numbers(4, 2, 3)})


def test_a_loop_inside_a_loop():
    """Two layers of steps: rows of rows."""
    inner = graph(cell("inner_row"), [info("before"), info("inner_row")], [info("after")], name="inner")
    outer = graph(
        [node("Scan", ["carried", "rows"], ["done"], body=inner, num_scan_inputs=1)],
        [info("carried"), info("rows")],
        [info("done")],
    )
    nodes = [node("Scan", ["zero", "x"], ["last"], body=outer, num_scan_inputs=1), node("MatMul", ["last", "head"], ["y"])]
    made = model(nodes, [info("x", shape=[3, "time", 2, 3])], [info("y")], CELL)
    x = numbers(3, 2, 2, 3)
    testing.assert_matches_runtime(made, {"x": x})
    for jit in ("eager", "graph"):
        testing.assert_conserves(made, {"x": x}, precision="float64", jit=jit)
    flat = graph(cell(), [info("before"), info("row")], [info("after")])
    nodes = [node("Scan", ["zero", "x"], ["last"], body=flat, num_scan_inputs=1), node("MatMul", ["last", "head"], ["y"])]
    plain = model(nodes, [info("x", shape=["time", 2, 3])], [info("y")], CELL)
    want = relevance(plain, {"x": x.reshape(6, 2, 3)})["x"].reshape(x.shape)
    np.testing.assert_allclose(relevance(made, {"x": x})["x"], want, rtol=1e-9)


def test_an_initial_state_that_is_an_input_gets_relevance():
    body = graph(cell(), [info("before"), info("row")], [info("after")])
    nodes = [node("Scan", ["h0", "x"], ["last"], body=body, num_scan_inputs=1), node("MatMul", ["last", "head"], ["y"])]
    made = model(nodes, [info("x", shape=["time", "batch", 3]), info("h0", shape=["batch", 4])], [info("y")], CELL)
    feeds = {"x": numbers(3, 2, 3), "h0": numbers(2, 4)}
    laws(made, feeds)
    assert np.abs(relevance(made, feeds)["h0"]).sum() > 0


def test_an_op_that_nobody_reads_inside_a_loop_is_named():
    body = graph(
        [*cell(after="h"), node("Strange", ["h"], ["after"], domain="acme")], [info("before"), info("row")], [info("after")]
    )
    nodes = [node("Scan", ["zero", "x"], ["last"], body=body, num_scan_inputs=1), node("MatMul", ["last", "head"], ["y"])]
    made = model(nodes, [info("x", shape=["time", 2, 3])], [info("y")], CELL)
    with pytest.raises(onnx_lrp.UnsupportedModel, match=r"Scan.*acme:Strange 'Strange_after'.*at='last'"):
        onnx_lrp.load(made)


def test_a_list_appended_to_in_a_loop_is_what_it_collects():
    """As scripts are exported: a sequence grows by one tensor a step, and is stacked behind the loop."""
    extra = [node("SequenceInsert", ["items", "after"], ["longer"])]
    nodes = [node("Gather", ["x", "number"], ["row"], axis=0), *cell(extra=extra)]
    inputs = [
        info("number", INT, []),
        info("going", BOOL, []),
        info("before"),
        helper.make_tensor_sequence_value_info("items", FLOAT, None),
    ]
    longer = helper.make_tensor_sequence_value_info("longer", FLOAT, None)
    body = graph(nodes, inputs, [info("going", BOOL, []), info("after"), longer])
    outer = [
        node("Shape", ["x"], ["shape"], start=0, end=1),
        node("Squeeze", ["shape"], ["steps"]),
        node("SequenceEmpty", [], ["none"]),
        node("Loop", ["steps", "yes", "zero", "none"], ["last", "items_"], body=body),
        node("ConcatFromSequence", ["items_"], ["all"], axis=1, new_axis=1),
        node("ReduceMean", ["all"], ["mean"], axes=[1], keepdims=0),
        node("Add", ["mean", "last"], ["sum"]),
        node("MatMul", ["sum", "head"], ["y"]),
    ]
    made = model(outer, [info("x", shape=["time", 2, 3])], [info("y")], [*CELL, const("yes", True, bool)])
    x = numbers(4, 2, 3)
    testing.assert_matches_runtime(made, {"x": x})
    for jit in ("eager", "graph"):
        testing.assert_conserves(made, {"x": x}, precision="float64", jit=jit)
        np.testing.assert_allclose(relevance(made, {"x": x}, jit=jit)["x"], relevance(scanned(), {"x": x})["x"], rtol=1e-10)


def batched(*, lens="", backwards=0):
    """The cell in a Scan of opset 8: states (B, H) and series (B, T, F), the body one step of one sample."""
    nodes = [*cell(after="h"), node("Identity", ["h"], ["after"])]
    body = graph(nodes, [info("before", shape=[4]), info("row", shape=[3])], [info("after", shape=[4]), info("h", shape=[4])])
    outer = [
        node("Scan", [lens, "zeros", "x"], ["last", "all"], body=body, num_scan_inputs=1, directions=[backwards]),
        node("ReduceMean", ["all"], ["mean"], axes=[1], keepdims=0),
        node("Add", ["mean", "last"], ["sum"]),
        node("MatMul", ["sum", "head"], ["y"]),
    ]
    inputs = [info("x", shape=[2, "time", 3]), *([info(lens, INT, [2])] if lens else [])]
    return model(outer, inputs, [info("y", shape=[2, 2])], [*CELL, const("zeros", np.zeros((2, 4)))], opset=8)


@pytest.mark.parametrize("backwards", [0, 1])
def test_a_scan_of_opset_8_has_a_batch_of_its_own(backwards):
    made, x = batched(backwards=backwards), numbers(2, 5, 3)
    testing.assert_matches_runtime(made, {"x": x})
    for jit in ("eager", "graph"):
        testing.assert_conserves(made, {"x": x}, precision="float64", jit=jit)
    onward = np.ascontiguousarray(np.swapaxes(x[:, ::-1] if backwards else x, 0, 1))
    want = np.swapaxes(relevance(scanned(), {"x": onward})["x"], 0, 1)
    np.testing.assert_allclose(relevance(made, {"x": x})["x"], want[:, ::-1] if backwards else want, rtol=1e-9)


def test_lengths_of_a_scan_of_opset_8_are_refused():
    with pytest.raises(onnx_lrp.UnsupportedModel, match="sequence_lens"):
        onnx_lrp.load(batched(lens="lens"))
