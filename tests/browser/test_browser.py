"""The page in a browser: hover, filter, sort, colours, paper, no overflow, no request, nothing that keeps a reader out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_html import CARD
from test_report import EVIL, explanation

import onnx_lrp
from onnx_lrp.report import colors, wording
from onnx_lrp.report.html import to_html

WORDS = ["good", "<script>alert(1)</script>", '"&\x00', "مرحبا", "👩‍🚀" * 40]


@pytest.fixture(scope="module")
def words():
    """Three samples of five words, the second of another class and with the largest score."""
    made = explanation(samples=3)
    outputs = {"y": np.array([[1.0, 0], [0, 1], [1, 0]])}
    seed = np.array([1.0, 3, 2])
    return dataclasses.replace(made, outputs=outputs, seed=seed, residual=np.array([-0.5, 0.1, 0.3]))


@pytest.fixture(scope="module")
def text(words):
    tokens = [WORDS, list("vwxyz"), ["good", *"film"]]
    return to_html(words, tokens=tokens, titles=["one", "two", "three"], classes=["no", "yes"], summary=CARD)


@pytest.fixture(scope="module")
def series():
    """60 steps × 6 features that the model read."""
    made = explanation(60, 6, samples=1)
    values = np.cumsum(np.random.default_rng(1).normal(size=(1, 60, 6)), 1)
    return dataclasses.replace(made, inputs={"x": values})


@pytest.fixture(scope="module")
def picture():
    """Three channels of 20 × 12 that the model read."""
    rng = np.random.default_rng(2)
    relevance, values = rng.normal(size=(2, 1, 3, 20, 12))
    return dataclasses.replace(explanation(samples=1), relevance={"x": relevance}, inputs={"x": values}, axes={"x": (0, None)})


def tip(page):
    return page.locator(".onnx-lrp-tip:visible").inner_text()


def titles(page):
    return page.locator("#samples > article:visible h2").all_inner_texts()


def color(locator, kind="backgroundColor"):
    return locator.evaluate(f"e => getComputedStyle(e).{kind}")


def rgb(shade):
    return "rgb({}, {}, {})".format(*(int(shade[i : i + 2], 16) for i in (1, 3, 5)))


def test_words_are_text_and_say_their_number(visit, text, words):
    page = visit(text)
    chips = page.locator("article").first.locator(".w")
    assert chips.count() == 5
    for k, value in enumerate(words.per_step()[0]):
        chips.nth(k).hover()
        assert wording.number(value) in tip(page)
        assert wording.visible(WORDS[k])[:20] in tip(page)
    page.keyboard.press("Escape")
    assert page.locator(".onnx-lrp-tip:visible").count() == 0


def test_a_heat_map_says_the_number_under_the_pointer(visit, series):
    page = visit(to_html(series))
    heat = page.locator("svg[data-height='6']")
    box = heat.bounding_box()
    for step, feature in ((0, 0), (17, 3), (59, 5)):
        x, y = (step + 0.5) / 60 * box["width"], (feature + 0.5) / 6 * box["height"]
        heat.hover(position={"x": x, "y": y})
        value, read = series.relevance["x"][0, step, feature], series.inputs["x"][0, step, feature]
        assert tip(page).split("\n") == [f"step {step}", f"feature {feature} {wording.number(value)}", f"input {read:.4g}"]
    page.locator("svg.sums").hover(position={"x": 17.5 / 60 * box["width"], "y": 20})
    assert tip(page).split("\n") == ["step 17", f"all features {wording.number(series.per_step()[0, 17])}"]


def test_a_map_says_row_and_column(visit, picture):
    page = visit(to_html(picture))
    maps = page.locator(".map svg[data-width]")
    assert maps.count() == 4  # the sum, and three channels
    box = maps.nth(2).bounding_box()
    assert box["width"] / box["height"] == pytest.approx(12 / 20, rel=0.05)
    for row, column in ((0, 0), (7, 3), (19, 11)):
        maps.nth(2).hover(position={"x": (column + 0.5) / 12 * box["width"], "y": (row + 0.5) / 20 * box["height"]})
        value, read = picture.relevance["x"][0, 1, row, column], picture.inputs["x"][0, 1, row, column]
        assert tip(page).split("\n") == [f"row {row}", f"column {column} {wording.number(value)}", f"input {read:.4g}"]


def test_a_table_without_time_says_row_and_column(visit, series):
    page = visit(to_html(dataclasses.replace(series, axes={"x": (0, None)})))
    heat = page.locator("svg[data-height='60']")
    box = heat.bounding_box()
    heat.hover(position={"x": 3.5 / 6 * box["width"], "y": 17.5 / 60 * box["height"]})
    assert tip(page).split("\n")[:2] == ["row 17", f"column 3 {wording.number(series.relevance['x'][0, 17, 3])}"]


def test_the_flow_says_what_passed(visit, text):
    page = visit(text)
    page.locator(".flow .layer", has_text="LSTM").first.hover()
    assert {"lstm", "rule: epsilon 0.001"} <= set(tip(page).split("\n"))
    assert "absorbed, bias: " in tip(page)
    page.locator(".flow path.band").nth(1).hover(force=True)
    assert "through Tanh tanh" in tip(page)


def test_samples_are_filtered_and_sorted(visit, text):
    page = visit(text)
    count = page.locator("output[name=count]")
    assert (titles(page), count.inner_text()) == (["one", "two", "three"], "3 samples")
    for key, order in (
        ("score", ["two", "three", "one"]),
        ("residual", ["one", "three", "two"]),
        ("order", ["one", "two", "three"]),
    ):
        page.select_option("[name=sort]", key)
        assert titles(page) == order
    page.fill("[name=text]", "GOOD")
    assert (titles(page), count.inner_text()) == (["one", "three"], "2 of 3 samples")
    page.fill("[name=text]", "alert(1)")
    assert titles(page) == ["one"]
    page.fill("[name=text]", "")
    page.select_option("[name=class]", "yes")
    assert titles(page) == ["two"]


def test_colours_are_chosen_and_white_is_zero(visit):
    made = explanation(steps=3, features=0, samples=1)
    made.relevance["x"][:] = [[2.0, 0, -2]]
    page = visit(to_html(made, tokens=[["up", "none", "down"]]))
    chips = page.locator(".w")
    for name, scheme in colors.SCHEMES.items():
        page.select_option("[name=scheme]", name)
        want = [scheme.shade(k) for k in (colors.LEVELS, 0, -colors.LEVELS)]
        assert [color(chips.nth(k)) for k in range(3)] == [rgb(shade) for shade in want]
        assert f"{scheme.words[0]} (+) raises the explained score" in page.locator(".legend").inner_text()


def test_side_by_side_on_one_scale(visit, words):
    weak = dataclasses.replace(words, relevance={"x": words.relevance["x"] / 4}, settings={"method": "occlusion"})
    page = visit(onnx_lrp.compare([words, weak]).to_html(tokens=[list("vwxyz")] * 3))
    columns = page.locator("article").first.locator(".columns > div")
    left, right = (columns.nth(k).bounding_box() for k in (0, 1))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    sums = words.per_step()[0]
    strongest = int(np.abs(sums).argmax())
    for k, share in ((0, 1), (1, 1 / 4)):
        level = round(colors.LEVELS * share) * (1 if sums[strongest] > 0 else -1)
        assert color(columns.nth(k).locator(".w").nth(strongest)) == rgb(colors.SCHEMES[colors.DEFAULT].shade(level))


@pytest.mark.parametrize("preferred", ["light", "dark"])
def test_light_and_dark(visit, text, preferred):
    page = visit(text, color_scheme=preferred)
    body = page.locator("body")
    light, dark = "rgb(244, 245, 247)", "rgb(18, 21, 25)"
    assert color(body) == (dark if preferred == "dark" else light)
    page.select_option("[name=theme]", "dark")
    assert color(body) == dark
    page.select_option("[name=theme]", "light")
    assert color(body) == light


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_sticks_out(visit, text, series, picture, width):
    for html in (
        text,
        to_html(series),
        to_html(picture),
        onnx_lrp.compare([picture, picture]).to_html(),
        to_html(explanation(layer=EVIL * 9), title=EVIL * 9),
    ):
        page = visit(html, width=width)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_it_is_read_without_its_script(visit, text):
    page = visit(text, java_script_enabled=False)
    assert page.locator("#tools").is_hidden()
    assert page.locator("article:visible").count() == 3
    assert page.locator(".w").first.get_attribute("title").startswith("good: ")


def test_paper_is_white_and_nothing_is_folded(visit, text):
    page = visit(text, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert color(page.locator("article").first) == "rgb(255, 255, 255)"
    assert page.locator("#tools").is_hidden()
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = false; })")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details.where')].every(e => e.open)")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_keeps_a_reader_out(visit, text, series, picture, words, dark):
    """axe-core finds no serious violation, with everything unfolded."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for html in (text, to_html(series), to_html(picture), onnx_lrp.compare([words, words]).to_html(tokens=[list("vwxyz")] * 3)):
        page = visit(html, color_scheme="dark" if dark else "light")
        page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
        found = axe.run(page).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert [(v["id"], [n["html"][:200] for n in v["nodes"][:3]]) for v in serious] == []
