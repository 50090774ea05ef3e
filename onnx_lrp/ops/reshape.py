"""Ops that keep all entries and their order: Reshape, Flatten, Squeeze, Unsqueeze, Identity, Dropout, Cast."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper

from .._lazy import tf
from ..dims import Dim, reshape
from ..layer import Plain, Routing, Trace, constant_dims, known
from ..registry import Var, importer, is_float
from .gather import code_after

__all__ = ["Cast", "Reshape", "Same"]

Tensor = Any
MOST_AXES = 64  # numpy's; a shape of more is none


@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(Routing):
    """``target``: the new shape; None: it is the second input. 0 copies an axis unless ``allowzero``."""

    target: tuple[int, ...] | None = None
    allowzero: bool = False

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = xs[0]
        wanted: Any = self.target
        if wanted is None:
            value = xs[1].value
            length = xs[1].shape[0] if xs[1].shape else None
            wanted = list(value) if value is not None else None
            if wanted is None and length is not None and length <= MOST_AXES and x.dims is not None:
                return [Var("", x.dtype, tuple(_unknown() for _ in range(length)), interval=x.interval, mask=x.mask)]
        if wanted is None or x.dims is None:
            return [Var("", x.dtype, None, interval=x.interval, mask=x.mask)]
        full: list[Dim | int] = []
        for i, w in enumerate(wanted):
            w = w if isinstance(w, Dim) else int(w)
            full.append(x.dims[i] if w == 0 and not self.allowzero and isinstance(w, int) else w)
        dims = reshape(x.dims, full)
        return [Var("", x.dtype, dims, interval=x.interval, mask=x.mask, origin=code_after(x, dims))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x = xs[0]
        target: Any = self.target
        if target is None:
            target = tf.cast(xs[1], tf.int32)
            if not self.allowzero:
                static = tf.get_static_value(target)
                if static is not None:
                    target = tuple(int(v) for v in static)
                else:
                    shape = tf.shape(x)
                    n = target.shape[0] or 0
                    shape = tf.pad(shape, [[0, max(0, n - x.shape.rank)]])[:n]
                    target = tf.where(target == 0, shape, target)
        if isinstance(target, tuple):
            if not self.allowzero:
                target = [_size(x, i) if t == 0 else t for i, t in enumerate(target)]
            if any(tf.is_tensor(t) for t in target):
                target = tf.stack(target)
        return Trace(xs, [tf.reshape(x, target)], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [reshape_like(rs[0], trace.inputs[0]), *[None] * (len(trace.inputs) - 1)]


def _unknown() -> Dim:
    from ..dims import fresh

    return fresh(None)


def _size(x: Tensor, axis: int) -> Any:
    return x.shape[axis] if x.shape[axis] is not None else tf.shape(x)[axis]


def reshape_like(r: Tensor, x: Tensor) -> Tensor:
    """r in the shape of x."""
    return tf.reshape(r, x.shape if x.shape.is_fully_defined() else tf.shape(x))


@importer("Reshape", since=1)
def reshape_attribute(data: Any, *, shape: Sequence[int]) -> Any:
    return Reshape(target=tuple(shape)), (data,)


@importer("Reshape", since=5)
def reshape_(data: Any, shape: Any, *, allowzero: int = 0) -> Any:
    if isinstance(data, Var) and isinstance(shape, Var):
        if _is_fixed(shape):
            shape = shape.value
        else:
            return Reshape(allowzero=bool(allowzero)), (data, shape)
    if isinstance(shape, Var):
        return ConstantReshape(parameters={"data": data}), (shape,)
    return Reshape(target=tuple(int(s) for s in shape), allowzero=bool(allowzero)), (data,)


def _is_fixed(shape: Var) -> bool:
    """Whether a computed shape holds plain numbers only (a symbolic size keeps its label, which says what axis it is)."""
    return shape.value is not None and not any(isinstance(e, Dim) for e in shape.value.reshape(-1))


@dataclass(frozen=True, eq=False, kw_only=True)
class ConstantReshape(Plain):
    """A constant brought to a computed shape."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        value = xs[0].value
        data = self.parameters["data"]
        return [Var("", data.dtype, None if value is None else tuple(_dim(v) for v in value))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.reshape(p["data"], tf.cast(xs[0], tf.int32))], p)


def _dim(value: Any) -> Dim:
    from ..dims import fresh

    return value if isinstance(value, Dim) else fresh(int(value) if int(value) >= 0 else None)


@dataclass(frozen=True, eq=False, kw_only=True)
class Rearranged(Routing):
    """Row-major reshapes whose target follows from the operand's rank alone."""

    kind: str
    axes: tuple[int, ...] | None = None

    @property
    def title(self) -> str:
        return self.kind

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        dims = None if x.dims is None else self._dims(x.dims)
        return [dataclasses.replace(x, dims=dims, value=None, origin=code_after(x, dims))]

    def _dims(self, dims: Sequence[Dim]) -> tuple[Dim, ...]:
        rank = len(dims)
        if self.kind == "Flatten":
            axis = _from_end((self.axes or (1,))[0], rank)
            left = tuple(label for d in dims[:axis] for label in d.labels)
            right = tuple(label for d in dims[axis:] for label in d.labels)
            return Dim(left), Dim(right)
        if self.kind == "Squeeze":
            gone = {a % rank for a in self.axes} if self.axes else {i for i, d in enumerate(dims) if d.size == 1}
            return tuple(d for i, d in enumerate(dims) if i not in gone)
        out = list(dims)
        for axis in sorted(a % (rank + len(self.axes or ())) for a in self.axes or ()):
            out.insert(axis, Dim())
        return tuple(out)

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        rank = x.shape.rank
        if self.kind == "Squeeze":
            y = tf.squeeze(x, [a % rank for a in self.axes] if self.axes else None)
        elif self.kind == "Unsqueeze":
            y = x
            for axis in sorted(a % (rank + len(self.axes or ())) for a in self.axes or ()):
                y = tf.expand_dims(y, axis)
        else:
            axis = _from_end((self.axes or (1,))[0], rank)
            shape = tf.shape(x)
            rows = tf.reduce_prod(shape[:axis])
            known = x.shape[axis:]
            columns = int(np.prod(known)) if known.is_fully_defined() else tf.reduce_prod(shape[axis:])
            y = tf.reshape(x, [rows, columns])
        return Trace(xs, [y], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [reshape_like(rs[0], trace.inputs[0])]


def _from_end(axis: int, rank: int) -> int:
    return axis + rank if axis < 0 else axis


def _axes(axes: Any, node: Any) -> tuple[int, ...] | None:
    listed = known(axes)
    if axes is not None and listed is None:
        raise node.refuse("axes must be constant")
    return None if listed is None else tuple(int(a) for a in np.atleast_1d(listed))


@importer("Flatten")
def flatten(input: Any, *, axis: int = 1) -> Any:
    return Rearranged(kind="Flatten", axes=(axis,)), (input,)


def _squeezed(data: Any, axes: tuple[int, ...] | None) -> Any:
    if axes is None and isinstance(data, Var) and data.dims is not None:
        # the axes that the file says have one entry; those that a call gives one, as a single sample does, have to stay
        axes = tuple(axis for axis, dim in enumerate(data.dims) if dim.size == 1)
        if not axes:
            return Same(), (data,)
    return Rearranged(kind="Squeeze", axes=axes), (data,)


@importer("Squeeze")
def squeeze_attribute(data: Any, *, axes: Any = None, node: Any) -> Any:
    return _squeezed(data, _axes(axes, node))


@importer("Squeeze", since=13)
def squeeze(data: Any, axes: Any = None, *, node: Any) -> Any:
    return _squeezed(data, _axes(axes, node))


@importer("Unsqueeze")
def unsqueeze_attribute(data: Any, *, axes: Any, node: Any) -> Any:
    return Rearranged(kind="Unsqueeze", axes=_axes(axes, node)), (data,)


@importer("Unsqueeze", since=13)
def unsqueeze(data: Any, axes: Any, *, node: Any) -> Any:
    return Rearranged(kind="Unsqueeze", axes=_axes(axes, node)), (data,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Same(Routing):
    """Identity, and Dropout in inference. A second output (Dropout's mask) is all true."""

    outputs: int = 1

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        mask = Var("", np.dtype(bool), xs[0].dims)
        return [dataclasses.replace(xs[0]), mask][: self.outputs]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [xs[0], tf.ones_like(xs[0], tf.bool)][: self.outputs], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [rs[0]]


@importer("Identity")
def identity(input: Any) -> Any:
    return Same(), (input,)


@importer("Dropout")
def dropout_attribute(data: Any, *, ratio: float = 0.5, is_test: int = 0, consumed_inputs: Any = None, node: Any) -> Any:
    return Same(outputs=len(node.outputs)), (data,)


@importer("Dropout", since=12)
def dropout(data: Any, ratio: Any = None, training_mode: Any = None, *, seed: int = 0, node: Any) -> Any:
    training = isinstance(training_mode, Var) or (training_mode is not None and bool(np.any(training_mode)))
    if training and not (isinstance(ratio, np.ndarray) and not np.any(ratio)):
        raise node.refuse("training_mode is set: export the model in inference mode")
    return Same(outputs=len(node.outputs)), (data,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Cast(Routing):
    """Between float types (routing: the engine has one precision), or to and from integers and bools (carries no relevance)."""

    to: np.dtype[Any]

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if xs[0].is_float and is_float(self.to) else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        boolean = x.dtype == np.dtype(bool) and not x.valued  # one-hot rows as bools stand for integer values
        mask = x.mask or boolean
        interval = (0.0, 1.0) if boolean or self.to == np.dtype(bool) else x.interval
        value = None if self.to == np.dtype(bool) else x.value  # a size is one number, that there is one another
        return [dataclasses.replace(x, dtype=self.to, mask=mask, interval=interval, value=value)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        if is_float(self.to):
            y = x if x.dtype.is_floating else tf.cast(x, p["precision"].dtype)
        else:
            y = tf.cast(x, tf.as_dtype(self.to))
        return Trace(xs, [y], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [rs[0]]


PRECISION = {"precision": np.zeros((), np.float32)}  # a float parameter takes the precision of the run


@importer("Cast")
def cast(input: Any, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    return Cast(to=helper.tensor_dtype_to_np_dtype(to), parameters=PRECISION), (input,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Held(Plain):
    """parameters: value, a constant whose type follows from a computed tensor."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        value = self.parameters["value"]
        entries = value if value.dtype.kind in "iu" and value.size <= 64 else None
        ends = (float(value.min()), float(value.max())) if value.size else (0.0, 0.0)
        return [Var("", value.dtype, constant_dims(value), value=entries, interval=ends)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [p["value"]], p)


@importer("CastLike", since=15)
def cast_like(input: Any, target_type: Any, *, saturate: int = 1, round_mode: str = "up") -> Any:
    if not isinstance(input, Var):
        return Held(parameters={"value": input.astype(target_type.dtype)}), ()
    return Cast(to=target_type.dtype, parameters=PRECISION), (input,)
