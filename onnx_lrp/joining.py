"""Results of parts of a batch as results of the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .asked import Asked
from .dims import apart, merged
from .hidden import Kept
from .plan import Plan
from .seeds import scores_of

__all__ = ["joined"]


def joined(plan: Plan, parts: Sequence[Mapping[str, Any]], asked: Asked) -> dict[str, Any]:
    """What a program returned of some samples each, along the axis of samples.

    Args:
        plan: of the program.
        parts: results in the samples' order, or {name: array} of outputs alone.
        asked: what the program was asked for.
    """
    lead = int(asked.several)

    def along(axis: int | None, arrays: Sequence[Any], lead: int) -> Any:
        return np.concatenate(arrays, axis + lead) if axis is not None else np.stack(arrays, lead)

    def join(name: str, arrays: Sequence[Any], lead: int = 0) -> Any:
        if name in plan.vars:
            return along(plan.batch_axis(name), arrays, lead)
        return np.concatenate([np.asarray(a) for a in arrays], 0)

    def beside(kept: Kept) -> np.ndarray:
        """What is kept may share its axis of samples with others, as the results themselves may not."""
        arrays, place = [p["hidden"][kept.key] for p in parts], kept.place(plan)
        if place is None:
            return np.stack(arrays, lead)
        place = (place[0] + lead, *place[1:])
        rows = [apart(a, place, p["seed"].shape[-1]) for a, p in zip(arrays, parts, strict=True)]
        return merged(np.concatenate(rows, place[0] + 1), place)

    first = parts[0]
    if "outputs" not in first:
        return {n: join(n, [p[n] for p in parts]) for n in first}
    found: dict[str, Any] = {"outputs": {n: join(n, [p["outputs"][n] for p in parts]) for n in first["outputs"]}}
    if "scores" in first:
        found["scores"] = join(plan.explained, [p["scores"] for p in parts])
    if "relevance" not in first:
        return found
    like = scores_of(plan)
    found |= {
        "relevance": {n: join(n, [p["relevance"][n] for p in parts], lead) for n in first["relevance"]},
        "hidden": {k.key: beside(k) for k in asked.keep},
        "absorbed": {n: np.concatenate([p["absorbed"][n] for p in parts], lead) for n in first["absorbed"]},
        **{n: np.concatenate([p[n] for p in parts], lead) for n in ("seed", "residual") if n in first},
        "index": np.concatenate([np.atleast_1d(p["index"]) for p in parts], lead + like.sample_axis(single=asked.single)),
    }
    if "shape" in first:
        found["shape"] = np.array(first["shape"])
        if like.batch_axis is not None:
            found["shape"][like.batch_axis] = sum(int(p["shape"][like.batch_axis]) for p in parts)
    return found
