"""What is asked of one mutant, and a process that asks it of many: a line before each, a line of JSON behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
ALLOWED = ("/dev/null", "/dev/urandom", "/proc/", "/sys/")  # by Python and the libraries; never at a model's word

opened: list[str] = []


def fresh_peak() -> None:
    """Forget the most memory that this process has held so far; Linux keeps it until told."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Bytes of memory that this process held at most since then, 0 where that isn't told."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return 0


def watch_opens(folder: Path) -> None:
    """Note every file that Python opens which is neither the model's nor Python's own."""
    own = [str(folder), sys.prefix, sys.base_prefix, str(HERE.parents[1]), os.path.dirname(os.__file__)]
    own = [*own, *(os.path.realpath(p) for p in own), "/usr/lib", "/usr/share", "/etc/ssl", *ALLOWED]

    def hook(event: str, arguments: Any) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith(tuple(own)):
                opened.append(path)
        elif event in ("exec", "compile") and event == "exec":
            pass
        elif event in ("pickle.find_class", "ctypes.dlopen", "os.system", "subprocess.Popen", "socket.connect"):
            opened.append(event + " " + repr(arguments)[:80])

    sys.addaudithook(hook)


def lies(text: str) -> str:
    """What a terminal would obey in a text, empty if nothing."""
    wrong = sorted(
        {c for c in text if c not in "\n" and (ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202a\u202e\u2066\u2028\u2029")}
    )
    return " ".join(f"{c!r}" for c in wrong)


def inspect(path: Path) -> str:
    """Load and inspect a model as the command line does; the verdict."""
    from onnx_lrp import OnnxLrpError, UnsupportedModel, load
    from onnx_lrp.report.described import describe, describe_cuts

    out = io.StringIO()
    try:
        summary = load(path).summary()
    except OnnxLrpError as error:
        if isinstance(error, UnsupportedModel):
            describe_cuts(error, file=out)
        text = str(error)
        verdict = f"refused: {type(error).__name__}"
        if len(text) > 200_000:
            return "bug: a message of more than 200,000 characters"
        return f"bug: {lies(out.getvalue())} on the terminal" if lies(out.getvalue()) else verdict
    describe(summary, file=out)
    text = out.getvalue() + str(summary)
    json.dumps(summary.to_dict(), allow_nan=False)
    return f"bug: {lies(text)} on the terminal" if lies(text) else "read"


def explain(path: Path) -> str:
    """Explain a model on inputs of its own declared shapes; the verdict."""
    from onnx_lrp import Limits, OnnxLrpError, load

    rng = np.random.default_rng(0)
    sizes: dict[Any, int] = {}
    try:
        explainer = load(path, jit="eager", limits=Limits(trips=50, run_seconds=5.0))
        feeds = {}
        for value in explainer.inputs:
            shape = [n if isinstance(n, int) and 0 < n < 64 else sizes.setdefault(n, 2 + len(sizes)) for n in value.shape or (2, 3)]
            dtype = value.dtype if value.dtype is not None else np.dtype(np.float32)
            feeds[value.name] = (
                rng.normal(size=shape).astype(dtype) if dtype.kind == "f" else rng.integers(0, 2, shape).astype(dtype)
            )
        explanation = explainer.explain(feeds)
    except OnnxLrpError as error:
        return f"refused: {type(error).__name__}"
    moved = np.abs(explanation.seed) + sum(np.abs(a) for a in explanation.absorbed.values()) + 1e-3
    moved = moved + sum(np.abs(r).sum() for r in explanation.relevance.values())
    if not np.all(np.isfinite(explanation.residual)) or not np.all(np.abs(explanation.residual) <= 1e-2 * moved):
        return f"open books: {np.abs(explanation.residual / moved).max():.1e} of the relevance that moved"
    return "explained"


def judge(path: Path, task: Any) -> str:
    """The verdict on a file; whatever is no error of onnx-lrp is a bug, and so is a file opened elsewhere."""
    opened.clear()
    try:
        verdict = task(path)
    except MemoryError:
        verdict = "bug: MemoryError"
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "onnx_lrp" in f.filename]
        place = " < ".join(f"{Path(f.filename).stem}:{f.lineno}" for f in frames[:-5:-1])
        verdict = f"bug: {type(error).__name__} at {place}: {str(error)[:150]}"
    return f"bug: opened {opened[0]}" if opened else verdict


def lay_out(folder: Path, external: bytes) -> None:
    """The model's folder: data that belong to it, and what may tempt a reader out."""
    (folder / "weights.bin").write_bytes(external)
    for name, make in (("link.bin", lambda p: p.symlink_to("/etc/passwd")), ("fifo", os.mkfifo)):
        if not os.path.lexists(folder / name):
            make(folder / name)


def main(arguments: Sequence[str]) -> None:
    """``worker.py SEED FIRST LAST EVERY TASK GIB``: every ``EVERY``-th mutant is also explained if TASK is "both"."""
    seed, first, last, every = map(int, arguments[:4])
    task, gib = arguments[4], float(arguments[5])
    from bases import bases, external_bytes
    from mutator import mutate

    models = bases()
    answers = os.fdopen(os.dup(1), "w")
    noise = tempfile.TemporaryFile()  # noqa: SIM115  (what the libraries print; a document on stdout must be the only thing there)
    os.dup2(noise.fileno(), 1)
    if task == "both":
        import tensorflow  # noqa: F401  (before the limit: its threads and arenas are not the mutants')
    size = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder, external_bytes())
        watch_opens(folder)
        path = folder / "model.onnx"
        for index in range(first, last):
            rng = random.Random(f"{seed}/{index}")
            which = rng.randrange(len(models))
            data, done = mutate(models[which], rng)
            path.write_bytes(data)
            print(json.dumps({"at": index}), file=answers, flush=True)
            fresh_peak()
            start = time.process_time()
            verdict = judge(path, inspect)
            if task == "both" and index % every == 0 and verdict == "read":
                verdict = judge(path, explain)
            if noise.seek(0, os.SEEK_END):
                noise.seek(0)
                verdict = f"bug: printed {noise.read(80)!r}"
                noise.truncate(0)
                noise.seek(0)
            taken = time.process_time() - start  # of the processor: the machine may be busy with other things
            answer = {"index": index, "base": which, "done": done, "verdict": verdict, "seconds": taken, "bytes": peak()}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
