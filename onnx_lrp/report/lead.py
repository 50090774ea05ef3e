"""What stands out, in a sentence: which words, features or sensors, and when; for who does not read heat maps."""

from __future__ import annotations

import numpy as np

from .room import finite
from .sample import Point, Sample
from .wording import behind, number, short

__all__ = ["lead"]

NAMES, LEAST, LONG = 3, 0.1, 40  # at most so many names a side; share of the largest below which one is none; characters of a name


def lead(sample: Sample) -> str:
    """Such as "Raises the score most: vibration [mm/s] +4.210 (most at 12:19)."; "" where nothing does."""
    if sample.method == "sensitivity" or not sample.points:
        return ""
    point = max(sample.points, key=lambda p: float(np.abs(finite(p.relevance)).sum()))
    names, sums = _entries(point)
    largest = float(np.abs(sums).max(initial=0))
    parts: list[str] = []
    for verb, sign in (("Raises", 1), ("Lowers", -1)):
        order = [int(k) for k in np.argsort(-sign * sums, kind="stable")[:NAMES] if sign * sums[k] > LEAST * largest]
        said = [f"{short(names[k], LONG)}{behind(names[k])} {number(float(sums[k]))}{_when(point, k, sign)}" for k in order]
        if said:
            parts.append(f"{verb} {'the score' if sign > 0 or not parts else 'it'} most: {', '.join(said)}.")
    return " ".join(parts)


def _entries(point: Point) -> tuple[list[str], np.ndarray]:
    """(names, relevance) of what is told apart: features that have names, else words, steps or rows."""
    if _by_feature(point) and point.features is not None:
        return list(point.columns), finite(point.features).sum(0)
    unit = "" if point.is_text or not all(label.isdecimal() for label in point.labels) else f"{point.unit} "
    return [f"{unit}{label}" for label in point.labels], finite(point.relevance)


def _by_feature(point: Point) -> bool:
    return point.features is not None and bool(point.columns) and not point.word


def _when(point: Point, k: int, sign: int) -> str:
    if not _by_feature(point) or point.features is None or point.unit != "step" or len(point.labels) < 2:
        return ""
    return f" (most at {short(point.labels[int(np.argmax(sign * finite(point.features[:, k])))], LONG)})"
