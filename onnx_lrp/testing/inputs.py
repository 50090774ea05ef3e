"""Inputs of a given model, drawn: what its graph says of their types, sizes and meaning, and what onnxruntime accepts, is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..errors import InputError
from ..explainer import Explainer
from ..graph import Graph, Node, Value
from ..loading import load
from ..registry import is_float

__all__ = ["feeds"]

Feeds = Mapping[str, np.ndarray]
EDGES = (0.0, 1.0, -1.0, 1e-6, -1e-6)
SCALES = (1.0, 0.1, 10.0)
MOST = 6  # entries drawn one by one over a background
BEYOND = (*range(7, 33), 40, 48, 50, 64, 80, 96, 100, 128, 200, 224, 256)  # sizes asked for where no small one is accepted
COUNTS = (9, 4, 2, 1, 0)  # largest values of integers about which the graph says nothing
# ops that hand integers or strings on: what their result indexes, their input does, too
PASSING = frozenset(
    ("Add", "Cast", "Clip", "Concat", "Expand", "Flatten", "Gather", "Identity", "Max", "Min", "Mul", "Pad", "Reshape", "Slice")
) | {"Split", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where"}
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


def feeds(model: Any, *, batch: int = 3, length: int = 6, largest: float = 100.0) -> st.SearchStrategy[dict[str, np.ndarray]]:
    """Inputs of a model, {graph input: array of that input's shape}: sizes, then values, then edge values at single places.

    Sizes that the file fixes are kept, and inputs that share an axis get one size for it; an axis on which no size up to ``length``
    is accepted gets longer ones. Floats are 0, ±1, ±1e-6, ±largest, anything between, or normal numbers; token ids lie inside the
    embedding, lengths between 1 and the time steps, other integers between 0 and 9; masks are any; strings are those the model
    knows, and others. Shrinks to one sample, one step, zeros (masks: true).

    Args:
        model: a path, bytes, ``ModelProto``, or an :class:`onnx_lrp.Explainer`.
        batch: the largest batch.
        length: the longest of every other open axis.
        largest: magnitude of floats.

    Raises:
        ModelError: the model can't be read or explained.
        InputError: an option out of range, an input that can't be drawn, or no sizes that the model accepts.
    """
    for name, value in (("batch", batch), ("length", length)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be an integer >= 1, got {value!r}")
    if not 0 < largest < float("inf"):
        raise InputError(f"largest must be a finite number > 0, got {largest!r}")
    explainer = model if isinstance(model, Explainer) else load(model, verify="never")
    return _draw(_Space(explainer, batch, length, largest))


Key = Any  # the label of an axis, or (input, axis)


@dataclass(frozen=True)
class _Input:
    """One graph input: its axes as sizes or keys, and what its values mean."""

    name: str
    dtype: np.dtype[Any]
    axes: tuple[Key | int, ...]
    meaning: str  # "float", "bool", "string", "length", "integer"
    high: int | None = None  # the largest integer, None: not known
    steps: Key | int | None = None  # of a length: the axis it counts
    words: tuple[str, ...] = ()


class _Space:
    """Everything that is decided about a model's inputs before the first draw."""

    def __init__(self, explainer: Explainer, batch: int, length: int, largest: float) -> None:
        self.explainer = explainer
        self.largest = largest
        self.batch = explainer._plan.batch.root if explainer._plan.batch is not None else None
        self.inputs = [self._input(v) for v in explainer.inputs]
        keys = list(dict.fromkeys(k for i in self.inputs for k in i.axes if not isinstance(k, int)))
        self.highs = {i.name: [i.high] if i.high is not None else list(COUNTS) for i in self.inputs if i.meaning == "integer"}
        small = {k: list(range(1, (batch if k is self.batch else length) + 1)) for k in keys}
        self.sizes = self._accepted(small)
        self.highs = {n: self._high(n, highs) for n, highs in self.highs.items()}

    def _input(self, value: Value) -> _Input:
        dtype, plan, graph = value.dtype, self.explainer._plan, self.explainer._graph
        dims = plan.vars[value.name].dims if value.name in plan.vars else None
        if dtype is None:
            raise InputError(f"input {value.name!r} is no tensor; it can't be drawn")
        if value.shape is None and dims is None:
            raise InputError(f"input {value.name!r}: its rank is unknown; it can't be drawn")
        axes: list[Key | int] = []
        for axis in range(len(value.shape if value.shape is not None else dims or ())):
            size = value.shape[axis] if value.shape is not None else None
            dim = dims[axis] if dims is not None else None
            if isinstance(size, int):
                axes.append(size)
            elif dim is not None and len(dim.labels) == 1:
                label = dim.roots[0]
                axes.append(label if label is self.batch or label.size is None else label.size)
            else:
                axes.append(size if isinstance(size, str) else (value.name, axis))
        found = (value.name, dtype, tuple(axes))
        if dtype.kind in "OUS":
            return _Input(*found, "string", words=tuple(sorted({w for n, _ in _reached(graph, value.name) for w in _words(n)})))
        if dtype.kind == "b":
            return _Input(*found, "bool")
        if is_float(dtype):
            return _Input(*found, "float")
        high, steps = None, None
        for node, slot in _reached(graph, value.name):
            if (node.op in RECURRENT and slot == 4) or (node.op == "ReverseSequence" and slot == 1):
                steps = self._steps(node)
            count = _count(graph, node, slot)
            if count is not None:
                high = min(count - 1, count - 1 if high is None else high)
        if steps is not None:
            return _Input(*found, "length", steps=steps)
        return _Input(*found, "integer", high=None if high is None else min(high, int(np.iinfo(dtype).max)))

    def _steps(self, node: Node) -> Key | int:
        """The axis that a length counts."""
        dims = self.explainer._plan.vars[node.inputs[0]].dims if node.inputs[0] in self.explainer._plan.vars else None
        layout = node.attributes.get("layout", 0) if node.op in RECURRENT else 1 - node.attributes.get("time_axis", 0)
        if dims is None or len(dims) <= (1 if layout else 0):
            return 1
        dim = dims[1 if layout else 0]
        return dim.size if dim.size is not None else dim.roots[0] if len(dim.labels) == 1 else 1

    def sized(self, key: Key | int, sizes: Mapping[Key, int]) -> int:
        return key if isinstance(key, int) else sizes.get(key, 1)

    def plain(self, sizes: Mapping[Key, int], highs: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
        """Zeros (masks true, lengths full, ``highs`` where given) of some sizes."""
        out = {}
        for i in self.inputs:
            shape = [self.sized(k, sizes) for k in i.axes]
            fill: Any = {"bool": True, "string": "", "length": None}.get(i.meaning, (highs or {}).get(i.name, 0))
            out[i.name] = np.full(shape, self.sized(i.steps or 1, sizes) if fill is None else fill, i.dtype)
        return out

    def runs(self, given: Feeds) -> bool:
        """Whether onnxruntime takes these inputs, and the engine where onnxruntime can't load the model."""
        explainer = self.explainer
        try:
            if explainer._runtime.reference[0] is not None:
                return not contradiction(explainer, given, explainer._runtime.forward(given) or {})
            else:
                explainer.predict(given)
        except Exception:  # whatever it is that they say, they don't take it
            return False
        return True

    def _accepted(self, small: Mapping[Key, list[int]]) -> dict[Key, list[int]]:
        """Sizes of every open axis, each accepted when the other axes have one that is."""
        tries = [{k: s[-1] for k, s in small.items()}]
        tries += [{k: s[min(n, len(s)) - 1] for k, s in small.items()} for n in (1, 2, 3, 4)]
        tries += [{k: 1 if k is self.batch else n for k in small} for n in BEYOND]
        base = next((t for t in tries if self.runs(self.plain(t))), None)
        if base is None:  # one axis after the other
            base = next((t for t in self._each(small) if self.runs(self.plain(t))), None)
        if base is None:
            raise InputError(f"no sizes found that this model accepts; it takes {', '.join(str(v) for v in self.explainer.inputs)}")
        found = {}
        for key, sizes in small.items():
            good = [n for n in sizes if n == base[key] or self.runs(self.plain({**base, key: n}))]
            found[key] = good or [base[key]]
        return found

    def _each(self, small: Mapping[Key, list[int]]) -> Iterator[dict[Key, int]]:
        for key in small:
            for n in BEYOND:
                for rest in (1, 2, 4):
                    yield {**{k: min(rest, s[-1]) for k, s in small.items()}, key: n}

    def _high(self, name: str, highs: list[int]) -> list[int]:
        """The largest integer that is accepted."""
        sizes = {k: s[-1] for k, s in self.sizes.items()}
        while highs[0] > 0 and not self.runs(self.plain(sizes, {name: highs[0]})):
            highs = highs[1:] or [highs[0] // 2]
        return highs


def contradiction(explainer: Explainer, given: Feeds, outputs: Mapping[str, Any]) -> str:
    """Where a model's outputs have other sizes than its file says for these inputs, "" if nowhere.

    Exporters write the traced length into a Reshape and leave the axis open all the same: on another length what comes out is no
    longer the network.
    """
    known: dict[int | str, int] = {}
    for value in explainer._graph.inputs:
        known |= {k: n for k, n in zip(value.shape or (), np.shape(given[value.name]), strict=False) if isinstance(k, str)}
    for value in explainer._graph.outputs:
        array = outputs.get(value.name)
        if value.shape is None or not isinstance(array, np.ndarray):
            continue
        said = tuple(known.get(k) if isinstance(k, str) else k for k in value.shape)
        if len(said) != array.ndim or any(k not in (None, n) for k, n in zip(said, array.shape, strict=True)):
            return f"output {value.name!r} has shape {array.shape}, the file says {value}"
    return ""


def _reached(graph: Graph, name: str) -> Iterator[tuple[Node, int]]:
    """(node, slot) of everything that takes an input's integers or strings, handed on by other ops and into sub-graphs."""
    stack, seen = [(graph, name)], set()
    while stack:
        scope, at = stack.pop()
        if (id(scope), at) in seen:
            continue
        seen.add((id(scope), at))
        for node in scope.nodes:
            for slot, read in enumerate(node.inputs):
                if read != at:
                    continue
                yield node, slot
                if node.op in PASSING and not (node.op == "Gather" and slot == 1):
                    stack.extend((scope, o) for o in node.outputs if o)
            for body in node.graphs:
                stack.append((body, at))  # captured
                offset = len(node.inputs) - len(body.inputs)
                stack.extend((body, v.name) for k, v in enumerate(body.inputs) if k + offset >= 0 and node.inputs[k + offset] == at)


def _count(graph: Graph, node: Node, slot: int) -> int | None:
    """How many values a node tells apart in the integers of a slot."""
    if node.op == "Gather" and slot == 1 and node.inputs[0] in graph.constants:
        return int(graph.constants[node.inputs[0]].shape[node.attributes.get("axis", 0)])
    if node.op == "OneHot" and slot == 0 and node.inputs[1] in graph.constants:
        return int(np.reshape(graph.constants[node.inputs[1]], -1)[0])
    return None


def _words(node: Node) -> list[str]:
    found: list[str] = []
    for value in node.attributes.values():
        if isinstance(value, list | tuple) and value and isinstance(value[0], str | bytes):
            found += [w.decode("utf-8", "replace") if isinstance(w, bytes) else w for w in value]
    return found[:50]


@st.composite
def _draw(draw: Any, space: _Space) -> dict[str, np.ndarray]:
    sizes = {key: draw(st.sampled_from(sizes)) for key, sizes in space.sizes.items()}
    return {i.name: _values(draw, space, i, sizes) for i in space.inputs}


def _values(draw: Any, space: _Space, given: _Input, sizes: Mapping[Key, int]) -> np.ndarray:
    shape = tuple(space.sized(k, sizes) for k in given.axes)
    if given.meaning == "float":
        largest = float(np.float32(min(space.largest, 6e4 if given.dtype == np.float16 else np.finfo(np.float32).max)))
        entry = st.one_of(
            st.sampled_from((*EDGES, largest, -largest)), st.floats(-largest, largest, width=32, allow_subnormal=False)
        )
        back: Any = np.zeros(shape)
        if draw(st.booleans()):
            back = _generator(draw).normal(0, draw(st.sampled_from(SCALES)), shape).clip(-largest, largest)
        return _touched(draw, back, entry).astype(given.dtype)
    if given.meaning == "string":
        words = st.sampled_from((*given.words, "", "unknown"))
        return _touched(draw, np.full(shape, draw(words), object), words)
    if given.meaning == "bool":
        back = np.ones(shape, bool)
        if draw(st.booleans()):
            back = _generator(draw).random(shape) < 0.5
        return _touched(draw, back, st.booleans())
    low, high = (1, space.sized(given.steps or 1, sizes)) if given.meaning == "length" else (0, space.highs[given.name][0])
    back = np.full(shape, low)
    if draw(st.booleans()):
        back = _generator(draw).integers(low, high + 1, shape)
    return _touched(draw, back, st.one_of(st.sampled_from((low, high)), st.integers(low, high))).astype(given.dtype)


def _generator(draw: Any) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**16)))


def _touched(draw: Any, array: np.ndarray, entry: st.SearchStrategy[Any]) -> np.ndarray:
    """Some single entries drawn one by one."""
    count = math.prod(array.shape)
    for place, value in draw(st.lists(st.tuples(st.integers(0, max(count - 1, 0)), entry), max_size=min(MOST, count))):
        array.reshape(-1)[place] = value
    return array
