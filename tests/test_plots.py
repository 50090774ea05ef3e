"""Plots: what is drawn is what the explanation holds, red is what raises, white is zero, and words stay words."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import test_ragged
import test_table
import test_twin
from test_report import EVIL, explanation

import onnx_lrp
from onnx_lrp import targets
from onnx_lrp.report import html, plots, view, wording

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import colors, pyplot  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

WORDS = ["$x$", "a_b^2$", "مرحبا", "🎬", "Donaudampfschifffahrtsgesellschaftskapitän", "", "<unk>", "\\frac{", EVIL]
LIKE = {"jit": "eager", "verify": "never"}


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


def axes():
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def drawn(ax):
    """Draws, as nothing is laid out before."""
    ax.figure.canvas.draw()
    return ax


def scaled(made, factor):
    """All of it times a factor."""
    return dataclasses.replace(
        made,
        relevance={n: a * factor for n, a in made.relevance.items()},
        ledger={layer: {k: a * factor for k, a in kinds.items()} for layer, kinds in made.ledger.items()},
        absorbed={k: a * factor for k, a in made.absorbed.items()},
        seed=made.seed * factor,
        arrived={n: a * factor for n, a in made.arrived.items()},
    )


def bars(ax):
    return ax.containers[0].patches


def labels(axis):
    return [t.get_text() for t in axis.get_ticklabels()]


def is_red(color):
    red, _, blue = colors.to_rgb(color)
    return red > blue


# bars


@pytest.mark.parametrize("sample", [0, 1])
def test_bars_by_step(sample):
    made = explanation()
    ax = drawn(made.plot("bar", sample=sample, ax=axes()))
    want = made.per_step()[sample]
    np.testing.assert_allclose([b.get_height() for b in bars(ax)], want)
    assert [is_red(b.get_facecolor()) for b in bars(ax)] == [v > 0 for v in want]
    assert [t.get_text() for t in ax.texts] == [wording.number(v) for v in want]
    assert "raises the explained score" in ax.get_xlabel()
    assert f"sample {sample + 1} of 2: y, class 0" in ax.get_title(loc="left")


@pytest.mark.filterwarnings("ignore:Glyph")  # no font has them all; what it lacks is a box
def test_bars_by_word_read_from_the_top():
    made = explanation(steps=len(WORDS), samples=1)
    ax = drawn(made.plot(tokens=WORDS, ax=axes()))
    np.testing.assert_allclose([b.get_width() for b in bars(ax)], made.per_step()[0])
    assert ax.yaxis_inverted()
    shown = labels(ax.yaxis)
    assert shown[:4] == WORDS[:4]
    assert shown[4] == "Donaudampfschi…chaftskapitän"
    assert not any(set(text) & set("\x1b\x07\u202e") for text in shown)
    assert not any(t.get_parse_math() or t.get_usetex() for t in ax.get_yticklabels())


def test_names_are_no_formulas():
    made = explanation(samples=1, layer="$\\bad{_layer$")
    made = dataclasses.replace(made, explained="$\\bad{_y$")
    for kind in ("bar", "heatmap"):
        assert "$\\bad{_y$" in drawn(made.plot(kind, ax=axes())).get_title(loc="left")
    assert "bias in $\\bad{_layer$" in labels(drawn(made.plot("waterfall", layers=True, ax=axes())).yaxis)


def test_more_words_than_there_is_room_for():
    ax = drawn(explanation(steps=1500, samples=1).plot(tokens=[f"w{t}" for t in range(1500)]))
    shown = [t.get_window_extent() for t in ax.get_yticklabels()]
    assert len(shown) > 20
    assert all(a.y0 >= b.y1 - 2 for a, b in itertools.pairwise(shown))
    assert len(bars(ax)) == 1500
    assert not ax.texts
    assert labels(ax.yaxis)[1] == f"w{int(ax.get_yticks()[1])}"


def test_numbers_stay_inside():
    for factor in (1, -1):
        ax = drawn(scaled(explanation(steps=1, samples=1), factor).plot("bar", tokens=["word"]))
        drawn(ax)  # once laid out
        inside = ax.get_window_extent()
        for text in ax.texts:
            assert inside.x0 <= text.get_window_extent().x0 <= text.get_window_extent().x1 <= inside.x1


# heat maps


def test_a_heat_map_is_symmetric_about_white():
    made = explanation(steps=6, features=4)
    ax = drawn(made.plot(sample=1, ax=axes()))
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), made.relevance["x"][1].T)
    largest = np.abs(made.relevance["x"][1]).max()
    assert image.get_clim() == (-largest, largest)
    assert image.to_rgba(0.0) == (1, 1, 1, 1)
    assert is_red(image.to_rgba(0.2 * largest)[:3])
    assert not is_red(image.to_rgba(-0.2 * largest)[:3])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "feature")
    assert "raises the explained score" in image.colorbar.ax.get_ylabel()


def test_a_heat_map_of_words():
    made = explanation(steps=4, samples=1)
    ax = drawn(made.plot("heatmap", tokens=["not", "$so$", "bad_", "."], ax=axes()))
    assert labels(ax.xaxis) == ["not", "$so$", "bad_", "."]


def test_an_image_lies_as_it_was():
    made = explanation(steps=4, features=5)
    for shape in ((2, 4, 5), (2, 1, 4, 5), (2, 4, 5, 1)):
        image = dataclasses.replace(made, relevance={"x": made.relevance["x"].reshape(shape)}, axes={"x": (0, None)})
        np.testing.assert_allclose(image.plot(sample=1, ax=axes()).images[0].get_array(), made.relevance["x"][1])


def test_the_colours_are_the_page_s():
    style = html.to_html(explanation(samples=1))
    for strong, weak in (plots.RAISES, plots.LOWERS):
        assert strong in style
        assert weak in style


# waterfalls


@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("sample", [None, 0, 2])
def test_a_waterfall_goes_from_the_seed_to_nothing(sample, layers):
    model, feeds, _ = test_twin.network(5, direction="bidirectional", lens=True, states=("h0",), mean=True)
    made = onnx_lrp.load(model, **LIKE).explain(feeds)
    ax = drawn(made.plot("waterfall", sample=sample, layers=layers, ax=axes()))
    entries = made.waterfall(sample, layers=layers)
    seed, *steps = bars(ax)
    assert labels(ax.yaxis) == [e.label for e in entries]
    np.testing.assert_allclose([b.get_width() for b in bars(ax)], [e.value for e in entries])
    assert seed.get_x() == 0
    at = seed.get_width()
    for bar in steps:
        assert bar.get_x() + bar.get_width() == pytest.approx(at, abs=1e-6)
        at = bar.get_x()
    assert at == 0
    for bar, entry in zip(steps, entries[1:], strict=True):
        if entry.value:
            assert is_red(bar.get_facecolor()) == (entry.value > 0)
            strong, weak = plots.RAISES if entry.value > 0 else plots.LOWERS
            assert colors.to_hex(bar.get_facecolor()) == (strong if entry.kind == "input" else weak)


def test_books_plot_themselves():
    books = explanation(samples=1).books(0)
    np.testing.assert_allclose([b.get_width() for b in bars(books.plot(axes()))], [e.value for e in books.waterfall()])
    assert len(bars(books.plot(layers=True))) == len(books.waterfall(layers=True))


def test_books_are_a_table_in_a_notebook():
    made = explanation(samples=1, layer=EVIL)
    page = made.books(0)._repr_html_()
    assert page == html.ledger(made.books(0))
    assert "<script>alert" not in page
    assert "\x1b" not in page
    for line in view.readable(made.books(0)).lines():
        assert wording.number(line.value) in page
    assert page.count("<table>") == 1


# what is drawn by default, and what is refused


def test_kinds_by_shape():
    assert explanation().plot(ax=axes()).images
    assert explanation(features=0).plot(ax=axes()).containers
    assert explanation(samples=1).plot(tokens=list("abcde"), ax=axes()).containers
    words = test_table.explained("words")
    ax = words.plot("bar", sample=1, tokens=["not", "so", "bad"], ax=axes())
    np.testing.assert_allclose([b.get_width() for b in bars(ax)], words.per_step()[1])
    assert words.plot(ax=axes()).containers  # an embedding's features mean nothing
    assert words.plot("heatmap", point="ids", ax=axes()).images


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kind": "pie"}, "bar, heatmap, waterfall"),
        ({"sample": 2}, "0 to 1"),
        ({"sample": -1}, "0 to 1"),
        ({"sample": None}, "waterfall"),
        ({"point": "nowhere"}, "nowhere"),
        ({"tokens": ["a", "b"]}, "2 tokens"),
        ({"layers": True}, "waterfall"),
        ({"kind": "waterfall", "sample": 2}, "0 to 1"),
        ({"kind": "waterfall", "point": "x"}, "point="),
        ({"kind": "waterfall", "tokens": list("abcde")}, "tokens="),
    ],
    ids=str,
)
def test_refused(arguments, said):
    with pytest.raises(onnx_lrp.InputError, match=said):
        explanation().plot(**arguments, ax=axes())


def test_tokens_of_another_point_are_refused():
    made = explanation(steps=5, samples=1)
    two = dataclasses.replace(
        made,
        relevance={"x": made.relevance["x"], "z": np.ones((1, 3, 2))},
        axes={"x": (0, 1), "z": (0, 1)},
        arrived={"x": made.arrived["x"], "z": np.ones(1)},
    )
    with pytest.raises(onnx_lrp.InputError, match="name one"):
        two.plot(ax=axes())
    assert labels(two.plot(point="z", tokens=list("abc"), ax=axes()).yaxis) == ["a", "b", "c"]
    with pytest.raises(onnx_lrp.InputError, match="don't fit z"):
        two.plot(point="z", tokens=list("abcde"), ax=axes())


def test_several_classes_are_drawn_one_by_one():
    made = test_table.explained("dense", targets.all_classes())
    with pytest.raises(onnx_lrp.InputError, match="select"):
        made.plot()
    assert "class 1" in made.select(1).plot(ax=axes()).get_title(loc="left")


def test_other_methods():
    model, feeds, _ = test_twin.network(1, direction="forward", lens=False, states=(), mean=False)
    explainer = onnx_lrp.load(model, **LIKE)
    sensitivity = explainer.explain(feeds, method="sensitivity")
    label = sensitivity.plot("bar", ax=axes()).get_xlabel()
    assert "squared derivative" in label
    assert "blue" not in label
    with pytest.raises(onnx_lrp.InputError, match="no books"):
        sensitivity.plot("waterfall")
    with pytest.raises(onnx_lrp.InputError, match="completeness"):
        explainer.explain(feeds, method="integrated_gradients").plot("waterfall")


# extremes


def test_ragged_batches_are_cut_to_their_own_length():
    model = test_ragged.words()
    made = onnx_lrp.load(model, **LIKE).explain([[1, 4], [2, 0, 6, 3], [5]])
    for sample, length in enumerate(made.lengths):
        assert len(bars(made.plot(sample=sample, ax=axes()))) == length
        assert made.plot("heatmap", sample=sample, ax=axes()).images[0].get_array().shape == (4, length)
        own = [f"w{t}" for t in range(length)]
        assert labels(made.plot(sample=sample, tokens=own, ax=axes()).yaxis) == own
    every = [["a", "b"], list("cdef"), ["g"]]
    assert labels(made.plot(sample=0, tokens=every, ax=axes()).yaxis) == ["a", "b"]
    with pytest.raises(onnx_lrp.InputError, match="3 tokens"):
        made.plot(sample=0, tokens=list("abc"))


@pytest.mark.parametrize("factor", [0, 1e-30, 1e30])
@pytest.mark.parametrize("steps", [1, 5])
def test_sizes(factor, steps):
    made = scaled(explanation(steps, samples=1), factor)
    ax = drawn(made.plot("bar", ax=axes()))
    low, high = ax.get_ylim()
    heights = [b.get_height() for b in bars(ax)]
    assert low < min(0, *heights) <= max(0, *heights) < high
    assert high - low <= 3 * np.ptp([0, *heights]) or factor == 0
    ax = drawn(made.plot("heatmap", ax=axes()))
    low, high = ax.images[0].get_clim()
    assert low == -high
    assert high == (np.abs(made.relevance["x"]).max() or 1)
    drawn(made.plot("waterfall", ax=axes()))
    drawn(made.plot("waterfall"))


def test_nan_and_infinity_are_told():
    made = explanation(steps=4, samples=1)
    made.relevance["x"][0, 1, 0], made.relevance["x"][0, 2, 0] = np.nan, np.inf
    ax = drawn(made.plot("bar", ax=axes()))
    assert [t.get_text() for t in ax.texts][1:3] == ["nan", "+inf"]
    image = drawn(made.plot(ax=axes())).images[0]
    assert image.get_clim()[1] == np.abs(made.relevance["x"][np.isfinite(made.relevance["x"])]).max()


def test_a_negative_seed_is_said():
    made = explanation(samples=1)
    for seed, said in ((-1.5, True), (1.5, False)):
        turned = dataclasses.replace(made, seed=np.array([seed]))
        shown = [turned.plot(kind, ax=axes()) for kind in plots.KINDS] + [turned.books(0).plot(axes())]
        for ax in shown:
            assert ("explained score is negative (-1.500)" in " ".join(ax.get_title(loc="left").split())) == said


# matplotlib


def test_pyplot_is_left_alone():
    script = """
import sys
sys.path.insert(0, "tests")
from test_report import explanation
import onnx_lrp.report.plots
assert not any(m.startswith("matplotlib") for m in sys.modules)
from matplotlib.figure import Figure
for kind in (None, "bar", "heatmap", "waterfall"):
    ax = Figure().add_subplot()
    assert explanation().plot(kind, ax=ax) is ax
assert "matplotlib.pyplot" not in sys.modules
"""
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr


def test_a_new_figure_is_pyplot_s():
    before = len(pyplot.get_fignums())
    made = explanation()
    first, second = made.plot(), made.plot("waterfall")
    assert first.figure is not second.figure
    assert len(pyplot.get_fignums()) == before + 2


@pytest.mark.parametrize("kind", plots.KINDS)
def test_matplotlib_missing(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(onnx_lrp.MissingExtra, match=r'pip install "onnx-lrp\[plot\]"'):
        explanation().plot(kind)
