"""A run: arguments in, exit code out; every error becomes one line on stderr."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
import traceback
import warnings
from collections.abc import Sequence

import typer

from .. import __version__
from ..errors import InputError, MissingExtra, ModelError, RuleError
from .app import CheckFailed, State, Usage, app

__all__ = ["main", "run"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and leave with the exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run, and return the exit code; errors are one line on stderr."""
    State.debug = False
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        if sys.stdout is None:
            raise OSError("stdout is closed")
        command = typer.main.get_command(app)
        try:
            # numpy's remarks on a model's numbers; what they lead to is an error of its own, in one line
            with warnings.catch_warnings(), command.make_context("onnx-lrp", list(arguments)) as context:
                warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"onnx_lrp\.")
                warnings.filterwarnings("ignore", message="Casting complex values", module=r"onnx_lrp\.")
                command.invoke(context)
        except typer.Exit:  # --help, --version
            pass
        sys.stdout.flush()
        return 0
    except BaseException as error:
        code, message = _verdict(error)
        if isinstance(error, BrokenPipeError):
            with contextlib.suppress(OSError, ValueError):  # the interpreter would flush into the closed pipe once more
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if State.debug:
            traceback.print_exception(error)
        from ..report.wording import visible

        with contextlib.suppress(OSError, ValueError):
            print(f"onnx-lrp: {visible(' '.join(message.split()))}", file=sys.stderr, flush=True)
        return code


def _verdict(error: BaseException) -> tuple[int, str]:
    from ..report.files import OutputError

    match error:
        case CheckFailed():
            return 1, str(error)
        case MissingExtra() | RuleError() | Usage():
            return 2, str(error)
        case ModelError():
            return 3, str(error)
        case InputError():
            return 4, str(error)
        case OutputError():
            return 5, str(error)
        case KeyboardInterrupt() | typer.Abort():
            return 5, "interrupted"
        case OSError() if error.filename is None:  # stdout; everything else that is opened has its own handler
            return 5, f"output can't be written: {error.strerror or error}"
        case MemoryError():
            return 4, "not enough memory for this input; pass fewer samples at once"
        case ModuleNotFoundError():
            return 2, f"{error.name} is not installed: pip install {error.name}"
        case Exception() if type(error).__name__ == "ResourceExhaustedError":
            return 4, "not enough memory on the device for this input; pass fewer samples at once"
        case Exception() if hasattr(error, "format_message"):  # click's own, which typer keeps in a private copy
            return 2, f"{error.format_message().rstrip('.')} (see onnx-lrp --help)"
        case _:
            return 70, (
                f"this is a bug: {type(error).__name__}: {error}; please report it with the command, the model and the output of "
                f"onnx-lrp --debug ({_versions()})"
            )


def _versions() -> str:
    found = [f"onnx-lrp {__version__}", f"Python {platform.python_version()}"]
    for package in ("tensorflow", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join([*found, platform.platform()])
