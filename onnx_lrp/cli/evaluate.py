"""``onnx-lrp evaluate``."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import AsJson, Html, ModelArgument, Usage, limits, start_engine
from .options import At, BatchAxis, BiasFactor, CompositeName, EpsilonValue, FromProbabilities, Gates, OutputName, RuleName
from .parsing import axes, distinct, mapping, suffix
from .parsing import target as target_of
from .printing import print_json
from .progress import Quiet, stages
from .texts import TextOption, TokenizerFile, Vocabulary, options_of, tokenizer_of

__all__ = ["evaluate"]

METHODS = ("lrp", "gradient_x_input", "integrated_gradients", "sensitivity", "occlusion", "random")
REPLACE = ("zero", "mean", "remove")


def evaluate(
    model: ModelArgument,
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET", help=".parquet, .arrow, .feather, .csv, .jsonl, .npz or .npy; a folder or a pattern of them."
        ),
    ],
    methods: Annotated[
        str,
        typer.Option(
            metavar="METHOD,…",
            help="Also with settings, as lrp:gates=half:epsilon=0.01; random is always compared with. "
            f"Default: {', '.join(METHODS)}.",
            show_default=False,  # of one word, which would be broken
        ),
    ] = ",".join(METHODS),
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of the true classes, 0, 1, …; without it what needs them is skipped.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=COLUMN", help="Column that feeds a graph input; may be repeated."),
    ] = None,
    tokenizer: TokenizerFile = None,
    vocab: Vocabulary = None,
    text_option: TextOption = None,
    target: Annotated[
        str | None, typer.Option(help="Class index, step:3, step:-1:2. Default: the predicted class, of a tagger at its last step.")
    ] = None,
    replace: Annotated[
        str,
        typer.Option(help="What stands for a step or entry that is taken away: zero, mean, a token id; or remove: it is left out."),
    ] = "zero",
    points: Annotated[int, typer.Option(min=1, metavar="N", help="Readings of a curve.")] = 10,
    by: Annotated[
        str | None, typer.Option(help="count: one by one; share: of each sample's. Default: count up to 100 steps or entries.")
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option(
            metavar="PART,…",
            help="curves, labels, erasure, sparsity, completeness, stability, randomisation, runtime. Default: all.",
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N|NAME=NUMBER",
            help="The first N samples; and what the model may ask for, as file_bytes=4G. May be repeated.",
        ),
    ] = None,
    probes: Annotated[int, typer.Option(min=1, metavar="N", help="Samples of the slow parts, stability and randomisation.")] = 100,
    noise: Annotated[float, typer.Option(help="Of stability, in standard deviations of what is explained.")] = 0.05,
    networks: Annotated[int, typer.Option(min=1, metavar="N", help="Random models that randomisation averages.")] = 3,
    seeds: Annotated[int, typer.Option(min=10, metavar="N", help="Random explanations that are averaged.")] = 10,
    resamples: Annotated[int, typer.Option(min=100, metavar="N", help="Of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of everything random.")] = 0,
    rule: RuleName = "epsilon",
    composite: CompositeName = None,
    gates: Gates = "all",
    epsilon: EpsilonValue = 1e-3,
    bias_factor: BiasFactor = 0.0,
    at: At = None,
    output: OutputName = None,
    batch_axis: BatchAxis = None,
    from_probabilities: FromProbabilities = False,
    html: Html = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure how well explanations say what MODEL decides by on DATASET, against random ones."""
    from ..evaluation.methods import specs
    from ..evaluation.run import PARTS
    from ..report.files import Outputs
    from ..targets import Step

    suffix("--html", html, ".html", ".htm")
    distinct({"MODEL": model, "DATASET": dataset, "--html": html})
    wanted = target_of(target)
    if not (wanted is None or isinstance(wanted, int) or (isinstance(wanted, Step) and len(wanted.steps) == 1)):
        raise Usage(f"--target {target}: one class for all samples, or step:K")
    if replace not in REPLACE and re.fullmatch(r"-?\d+", replace) is None:
        raise Usage(f"--replace {replace}: expected {', '.join(REPLACE)} or a token id")
    if not 0 <= noise < math.inf:
        raise Usage(f"--noise {noise:g}: expected a finite number from 0 on")
    first, allowed = _limits(limit or ())
    specs(methods)  # refuses what does not exist before the model is read
    made = options_of(tokenizer, vocab, text_option)
    given: dict[str, Any] = {
        "methods": methods,
        "labels": label,
        "inputs": mapping(inputs or []),
        "target": wanted,
        "replace": replace if replace in REPLACE else int(replace),
        "points": points,
        "by": by,
        "parts": PARTS if parts is None else [p.strip() for p in parts.split(",")],
        "limit": first,
        "probes": probes,
        "noise": noise,
        "networks": networks,
        "seeds": seeds,
        "resamples": resamples,
        "seed": seed,
        "rule": rule,
        "composite": composite,
        "gates": gates,
        "epsilon": epsilon,
        "bias_factor": bias_factor,
        "at": at or None,
        "output": output,
        "batch_axis": axes(batch_axis),
        "from_probabilities": from_probabilities,
        **({"limits": limits(allowed)} if allowed else {}),
    }
    with Outputs([html] if html is not None else []) as files, stages(quiet) as progress:
        from .. import evaluate as run
        from ..text import beside

        encode, cut = None, set[str]()
        if made or os.path.isfile(beside(model)):
            coder = tokenizer_of(model, made)

            def encode(text: str) -> Any:
                [own] = coder.encode(text)
                if own.left_out:
                    cut.add(text)
                return own.ids

        progress.stage("starting TensorFlow")
        start_engine()
        found = run(model, dataset, encode=encode, progress=progress.at, **given)
        if cut:
            rest = {f"rest of {len(cut)} texts": "cut off, as max_length says"}
            found = dataclasses.replace(found, skipped={**found.skipped, **rest})
        if html is not None:
            page = found.to_html(title=f"{Path(model).name}: are the explanations right?")
            files.stage(html, lambda part: part.write_text(page, encoding="utf-8"))
        files.commit()
    if as_json:
        print_json(found.to_dict())
        return
    from ..report.evaluation import describe_evaluation

    describe_evaluation(found)


def _limits(texts: Sequence[str]) -> tuple[int | None, list[str]]:
    """How many samples at most, and the limits of the model."""
    counts = [text for text in texts if "=" not in text]
    try:
        found = [int(text) for text in counts]
    except ValueError:
        found = [0]
    if len(found) > 1 or any(n < 1 for n in found):
        raise Usage(f"--limit {' '.join(counts)}: expected one number of samples, or NAME=NUMBER for what the model may ask for")
    return next(iter(found), None), [text for text in texts if "=" in text]
