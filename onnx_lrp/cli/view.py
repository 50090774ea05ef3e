"""``onnx-lrp view``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .app import ClassNames, State, Usage, names, start_engine
from .texts import TextOption, TokenizerFile, Vocabulary, options_of

if TYPE_CHECKING:
    from ..serve.subject import Subject

__all__ = ["view"]

PATIENCE = 3.0  # seconds for the work that goes on when the server ends


def view(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="The .onnx file.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="The sentiment model that ships in the package, instead of MODEL.")] = False,
    tokenizer: TokenizerFile = None,
    vocab: Vocabulary = None,
    text_option: TextOption = None,
    classes: ClassNames = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Default: any that is free.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the address only; start no browser.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Nothing but the address.")] = False,
) -> None:
    """Explain in the browser: a page on this machine alone, until Ctrl-C."""
    if (model is None) == (not demo):
        raise Usage("view needs MODEL, or --demo" if model is None else f"view MODEL ({model}) or --demo?")
    made = options_of(tokenizer, vocab, text_option)
    if demo and made:
        raise Usage("--tokenizer, --vocab and --text-option: of MODEL; the demo has its own")
    from ..serve.app import bind, build, needed, server
    from ..serve.jobs import Jobs

    needed()  # before anything is read
    subject = _subject(model, made, names(classes))
    try:
        try:
            listening = bind(port)
        except InputError as error:
            raise Usage(str(error)) from error
        with listening:
            if not quiet:  # now, as stderr is turned away while the engine starts
                print(f"{subject.name}, for this machine alone; Ctrl-C ends it", file=sys.stderr, flush=True)
            jobs = Jobs(start_engine, debug=State.debug)
            guard = build(subject, jobs, listening.getsockname()[1])
            serving = server(guard)
            print(guard.address, flush=True)
            if not no_open:
                threading.Thread(target=_open, args=(serving, guard.once()), daemon=True).start()
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            ended = False
            try:
                serving.run(sockets=[listening])
            except KeyboardInterrupt:  # how it ends; no failure
                pass
            finally:
                with contextlib.suppress(KeyboardInterrupt):  # nobody wants to wait
                    ended = jobs.stop(PATIENCE)
    finally:
        subject.close()
    if not ended:  # a thread inside TensorFlow can't be told to end, and must not be met by an interpreter that does
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _subject(model: str | None, made: dict[str, Any], classes: list[str]) -> Subject:
    from .. import demo as demonstration
    from ..serve.subject import Subject
    from ..text import Tokenizer

    if model is None:
        return Subject(
            demonstration.model(),
            "sentiment.onnx",
            start_engine,
            demonstration.tokenizer(),
            {"verify": "never"},
            demonstration.SENTENCES[0],
            classes,
        )
    return Subject(model, Path(model).name, start_engine, Tokenizer.beside(model, **made), names=classes)


def _open(serving: Any, address: str) -> None:
    """A browser, as soon as there is something to see."""
    while not serving.started:
        if serving.should_exit:
            return
        time.sleep(0.02)
    webbrowser.open(address)
