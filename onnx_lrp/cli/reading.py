"""``onnx-lrp inspect`` and ``onnx-lrp weights``: what was read of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UnsupportedModel
from .app import AsJson, CustomOps, LimitOptions, ModelArgument, Order, limits
from .parsing import suffix
from .printing import print_json

if TYPE_CHECKING:
    import numpy as np

__all__ = ["inspect", "weights"]


def inspect(model: ModelArgument, limit: LimitOptions = None, custom_ops: CustomOps = None, as_json: AsJson = False) -> None:
    """Show what was read of a model, and whether it can be explained."""
    from .. import load
    from ..report.described import describe, describe_cuts

    allowed = limits(limit)
    try:
        summary = load(model, limits=allowed, custom_ops=custom_ops or ()).summary()
    except UnsupportedModel as error:
        if as_json:
            print_json({"explainable": False, "nodes": list(error.nodes), "cuts": list(error.cuts)})
        elif error.cuts:
            describe_cuts(error)
        raise
    if as_json:
        print_json({"explainable": True, **summary.to_dict()})
        return
    describe(summary)


def weights(
    model: ModelArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT.npz", help="Arrays are stored as layer/parameter.")],
    order: Annotated[Order, typer.Option(help="Order of LSTM gates; c is the candidate, which torch calls g.")] = Order.ifco,
    limit: LimitOptions = None,
) -> None:
    """Write the canonical weights."""
    from ..report.files import Outputs

    suffix("OUT", out, ".npz")
    allowed = limits(limit)
    with Outputs([out]) as files:
        import numpy as np

        from .. import load

        arrays = {
            f"{layer}/{name}": array
            for layer, parameters in load(model, limits=allowed).weights().items()
            for name, array in _ordered(parameters, order).items()
        }

        def write(part: Path) -> None:
            with part.open("wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]

        files.stage(out, write)
        files.commit()
    from ..report.wording import visible

    for name, array in arrays.items():
        print(visible(name), "x".join(map(str, array.shape)) or "scalar")


def _ordered(parameters: dict[str, np.ndarray], order: Order) -> dict[str, np.ndarray]:
    """LSTM weights (…, 4H) from i, f, c, o to ONNX's i, o, f, c; peepholes (D, 3H) from i, f, o to i, o, f."""
    import numpy as np

    recurrent = parameters.get("W_h")
    if order != Order.iofc or recurrent is None or recurrent.shape[-1] != 4 * recurrent.shape[-2]:
        return parameters
    out = dict(parameters)
    for name, gates in {"W_x": (0, 3, 1, 2), "W_h": (0, 3, 1, 2), "b": (0, 3, 1, 2), "P": (0, 2, 1)}.items():
        if name in parameters:
            parts = np.split(parameters[name], len(gates), -1)
            out[name] = np.concatenate([parts[g] for g in gates], -1)
    return out
