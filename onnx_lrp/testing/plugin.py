"""The pytest plugin: ``pytest --onnx-model model.onnx`` adds the laws of every given model to a suite, one test a model and law.

Without the option it does nothing, and imports nothing that a suite would notice.
"""

from __future__ import annotations

import functools
import glob
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import LAWS

if TYPE_CHECKING:
    from . import Verdict

__all__: list[str] = []

SHOWN = 40  # entries of an input that are printed


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("onnx-lrp", "laws of ONNX models (onnx-lrp)")
    group.addoption(
        "--onnx-model", action="append", default=[], metavar="PATH", help="a .onnx file to test, or a pattern; repeatable"
    )
    group.addoption("--onnx-precision", choices=("float32", "float64"), default="float32", help="of everything computed")
    group.addoption("--onnx-max-examples", type=int, default=50, metavar="N", help="inputs to ask each law on")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Given models are collected as if they had been named among the arguments."""
    patterns = config.getoption("--onnx-model")
    if not patterns:
        return
    if config.getoption("--onnx-max-examples") < 1:
        raise pytest.UsageError("--onnx-max-examples: expected 1 or more")
    found: dict[Path, None] = {}
    for pattern in patterns:
        base = config.invocation_params.dir
        paths = [base / p for p in sorted(glob.glob(pattern, root_dir=base, recursive=True))]
        if not paths and (base / pattern).is_file():  # a name with brackets is no pattern
            paths = [base / pattern]
        if not paths:
            raise pytest.UsageError(f"--onnx-model {pattern}: no such file")
        found.update(dict.fromkeys(p.resolve() for p in paths))
    config.stash[MODELS] = frozenset(found)
    named = {str(Path(base, a.split("::")[0]).resolve()) for a in config.args}
    config.args.extend(str(p) for p in found if str(p) not in named)


MODELS = pytest.StashKey[frozenset[Path]]()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.resolve() not in parent.config.stash.get(MODELS, frozenset()):
        return None
    return Model.from_parent(parent, path=file_path)


class Model(pytest.File):
    """One .onnx file."""

    def collect(self) -> Iterator[pytest.Item]:
        for law in LAWS:
            yield Law.from_parent(self, name=law)

    @functools.cached_property
    def found(self) -> dict[str, Verdict] | Exception:
        """Verdicts of all laws that are tested, or why there are none: one search asks them all on the same inputs."""
        from .._lazy import start_quietly
        from . import check

        laws = [item.name for item in self.session.items if item.parent is self]
        options = {k: self.config.getoption(f"--onnx-{k.replace('_', '-')}") for k in ("precision", "max_examples")}
        try:
            start_quietly()  # or its notices stand below a failure
            return {v.law: v for v in check(self.path, laws=laws, **options).verdicts}
        except Exception as error:
            return error


class Law(pytest.Item):
    """One law of one model."""

    def runtest(self) -> None:
        found = self.getparent(Model).found  # type: ignore[union-attr]
        if isinstance(found, Exception):
            raise found
        verdict = found[self.name]
        if verdict.worst is None:
            pytest.skip(verdict.note)
        if verdict.breach is not None:
            raise Broken(self._told(verdict))

    def _told(self, verdict: Verdict) -> str:
        from . import replay_command

        assert verdict.breach is not None
        cache = getattr(self.config, "cache", None)
        folder = cache.mkdir("onnx-lrp") if cache is not None else self.config.invocation_params.dir
        file = folder / f"{self.path.stem}.breach-{self.name}.npz"
        verdict.breach.save(file)
        lines = [f"{self.path.name}: {self.name} is broken", verdict.breach.message]
        for name, array in verdict.breach.feeds.items():
            values = f" = {array.tolist()}" if array.size <= SHOWN else ""
            lines.append(f"  {name}: {array.dtype} {array.shape}{values}")
        return "\n".join(
            [*lines, "replay it:", "  " + replay_command(self.path, file, precision=self.config.getoption("--onnx-precision"))]
        )

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The message alone, where the reason is the model and not a bug."""
        from ..errors import OnnxLrpError

        if isinstance(excinfo.value, Broken | OnnxLrpError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.path.name}: {self.name}"


class Broken(Exception):
    """A law is broken."""
