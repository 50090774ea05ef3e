"""Who may speak to the page's server: the page itself, in a browser that was handed the key; no other page, whatever it tries.

A key stands in the address that is printed. The page takes it out of there and sends it in a header, from storage that belongs to
its own address and port. The cookie, which browsers also send to other ports, opens nothing but the empty page.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

__all__ = ["HEADER", "HOST", "Guard"]

HOST = "127.0.0.1"
HEADER = "x-onnx-lrp-key"
SHELL = ("/", "/view.css", "/view.js", "/report.js", "/icon.svg")  # the same for everybody: nothing of a model or a text
READING = ("GET", "HEAD")
FILE = "/api/file"
LIMITS = {FILE: 64 * 2**20}  # bytes of a request's body
LIMIT = 2**20
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "style-src-attr 'unsafe-inline'",  # where a bar begins and ends
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
LOST = "This page needs its key: open the address that onnx-lrp view printed.\n"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Guard:
    """An ASGI application around another one; lets through what comes from the page itself.

    Args:
        port: that the server listens on, at 127.0.0.1.
    """

    def __init__(self, app: App, port: int) -> None:
        self._app = app
        self._port = port
        self._key = secrets.token_urlsafe(32)
        self._cookie = secrets.token_urlsafe(32)
        self._once: set[str] = set()
        self._hosts = {f"{HOST}:{port}"} | ({HOST} if port == 80 else set())

    @property
    def address(self) -> str:
        """The page's address with the key; good for as long as the server runs."""
        return f"http://{HOST}:{self._port}/?key={self._key}"

    def once(self) -> str:
        """An address that works one time: to start a browser with, as everybody on a machine sees how programs are started."""
        code = secrets.token_urlsafe(32)
        self._once.add(code)
        return f"http://{HOST}:{self._port}/?key={code}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        extra: dict[str, str] = {}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = {**HEADERS, **extra}
                kept = [(k, v) for k, v in message.get("headers", ()) if k.decode("latin-1").lower() not in more]
                message = {**message, "headers": [*kept, *((k.encode(), v.encode()) for k, v in more.items())]}
            await send(message)

        try:
            if self._checked(scope):
                scope["key"] = self._key  # for the page to keep
                extra["set-cookie"] = f"{self._name}={self._cookie}; HttpOnly; SameSite=Strict; Path=/"
            await self._app(scope, _again(await _body(scope, receive), receive), answer)
        except _Refused as refusal:
            body = str(refusal).encode()
            start = {"type": "http.response.start", "status": refusal.status}
            await answer({**start, "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]})
            await answer({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    @property
    def _name(self) -> str:
        """Of the cookie: those of other ports lie beside it."""
        return f"onnx-lrp-{self._port}"

    def _checked(self, scope: Scope) -> bool:
        """Whether the key came in the address.

        Raises:
            _Refused: the request is none of the page's own.
        """
        headers = _single(scope)
        method, path = scope["method"], scope["path"]
        if headers.get("host") not in self._hosts:  # a name that was made to point here
            raise _Refused(421, f"This server answers to {HOST}:{self._port} alone.\n")
        origin = headers.get("origin")
        if origin is not None and origin not in {f"http://{host}" for host in self._hosts}:
            raise _Refused(403, "Another page asked.\n")
        if path == "/" and method == "GET" and self._opens(scope):
            return True
        site = headers.get("sec-fetch-site")  # "none": somebody typed the address
        if site not in (None, "same-origin") and (site != "none" or method not in READING):
            raise _Refused(403, "Another page asked.\n")
        if _same(headers.get(HEADER, ""), self._key):
            return False
        if path in SHELL and method in READING and _same(self._sent(headers), self._cookie):
            return False
        raise _Refused(403, LOST)

    def _opens(self, scope: Scope) -> bool:
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("key", [""])
        if len(given) != 1:
            return False
        if _same(given[0], self._key):
            return True
        spent = [code for code in self._once if _same(given[0], code)]
        self._once.difference_update(spent)
        return bool(spent)

    def _sent(self, headers: Mapping[str, str]) -> str:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self._name)
        except CookieError:
            return ""
        return "" if morsel is None else morsel.value


def _same(given: str, known: str) -> bool:
    """In a time that does not tell how much of it is right."""
    return secrets.compare_digest(given.encode("utf-8", "replace"), known.encode())


def _single(scope: Scope) -> dict[str, str]:
    """The headers by name; none of those that decide may come twice."""
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").lower()
        if name in found and name in ("host", "origin", "sec-fetch-site", "content-length", HEADER):
            raise _Refused(400, f"Two headers {name}.\n")
        found[name] = value.decode("latin-1") if name not in found else f"{found[name]}; {value.decode('latin-1')}"
    return found


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The body, as long as it is no longer than it may be, whatever its header says.

    Raises:
        _Refused: it is longer.
    """
    limit = LIMITS.get(scope["path"], LIMIT)
    reason = f"More than {limit // 2**20} MiB; onnx-lrp explain takes larger inputs.\n"
    declared = _single(scope).get("content-length", "0")
    if not declared.isdecimal() or int(declared) > limit:
        raise _Refused(413, reason)
    parts, seen = [], 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        seen += len(parts[-1])
        if seen > limit:
            raise _Refused(413, reason)
        if not message.get("more_body"):  # the last part, or whoever asked is gone
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """What was read, once more; then what comes behind it."""
    rest = [body]

    async def again() -> Message:
        return {"type": "http.request", "body": rest.pop(), "more_body": False} if rest else await receive()

    return again
