"""The epsilon rule: how the relevance of a sum is shared among its terms.

Sources: Bach et al. 2015, *On pixel-wise explanations …*, eq. 58; Arras et al. 2017, *Explaining recurrent neural network
predictions in sentiment analysis*, section 2.2 (bias_factor, the gate rule "all").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._lazy import tf
from .errors import RuleError

__all__ = ["GATE_RULES", "Epsilon"]

Tensor = Any
GATE_RULES = ("all",)


@dataclass(frozen=True)
class Epsilon:
    """R_i = x_i Σ_j w_ij s_j with s_j = R_j / (z_j + ε·sign z_j), sign 0 = +1.

    Args:
        epsilon: the stabilizer ε ≥ 0, in units of the pre-activation.
        bias_factor: δ in [0, 1]; the share δ·(b_j + ε·sign z_j)·s_j goes evenly to all lower units of the layer instead of
            being absorbed (Arras et al. 2017 use δ = 1 for their sanity check).

    Raises:
        RuleError: a value outside its range.
    """

    epsilon: float = 1e-3
    bias_factor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < float("inf"):
            raise RuleError(f"epsilon must be a finite number >= 0, got {self.epsilon!r}")
        if not 0 <= self.bias_factor <= 1:
            raise RuleError(f"bias_factor must lie in [0, 1], got {self.bias_factor!r}")

    def signed(self, z: Tensor) -> Tensor:
        """ε·sign z with sign 0 = +1."""
        epsilon = tf.constant(self.epsilon, z.dtype)
        return tf.where(z < 0, -epsilon, epsilon)

    def ratio(self, z: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """(s, the stabilizer's share ε·sign z · s); z = 0 with ε = 0 carries nothing, s = 0 there."""
        signed = self.signed(z)
        s = r / (z + signed) if self.epsilon else tf.math.divide_no_nan(r, z)
        return s, signed * s
