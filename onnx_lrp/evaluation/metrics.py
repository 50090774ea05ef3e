"""Figures of explanations, one a sample: formulas alone, in numpy. :data:`METRICS` lists them, and which direction is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["BINS", "METRICS", "Metric", "bin_counts", "erased", "probabilities", "rank_correlation", "relative_change", "sparsity"]

BINS = (0.01, 0.05, 0.1, 0.2, 0.5)  # shares of the units, DeYoung et al. 2020, section 5.2


@dataclass(frozen=True)
class Metric:
    """A figure, how it is called, and what it says.

    Attributes:
        part: the part of an evaluation that finds it.
        better: 1: more is better, -1: less is, 0: neither by itself.
        says: in words, with the source.
    """

    part: str
    title: str
    better: int
    says: str


METRICS: Mapping[str, Metric] = {
    "deletion": Metric(
        "curves", "deletion", 1, "AOPC: mean fall of the explained score while the most relevant are taken away (Samek et al. 2017)"
    ),
    "deletion_least": Metric("curves", "least first", -1, "the same while the least relevant are taken away"),
    "insertion": Metric(
        "curves", "insertion", 1, "mean rise of the explained score while the most relevant are put back into nothing"
    ),
    "accuracy_fall": Metric(
        "labels", "right: fall", 1, "mean fall of accuracy, rightly classified samples, most relevant first (Arras et al. 2017)"
    ),
    "accuracy_rise": Metric(
        "labels",
        "wrong: rise",
        1,
        "mean rise of accuracy, wrongly classified samples, least relevant for the true class first (Arras et al. 2017)",
    ),
    "comprehensiveness": Metric(
        "erasure", "comprehensive", 1, "fall of the probability without the most relevant 1, 5, 10, 20, 50 % (DeYoung et al. 2020)"
    ),
    "sufficiency": Metric("erasure", "sufficiency", -1, "fall of the probability with these alone (DeYoung et al. 2020)"),
    "descriptive_accuracy": Metric(
        "erasure", "descr. accuracy", -1, "mean probability while the most relevant are taken away (Warnecke et al. 2020)"
    ),
    "sparsity": Metric(
        "sparsity", "sparsity", 1, "area under the mass around zero of relevances scaled to [-1, 1] (Warnecke et al. 2020)"
    ),
    "gap": Metric("completeness", "|score - sum|", 0, "what is missing of the score in the relevances' sum"),
    "residual": Metric("completeness", "residual", -1, "what the method's own books leave over, its size"),
    "instability": Metric(
        "stability",
        "change",
        -1,
        "relative change of the relevances under small noise, the largest of a few draws (Yeh et al. 2019)",
    ),
    "parameters": Metric(
        "randomisation",
        "random model",
        0,
        "rank correlation with the explanation of the model all of whose weights are random; right is near 0",
    ),
    "logit": Metric("randomisation", "random logit", -1, "rank correlation with the explanation of another class"),
    "milliseconds": Metric("runtime", "ms", -1, "milliseconds a sample, in the batches that samples of one length make"),
}


def probabilities(scores: np.ndarray, *, signs: bool = False) -> np.ndarray:
    """(M, C) probabilities of scores (M, C): softmax, the logistic function of two classes that share one score, or the scores
    themselves where they are probabilities already or there is but one.
    """
    if scores.shape[1] == 1 or (not signs and scores.min() >= 0 and np.allclose(scores.sum(1), 1, atol=1e-4)):
        return scores
    if signs:
        return 0.5 * (1 + np.tanh(scores / 2))
    shifted = np.exp(scores - scores.max(1, keepdims=True))
    out: np.ndarray = shifted / shifted.sum(1, keepdims=True)
    return out


def bin_counts(units: int, bins: Sequence[float] = BINS) -> list[int]:
    """Units in each share of a sample, at least one."""
    return [max(1, math.ceil(share * units - 1e-9)) for share in bins]


def erased(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(N,) 1/(|B|+1) Σ_{k=0..|B|} before − after_k, the term of k = 0 being zero; before (N,), after (N, |B|).

    DeYoung et al. 2020, *ERASER*, section 4.2: comprehensiveness where ``after`` lacks the most relevant, sufficiency where it
    has nothing else.
    """
    return (before[:, None] - after).sum(1) / (after.shape[1] + 1)


def sparsity(relevance: np.ndarray) -> float:
    """Area under MAZ(r) = the share of relevances within [−r, r], r from 0 to 1, scaled so that the largest has size 1.

    Warnecke et al. 2020, *Evaluating explanation methods for deep learning in security*, section 4:
    ∫₀¹ P(|x| ≤ r) dr = 1 − mean |x|. All zero: 1.
    """
    size = np.abs(relevance)
    largest = float(size.max(initial=0))
    return 1.0 if largest == 0 else 1 - float((size / largest).mean())


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, ties sharing their ranks; NaN for fewer than three numbers or where all are equal."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def relative_change(before: np.ndarray, after: np.ndarray) -> float:
    """‖after − before‖ / ‖before‖, as in Yeh et al. 2019, *On the (in)fidelity and sensitivity of explanations*, eq. 2 over the
    norm; NaN where nothing was relevant.
    """
    size = float(np.linalg.norm(before))
    return float(np.linalg.norm(after - before)) / size if size > 0 else math.nan
