"""numpy evaluation of plumbing ops, for constants and for shape arithmetic alike.

The same kernels run on weights (ndarrays) and on the values of shape tensors (object arrays of :class:`~onnx_lrp.dims.Dim`).
Whatever is not in the table is evaluated by onnxruntime, or by onnx's reference evaluator where that is not installed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from .dims import DIFFERENCE, Dim
from .errors import InvalidModel
from .growth import inferred, itemsize, largest, work
from .limits import Limits, Meter, terminated

if TYPE_CHECKING:
    from .graph import Node

__all__ = ["SYMBOLIC", "evaluate", "plumbing", "sized"]

RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}

Kernel = Callable[..., Any]

SHRINKING = {
    "Compress",
    "NonZero",
    "Unique",
}  # what they make depends on values, and is no larger than what they get (but for the axes)
MOST = 2**16  # entries of a result that shape arithmetic may make where nobody says how many
VIEWS = {"Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
SPEED = 1e9  # multiplications a second that any machine does


def _axes(axes: Any, rank: int) -> tuple[int, ...]:
    listed = [int(a) for a in np.atleast_1d(np.asarray(axes))]
    if any(not -rank <= a < rank for a in listed if rank):
        raise ValueError(f"axes {listed} of a tensor of {rank} axes")
    return tuple(a % rank if rank else 0 for a in listed)


def _squeeze(x: np.ndarray, axes: Any = None, **attributes: Any) -> np.ndarray:
    axes = attributes.get("axes", axes)
    return np.squeeze(x, None if axes is None or not np.size(axes) else _axes(axes, x.ndim))  # none: all, as onnxruntime has it


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
        start, stop = row.start, row.stop
        if row.step is not None and row.step < 0:
            start = max(start, -size)  # a start before the first entry is that entry, where Python has it before
            stop = None if stop is not None and stop < -size else stop
        fixed.append(slice(start, stop, row.step))
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
        if "num_outputs" not in at and len(set(split)) > 1:
            raise ValueError("no equal parts")
    sizes = [int(n) for n in split]
    if min(sizes, default=0) < 0 or sum(sizes) != x.shape[axis]:  # numpy would take any
        raise ValueError("the parts are not the whole")
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis=axis))


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
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(to))
    if x.dtype == object and dtype.kind in "iuf" and not any(isinstance(e, str | bytes) for e in x.reshape(-1)):
        return x
    if object in (x.dtype, dtype):
        raise TypeError("strings and numbers are spelled as onnxruntime does")
    if dtype.name.startswith("float8") and saturate:
        import ml_dtypes

        most = float(ml_dtypes.finfo(dtype).max)
        x = np.clip(x.astype(np.float32), -most, most)
    return x.astype(dtype)


def _tile(x: np.ndarray, repeats: Any) -> np.ndarray:
    """As ``np.tile``, which holds the result twice while it makes it."""
    counts = [int(n) for n in repeats]
    pairs = list(zip(counts, x.shape, strict=True))
    wide = np.broadcast_to(x.reshape([m for n in x.shape for m in (1, n)]), [m for pair in pairs for m in pair])
    return wide.reshape([count * n for count, n in pairs])


def _expand(x: np.ndarray, shape: Any) -> np.ndarray:
    return np.array(np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(s) for s in shape))))


def _where(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(c, a, b)


class _Unknown(Exception):
    """The answer depends on sizes that are known at run time only."""


def _pairwise(function: Callable[[Any, Any], Any]) -> Kernel:
    """A kernel on two arrays, at least one of them of objects, from a function of two entries."""

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        results = [function(x, y) for x, y in np.broadcast(a, b)]
        out = np.empty(np.broadcast(a, b).shape, bool if all(isinstance(r, bool) for r in results) else object)
        out.reshape(-1)[:] = results
        return out

    return kernel


def _ordered(x: Any, y: Any) -> int:
    """-1, 0 or 1 as x is less than, equal to or greater than y; sizes are at least 1."""
    sign = 1
    if not isinstance(x, Dim):
        x, y, sign = y, x, -1
    if isinstance(x, Dim) and isinstance(y, Dim) and x.same(y):
        return 0
    if isinstance(y, str):
        raise _Unknown
    a, b = (v.size if isinstance(v, Dim) else int(v) for v in (x, y))
    if a is not None and b is not None:
        return sign * ((a > b) - (a < b))
    if isinstance(x, Dim) and b is not None and not any(r.name == DIFFERENCE for r in x.roots):
        if b < 1:  # a symbolic size is never the -1 or 0 that exporters compare it with
            return sign
        if b >= 2**31 - 1:  # nor their "as far as it goes"
            return -sign
    raise _Unknown


def _larger(x: Any, y: Any) -> Any:
    if 1 in (v for v in (x, y) if not isinstance(v, Dim)):  # a size is at least 1
        return x if isinstance(x, Dim) else y
    return x if _ordered(x, y) >= 0 else y


def _smaller(x: Any, y: Any) -> Any:
    return x if _ordered(x, y) <= 0 else y


def _compared(symbolic: Callable[[int], bool], numeric: Kernel) -> Kernel:
    pairwise = _pairwise(lambda x, y: symbolic(_ordered(x, y)))
    return lambda a, b: pairwise(a, b) if object in (a.dtype, b.dtype) else np.asarray(numeric(a, b))


def _folded(pair: Callable[[Any, Any], Any], numeric: Callable[[Any, Any], Any]) -> Kernel:
    pairwise = _pairwise(pair)

    def kernel(*xs: np.ndarray) -> np.ndarray:
        return functools.reduce(lambda a, b: pairwise(a, b) if object in (a.dtype, b.dtype) else np.asarray(numeric(a, b)), xs)

    return kernel


def _mod(a: np.ndarray, b: np.ndarray, *, fmod: int = 0) -> np.ndarray:
    return np.asarray(np.fmod(a, b) if fmod else np.mod(a, b))


def _range(start: np.ndarray, limit: np.ndarray, delta: np.ndarray, *, stash_type: int = 1) -> np.ndarray:
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _reduce_prod(x: np.ndarray, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0, **at: Any) -> np.ndarray:
    axes = at.get("axes", axes)
    if axes is None or not np.size(axes):
        if noop_with_empty_axes:
            return x
        axes = range(x.ndim)
    return np.asarray(np.prod(x, axis=_axes(axes, x.ndim), keepdims=bool(keepdims), dtype=x.dtype))


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
    "Equal": _compared(lambda sign: sign == 0, np.equal),
    "Greater": _compared(lambda sign: sign > 0, np.greater),
    "GreaterOrEqual": _compared(lambda sign: sign >= 0, np.greater_equal),
    "Less": _compared(lambda sign: sign < 0, np.less),
    "LessOrEqual": _compared(lambda sign: sign <= 0, np.less_equal),
    "Max": _folded(_larger, np.maximum),
    "Min": _folded(_smaller, np.minimum),
    "Where": _where,
    "Expand": _expand,
    "Tile": _tile,
}

NUMERIC: dict[str, Kernel] = {
    **SYMBOLIC,
    "Shape": lambda x, *, start=0, end=None: np.asarray(x.shape[slice(start, end)], np.int64),
    "ConstantOfShape": _constant_of_shape,
    "Neg": lambda x: -x,
    "Not": np.logical_not,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Mod": _mod,
    "Range": _range,
    "Sqrt": np.sqrt,
}


def sized(value: np.ndarray | None) -> np.ndarray | None:
    """Symbolic entries as numbers, None if a size is unknown."""
    if value is None or value.dtype != object:
        return value
    entries = [e.size if isinstance(e, Dim) else e for e in value.reshape(-1)]
    return None if None in entries else np.asarray(entries, np.int64).reshape(value.shape)


def plumbing(node: Node, values: Sequence[Any], *, symbolic: bool, most: int = MOST) -> list[Any] | None:
    """Outputs of a plumbing op on known values, or None where this table can't tell or they have more than ``most`` entries."""
    table = SYMBOLIC if symbolic else NUMERIC
    kernel = table.get(node.op) if node.domain == "" else None
    attributes: dict[str, Any] = dict(node.attributes)
    if node.op == "Split":
        attributes["outputs"] = len(node.outputs)
    values = list(values)
    while values and values[-1] is None:
        values.pop()
    out = None
    if kernel is not None and largest(node.op, values, attributes) <= most:
        with contextlib.suppress(Exception):  # odd but legal spellings are left to the evaluator behind
            out = kernel(*values, **attributes)
    if out is None and symbolic and node.op in NUMERIC:
        numbers = [sized(v) for v in values]
        if not any(v is None and given is not None for v, given in zip(numbers, values, strict=True)):
            return plumbing(node, numbers, symbolic=False, most=most)
    if out is None:
        return None
    return list(out) if isinstance(out, tuple) else [np.asarray(out)]


def evaluate(
    node: Node, values: Sequence[np.ndarray | None], opsets: Mapping[str, int], meter: Meter | None = None
) -> list[np.ndarray]:
    """Outputs of any op on constants (as numpy arrays).

    Raises:
        InvalidModel: neither this table, onnxruntime nor onnx's reference evaluator can run it.
        ModelError: a result is too large, or folding takes too long.
    """
    meter = meter or Meter(Limits())
    with meter.folding(f"folding {node.label}") as seconds:
        results = _evaluated(node, values, opsets, meter, seconds)
    size = sum(r.nbytes for r in results if not isinstance(r.base, np.ndarray))
    meter.fold(size, f"folding {node.label}")
    meter.folded += size
    return results


def _evaluated(
    node: Node, values: Sequence[np.ndarray | None], opsets: Mapping[str, int], meter: Meter, seconds: float
) -> list[np.ndarray]:
    what = f"the result of {node.label} on constants"
    limits = meter.limits
    if node.op in NUMERIC and not node.domain:
        try:
            size = largest(node.op, values, node.attributes)
        except InvalidModel as error:
            raise InvalidModel(f"{node.label}: {error}") from None
        limits.check("tensor_elements", size, what)
        if node.op not in VIEWS:
            meter.fold(size * itemsize(node.op, values, node.attributes), what)
    known = plumbing(node, values, symbolic=False, most=limits.tensor_elements)
    if known is not None and len(known) >= len(node.outputs):
        return known
    model = _single(node, values, opsets)
    feeds = {f"x{i}": v for i, v in enumerate(values) if v is not None}
    size, width = inferred(model, feeds)
    limits.check("tensor_elements", size, what)
    meter.fold(size * width, what)
    between, amount = (0, 0.0) if node.domain else work(node.op, values, node.attributes, size)
    limits.check("tensor_elements", between, f"a tensor inside {node.label} on constants")
    meter.fold(between * 4, f"a tensor inside {node.label} on constants")
    limits.check("folding_seconds", amount / SPEED, f"folding {node.label}")
    reasons = []
    # the reference evaluator has loops in Python and believes any size: it gets little, and what inference knows
    told = size > 0 or node.op in SHRINKING
    little = told and max([size, *(v.size for v in feeds.values())]) <= MOST
    for run in (_onnxruntime, _reference) if little else (_onnxruntime,):
        try:
            return [np.asarray(v) for v in run(model, feeds, seconds)]
        except Exception as error:
            reasons.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
        limits.check("folding_seconds", meter.spent(), f"folding {node.label}")
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


def _onnxruntime(model: onnx.ModelProto, feeds: dict[str, np.ndarray], seconds: float) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # no pool of threads for each constant
    options.enable_cpu_mem_arena = False  # nor one of memory, which would live as long as the result
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # of one node
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    run = onnxruntime.RunOptions()
    with terminated(run, seconds):
        return session.run(None, feeds, run)


def _reference(model: onnx.ModelProto, feeds: dict[str, np.ndarray], seconds: float) -> list[Any]:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, feeds)
