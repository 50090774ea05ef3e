"""numpy evaluation of plumbing ops, for constants and for shape arithmetic alike.

The same kernels run on weights (ndarrays) and on the values of shape tensors (object arrays of :class:`~onnx_lrp.dims.Dim`).
Whatever is not in the table is evaluated by onnxruntime, or by onnx's reference evaluator where that is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .errors import InvalidModel

if TYPE_CHECKING:
    from .graph import Node

__all__ = ["SYMBOLIC", "evaluate", "plumbing"]

RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}

Kernel = Callable[..., Any]


def _axes(axes: Any, rank: int) -> tuple[int, ...]:
    return tuple(int(a) % rank if rank else 0 for a in np.atleast_1d(np.asarray(axes)))


def _squeeze(x: np.ndarray, axes: Any = None, **attributes: Any) -> np.ndarray:
    axes = attributes.get("axes", axes)
    return np.squeeze(x, None if axes is None else _axes(axes, x.ndim))


def _unsqueeze(x: np.ndarray, axes: Any = None, **attributes: Any) -> np.ndarray:
    axes = np.atleast_1d(np.asarray(attributes.get("axes", axes)))
    return np.expand_dims(x, tuple(int(a) % (x.ndim + len(axes)) for a in axes))


def slices(rank: int, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> tuple[slice, ...]:
    """ONNX's Slice as Python slices: both clamp, but an end below -size means "before the first" only when stepping back."""
    starts, ends = np.atleast_1d(starts), np.atleast_1d(ends)
    axes = range(len(starts)) if axes is None else _axes(axes, rank)
    steps = [1] * len(starts) if steps is None else np.atleast_1d(steps)
    out = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        stop: int | None = int(end)
        if int(step) < 0 and int(end) < -(2**31) + 1:
            stop = None
        out[axis] = slice(int(start), stop, int(step))
    return tuple(out)


def _slice(x: np.ndarray, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None, **at: Any) -> np.ndarray:
    rows = slices(x.ndim, at.get("starts", starts), at.get("ends", ends), at.get("axes", axes), steps)
    fixed = []
    for row, size in zip(rows, x.shape, strict=True):
        stop = row.stop
        if row.step is not None and row.step < 0 and stop is not None and stop < -size:
            stop = None
        fixed.append(slice(row.start, stop, row.step))
    return x[tuple(fixed)]


def _reshape(x: np.ndarray, shape: Any = None, *, allowzero: int = 0, **at: Any) -> np.ndarray:
    shape = at.get("shape", shape)
    target = [int(s) for s in np.asarray(shape)]
    if not allowzero:
        target = [x.shape[i] if s == 0 else s for i, s in enumerate(target)]
    return x.reshape(target)


def _gather(x: np.ndarray, indices: Any, *, axis: int = 0) -> np.ndarray:
    return np.take(x, np.asarray(indices, np.int64), axis=axis)


def _split(x: np.ndarray, split: Any = None, *, axis: int = 0, outputs: int = 0, **at: Any) -> tuple[np.ndarray, ...]:
    split = at.get("split", split)
    if split is None:
        count = at.get("num_outputs", outputs)
        size = -(-x.shape[axis] // count)
        split = [size] * (count - 1) + [x.shape[axis] - size * (count - 1)]
    return tuple(np.split(x, np.cumsum(np.asarray(split, np.int64))[:-1], axis=axis))


def _transpose(x: np.ndarray, *, perm: Any = None) -> np.ndarray:
    return np.transpose(x, perm)


def _concat(*xs: np.ndarray, axis: int = 0) -> np.ndarray:
    return np.concatenate(xs, axis=axis)


def _div(a: Any, b: Any) -> Any:
    if a.dtype == object or b.dtype == object:
        return a // b
    if a.dtype.kind in "iu":
        quotient = np.abs(a) // np.abs(b)
        return (np.sign(a) * np.sign(b) * quotient).astype(a.dtype)
    return a / b


def _constant_of_shape(shape: Any, *, value: Any = None) -> np.ndarray:
    fill = np.zeros(1, np.float32) if value is None else np.asarray(value)
    return np.full([int(s) for s in shape], fill.reshape(-1)[0], fill.dtype)


def _cast(x: np.ndarray, *, to: int = 1, saturate: int = 1) -> np.ndarray:
    if x.dtype == object:
        return x
    return x.astype(helper.tensor_dtype_to_np_dtype(to))


def _expand(x: np.ndarray, shape: Any) -> np.ndarray:
    return np.array(np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(s) for s in shape))))


def _where(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(c, a, b)


def _equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype != object and b.dtype != object:
        return np.asarray(a == b)
    # a symbolic size is never the -1 or 0 that exporters compare it with
    pairs = np.broadcast(a, b)
    return np.asarray([x is y or (isinstance(x, int) and isinstance(y, int) and x == y) for x, y in pairs]).reshape(pairs.shape)


def _reduce_prod(x: np.ndarray, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0, **at: Any) -> np.ndarray:
    axes = at.get("axes", axes)
    return np.asarray(np.prod(x, axis=None if axes is None else _axes(axes, x.ndim), keepdims=bool(keepdims)))


# Safe on object arrays of Dims as well: they only move, multiply, add or divide entries.
SYMBOLIC: dict[str, Kernel] = {
    "Identity": lambda x: x,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Gather": _gather,
    "Concat": _concat,
    "Cast": _cast,
    "Split": _split,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _div,
    "ReduceProd": _reduce_prod,
    "Equal": _equal,
    "Where": _where,
}

NUMERIC: dict[str, Kernel] = {
    **SYMBOLIC,
    "Shape": lambda x, *, start=0, end=None: np.asarray(x.shape[slice(start, end)], np.int64),
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Neg": lambda x: -x,
    "Not": np.logical_not,
    "Less": lambda a, b: np.asarray(a < b),
    "Greater": lambda a, b: np.asarray(a > b),
    "Range": lambda start, limit, delta: np.arange(start, limit, delta, dtype=start.dtype),
    "Sqrt": np.sqrt,
}


def plumbing(node: Node, values: Sequence[Any], *, symbolic: bool) -> list[Any] | None:
    """Outputs of a plumbing op on known values, or None where this table can't tell."""
    table = SYMBOLIC if symbolic else NUMERIC
    kernel = table.get(node.op) if node.domain == "" else None
    if kernel is None:
        return None
    attributes: dict[str, Any] = dict(node.attributes)
    if node.op == "Split":
        attributes["outputs"] = len(node.outputs)
    values = list(values)
    while values and values[-1] is None:
        values.pop()
    try:
        out = kernel(*values, **attributes)
    except Exception:  # odd but legal spellings are left to the evaluator behind
        return None
    return list(out) if isinstance(out, tuple) else [np.asarray(out)]


def evaluate(node: Node, values: Sequence[np.ndarray | None], opsets: Mapping[str, int]) -> list[np.ndarray]:
    """Outputs of any op on constants (as numpy arrays).

    Raises:
        InvalidModel: neither this table, onnxruntime nor onnx's reference evaluator can run it.
    """
    known = plumbing(node, values, symbolic=False)
    if known is not None and len(known) >= len(node.outputs):
        return known
    model = _single(node, values, opsets)
    feeds = {f"x{i}": v for i, v in enumerate(values) if v is not None}
    reasons = []
    for run in (_onnxruntime, _reference):
        try:
            return [np.asarray(v) for v in run(model, feeds)]
        except Exception as error:
            reasons.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
    raise InvalidModel(f"{node.label}: constants can't be folded: {'; '.join(reasons)}")


def _single(node: Node, values: Sequence[np.ndarray | None], opsets: Mapping[str, int]) -> onnx.ModelProto:
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    del proto.input[:]
    proto.input.extend("" if v is None else f"x{i}" for i, v in enumerate(values))
    inputs = [
        helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for i, v in enumerate(values)
        if v is not None
    ]
    outputs = []
    for name in node.outputs:
        if name:
            outputs.append(onnx.ValueInfoProto(name=name))
    graph = helper.make_graph([proto], "constant", inputs, outputs)
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=min(10, onnx.IR_VERSION))


def _onnxruntime(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def _reference(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[Any]:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, feeds)


def tensor_value(proto: onnx.TensorProto, base_dir: str = "") -> np.ndarray:
    """A TensorProto as numpy."""
    return numpy_helper.to_array(proto, base_dir=base_dir)
