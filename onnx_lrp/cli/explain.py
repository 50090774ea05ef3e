"""``onnx-lrp explain``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .app import AsJson, Html, Jit, ModelArgument, Precision, Verify, start_engine
from .options import (
    At,
    Baseline,
    BatchAxis,
    BiasFactor,
    By,
    CompositeName,
    EpsilonValue,
    FromProbabilities,
    Gates,
    JitMode,
    MethodName,
    OutputName,
    PrecisionName,
    RuleName,
    Steps,
    VerifyMode,
    loading,
    of_method,
)
from .parsing import distinct, series, suffix
from .parsing import target as target_of
from .printing import print_json

__all__ = ["explain"]

SAMPLES = 5  # printed of a batch


def explain(
    model: ModelArgument,
    inputs: Annotated[
        str,
        typer.Argument(
            metavar="INPUTS", help=".npz (by input name), .npy, .json, .csv (one series), .parquet, or - for JSON on stdin."
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            help="Class index, or one a sample: 1,0,1; step:3, step:-1:2 (a class there), contrast:0,1, all, top:3. "
            "Default: the predicted class."
        ),
    ] = None,
    method: MethodName = "lrp",
    steps: Steps = None,
    baseline: Baseline = None,
    by: By = None,
    rule: RuleName = "epsilon",
    composite: CompositeName = None,
    gates: Gates = "all",
    epsilon: EpsilonValue = 1e-3,
    bias_factor: BiasFactor = 0.0,
    at: At = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Keep relevance at this internal tensor, layer, or state (lstm:h, lstm:c); may be repeated."
        ),
    ] = None,
    output: OutputName = None,
    precision: PrecisionName = Precision.float32,
    jit: JitMode = Jit.auto,
    batch_axis: BatchAxis = None,
    from_probabilities: FromProbabilities = False,
    verify: VerifyMode = Verify.first,
    tokens: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Names of the steps: one a line, a blank line between samples; or JSON.")
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="OUT", help="Save the explanation as .npz, .json or .parquet.")] = None,
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """Explain a model's decisions on INPUTS."""
    from ..methods import prepare_method
    from ..report.files import Outputs
    from ..saved import SUFFIXES, need_pyarrow

    suffix("--save", save, *SUFFIXES)
    suffix("--html", html, ".html", ".htm")
    if save is not None and save.suffix == ".parquet":
        need_pyarrow()
    distinct({"MODEL": model, "INPUTS": inputs, "--tokens": tokens, "--save": save, "--html": html})
    wanted = target_of(target)
    own = of_method(steps=steps, baseline=baseline, by=by)
    prepare_method(method, own)  # refuses what does not exist before the model is read
    with Outputs([p for p in (save, html) if p is not None]) as files:
        from .. import load
        from ..ragged import check
        from ..report.read import read_inputs, read_tokens

        given = loading(
            rule=rule,
            composite=composite,
            gates=gates,
            epsilon=epsilon,
            bias_factor=bias_factor,
            at=at,
            output=output,
            from_probabilities=from_probabilities,
            batch_axis=batch_axis,
            precision=precision,
            jit=jit,
            verify=verify,
        )
        explainer = load(model, **given)
        data = read_inputs(inputs, stdin=sys.stdin, series=lambda table: series(explainer, table))
        names = read_tokens(tokens) if tokens is not None else None
        check(data, explainer._plan)  # refuses bad input before TensorFlow is waited for
        start_engine()
        explanation = explainer.explain(data, wanted, method=method, keep=keep or (), **own)

        from ..report.view import passed, samples

        count = explanation.seed.shape[-1]
        shown = samples(explanation, tokens=names, limit=SAMPLES)
        if save is not None:
            files.stage(save, explanation.save)
        if html is not None:
            from ..report.html import to_html

            page = to_html(explanation, tokens=names, title=Path(model).name)
            files.stage(html, lambda part: part.write_text(page, encoding="utf-8"))
        files.commit()
    if as_json:
        print_json(explanation.to_dict() | ({} if names is None else {"tokens": names}))
        return
    from ..report.terminal import describe_passed, show

    show(shown, left_out=max(count - SAMPLES, 0))
    if explanation.passed:
        describe_passed(passed(explanation, limit=SAMPLES))
