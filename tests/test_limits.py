"""What a model may ask for: every limit holds, names itself and how it is raised, and sound models don't meet it."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import apart
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_lrp
from onnx_lrp import InputError, Limits, ModelError, cli, limits
from onnx_lrp.program import Program
from onnx_lrp.runs import Runs
from onnx_lrp.testing.build import Builder

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

from bases import branching, dense, looping, scanning, with_functions


def builder():
    return Builder(np.random.default_rng(0), 17)


def names_itself(error, name):
    """A message says which limit, its value, and both ways to raise it, in one line."""
    text = str(error.value)
    for part in (f"over the limit {name}=", f"Limits({name}=", f"--limit {name}="):
        assert part in text
    assert "\n" not in text


def refused(name, value, model, *, allowed, error=ModelError, **options):
    """Over a limit it is refused by name; at ``allowed`` it is read."""
    with pytest.raises(error) as caught:
        onnx_lrp.load(model, limits=Limits(**{name: value}), **options)
    names_itself(caught, name)
    onnx_lrp.load(model, limits=Limits(**{name: allowed}), **options)


def test_size_of_the_file(tmp_path):
    data = dense().SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    for model in (data, path):
        refused("file_bytes", len(data) - 1, model, allowed=len(data))
    with pytest.raises(ModelError, match=f"{len(data):_} bytes, over"):  # what it has, not what was read of it
        onnx_lrp.load(path, limits=Limits(file_bytes=3))


def test_a_file_without_end():
    with pytest.raises(ModelError) as caught:
        onnx_lrp.load("/dev/zero", limits=Limits(file_bytes=10_000))
    names_itself(caught, "file_bytes")


def test_size_of_external_data(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(dense(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    size = (tmp_path / "weights.bin").stat().st_size
    read = sum(len(t.raw_data) for t in dense().graph.initializer)
    assert read <= size
    refused("external_bytes", read - 1, path, allowed=read)


def test_the_same_bytes_read_again_count_again(tmp_path):
    model = dense()
    weight = model.graph.initializer[0]
    (tmp_path / "w.bin").write_bytes(weight.raw_data)
    size = len(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="w.bin")
    for k in range(9):
        model.graph.initializer.add().CopyFrom(weight)
        model.graph.initializer[-1].name = f"again{k}"
    onnx.save(model, tmp_path / "model.onnx")
    refused("external_bytes", 9 * size, tmp_path / "model.onnx", allowed=10 * size)


def test_number_of_nodes():
    assert len(dense().graph.node) == 3
    refused("nodes", 2, dense(), allowed=3)
    refused("nodes", 6, with_functions(), allowed=11)  # Two calls Layer twice, and calls count until they are inlined
    refused("nodes", 5, branching(), allowed=6)


@pytest.mark.parametrize("width", [2, 3])
def test_functions_that_double_at_every_level_are_counted_and_not_expanded(width):
    model = dense()
    for level in range(40):
        names = ["x", *(f"m{k}" for k in range(width - 1)), "y"]
        op, domain = ("Tanh", "") if level == 39 else (f"f{level + 1}", "bomb")
        calls = [helper.make_node(op, [a], [b], domain=domain) for a, b in itertools.pairwise(names)]
        model.functions.append(helper.make_function("bomb", f"f{level}", ["x"], ["y"], calls, model.opset_import))
    model.opset_import.add(domain="bomb", version=1)
    model.graph.node[1].op_type, model.graph.node[1].domain = "f0", "bomb"
    with pytest.raises(ModelError) as caught:
        onnx_lrp.load(model, limits=Limits(depth=100))
    names_itself(caught, "nodes")
    with pytest.raises(ModelError) as caught:
        onnx_lrp.load(model)
    names_itself(caught, "depth")


def test_functions_that_call_each_other_in_a_circle():
    model = with_functions()
    model.functions[0].node[1].op_type, model.functions[0].node[1].domain = "Two", "local"
    with pytest.raises(onnx_lrp.InvalidModel, match="calls itself"):
        onnx_lrp.load(model)


def nested(depth, *, loop):
    """Tanh inside so many Ifs or Loops."""
    scalars = [helper.make_tensor_value_info(n, t, []) for n, t in (("k", TensorProto.INT64), ("go", TensorProto.BOOL))]
    body, name = [helper.make_node("Tanh", ["x"], ["y"])], "y"
    for level in range(depth):
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        if loop:
            inputs = [helper.make_tensor_value_info(f"{v.name}{level}", v.type.tensor_type.elem_type, []) for v in scalars]
            inner = [*body, helper.make_node("Identity", [f"go{level}"], [f"on{level}"])]
            outs = [helper.make_tensor_value_info(f"on{level}", TensorProto.BOOL, []), info]
            graph = helper.make_graph(inner, "body", inputs, outs)
            body, name = [helper.make_node("Loop", ["trips", "yes"], [f"y{level}"], body=graph)], f"y{level}"
        else:
            graph = helper.make_graph(body, "then", [], [info])
            other = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "else", [], [info.__class__(name="z")])
            body, name = [helper.make_node("If", ["yes"], [f"y{level}"], then_branch=graph, else_branch=other)], f"y{level}"
    constants = [numpy_helper.from_array(np.asarray(True), "yes"), numpy_helper.from_array(np.asarray(2), "trips")]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(body, "g", [x], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_depth_of_sub_graphs():
    refused("depth", 4, nested(5, loop=False), allowed=5)


def test_depth_that_would_overflow_the_stack():
    with pytest.raises(ModelError) as caught:
        onnx_lrp.load(nested(30, loop=False))
    names_itself(caught, "depth")


def test_loops_inside_each_other():
    refused("loops", 2, nested(3, loop=True), allowed=3)


@pytest.mark.parametrize("dims", [[2**20, 2**20], [2**62, 4], [2**31, 2**31, 2**31]])
def test_declared_shapes_are_held_against_a_limit_before_anything_is_allocated(dims):
    model = dense()
    model.graph.initializer[0].dims[:] = dims
    with pytest.raises(ModelError) as caught:
        onnx_lrp.load(model)
    names_itself(caught, "tensor_elements")


def bomb(op):
    """A weight that is folded from a few bytes; also how many entries it has."""
    b = builder()
    x = b.rows(2, 4)
    sizes = [4, 1000]
    made = {
        "ConstantOfShape": lambda: b.op("ConstantOfShape", b.ints(*sizes)),
        "Expand": lambda: b.op("Expand", b.weight(1, 1), b.ints(*sizes)),
        "Tile": lambda: b.op("Tile", b.weight(4, 1), b.ints(1, 1000)),
        "Pad": lambda: b.op("Pad", b.weight(4, 1), b.ints(0, 0, 0, 999)),
        "Add": lambda: b.op("Add", b.weight(4, 1), b.weight(1, 1000)),
        "MatMul": lambda: b.op("MatMul", b.weight(4, 1), b.weight(1, 1000)),
        "OneHot": lambda: b.op("OneHot", b.ints(0, 1, 2, 3), b.const(1000, np.int64), b.const([0, 1], np.float32)),
    }
    return b.case(b.op("MatMul", x, made[op]()))[0]


@pytest.mark.parametrize("op", ["ConstantOfShape", "Expand", "Tile", "Pad", "Add", "MatMul", "OneHot"])
def test_folding_is_measured_before_it_is_done(op):
    refused("tensor_elements", 3999, bomb(op), allowed=4000)


def test_folding_a_terabyte_takes_no_memory():
    b = builder()
    x = b.rows(2, 4)
    model, _ = b.case(b.op("MatMul", x, b.op("ConstantOfShape", b.ints(4, 2**38))))
    tracemalloc.start()
    with pytest.raises(ModelError) as caught:
        onnx_lrp.load(model)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    names_itself(caught, "tensor_elements")
    assert peak < 50e6


def test_all_folded_constants_together():
    b = builder()
    x = b.rows(2, 4)
    for _ in range(10):
        x = b.op("Add", x, b.op("ConstantOfShape", b.ints(1, 4)))
    refused("folding_bytes", 10 * 16 - 1, b.case(b.gemm(x, 4, 2))[0], allowed=10 * 16)
    b = builder()  # those that onnxruntime computes, too
    x = b.rows(2, 4)
    for k in range(10):
        x = b.op("Add", x, b.op("Asinh", b.const(np.full((1, 4), k, np.float32))))
    refused("folding_bytes", 10 * 16 - 1, b.case(b.gemm(x, 4, 2))[0], allowed=10 * 16)


def test_time_of_folding():
    b = builder()
    product = b.op("MatMul", b.const(np.ones((2000, 2000), np.float32)), b.const(np.ones((2000, 4), np.float32)))
    model = b.case(b.op("MatMul", b.rows(2, 2000), product))[0]
    refused("folding_seconds", 1e-9, model, allowed=100)
    with pytest.raises(ModelError, match="folding_seconds"):  # told from the sizes, before the product is made
        onnx_lrp.load(model, limits=Limits(folding_seconds=0.001))


@pytest.mark.parametrize("jit", ["eager", "graph"])
@pytest.mark.parametrize("model", [looping, scanning], ids=["Loop", "Scan"])
def test_steps_of_a_loop(model, jit):
    feeds = {"x": np.ones((3, 2, 4), np.float32)}
    with pytest.raises(InputError) as caught:
        onnx_lrp.load(model(), jit=jit, limits=Limits(trips=2)).explain(feeds)
    names_itself(caught, "trips")
    onnx_lrp.load(model(), jit=jit, limits=Limits(trips=3)).explain(feeds)


def endless(least):
    """A Loop that goes on while its state is below a number, which one more is added to at each step."""
    b = builder()
    x = b.rows(2, 3)
    start, bound, one = b.const(0, np.float32), b.const(least, np.float32), b.const(1, np.float32)
    nodes = [
        helper.make_node("Add", ["n", one], ["m"]),
        helper.make_node("Less", ["m", bound], ["on"]),
        helper.make_node("Tanh", ["h"], ["new"]),
    ]
    kinds = (("k", TensorProto.INT64), ("go", TensorProto.BOOL), ("n", TensorProto.FLOAT))
    ins = [helper.make_tensor_value_info(n, t, []) for n, t in kinds] + [
        helper.make_tensor_value_info("h", TensorProto.FLOAT, None)
    ]
    outs = [helper.make_tensor_value_info(n, t, []) for n, t in (("on", TensorProto.BOOL), ("m", TensorProto.FLOAT))]
    body = helper.make_graph(nodes, "body", ins, [*outs, helper.make_tensor_value_info("new", TensorProto.FLOAT, None)])
    _, h = b.ops("Loop", "", b.const(True), start, x, outputs=2, body=body)
    return b.case(b.gemm(h, 3, 2))


@pytest.mark.parametrize("jit", ["eager", "graph"])
def test_a_loop_that_only_a_condition_ends(jit):
    model, feeds = endless(5)
    onnx_lrp.load(model, jit=jit, limits=Limits(trips=5)).explain(feeds)
    model, feeds = endless(1e38)
    with pytest.raises(InputError) as caught:
        onnx_lrp.load(model, jit=jit, limits=Limits(trips=50)).explain(feeds)
    names_itself(caught, "trips")


def test_onnxruntime_is_ended_after_some_time():
    """What no layer reads is computed by onnxruntime, which knows no limit of steps."""
    b = builder()
    x = b.rows(2, 3)
    nodes = [helper.make_node("Not", ["no"], ["on"]), helper.make_node("Sinh", ["h"], ["new"])]
    scalars = [helper.make_tensor_value_info(n, t, []) for n, t in (("k", TensorProto.INT64), ("go", TensorProto.BOOL))]
    on, new, h = (helper.make_tensor_value_info(n, t, None) for n, t in (("on", 9), ("new", 1), ("h", 1)))
    no = numpy_helper.from_array(np.asarray(False), "no")
    body = helper.make_graph(nodes, "body", [*scalars, h], [on, new], [no])
    turned = b.op("Loop", "", b.const(True), b.op("Mul", x, b.const(0, np.float32)), body=body)
    gate = b.op("Greater", b.op("Reshape", b.op("ReduceMax", turned, keepdims=0), b.ints(1)), b.const(1, np.float32))
    y = b.op("Mul", b.gemm(x, 3, 3), b.op("Cast", gate, to=TensorProto.FLOAT))
    model, feeds = b.case(y)
    with pytest.raises(InputError) as caught:
        onnx_lrp.load(model, jit="eager", limits=Limits(run_seconds=0.3)).explain(feeds)
    names_itself(caught, "run_seconds")


def test_many_runs_under_a_limit_take_one_thread():
    """Each is ended at its own time, or not at all, whichever was there first."""
    before, ended = threading.active_count(), []
    alarm = limits._Alarm()

    def run(name, seconds, until):
        with alarm.after(seconds, lambda: ended.append(name)):
            until.wait(30)

    over, later = threading.Event(), threading.Event()
    late, soon = (threading.Thread(target=run, args=a) for a in (("late", 600.0, over), ("soon", 0.05, later)))
    late.start()
    while not alarm._due:
        time.sleep(0.001)
    soon.start()  # when the alarm is asleep for ten minutes
    for _ in range(200):
        with alarm.after(500.0, lambda: ended.append("short")):
            pass
    while not ended:
        time.sleep(0.001)
    assert threading.active_count() == before + 3
    for event, thread in ((over, late), (later, soon)):
        event.set()
        thread.join()
    assert (ended, alarm._due) == (["soon"], {})
    again = threading.Event()
    with alarm.after(0.05, again.set):
        assert again.wait(30)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_limit_in_a_forked_process():
    """Which has no thread of the process it came from, but its locks."""
    script = (
        "import os, threading, warnings\nfrom onnx_lrp import limits\nwarnings.simplefilter('ignore')\n"
        "class Run: terminate = False\n"
        "with limits.terminated(Run(), 600.0), limits._alarm._changed:\n    child = os.fork()\n"
        "if not child:\n    with limits.terminated(Run(), 0.05) as ended:\n        os._exit(0 if ended.wait(30) else 3)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = apart.python(script)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_a_folded_constant_holds_its_own_memory_and_no_more(tmp_path):
    """A pool of onnxruntime's for each of a thousand small ones came to a gibibyte of addresses."""

    b = builder()
    total, y = b.op("Sinh", b.const(np.ones(3, np.float32))), b.rows(2, 3)
    for _ in range(1000):
        total = b.op("Asinh", total)
    model, _ = b.case(b.gemm(b.op("Add", y, total), 3, 2))
    paths = tmp_path / "dense.onnx", tmp_path / "many.onnx"
    for path, proto in zip(paths, (dense(), model), strict=True):
        onnx.save(proto, path)
    script = """
import sys, onnxruntime
from onnx_lrp.reading import load_graph
for path in sys.argv[1:]:
    graph = load_graph(path)
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize:")))
"""
    done = apart.python(script, *paths)
    assert done.returncode == 0, done.stderr
    before, behind = map(int, done.stdout.split())  # KiB of addresses
    assert behind - before < 200 * 2**10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_onnxruntime_does_not_hold_large_constants_three_times(tmp_path):
    """It folds what reading has folded before."""
    b = builder()
    many = b.op("Expand", b.const(np.ones((1, 1), np.float32)), b.ints(2**25, 1))  # 128 MiB
    b.op("Add", many, b.const(0.5, np.float32))
    onnx.save(b.case(b.gemm(b.rows(2, 3), 3, 2))[0], tmp_path / "model.onnx")
    script = """
import sys, onnx_lrp, onnxruntime
def status(): return dict(line.split(":", 1) for line in open("/proc/self/status"))
explainer = onnx_lrp.load(sys.argv[1])
before = int(status()["VmRSS"].split()[0])
open("/proc/self/clear_refs", "w").write("5")
assert explainer._runtime.reference[0] is not None
print((int(status()["VmHWM"].split()[0]) - before) // 1024)
"""
    done = apart.python(script, tmp_path / "model.onnx")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 128  # MiB, of 256 that are folded


def test_nodes_that_onnxruntime_is_given_to_load(monkeypatch):
    """For the comparison, and for a prefix; without either they don't count."""
    x = np.ones((2, 3), np.float32)
    with pytest.raises(ModelError) as caught:
        onnx_lrp.load(dense(), jit="eager", limits=Limits(runtime_nodes=2)).explain(x)
    names_itself(caught, "runtime_nodes")
    assert "verify='never'" in str(caught.value)
    monkeypatch.setattr(Program, "__call__", None)  # refused before anything is run
    with pytest.raises(ModelError, match="runtime_nodes"):
        onnx_lrp.load(dense(), jit="eager", limits=Limits(runtime_nodes=2)).explain(x)
    monkeypatch.undo()
    for options in ({"limits": Limits(runtime_nodes=3)}, {"limits": Limits(runtime_nodes=2), "verify": "never"}):
        onnx_lrp.load(dense(), jit="eager", **options).explain(x)
    str(onnx_lrp.load(dense(), limits=Limits(runtime_nodes=2)).summary())
    b = builder()
    rows = b.rows(2, 3)
    far = b.op("Unique", b.op("Mul", rows, b.const(0, np.float32)))
    gate = b.op("Cast", b.op("Greater", b.op("ReduceMax", far, keepdims=1), b.const(1, np.float32)), to=TensorProto.FLOAT)
    model, feeds = b.case(b.op("Mul", b.gemm(rows, 3, 3), gate))
    with pytest.raises(ModelError) as caught:
        onnx_lrp.load(model, jit="eager", verify="never", limits=Limits(runtime_nodes=1)).explain(feeds)
    names_itself(caught, "runtime_nodes")
    onnx_lrp.load(model, jit="eager", verify="never", limits=Limits(runtime_nodes=9)).explain(feeds)


def test_memory_of_one_sample():
    model, x = scanning(), np.ones((50, 2, 4), np.float32)
    with pytest.raises(InputError, match="50 step"):
        onnx_lrp.load(model, limits=Limits(run_bytes=200)).explain({"x": x})
    onnx_lrp.load(model, jit="eager", limits=Limits(run_bytes=200_000)).explain({"x": x})


def test_a_batch_that_does_not_fit_is_run_in_parts_and_not_refused():
    b = builder()
    model = b.case(b.gemm(b.op("Tanh", b.gemm(b.rows(64, 3), 3, 40)), 40, 2))[0]
    x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    whole = onnx_lrp.load(model, jit="eager").explain(x)
    parts = onnx_lrp.load(model, jit="eager", max_bytes=4000, limits=Limits(run_bytes=4000)).explain(x)
    np.testing.assert_allclose(parts.relevance["x"], whole.relevance["x"], rtol=1e-5, atol=1e-6)


def test_running_out_of_memory_makes_the_batch_smaller(monkeypatch):
    model, x = dense(), np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    whole = onnx_lrp.load(model, jit="eager").explain(x)
    run, sizes = Runs.run, []

    def little(self, feeds, *arguments, **options):
        sizes.append(len(feeds["x"]))
        if len(feeds["x"]) > 3:
            raise MemoryError
        return run(self, feeds, *arguments, **options)

    monkeypatch.setattr(Runs, "run", little)
    found = onnx_lrp.load(model, jit="eager").explain(x)
    assert sizes == [10, 2, 1, 1, 5, 2, 2, 2, 2, 2]  # whether two say the same together and alone, then the parts
    np.testing.assert_allclose(found.relevance["x"], whole.relevance["x"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.residual, whole.residual, atol=1e-6)


def test_no_memory_for_a_single_sample_is_said(monkeypatch):
    def none(self, *arguments, **options):
        raise MemoryError

    monkeypatch.setattr(Runs, "run", none)
    for x in (np.ones((4, 3), np.float32), np.eye(4, 3, dtype=np.float32)):
        with pytest.raises(InputError, match="not enough memory for 1 sample"):
            onnx_lrp.load(dense(), jit="eager").explain(x)


@pytest.mark.parametrize("wrong", [{"nodes": -1}, {"nodes": 1.5}, {"nodes": True}, {"nodes": "9"}, {"run_seconds": float("nan")}])
def test_limits_that_are_none(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Limits(**wrong)


def test_limits_as_text():
    assert Limits.parse(["file_bytes=2M", " folding_seconds = 0.5", "nodes=3k"]) == Limits(
        file_bytes=2**21, folding_seconds=0.5, nodes=3072
    )
    for text, part in (("nodes", "nodes"), ("node=1", "run_seconds"), ("nodes=", "no number"), ("nodes=x", "no number")):
        with pytest.raises(InputError, match=part):
            Limits.parse([text])


def test_limits_of_the_command_line(tmp_path, capsys):
    path = tmp_path / "model.onnx"
    onnx.save(dense(), path)
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    commands = (["inspect", path], ["weights", path, tmp_path / "w.npz"], ["check", path], ["explain", path, tmp_path / "x.npy"])
    for command in commands:
        assert cli.run([*map(str, command), "--limit", "depth=9", "--limit", "nodes=2"]) == 3
        out, err = capsys.readouterr()
        assert out == ""
        assert "over the limit nodes=2" in err
        assert cli.run([*map(str, command), "--limit", "node=2"]) == 2
        assert "--limit 'node=2'" in capsys.readouterr().err
    assert cli.run(["explain", str(path), str(tmp_path / "x.npy"), "--limit", "file_bytes=100"]) == 3
    assert not (tmp_path / "w.npz").exists()
