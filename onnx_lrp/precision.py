"""What the engine computes in: the type of everything it holds, and what its large products may round their factors to."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._lazy import tf

__all__ = ["PRECISIONS", "Precision", "product", "tensor_float_32"]

Tensor = Any


@dataclass(frozen=True)
class Precision:
    """One of the words that ``precision=`` knows.

    Attributes:
        dtype: of every tensor that is held, of relevance and of what is absorbed.
        weights: type in which the matrices of dense and recurrent layers are held and multiplied, None: ``dtype``.
        tensor_float: a GPU may round the factors of float32 products to 10 bits of fraction (TF32).
        rounds: what a forward pass may differ from onnxruntime's by for that, relative to an output's largest value.
    """

    dtype: np.dtype[Any]
    weights: str | None = None
    tensor_float: bool = False
    rounds: float = 0.0


PRECISIONS: Mapping[str, Precision] = {
    "float32": Precision(np.dtype("float32")),
    "float64": Precision(np.dtype("float64")),
    "tf32": Precision(np.dtype("float32"), tensor_float=True, rounds=5e-3),
    "bfloat16": Precision(np.dtype("float32"), weights="bfloat16", tensor_float=True, rounds=5e-2),
}


def product(a: Tensor, w: Tensor, *, transpose: bool = False) -> Tensor:
    """a (N, K) times w (K, C), or with ``transpose`` times wᵀ; of a's type, computed in w's."""
    if a.dtype == w.dtype:
        return tf.matmul(a, w, transpose_b=transpose)
    return tf.cast(tf.matmul(tf.cast(a, w.dtype), w, transpose_b=transpose), a.dtype)


class _Switch:
    """TensorFlow's one switch for TF32, on unless told otherwise: calls that want it the same way run side by side, others wait."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._running = 0
        self._on = self._before = True

    @contextlib.contextmanager
    def set_to(self, on: bool) -> Iterator[None]:
        config = tf.config.experimental
        with self._free:
            self._free.wait_for(lambda: not self._running or self._on == on)
            if not self._running:
                self._before, self._on = config.tensor_float_32_execution_enabled(), on
                config.enable_tensor_float_32_execution(on)
            self._running += 1
        try:
            yield
        finally:
            with self._free:
                self._running -= 1
                if not self._running:
                    config.enable_tensor_float_32_execution(self._before)
                    self._free.notify_all()


_SWITCH = _Switch()


def tensor_float_32(on: bool) -> Any:
    """A context in which GPUs round the factors of float32 products, or don't; without a GPU nothing is to be switched."""
    return _SWITCH.set_to(on) if tf.config.list_logical_devices("GPU") else contextlib.nullcontext()
