"""The application: its global options, and what several commands share."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from .._lazy import start_quietly
from ..errors import InputError
from ..limits import Limits

__all__ = [
    "AsJson",
    "CheckFailed",
    "ClassNames",
    "Colors",
    "CustomOps",
    "Exact",
    "Html",
    "Jit",
    "LimitOptions",
    "ModelArgument",
    "Order",
    "Precision",
    "Scheme",
    "State",
    "Usage",
    "Verify",
    "app",
    "limits",
    "names",
    "start_engine",
]

app = typer.Typer(
    name="onnx-lrp",
    add_completion=False,
    rich_markup_mode=None,
    help="Say which inputs made an ONNX model decide as it did: Layer-wise Relevance Propagation with closed books.",
)


class Precision(enum.StrEnum):
    float32 = "float32"
    float64 = "float64"
    tf32 = "tf32"
    bfloat16 = "bfloat16"


class Exact(enum.StrEnum):
    """Precisions in which the laws are known to hold."""

    float32 = "float32"
    float64 = "float64"


class Jit(enum.StrEnum):
    auto = "auto"
    graph = "graph"
    xla = "xla"
    eager = "eager"


class Verify(enum.StrEnum):
    first = "first"
    always = "always"
    never = "never"


class Order(enum.StrEnum):
    ifco = "ifco"
    ifgo = "ifgo"
    iofc = "iofc"


class Colors(enum.StrEnum):
    blue_white_red = "blue-white-red"
    purple_white_orange = "purple-white-orange"
    captum = "captum"


class Usage(Exception):
    """A command line that makes no sense."""


class CheckFailed(Exception):
    """A law is broken."""


class State:
    debug = False


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The .onnx file.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="OUT.html", help="Also write a self-contained page.")]

Scheme = Annotated[Colors, typer.Option("--colors", help="Of the page. purple-white-orange is colour-blind safe.")]
ClassNames = Annotated[
    str | None,
    typer.Option(
        "--classes", metavar="A,B,C", help="Names of the classes, from class 0 on. Default: those in MODEL's .tokens.json."
    ),
]
LimitOptions = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="NAME=NUMBER", help="What the model may ask for, as file_bytes=4G; may be repeated."),
]

CustomOps = Annotated[
    list[str] | None,
    typer.Option(
        "--custom-ops",
        metavar="LIBRARY",
        help="Your own ops for onnxruntime: a shared library, run as code; may be repeated.",
    ),
]


def limits(texts: Sequence[str] | None) -> Limits:
    """Of ``--limit`` options."""
    try:
        return Limits.parse(texts or ())
    except InputError as error:
        raise Usage(f"--{error}") from error


def names(given: str | None) -> list[str]:
    """What ``--classes`` says."""
    return [] if given is None else [name.strip() for name in given.split(",")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"onnx-lrp {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and TensorFlow's own messages.")] = False,
) -> None:
    State.debug = debug


def start_engine() -> None:
    """TensorFlow, with its own messages only where they are asked for."""
    if not State.debug:
        start_quietly()
