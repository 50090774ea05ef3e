"""How large the results of a node on constants will be, told before they are made: some ops make terabytes of a few bytes."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .errors import InvalidModel

__all__ = ["inferred", "itemsize", "largest", "work"]

AXES = 64  # of an array; numpy has no more
ENDLESS = 10**18  # what nothing can hold, or come to the end of
SMALL = 64  # entries: sizes, pads and scales are told to shape inference, weights are not


def _numbers(value: Any) -> list[int]:
    """The sizes of a shape; a list of millions is none, and is not walked through."""
    sizes = np.asarray(value)  # may be a view of 1 GiB
    if sizes.size > AXES:
        raise InvalidModel(f"a shape of {sizes.size:_} axes is asked for; no more than {AXES} are read")
    return [int(n) for n in sizes.reshape(-1)]


def _together(shapes: Sequence[Sequence[int]]) -> int:
    """Entries of a broadcast of shapes, at most."""
    rank = max((len(s) for s in shapes), default=0)
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    return math.prod(max(sizes) for sizes in zip(*padded, strict=True))


def largest(op: str, values: Sequence[Any], attributes: Any) -> int:
    """Entries of the largest result of an op of :mod:`onnx_lrp.fold`'s table, never too few; 0 where nonsense is asked for."""
    arrays = [np.asarray(v) for v in values if v is not None]
    try:
        if op == "ConstantOfShape":
            return math.prod(_numbers(arrays[0]))
        if op == "Expand":
            return _together([arrays[0].shape, _numbers(arrays[1])])
        if op == "Tile":
            return int(arrays[0].size) * math.prod(_numbers(arrays[1]))
        if op == "Range":
            start, limit, delta = (float(a.reshape(-1)[0]) for a in arrays)
            return max(0, math.ceil((limit - start) / delta))
        if op == "Gather":
            axis = attributes.get("axis", 0)
            return int(arrays[0].size) // max(int(arrays[0].shape[axis]), 1) * int(arrays[1].size)
        if op == "Concat":
            return sum(int(a.size) for a in arrays)
        if len(arrays) > 1 and op not in ("Reshape", "Slice", "Split", "Squeeze", "Unsqueeze", "ReduceProd"):
            return _together([a.shape for a in arrays])
    except (ValueError, TypeError, IndexError, ArithmeticError):
        return 0
    return max((int(a.size) for a in arrays), default=0)


def itemsize(op: str, values: Sequence[Any], attributes: Any) -> int:
    """Bytes of an entry of such a result, never too many."""
    if op == "Cast":
        return 1
    if op == "ConstantOfShape":
        return np.asarray(attributes.get("value", np.float32(0))).itemsize
    return min((np.asarray(v).itemsize for v in values[:1] if v is not None), default=1)


def inferred(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> tuple[int, int]:
    """(entries of all outputs of a model of one node, bytes of an entry), as far as onnx's shape inference tells them; else 0."""
    known = onnx.ModelProto()
    known.CopyFrom(model)
    small = [numpy_helper.from_array(v, n) for n, v in feeds.items() if v.size <= SMALL and v.dtype.kind in "iufb"]
    known.graph.initializer.extend(small)
    try:
        found = onnx.shape_inference.infer_shapes(known, data_prop=known.graph.node[0].op_type != "Slice")  # see reading.WIDEST
    except Exception:  # it is a help, never a reason to refuse
        return 0, 1
    types = [v.type.tensor_type.elem_type for v in found.graph.output if v.type.tensor_type.elem_type]
    width = max((helper.tensor_dtype_to_np_dtype(t).itemsize for t in types), default=1)
    sizes = [
        [d.dim_value for d in v.type.tensor_type.shape.dim] for v in found.graph.output if v.type.tensor_type.HasField("shape")
    ]
    return sum(math.prod(s) for s in sizes), width


def work(op: str, values: Sequence[Any], attributes: Any, result: int) -> tuple[int, float]:
    """(entries of the largest tensor between, multiplications) of an op on constants with a result of so many entries, at least.

    √(|A|·|B|·|A·B|) is m·k·n for matrices (m, k) and (k, n).
    """
    arrays = [np.asarray(v) for v in values if v is not None]
    with contextlib.suppress(ValueError, KeyError, IndexError, OverflowError):  # of what the evaluators refuse
        if op == "Einsum":
            return _pairwise(attributes["equation"], [a.shape for a in arrays])
        if op == "RoiAlign":
            return _sampled(arrays[1], attributes)
    sizes = sorted((v.size for v in arrays if v.dtype.kind in "iuf"), reverse=True)
    return 0, math.sqrt(sizes[0] * sizes[1] * max(result, 0)) if len(sizes) > 1 else 0.0


def _sampled(regions: np.ndarray, attributes: Any) -> tuple[int, float]:
    """The same of a RoiAlign with regions (N, 4): onnxruntime lists a region's points, ``sampling_ratio`` each way for every entry,
    where that is 0 as many as an entry is wide, with four places and four weights."""
    cells = attributes.get("output_height", 1) * attributes.get("output_width", 1)
    least = max(min(attributes.get("output_height", 1), attributes.get("output_width", 1)), 1)
    corners = np.nan_to_num(regions[:, :4].astype(float)) * abs(attributes.get("spatial_scale", 1.0)) / least
    extent = min(float(np.abs(corners[:, 2:] - corners[:, :2]).max(initial=0)), 2.0**30)
    points = 8 * cells * math.ceil(attributes.get("sampling_ratio", 0) or max(extent, 1.0)) ** 2
    return points, float(points * len(regions))


def _pairwise(equation: str, shapes: Sequence[Sequence[int]]) -> tuple[int, float]:
    """The same of an Einsum taken pair by pair from the left, as onnxruntime does it."""
    terms, _, result = equation.replace(" ", "").partition("->")
    names: list[list[str]] = []
    sizes: dict[str, int] = {}
    for text, shape in zip(terms.split(","), shapes, strict=True):
        left, dots, right = text.partition("...")
        more = len(shape) - len(left) - len(right) if dots else 0
        names.append([*left, *(f".{more - k}" for k in range(more)), *right])
        for name, size in zip(names[-1], shape, strict=True):
            sizes[name] = max(sizes.get(name, 1), size)
    count = Counter(name for term in names for name in term)
    last = {name: k for k, term in enumerate(names) for name in term}
    kept = {n for n in count if n in result or n.startswith(".")} if "->" in equation else {n for n in count if count[n] == 1}
    most = total = 0
    held = set(names[0])
    for k, term in enumerate(names[1:], 1):
        held.update(term)
        total += math.prod(sizes[n] for n in held)
        held = {n for n in held if n in kept or last[n] > k}
        most = max(most, math.prod(sizes[n] for n in held))
    return most, float(min(total, ENDLESS))
