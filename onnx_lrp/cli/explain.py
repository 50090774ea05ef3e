"""``onnx-lrp explain``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import AsJson, Colors, Html, Jit, ModelArgument, Precision, Scheme, Usage, Verify, start_engine
from .parsing import axes, distinct, series, suffix
from .parsing import target as target_of
from .printing import print_json

if TYPE_CHECKING:
    from ..explainer import Explainer
    from ..explanation import Explanation
    from ..summary import Summary

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
    tokens: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Names of the steps: one a line, a blank line between samples; or JSON.")
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="OUT", help="Save the explanation as .npz, .json or .parquet.")] = None,
    html: Html = None,
    compare: Annotated[
        str | None, typer.Option(metavar="METHOD,…", help="Of the page: these methods beside --method, on one scale of colours.")
    ] = None,
    colors: Scheme = Colors.blue_white_red,
    as_json: AsJson = False,
) -> None:
    """Explain a model's decisions on INPUTS."""
    from ..methods import LRP, METHODS, prepare_method
    from ..report.files import Outputs
    from ..saved import SUFFIXES, need_pyarrow

    suffix("--save", save, *SUFFIXES)
    suffix("--html", html, ".html", ".htm")
    if save is not None and save.suffix == ".parquet":
        need_pyarrow()
    distinct({"MODEL": model, "INPUTS": inputs, "--tokens": tokens, "--save": save, "--html": html})
    wanted = target_of(target)
    given = {"steps": steps, "baseline": baseline, "by": by}
    options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    others = [name.strip() for name in compare.split(",")] if compare is not None else []
    if others and html is None:
        raise Usage("--compare shows methods side by side on a page: give --html OUT.html")
    if len({method, *others}) <= len(others):
        raise Usage(f"--compare {compare}: name each method once, and --method {method} not again")
    theirs = {name: {k: v for k, v in options.items() if k in METHODS.get(name, ())} for name in others}
    taken = set().union(*theirs.values()) - set(METHODS.get(method, ()))
    options = {k: v for k, v in options.items() if k not in taken}
    for name, own in {method: options, **theirs}.items():
        prepare_method(name, own)  # refuses what does not exist before the model is read
    with Outputs([p for p in (save, html) if p is not None]) as files:
        from .. import compare as side_by_side
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
        )
        data = read_inputs(inputs, stdin=sys.stdin, series=lambda table: series(explainer, table))
        names = read_tokens(tokens) if tokens is not None else None
        check(data, explainer._plan)  # refuses bad input before TensorFlow is waited for
        start_engine()
        summary = explainer.summary() if html is not None else None
        more = _branching(explainer, summary, keep or []) if summary is not None and method == LRP else []
        whole = explainer.explain(data, wanted, method=method, keep=[*(keep or []), *more], **options)
        explanation = _without(whole, more)

        from ..report.view import passed, samples

        count = explanation.seed.shape[-1]
        shown = samples(explanation, tokens=names, limit=SAMPLES)
        if save is not None:
            files.stage(save, explanation.save)
        if html is not None:
            from ..report.html import to_html

            beside = {name: explainer.explain(data, wanted, method=name, **own) for name, own in theirs.items()}
            page = to_html(
                side_by_side({n.replace("_", " "): e for n, e in {method: whole, **beside}.items()}) if beside else whole,
                tokens=names,
                title=Path(model).name,
                summary=summary,
                scheme=colors.value,
            )
            files.stage(html, lambda part: part.write_text(page, encoding="utf-8"))
        files.commit()
    if as_json:
        print_json(explanation.to_dict() | ({} if names is None else {"tokens": names}))
        return
    from ..report.terminal import describe_passed, show

    show(shown, left_out=max(count - SAMPLES, 0))
    if explanation.passed:
        describe_passed(passed(explanation, limit=SAMPLES))


def _branching(explainer: Explainer, summary: Summary, keep: list[str]) -> list[str]:
    """What the page's flow needs beyond what is kept already; nothing of a model whose branches the inputs choose."""
    from ..hidden import resolve
    from ..report.flow import open_tensors

    if explainer._branches is not None:
        return []
    kept = {k.key for k in resolve(explainer._plan, keep)}
    return [name for name in open_tensors(summary) if name not in kept]


def _without(explanation: Explanation, names: list[str]) -> Explanation:
    """Without what was kept for the page alone."""
    hidden = {k: v for k, v in explanation.hidden.items() if k not in names}
    return replace(explanation, hidden=hidden, passed={k: v for k, v in explanation.passed.items() if k in hidden})
