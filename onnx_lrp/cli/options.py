"""Options that several commands have: how a model is explained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from .app import Jit, Precision, Usage, Verify
from .parsing import axes

__all__ = [
    "At",
    "Baseline",
    "BatchAxis",
    "BiasFactor",
    "CompositeName",
    "EpsilonValue",
    "FromProbabilities",
    "Gates",
    "JitMode",
    "MethodName",
    "OutputName",
    "PrecisionName",
    "RuleName",
    "Steps",
    "VerifyMode",
    "loading",
    "of_method",
]

MethodName = Annotated[
    str, typer.Option(help="lrp, or a baseline: gradient, sensitivity, gradient_x_input, integrated_gradients, occlusion.")
]
Steps = Annotated[int | None, typer.Option(help="Of integrated_gradients: points on the way. Default: 50.")]
Baseline = Annotated[
    float | None, typer.Option(help="Of integrated_gradients and occlusion: what stands for nothing there. Default: 0.")
]
RuleName = Annotated[
    str,
    typer.Option(
        help="Of layers with weights: epsilon, gamma, alpha-beta, zplus, flat, wsquare, zbox; with numbers: gamma:0.5, "
        "alpha-beta:3,2, zbox:0,1."
    ),
]
CompositeName = Annotated[
    str | None, typer.Option(help="Rules by layer, instead of --rule: epsilon-plus, epsilon-plus-flat, epsilon-gamma-box, …")
]
Gates = Annotated[str, typer.Option(help="What a gate takes of its product: all (to the signal), half, prop, abs.")]
EpsilonValue = Annotated[float, typer.Option(help="Stabilizer.")]
BiasFactor = Annotated[float, typer.Option(help="Share of bias and stabilizer that goes to the lower units, 0 to 1.")]
At = Annotated[list[str] | None, typer.Option(metavar="TENSOR", help="Attribute to this internal tensor; may be repeated.")]
OutputName = Annotated[str | None, typer.Option(metavar="NAME", help="Graph output to explain.")]
PrecisionName = Annotated[Precision, typer.Option(help="Of everything computed.")]
JitMode = Annotated[Jit, typer.Option(help="How the program runs.")]
BatchAxis = Annotated[
    list[str] | None, typer.Option(metavar="[NAME=]AXIS", help="Axis of the samples, where the file leaves it open.")
]
FromProbabilities = Annotated[bool, typer.Option("--from-probabilities", help="Start behind a final softmax or sigmoid.")]
VerifyMode = Annotated[Verify, typer.Option(help="Compare the forward pass with onnxruntime's.")]


def loading(
    *,
    at: Sequence[str] | None,
    batch_axis: Sequence[str] | None,
    precision: Precision,
    jit: Jit,
    verify: Verify,
    **others: Any,
) -> dict[str, Any]:
    """What ``onnx_lrp.load`` takes, of the options as they are given."""
    enums = {"precision": precision.value, "jit": jit.value, "verify": verify.value}
    return {**others, "at": at or None, "batch_axis": axes(batch_axis), **enums}


def of_method(**given: Any) -> dict[str, Any]:
    """The options of a method that were given."""
    baseline = given.get("baseline")
    if baseline is not None and not math.isfinite(baseline):
        raise Usage(f"--baseline {baseline}: expected a finite number")
    return {k: v for k, v in given.items() if v is not None}
