"""The page: what it shows is what the explanation holds, in colours that mean it; text that would like to be markup; its size."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_report import EVIL, explanation

import onnx_lrp
from onnx_lrp import InputError, Summary
from onnx_lrp.books import Books
from onnx_lrp.report import colors, html, view, wording
from onnx_lrp.report.blocks import blocks_of, waterfall
from onnx_lrp.report.figures import Words, figures
from onnx_lrp.report.grids import Grid
from onnx_lrp.report.room import Room
from onnx_lrp.report.sample import Point
from onnx_lrp.summary import Row

OPTIONAL = {"td": ("td", "th"), "th": ("td", "th"), "tr": ("td", "th", "tr"), "option": ("option",)}
VOID = {"meta", "input", "br"}
LIMIT = 2_000_000


CARD = Summary(
    ("x float32 (batch, time)",),
    ("y float32 (batch, 2)",),
    "y (B, 2)",
    ("x (B, T)",),
    {"batch": "any", "time": "yes", "class": 1},
    (
        Row("lstm", "LSTM", "LSTM", "h", "(1, B, 9)", "own", "W_x 1x3x36", "", ("x",), "epsilon 0.001"),
        Row("tanh", "Tanh", "Tanh", "t", "(1, B, 9)", "own", "", "", ("h",)),
        Row("dense", "Gemm", "Linear", "y", "(B, 2)", "affine block", "weight 9x2", "", ("t",), "epsilon 0.001"),
    ),
    "epsilon 0.001",
    (),
    (),
)


class Page(HTMLParser):
    """Tags and their balance, attribute names, text outside and inside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        while tag in OPTIONAL and self.open[-1] in OPTIONAL[tag]:  # ends by itself
            self.open.pop()
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        while tag == "table" and self.open[-1] in ("td", "th", "tr"):
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.text += data


def point(matrix: np.ndarray, **options) -> Point:
    labels = tuple(map(str, range(len(matrix))))
    return Point("x", options.pop("unit", "step"), labels, matrix.sum(1), matrix, **options)


def raster(grid: Grid) -> np.ndarray:
    """The class of every cell, painted path by path."""
    cells = np.full((len(grid.down), len(grid.across)), "z", object)
    for name, path in grid.shades:
        pieces = re.findall(r"M(\d+) (\d+)h(\d+)", path)
        assert "".join(f"M{x} {y}h{w}" for x, y, w in pieces) == path
        for x, y, w in pieces:
            assert np.all(cells[int(y), int(x) : int(x) + int(w)] == "z"), "painted twice"
            cells[int(y), int(x) : int(x) + int(w)] = name
    return cells


# colours


@pytest.mark.parametrize("scheme", colors.SCHEMES.values(), ids=list(colors.SCHEMES))
def test_a_scheme_is_white_at_zero_gets_darker_and_can_be_read(scheme):
    assert scheme.shade(0) == "#ffffff"
    for sign in (1, -1):
        against_white = [colors.contrast("#ffffff", scheme.shade(sign * k)) for k in range(colors.LEVELS + 1)]
        assert against_white == sorted(against_white)
        assert against_white[-1] > 1.5
    assert min(colors.contrast(scheme.ink(k), scheme.shade(k)) for k in range(-colors.LEVELS, colors.LEVELS + 1)) >= 4.5


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(a=FINITE, b=FINITE, largest=st.floats(1e-320, 1e308))
def test_levels_are_symmetric_and_follow_the_size(a, b, largest):
    place = {"z": 0} | {f"{c}{k}": s * k for c, s in (("u", 1), ("d", -1)) for k in range(1, colors.LEVELS + 1)}
    one, other = (place[colors.level(v, largest)] for v in (a, b))
    assert place[colors.level(-a, largest)] == -one
    assert one <= other or a >= b
    assert place[colors.level(largest, largest)] == colors.LEVELS
    assert place[colors.level(0.0, largest)] == 0


def test_what_is_not_finite_has_no_place_on_the_scale():
    assert {colors.level(v, 1.0) for v in (np.nan, np.inf, -np.inf)} == {"x"}
    assert f"--u{colors.LEVELS}:{colors.RAISES[0]}" in colors.css()


# heat maps


SIZES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)
MATRICES = arrays.arrays(np.float64, SIZES, elements=st.floats(-9, 9))


@given(matrix=MATRICES, turned=st.booleans())
def test_every_cell_has_the_colour_of_its_number(matrix, turned):
    [grid] = figures([point(np.hstack([matrix, matrix]), unit="step" if turned else "index")], Room())
    matrix = np.hstack([matrix, matrix])
    largest = np.abs(matrix).max() or 1.0
    want = np.array([[colors.level(v, largest) for v in row] for row in (matrix.T if turned else matrix)], object)
    np.testing.assert_array_equal(raster(grid), want)
    np.testing.assert_allclose([row[1] for row in grid.table], matrix)
    np.testing.assert_allclose(grid.totals, (matrix.T if turned else matrix).sum(1))


@given(matrix=MATRICES, cells=st.integers(8, 40), features=st.integers(1, 4))
def test_what_is_summed_or_left_out_loses_nothing_unsaid(matrix, cells, features):
    [grid] = figures([point(np.hstack([matrix] * 2))], Room(cells=cells, features=features))
    steps, count = matrix.shape[0], 2 * matrix.shape[1]
    assert len(grid.head) <= min(features, count)
    assert len(grid.table) * len(grid.head) <= cells
    np.testing.assert_allclose(sum(row[2] for row in grid.table), 2 * matrix.sum(), atol=1e-9)
    kept = np.hstack([matrix] * 2)[:, [int(k) for k in grid.head]]
    np.testing.assert_allclose(np.sum([row[1] for row in grid.table], axis=0), kept.sum(0), atol=1e-9)
    assert any("features are shown" in n for n in grid.notes) == (len(grid.head) < count)
    assert any("sum of" in n for n in grid.notes) == (len(grid.table) < steps)


def test_the_strongest_features_are_shown_in_their_order():
    matrix = np.array([[0.0, 5, 1, 0, -7]])
    [grid] = figures([point(matrix)], Room(features=2))
    assert grid.head == ("1", "4")
    [named] = figures([point(matrix, columns=("a", "b", "c", "d", "<e>"))], Room(features=2))
    assert named.head == ("b", "<e>")


def test_a_curve_is_the_input_each_feature_in_its_own_range():
    values = np.array([[0.0, 5], [1, 5], [2, np.nan], [1, 5]])
    [grid] = figures([point(np.ones((4, 2)), values=values)], Room())
    assert grid.curves == ((0, "M0 90 1 50 2 10 3 50"), (1, "M0 50 1 50M3 50"))  # y points down; a gap where nothing is known
    assert grid.read == (("0", "5"), ("1", "5"), ("2", ""), ("1", "5"))


def test_the_view_holds_what_the_model_read():
    books = explanation()
    object.__setattr__(books, "inputs", {"x": np.arange(30.0).reshape(2, 5, 3)})
    for b, sample in enumerate(view.samples(books)):
        np.testing.assert_array_equal(sample.points[0].values, books.inputs["x"][b])


# words


def test_words_of_any_kind():
    long, words = "x" * 10_000, ("مرحبا", "👩‍🚀", '"&', "x" * 10_000)
    [seen] = figures([Point("x", "word", words, np.array([1.0, -1, 0, 0.5]), None)], Room())
    assert isinstance(seen, Words)
    assert (seen.direction, [c.level for c in seen.chips]) == ("rtl", ["u20", "d20", "z", "u10"])
    assert (seen.chips[3].word, len(seen.chips[3].shown)) == (long, 80)
    assert "10,000 characters" in seen.chips[3].tip
    text = html.to_html(explanation(steps=4, samples=1), tokens=list(words))
    page = Page(text)
    assert all(word in page.text for word in words)
    assert text.count(long) == 1  # in the table


def test_words_left_out_are_summed():
    [seen] = figures([Point("x", "word", tuple("abcde"), np.arange(5.0), None)], Room(words=2))
    assert ([c.word for c in seen.chips], seen.rest) == (["a", "b"], (3, 9.0))


# the waterfall


def test_a_waterfall_ends_where_the_seed_began():
    books = Books(seed=-2.0, points={"x": 1.0, "y": -4.0}, ledger={"l": {"bias": 1.5, "stabilizer": -0.5}}, residual=0.0)
    bars = waterfall(books.waterfall())
    zero = bars[0].left + bars[0].width  # the seed is negative: it ends at zero
    left = bars[0].left
    for bar in bars[1:]:
        start, end = (bar.left, bar.left + bar.width) if bar.value < 0 else (bar.left + bar.width, bar.left)
        assert start == pytest.approx(left, abs=1e-9)
        left = end
    assert left == pytest.approx(zero)
    assert all(0 <= b.left <= b.left + b.width <= 100 + 1e-9 for b in bars)


# pages


def test_html_escapes_and_is_self_contained():
    books = explanation(steps=1, samples=1, layer=EVIL)
    row = Row(EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, EVIL)
    summary = Summary((EVIL,), (EVIL,), EVIL, (EVIL,), {"batch": EVIL, "time": EVIL, "class": 1}, (row,), EVIL, (EVIL,), (EVIL,))
    for text in (
        html.to_html(books, tokens=[EVIL], title=EVIL, classes=[EVIL, EVIL], titles=[EVIL], summary=summary),
        html.to_html(onnx_lrp.compare({EVIL: books, "other": books}), tokens=[EVIL], classes=[EVIL, EVIL]),
        html.to_fragment(books, tokens=[EVIL]),
        summary._repr_html_(),
        books.books(0)._repr_html_(),
    ):
        page = Page(text)
        assert page.open == []
        assert "alert" not in "".join(page.scripts)
        assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "srcdoc", "action")]
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
        assert "url(" not in text
        assert "http:" not in text
        assert "https:" not in text
        assert '<script>alert("1")</script>' in page.text


def test_only_our_scripts_may_run():
    text = html.to_html(explanation(samples=1), tokens=list("abcde"))
    page = Page(text)
    policy = next(v for _, v in page.attributes if v.startswith("default-src"))
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in page.scripts]
    assert re.findall(r"sha256-([^']+)'", policy) == digests
    assert len(digests) == 2


def test_html_has_every_number_in_a_table_and_on_hover():
    books = explanation(samples=1)
    text = html.to_html(books, tokens=list("abcde"))
    for token, value in zip("abcde", books.per_step()[0], strict=True):
        number = re.escape(wording.number(value))
        assert re.search(rf'<th>{token}<td class="[a-z0-9]+">{number}\n', text)
        assert re.search(rf'title="{token}: {number}', text)
    for step, row in enumerate(books.relevance["x"][0]):
        cells = "".join(f"<td[^>]*>{re.escape(wording.number(v))}" for v in [*row, row.sum()])
        assert re.search(rf"<th>{step}{cells}\n", html.to_html(books))
    assert "prefers-color-scheme: dark" in text
    assert "raises the explained score" in text


def test_a_negative_score_is_said_beside_the_colours():
    books = explanation(samples=1)
    object.__setattr__(books, "seed", -np.abs(books.seed))
    text = Page(html.to_html(books)).text
    assert "The explained score is negative" in text
    assert "still raises it, towards zero" in text


def test_html_says_what_it_leaves_out():
    text = html.to_html(explanation(steps=500, features=40, samples=125))
    assert "25 more samples are not shown" in text
    assert "of 40 features are shown" in text
    assert re.search(r"every column is the sum of \d+ steps", text)


@pytest.mark.parametrize("size", [0.0, 1e-300, 1e-30, 1e30, 1e300])
@pytest.mark.parametrize("shape", [(5, 3), (1, 1), (1, 3), (5, 0)])
def test_any_size_of_numbers_renders(size, shape):
    """All zero, one word, one class, and numbers at both ends of what floats hold."""
    books = explanation(*shape, samples=1)
    books.relevance["x"][:] *= size
    object.__setattr__(books, "outputs", {"y": np.zeros((1, 1))})
    for tokens in (None, ["w"] * shape[0]):
        page = Page(html.to_html(books, tokens=tokens))
        assert page.open == []
        assert not re.search(r"\b(nan|inf)\b", page.text + "".join(v for k, v in page.attributes if k in ("d", "style")))


def test_numbers_that_are_none_are_shown_as_such():
    books = explanation()
    books.relevance["x"][0, 0, 0], books.relevance["x"][1, 1, 1] = np.nan, np.inf
    page = Page(html.to_html(books))
    assert page.open == []
    assert "nan" in page.text
    assert not any("nan" in v or "inf" in v for k, v in page.attributes if k in ("d", "style"))
    assert any("x" in v.split() for k, v in page.attributes if k == "class")


@pytest.mark.parametrize(
    ("steps", "features", "words"), [(60, 6, False), (400, 32, False), (60, 100, True), (1000, 3, True), (1, 500, False)]
)
def test_a_hundred_samples_stay_under_two_megabytes(steps, features, words):
    books = explanation(steps, features, samples=100)
    tokens = [["wonderful"] * steps] * 100 if words else None
    for shown, summary in ((books, CARD), (onnx_lrp.compare({"lrp": books, "other": books}), None)):
        text = shown.to_html(tokens=tokens, summary=summary)
        assert text.count("<article") == 100
        assert text.count('class="score"') == (100 if summary else 0)  # the flow
        assert len(text.encode()) < LIMIT


def test_many_explanations_of_many_samples_stay_under_it_too():
    books = explanation(60, 6, samples=100)
    text = onnx_lrp.compare({str(k): books for k in range(9)}).to_html()
    assert "63 more samples are not shown" in text
    assert "1 more explanations of each are not shown" in text
    assert len(text.encode()) < LIMIT


def test_fragment_and_file(tmp_path):
    books = explanation()
    assert "<html" not in html.to_fragment(books)
    assert books._repr_html_() == html.to_fragment(books)
    html.write_html(books, tmp_path / "x.html", tokens=[list("äbcde"), list("xy")])
    assert "ä" in (tmp_path / "x.html").read_text(encoding="utf-8")


def test_the_scheme_is_an_option():
    books = explanation()
    assert '<body class="onnx-lrp page" data-scheme="captum"' in books.to_html(scheme="captum")
    with pytest.raises(InputError, match=r"scheme='rainbow' does not exist; one of blue-white-red"):
        books.to_html(scheme="rainbow")


# side by side


def test_explanations_side_by_side_share_their_scale():
    one, other = explanation(samples=1), explanation(samples=1, seed=1)
    other.relevance["x"][:] *= 10
    blocks = blocks_of({"a": view.samples(one), "b": view.samples(other)}, True)
    [(left, right)] = blocks[0].points
    assert left.largest == right.largest == np.abs(other.relevance["x"]).max()
    [(left, right)] = blocks_of({"a": view.samples(one), "b": view.samples(other)}, False)[0].points
    assert (left.largest, right.largest) == (np.abs(one.relevance["x"]).max(), np.abs(other.relevance["x"]).max())


@pytest.mark.parametrize("tokens", [None, [list("abcde")]])
def test_one_that_is_all_zero_does_not_set_their_scale(tokens):
    one, zero = explanation(samples=1), explanation(samples=1)
    one.relevance["x"][:] *= 1e-3
    zero.relevance["x"][:] = 0
    [block] = blocks_of({"a": view.samples(one, tokens=tokens), "b": view.samples(zero, tokens=tokens)}, True)
    [(left, right)] = block.points
    shown = one.per_step() if tokens else one.relevance["x"]
    assert left.largest == right.largest == np.abs(shown).max()


def test_a_comparison_names_its_parts():
    one = explanation()
    grad = explanation(seed=1)
    object.__setattr__(grad, "settings", {"method": "gradient_x_input"})
    both = onnx_lrp.compare([one, grad])
    assert list(both.parts) == ["lrp", "gradient x input"]
    text = Page(both.to_html(tokens=[list("abcde")] * 2)).text
    assert "One scale for all 2." in text
    assert "<html" not in both._repr_html_()
    other = explanation(seed=2)
    object.__setattr__(other, "target", np.ones(2, int))
    assert list(onnx_lrp.compare([one, other]).parts) == ["lrp, class 0", "lrp, class 1"]
    assert list(onnx_lrp.compare([one, one]).parts) == ["lrp, 1", "lrp, 2"]


def test_what_can_not_be_compared_is_refused():
    one = explanation()
    for others, words in (
        ({"a": one}, r"1 explanation\(s\), expected two"),
        ({"a": one, "b": explanation(samples=3)}, "'b' is of 3 sample"),
        ({"a": one, "b": explanation(steps=4)}, r"\(2, 4, 3\) in 'b' and \(2, 5, 3\) in 'a'"),
        ({"a": one, "b": 1}, "'b' is int"),
        (one, "one class"),
    ):
        with pytest.raises(InputError, match=words):
            onnx_lrp.compare(others)


def test_several_classes_stand_side_by_side():
    books = explanation()
    stacked = {
        name: {k: np.stack([v, -v]) for k, v in getattr(books, name).items()} for name in ("relevance", "absorbed", "arrived")
    }
    several = onnx_lrp.Explanation(
        **{f: getattr(books, f) for f in books.__dataclass_fields__ if f not in (*stacked, "seed", "residual", "target", "ledger")},
        **stacked,
        seed=np.stack([books.seed, -books.seed]),
        residual=np.zeros((2, 2)),
        target=np.arange(2),
        ledger={"lstm": {"bias": np.stack([books.absorbed["bias"], -books.absorbed["bias"]])}},
    )
    text = several.to_html()
    assert text.count("<article") == 2
    assert re.findall(r"<h4>(\w+ \w+) ", text) == ["class 0", "class 1"] * 2
    assert "class 0 (" in text or "class 1 (" in text  # one of both scores is negative, and said to be


@given(values=arrays.arrays(np.float64, st.integers(1, 9), elements=st.floats(-9, 9)), most=st.integers(1, 9))
def test_bars_are_as_long_as_their_numbers(values, most):
    [seen] = figures([Point("x", "feature", tuple(map(str, range(len(values)))), values, None)], Room(bars=most))
    largest = np.abs(values).max() or 1.0
    for label, _, value, name, left, width in seen.rows:
        assert value == values[int(label)]
        assert width == pytest.approx(50 * abs(value) / largest)
        assert (left if value >= 0 else left + width) == pytest.approx(50)
        assert name == ("u20" if value > 0 else "d20" if value < 0 else "z")
    count, rest = seen.rest
    assert count == len(values) - len(seen.rows)
    assert sum(row[2] for row in seen.rows) + rest == pytest.approx(values.sum(), abs=1e-9)
