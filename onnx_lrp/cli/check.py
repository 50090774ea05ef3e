"""``onnx-lrp check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .app import AsJson, CheckFailed, CustomOps, Exact, LimitOptions, ModelArgument, Usage, limits, start_engine
from .parsing import axes, suffix
from .printing import print_json
from .progress import Quiet, stages

__all__ = ["check"]


def check(
    model: ModelArgument,
    max_examples: Annotated[int, typer.Option(metavar="N", help="Inputs to ask.")] = 50,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed asks the same inputs.")] = 0,
    precision: Annotated[Exact, typer.Option(help="Of everything computed.")] = Exact.float32,
    epsilon: Annotated[float, typer.Option(help="Stabilizer.")] = 1e-3,
    bias_factor: Annotated[float, typer.Option(help="Share of bias and stabilizer that goes to the lower units, 0 to 1.")] = 0.0,
    at: Annotated[
        list[str] | None, typer.Option(metavar="TENSOR", help="Attribute to this internal tensor; may be repeated.")
    ] = None,
    output: Annotated[str | None, typer.Option(metavar="NAME", help="Graph output to explain.")] = None,
    batch_axis: Annotated[
        list[str] | None, typer.Option(metavar="[NAME=]AXIS", help="Axis of the samples, where the file leaves it open.")
    ] = None,
    limit: LimitOptions = None,
    custom_ops: CustomOps = None,
    replay: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Ask these inputs alone.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search a model's inputs for a breach of parity with onnxruntime, of conservation, or of another law."""
    suffix("--replay", replay, ".npz")
    if max_examples < 1:
        raise Usage(f"--max-examples {max_examples}: expected 1 or more")
    from ..report.files import Outputs
    from ..report.read import read_inputs
    from ..testing import check as search
    from ..testing import replay_command

    allowed = limits(limit)
    given = None if replay is None else read_inputs(str(replay), stdin=None, most=allowed.file_bytes)
    options: dict[str, Any] = {
        "precision": precision.value,
        "epsilon": epsilon,
        "bias_factor": bias_factor,
        "at": at or None,
        "output": output,
    }
    with stages(quiet) as progress:
        progress.stage("starting TensorFlow")
        start_engine()
        progress.stage("reading the model")
        report = search(
            model,
            max_examples=max_examples,
            seed=seed,
            replay=given,
            progress=progress.at,
            **options,
            batch_axis=axes(batch_axis),
            limits=allowed,
            custom_ops=custom_ops or (),
        )
    broken = {v.law: v.breach for v in report.verdicts if v.breach is not None}
    files = {law: replay or Path(f"{Path(model).stem}.breach-{law}.npz") for law in broken}
    replays = {
        law: replay_command(model, file, **options, batch_axis=batch_axis, limit=limit, custom_ops=custom_ops)
        for law, file in files.items()
    }
    if replay is None:
        with Outputs(list(files.values())) as outputs:
            for law, breach in broken.items():
                outputs.stage(files[law], breach.save)
            outputs.commit()
    if as_json:
        laws = [
            {
                "law": v.law,
                "examples": v.examples,
                "worst": v.worst,
                "bound": v.bound,
                "ok": None if v.worst is None else v.breach is None,
                "note": v.note,
                "breach": v.breach and {"message": v.breach.message, "file": str(files[v.law]), "replay": replays[v.law]},
            }
            for v in report.verdicts
        ]
        print_json({"model": model, "ok": report.ok, "seed": seed, "settings": {**options, "batch_axis": batch_axis}, "laws": laws})
    else:
        from ..report.described import describe_check

        describe_check(report, replays)
    if broken:
        raise CheckFailed(f"{len(broken)} of {len(report.verdicts)} laws broken: {', '.join(broken)}")
