"""``python tests/fuzz -n 100000``: mutants in worker processes under a memory limit and a watchdog, and what became of them."""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GIB = 2**30
START = 180.0  # seconds until a worker's first mutant: it draws the base models, and may import TensorFlow
TICK, ASLEEP = 1.0, 60  # seconds between two looks at a worker, and how many in a row it may sleep before it counts as hanging


def spent(pid: int) -> tuple[float, bool]:
    """(seconds of processor time of a process, whether it sleeps: what runs, or was stopped, is only kept waiting by others)."""
    with contextlib.suppress(OSError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), fields[0] == "S"
    return 0.0, False


def held(pid: int) -> int:
    """Bytes of memory that a process holds."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


class Driver:
    """Runs mutants ``first`` … ``last``; a worker that hangs or dies is replaced, and its mutant noted."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.verdicts: collections.Counter[str] = collections.Counter()
        self.bugs: dict[str, list[int]] = {}
        self.slowest = (0.0, -1)
        self.largest = (0, -1)
        self.count = 0

    def run(self) -> None:
        at, last = self.options.first, self.options.first + self.options.count
        deadline = time.monotonic() + self.options.seconds if self.options.seconds else float("inf")
        while at < last and time.monotonic() < deadline:
            at = self._worker(at, last, deadline)

    def _worker(self, at: int, last: int, deadline: float) -> int:
        """One process; returns the mutant to go on with."""
        o = self.options
        task = "both" if o.every else "inspect"
        command = [sys.executable, "-u", str(HERE / "worker.py"), *map(str, (o.seed, at, last, o.every or 1, task, o.gib))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE if not o.verbose else None)
        assert process.stdout is not None
        buffer, patience, busy, asleep, cpu, last_seen = b"", START, at, 0, 0.0, 0.0
        try:
            while True:
                ready, _, _ = select.select([process.stdout], [], [], TICK)
                now, sleeps = spent(process.pid)
                asleep = asleep + 1 if not ready and sleeps and now == last_seen else 0
                last_seen = now
                wrong = ""
                if not ready and now - cpu > patience:
                    wrong = f"no answer in {patience:g} s of the processor"
                elif asleep > ASLEEP:
                    wrong = f"asleep for {ASLEEP * TICK:g} s"
                elif held(process.pid) > 2 * o.rss * GIB:
                    wrong = f"more than {2 * o.rss:g} GiB of memory"
                if wrong:
                    self._note(busy, f"bug: {wrong}")
                    return busy + 1
                if not ready:
                    continue
                chunk = process.stdout.read1()  # type: ignore[attr-defined]
                if not chunk:
                    code = process.wait()
                    if code == 0:
                        return last
                    tail = process.stderr.read().decode(errors="replace").strip()[-300:] if process.stderr else ""
                    self._note(busy, f"bug: the process died with {code}: {tail}")
                    return busy + 1
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    entry = json.loads(line)
                    patience = o.patience
                    if "at" in entry:
                        busy, cpu = entry["at"], now
                    else:
                        self._take(entry)
                        busy = entry["index"] + 1
                if time.monotonic() > deadline:
                    return busy
        finally:
            process.kill()
            process.wait()

    def _take(self, entry: dict[str, Any]) -> None:
        index, verdict = entry["index"], entry["verdict"]
        self.slowest = max(self.slowest, (entry["seconds"], index))
        self.largest = max(self.largest, (entry["bytes"], index))
        if entry["seconds"] > self.options.patience:
            verdict = f"bug: {self.options.patience:g} s of the processor are not enough"
        if entry["bytes"] > self.options.rss * GIB:
            verdict = f"bug: more than {self.options.rss:g} GiB of memory"
        self._note(index, verdict)

    def _note(self, index: int, verdict: str) -> None:
        self.count += 1
        if self.count % 1000 == 0:
            print(f"{self.count} mutants, now at number {index}", flush=True)
        kind = verdict.split(": ")[0] if verdict.startswith(("bug", "open books")) else verdict
        self.verdicts[kind] += 1
        if kind in ("bug", "open books"):
            key = verdict if kind == "bug" else kind
            if key not in self.bugs:
                print(f"{index}: {verdict}", flush=True)
            self.bugs.setdefault(key, []).append(index)


def write(folder: Path, seed: int, index: int) -> None:
    """The mutant of a number as a file, to look at."""
    from bases import bases
    from mutator import mutate

    rng = random.Random(f"{seed}/{index}")
    models = bases()
    data, done = mutate(models[rng.randrange(len(models))], rng)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{seed}-{index}.onnx").write_bytes(data)
    print(f"{folder / f'{seed}-{index}.onnx'}: {done}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__)
    parser.add_argument("-n", "--count", type=int, default=2000, help="mutants")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=0, help="the same seed and number is the same mutant")
    parser.add_argument("--every", type=int, default=0, help="explain every so-manieth one that can be read")
    parser.add_argument("--gib", type=float, default=8.0, help="address space of a worker")
    parser.add_argument("--rss", type=float, default=2.0, help="GiB of memory that a worker may hold")
    parser.add_argument("--patience", type=float, default=10.0, help="seconds of the processor for one mutant")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after so long")
    parser.add_argument("--write", type=int, nargs="*", metavar="NUMBER", help="only write these mutants to --folder")
    parser.add_argument("--folder", type=Path, default=Path("mutants"))
    parser.add_argument("--verbose", action="store_true", help="show what workers print on stderr")
    options = parser.parse_args()
    if options.write:
        for index in options.write:
            write(options.folder, options.seed, index)
        return 0
    driver, start = Driver(options), time.monotonic()
    driver.run()
    taken = time.monotonic() - start
    (slowest, late), (largest, fat) = driver.slowest, driver.largest
    print(f"{driver.count} mutants in {taken:.0f} s; of the processor at most {slowest:.2f} s (number {late}),", end=" ")
    print(f"of memory {largest / GIB:.2f} GiB (number {fat})")
    for verdict, count in driver.verdicts.most_common():
        print(f"{count:8d}  {verdict}")
    for bug, where in sorted(driver.bugs.items(), key=lambda kv: -len(kv[1])):
        print(f"{len(where):8d}  {bug}  e.g. {where[:4]}")
    return 1 if driver.bugs else 0


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
