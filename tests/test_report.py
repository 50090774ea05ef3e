"""Reports: what they show is what the explanation holds; widths, colours, and text that would like to be markup."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from onnx_lrp import Explanation, InputError, Summary
from onnx_lrp.labels import Labels
from onnx_lrp.report import described, terminal, view, wording
from onnx_lrp.report.html import to_html
from onnx_lrp.report.sample import Sample

EVIL = '<script>alert("1")</script>&\x1b[31mred\x07\u202e[bold]x[/bold]'


def explanation(steps: int = 5, features: int = 3, samples: int = 2, *, layer: str = "lstm", seed: int = 0) -> Explanation:
    """Random books that close, over x (B, T, I); features 0: x (B, T)."""
    rng = np.random.default_rng(seed)
    relevance = rng.normal(size=(samples, steps, features) if features else (samples, steps))
    bias = rng.normal(size=samples)
    return Explanation(
        relevance={"x": relevance},
        inputs={"x": relevance},
        outputs={"y": rng.normal(size=(samples, 2))},
        target=np.zeros(samples, int),
        seed=relevance.reshape(samples, -1).sum(1) + bias,
        absorbed={"bias": bias, "initial_state": np.zeros(samples)},
        ledger={layer: {"bias": bias}},
        residual=np.zeros(samples),
        axes={"x": (0, 1)},
        origins={"x": ("x",)},
        explained="y",
        settings={"rule": "epsilon", "epsilon": 1e-3},
        arrived={"x": relevance.reshape(samples, -1).sum(1)},
    )


def printed(shown: list[Sample], monkeypatch: pytest.MonkeyPatch, *, columns: int = 80, color: bool = False) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.delenv("NO_COLOR", raising=False)
    if color:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLORTERM", "truecolor")
        monkeypatch.setenv("TERM", "xterm-256color")
    else:
        monkeypatch.delenv("FORCE_COLOR", raising=False)
    out = io.StringIO()
    terminal.show(shown, file=out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1, "+1.000"), (-0.25, "-0.250"), (-0.0001, "-1e-04"), (12345, "+1.23e+04"), (float("nan"), "nan")],
)
def test_numbers(value, text):
    assert wording.number(value) == text


def test_visible_spells_out_control_characters_and_nothing_else():
    assert wording.visible("a\x1b\n\x9b\u202e\ud800") == "a\\x1b\\n\\x9b\\u202e\\ud800"
    assert wording.visible("日本 é 🎬 👩‍🚀") == "日本 é 🎬 👩‍🚀"


def test_a_view_holds_the_books():
    books = explanation()
    for b, sample in enumerate(view.samples(books)):
        kept = sample.books
        assert kept.seed == pytest.approx(sum(kept.points.values()) + sum(kept.absorbed.values()) + kept.residual)
        np.testing.assert_allclose(sample.points[0].relevance, books.relevance["x"][b].sum(1))
        np.testing.assert_allclose(sample.points[0].features, books.relevance["x"][b])
        assert sample.points[0].unit == "step"
        assert sample.explained == "y, class 0"


def test_time_may_come_first():
    books = explanation(samples=3)
    turned = Explanation(
        **{f: getattr(books, f) for f in books.__dataclass_fields__ if f not in ("relevance", "axes")},
        relevance={"x": np.moveaxis(books.relevance["x"], 0, 1)},
        axes={"x": (1, 0)},
    )
    for one, other in zip(view.samples(books), view.samples(turned), strict=True):
        np.testing.assert_allclose(one.points[0].relevance, other.points[0].relevance)
        np.testing.assert_allclose(one.points[0].features, other.points[0].features)


def test_features_without_time(monkeypatch):
    books = explanation(steps=4, features=0, samples=1)
    object.__setattr__(books, "axes", {"x": (0, None)})
    [sample] = view.samples(books)
    assert sample.points[0].unit == "feature"
    np.testing.assert_allclose(sample.points[0].relevance, books.relevance["x"][0])
    assert "relevance by feature" in printed([sample], monkeypatch)


def test_tokens_must_fit():
    books = explanation()
    for tokens in (["one"], [["a"] * 5], [["a"] * 4, ["b"] * 4], [["a"] * 6, ["b"] * 5]):
        with pytest.raises(InputError):
            view.samples(books, tokens=tokens)
    shown = view.samples(books, tokens=[list("abcde"), list("xy")])
    assert shown[1].points[0].labels == ("x", "y", "·", "·", "·")


def test_a_negative_seed_is_said(monkeypatch):
    books = explanation(samples=1)
    object.__setattr__(books, "seed", -np.abs(books.seed))
    [sample] = view.samples(books)
    assert "explained score is negative" in " ".join(printed([sample], monkeypatch).split())
    assert "explained score is negative" in to_html(books)


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("steps", [1, 5, 300])
@pytest.mark.parametrize("color", [False, True])
def test_no_line_is_too_wide(columns, steps, color, monkeypatch):
    books = explanation(steps, 3, layer="/model/a/very/long/name/of/a/layer/" * 3)
    tokens = [["Donaudampfschifffahrt" * 6, *(["映画は面白くない🎬", "a", "word"] * steps)][:steps]] * 2
    for named in (None, tokens):
        text = printed(view.samples(books, tokens=named), monkeypatch, columns=columns, color=color)
        assert ("\x1b[" in text) == color
        assert max(cell_len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", text).split("\n")) <= columns


def test_every_word_stands_beside_its_number(monkeypatch):
    books = explanation(steps=4, samples=1)
    tokens = ["映画", "は", "good", "."]
    text = printed(view.samples(books, tokens=tokens), monkeypatch)
    for token, value in zip(tokens, books.per_step()[0], strict=True):
        assert f"{token} {wording.number(value)}" in text


def test_no_color_is_respected(monkeypatch):
    shown = view.samples(explanation(samples=1), tokens=list("abcde"))
    assert "\x1b[" in printed(shown, monkeypatch, color=True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    terminal.show(shown, file=out)
    assert not re.search(r"\x1b\[[0-9;]*[34]8;", out.getvalue())


def test_a_terminal_gets_no_foreign_control_characters(monkeypatch):
    books = explanation(steps=1, samples=1, layer=EVIL)
    text = printed(view.samples(books, tokens=[EVIL], titles=[EVIL], classes=[EVIL, EVIL]), monkeypatch)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "[bold]x[/bold]" in text


def test_a_summary_gets_no_foreign_control_characters():
    axes = {"batch": "any", "time": "none", "class": 1}
    out = io.StringIO()
    described.describe(Summary((EVIL,), (EVIL,), EVIL, (EVIL,), axes, (), "epsilon", (EVIL,), (EVIL,)), file=out)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out.getvalue())


def test_zero_and_nan_are_shown(monkeypatch):
    books = explanation(samples=1)
    books.relevance["x"][:] = 0
    object.__setattr__(books, "residual", np.array([np.nan]))
    assert "nan" in printed(view.samples(books), monkeypatch)
    assert "nan" in to_html(books)


def test_a_name_is_cut_in_its_middle():
    text = "/model/encoder/layer.11/output/dense"
    assert wording.short(text, 99) == text
    for length in (5, 6, 22):
        cut = wording.short(text, length)
        assert len(cut) == length
        first, last = cut.split("…")
        assert text.startswith(first)
        assert text.endswith(last)


# series with names, and text in all its scripts


def series(length: int, width: int, *, scale: float = 1.0, **labels: object) -> Explanation:
    """Named features "p0 [bar]" … over named steps."""
    found = explanation(length, width, 1)
    object.__setattr__(found, "relevance", {"x": found.relevance["x"] * scale})
    named = {"features": tuple(f"p{k}" for k in range(width)), "units": ("bar",) * width, **labels}
    object.__setattr__(found, "labels", Labels(**named))
    return found


def courses(text: str) -> dict[str, list[str]]:
    """{feature: its lines} of the table of courses."""
    lines = text[text.index("feature ") :].split("\n\n")[0].splitlines()[1:]
    found: dict[str, list[str]] = {}
    for line in lines:
        if not line.startswith((" ", "the ")):
            name = re.split(r" {2,}|(?= [+-] )", line)[0]
            found[name] = []
        if not line.startswith("the "):
            found[name].append(line)
    return found


@given(
    values=st.lists(st.lists(st.floats(-9, 9), min_size=2, max_size=2), min_size=2, max_size=40),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
)
def test_courses_have_the_sums_and_the_signs(values, scale):
    """Every feature's line ends with its sum; a row of + or - stands where some step moves a sixteenth of the largest that way."""
    matrix = np.asarray(values) * scale
    found = series(len(matrix), 2)
    object.__setattr__(found, "relevance", {"x": matrix[None]})
    with pytest.MonkeyPatch.context() as patch:
        text = printed(view.samples(found), patch)
    rows = courses(text)
    assert list(rows) == ["p0 [bar]", "p1 [bar]", "all 2"]
    lines = [*matrix.T, matrix.sum(1)]
    largest = max(np.abs(line).max() for line in lines) or 1.0
    for line, printed_rows in zip(lines, rows.values(), strict=True):
        assert printed_rows[0].split()[-1] == wording.number(float(line.sum()))
        for sign, part in (("+", line), ("-", -line)):
            shown = any(re.search(rf" \{sign} ", row[:12] + " ") for row in printed_rows)
            assert shown == bool((part / largest > 1 / 16).any())
    assert max(cell_len(line) for line in text.split("\n")) <= 80


def test_the_strongest_features_are_shown(monkeypatch):
    found = series(30, 20)
    text = printed(view.samples(found), monkeypatch)
    assert "the 12 strongest of 20 features" in text
    weakest = np.abs(found.relevance["x"][0]).sum(0).argsort()[:8]
    assert not {f"p{k} [bar]" for k in weakest} & set(courses(text))


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("steps", [1, 2, 300])
def test_long_names_of_series_fit(columns, steps, monkeypatch):
    names = ("ü" * 10_000, "日本" * 50, "a")
    times = tuple("2024-01-01 00:00:00" * 20 for _ in range(steps))
    found = series(steps, 3, features=names, units=("", "bar", "°C"), steps=(times,), time="t" * 99, samples=("s" * 999,))
    for color in (False, True):
        text = printed(view.samples(found), monkeypatch, columns=columns, color=color)
        assert max(cell_len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", text).split("\n")) <= columns


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_extremes_are_shown(scale, monkeypatch):
    for found in (series(5, 3, scale=scale), explanation(5, 3, 1)):
        text = printed(view.samples(found), monkeypatch)
        assert "nan" not in text
        assert "inf" not in text
    words = printed(view.samples(series(3, 2, scale=scale), tokens=list("abc")), monkeypatch)
    assert all(f"{token} {'0' if not scale else ''}" in words for token in "abc")
    one = explanation(1, 0, 1)
    object.__setattr__(one, "outputs", {"y": np.ones((1, 1))})  # of one class there is no score to compare
    assert "only " in printed(view.samples(one, tokens=["only"]), monkeypatch)


def test_words_of_every_script_stay_beside_their_numbers(monkeypatch):
    tokens = ["سيئ", "פרק", "日本", "👩‍🚀", "<script>alert(1)</script>", "", " ", "x" * 10_000]
    books = explanation(steps=len(tokens), features=0, samples=1)
    text = printed(view.samples(books, tokens=tokens), monkeypatch)
    for token, value in zip(tokens, books.per_step()[0], strict=True):
        mark = "\u200e" if token in tokens[:2] else ""  # else a number would change sides
        shown = token.strip() or "␣"
        if len(token) < 100:
            assert f"{shown}{mark} {wording.number(float(value))}" in text
    assert "x… " in text
    unknown = view.samples(books, tokens=[*tokens[:-1], tokens[-1] + "?"], unknown=True)
    assert "x…? " in printed(unknown, monkeypatch)
    page = to_html(books, tokens=tokens)
    assert "x" * 10_000 in page
    assert "<script>alert" not in page


def test_embeddings_have_no_courses(monkeypatch):
    """What single units of an embedding do means nothing."""
    books = explanation(samples=1)
    object.__setattr__(books, "origins", {"x": ("ids",)})
    object.__setattr__(books, "inputs", {"ids": np.zeros((1, 5), int)})
    assert "course" not in printed(view.samples(books), monkeypatch)
    assert "course" in printed(view.samples(explanation(samples=1)), monkeypatch)


def test_features_of_a_row_have_names(monkeypatch):
    books = explanation(steps=2, features=0, samples=1)
    object.__setattr__(books, "axes", {"x": (0, None)})
    object.__setattr__(books, "labels", Labels(features=("age", "pressure"), units=("a", "bar")))
    [sample] = view.samples(books)
    assert sample.points[0].labels == ("age [a]", "pressure [bar]")
    assert "pressure [bar]" in printed([sample], monkeypatch)
