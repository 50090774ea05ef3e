"""``onnx-lrp batch``: options, what it prints, and its exit codes."""

from __future__ import annotations

import inspect
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import ids_of, parquet, reader, shards

from onnx_lrp import cli, demo
from onnx_lrp.cli import options
from onnx_lrp.cli.batch import batch
from onnx_lrp.cli.explain import explain

pytest.importorskip("pyarrow")
FAST = ["--jit", "eager", "--verify", "never"]


@pytest.fixture
def model(tmp_path):
    return reader(tmp_path / "reader.onnx")


@pytest.fixture
def file(tmp_path):
    return parquet(tmp_path / "x.parquet", [*ids_of([3, 2, 4]), None], label=[0, 1, 2, 0])


def test_all_options_of_explain_that_say_how_are_options_of_batch():
    theirs = inspect.signature(explain).parameters
    ours = inspect.signature(batch).parameters
    shared = {name for name, p in theirs.items() if p.annotation in options.__all__} - {"keep", "target"} | {"limit"}
    assert {"rule", "composite", "gates", "epsilon", "bias_factor", "at", "output", "precision", "jit", "method", "steps"} <= shared
    for name in shared:
        assert (ours[name].annotation, ours[name].default) == (theirs[name].annotation, theirs[name].default), name


def test_a_run_prints_what_it_did(tmp_path, model, file, capsys):
    out = str(tmp_path / "out")
    assert cli.run(["batch", model, file, "--out", out, "--keep", "id,label", "--target", "label", "--sum", "features", *FAST]) == 0
    printed, err = capsys.readouterr()
    assert err == ""
    assert printed.startswith("4 rows: 3 explained, 1 errors; worst residual ")
    assert "  null: 1\n" in printed
    assert printed.endswith(f"in {out}\n")
    rows = shards(Path(out))
    assert [(r["id"], r["label"], r["target"], len(r["relevance"])) for r in rows] == [(0, 0, 0, 3), (1, 1, 1, 2), (2, 2, 2, 4)]
    assert isinstance(rows[0]["relevance"][0], float)


def test_json_is_one_document_on_stdout_and_lines_on_stderr(tmp_path, model, file, capsys):
    assert cli.run(["batch", model, file, "--out", str(tmp_path / "out"), "--json", *FAST]) == 0
    printed, err = capsys.readouterr()
    assert json.loads(printed) == json.loads((tmp_path / "out" / "manifest.json").read_text())
    lines = [json.loads(line) for line in err.splitlines()]
    assert lines[-1]["rows"] == lines[-1]["total"] == 4
    assert lines[-1]["errors"] == 1
    assert cli.run(["batch", model, file, "--out", str(tmp_path / "quiet"), "--json", "--quiet", *FAST]) == 0
    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_a_bar(tmp_path, model, file):
    ours, theirs = pty.openpty()
    asked = [sys.executable, "-m", "onnx_lrp", "batch", model, file, "--out", str(tmp_path / "out"), *FAST]
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    assert process.wait() == 0
    os.close(ours)
    assert b"rows" in shown
    assert b"4/4 rows" in shown
    assert b"1 errors" in shown


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (2, ["--sum", "steps"], "--sum steps: expected features"),
        (2, ["--input", "ids"], "--input ids: expected NAME=COLUMN"),
        (2, ["--shard", "3/3"], "--shard 3/3: expected I/N"),
        (2, ["--target", "1,0"], "one class for all rows, or a column of classes"),
        (2, ["--rule", "gama"], "gama"),
        (2, ["--engine", "foo"], "'local', 'ray'"),
        (2, ["--workers", "2"], "--workers 2: of --engine ray alone"),
        (2, ["--engine", "ray", "--gpus-per-worker", "1.5"], "--gpus-per-worker 1.5: expected a part of one GPU"),
        (2, ["--shard-rows", "0"], "'--shard-rows'"),
        (2, ["--max-bytes", "0"], "'--max-bytes'"),
        (2, ["--max-length", "0"], "'--max-length'"),
        (2, ["--max-errors", "few"], "--max-errors few: expected a number of rows"),
        (2, ["--max-errors", "nan%"], "--max-errors nan%: expected a number of rows"),
        (4, ["--target", "all"], "one class a row"),
        (4, ["--target", "column:3"], "no column '3' in the dataset; there are: id, ids, label"),
        (4, ["--target", "classs"], "no column 'classs'"),
        (4, ["--max-errors", "0"], "1 of 4 rows can't be explained, more than 0; the first is row 3: column 'ids': no value"),
    ],
)
def test_exit_codes(tmp_path, model, file, code, arguments, message, capsys):
    assert cli.run(["batch", model, file, "--out", str(tmp_path / "out"), *FAST, *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_a_folder_that_can_not_be_is_5(tmp_path, model, file, capsys):
    (tmp_path / "taken").write_text("a file")
    assert cli.run(["batch", model, file, "--out", str(tmp_path / "taken"), *FAST]) == 5
    error = capsys.readouterr().err
    assert "can't be written" in error
    assert "--resume" not in error  # nothing is done that could be gone on with


def test_the_demo_model_in_three_commands(tmp_path):
    """As the documentation says."""
    rows = [demo.encode(text)[1][0].tolist() for text in demo.SENTENCES]
    source = parquet(tmp_path / "films.parquet", rows)
    (tmp_path / "sentiment.onnx").write_bytes(demo.model())
    assert (
        cli.run(["batch", str(tmp_path / "sentiment.onnx"), source, "--out", str(tmp_path / "out"), "--input", "token_ids=ids"])
        == 0
    )
    assert [len(r["relevance"]) for r in shards(tmp_path / "out")] == [len(row) for row in rows]


@pytest.mark.parametrize("command", ["batch", "evaluate"])
def test_what_a_model_may_ask_for_is_limited(tmp_path, model, file, command, capsys):
    asked = [command, model, file, *(["--out", str(tmp_path / "out"), *FAST] if command == "batch" else ["--input", "ids=ids"])]
    for code, given, message in (
        (3, ["depth=9", "nodes=2"], "over the limit nodes=2; if this is to be trusted, raise it with"),
        (3, ["file_bytes=100"], "--limit file_bytes="),
        (2, ["node=2"], "--limit 'node=2' does not exist"),
    ):
        assert cli.run([*asked, "--quiet", *(part for text in given for part in ("--limit", text))]) == code
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert message in err
    assert not (tmp_path / "out").exists()


def test_a_limit_that_is_raised_is_no_other_run(tmp_path, model, file):
    asked = ["batch", model, file, "--out", str(tmp_path / "out"), *FAST]
    assert cli.run([*asked, "--limit", "nodes=1000"]) == 0
    assert cli.run([*asked, "--limit", "nodes=2000", "--resume"]) == 0


@pytest.mark.parametrize("given", [["0"], ["4", "5"], ["many"], ["-1", "nodes=5"]])
def test_a_number_of_samples_is_one_and_positive(tmp_path, model, file, given, capsys):
    limits = [f"--limit={text}" for text in given]
    assert cli.run(["evaluate", model, file, *limits]) == 2
    assert "expected one number of samples, or NAME=NUMBER" in capsys.readouterr().err


def test_samples_and_the_model_are_limited_by_one_option(tmp_path, model, file, capsys):
    asked = ["evaluate", model, file, "--input", "ids=ids", "--methods", "lrp", "--parts", "sparsity", "--json", "--quiet"]
    assert cli.run([*asked, "--limit", "2", "--limit", "nodes=1000"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 2
