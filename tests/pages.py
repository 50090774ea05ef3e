"""Code blocks of the documentation, and how each is run: Python as it stands, the command line in this process.

Of other commands what they name has to exist. A block whose first line is ``# needs NAME, NAME`` runs where these packages (or
``a GPU``) are there; one with ``# not run: REASON`` never does. What a block prints stands in the ``text`` block behind it, or
behind its ``$`` lines; ``…`` stands for anything, and numbers may differ in the third decimal.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
import sys
import tomllib
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from onnx_lrp import cli

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^(?P<indent> *)```(?P<lang>[^\s`]*)[^\n]*\n(?P<code>.*?)^ *```", re.DOTALL | re.MULTILINE)
PYTHON, SHELL = ("python",), ("console", "sh")
NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Block:
    """One fenced block. ``expected``: what it prints, None: not said."""

    page: str
    line: int
    lang: str
    code: str
    expected: str | None = None

    @property
    def id(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def excuse(self) -> str | None:
        """Why it can't run here; None: it can."""
        first = self.code.splitlines()[0] if self.code.strip() else ""
        if match := re.match(r"# not run: (.+)", first):
            return match[1]
        if match := re.match(r"# needs (.+)", first):
            missing = [name for name in match[1].split(", ") if not available(name)]
            return f"needs {', '.join(missing)}" if missing else None
        if re.match(r"# onnx_lrp/\S+\.py$", first):
            return "quoted: tests/test_contributing.py holds it against the source"
        return None


def available(name: str) -> bool:
    """Whether a package, or a GPU, is here."""
    if name == "a GPU":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    return importlib.util.find_spec(name) is not None


def blocks(page: str, text: str) -> list[Block]:
    """The blocks of a page that are run: Python with the text block behind it, and consoles."""
    found, fences = [], list(FENCE.finditer(text))
    for match, after in zip(fences, [*fences, None][1:], strict=True):
        line = text[: match.start()].count("\n") + 1
        code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
        if match["lang"] in PYTHON:
            shown = after is not None and after["lang"] == "text" and not text[match.end() : after.start()].strip()
            found.append(Block(page, line, "python", code, after["code"] if shown and after else None))
        elif match["lang"] in SHELL:
            found.append(Block(page, line, "console", code))
    return found


def commands(code: str) -> Iterator[tuple[str, str | None]]:
    """(command, expected output or None) of a console block; without ``$`` every line is a command."""
    lines = [line for line in code.splitlines() if not line.startswith("#")]
    if not any(line.startswith("$ ") for line in lines):
        yield from ((line, None) for line in lines if line.strip())
        return
    command, shown = "", list[str]()
    for line in [*lines, "$ "]:
        if line.startswith("$ "):
            if command:
                yield command, "\n".join(shown) if shown else None
            command, shown = line[2:].strip(), []
        else:
            shown.append(line)


def same(expected: str, got: str) -> str | None:
    """None, or the first line that is not as shown. ``…`` alone in a line: any lines; within one: any text."""
    want, have = ([line.rstrip() for line in text.strip("\n").splitlines()] for text in (expected, got))

    def fits(pattern: str, line: str) -> bool:
        if "…" in pattern:
            return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("…")), line) is not None
        if " ".join(NUMBER.sub("#", pattern).split()) != " ".join(NUMBER.sub("#", line).split()):
            return False
        pairs = zip(NUMBER.findall(pattern), NUMBER.findall(line), strict=True)
        return all(abs(float(a.replace("−", "-")) - float(b.replace("−", "-"))) <= 2e-3 for a, b in pairs)

    at = 0
    for k, pattern in enumerate(want):
        if pattern.strip() == "…":
            if k == len(want) - 1:
                return None
            while at < len(have) and not fits(want[k + 1], have[at]):
                at += 1
            continue
        if at >= len(have) or not fits(pattern, have[at]):
            return f"shown: {pattern!r}, printed: {have[at] if at < len(have) else 'nothing more'!r}"
        at += 1
    return None if at == len(have) else f"printed beyond what is shown: {have[at]!r}"


def unknown_options(words: list[str]) -> list[str]:
    """Options of an ``onnx-lrp`` command line that its command does not have."""
    app: Any = typer.main.get_command(cli.app)
    command = app.commands.get(words[1]) if len(words) > 1 else None
    if command is None:
        return [] if words[1:2] in (["--version"], ["--help"]) else words[1:2]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    return [word for word in words[2:] if word.startswith("--") and word.partition("=")[0] not in known]


def extras(command: str) -> list[str]:
    """Extras of this package that a pip command asks for and pyproject.toml has not."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = re.findall(r"(?:\.|onnx-lrp)\[([\w,-]+)\]", command)
    return [name for names in asked for name in names.split(",") if name not in known]


def check_command(command: str) -> None:
    """Of a command that is not run here: that its scripts, extras and options exist."""
    assert not extras(command), f"pyproject.toml has no extra {extras(command)}"
    for part in re.split(r"\s*(?:&&|\|)\s*", command.partition("  #")[0]):
        words = shlex.split(part)
        if words and words[0] == "onnx-lrp":
            assert not unknown_options(words), f"{part}: there is no {unknown_options(words)}"
        for word in words:
            if re.match(r"(?:converters|benchmarks|examples|tests|docs)/", word):
                assert (ROOT / word).exists(), f"{word} does not exist"


def run_command(command: str, expected: str | None) -> None:
    """Run ``onnx-lrp`` here and compare; of other commands, and of ones with a MODEL to be named, check what they name."""
    check_command(command)
    words = shlex.split(command.partition("  #")[0])
    if words[0] != "onnx-lrp" or any(re.fullmatch(r"[A-Z][A-Z.]+", word) for word in words):
        return
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(words[1:])
    assert code == 0, f"{command}: exit code {code}, {err.getvalue()}"
    if expected is not None:
        assert (wrong := same(expected, out.getvalue())) is None, f"{command}: {wrong}\n{out.getvalue()}"


def run_python(block: Block, module: types.ModuleType) -> None:
    """Run the block in the page's namespace, then the tests that it defines, and compare what it printed."""
    before, out = set(vars(module)), io.StringIO()
    code = "\n" * block.line + block.code  # a traceback then names the page's own line
    with contextlib.redirect_stdout(out):
        exec(compile(code, block.page, "exec", dont_inherit=True), vars(module))
        for name in set(vars(module)) - before:
            if name.startswith("test_"):
                getattr(module, name)()
    if block.expected is not None:
        assert (wrong := same(block.expected, out.getvalue())) is None, f"{block.id}: {wrong}\n{out.getvalue()}"


def namespace(page: str, values: dict[str, Any]) -> types.ModuleType:
    """The module in which the blocks of a page run; dataclasses look their own up by name."""
    module = types.ModuleType("page_" + re.sub(r"\W", "_", page))
    vars(module).update(values)
    sys.modules[module.__name__] = module
    return module
