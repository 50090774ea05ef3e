"""What the recurrent ops share: directions, lengths, activations and the loop over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._lazy import tf

__all__ = ["activations", "directions", "flip", "scan"]

Tensor = Any

# how many of alpha, beta an activation consumes, and onnxruntime's defaults
CONSUMES = {
    "Affine": ("alpha", "beta"),
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "ScaledTanh": ("alpha", "beta"),
    "ThresholdedRelu": ("alpha",),
}
NAMES = ("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus", *CONSUMES)


def directions(direction: str, node: Any) -> tuple[bool, ...]:
    """One flag a direction: whether it runs backwards."""
    table = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    if direction not in table:
        raise node.refuse(f"direction {direction!r} does not exist")
    return table[direction]


def activations(
    names: Sequence[str] | None,
    alphas: Sequence[float] | None,
    betas: Sequence[float] | None,
    defaults: Sequence[str],
    count: int,
    node: Any,
) -> tuple[tuple[tuple[str, dict[str, float]], ...], ...]:
    """Per direction the (name, parameters) of each activation; alpha and beta are consumed in order by those that take them."""
    listed = list(names) if names else list(defaults) * count
    if len(listed) != len(defaults) * count:
        raise node.refuse(f"{len(listed)} activations for {count} direction(s), expected {len(defaults) * count}")
    known = {n.lower(): n for n in NAMES}
    pools = {"alpha": list(alphas or ()), "beta": list(betas or ())}
    out = []
    for given in listed:
        name = known.get(given.lower())
        if name is None:
            raise node.refuse(f"activation {given!r} is not in the standard")
        settings = {key: float(pools[key].pop(0)) for key in CONSUMES.get(name, ()) if pools[key]}
        out.append((name, settings))
    size = len(defaults)
    return tuple(tuple(out[d * size : (d + 1) * size]) for d in range(count))


def flip(x: Tensor, lens: Tensor | None) -> Tensor:
    """x (T, B, …) reversed in time; with lengths, each sample within its own."""
    if lens is None:
        return tf.reverse(x, [0])
    return tf.reverse_sequence(x, lens, seq_axis=0, batch_axis=1)


def scan(
    step: Callable[[Sequence[Tensor], Sequence[Tensor]], tuple[Sequence[Tensor], Sequence[Tensor]]],
    xs: Sequence[Tensor],
    carry: Sequence[Tensor],
    *,
    widths: Sequence[int],
    backwards: bool = False,
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Run ``step(rows, carry) → (carry, written)`` over axis 0 of all ``xs``, from the end if ``backwards``.

    ``widths``: last axis of what is written a step, each (B, width). Returns the final carry and the written tensors
    (T, B, width), in the order of the time axis.
    """
    steps = xs[0].shape[0] if xs[0].shape[0] is not None else tf.shape(xs[0])[0]
    dtype, batch = carry[0].dtype, carry[0].shape[0]
    arrays = [tf.TensorArray(x.dtype, size=steps, element_shape=x.shape[1:], clear_after_read=False).unstack(x) for x in xs]
    writes = tuple(tf.TensorArray(dtype, size=steps, element_shape=[batch, w]) for w in widths)

    def body(k: Tensor, state: Any, outs: Any) -> Any:
        t = steps - 1 - k if backwards else k
        state, written = step([a.read(t) for a in arrays], state)
        return k + 1, tuple(state), tuple(o.write(t, w) for o, w in zip(outs, written, strict=True))

    _, state, outs = tf.while_loop(
        lambda k, state, outs: k < steps,
        body,
        (tf.constant(0), tuple(carry), writes),
        maximum_iterations=steps,
        parallel_iterations=4,
    )
    return state, [o.stack() for o in outs]


def pick(array: np.ndarray, order: Sequence[int], size: int) -> np.ndarray:
    """Reorder the gate blocks of width ``size`` on the last axis."""
    return np.concatenate([array[..., k * size : (k + 1) * size] for k in order], axis=-1)
