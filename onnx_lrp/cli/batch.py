"""``onnx-lrp batch``."""

from __future__ import annotations

import contextlib
import enum
import math
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import CustomOps, Jit, LimitOptions, ModelArgument, Precision, Usage, Verify, limits, start_engine
from .options import (
    At,
    Baseline,
    BatchAxis,
    BiasFactor,
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
from .parsing import mapping
from .parsing import target as target_of
from .printing import print_json
from .rows import Lines, bar
from .texts import TextOption, TokenizerFile, Vocabulary, by_of, options_of, tokenizer_of

__all__ = ["batch"]


class Engine(enum.StrEnum):
    local = "local"
    ray = "ray"


AGAIN = "what is done is kept: the same command with --resume goes on"


def batch(
    model: ModelArgument,
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help=".parquet, .arrow, .feather, .csv, .jsonl, .npz or .npy; a folder or a pattern of them; or an address that "
            "fsspec opens, as s3://…",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the results.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=COLUMN",
            help="Column that feeds a graph input; also several, as x=a,b,c, or a pattern, as x=f*. May be repeated.",
        ),
    ] = None,
    keep: Annotated[list[str] | None, typer.Option(metavar="COLUMN,…", help="Columns to hand on, as id,label.")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="argmax (the default: the predicted class), a class index, a column of them (column:NAME where that looks like "
            "something else), step:3, step:-1:2, contrast:0,1."
        ),
    ] = None,
    summed: Annotated[
        str | None, typer.Option("--sum", metavar="features", help="Relevance summed over the features of each step.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="COLUMN", help="Column of texts, from which all that the model takes is made."),
    ] = None,
    tokenizer: TokenizerFile = None,
    vocab: Vocabulary = None,
    text_option: TextOption = None,
    method: MethodName = "lrp",
    steps: Steps = None,
    baseline: Baseline = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Of texts: word or piece (of words). Of occlusion: step or feature. Default: word; step where there is time."
        ),
    ] = None,
    rule: RuleName = "epsilon",
    composite: CompositeName = None,
    gates: Gates = "all",
    epsilon: EpsilonValue = 1e-3,
    bias_factor: BiasFactor = 0.0,
    at: At = None,
    output: OutputName = None,
    precision: PrecisionName = Precision.float32,
    jit: JitMode = Jit.auto,
    batch_axis: BatchAxis = None,
    from_probabilities: FromProbabilities = False,
    verify: VerifyMode = Verify.first,
    custom_ops: CustomOps = None,
    limit: LimitOptions = None,
    max_bytes: Annotated[int | None, typer.Option(min=1, metavar="BYTES", help="Memory that a bunch of rows may take up.")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, metavar="STEPS", help="Longer rows are errors.")] = None,
    max_errors: Annotated[
        str | None, typer.Option(metavar="N|P%", help="Rows that may be errors before the run gives up. Default: all.")
    ] = None,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Do part I, from 0, of N equal ones: 0/8 to 7/8.")] = "0/1",
    shard_rows: Annotated[int, typer.Option(min=1, metavar="ROWS", help="Rows of one shard: what a kill loses at most.")] = 16_384,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in DIR.")] = False,
    engine: Annotated[Engine, typer.Option(help="ray: workers on a Ray cluster (extra: ray), which share DIR.")] = Engine.local,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Of the Ray cluster. Default: RAY_ADDRESS, else this machine alone.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Of Ray: workers, of one core each. Default: as many as there is room for."),
    ] = None,
    gpus_per_worker: Annotated[
        float, typer.Option("--gpus-per-worker", metavar="F", help="Of Ray: 1, or a part of one, as 0.5.")
    ] = 0.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Progress as lines of JSON on stderr, the manifest as one document on stdout.")
    ] = False,
) -> None:
    """Explain every row of DATASET; stopped at any moment, it can be gone on with."""
    from ..report.files import OutputError

    if summed not in (None, "features"):
        raise Usage(f"--sum {summed}: expected features")
    fold, occluded = by_of(by, text is not None)
    made = options_of(tokenizer, vocab, text_option)
    if made and text is None:
        raise Usage("--tokenizer, --vocab or --text-option: of texts, whose column --text names")
    if max_errors is not None and re.fullmatch(r"\d+(\.\d+)?%|\d+", max_errors) is None:
        raise Usage(f"--max-errors {max_errors}: expected a number of rows, or a share as 5%")
    _of_ray(engine, {"--address": address, "--workers": workers, "--gpus-per-worker": gpus_per_worker or None}, gpus_per_worker)
    given: dict[str, Any] = {
        "inputs": mapping(inputs or []),
        "keep": [name for text in keep or [] for name in text.split(",") if name],
        "target": _target(target),
        "per_step": summed is not None,
        "method": method,
        "max_length": max_length,
        "max_errors": max_errors,
        "shard": _shard(shard),
        "resume": resume,
        "shard_rows": shard_rows,
        "engine": engine.value,
        "address": address,
        "workers": workers,
        "gpus_per_worker": gpus_per_worker,
        "text": text,
        "words": fold,
        "max_bytes": max_bytes,
        **of_method(steps=steps, baseline=baseline, by=occluded),
        **loading(
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
            **({"custom_ops": custom_ops} if custom_ops else {}),
            limits=limits(limit),
        ),
    }
    from .. import explain_dataset

    try:
        with Lines(quiet=quiet) if as_json else bar(quiet=quiet) as progress:
            if engine == Engine.local:
                start_engine()
            given["tokenizer"] = tokenizer_of(model, made) if text is not None else None
            # Ray tells of workers that died on stdout, where there is nothing but results
            with contextlib.redirect_stdout(sys.stderr if engine == Engine.ray else sys.stdout):
                manifest = explain_dataset(model, dataset, out, progress=progress, **given)
    except KeyboardInterrupt as error:
        raise OutputError(f"interrupted; {AGAIN}") from error
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        again = f"; {AGAIN}" if os.path.isdir(out) else ""
        raise OutputError(f"{out}: can't be written: {error.strerror or error}{again}") from error
    if as_json:
        print_json(manifest)
        return
    worst = manifest["worst_residual"]
    rest = "" if worst is None else f"; worst residual {worst['value']:.2g} (row {worst['row']})"
    print(f"{manifest['rows']:,} rows: {manifest['explained']:,} explained, {sum(manifest['errors'].values()):,} errors{rest}")
    for kind, count in manifest["errors"].items():
        print(f"  {kind}: {count:,}")
    print(f"in {out}")


def _target(text: str | None) -> Any:
    """None, a class, a spec, or the name of a column."""
    if text in (None, "argmax"):
        return None
    assert text is not None
    if text.startswith("column:"):
        return text.removeprefix("column:")
    if re.fullmatch(r"-?\d+(,-?\d+)*|all|(step|contrast|top):.*", text):
        wanted = target_of(text)
        if isinstance(wanted, list):
            raise Usage(f"--target {text}: one class for all rows, or a column of classes")
        return wanted
    return text


def _of_ray(engine: Engine, options: Mapping[str, Any], gpus: float) -> None:
    """Refuse options of the other engine, and parts of a GPU that there are not."""
    given = [f"{name} {value}" for name, value in options.items() if value is not None]
    if given and engine != Engine.ray:
        raise Usage(f"{given[0]}: of --engine ray alone")
    if not (0 <= gpus <= 1 or (math.isfinite(gpus) and gpus > 0 and gpus % 1 == 0)):
        raise Usage(f"--gpus-per-worker {gpus:g}: expected a part of one GPU, as 0.5, or a whole number of them")


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise Usage(f"--shard {text}: expected I/N with 0 <= I < N, as 0/8")
    return int(found[1]), int(found[2])
