"""``onnx-lrp demo``."""

from __future__ import annotations

from typing import Annotated

import typer

from .app import AsJson, Colors, Html, Scheme, start_engine
from .parsing import suffix
from .printing import print_json
from .progress import Quiet, stages

__all__ = ["demo"]


def demo(
    sentences: Annotated[list[str] | None, typer.Argument(metavar="SENTENCE", help="English, about a film.")] = None,
    html: Html = None,
    colors: Scheme = Colors.blue_white_red,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Explain sentences with the sentiment model that ships in the package."""
    from ..report.files import Outputs

    suffix("--html", html, ".html", ".htm")
    with Outputs([html] if html is not None else []) as files, stages(quiet) as progress:
        from .. import demo as demonstration
        from .. import load
        from ..report.flow import open_tensors
        from ..report.html import page, with_flows
        from ..report.view import samples

        texts = sentences or list(demonstration.SENTENCES)
        encoded = demonstration.tokenizer().encode(texts)
        progress.stage("reading the model")
        explainer = load(demonstration.model(), verify="never")
        summary = explainer.summary()
        keep = open_tensors(summary) if html is not None else []
        progress.stage("starting TensorFlow")
        start_engine()
        progress.stage("explaining")
        shown, documents = [], []
        for i, text in enumerate(encoded):
            explanation = explainer.explain(encoded[i : i + 1], keep=keep)
            progress.reached((i + 1) / len(encoded))
            found = samples(explanation, classes=demonstration.CLASSES)
            shown += found if html is None else with_flows(found, explanation, summary)
            books = shown[-1].books
            documents.append(
                {
                    "sentence": text.text,
                    "predicted": shown[-1].predicted,
                    "scores": dict(shown[-1].scores),
                    "tokens": [
                        {"token": word, "known": k not in text.unknown, "relevance": float(value)}
                        for k, (word, value) in enumerate(zip(text.pieces, shown[-1].points[0].relevance, strict=True))
                    ],
                    "seed": books.seed,
                    "relevance": sum(books.points.values()),
                    "absorbed": books.absorbed,
                    "residual": books.residual,
                }
            )
        if html is not None:
            document = page(shown, title="onnx-lrp demo: sentiment of sentences about films", summary=summary, scheme=colors.value)
            files.stage(html, lambda part: part.write_text(document, encoding="utf-8"))
        files.commit()
    if as_json:
        print_json({"sentences": documents})
        return
    from ..report.terminal import show

    show(shown)
