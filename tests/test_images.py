"""Images: maps whose colours and numbers are the relevance's, at the image's aspect; a summary in the terminal."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_html import LIMIT, Page
from test_report import explanation, printed

import onnx_lrp
from onnx_lrp.report import colors, html, view
from onnx_lrp.report.figures import figures
from onnx_lrp.report.images import binned, picture
from onnx_lrp.report.maps import Maps
from onnx_lrp.report.room import Room


def images(relevance: np.ndarray, values: np.ndarray | None = None) -> onnx_lrp.Explanation:
    """An explanation of a batch of images (B, …) without a time axis."""
    count = len(relevance)
    return dataclasses.replace(
        explanation(samples=count),
        relevance={"x": relevance},
        inputs={"x": relevance if values is None else values},
        axes={"x": (0, None)},
    )


def shown(found: onnx_lrp.Explanation, room: Room | None = None) -> Maps:
    [seen] = figures([view.samples(found)[0].points[0]], room or Room())
    assert isinstance(seen, Maps)
    return seen


def raster(shades, rows: int, columns: int) -> np.ndarray:
    """The class of every cell, painted path by path."""
    cells = np.full((rows, columns), "z", object)
    for name, path in shades:
        for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)", path):
            cells[int(y), int(x) : int(x) + int(width)] = name
    return cells


SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))
ARRAYS = SHAPES.flatmap(lambda shape: arrays.arrays(np.float64, shape, elements=st.floats(-9, 9)))


@given(array=ARRAYS)
def test_every_cell_has_the_colour_and_the_number_of_its_place(array):
    seen = shown(images(array[None]))
    low, high = sorted(array.shape[:2])
    last = array.shape[2] == 1 < len(array) or array.shape[2] <= 4 < low <= high <= 4 * low
    seen_channels = np.moveaxis(array, 2, 0) if last else array
    maps = [m for m in seen.maps if m.grid is not None]
    layers = [seen_channels.sum(0)] + ([*seen_channels] if len(seen_channels) > 1 else [])
    assert len(maps) == len(layers)
    largest = max(np.abs(layer).max() for layer in layers) or 1.0
    for found, layer in zip(maps, layers, strict=True):
        want = np.array([[colors.level(v, largest) for v in row] for row in layer], object)
        np.testing.assert_array_equal(raster(found.shades, *layer.shape), want)
        np.testing.assert_allclose([row[1] for row in found.grid.table], layer)
        assert found.total == pytest.approx(layer.sum(), abs=1e-9)


@given(
    array=arrays.arrays(np.float64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(-9, 9)),
    every=st.integers(1, 10),
)
def test_blocks_are_sums_and_lose_nothing(array, every):
    found = binned(array, every)
    height, width = array.shape
    for (y, x), value in np.ndenumerate(found):
        block = array[y * every : (y + 1) * every, x * every : (x + 1) * every]
        assert value == pytest.approx(block.sum(), abs=1e-9)
    assert found.shape == (-(-height // every), -(-width // every))


@pytest.mark.parametrize(
    ("shape", "want"),
    [
        ((3, 9, 7), (3, 9, 7)),
        ((9, 7, 3), (3, 9, 7)),  # channels last, as TensorFlow has them
        ((28, 20), (1, 28, 20)),
        ((9, 7, 1), (1, 9, 7)),
        ((64, 7, 4), (64, 7, 4)),
        ((2, 3, 8, 8), (6, 8, 8)),
        ((30, 4), None),  # a table
        ((9,), None),
        ((8, 40), None),
        ((3, 0, 7), None),
    ],
)
def test_what_looks_like_a_picture(shape, want):
    array = np.arange(float(np.prod(shape))).reshape(shape)
    found = picture(array, array)
    assert (None if found is None else found.relevance.shape) == want
    if found is not None:
        assert found.whole.sum() == pytest.approx(array.sum())
        np.testing.assert_array_equal(found.relevance, found.values)


def test_large_ones_are_summed_at_their_aspect_and_it_is_said():
    array = np.random.default_rng(0).normal(size=(1, 3, 224, 112))
    seen = shown(images(array), Room(cells=1000))
    assert seen.rows / seen.columns == pytest.approx(2, rel=0.1)
    assert seen.size[1] == 2 * seen.size[0]
    [note] = [n for n in seen.notes if "pixels" in n]
    every = int(re.search(r"sum of (\d+) ×", note)[1])
    whole = next(m for m in seen.maps if m.grid is not None)
    np.testing.assert_allclose([row[1] for row in whole.grid.table], binned(array[0].sum(0), every))


def test_many_channels_are_counted():
    seen = shown(images(np.random.default_rng(0).normal(size=(1, 64, 7, 7))))
    assert "the 6 strongest of 64 channels are shown" in seen.notes


def test_the_input_is_shown_from_black_to_white():
    values = np.arange(64.0).reshape(1, 1, 8, 8)
    seen = shown(images(np.ones((1, 1, 8, 8)), values))
    cells = raster(seen.maps[0].shades, 8, 8)
    assert (seen.maps[0].grid, cells[0, 0], cells[7, 7]) == (None, "g0", f"g{colors.GRAYS - 1}")
    want = np.round(values[0, 0] / 63 * (colors.GRAYS - 1)).astype(int)
    np.testing.assert_array_equal(cells, np.vectorize("g{}".format)(want))
    assert [row[5] for row in seen.maps[1].grid.read][:2] == ["5", "13"]


@pytest.mark.parametrize("size", [0.0, 1e-300, 1e300, np.nan, np.inf])
def test_any_numbers_render(size, monkeypatch):
    found = images(np.full((1, 3, 8, 8), size))
    page = Page(html.to_html(found))
    assert page.open == []
    assert not any("nan" in v or "inf" in v for k, v in page.attributes if k in ("d", "style"))
    assert "relevance by row and column" in printed(view.samples(found), monkeypatch)


def test_a_page_says_rows_and_columns_and_a_terminal_the_strongest_regions(monkeypatch):
    array = np.zeros((1, 3, 32, 32))
    array[0, 1, 20:24, 8:12] = 1.0
    text = Page(html.to_html(images(array))).text
    assert "relevance by row and column" in text
    assert "sum of 3 channels" in text
    lines = printed(view.samples(images(array)), monkeypatch).splitlines()
    assert any(re.search(r"channel 1 +\+16\.000", line) for line in lines)
    assert any(re.search(r"20 – 23, 8 – 11 +\+16\.000", line) for line in lines)
    assert max(map(len, lines)) <= 80


def test_images_of_a_video_have_places_for_names():
    """(B, T, C, H, W): time × places."""
    found = dataclasses.replace(explanation(samples=1), relevance={"x": np.ones((1, 4, 2, 3, 5))}, inputs={}, axes={"x": (0, 1)})
    [point] = view.samples(found)[0].points
    assert (point.unit, point.column(0), point.column(29)) == ("step", "0,0,0", "1,2,4")


def test_a_hundred_images_stay_under_two_megabytes():
    found = images(np.random.default_rng(0).normal(size=(100, 3, 64, 64)))
    text = found.to_html()
    assert text.count("<article") == 100
    assert len(text.encode()) < LIMIT
    assert len(onnx_lrp.compare({"lrp": found, "other": found}).to_html().encode()) < LIMIT


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 8, 8)])
def test_a_plot_shows_the_image(shape):
    pytest.importorskip("matplotlib").use("agg")
    from matplotlib import pyplot

    array = np.random.default_rng(0).normal(size=shape)
    axes = images(array).plot()
    np.testing.assert_allclose(axes.images[0].get_array(), array.reshape(-1, 8, 8).sum(0))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("column", "row")
    pyplot.close("all")


@pytest.mark.parametrize(
    ("shape", "axes", "ids", "unit", "word"),
    [
        ((2, 5, 3), (0, 1), False, "step", "feature"),
        ((2, 5, 3), (0, None), True, "token", "feature"),
        ((2, 5, 3), (0, 1), True, "token", "feature"),
        ((2, 30, 4), (0, None), False, "row", "column"),
        ((2, 5), (0, None), False, "feature", "feature"),
    ],
)
def test_rows_and_columns_have_their_word(shape, axes, ids, unit, word):
    found = dataclasses.replace(
        explanation(samples=2),
        relevance={"x": np.ones(shape)},
        inputs={"i": np.ones(shape[:2], int)} if ids else {},
        origins={"x": ("i",)} if ids else {},
        axes={"x": axes},
    )
    [point] = view.samples(found)[0].points
    assert (point.unit, point.word) == (unit, word)
