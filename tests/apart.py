"""Python in a process of its own, which may die, take memory or never end: the tests survive it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx_lrp

PATIENCE = 300.0  # seconds until a process that waits for ever says where, and ends
PATHS = [str(Path(onnx_lrp.__file__).parents[1]), str(Path(__file__).parent / "fuzz")]
INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a suite in the background is not


def command(*before: str, arguments: Sequence[object]) -> list[str]:
    """The command line under which onnx-lrp does something to its own process first: ``preexec_fn`` would have to do it between
    fork and exec, where a copy of a process with threads can wait for ever.
    """
    return [sys.executable, "-c", "\n".join([*before, "from onnx_lrp import cli", "cli.main()"]), *map(str, arguments)]


def python(script: str, *arguments: object, gib: int = 0, seconds: int = 0) -> subprocess.CompletedProcess[str]:
    """What became of a script, under limits of its address space and of its seconds of the processor."""
    before = [f"import faulthandler, resource; faulthandler.dump_traceback_later({PATIENCE}, exit=True)"]
    before += [f"resource.setrlimit(resource.RLIMIT_AS, ({gib} * 2**30,) * 2)"] * bool(gib)
    before += [f"resource.setrlimit(resource.RLIMIT_CPU, ({seconds},) * 2)"] * bool(seconds)
    asked = [sys.executable, "-c", "\n".join([*before, script]), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)}
    return subprocess.run(asked, capture_output=True, text=True, check=False, env=environment, timeout=2 * PATIENCE)
