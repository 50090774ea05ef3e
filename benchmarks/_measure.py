"""How the benchmarks measure: calls that take turns, each on an idle machine; memory of a process; tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

# The threads of onnxruntime and PyTorch spin for some 50 ms after a call, waiting for more work, and take the cores from whatever
# runs next. An explanation right after a forward pass would be timed on what is left; a forward pass after it would not. So every
# call comes after a rest. But after a rest a call waits for its own threads to wake, which can take longer than a short forward
# pass and would flatter us: the same call is repeated at once, and both are timed.
SETTLE = 0.1
AGAIN = " again"  # behind the name of a function: the call repeated
WARM = 4  # the third call of a shape may compile it
MIB = 2**20
BUSY = 0.5  # processes running in the last minute

Seconds = Mapping[str, Sequence[float]]


def turns(functions: Mapping[str, Callable[[], Any]], count: int, *, settle: float, warm: int = WARM) -> Seconds:
    """{name: seconds of its ``count`` calls after a rest, name + AGAIN: those of the calls repeated at once}.

    One of each in turn, so that what slows the machine down slows all of them.

    Args:
        functions: what is timed, by name.
        count: turns.
        settle: seconds of rest.
        warm: calls of each before the first turn.
    """
    for function in functions.values():
        for _ in range(warm):
            function()
    seconds: dict[str, list[float]] = {name + which: [] for name in functions for which in ("", AGAIN)}
    for _ in range(count):
        for name, function in functions.items():
            time.sleep(settle)
            for which in ("", AGAIN):
                start = time.perf_counter()
                function()
                seconds[name + which].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Seconds, ours: str, theirs: str) -> float:
    """Median of the turns' ratios."""
    return statistics.median(a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True))


def median_ms(seconds: Seconds, name: str) -> float:
    return 1e3 * statistics.median(seconds[name])


def memory(field: str) -> float:
    """MiB of this process: "VmRSS" now, "VmHWM" at most. (``ru_maxrss`` counts what the process was forked from, too.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def fresh(script: str, *arguments: object) -> Any:
    """What a benchmark prints as JSON in a process of its own: its peak is nobody else's."""
    command = [sys.executable, script, "--here", "--json", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def head(titles: Sequence[str]) -> str:
    return line(titles) + "\n" + line(["---"] * len(titles))


def machine(*, settle: float, pairs: int, jit: str) -> str:
    """What the numbers depend on, in a line below a table."""
    names = {
        "TensorFlow": ("tensorflow", "tensorflow-cpu"),
        "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
        "PyTorch": ("torch",),
        "Captum": ("captum",),
    }
    found = {title: next(filter(None, map(_version, packages)), None) for title, packages in names.items()}
    versions = ", ".join(f"{title} {version}" for title, version in found.items() if version)
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions}; {pairs} turns, "
        f'{settle:g} s of rest before each call, jit="{jit}".'
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def arguments(text: str, *, pairs: int | None) -> argparse.ArgumentParser:
    """The options that every benchmark has; ``pairs``: how often calls are timed unless said otherwise, None: they are not."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    if pairs is not None:
        parser.add_argument("--pairs", type=int, default=pairs, metavar="N", help=f"turns that are timed; {pairs}")
        parser.add_argument("--settle", type=float, default=SETTLE, metavar="SECONDS", help=f"rest before every call; {SETTLE}")
    parser.add_argument("--jit", default="auto", choices=["auto", "graph", "xla"])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in this process, not in one of its own
    return parser


def options_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options given; says on stderr where the machine is busy. PyTorch suffers most: its threads wait for each other."""
    options = parser.parse_args()
    busy = os.getloadavg()[0]
    if not options.here and busy > BUSY:
        print(f"The machine is busy (load {busy:.1f}): no times to quote.", file=sys.stderr)
    return options
