"""``onnx-lrp view``: nobody but the page is answered, work is one at a time and can be cancelled, what is shown is the report."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
from test_cli import fails, lstm_model
from test_html import Page

import onnx_lrp
from onnx_lrp import InputError, RuleError, demo
from onnx_lrp.labels import Word
from onnx_lrp.printable import visible
from onnx_lrp.rules import NAMES
from onnx_lrp.serve.guard import FILE, HEADER, HOST, LIMIT, LIMITS, SHELL, Guard
from onnx_lrp.serve.jobs import Busy, Cancelled, Job, Jobs
from onnx_lrp.serve.question import SAMPLES, Question, parameters
from onnx_lrp.serve.subject import KEPT, Subject
from onnx_lrp.text import Tokenizer
from onnx_lrp.tokens import Tokens

PATIENCE = 60
API = ("/api/model", "/api/jobs", "/api/jobs/x", "/api/jobs/x/shown", "/api/jobs/x/html", "/api/jobs/x/json")
POSTS = (FILE, "/api/jobs", "/api/jobs/x/cancel")
TEXT = "a warm , funny film"


class Client:
    """Speaks HTTP as nobody's browser: any header, any body."""

    def __init__(self, guard: Guard, port: int):
        self.guard, self.port, self.file = guard, port, ""
        self.key = urllib.parse.parse_qs(urllib.parse.urlparse(guard.address).query)["key"][0]

    def ask(self, path, **options):
        """(status, headers, body). Who is refused with a body on the way may find the line cut before the answer: once more."""
        for _ in range(9):
            with contextlib.suppress(ConnectionError):
                return self._ask(path, **options)
        raise AssertionError("no answer")

    def _ask(self, path, *, method="GET", body=None, headers=(), key=True, host=None, chunked=False):
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)
        pairs = [*(headers.items() if isinstance(headers, dict) else headers)]
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        hosts = [f"{HOST}:{self.port}"] if host is None else [host] if isinstance(host, str) else host
        for name, value in [*(("Host", h) for h in hosts), *([(HEADER, self.key)] if key else []), *pairs]:
            connection.putheader(name, value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        elif body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body)
        with contextlib.closing(connection):
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def post(self, path, value):
        status, _, body = self.ask(
            path, method="POST", body=json.dumps(value).encode(), headers={"Content-Type": "application/json"}
        )
        return status, json.loads(body)

    def upload(self, name, body):
        headers = {"Content-Type": "application/octet-stream"}
        status, _, answer = self.ask(f"{FILE}?name={urllib.parse.quote(name)}", method="POST", body=body, headers=headers)
        self.file = json.loads(answer).get("id", "")
        return status, json.loads(answer)

    def get(self, path):
        status, _, body = self.ask(path)
        return status, json.loads(body)

    def wait(self, job):
        while job["state"] in ("waiting", "running", "stopping"):
            job = self.get(f"/api/jobs/{job['id']}")[1]
        return job

    def explain(self, **question):
        if "texts" not in question:
            question = {"file": self.file, **question}
        status, job = self.post("/api/jobs", question)
        assert status == 202, job
        return self.wait(job)


@pytest.fixture(scope="module")
def serve():
    """``serve(subject)``: a client of a server that runs."""
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    from onnx_lrp.serve.app import bind, build, server

    ends = []

    def start(subject):
        listening = bind(0)
        port = listening.getsockname()[1]
        jobs = Jobs()
        guard = build(subject, jobs, port)
        serving = server(guard)
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]})
        thread.start()
        ends.append((serving, thread, jobs, listening, subject))
        client = Client(guard, port)
        client.jobs, client.subject, client.socket = jobs, subject, listening
        return client

    yield start
    for serving, thread, jobs, listening, subject in ends:
        serving.should_exit = True
        thread.join(PATIENCE)
        assert jobs.stop(PATIENCE)
        listening.close()
        subject.close()


def sentiment(**options):
    return Subject(
        demo.model(), "<b>senti&ment.onnx", lambda: None, demo.tokenizer(), {"verify": "never", "jit": "eager"}, TEXT, **options
    )


class Joined:
    """The demo's tokenizer, for which the first two pieces of a text are one word."""

    options = demo.tokenizer().options

    def encode(self, texts):
        found = []
        for text in demo.tokenizer().encode(texts):
            first, second, *others = text.words
            both = Word(f"{first.text}-{second.text}", first.first, second.stop)
            found.append(dataclasses.replace(text, words=(both, *others)))
        return Tokens(tuple(found))


@pytest.fixture(scope="module")
def client(serve):
    return serve(sentiment())


@pytest.fixture(scope="module")
def series(serve, tmp_path_factory):
    """A model of numbers, x (T, B, 2), without a tokenizer."""
    path = lstm_model(tmp_path_factory.mktemp("model") / "lstm.onnx")
    return serve(Subject(path, "lstm.onnx", lambda: None, None, {"jit": "eager"}))


# who is answered


def refused(answer, *statuses):
    """It was refused, and said nothing of the model."""
    status, headers, body = answer
    assert status in statuses, (status, body)
    assert b"ment.onnx" not in body
    protected(headers)


def protected(headers):
    found = {name.lower(): value for name, value in headers}
    assert "default-src 'none'" in found["content-security-policy"]
    assert "frame-ancestors 'none'" in found["content-security-policy"]
    assert "unsafe-inline" not in found["content-security-policy"].replace("style-src-attr 'unsafe-inline'", "")
    assert found["cache-control"] == "no-store"
    assert found["x-content-type-options"] == "nosniff"
    assert found["cross-origin-resource-policy"] == "same-origin"
    assert found["referrer-policy"] == "no-referrer"
    assert not [name for name in found if name.startswith("access-control")]


def test_it_listens_to_this_machine_alone(client):
    assert client.socket.getsockname() == (HOST, client.port)


@pytest.mark.parametrize("path", [*SHELL, *API, "/nothing", "/api/nothing", "/%2e%2e/secret"])
def test_without_the_key_nothing_is_answered(client, path):
    refused(client.ask(path, key=False), 403)
    for wrong in ("", client.key[:-1], client.key + "x", client.key.swapcase(), "ü" * 43):
        refused(client.ask(path, key=False, headers={HEADER: wrong.encode()}), 403)
        refused(client.ask(f"{path}?key={urllib.parse.quote(wrong)}", key=False), 403)
    for path in POSTS:
        for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
            refused(client.ask(path, method="POST", body=b"{}", key=False, headers={"Content-Type": kind}), 403)


@pytest.mark.parametrize("path", ["/api/model", "/api/jobs"])
def test_the_key_is_no_part_of_other_addresses(client, path):
    refused(client.ask(f"{path}?key={client.key}", key=False), 403)
    assert client.ask(path)[0] == 200


def cookie(client):
    status, headers, body = client.ask(f"/?key={client.key}", key=False)
    assert status == 200
    protected(headers)
    [sent] = [value for name, value in headers if name.lower() == "set-cookie"]
    assert {part.strip() for part in sent.split(";")[1:]} == {"HttpOnly", "SameSite=Strict", "Path=/"}
    assert client.key not in sent
    assert f'content="{client.key}"'.encode() in body
    return sent.split(";")[0]


def test_the_cookie_opens_the_empty_page_alone(client):
    """Browsers send cookies to every port of this machine, so that it must be worth nothing there."""
    sent = {"Cookie": f"other=1; {cookie(client)}"}
    for path in SHELL:
        status, headers, body = client.ask(path, key=False, headers=sent)
        assert status == 200
        protected(headers)
        assert b"ment.onnx" not in body
        assert client.key.encode() not in body
    for path in API:
        refused(client.ask(path, key=False, headers=sent), 403)
    for path in ("/", *POSTS):
        refused(client.ask(path, method="POST", body=b"{}", key=False, headers=sent), 403)


def test_an_address_for_a_program_works_once(client):
    once = client.guard.once().removeprefix(f"http://{HOST}:{client.port}")
    refused(client.ask(once.replace("/", "/api/model", 1), key=False), 403)
    assert client.ask(once, key=False)[0] == 200
    refused(client.ask(once, key=False), 403)
    assert client.ask(f"/?key={client.key}", key=False)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost:{}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1:{}.evil.example", ""])
def test_another_name_for_this_machine_is_refused(client, host):
    """A page whose name was made to point here (DNS rebinding) sends its own name."""
    for path in ("/", f"/?key={client.key}", *API):
        refused(client.ask(path, host=host.format(client.port)), 421)


def test_no_name_or_two_are_refused_before_anything_is_read(client):
    for hosts in ([], [f"{HOST}:{client.port}", "evil.example"]):
        assert client.ask("/api/model", host=hosts)[0] == 400


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{}", "http://127.0.0.1:1", "http://localhost:{}", ""]
)
def test_another_page_is_refused(client, origin):
    headers = {"Origin": origin.format(client.port), "Content-Type": "application/json"}
    for path in (f"/?key={client.key}", *API):
        refused(client.ask(path, headers=headers), 403)
    for path in POSTS:
        refused(client.ask(path, method="POST", body=b"{}", headers=headers), 403)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "odd"])
def test_what_the_browser_says_of_who_asks_counts(client, site):
    headers = {"Sec-Fetch-Site": site, "Content-Type": "application/json"}
    refused(client.ask("/api/jobs", method="POST", body=b"{}", headers=headers), 403)
    if site != "none":
        refused(client.ask("/api/model", headers=headers), 403)
        refused(client.ask("/", key=False, headers={"Cookie": cookie(client), **headers}), 403)
    own = {"Origin": f"http://{HOST}:{client.port}", "Sec-Fetch-Site": "same-origin"}
    assert client.ask("/api/model", headers=own)[0] == 200


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT"])
def test_no_other_method_and_no_preflight(client, method):
    headers = {"Origin": f"http://{HOST}:{client.port}", "Access-Control-Request-Method": "POST"}
    for path in ("/", "/api/model", "/api/jobs"):
        refused(client.ask(path, method=method, headers=headers), 405)
        refused(client.ask(path, method=method, headers=headers, key=False), 403)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", ""])
def test_what_a_form_can_send_is_not_read(client, kind):
    for path in (FILE + "?name=a.json", "/api/jobs"):
        status, headers, _ = client.ask(path, method="POST", body=b"{}", headers={"Content-Type": kind})
        assert status == 415
        protected(headers)


@pytest.mark.parametrize(("path", "limit"), [("/api/jobs", LIMIT), (FILE + "?name=a.npy", LIMITS[FILE])])
def test_bodies_are_bounded_whatever_they_declare(client, path, limit):
    kind = {"Content-Type": "application/json" if path == "/api/jobs" else "application/octet-stream"}
    refused(client.ask(path, method="POST", headers={**kind, "Content-Length": str(limit + 1)}), 413)
    if limit == LIMIT:
        refused(client.ask(path, method="POST", body=b" " * (limit + 1), headers=kind, chunked=True), 413)
        assert client.ask(path, method="POST", body=b" " * limit, headers=kind, chunked=True)[0] == 400  # read, and no JSON


def test_websockets_are_closed():
    """The guard itself; the server knows none."""
    import asyncio

    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(None, 1)({"type": "websocket"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


# one piece of work at a time


@pytest.fixture
def jobs():
    made = Jobs()
    yield made
    assert made.stop(PATIENCE)


def over(job):
    while not job.over:
        threading.Event().wait(0.002)
    return job


def blocked(started, go, told):
    """Work that says so when it began, and waits."""

    def work(job):
        started.set()
        assert go.wait(PATIENCE)
        try:
            job.reached(0.5)
        except Exception:  # as careless as any
            told.append("went on")
        told.append(job.share)
        return "result"

    return work


def test_a_start_that_fails_leaves_no_job_waiting_for_ever():
    """The job that needs the engine finds out, and says so."""

    def broken(*_):
        raise InputError("no engine")

    made = Jobs(broken)
    job = made.start(broken)
    made._thread.join(0.5)
    assert made._thread.is_alive()
    assert (over(job).state, job.error) == ("failed", "no engine")
    assert made.stop(PATIENCE)


def test_a_job_says_how_far_it_is(jobs):
    started, go, told = threading.Event(), threading.Event(), []
    job = jobs.start(blocked(started, go, told))
    assert started.wait(PATIENCE)
    assert (job.state, job.result) == ("running", None)
    go.set()
    assert over(job).result == "result"
    assert (job.state, told) == ("done", [0.5])
    assert jobs.get(job.id) is job
    assert jobs.get("other") is None


def test_one_at_a_time(jobs):
    started, go = threading.Event(), threading.Event()
    first = jobs.start(blocked(started, go, []))
    with pytest.raises(Busy, match="another explanation"):
        jobs.start(lambda job: None)
    go.set()
    assert over(first).state == "done"
    assert over(jobs.start(lambda job: 2)).result == 2


def test_a_cancelled_job_ends_where_it_says_how_far_it_is(jobs):
    started, go, told = threading.Event(), threading.Event(), []
    first = jobs.start(blocked(started, go, told))
    assert started.wait(PATIENCE)
    first.cancel()
    assert first.to_dict()["state"] == "stopping"
    second = jobs.start(lambda job: first.state)  # waits for it
    assert second.state == "waiting"
    go.set()
    assert over(second).result == "cancelled"
    assert (first.result, first.to_dict()["state"]) == (None, "cancelled")
    assert told == []


def test_what_was_cancelled_in_line_never_begins(jobs):
    started, go, ran = threading.Event(), threading.Event(), []
    first = jobs.start(blocked(started, go, []))
    first.cancel()
    second = jobs.start(lambda job: ran.append(1))
    second.cancel()
    go.set()
    assert over(second).state == "cancelled"
    assert ran == []


def test_failures_are_told_and_end_nothing(jobs):
    def of(error):
        def work(job):
            raise error

        return over(jobs.start(work))

    assert of(InputError("no such thing")).error == "no such thing"
    assert "fewer samples" in of(MemoryError()).error
    assert "this is a bug: ZeroDivisionError" in of(ZeroDivisionError("1/0")).error
    assert over(jobs.start(lambda job: 1)).state == "done"


# questions


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ([], "expected an object"),
        ({"model": "/etc/passwd"}, "there is no field 'model'"),
        ({"texts": "a"}, "texts"),
        ({"texts": ["a"] * (SAMPLES + 1)}, "at most 100 texts"),
        ({"texts": [1]}, "texts"),
        ({"epsilon": "1"}, "epsilon"),
        ({"epsilon": True}, "epsilon"),
        ({"epsilon": None}, "epsilon"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"steps": 1.5}, "a whole number"),
        ({"bias_factor": None}, "bias_factor"),
        ({"gamma": "0.5"}, "gamma: '0.5', expected a number"),
        ({"alpha": float("inf")}, "alpha"),
        ({"show": ["piece"]}, "show"),
        ({"target": 1}, "target: '1', expected text"),
        ({"target": "\ud800"}, "target"),
        ({"texts": ["a \udfff b"]}, "texts"),
        ({"epsilon": 10**400}, "epsilon"),
        ({"steps": -(10**400)}, "steps"),
    ],
)
def test_questions_that_make_no_sense(raw, said):
    with pytest.raises(InputError, match=said):
        Question.read(raw)


def test_a_question_is_what_load_and_explain_take():
    asked = Question.read({"rule": "composite:epsilon-plus", "gates": "half", "at": "a, b", "method": "occlusion", "by": "step"})
    assert asked.loading == {"composite": "epsilon-plus", "gates": "half", "at": ["a", "b"], "output": None}
    assert asked.methods == {"occlusion": {"by": "step"}}
    assert Question(beside="integrated_gradients", steps=7, by="step").methods == {"lrp": {}, "integrated_gradients": {"steps": 7}}
    with pytest.raises(InputError, match="beside itself"):
        _ = Question(method="lrp", beside="lrp").methods
    with pytest.raises(RuleError, match="does not exist"):
        _ = Question(method="magic").methods
    with pytest.raises(InputError, match="rule:NAME"):
        _ = Question(rule="epsilon").loading


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        ({"rule": "rule:gamma", "gamma": 0.5, "epsilon": 0.1}, onnx_lrp.Gamma(0.1, gamma=0.5)),
        ({"rule": "rule:alpha-beta", "alpha": 3}, onnx_lrp.AlphaBeta(1e-3, alpha=3, beta=2)),
        ({"rule": "rule:zbox", "low": 0, "high": 5}, onnx_lrp.ZBox(1e-3, low=0, high=5)),
        ({"rule": "rule:zbox", "high": 5}, onnx_lrp.ZBox(1e-3, low=-1, high=5)),
        ({"rule": "rule:gamma", "alpha": 3, "low": 1}, "gamma"),  # of other rules: not for this one
        ({"rule": "rule:magic", "gamma": 0.5}, "magic"),  # load says that there is none
    ],
)
def test_numbers_are_those_of_the_rule(asked, rule):
    question = Question.read({"bias_factor": 0.25, **asked})
    how = {"rule": rule, "epsilon": asked.get("epsilon", 1e-3), "bias_factor": 0.25}
    assert question.loading == {**how, "gates": "all", "at": None, "output": None}


def test_every_number_of_every_rule_can_be_asked_for():
    """A rule that gets one more has it on the page, or is named here."""
    asked = {f.name for f in dataclasses.fields(Question)}
    for name, kind in NAMES.items():
        own = {f.name for f in dataclasses.fields(kind)} - {"epsilon"}
        assert set(parameters(name)) == own - {"beta"}
        assert set(parameters(name)) <= asked


def test_numbers_that_a_rule_can_not_have_are_refused():
    with pytest.raises(RuleError, match="low must be below high"):
        _ = Question(rule="rule:zbox", low=3.0, high=2.0).loading
    with pytest.raises(InputError, match="expected word or piece"):
        _ = Question(show="letter").pieces


def test_explainers_are_kept_but_not_all(tmp_path):
    subject = Subject(lstm_model(tmp_path / "m.onnx"), "m", lambda: None)
    first = subject._explainer(Question())
    made = [subject._explainer(Question(epsilon=0.1 * k)) for k in range(1, KEPT)]
    assert subject._explainer(Question()) is first
    subject._explainer(Question(epsilon=9.0))
    assert subject._explainer(Question()) is first  # used after the others, so still there
    assert subject._explainer(Question(epsilon=0.1)) is not made[0]
    assert len(subject._made) == KEPT
    subject.close()


# explanations


def test_a_text_is_explained_as_the_library_does(client, tmp_path):
    job = client.explain(texts=[TEXT], target="1", epsilon=0.01)
    assert (job["state"], job["samples"], job["methods"]) == ("done", 1, ["lrp"])
    expected = onnx_lrp.load(demo.model(), epsilon=0.01, jit="eager").explain(demo.tokenizer().encode([TEXT]), 1)
    status, headers, body = client.ask(f"/api/jobs/{job['id']}/json?method=lrp")
    assert status == 200
    protected(headers)
    (tmp_path / "e.json").write_bytes(body)
    found = onnx_lrp.Explanation.load(tmp_path / "e.json")
    for name, array in expected.relevance.items():
        np.testing.assert_allclose(found.relevance[name], array, rtol=1e-5)
    assert found.settings["epsilon"] == 0.01
    assert found.hidden == {}  # what the flow alone needs is left out
    shown = client.ask(f"/api/jobs/{job['id']}/shown")[2].decode()
    page = client.ask(f"/api/jobs/{job['id']}/html?scheme=captum")[2].decode()
    for part in (TEXT, "positive", "From the score to its sources", "Down through the layers", "The model"):
        assert part in shown
        assert part in page
    assert "<script" not in shown
    assert page.startswith("<!doctype html>")
    assert 'data-scheme="captum"' in page
    assert client.ask(f"/api/jobs/{job['id']}/html?scheme=odd")[0] == 400
    assert client.get("/api/jobs")[1]["id"] == job["id"]


def test_a_text_is_shown_in_words_or_in_pieces(serve):
    """The saved explanation has both."""
    client = serve(dataclasses.replace(sentiment(), coder=Joined()))
    for show, names in (("", ["well-drawn", "film"]), ("word", ["well-drawn", "film"]), ("piece", ["well", "drawn", "film"])):
        job = client.explain(texts=["well-drawn film"], show=show)
        assert job["state"] == "done", job["error"]
        for path in ("shown", "html"):
            body = client.ask(f"/api/jobs/{job['id']}/{path}")[2].decode()
            assert re.findall(r"<bdi>([^<]*)</bdi><small>", body) == names
        raw = json.loads(client.ask(f"/api/jobs/{job['id']}/json?method=lrp")[2])
        assert (len(raw["labels"]["words"][0]), len(raw["labels"]["steps"][0])) == (2, 3)
    failed = client.explain(texts=[TEXT], show="letter")
    assert "expected word or piece" in failed["error"]


def test_the_bias_factor_and_the_rules_numbers_are_taken(client):
    settings = []
    for asked in ({"bias_factor": 0.5}, {"rule": "rule:gamma", "gamma": 0.75}):
        job = client.explain(texts=[TEXT], **asked)
        assert job["state"] == "done", job["error"]
        settings.append(json.loads(client.ask(f"/api/jobs/{job['id']}/json?method=lrp")[2])["settings"])
    assert settings[0]["bias_factor"] == 0.5
    assert "0.75" in str(settings[1])
    assert "alpha - beta" not in client.explain(texts=[TEXT], rule="rule:alpha-beta", alpha=3)["error"]
    assert "bias_factor" in client.explain(texts=[TEXT], bias_factor=2)["error"]


def test_two_methods_side_by_side(client):
    job = client.explain(texts=[TEXT, "dull ."], beside="gradient_x_input")
    assert (job["state"], job["samples"], job["methods"]) == ("done", 2, ["lrp", "gradient_x_input"])
    shown = client.ask(f"/api/jobs/{job['id']}/shown")[2].decode()
    assert "gradient x input" in shown
    assert "One scale for all 2." in shown
    assert (
        json.loads(client.ask(f"/api/jobs/{job['id']}/json?method=gradient_x_input")[2])["settings"]["method"] == "gradient_x_input"
    )
    assert client.ask(f"/api/jobs/{job['id']}/json?method=occlusion")[0] == 400


def test_several_classes(client):
    job = client.explain(texts=[TEXT], target="all")
    assert job["state"] == "done"
    shown = client.ask(f"/api/jobs/{job['id']}/shown")[2].decode()
    assert "negative" in shown
    assert "positive" in shown


def test_texts_and_names_are_shown_as_text(client):
    evil = '<img src=x onerror="alert(1)"> film \u202e'
    job = client.explain(texts=[evil])
    shown = client.ask(f"/api/jobs/{job['id']}/shown")[2].decode()
    assert "<img" not in shown
    assert "&lt;img" in shown
    assert "\u202e" not in shown
    page = client.ask(f"/api/jobs/{job['id']}/html")[2].decode()
    assert "<b>senti" not in page
    name = client.upload("<img src=x>\u202e\x00\"'.npy", b"junk")[1]["name"]
    assert "\u202e" not in name
    assert "\x00" not in name
    failed = client.explain()
    assert failed["state"] == "failed"
    assert failed["error"].startswith(name + ": can't be read as .npy")  # set as text by the page


def test_tokens_of_any_kind_are_shown_as_text(serve):
    tokens = ["<script>alert(1)</script>", "\"q'", "a\x1bb", "\u202ex", "x" * 10_000, "👩‍🚀", "مرحبا", "映画", "{{7*7}}", "${x}"]
    coder = Tokenizer(dataclasses.replace(demo.tokenizer().options, split=r"[^ ]+"), vocabulary=demo.vocabulary())
    client = serve(dataclasses.replace(sentiment(), coder=coder))
    job = client.explain(texts=[" ".join(tokens)])
    assert job["state"] == "done", job["error"]
    for path in ("shown", "html"):
        body = client.ask(f"/api/jobs/{job['id']}/{path}")[2].decode()
        page = Page(body)
        assert page.open == []
        assert [t for t in tokens if visible(t) not in page.text] == []
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", body)
        assert "alert" not in "".join(page.scripts)
        assert not [name for name, _ in page.attributes if name.startswith("on")]


@pytest.mark.parametrize("name", ["../../up.npy", "/etc/cron.d/x.npy", "a/b\\c.npy", "." * 300 + ".npy"])
def test_a_files_name_is_no_path(client, name):
    assert client.upload(name, b"x")[0] == 200
    file = client.subject._file.path
    assert file.parent == Path(client.subject._folder.name)
    assert file.name.startswith("input")
    assert len(list(file.parent.iterdir())) == 1  # the one before is gone


def write(kind, path, array):
    if kind == ".npz":
        np.savez(path, x=array)
    elif kind == ".npy":
        np.save(path, array)
    elif kind == ".json":
        path.write_text(json.dumps(array.tolist()))
    elif kind == ".csv":
        rows = "".join(f"{t},{a},{b}\n" for t, (a, b) in enumerate(array[:, 0].tolist()))
        path.write_text("t,pressure,speed\n" + rows)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        importlib = pytest.importorskip("pyarrow.parquet")
        columns = {"t": list(range(len(array))), "pressure": array[:, 0, 0], "speed": array[:, 0, 1]}
        importlib.write_table(pyarrow.table(columns), path)


@pytest.mark.parametrize("kind", [".npz", ".npy", ".json", ".csv", ".parquet"])
def test_files_are_read_as_explain_does(series, tmp_path, kind):
    array = np.random.default_rng(0).normal(size=(5, 1, 2)).astype(np.float32)
    file = tmp_path / f"Mine{kind.upper()}"
    write(kind, tmp_path / f"mine{kind}", array)
    (tmp_path / f"mine{kind}").rename(file)
    assert series.upload(file.name, file.read_bytes())[0] == 200
    table = kind in (".csv", ".parquet")
    job = series.explain(time="t" if table else "", target="0")
    assert job["state"] == "done", job["error"]
    raw = json.loads(series.ask(f"/api/jobs/{job['id']}/json?method=lrp")[2])
    expected = onnx_lrp.load(series.subject.model, jit="eager").explain(array, 0).relevance["x"]
    np.testing.assert_allclose(raw["relevance"]["x"], expected, rtol=1e-5)
    shown = series.ask(f"/api/jobs/{job['id']}/shown")[2].decode()
    assert ("pressure" in shown) == table


def test_what_cannot_be_explained_is_said(client, series):
    def fails(whom, said, **question):
        job = whom.explain(**question)
        assert job["state"] == "failed"
        assert said in job["error"]

    assert series.upload("x.pkl", b"x") == (
        400,
        {"error": "x.pkl: inputs are read from .npz, .npy, .json, .csv, .parquet, not from .pkl"},
    )
    fails(series, "--tokenizer or --vocab", texts=["a"])
    fails(client, "contrast:0,1", texts=[TEXT], target="contrast:0")
    fails(client, "rule 'magic' does not exist", texts=[TEXT], rule="rule:magic")
    fails(client, "there is", texts=[TEXT], rule="composite:magic")
    fails(client, "epsilon", texts=[TEXT], epsilon=-1)
    fails(client, "nothing", texts=[TEXT], at="nothing")
    fails(client, "no word", texts=["'"])
    fails(client, "choose it again", file="another window's")
    client.file = ""
    fails(client, "type a text or choose a file")
    assert client.post("/api/jobs", {"texts": 1})[0] == 400
    assert client.ask("/api/jobs", method="POST", body=b"[" * 10**5, headers={"Content-Type": "application/json"})[0] == 400
    assert client.get("/api/jobs/gone")[0] == 404


def test_an_explanation_is_cancelled_on_its_way():
    """By the callback of ``progress=``, so that what would follow is never computed."""
    subject, job, told = sentiment(), Job(), []
    texts = tuple("good film " * k for k in (1, 30, 200))  # of lengths that run one after the other

    def reached(share):
        told.append(share)
        job.cancel()
        Job.reached(job, share)

    job.reached = reached
    with pytest.raises(Cancelled):
        subject.answer(Question(texts=texts, beside="occlusion"), job)
    assert len(told) == 1
    assert told[0] < 1
    assert job.stage == "explaining (lrp)"
    subject.close()


def test_cancelled_over_http(serve):
    go = threading.Event()
    subject = sentiment()
    subject.start = lambda: go.wait(PATIENCE)
    client = serve(subject)
    job = client.post("/api/jobs", {"texts": [TEXT]})[1]
    assert client.post("/api/jobs", {"texts": [TEXT]})[0] == 409
    assert client.get(f"/api/jobs/{job['id']}/shown")[0] == 409
    assert client.post(f"/api/jobs/{job['id']}/cancel", {})[1]["state"] == "stopping"
    go.set()
    assert client.wait(job)["state"] == "cancelled"
    assert client.explain(texts=[TEXT])["state"] == "done"


def test_what_there_is_to_choose(client, series):
    found = client.get("/api/model")[1]
    assert found["texts"]
    assert found["classes"] == ["negative", "positive"]
    assert "epsilon" in found["rules"]
    assert "epsilon-plus" in found["composites"]
    assert found["methods"]["integrated_gradients"] == ["steps", "baseline"]
    assert "embedding" in found["tensors"]
    assert not series.get("/api/model")[1]["texts"]


def test_a_model_that_needs_a_cut_is_shown_with_its_cuts(tmp_path):
    subject = Subject(
        lstm_model(tmp_path / "odd.onnx", op="Odd"), "odd.onnx", lambda: None, None, {"jit": "eager", "verify": "never"}
    )
    found = subject.describe()
    assert "Odd" in found["problem"]
    assert found["tensors"]
    file = subject.keep("a.json", json.dumps({found["tensors"][0]: np.ones((1, 2, 3)).tolist()}).encode())["id"]
    result = subject.answer(Question(at=found["tensors"][0], file=file), Job())
    assert list(result.parts["lrp"].relevance) == [found["tensors"][0]]
    subject.close()


# the command


def test_usage(capsys, tmp_path, monkeypatch):
    assert "view needs MODEL, or --demo" in fails(2, capsys, "view")
    assert "or --demo?" in fails(2, capsys, "view", "m.onnx", "--demo")
    assert "the demo has its own" in fails(2, capsys, "view", "--demo", "--vocab", "v.txt")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert 'pip install "onnx-lrp[view]"' in fails(2, capsys, "view", "--demo")


def test_models_and_ports_that_cannot_be_used(capsys, tmp_path, client):
    assert "no such file" in fails(3, capsys, "view", str(tmp_path / "none.onnx"), "--no-open").lower()
    fails(3, capsys, "view", "/", "--no-open")
    assert f"port {client.port}" in fails(2, capsys, "view", "--demo", "--no-open", "--port", client.port)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_the_command_serves_until_it_is_interrupted(number, tmp_path):
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    if os.name == "nt":
        pytest.skip("signals are sent another way")
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(onnx_lrp.__file__).parents[1])}
    quiet = ["--quiet"] if number == "SIGINT" else []
    command = [sys.executable, "-m", "onnx_lrp", "view", "--demo", "--no-open", *quiet]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        address = urllib.parse.urlparse(run.stdout.readline().strip())
        connection = http.client.HTTPConnection(HOST, address.port, timeout=PATIENCE)
        connection.request("GET", f"/?{address.query}")
        assert connection.getresponse().status == 200
        connection.close()
        assert list(tmp_path.iterdir())
        run.send_signal(getattr(signal, number))
        out, err = run.communicate(timeout=PATIENCE)
    finally:
        run.kill()
        run.wait()
    assert (run.returncode, out) == (0, "")
    assert err == ("" if quiet else "sentiment.onnx, for this machine alone; Ctrl-C ends it\n")
    assert list(tmp_path.iterdir()) == []  # what was dropped is gone
