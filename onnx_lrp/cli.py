"""The command line. Thin: options in, library calls, reports out; every error becomes one line and an exit code.

0 done · 1 a check failed · 2 usage, or a missing extra · 3 the model · 4 the input · 5 the output, or interrupted · 70 a bug
"""

from __future__ import annotations

import contextlib
import enum
import importlib.metadata
import json
import math
import os
import platform
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__
from ._lazy import start_quietly
from .errors import InputError, MissingExtra, ModelError, RuleError, UnsupportedModel

if TYPE_CHECKING:
    import numpy as np

    from .explainer import Explainer

__all__ = ["app", "main", "run"]

SAMPLES = 5  # printed of a batch

app = typer.Typer(
    name="onnx-lrp",
    add_completion=False,
    rich_markup_mode=None,
    help="Say which inputs made an ONNX model decide as it did: Layer-wise Relevance Propagation with closed books.",
)


class Precision(enum.StrEnum):
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


class Usage(Exception):
    """A command line that makes no sense."""


class CheckFailed(Exception):
    """A law is broken."""


class _State:
    debug = False


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The .onnx file.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="OUT.html", help="Also write a self-contained page.")]


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
    _State.debug = debug


@app.command()
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
    as_json: AsJson = False,
) -> None:
    """Explain a model's decisions on INPUTS."""
    from .methods import prepare_method
    from .report.files import Outputs
    from .saved import SUFFIXES, need_pyarrow

    _suffix("--save", save, *SUFFIXES)
    _suffix("--html", html, ".html", ".htm")
    if save is not None and save.suffix == ".parquet":
        need_pyarrow()
    _distinct({"MODEL": model, "INPUTS": inputs, "--tokens": tokens, "--save": save, "--html": html})
    wanted = _target(target)
    given = {"steps": steps, "baseline": baseline, "by": by}
    options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    prepare_method(method, options)  # refuses what does not exist before the model is read
    with Outputs([p for p in (save, html) if p is not None]) as files:
        from . import load
        from .ragged import check
        from .report.read import read_inputs, read_tokens

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
            batch_axis=_axes(batch_axis),
            precision=precision.value,
            jit=jit.value,
            verify=verify.value,
        )
        data = read_inputs(inputs, stdin=sys.stdin, series=lambda table: _series(explainer, table))
        names = read_tokens(tokens) if tokens is not None else None
        check(data, explainer._plan)  # refuses bad input before TensorFlow is waited for
        _start_engine()
        explanation = explainer.explain(data, wanted, method=method, keep=keep or (), **options)

        from .report.view import passed, samples

        count = explanation.seed.shape[-1]
        shown = samples(explanation, tokens=names, limit=SAMPLES)
        if save is not None:
            files.stage(save, explanation.save)
        if html is not None:
            from .report.html import to_html

            page = to_html(explanation, tokens=names, title=Path(model).name)
            files.stage(html, lambda part: part.write_text(page, encoding="utf-8"))
        files.commit()
    if as_json:
        _print_json(explanation.to_dict() | ({} if names is None else {"tokens": names}))
        return
    from .report.terminal import describe_passed, show

    show(shown, left_out=max(count - SAMPLES, 0))
    if explanation.passed:
        describe_passed(passed(explanation, limit=SAMPLES))


@app.command()
def inspect(model: ModelArgument, as_json: AsJson = False) -> None:
    """Show what was read of a model, and whether it can be explained."""
    from . import load
    from .report.terminal import describe, describe_cuts

    try:
        summary = load(model).summary()
    except UnsupportedModel as error:
        if as_json:
            _print_json({"explainable": False, "nodes": list(error.nodes), "cuts": list(error.cuts)})
        elif error.cuts:
            describe_cuts(error)
        raise
    if as_json:
        _print_json({"explainable": True, **summary.to_dict()})
        return
    describe(summary)


@app.command()
def weights(
    model: ModelArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT.npz", help="Arrays are stored as layer/parameter.")],
    order: Annotated[Order, typer.Option(help="Order of LSTM gates; c is the candidate, which torch calls g.")] = Order.ifco,
) -> None:
    """Write the canonical weights."""
    from .report.files import Outputs

    _suffix("OUT", out, ".npz")
    with Outputs([out]) as files:
        import numpy as np

        from . import load

        arrays = {
            f"{layer}/{name}": array
            for layer, parameters in load(model).weights().items()
            for name, array in _ordered(parameters, order).items()
        }

        def write(part: Path) -> None:
            with part.open("wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]

        files.stage(out, write)
        files.commit()
    from .report.view import visible

    for name, array in arrays.items():
        print(visible(name), "x".join(map(str, array.shape)) or "scalar")


@app.command()
def check(
    model: ModelArgument,
    max_examples: Annotated[int, typer.Option(metavar="N", help="Inputs to ask.")] = 50,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed asks the same inputs.")] = 0,
    precision: Annotated[Precision, typer.Option(help="Of everything computed.")] = Precision.float32,
    epsilon: Annotated[float, typer.Option(help="Stabilizer.")] = 1e-3,
    bias_factor: Annotated[float, typer.Option(help="Share of bias and stabilizer that goes to the lower units, 0 to 1.")] = 0.0,
    at: Annotated[
        list[str] | None, typer.Option(metavar="TENSOR", help="Attribute to this internal tensor; may be repeated.")
    ] = None,
    output: Annotated[str | None, typer.Option(metavar="NAME", help="Graph output to explain.")] = None,
    batch_axis: Annotated[
        list[str] | None, typer.Option(metavar="[NAME=]AXIS", help="Axis of the samples, where the file leaves it open.")
    ] = None,
    replay: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Ask these inputs alone.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search a model's inputs for a breach of parity with onnxruntime, of conservation, or of another law."""
    _suffix("--replay", replay, ".npz")
    if max_examples < 1:
        raise Usage(f"--max-examples {max_examples}: expected 1 or more")
    from .report.files import Outputs
    from .report.read import read_inputs
    from .testing import check as search
    from .testing import replay_command

    given = None if replay is None else read_inputs(str(replay), stdin=None, series=lambda table: table)
    options: dict[str, Any] = {
        "precision": precision.value,
        "epsilon": epsilon,
        "bias_factor": bias_factor,
        "at": at or None,
        "output": output,
    }
    _start_engine()
    report = search(
        model,
        max_examples=max_examples,
        seed=seed,
        replay=given,
        **options,
        batch_axis=_axes(batch_axis),
    )
    broken = {v.law: v.breach for v in report.verdicts if v.breach is not None}
    files = {law: replay or Path(f"{Path(model).stem}.breach-{law}.npz") for law in broken}
    replays = {law: replay_command(model, file, **options, batch_axis=batch_axis) for law, file in files.items()}
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
        _print_json(
            {"model": model, "ok": report.ok, "seed": seed, "settings": {**options, "batch_axis": batch_axis}, "laws": laws}
        )
    else:
        from .report.terminal import describe_check

        describe_check(report, replays)
    if broken:
        raise CheckFailed(f"{len(broken)} of {len(report.verdicts)} laws broken: {', '.join(broken)}")


@app.command()
def demo(
    sentences: Annotated[list[str] | None, typer.Argument(metavar="[SENTENCE]...", help="English, about a film.")] = None,
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """Explain sentences with the sentiment model that ships in the package."""
    from .report.files import Outputs

    _suffix("--html", html, ".html", ".htm")
    with Outputs([html] if html is not None else []) as files:
        from . import demo as demonstration
        from . import load
        from .report.view import samples

        texts = sentences or list(demonstration.SENTENCES)
        encoded = [demonstration.encode(text) for text in texts]
        explainer = load(demonstration.model(), verify="never")
        _start_engine()
        shown, documents = [], []
        for text, (words, ids) in zip(texts, encoded, strict=True):
            explanation = explainer.explain(ids)
            unknown = ids[0] == demonstration.UNKNOWN
            marked = [word + "?" if strange else word for word, strange in zip(words, unknown, strict=True)]
            shown += samples(explanation, tokens=marked, classes=demonstration.CLASSES, titles=[text], unknown=bool(unknown.any()))
            books = shown[-1].books
            documents.append(
                {
                    "sentence": text,
                    "predicted": shown[-1].predicted,
                    "scores": dict(shown[-1].scores),
                    "tokens": [
                        {"token": word, "known": not strange, "relevance": float(value)}
                        for word, strange, value in zip(words, unknown, shown[-1].points[0].relevance, strict=True)
                    ],
                    "seed": books.seed,
                    "relevance": sum(books.points.values()),
                    "absorbed": books.absorbed,
                    "residual": books.residual,
                }
            )
        if html is not None:
            from .report.html import page

            text = page(shown, title="onnx-lrp demo: sentiment of sentences about films")
            files.stage(html, lambda part: part.write_text(text, encoding="utf-8"))
        files.commit()
    if as_json:
        _print_json({"sentences": documents})
        return
    from .report.terminal import show

    show(shown)


def _suffix(option: str, path: Path | None, *known: str) -> None:
    if path is not None and path.suffix not in known:
        raise Usage(f"{option} {path}: expected a name that ends in {' or '.join(known)}")


def _distinct(paths: dict[str, str | Path | None]) -> None:
    seen: dict[str, str] = {}
    for option, path in paths.items():
        if path is not None and path != "-":
            other = seen.setdefault(os.path.realpath(path), option)
            if other != option and option in ("--save", "--html"):
                raise Usage(f"{option} would overwrite {other}: {path}")


def _target(text: str | None) -> Any:
    """None, a class, a class for each sample, or one of ``onnx_lrp.targets``."""
    if text is None:
        return None
    from . import targets

    kind, *parts = text.split(":")
    try:
        if kind == "step" and len(parts) in (1, 2):
            return targets.step(*map(_numbers, parts))
        if kind == "contrast" and len(parts) == 1:
            a, b = map(int, parts[0].split(","))
            return targets.contrast(a, b)
        if kind == "top" and len(parts) == 1:
            return targets.top_k(int(parts[0]))
        return targets.all_classes() if text == "all" else _numbers(text)
    except ValueError as error:  # InputError is one
        raise Usage(
            f"--target {text}: expected a class index, one a sample as in 1,0,1, step:3, step:-1:2, contrast:0,1, all or top:3"
        ) from error


def _numbers(text: str) -> int | list[int]:
    numbers = [int(part) for part in text.split(",")]
    return numbers if "," in text else numbers[0]


def _axes(texts: Sequence[str] | None) -> int | dict[str, int] | None:
    if not texts:
        return None
    try:
        if len(texts) == 1 and "=" not in texts[0]:
            return int(texts[0])
        pairs = [text.rsplit("=", 1) for text in texts]
        return {name: int(axis) for name, axis in pairs}
    except ValueError as error:
        raise Usage(f"--batch-axis {' '.join(texts)}: expected an axis, or name=axis for each input") from error


def _series(explainer: Explainer, table: np.ndarray) -> np.ndarray:
    """The model's input of one series (T, I): with a batch axis of 1, without a feature axis where the model has none."""
    import numpy as np

    if len(explainer.inputs) != 1:
        raise InputError(f"a table holds one input, this model takes {', '.join(str(v) for v in explainer.inputs)}; pass .npz")
    value = explainer.inputs[0]
    if value.shape is None:
        return table
    batch = explainer._plan.batch_axis(value.name)
    rank = len(value.shape) - (batch is not None)
    if rank == 1 and 1 in table.shape:
        table = table.reshape(-1)
    elif rank != 2:
        raise InputError(f"a table of shape {table.shape} is no single sample of {value}; pass .npy or .npz")
    return table if batch is None else np.expand_dims(table, batch)


def _ordered(parameters: dict[str, np.ndarray], order: Order) -> dict[str, np.ndarray]:
    """LSTM weights (…, 4H) from i, f, c, o to ONNX's i, o, f, c; peepholes (D, 3H) from i, f, o to i, o, f."""
    import numpy as np

    recurrent = parameters.get("W_h")
    if order != Order.iofc or recurrent is None or recurrent.shape[-1] != 4 * recurrent.shape[-2]:
        return parameters
    out = dict(parameters)
    for name, gates in {"W_x": (0, 3, 1, 2), "W_h": (0, 3, 1, 2), "b": (0, 3, 1, 2), "P": (0, 2, 1)}.items():
        if name in parameters:
            parts = np.split(parameters[name], len(gates), -1)
            out[name] = np.concatenate([parts[g] for g in gates], -1)
    return out


def _print_json(document: Any) -> None:
    print(json.dumps(_strict(document), allow_nan=False))


def _strict(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, dict):
        return {k: _strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _start_engine() -> None:
    """TensorFlow, with its own messages only where they are asked for."""
    if not _State.debug:
        start_quietly()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and leave with the exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run, and return the exit code; errors are one line on stderr."""
    _State.debug = False
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        if sys.stdout is None:
            raise OSError("stdout is closed")
        command = typer.main.get_command(app)
        try:
            with command.make_context("onnx-lrp", list(arguments)) as context:
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
        if _State.debug:
            traceback.print_exception(error)
        from .report.view import visible

        with contextlib.suppress(OSError, ValueError):
            print(f"onnx-lrp: {visible(' '.join(message.split()))}", file=sys.stderr, flush=True)
        return code


def _verdict(error: BaseException) -> tuple[int, str]:
    from .report.files import OutputError

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
