"""``onnx-lrp explain``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import (
    AsJson,
    ClassNames,
    Colors,
    CustomOps,
    Html,
    Jit,
    LimitOptions,
    ModelArgument,
    Precision,
    Scheme,
    Usage,
    Verify,
    limits,
    names,
    start_engine,
)
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
from .parsing import distinct, suffix
from .parsing import target as target_of
from .printing import print_json
from .progress import Quiet, stages
from .texts import TextFile, TextOption, Texts, TokenizerFile, Vocabulary, by_of, options_of, texts_of, tokenizer_of, tokens_of

if TYPE_CHECKING:
    from ..explanation import Explanation

__all__ = ["explain"]

SAMPLES = 5  # printed of a batch


def explain(
    model: ModelArgument,
    inputs: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUTS", help=".npz (by input name), .npy, .json, .csv or .parquet (series), or - for JSON on stdin."
        ),
    ] = None,
    text: Texts = None,
    text_file: TextFile = None,
    tokenizer: TokenizerFile = None,
    vocab: Vocabulary = None,
    text_option: TextOption = None,
    remember: Annotated[
        bool, typer.Option("--remember", help="Keep how ids are made of texts in MODEL's .tokens.json, which is read from then on.")
    ] = False,
    time: Annotated[
        str | None, typer.Option("--time", metavar="COLUMN", help="Of .csv and .parquet: names of the time steps.")
    ] = None,
    features: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Columns to read, in this order. Default: all but --time and --id.")
    ] = None,
    id: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="Tells several series in one file apart; of any length.")
    ] = None,
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
    limit: LimitOptions = None,
    custom_ops: CustomOps = None,
    classes: ClassNames = None,
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
    quiet: Quiet = False,
) -> None:
    """Explain a model's decisions on INPUTS, or on texts."""
    from ..methods import LRP, METHODS, prepare_method
    from ..report.files import Outputs
    from ..saved import SUFFIXES, need_pyarrow

    suffix("--save", save, *SUFFIXES)
    suffix("--html", html, ".html", ".htm")
    if save is not None and save.suffix == ".parquet":
        need_pyarrow()
    distinct({"MODEL": model, "INPUTS": inputs, "--text-file": text_file, "--tokens": tokens, "--save": save, "--html": html})
    columns = {"time": time, "id": id, "features": None if features is None else features.split(",")}
    made = options_of(tokenizer, vocab, text_option)
    _refuse(inputs, bool(text or text_file), {"--tokenizer, --vocab or --text-option": made, "--remember": remember}, columns)
    fold, occluded = by_of(by, bool(text or text_file))
    wanted, allowed = target_of(target), limits(limit)
    options = of_method(steps=steps, baseline=baseline, by=occluded)
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
    from ..text import beside

    kept = beside(model) if remember else None
    with Outputs([p for p in (save, html, kept) if p is not None]) as files, stages(quiet) as progress:
        from .. import compare as side_by_side
        from .. import load
        from ..inputs import may_miss
        from ..ragged import check
        from ..report.flow import branching, without
        from ..report.read import read_inputs, read_tokens

        progress.stage("reading the model")
        coder = tokenizer_of(model, made) if text or text_file else None
        encoded = None if coder is None else tokens_of(coder, texts_of(text, text_file), text_file)
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
            limits=allowed,
            custom_ops=custom_ops or (),
        )
        explainer = load(model, **given)
        if encoded is None:
            assert inputs is not None
            missing = any(may_miss(v.name, explainer._plan) for v in explainer.inputs)
            data = read_inputs(inputs, stdin=sys.stdin, **columns, missing=missing, most=allowed.file_bytes)
        else:
            data = encoded
        steps_named = read_tokens(tokens) if tokens is not None else None
        check(data, explainer._plan)  # refuses bad input before TensorFlow is waited for
        progress.stage("starting TensorFlow")
        start_engine()
        progress.stage("explaining")
        summary = explainer.summary() if html is not None else None
        more = branching(explainer, summary, keep or []) if summary is not None and method == LRP else []
        whole = explainer.explain(data, wanted, method=method, keep=[*(keep or []), *more], progress=progress.reached, **options)
        explanation = without(whole, more)
        beside_it = {name: explainer.explain(data, wanted, method=name, **own) for name, own in theirs.items()}
        progress.stage("writing")

        from ..report.rows import in_pieces
        from ..report.view import passed, samples, visible

        count = explanation.seed.shape[-1]
        displayed = explanation if fold else in_pieces(explanation)
        called = names(classes) or (coder.options.classes if coder is not None else None) or ()
        shown = samples(displayed, tokens=steps_named, classes=called, limit=SAMPLES)
        if save is not None:
            files.stage(save, explanation.save)
        if html is not None:
            from ..report.html import to_html

            compared = {n.replace("_", " "): e if fold else in_pieces(e) for n, e in {method: whole, **beside_it}.items()}
            page = to_html(
                side_by_side(compared, classes=called) if beside_it else compared[method.replace("_", " ")],
                tokens=steps_named,
                title=Path(model).name,
                classes=called,
                summary=summary,
                scheme=colors.value,
            )
            files.stage(html, lambda part: part.write_text(page, encoding="utf-8"))
        if kept is not None and coder is not None:
            files.stage(kept, lambda part: coder.options.write(part, folder=kept.parent))
        files.commit()
    if as_json:
        words = _words(explanation) if encoded is not None and fold else {}
        print_json(explanation.to_dict() | words | ({} if steps_named is None else {"tokens": steps_named}))
        return
    from ..report.described import describe_passed
    from ..report.terminal import show

    show(shown, left_out=max(count - SAMPLES, 0))
    if explanation.passed:
        describe_passed(passed(explanation, limit=SAMPLES, classes=called))
    if kept is not None:
        print(f"{visible(str(kept))} keeps how ids are made of texts: --text needs no other option from now on")


def _refuse(inputs: str | None, texts: bool, of_texts: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
    """Options that have nothing to do with what is explained.

    Raises:
        Usage: there are such, or there is nothing to explain.
    """
    if (inputs is None) == (not texts):
        raise Usage(
            "explain needs INPUTS, --text or --text-file"
            if inputs is None
            else f"INPUTS ({inputs}) or texts (--text, --text-file)?"
        )
    for name, value in of_texts.items():
        if value and not texts:
            raise Usage(f"{name}: of texts, which --text or --text-file give")
    from ..report.read import TABLES

    asked = [f"--{name}" for name, value in columns.items() if value is not None]
    if asked and (inputs is None or Path(inputs).suffix.lower() not in TABLES):
        raise Usage(f"{asked[0]}: names a column of {' or '.join(TABLES)}, not of {inputs or 'texts'}")


def _words(explanation: Explanation) -> dict[str, Any]:
    """{"per_word": of each sample, and of several classes of each class first, [word, relevance] for every word}."""
    if len(explanation.relevance) != 1:
        return {}
    if explanation.several:
        return {"per_word": [_words(explanation.select(k))["per_word"] for k in range(len(explanation.seed))]}
    assert explanation.labels is not None
    rows = zip(explanation.labels.words, explanation.per_word(), strict=True)
    return {"per_word": [[[w.text, float(r)] for w, r in zip(words, row, strict=True)] for words, row in rows]}
