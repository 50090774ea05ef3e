"""``onnx-lrp explain``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import AsJson, Html, Jit, LimitOptions, ModelArgument, Precision, Verify, limits, start_engine
from .parsing import axes, distinct, series, suffix
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
    method: Annotated[
        str,
        typer.Option(help="lrp, or a baseline: gradient, sensitivity, gradient_x_input, integrated_gradients, occlusion."),
    ] = "lrp",
    steps: Annotated[int | None, typer.Option(help="Of integrated_gradients: points on the way. Default: 50.")] = None,
    baseline: Annotated[
        float | None, typer.Option(help="Of integrated_gradients and occlusion: what stands for nothing there. Default: 0.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Of occlusion: step or feature. Default: step where there is time.")] = None,
    rule: Annotated[
        str, typer.Option(help="Of layers with weights: epsilon, gamma, alpha-beta, zplus, flat, wsquare, zbox.")
    ] = "epsilon",
    composite: Annotated[
        str | None, typer.Option(help="Rules by layer, instead of --rule: epsilon-plus, epsilon-plus-flat, epsilon-gamma-box, …")
    ] = None,
    gates: Annotated[str, typer.Option(help="What a gate takes of its product: all (to the signal), half, prop, abs.")] = "all",
    epsilon: Annotated[float, typer.Option(help="Stabilizer.")] = 1e-3,
    bias_factor: Annotated[float, typer.Option(help="Share of bias and stabilizer that goes to the lower units, 0 to 1.")] = 0.0,
    at: Annotated[
        list[str] | None, typer.Option(metavar="TENSOR", help="Attribute to this internal tensor; may be repeated.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Keep relevance at this internal tensor, layer, or state (lstm:h, lstm:c); may be repeated."
        ),
    ] = None,
    output: Annotated[str | None, typer.Option(metavar="NAME", help="Graph output to explain.")] = None,
    precision: Annotated[Precision, typer.Option(help="Of everything computed.")] = Precision.float32,
    jit: Annotated[Jit, typer.Option(help="How the program runs.")] = Jit.auto,
    batch_axis: Annotated[
        list[str] | None, typer.Option(metavar="[NAME=]AXIS", help="Axis of the samples, where the file leaves it open.")
    ] = None,
    from_probabilities: Annotated[
        bool, typer.Option("--from-probabilities", help="Start behind a final softmax or sigmoid.")
    ] = False,
    verify: Annotated[Verify, typer.Option(help="Compare the forward pass with onnxruntime's.")] = Verify.first,
    limit: LimitOptions = None,
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
    wanted, allowed = target_of(target), limits(limit)
    given = {"steps": steps, "baseline": baseline, "by": by}
    options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    prepare_method(method, options)  # refuses what does not exist before the model is read
    with Outputs([p for p in (save, html) if p is not None]) as files:
        from .. import load
        from ..ragged import check
        from ..report.read import read_inputs, read_tokens

        explainer = load(
            model,
            rule=rule,
            composite=composite,
            gates=gates,
            epsilon=epsilon,
            bias_factor=bias_factor,
            at=at or None,
            output=output,
            from_probabilities=from_probabilities,
            batch_axis=axes(batch_axis),
            precision=precision.value,
            jit=jit.value,
            verify=verify.value,
            limits=allowed,
        )
        data = read_inputs(inputs, stdin=sys.stdin, series=lambda table: series(explainer, table), most=allowed.file_bytes)
        names = read_tokens(tokens) if tokens is not None else None
        check(data, explainer._plan)  # refuses bad input before TensorFlow is waited for
        start_engine()
        explanation = explainer.explain(data, wanted, method=method, keep=keep or (), **options)

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
