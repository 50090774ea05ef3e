"""The check of a given model, on the command line and as tests of another suite: it passes sound models and finds broken ones."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import hypothesis
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import onnx_lrp
import onnx_lrp.recurrence as recurrence
from onnx_lrp import InputError, cli, demo, testing
from onnx_lrp.ops import lstm as lstm_op
from onnx_lrp.testing.build import Builder
from onnx_lrp.ways import Habits

MODEL = Path(demo.__file__).with_name("sentiment.onnx")
FEW = settings(max_examples=15)


def small(path: Path, *, lens: bool = True, batch: object = "B") -> str:
    """x (T, B, 2) → LSTM of 3 units → last state → y (B, 2), with a length a sample."""
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(4, 3, 2), ["T", batch, 2])
    inputs = [x, b.weight(1, 12, 2), b.weight(1, 12, 3), b.weight(1, 24)]
    inputs += [b.input("lens", np.asarray([4, 2, 3], np.int32), [batch])] if lens else []
    h = b.ops("LSTM", *inputs, outputs=2, hidden_size=3)[1]
    model, _ = b.case(b.gemm(b.over("Squeeze", h, 0), 3, 2))
    onnx.save(model, path)
    return str(path)


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return small(tmp_path / "small.onnx")


@pytest.fixture
def swapped(monkeypatch):
    """Behind the importer's back: two gates of every LSTM change places."""
    original = recurrence.pick
    monkeypatch.setattr(lstm_op, "pick", lambda a, order, size: original(a, (order[1], order[0], *order[2:]), size))


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main([str(a) for a in arguments])
    return int(left.value.code)  # type: ignore[arg-type]


# inputs of a given model


def mixed_model():
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(2, 5, 3), ["batch", 5, 3])
    u = b.input("u", b.numbers(2, 3), ["batch", 3])
    ids = b.input("ids", np.zeros((2, 4), np.int64), ["batch", "length"])
    mask = b.input("mask", np.ones((2, 4), bool), ["batch", "length"])
    rows = b.op("Gather", b.weight(7, 3), ids, axis=0)
    kept = b.op("Mul", rows, b.over("Unsqueeze", b.op("Cast", mask, to=TensorProto.FLOAT), 2))
    parts = [b.over("ReduceSum", t, 1, keepdims=0) for t in (x, kept)]
    return b.case(b.gemm(b.op("Concat", *parts, u, axis=1), 9, 2))[0]


@FEW
@given(testing.feeds(mixed_model(), batch=2, length=3, largest=50.0))
def test_feeds_fit_the_model(feeds):
    batch, length = feeds["ids"].shape
    assert (batch in (1, 2), length in (1, 2, 3)) == (True, True)
    assert {n: a.shape for n, a in feeds.items()} == {
        "x": (batch, 5, 3),
        "u": (batch, 3),
        "ids": (batch, length),
        "mask": (batch, length),
    }
    assert {n: a.dtype.name for n, a in feeds.items()} == {"x": "float32", "u": "float32", "ids": "int64", "mask": "bool"}
    assert np.abs(feeds["x"]).max() <= 50
    assert feeds["ids"].min() >= 0
    assert feeds["ids"].max() < 7
    onnx_lrp.load(mixed_model(), jit="eager").explain(feeds)


def seen(strategy, condition):
    return hypothesis.find(strategy, condition, settings=settings(max_examples=500, database=None, derandomize=True))


@pytest.mark.parametrize(
    "condition",
    [
        lambda f: np.any(np.abs(f["x"]) == np.float32(1e-6)),
        lambda f: np.any(f["x"] == -100),
        lambda f: f["ids"].max() == 6,
        lambda f: not f["mask"].all(),
        lambda f: f["ids"].shape == (3, 6),
    ],
)
def test_feeds_reach_the_edges(condition):
    assert condition(seen(testing.feeds(mixed_model()), condition))


def test_feeds_shrink_to_one_sample_of_zeros():
    feeds = seen(testing.feeds(mixed_model()), lambda _: True)
    assert feeds["ids"].shape == (1, 1)
    assert feeds["mask"].all()
    assert not any(np.any(feeds[n]) for n in ("x", "u", "ids"))


def test_lengths_lie_between_one_and_the_steps(tmp_path):
    strategy = testing.feeds(small(tmp_path / "small.onnx"))

    @FEW
    @given(strategy)
    def law(feeds):
        assert feeds["lens"].dtype == np.int32
        assert feeds["lens"].min() >= 1
        assert feeds["lens"].max() <= len(feeds["x"])
        assert feeds["lens"].shape == feeds["x"].shape[1:2]

    law()
    assert seen(strategy, lambda f: len(f["x"]) > 2 and f["lens"].min() < f["lens"].max() == len(f["x"]))


def test_words_are_those_of_the_model():
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
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8
    )
    strategy = testing.feeds(model)
    for word in ("red", "blue", "unknown"):
        assert seen(strategy, lambda f, word=word: word in f["word"])["word"].shape == (1, 1)
    assert testing.check(model, max_examples=5).ok


def test_a_length_written_into_the_file_is_found():
    """The exporter left the axis open, but a Reshape has the traced length: other lengths make another network."""
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(2, 9, 3), ["batch", "length", 3])
    flat = b.op("Reshape", x, b.ints(-1, 27))
    y = b.gemm(flat, 27, 2)
    model, _ = b.case(y)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(y, TensorProto.FLOAT, ["batch", 2]))
    feeds = seen(testing.feeds(model), lambda f: len(f["x"]) == 1)
    assert feeds["x"].shape == (1, 9, 3)
    assert testing.check(model, max_examples=5).ok


@pytest.mark.parametrize("options", [{"batch": 0}, {"length": 0}, {"length": 1.5}, {"largest": 0}, {"largest": float("inf")}])
def test_options_of_feeds_are_checked(options):
    with pytest.raises(InputError, match=next(iter(options))):
        testing.feeds(mixed_model(), **options)


@FEW
@given(testing.rules(), testing.rules(epsilons=[0.5], bias_factors=[1.0]))
def test_rules_are_options_of_load(options, one):
    onnx_lrp.load(mixed_model(), **options)
    assert one.get("epsilon", 0.5) == 0.5
    assert one.get("bias_factor", 1.0) == 1.0


@FEW
@given(testing.seeds(shape=(2, 3)), testing.seeds(shape=(2, 3, 4), classes=1))
def test_seeds_have_the_shape(flat, positions):
    assert (flat.shape, positions.shape) == ((2, 3), (2, 3, 4))
    if set(np.unique(positions)) <= {0.0, 1.0}:
        np.testing.assert_array_equal(positions.sum(1), 1)


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (testing.rules, {"epsilons": [-1]}),
        (testing.rules, {"bias_factors": []}),
        (testing.seeds, {"shape": (0, 2)}),
        (testing.seeds, {"shape": (2,), "classes": 1}),
    ],
)
def test_options_of_strategies_are_checked(strategy, options):
    with pytest.raises(InputError):
        hypothesis.find(strategy(**options), lambda _: True)


@FEW
@given(st.one_of(testing.dense(), testing.lstms()))
def test_laws_of_one_run(case):
    testing.assert_deterministic(*case)
    testing.assert_finite(*case)


def test_an_overflow_is_noticed():
    b = Builder(np.random.default_rng(0), 17)
    model, feeds = b.case(b.op("Exp", b.rows(1, 2)))
    feeds["x"][:] = 1000
    with pytest.raises(AssertionError, match="not finite"):
        testing.assert_finite(model, feeds)


# the command


def test_a_sound_model_passes(model, capsys, tmp_path):
    assert run("check", model, "--max-examples", 10) == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["law", "examples", "worst", "figure", "bound", "ok"]
    assert [r[0] for r in rows[1:]] == list(testing.LAWS)
    assert all(r[-1] == "ok" for r in rows[1:])
    assert max(map(len, out.splitlines())) <= 80
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]


def test_a_permuted_gate_is_found_and_can_be_replayed(model, capsys, monkeypatch, swapped, tmp_path):
    assert run("check", model, "--max-examples", 20) == 1
    out, err = capsys.readouterr()
    assert err == "onnx-lrp: 1 of 6 laws broken: parity\n"
    assert "BROKEN" in out
    command = next(line for line in out.splitlines() if line.startswith("onnx-lrp check"))
    with np.load(tmp_path / "small.breach-parity.npz") as archive:
        assert archive["x"].shape == (1, 1, 2)  # shrunk
        assert archive["lens"].tolist() == [1]
    words = shlex.split(command)[1:]
    assert words[2:] == ["--replay", "small.breach-parity.npz"]
    assert run(*words) == 1
    assert "off" in capsys.readouterr().out
    assert run("explain", model, "small.breach-parity.npz", "--verify", "never", "--jit", "eager") == 0
    monkeypatch.undo()  # with the gates in order again it holds
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 0


SHIM = """#!{python}
import sys
sys.path.insert(0, {package!r})
from onnx_lrp import cli, recurrence
from onnx_lrp.ops import lstm
pick = recurrence.pick
if {swapped}:
    lstm.pick = lambda a, order, size: pick(a, (order[1], order[0], *order[2:]), size)
cli.main()
"""


def test_the_printed_command_replays_in_a_shell(tmp_path):
    """The demo model passes; read with two gates swapped it does not, and the line that is printed then does what it says."""
    shutil.copy(MODEL, tmp_path / "a copy.onnx")
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "onnx-lrp"

    def shell(line: str, *, swapped: bool) -> subprocess.CompletedProcess[str]:
        script.write_text(
            SHIM.format(python=sys.executable, package=str(Path(onnx_lrp.__file__).parents[1]), swapped=swapped), encoding="utf-8"
        )
        script.chmod(0o755)
        return subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    first = shell("onnx-lrp check 'a copy.onnx' --max-examples 5", swapped=True)
    assert (first.returncode, first.stderr) == (1, "onnx-lrp: 1 of 6 laws broken: parity\n")
    (command,) = (line for line in first.stdout.splitlines() if line.startswith("onnx-lrp check"))
    assert (tmp_path / "a copy.breach-parity.npz").is_file()
    again = shell(command, swapped=True)
    assert (again.returncode, again.stderr) == (1, "onnx-lrp: 1 of 6 laws broken: parity\n")
    assert "equivariance  skipped: no inputs say anything about it" in again.stdout  # of one sample
    sound = shell(command, swapped=False)
    assert (sound.returncode, sound.stderr) == (0, "")


def test_the_same_seed_asks_the_same(model):
    first, second = (testing.check(model, max_examples=8, seed=3, laws=["conservation"]).verdicts[0] for _ in range(2))
    assert (first.examples, first.worst) == (second.examples, second.worst)
    assert first.examples == 8


def test_a_replay_keeps_the_options(model, capsys, swapped):
    name = onnx_lrp.load(model)._plan.output
    assert run("check", model, "--max-examples", 8, "--precision", "float64", "--epsilon", "0.1", "--output", name) == 1
    command = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("onnx-lrp check"))
    assert command.endswith(f"--precision float64 --epsilon 0.1 --output {name}")


def test_json_is_one_document(model, capsys, swapped, tmp_path):
    assert run("check", model, "--max-examples", 8, "--json") == 1
    document = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    laws = {row["law"]: row for row in document["laws"]}
    assert (document["ok"], list(laws)) == (False, list(testing.LAWS))
    assert laws["conservation"]["ok"]
    assert laws["conservation"]["bound"] == 1e-5
    assert laws["parity"]["worst"] > laws["parity"]["bound"]
    assert (tmp_path / laws["parity"]["breach"]["file"]).is_file()


def test_a_crash_of_the_engine_is_a_breach(model, capsys, monkeypatch):
    def broken(*_: object) -> None:
        raise ValueError("shapes")

    monkeypatch.setattr(lstm_op.LSTM, "back", broken)
    assert run("check", model, "--max-examples", 5) == 1
    assert "the engine fails where onnxruntime does not" in " ".join(capsys.readouterr().out.split())


def test_where_onnxruntime_cannot_run_parity_is_skipped(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = testing.batch_first(onnx.load(small(tmp_path / "small.onnx")))
    onnx.save(model, tmp_path / "first.onnx")
    assert run("check", "first.onnx", "--max-examples", 5) == 0
    out = capsys.readouterr().out
    assert "skipped: onnxruntime can't run the model" in out
    assert "…" not in out
    assert next(line for line in out.splitlines() if line.startswith("parity")).split()[1:] == ["0", "skipped"]


def test_a_fixed_batch_is_kept(tmp_path):
    report = testing.check(small(tmp_path / "one.onnx", batch=1), max_examples=5)
    assert report.ok
    assert {v.law: v.note for v in report.verdicts if v.note} == {"equivariance": "one sample at a time"}
    report = testing.check(small(tmp_path / "two.onnx", batch=2), max_examples=5)
    assert report.ok
    assert {v.law: v.examples for v in report.verdicts}["equivariance"] == 5


def test_samples_with_constants_of_their_own_are_not_compared():
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(4, 2, 3), [4, 2, 3])
    h = b.ops("LSTM", x, b.weight(1, 8, 3), b.weight(1, 8, 2), "", b.const([4, 2], np.int32), outputs=2, hidden_size=2)[1]
    model, _ = b.case(b.gemm(b.over("Squeeze", h, 0), 2, 2))
    report = testing.check(model, max_examples=5)
    assert report.ok
    assert {v.law: v.examples for v in report.verdicts}["equivariance"] < 5


def test_exit_codes(model, capsys, tmp_path, monkeypatch):
    np.savez(tmp_path / "wrong.npz", y=np.zeros(2))
    for code, arguments in [
        (2, (model, "--max-examples", 0)),
        (2, (model, "--epsilon", -1)),
        (2, (model, "--replay", "x.json")),
        (3, ("nowhere.onnx",)),
        (4, (model, "--replay", "wrong.npz")),
        (4, (model, "--replay", "none.npz")),
    ]:
        assert run("check", *arguments) == code, arguments
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)


def test_a_missing_hypothesis_is_2():
    script = "import sys; sys.modules['hypothesis'] = None; from onnx_lrp import cli; cli.main(['check', sys.argv[1]])"
    done = subprocess.run([sys.executable, "-c", script, str(MODEL)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert 'pip install "onnx-lrp[test]"' in done.stderr


@pytest.mark.parametrize("wrong", [{"laws": ["gravity"]}, {"laws": []}, {"max_examples": 0}])
def test_options_of_check_are_checked(model, wrong):
    with pytest.raises(InputError):
        testing.check(model, **wrong)


def test_inputs_may_have_any_name(tmp_path):
    feeds = {"file": np.zeros(2, np.float32), "a/b:0": np.asarray(["é"], object)}
    testing.Breach(feeds, "").save(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as archive:
        assert {n: archive[n].tolist() for n in archive.files} == {"file": [0, 0], "a/b:0": ["é"]}


# the pytest plugin

INSTALLED = any(e.name == "onnx_lrp" for e in importlib.metadata.entry_points(group="pytest11"))
PLUGIN = () if INSTALLED else ("-p", "onnx_lrp.testing.plugin")


@pytest.fixture
def suite(pytester):
    small(pytester.path / "small.onnx")
    small(pytester.path / "other.onnx", lens=False)
    return pytester


def test_laws_are_tests_of_a_suite(suite):
    suite.makepyfile("def test_own(): pass")
    ran = suite.runpytest_inprocess(*PLUGIN, "-v", "--onnx-model", "*.onnx", "--onnx-max-examples", "5")
    ran.assert_outcomes(passed=13)
    wanted = [f"{name}.onnx::{law} PASSED*" for name in ("small", "other") for law in testing.LAWS]
    ran.stdout.fnmatch_lines_random(["*test_own PASSED*", *wanted])


def test_one_program_answers_all_examples(monkeypatch, tmp_path):
    """Compiled from the third call of a shape on, results would differ by rounding: determinism would seem broken."""

    def pays(*args):
        raise AssertionError("asked whether to compile")

    monkeypatch.setattr(Habits, "way", pays)
    small(tmp_path / "small.onnx")
    assert testing.check(tmp_path / "small.onnx", max_examples=5).ok


def test_laws_alone_and_by_name(suite):
    options = (*PLUGIN, "--onnx-model", "small.onnx", "--onnx-max-examples", "3", "--onnx-precision", "float64")
    suite.runpytest_inprocess(*options).assert_outcomes(passed=6)
    suite.runpytest_inprocess(*options, "-k", "parity or conservation").assert_outcomes(passed=2, deselected=4)
    suite.runpytest_inprocess(*options, "small.onnx::finiteness").assert_outcomes(passed=1)


def test_a_broken_law_fails_with_its_replay(suite, swapped):
    ran = suite.runpytest_inprocess(*PLUGIN, "--onnx-model", "small.onnx", "--onnx-max-examples", "10")
    ran.assert_outcomes(passed=5, failed=1)
    ran.stdout.fnmatch_lines(
        ["small.onnx: parity is broken", "output * is off*", "  x: float32 (1, 1, 2) = *", "replay it:", "  onnx-lrp check *"]
    )
    assert any("_ small.onnx: parity _" in line for line in ran.outlines)  # which of several models
    line = next(line for line in ran.outlines if line.startswith("  onnx-lrp check"))
    assert run(*shlex.split(line)[1:]) == 1


def test_a_failure_shows_no_notices_of_the_engine(suite):
    """TensorFlow's start-up notices would stand below the first failure as captured stderr."""
    suite.makeconftest(
        """
        from onnx_lrp import recurrence
        from onnx_lrp.ops import lstm

        pick = recurrence.pick
        lstm.pick = lambda a, order, size: pick(a, (order[1], order[0], *order[2:]), size)
        """
    )
    ran = suite.runpytest_subprocess(*PLUGIN, "--onnx-model", "small.onnx", "--onnx-max-examples", "5")
    ran.assert_outcomes(passed=5, failed=1)
    for notice in ("*absl*", "*cuda*", "*oneDNN custom operations*"):
        ran.stdout.no_fnmatch_line(notice)
        ran.stderr.no_fnmatch_line(notice)


def test_what_cannot_be_tested_is_said(suite):
    onnx.save(testing.batch_first(onnx.load("small.onnx")), "first.onnx")
    Path("text.onnx").write_text("no model")
    suite.runpytest_inprocess(*PLUGIN, "--onnx-model=first.onnx", "--onnx-max-examples=5").assert_outcomes(passed=5, skipped=1)
    ran = suite.runpytest_inprocess(*PLUGIN, "--onnx-model=text.onnx")
    ran.assert_outcomes(failed=6)
    ran.stdout.no_fnmatch_line("*Traceback*")
    assert suite.runpytest_inprocess(*PLUGIN, "--onnx-model=none.onnx").ret == pytest.ExitCode.USAGE_ERROR
    assert suite.runpytest_inprocess(*PLUGIN, "--onnx-model=small.onnx", "--onnx-max-examples=0").ret == pytest.ExitCode.USAGE_ERROR


def test_without_the_option_nothing_happens(suite):
    suite.makepyfile(
        """
        import sys

        def test_own():
            assert not {"tensorflow", "hypothesis", "onnx", "onnxruntime"} & set(sys.modules)
        """
    )
    suite.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=1)
    suite.runpytest_subprocess("-p", "no:onnx_lrp").assert_outcomes(passed=1)
