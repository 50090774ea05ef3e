"""The page of ``onnx-lrp view`` in a browser: by keys and mouse, at two widths, light and dark; and hostile pages beside it."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import json
import threading

import numpy as np
import pytest
from test_serve import TEXT, Joined, sentiment, serve  # noqa: F401

import onnx_lrp
from onnx_lrp.serve.guard import Guard

PATIENCE = 120_000  # milliseconds: a busy machine is no failure
EVIL = '<img src=x onerror="document.body.dataset.evil=1">'


@pytest.fixture(scope="module")
def client(serve):  # noqa: F811
    return serve(sentiment())


@pytest.fixture
def open_page(chromium, client):
    """``open_page(client, **options of a browser context)``: the page, watched: it asks this server alone, complains of nothing."""
    contexts, complaints, asked = [], [], []

    def visit(at=client, *, width=1280, **options):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(at.guard.address)
        page.locator("#ask").wait_for()
        page.locator("#go:enabled").wait_for()  # what was shown before is there again
        return page

    visit.complaints = complaints
    yield visit
    for context in contexts:
        context.close()
    assert complaints == []
    own = tuple(f"{scheme}http://127.0.0.1:" for scheme in ("", "blob:"))
    assert [url for url in asked if not url.startswith(own)] == []


def finished(page):
    page.locator("#cancel").wait_for(state="hidden")
    page.locator("#go:enabled").wait_for()


def explain(page, text=None):
    if text is not None:
        page.fill("#text", text)
    page.click("#go")
    finished(page)


def test_a_text_is_typed_and_explained_in_place(open_page, client):
    page = open_page()
    assert page.url == f"http://127.0.0.1:{client.port}/"  # the key is gone from where people look, and from the history
    page.get_by_label("Text").fill("dull , but funny .")
    page.keyboard.press("Control+Enter")
    page.locator("article").wait_for()
    finished(page)
    assert page.locator("article h2").inner_text() == "dull , but funny ."
    assert page.locator("article .w bdi").all_inner_texts() == ["dull", ",", "but", "funny", "."]
    assert "negative" in page.locator("article .facts").inner_text()
    assert page.locator(".flow svg").count() == 1
    page.locator("article .w").first.hover()
    assert "dull" in page.locator(".onnx-lrp-tip:visible").inner_text()
    page.get_by_label("Target").fill("contrast:1,0")
    explain(page, f"{TEXT}\n\nso so .")
    assert page.locator("article").count() == 2
    assert "contrast" in page.locator("article").first.inner_text() or "positive" in page.locator("article").first.inner_text()
    page.fill("[name=text]", "so so")  # the report's own filter
    assert page.locator("article:visible").count() == 1
    page.select_option("#scheme", "captum")
    assert "green (+) raises" in page.locator(".legend:visible").first.inner_text()


def test_loaded_again_it_shows_the_same(open_page, client):
    page = open_page()
    explain(page, TEXT)
    before = page.locator("#shown").inner_text()
    page.reload()
    page.locator("article").wait_for()
    assert page.locator("#shown").inner_text() == before


def test_without_its_key_it_says_so(open_page, client):
    page = open_page()
    page.evaluate("sessionStorage.clear()")
    page.reload()
    page.locator("#error").wait_for()
    assert "open the address that onnx-lrp view printed" in page.locator("#error").inner_text()
    assert page.locator("#ask").is_hidden()
    assert "403" in open_page.complaints.pop()


def test_two_methods_and_what_they_ask_for(open_page):
    page = open_page()
    assert page.get_by_label("Stabilizer").is_visible()
    assert page.get_by_label("Steps").is_hidden()
    page.get_by_label("Compare with").select_option("integrated_gradients")
    page.get_by_label("Steps").fill("7")
    page.get_by_label("Rule or composite").select_option("composite:epsilon-plus")
    assert page.get_by_label("Stabilizer").is_disabled()
    explain(page, TEXT)
    assert [t.split("\n")[0] for t in page.locator("article h4").all_inner_texts()] == ["lrp", "integrated gradients"]
    assert "steps 7" in page.locator("#shown").inner_text()
    page.get_by_label("Method").select_option("integrated_gradients")
    assert page.get_by_label("Compare with").input_value() == ""
    assert page.get_by_label("Stabilizer").is_hidden()


def test_numbers_of_rules_and_pieces_of_words(open_page, serve):  # noqa: F811
    page = open_page(serve(dataclasses.replace(sentiment(), coder=Joined())))
    named = {"γ": "gamma", "α": "alpha-beta", "Lowest input": "zbox", "Highest input": "zbox"}
    for rule in ("epsilon", "gamma", "alpha-beta", "zbox"):
        page.get_by_label("Rule or composite").select_option(f"rule:{rule}")
        assert {label for label in named if page.get_by_label(label).is_visible()} == {k for k, v in named.items() if v == rule}
    page.get_by_label("Rule or composite").select_option("rule:gamma")
    page.get_by_label("γ").fill("0.75")
    page.get_by_label("Bias factor").fill("0.5")
    page.get_by_label("Show").select_option("pieces of words")
    explain(page, "well-drawn film")
    assert page.locator("article .w bdi").all_inner_texts() == ["well", "drawn", "film"]
    assert "0.75" in page.locator("#shown .how").inner_text()
    assert "bias_factor 0.5" in page.locator("#shown .how").inner_text()
    page.get_by_label("Show").select_option("words")
    explain(page)
    assert page.locator("article .w bdi").all_inner_texts() == ["well-drawn", "film"]
    page.get_by_label("Rule or composite").select_option("composite:epsilon-plus")
    assert page.get_by_label("Bias factor").is_disabled()
    assert page.get_by_label("γ").is_hidden()


def test_it_is_saved(open_page, client, tmp_path):
    page = open_page()
    explain(page, TEXT)
    for button, name in (("Save JSON", "e.json"), ("Save HTML", "e.html")):
        with page.expect_download() as saved:
            page.get_by_role("button", name=button).click()
        saved.value.save_as(tmp_path / name)
    assert saved.value.suggested_filename.endswith(".html")
    assert onnx_lrp.Explanation.load(tmp_path / "e.json").labels.samples == (TEXT,)
    assert TEXT in (tmp_path / "e.html").read_text()


def test_a_file_is_chosen_dropped_and_removed(open_page, tmp_path):
    page = open_page()
    file = tmp_path / f"{EVIL.replace('/', '')}.npy"
    np.save(file, np.array([[4, 5, 6]]))
    page.set_input_files("#file", file)
    page.locator("#given").wait_for()
    assert EVIL in page.locator("#given bdi").inner_text()
    assert page.get_by_label("Text").is_disabled()
    explain(page)
    assert page.locator("article").count() == 1
    page.get_by_role("button", name="Remove").click()
    assert page.get_by_label("Text").is_enabled()
    data = page.evaluate_handle(
        """name => { const t = new DataTransfer(); t.items.add(new File(["{"], name)); return t; }""", f"{EVIL}.json"
    )
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event("body", kind, {"dataTransfer": data})
    page.locator("#given").wait_for()
    page.click("#go")
    page.locator("#error").wait_for()
    assert f"{EVIL}.json: not JSON" in page.locator("#error").inner_text()
    assert page.locator("#error img").count() == 0
    assert page.evaluate("document.body.dataset.evil") is None


def test_work_is_cancelled(open_page, serve):  # noqa: F811
    go = threading.Event()
    subject = sentiment()
    subject.start = lambda: go.wait(60)
    page = open_page(serve(subject))
    page.click("#go")
    page.get_by_role("button", name="Cancel").click()
    page.locator("#said", has_text="stopping").wait_for()
    go.set()
    finished(page)
    assert page.locator("article").count() == 0
    assert page.locator("#error").is_hidden()
    explain(page)
    assert page.locator("article").count() == 1


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_sticks_out_and_nothing_keeps_a_reader_out(open_page, width, dark):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(width=width, color_scheme="dark" if dark else "light")
    page.get_by_label("Compare with").select_option("occlusion")
    explain(page, TEXT)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ("rgb(18, 21, 25)" if dark else "rgb(244, 245, 247)")
    found = [v for v in axe.run(page).response["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [n["html"][:200] for n in v["nodes"][:3]]) for v in found] == []
    open_page.complaints.clear()  # axe's script is none of the page's own


def test_it_is_driven_by_keys_alone(open_page):
    page = open_page()
    reached = []
    page.locator("#scheme").focus()
    for _ in range(20):
        reached.append(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    order = ["scheme", "theme", "text", "show", "file", "target", "method", "beside", "rule"]
    order += ["gates", "epsilon", "bias_factor", "at", "go"]
    assert [id for id in reached if id in order] == order
    page.locator("#go").focus()
    page.keyboard.press("Enter")
    finished(page)
    assert page.locator("article").count() == 1
    assert page.evaluate("document.activeElement.id") == "go"


# hostile pages

HOSTILE = """<!doctype html><body><script>
const target = "%s";
const tried = {};
window.stolen = [];
const attempt = async (name, work) => {
  try { tried[name] = await work(); } catch (error) { tried[name] = "refused"; }
};
const element = (tag, attributes) => new Promise((done) => {
  const made = Object.assign(document.createElement(tag), attributes);
  made.onload = () => done("loaded"); made.onerror = () => done("refused");
  document.body.append(made);
  setTimeout(() => done("nothing"), 3000);
});
const read = async (path, options) => {
  const answer = await fetch(target + path, options);
  return `${answer.type} ${answer.status} ${await answer.text()}`;
};
(async () => {
  const json = { method: "POST", headers: { "Content-Type": "application/json" }, body: '{"texts": ["stolen"]}' };
  for (const credentials of ["include", "omit"]) {
    for (const path of ["/", "/view.js", "/api/model", "/api/jobs"]) {
      await attempt(`get ${path} ${credentials}`, () => read(path, { credentials }));
      await attempt(`blind ${path} ${credentials}`, () => read(path, { credentials, mode: "no-cors" }));
    }
    await attempt(`post ${credentials}`, () => read("/api/jobs", { ...json, credentials }));
    await attempt(`post blind ${credentials}`, () => read("/api/jobs", { ...json, mode: "no-cors", credentials }));
    await attempt(`key ${credentials}`, () => read("/api/model", { credentials, headers: { "X-Onnx-Lrp-Key": "guess" } }));
    const file = { method: "POST", body: "[1]", credentials, mode: "no-cors" };
    await attempt(`file ${credentials}`, () => read("/api/file?name=a.json", file));
  }
  await attempt("img", () => element("img", { src: target + "/icon.svg" }));
  await attempt("script", () => element("script", { src: target + "/view.js" }));
  await attempt("style", () => element("link", { rel: "stylesheet", href: target + "/view.css" }));
  await attempt("iframe", async () => {
    const frame = Object.assign(document.createElement("iframe"), { src: target + "/" });
    document.body.append(frame);
    await new Promise((done) => { frame.onload = done; setTimeout(done, 3000); });
    return frame.contentDocument ? frame.contentDocument.body.innerText : "refused";
  });
  await attempt("form", async () => {
    const frame = Object.assign(document.createElement("iframe"), { name: "sink" });
    const form = document.createElement("form");
    Object.assign(form, { action: target + "/api/jobs", method: "post", enctype: "text/plain", target: "sink" });
    form.append(Object.assign(document.createElement("input"), { name: '{"texts": ["stolen"], "target": "', value: '"}' }));
    document.body.append(frame, form);
    form.submit();
    await new Promise((done) => { frame.onload = done; setTimeout(done, 3000); });
    return "refused";
  });
  await attempt("storage", async () => (sessionStorage.getItem("onnx-lrp-key") ? "read" : "refused"));
  document.title = JSON.stringify(tried);
})();
</script>"""


class _Page(http.server.BaseHTTPRequestHandler):
    def __init__(self, html, cookies, *args):
        self.html, self.cookies = html, cookies
        super().__init__(*args)

    def do_GET(self):
        self.cookies.append(self.headers.get("Cookie", ""))
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.html.encode())

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_page_on_another_port_neither_reads_nor_writes(chromium, client, name, monkeypatch):
    """Of 127.0.0.1 browsers send it the cookie even: other ports are the same site."""
    target, cookies = f"http://127.0.0.1:{client.port}", []
    hostile = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Page, HOSTILE % target, cookies))
    threading.Thread(target=hostile.serve_forever, daemon=True).start()
    context = chromium.new_context()
    try:
        own = context.new_page()
        own.set_default_timeout(PATIENCE)
        own.goto(client.guard.address)
        explain(own, TEXT)
        last, file = client.jobs.last, client.subject._file
        inner, guarded, asked, let_through = client.guard._app, Guard.__call__, [], []

        def watched(guard, scope, *rest):
            asked.append(scope["path"])
            return guarded(guard, scope, *rest)

        def behind(scope, *rest):
            let_through.append(scope["path"])
            return inner(scope, *rest)

        monkeypatch.setattr(Guard, "__call__", watched)
        monkeypatch.setattr(client.guard, "_app", behind)
        page = context.new_page()
        page.goto(f"http://{name}:{hostile.server_port}/")
        page.wait_for_function("document.title", timeout=PATIENCE)
        tried = json.loads(page.title())
        assert ("onnx-lrp" in " ".join(cookies)) == (name == "127.0.0.1")  # so that the test tests something
        assert len(tried) == 30
        assert {k: v for k, v in tried.items() if v != "refused" and v.split(" ", 2) != ["opaque", "0", ""]} == {}
        assert len(asked) >= 20
        assert let_through == []
        assert client.jobs.last is last
        assert client.subject._file is file
        explain(own, "still here .")  # and the page itself is as it was
        assert own.locator("article h2").inner_text() == "still here ."
    finally:
        context.close()
        hostile.shutdown()
        hostile.server_close()
