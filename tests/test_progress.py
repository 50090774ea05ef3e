"""How far a call is: shares grow to 1, loops within loops included, and a terminal alone sees them."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_batches import bilstm
from test_cli import MODEL
from test_evaluation_run import FEW

import onnx_lrp
from onnx_lrp import cli, demo
from onnx_lrp.progress import track, watched
from onnx_lrp.testing import check

TREES = st.recursive(st.just(1), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=12)


def walk(tree, leaves):
    if isinstance(tree, int):
        leaves.append(tree)
        return
    for part in track(tree):
        walk(part, leaves)


@given(tree=TREES)
def test_loops_within_loops_add_up(tree):
    """Shares grow, end at 1, and are those of a slow twin that weighs every leaf by its loops' lengths."""
    told, leaves, alone = [], [], []
    with watched(told.append):
        walk(tree, leaves)
    walk(tree, alone)  # nobody watches
    assert leaves == alone

    def weights(part, whole):
        return [whole] if isinstance(part, int) else [w for p in part for w in weights(p, whole / len(part))]

    if isinstance(tree, list):
        assert told == sorted(set(told))
        assert told[-1] == pytest.approx(1)
        sums = np.cumsum(weights(tree, 1.0))
        assert all(np.isclose(sums, share).any() for share in told)


def test_weights_say_how_long_a_round_takes():
    told = []
    with watched(told.append):
        list(track("ab", [3, 1]))
    assert told == [0.75, 1.0]


def test_a_loop_that_starts_again_tells_nothing_twice():
    told = []
    with watched(told.append):
        for _ in track([0]):
            for _ in range(2):
                list(track(range(4)))
    assert told == sorted(set(told))
    assert told[-1] == 1


def test_a_loop_closed_late_reaches_no_other_call():
    """An error's frames keep a loop open until they are cleared away, in whatever call that happens."""
    shares, others = [], []
    with watched(shares.append):
        left = track([1, 2])
        next(left)
    left.close()
    assert list(track([1, 2])) == [1, 2]
    assert shares == []
    with watched(shares.append):
        left = track([1, 2])
        next(left)
    with watched(others.append):
        for _ in track([1, 2]):
            left.close()
            assert list(track([1, 2])) == [1, 2]
    assert shares == []
    assert others == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("method", ["lrp", "occlusion"])
def test_an_explanation_tells(method):
    model, _ = bilstm()
    explainer = onnx_lrp.load(model, jit="eager")
    rng = np.random.default_rng(0)
    told = []
    given = [rng.normal(size=(n, 3)).astype(np.float32) for n in (5, 3, 2)]
    explainer.explain(given, method=method, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)
    assert {0.5, 0.8} <= {round(share, 6) for share in told}  # by steps
    again = []
    onnx_lrp.load(model, jit="eager", max_bytes=1).explain(np.stack([given[0]] * 70, 1), progress=again.append)
    assert len(again) > 1
    assert again[-1] == pytest.approx(1)


def test_a_check_tells():
    told = []
    check(demo.model(), max_examples=4, laws=["finiteness"], progress=lambda what, share: told.append((what, share)))
    shares = [share for _, share in told if share is not None]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert {what for what, _ in told} == {"asking 4 inputs"}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX terminals")
@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_alone_sees_progress(quiet):
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "onnx_lrp", "explain", MODEL, "--text", "good", "--verify", "never", "--json"]
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    seen = bytearray()

    def listen() -> None:  # all the time, as a terminal does; else the command waits to be read
        with contextlib.suppress(OSError):  # Linux's way to say that the other side is closed
            while part := os.read(ours, 4096):
                seen.extend(part)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    command += ["--quiet"] if quiet else []
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=environment, timeout=120)
    os.close(theirs)
    listener.join(10)
    os.close(ours)
    assert done.returncode == 0
    assert done.stdout.startswith(b"{")
    assert done.stdout.count(b"\n") == 1
    if quiet:
        assert seen == b""
    else:
        assert b"starting TensorFlow" in seen
        assert b"\x1b[2K" in seen.split(b"starting TensorFlow")[-1]  # wiped at the end


class Terminal(io.StringIO):
    """Of the kind that a person looks at."""

    def isatty(self):
        return True


COMMANDS = {
    "explain": (["explain", MODEL, "--text", "good", "--verify", "never", "--jit", "eager"], ["starting TensorFlow", "explaining"]),
    "demo": (["demo", "good"], ["starting TensorFlow", "explaining"]),
    "check": (["check", MODEL, "--max-examples", "2"], ["starting TensorFlow", "asking 2 inputs"]),
    "evaluate": (["evaluate", MODEL, "texts.csv", "--input", "token_ids=text", *FEW], ["starting TensorFlow", "explaining"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_takes_long_says_what_it_is_at(name, monkeypatch, tmp_path):
    """On a terminal; nothing is written in a pipe, nor with --quiet. (batch and view have a way of their own, and tests.)"""
    arguments, stages = COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.csv").write_text("text\ngood film\nbad film\nwarm and funny\n")
    for kind, more in ((Terminal, []), (Terminal, ["--quiet"]), (io.StringIO, [])):
        seen = kind()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", seen)
            patch.setattr(sys, "stdout", io.StringIO())
            patch.setenv("TERM", "xterm")
            assert cli.run([*arguments, *more]) == 0
        if kind is Terminal and not more:
            assert [stage for stage in stages if stage not in seen.getvalue()] == []
        else:
            assert seen.getvalue() == ""
