"""Gemm: with constant weights on the right the dense layer, in every other form a contraction with an addend.

z_j = Σ_i x_i w_ij + b_j. The bias of a Gemm is part of the block like that of a later Add.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contraction import MatrixProduct
from ..registry import Var, importer
from .add import read_sum
from .gather import Lookup, is_code
from .matmul import Linear, contracted

__all__: list[str] = []


@importer("Gemm", since=1)
def gemm(
    A: Any,
    B: Any,
    C: Any = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    broadcast: int = 0,
) -> Any:
    if isinstance(A, Var) and isinstance(B, np.ndarray) and not transA:
        return _dense(A, B.T if transB else B, C, alpha, beta)
    if not isinstance(A, Var) and not isinstance(B, Var):
        product = (A.T if transA else A).astype(np.float64) @ (B.T if transB else B)
        return read_sum([product.astype(A.dtype), C], [alpha, beta])
    # constant weights take the scale, so that w and 2w/2 are one network under every rule
    if not isinstance(A, Var):
        A, alpha = _scaled(A, alpha), 1.0
    elif not isinstance(B, Var):
        B, alpha = _scaled(B, alpha), 1.0
    return contracted(MatrixProduct(bool(transA), bool(transB)), A, B, alpha=alpha, C=C, beta=beta)


def _scaled(weight: np.ndarray, alpha: float) -> np.ndarray:
    return weight if alpha == 1 else weight.astype(np.float64) * alpha


def _dense(x: Var, weight: np.ndarray, C: Any, alpha: float, beta: float) -> Any:
    parameters = {"weight": _scaled(weight, alpha)}
    if isinstance(C, Var) and beta:
        return Linear(parameters=parameters, addend=beta), (x, C)
    if isinstance(C, np.ndarray) and beta:
        parameters["bias"] = _scaled(C, beta)
    return (Lookup if is_code(x) else Linear)(parameters=parameters), (x,)
