"""A whole evaluation: in Python, from files, on the command line and as a page."""

from __future__ import annotations

import csv
import json

import numpy as np
import onnx
import pytest
from test_evaluation import additive, lstm, words

import onnx_lrp
from onnx_lrp import cli
from onnx_lrp.evaluation.bootstrap import Interval
from onnx_lrp.evaluation.metrics import METRICS
from onnx_lrp.report.evaluation import _range
from onnx_lrp.report.evaluation_page import _ticks
from onnx_lrp.testing.build import Builder

QUICK = {"jit": "eager", "probes": 3, "networks": 1, "draws": 2, "resamples": 200}


@pytest.fixture(scope="module")
def found():
    model, feeds = lstm(batch=12)
    labels = onnx_lrp.load(model, jit="eager").predict(feeds)
    labels = next(iter(labels.values())).argmax(1)
    labels[:4] = 1 - labels[:4]
    return onnx_lrp.evaluate(model, feeds, labels=labels, methods="lrp,occlusion,lrp:gates=half,random", **QUICK)


def test_every_figure_has_an_interval_and_a_random_one(found):
    assert set(found.intervals) == set(METRICS)
    assert found.methods == ("lrp", "occlusion", "lrp:gates=half", "random")
    for metric, groups in found.intervals.items():
        for group, own in groups.items():
            if metric != "residual":
                assert {"lrp", "occlusion", "lrp:gates=half"} <= set(own)
            for method, interval in own.items():
                assert interval.low <= interval.mean + 1e-12, (metric, group, method)
                assert interval.mean <= interval.high + 1e-12, (metric, group, method)
        if metric not in ("gap", "residual", "milliseconds"):
            assert "random" in groups["all"]
            assert "lrp" in found.above_random[metric]["all"]
    assert (found.facts["right"], found.facts["wrong"]) == (8, 4)
    assert found.intervals["deletion"]["right"]["lrp"].count == 8
    assert found.intervals["deletion"]["wrong"]["lrp"].count == 4
    assert found.skipped == {}


def test_random_is_within_what_its_seeds_span(found):
    for metric, (low, high) in found.random_seeds.items():
        assert low <= found.value(metric, "random") <= high, metric
        own = found.intervals[metric]["all"]["random"]
        assert own.low <= found.value(metric, "random") <= own.high


def test_differences_are_of_the_same_samples(found):
    own = found.difference("deletion", "lrp", "random")
    assert own.mean == pytest.approx(found.value("deletion", "lrp") - found.value("deletion", "random"))
    assert own.mean == pytest.approx(found.above_random["deletion"]["all"]["lrp"].mean)
    assert found.difference("deletion", "lrp", "lrp").high == 0
    first = found.above_first["deletion"]
    assert set(first["all"]) == {"occlusion", "lrp:gates=half", "random"}
    for method, own in first["all"].items():
        assert own.mean == pytest.approx(found.difference("deletion", method, "lrp").mean)
    right = found.value("deletion", "occlusion", "right") - found.value("deletion", "lrp", "right")
    assert first["right"]["occlusion"].mean == pytest.approx(right)
    assert first["right"]["occlusion"].low <= right <= first["right"]["occlusion"].high


def test_figures_follow_from_the_curves(found):
    for name in ("deletion", "deletion_least"):
        for method, (mean, low, high) in found.curves[name].items():
            assert found.value(name, method) == pytest.approx(float((mean[0] - mean).mean()))
            assert np.all(low <= mean + 1e-9)
            assert np.all(mean <= high + 1e-9)
            assert len(mean) == len(found.readings) == 11


def test_occlusion_of_a_sum_is_exact_and_so_is_lrp():
    model, feeds = additive()
    found = onnx_lrp.evaluate(
        model, feeds, methods=["lrp:epsilon=0", "occlusion", "random"], parts=["curves", "completeness"], **QUICK
    )
    assert found.value("gap", "occlusion") < 1e-4
    assert found.value("gap", "lrp:epsilon=0") < 1e-4
    for metric in ("deletion", "insertion", "deletion_least"):
        assert found.value(metric, "occlusion") == pytest.approx(found.value(metric, "lrp:epsilon=0"), abs=1e-5)
        assert found.beats_random(metric, "occlusion")


def test_without_labels_what_needs_them_is_named():
    model, feeds = lstm()
    found = onnx_lrp.evaluate(model, feeds, methods="lrp", **QUICK)
    assert "no labels" in found.skipped["labels"]
    assert not {"accuracy_fall", "accuracy_rise"} & set(found.intervals)
    assert set(found.intervals["deletion"]) == {"all"}
    assert found.facts["right"] is None


def test_a_method_that_fails_is_left_out_and_named():
    b = Builder(np.random.default_rng(0), 17)
    model, feeds = b.case(b.gemm(b.op("Sqrt", b.op("Abs", b.rows(4, 3))), 3, 2))
    feeds["x"][1, 2] = 0  # a root has no derivative there
    found = onnx_lrp.evaluate(model, feeds, methods="gradient,occlusion", parts=["curves"], **QUICK)
    assert found.methods == ("occlusion", "random")
    assert "no finite" in found.skipped["gradient"]
    with pytest.raises(onnx_lrp.RuleError, match="no finite"):
        onnx_lrp.evaluate(model, feeds, methods="gradient", parts=["curves"], **QUICK)


def test_of_a_score_at_every_position_the_last_is_taken_and_the_others_named():
    b = Builder(np.random.default_rng(4), 17)
    x = b.input("x", b.numbers(6, 4, 3), ["batch", "time", 3])
    y, _ = b.ops(
        "LSTM",
        b.op("Transpose", x, perm=[1, 0, 2]),
        b.weight(1, 16, 3),
        b.weight(1, 16, 4),
        b.weight(1, 32),
        outputs=2,
        hidden_size=4,
    )
    steps = b.op("Transpose", b.op("Squeeze", y, b.ints(1)), perm=[1, 0, 2])
    model, feeds = b.case(b.op("Add", b.op("MatMul", steps, b.weight(4, 3)), b.weight(3)))
    quick = {**QUICK, "parts": ["curves", "completeness"], "methods": "lrp,occlusion"}
    found = onnx_lrp.evaluate(model, feeds, **quick)
    assert "the last is explained" in found.skipped["other positions"]
    said = onnx_lrp.evaluate(model, feeds, target=onnx_lrp.targets.step(-1), **quick)
    assert "other positions" not in said.skipped
    assert found.value("deletion", "lrp") == said.value("deletion", "lrp") != 0
    first = onnx_lrp.evaluate(model, feeds, target=onnx_lrp.targets.step(0), **quick)
    assert first.value("deletion", "lrp") != said.value("deletion", "lrp")


def test_the_same_seed_gives_the_same_figures():
    model, feeds = lstm()
    quick = {**QUICK, "parts": ["curves", "stability", "randomisation"]}
    one, two, other = (onnx_lrp.evaluate(model, feeds, methods="lrp", seed=s, **quick) for s in (1, 1, 2))
    assert one.to_dict() == two.to_dict()
    assert one.to_dict()["intervals"] != other.to_dict()["intervals"]


def test_weights_that_are_random_change_an_explanation_of_weights():
    model, feeds = lstm(batch=8)
    found = onnx_lrp.evaluate(
        model, feeds, methods="lrp,sensitivity", parts=["randomisation"], **{**QUICK, "probes": 8, "networks": 4}
    )
    assert [name.rstrip("0123456789") for name, _ in found.cascade["lrp"]] == ["Gemm", "LSTM"]
    assert abs(found.value("parameters", "lrp")) < 0.7
    assert found.value("parameters", "lrp") == found.cascade["lrp"][-1][1].mean


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"parts": ["speed"]}, "part 'speed' does not exist"),
        ({"seeds": 3}, "seeds must be at least 10"),
        ({"networks": 0}, "networks must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"noise": -1.0}, "noise must be a finite number"),
        ({"noise": float("nan")}, "noise must be a finite number"),
        ({"by": "word"}, "by='word'"),
        ({"labels": [0, 1]}, "expected 5 classes"),
        ({"labels": [0, 1, 0, 1, 7]}, "no class 7"),
        ({"target": "positive"}, "evaluation takes None"),
    ],
)
def test_what_does_not_fit_is_refused(options, says):
    model, feeds = lstm()
    with pytest.raises(onnx_lrp.OnnxLrpError, match=says):
        onnx_lrp.evaluate(model, feeds, methods="lrp", **{**QUICK, **options})


# the command line


@pytest.fixture
def files(tmp_path):
    model, _ = words()
    onnx.save(model, tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    with open(tmp_path / "data.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ids", "class"])
        for _ in range(8):
            writer.writerow([" ".join(map(str, rng.integers(0, 5, rng.integers(2, 6)))), rng.integers(0, 2)])
    return str(tmp_path / "model.onnx"), str(tmp_path / "data.csv"), tmp_path


def run(*arguments):
    return cli.run(["evaluate", *arguments, "--quiet"])


FEW = ("--probes", "2", "--networks", "1", "--resamples", "100", "--methods", "lrp,occlusion")


def test_json_is_one_document(files, capsys):
    model, data, _ = files
    assert run(model, data, "--label", "class", "--json", *FEW) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    assert found["samples"] == 8
    assert found["methods"] == ["lrp", "occlusion", "random"]
    assert found["intervals"]["deletion"]["all"]["lrp"]["count"] == 8


def test_tables_fit_a_terminal(files, capsys, monkeypatch):
    model, data, _ = files
    monkeypatch.setenv("COLUMNS", "80")
    assert run(model, data, *FEW, "--parts", "curves,erasure,sparsity") == 0
    text = capsys.readouterr().out
    assert "skipped, labels: no" in text
    assert "deletion" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--methods", "lpr"], 2, "method 'lpr' does not exist"),
        (["--label", "nothing"], 4, "no column 'nothing'"),
        (["--replace", "9"], 4, "has ids 0 to 4"),
        (["--target", "1,0"], 2, "one class for all samples"),
        (["--html", "page.txt"], 2, "ends in .html"),
        (["--target", "contrast:0,1"], 2, "one class for all samples"),
        (["--replace", "nothing"], 2, "expected zero, mean, remove or a token id"),
        (["--replace", "²"], 2, "expected zero, mean, remove or a token id"),
        (["--points", "0"], 2, "'--points'"),
        (["--networks", "0"], 2, "'--networks'"),
        (["--seeds", "9"], 2, "'--seeds'"),
        (["--seed", "-1"], 2, "'--seed'"),
        (["--noise", "-1"], 2, "--noise -1: expected a finite number"),
    ],
)
def test_wrong_usage_is_one_line(files, capsys, arguments, code, says):
    model, data, _ = files
    base = [] if "--label" in arguments else ["--label", "class"]
    assert run(model, data, *base, *arguments) == code
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_reasons_are_few_however_many_rows_have_one(files, capsys):
    model, _data, folder = files
    with open(folder / "words.csv", "w", newline="") as file:
        csv.writer(file).writerows([["ids", "class"], *([f"word {i}", 0] for i in range(20)), ["1 2", "cat"]])
    assert run(model, str(folder / "words.csv"), "--label", "class") == 4
    error = capsys.readouterr().err
    assert "1 × column 'ids': 'word 0' is no number and no list of them, and no tokenizer was given; " in error
    assert error.endswith("; 16 × other reasons\n")
    (folder / "labels.csv").write_text("ids,class\n1 2,cat\n")
    assert run(model, str(folder / "labels.csv"), "--label", "class") == 4
    assert capsys.readouterr().err.endswith(": 1 × column 'class': 'cat' is no number\n")


def test_no_difference_is_a_plain_nought():
    assert _range(Interval(0.0, -0.25, 0.0, 3)).text == "-0.250 … 0"


# the page


def test_the_page_shows_every_curve_and_loads_nothing(found, tmp_path):
    page = found.to_html(tmp_path / "page.html", title="<b>a & b</b>")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    assert "<b>a" not in page
    assert page.count("<figure>") == len(found.curves) == 6
    assert page.count('class="line') == sum(len(own) for own in found.curves.values())
    for word in ("<script", "http://", "https://", "src=", "nan"):
        assert word not in page, word


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.56, 1.4), (3, 3), (-1e-5, 2e-5), (0, 1234), (-7, -3)])
def test_ticks_span_their_range(low, high):
    found = _ticks(low, high)
    assert 2 <= len(found) <= 8
    assert found[0] <= low + 1e-12
    assert found[-1] >= high - 1e-12
