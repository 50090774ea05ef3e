"""TensorProtos as numpy arrays: what a file declares is held against the bytes that are there before anything is allocated.

External data are read from regular files in the model's folder or below it, and from nowhere else.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .errors import InvalidModel
from .limits import Meter
from .printable import short

__all__ = ["Tensors", "dtype_of"]


def dtype_of(code: int, what: str) -> np.dtype[Any]:
    """The numpy dtype of an ONNX element type.

    Raises:
        InvalidModel: there is no such type.
    """
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(code))
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidModel(f"{what}: element type {code} does not exist") from error


class Tensors:
    """Reads the tensors of one model.

    Args:
        path: the model's file, None: it came without one, and external data are refused.
        meter: what has been used up.
    """

    def __init__(self, path: Path | None, meter: Meter) -> None:
        self._path = path
        self._meter = meter

    def dense(self, proto: onnx.TensorProto) -> np.ndarray:
        """A TensorProto as an array."""
        name = proto.name or "unnamed"
        self._count(proto.dims, f"tensor {name!r}")
        if proto.data_location == onnx.TensorProto.EXTERNAL:
            proto = self._filled(proto, name)
        try:
            return numpy_helper.to_array(proto)
        except Exception as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise InvalidModel(f"tensor {name!r}: its data don't fit its shape {tuple(proto.dims)}: {reason}") from error

    def sparse(self, proto: onnx.SparseTensorProto) -> np.ndarray:
        """A SparseTensorProto as a dense array."""
        what = f"sparse tensor {proto.values.name or 'unnamed'!r}"
        size = self._count(proto.dims, what)
        values, indices = self.dense(proto.values), self.dense(proto.indices)
        self._meter.fold(size * values.dtype.itemsize, what)
        dense = np.zeros(tuple(proto.dims), values.dtype)
        try:
            if values.ndim != 1 or indices.dtype != np.int64 or indices.min(initial=0) < 0:
                raise IndexError("values must be a list, places non-negative int64")
            if indices.ndim == 1:
                dense.reshape(-1)[indices] = values
            else:
                dense[tuple(indices.T)] = values
        except (IndexError, ValueError) as error:
            raise InvalidModel(f"{what}: its places don't fit its shape {tuple(proto.dims)}: {error}") from error
        return dense

    def _count(self, dims: Sequence[int], what: str) -> int:
        """Entries of a shape."""
        if any(d < 0 for d in dims):
            raise InvalidModel(f"{what}: shape {tuple(dims)} has a negative size")
        if len(dims) > 32:
            raise InvalidModel(f"{what}: {len(dims)} axes; arrays have at most 32")
        size = math.prod(dims)
        self._meter.limits.check("tensor_elements", size, f"{what} of shape {tuple(dims)}")
        return size

    def _filled(self, proto: onnx.TensorProto, name: str) -> onnx.TensorProto:
        """The tensor with its external data inside."""
        entries = {e.key: e.value for e in proto.external_data}
        location = entries.get("location", "")
        if not isinstance(location, str):  # protobuf hands over what is no UTF-8 text as bytes
            raise InvalidModel(f"tensor {name!r}: the name {short(repr(location))} of its external file is no UTF-8 text")
        if self._path is None:
            raise InvalidModel(f"tensor {name!r} lies in the external file {location!r}: load the model by its path")
        file = self._place(location, name)
        dtype = dtype_of(proto.data_type, f"tensor {name!r}")
        needs = math.prod(proto.dims) * dtype.itemsize
        try:
            handle = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            raise InvalidModel(f"tensor {name!r}: external data {location!r} can't be read: {error.strerror or error}") from error
        with os.fdopen(handle, "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InvalidModel(f"tensor {name!r}: external data {location!r} is no regular file")
            try:
                offset = int(entries.get("offset") or 0)
                length = int(entries.get("length") or status.st_size - offset)
            except ValueError as error:
                raise InvalidModel(f"tensor {name!r}: offset or length of its external data is no number") from error
            if offset < 0 or length < 0 or offset + length > status.st_size:
                raise InvalidModel(
                    f"tensor {name!r}: needs bytes {offset} to {offset + length} of {location!r}, "
                    f"which has {status.st_size}: truncated"
                )
            if needs > 8 * max(length, 1):  # types of less than a byte are packed
                raise InvalidModel(f"tensor {name!r}: {location!r} holds {length} bytes, shape {tuple(proto.dims)} needs {needs}")
            self._meter.outside(length, f"external data of tensor {name!r}")
            stream.seek(offset)
            data = stream.read(length)
        filled = onnx.TensorProto(name=proto.name, data_type=proto.data_type, dims=proto.dims)
        filled.raw_data = data
        return filled

    def _place(self, location: str, name: str) -> Path:
        """Where external data lie: below the model's folder."""
        assert self._path is not None
        folder = self._path.resolve().parent
        try:
            place = (folder / location).resolve()
            inside = place.is_relative_to(folder)
        except (OSError, ValueError, RuntimeError):
            inside = False
        parts = Path(location).parts
        if not location or Path(location).is_absolute() or ".." in parts or not inside:
            raise InvalidModel(f"tensor {name!r}: external data {location!r} lies outside the model's folder")
        if not place.is_file():
            kind = "is no regular file" if place.exists() else "is missing"
            raise InvalidModel(f"tensor {name!r}: external data file {location!r} {kind} beside {self._path.name}")
        return place
