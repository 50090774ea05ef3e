"""The page's server: its paths, and how it is started. Everything that is asked passes :mod:`.guard` first."""

from __future__ import annotations

import functools
import importlib
import json
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jinja2

from ..errors import InputError, MissingExtra, OnnxLrpError
from .guard import FILE, HOST, Guard
from .jobs import Busy, Job, Jobs
from .question import Question
from .subject import Result, Subject

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["bind", "build", "needed", "server"]

CONNECTIONS = 100


def needed() -> tuple[Any, Any]:
    """(starlette, uvicorn).

    Raises:
        MissingExtra: they are not installed.
    """
    try:
        return importlib.import_module("starlette.applications"), importlib.import_module("uvicorn")
    except ImportError as error:
        raise MissingExtra("starlette and uvicorn", extra="view", purpose="onnx-lrp view") from error


def bind(port: int) -> socket.socket:
    """A socket that listens to this machine alone.

    Args:
        port: 0: any that is free.

    Raises:
        InputError: it is taken, or not allowed.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows: nobody else may listen there, too
            made.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:  # at once again after the last server
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((HOST, port))
        made.listen(CONNECTIONS)
    except (OSError, OverflowError) as error:
        made.close()
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"port {port}: {reason}; without --port one that is free is taken") from error
    return made


def server(app: Guard) -> Any:
    """A ``uvicorn.Server`` for it; its ``run(sockets=[…])`` lasts until it is interrupted."""
    _, uvicorn = needed()
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,  # addresses hold the key
        log_level="critical",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def build(subject: Subject, jobs: Jobs, port: int) -> Guard:
    """The application.

    Raises:
        MissingExtra: see :func:`needed`.
    """
    needed()
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

    def text(body: str, kind: str) -> Callable[[Request], Response]:
        return lambda request: Response(body, media_type=kind)

    def page(request: Request) -> Response:
        return HTMLResponse(_source("page.html", key=request.scope.get("key", "")))

    def model(request: Request) -> Response:
        return JSONResponse(subject.describe())

    async def file(request: Request) -> Response:
        _of_type(request, "application/octet-stream")
        body = await request.body()
        return JSONResponse(await run_in_threadpool(subject.keep, request.query_params.get("name", ""), body))

    async def start(request: Request) -> Response:
        _of_type(request, "application/json")
        try:
            raw = json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise InputError(f"not JSON: {error}") from error
        question = Question.read(raw)
        return JSONResponse(jobs.start(lambda job: subject.answer(question, job)).to_dict(), 202)

    def last(request: Request) -> Response:
        return JSONResponse(None if jobs.last is None else _told(jobs.last))

    def found(request: Request) -> Job:
        job = jobs.get(request.path_params["id"])
        if job is None:
            raise HTTPException(404, "this explanation is gone: another one was asked for since")
        return job

    def result(request: Request) -> Result:
        got = found(request).result
        if not isinstance(got, Result):
            raise HTTPException(409, "this explanation is not there (yet)")
        return got

    def state(request: Request) -> Response:
        return JSONResponse(_told(found(request)))

    def cancel(request: Request) -> Response:
        job = found(request)
        job.cancel()
        return JSONResponse(_told(job))

    def shown(request: Request) -> Response:
        return HTMLResponse(result(request).shown)

    def as_html(request: Request) -> Response:
        from ..report.colors import DEFAULT

        return HTMLResponse(result(request).html(request.query_params.get("scheme", DEFAULT)))

    def as_json(request: Request) -> Response:
        return Response(result(request).json(request.query_params.get("method", "")), media_type="application/json")

    def refused(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 409 if isinstance(error, Busy) else 400
        return JSONResponse({"error": error.detail if isinstance(error, HTTPException) else str(error)}, status)

    routes = [
        Route("/", page),
        Route("/view.css", text(_styles(), "text/css")),
        Route("/view.js", text(_source("view.js"), "text/javascript")),
        Route("/report.js", text(_script(), "text/javascript")),
        Route("/icon.svg", text(_source("icon.svg"), "image/svg+xml")),
        Route("/api/model", model),
        Route(FILE, file, methods=["POST"]),
        Route("/api/jobs", last),
        Route("/api/jobs", start, methods=["POST"]),
        Route("/api/jobs/{id}", state),
        Route("/api/jobs/{id}/cancel", cancel, methods=["POST"]),
        Route("/api/jobs/{id}/shown", shown),
        Route("/api/jobs/{id}/html", as_html),
        Route("/api/jobs/{id}/json", as_json),
    ]
    errors = dict.fromkeys((HTTPException, OnnxLrpError, Busy), refused)
    return Guard(Starlette(routes=routes, exception_handlers=errors), port)


def _told(job: Job) -> dict[str, Any]:
    """With what may be asked for next."""
    result = job.result if job.state == "done" else None
    more = {} if not isinstance(result, Result) else {"samples": result.samples, "methods": list(result.parts)}
    return {**job.to_dict(), **more}


def _of_type(request: Request, kind: str) -> None:
    """A form can't send these."""
    from starlette.exceptions import HTTPException

    if request.headers.get("content-type", "").partition(";")[0].strip() != kind:
        raise HTTPException(415, f"expected {kind}")


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(loader=jinja2.PackageLoader("onnx_lrp.serve"), autoescape=True, undefined=jinja2.StrictUndefined)


def _source(name: str, **values: Any) -> str:
    """A template; of scripts and styles, none of which has a value in it, their text."""
    environment = _environment()
    if values:
        return environment.get_template(name).render(**values)
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _styles() -> str:
    from ..report.html import stylesheet

    return stylesheet() + _source("view.css")


def _script() -> str:
    from ..report.html import script

    return script()
