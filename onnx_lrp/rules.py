"""Rules: how the relevance of a sum is shared among its terms p_ij = x_i w_ij.

A rule sees a block's sums and says with which cotangents they are pulled back; it never knows a layer's type. A few *channels* are
enough for every rule here: the block's map with a function applied to its weights, read against a function of its inputs. As
(x w)⁺ = (x w + |x| |w|) / 2, the signed and the absolute channel are enough for all rules that treat signs apart.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._lazy import tf
from .errors import RuleError

__all__ = [
    "GATE_RULES",
    "AlphaBeta",
    "Channel",
    "Epsilon",
    "Flat",
    "Gamma",
    "Policy",
    "Rule",
    "Shares",
    "WSquare",
    "ZBox",
    "ZPlus",
    "make_rule",
]

Tensor = Any
GATE_RULES = ("all", "half", "prop", "abs")
LARGEST = float(np.finfo(np.float32).max)  # number that is finite in every precision
UNSURE = 32  # units of rounding of Σ |p|, up to which a sum of the terms of one sign may be of none


@dataclass(frozen=True)
class Box:
    """Bounds of the inputs, for :class:`ZBox`."""

    low: float
    high: float


@dataclass(frozen=True)
class Channel:
    """One way of reading a block: a function of its weights, and one of its inputs.

    Attributes:
        weights: "plain", "abs", "square" or "one".
        inputs: "x", "abs", "one", "centred" (x less the middle of ``box``) or "half" (half the width of ``box``).
    """

    weights: str = "plain"
    inputs: str = "x"
    box: Box | None = None

    @property
    def function(self) -> Any:
        """Of the weights; None: as they are."""
        return {"plain": None, "abs": tf.abs, "square": tf.square, "one": tf.ones_like}[self.weights]

    def value(self, x: Tensor) -> Tensor:
        """The inputs as this channel reads them."""
        if self.inputs == "x":
            return x
        if self.inputs == "abs":
            return tf.abs(x)
        if self.inputs == "one":
            return tf.ones_like(x)
        assert self.box is not None
        middle, half = (self.box.high + self.box.low) / 2, (self.box.high - self.box.low) / 2
        return x - tf.cast(middle, x.dtype) if self.inputs == "centred" else tf.ones_like(x) * tf.cast(half, x.dtype)

    @property
    def counts_constants(self) -> bool:
        """Whether a constant is a term of the rule."""
        return self.inputs in ("x", "abs")

    def constant(self, b: Tensor) -> Tensor | None:
        """What a constant term is in this channel; None: it is no term of the rule."""
        if not self.counts_constants:
            return None
        return b if self.inputs == "x" else tf.abs(b)


PLAIN = Channel()
ABSOLUTE = Channel("abs", "abs")
SQUARE = Channel("square", "one")
COUNT = Channel("one", "one")


@dataclass(frozen=True, eq=False)
class Shares:
    """What a rule makes of the relevance of a block's root.

    Attributes:
        cotangents: s of every channel, in the root's shape.
        stabilizer: what the stabilizer absorbs, per entry.
        lost: what the rule itself does not pass on, None: nothing.
    """

    cotangents: Mapping[Channel, Tensor]
    stabilizer: Tensor
    lost: Tensor | None = None


def mapped(channel: Channel, weight: Tensor) -> Tensor:
    """Weights as a channel reads them."""
    return weight if channel.function is None else channel.function(weight)


def stabilized(z: Tensor, r: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """(s = r / (z + ε·sign z), what the stabilizer takes ε·sign z · s), sign 0 = +1.

    With ε = 0 a sum of exactly 0 passes nothing on, s = 0, and the stabilizer takes all, as it does there for any ε > 0.
    """
    if not epsilon:
        return tf.math.divide_no_nan(r, z), tf.where(z == 0, r, tf.zeros_like(r))
    # with u = −r / (|z| + ε): s is −u, or u where z < 0, and the stabilizer's part −ε·u. This "gradient" is TensorFlow's fastest
    # selection by sign: comparing and choosing take five times as long, and are shared out over the cores, which then wait
    u = r / (-epsilon - tf.abs(z))
    s = tf.raw_ops.LeakyReluGrad(gradients=u, features=-z, alpha=-1.0)
    return s, -epsilon * u


def _checked(name: str, value: float, low: float, high: float = float("inf")) -> None:
    if not low <= value <= high or value > LARGEST:
        limits = f">= {low:g}" if high == float("inf") else f"in [{low:g}, {high:g}]"
        raise RuleError(f"{name} must be a finite number {limits}, got {value!r}")


@dataclass(frozen=True)
class Rule(abc.ABC):
    """A propagation rule. ``epsilon``: stabilizer ε ≥ 0 of its denominators.

    Raises:
        RuleError: a parameter outside its range.
    """

    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        _checked("epsilon", self.epsilon, 0.0)
        self.check()

    def __str__(self) -> str:
        """As "gamma 0.25, epsilon 0.001"."""
        name = next(n for n, t in NAMES.items() if t is type(self))
        more = [f"{f.name} {getattr(self, f.name):g}" for f in dataclasses.fields(self)]
        return (
            f"epsilon {self.epsilon:g}"
            if more == [f"epsilon {self.epsilon:g}"] and name == "epsilon"
            else f"{name} ({', '.join(more)})"
        )

    def check(self) -> None:  # noqa: B027  (most rules have no other parameter)
        """Raise RuleError where another parameter is outside its range."""

    @property
    def needs(self) -> Sequence[Channel]:
        """Channels whose sums the rule asks for beside z itself."""
        return ()

    @property
    def channels(self) -> Sequence[Channel]:
        """Channels that its cotangents go back in, those it needs if nothing else is said."""
        return self.needs

    @property
    def reaches_zeros(self) -> bool:
        """Whether an input of zero may receive relevance."""
        return not all(channel.counts_constants for channel in self.channels)

    @abc.abstractmethod
    def share(self, z: Tensor, sums: Mapping[Channel, Tensor], r: Tensor) -> Shares:
        """The cotangents for relevance ``r`` of ``z``, both of the root's shape; ``sums``: of the channels it needs."""


@dataclass(frozen=True)
class Epsilon(Rule):
    """R_i = Σ_j p_ij R_j / (z_j + ε·sign z_j) (Bach et al. 2015, eq. 58)."""

    @property
    def channels(self) -> Sequence[Channel]:
        return (PLAIN,)

    def share(self, z: Tensor, sums: Mapping[Channel, Tensor], r: Tensor) -> Shares:
        s, stabilizer = stabilized(z, r, self.epsilon)
        return Shares({PLAIN: s}, stabilizer)


@dataclass(frozen=True)
class Gamma(Rule):
    """R_i = Σ_j (p_ij + γ p_ij^σ) R_j / (z_j + γ z_j^σ + ε·sign), σ the sign of z_j: terms of z's own sign count more.

    Montavon et al. 2019 (*Layer-wise relevance propagation: an overview*, section 10.2.3) for inputs ≥ 0; in this form, for inputs
    of any sign, Andéol et al. 2023 (*Learning domain invariant representations by joint Wasserstein distance minimization*).
    """

    gamma: float = 0.25

    def check(self) -> None:
        _checked("gamma", self.gamma, 0.0)

    @property
    def needs(self) -> Sequence[Channel]:
        return (ABSOLUTE,)

    @property
    def channels(self) -> Sequence[Channel]:
        return (PLAIN, ABSOLUTE)

    def share(self, z: Tensor, sums: Mapping[Channel, Tensor], r: Tensor) -> Shares:
        sign = tf.where(z < 0, -tf.ones_like(z), tf.ones_like(z))
        own = (z + sign * sums[ABSOLUTE]) / 2  # Σ of the terms of z's sign
        s, stabilizer = stabilized(z + self.gamma * own, r, self.epsilon)
        return Shares({PLAIN: (1 + self.gamma / 2) * s, ABSOLUTE: (self.gamma / 2) * sign * s}, stabilizer)


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """R_i = Σ_j (α p_ij⁺ / z_j⁺ − β p_ij⁻ / z_j⁻) R_j with α − β = 1 (Bach et al. 2015, eq. 60).

    Where a sum has no term of one sign, that part is absorbed by the stabilizer.
    """

    alpha: float = 2.0
    beta: float = 1.0

    def check(self) -> None:
        _checked("beta", self.beta, 0.0)
        if abs(self.alpha - self.beta - 1) > 1e-9:
            raise RuleError(f"alpha - beta must be 1, got {self.alpha!r} - {self.beta!r}")

    @property
    def needs(self) -> Sequence[Channel]:
        return (ABSOLUTE,)

    @property
    def channels(self) -> Sequence[Channel]:
        return (PLAIN, ABSOLUTE)

    def share(self, z: Tensor, sums: Mapping[Channel, Tensor], r: Tensor) -> Shares:
        absolute = sums[ABSOLUTE]
        epsilon = tf.constant(self.epsilon, z.dtype)
        positive, negative = (z + absolute) / 2, (z - absolute) / 2
        # what rounding leaves of a side without terms would, divided by a small ε, drown the other side in the same channels
        least = absolute * tf.constant(UNSURE * float(np.finfo(z.dtype.as_numpy_dtype).eps), z.dtype)
        no_up, no_down = positive <= least, negative >= -least
        none, all_up, all_down = tf.zeros_like(r), self.alpha * r, self.beta * r
        up = tf.where(no_up, none, tf.math.divide_no_nan(all_up, positive + epsilon))
        down = tf.where(no_down, none, tf.math.divide_no_nan(all_down, negative - epsilon))
        stabilizer = tf.where(no_up, all_up, epsilon * up) + tf.where(no_down, -all_down, epsilon * down)
        return Shares({PLAIN: (up - down) / 2, ABSOLUTE: (up + down) / 2}, stabilizer)


@dataclass(frozen=True)
class ZPlus(Rule):
    """R_i = Σ_j p_ij⁺ R_j / z_j⁺ (Montavon et al. 2017, *Explaining nonlinear classification decisions with deep Taylor
    decomposition*, eq. 17): alpha-beta with α = 1, β = 0.
    """

    @property
    def needs(self) -> Sequence[Channel]:
        return (ABSOLUTE,)

    @property
    def channels(self) -> Sequence[Channel]:
        return (PLAIN, ABSOLUTE)

    def share(self, z: Tensor, sums: Mapping[Channel, Tensor], r: Tensor) -> Shares:
        return AlphaBeta(self.epsilon, alpha=1.0, beta=0.0).share(z, sums, r)


@dataclass(frozen=True)
class WSquare(Rule):
    """R_i = Σ_j w_ij² R_j / Σ_i' w_i'j² (Montavon et al. 2017, eq. 12): by the weights alone, for first layers of real inputs."""

    @property
    def needs(self) -> Sequence[Channel]:
        return (SQUARE,)

    def share(self, z: Tensor, sums: Mapping[Channel, Tensor], r: Tensor) -> Shares:
        s, stabilizer = stabilized(sums[SQUARE], r, self.epsilon)
        return Shares({SQUARE: s}, stabilizer)


@dataclass(frozen=True)
class Flat(Rule):
    """Every input of a sum gets the same share (Lapuschkin et al. 2019, *Unmasking Clever Hans predictors*, methods)."""

    @property
    def needs(self) -> Sequence[Channel]:
        return (COUNT,)

    def share(self, z: Tensor, sums: Mapping[Channel, Tensor], r: Tensor) -> Shares:
        s = tf.math.divide_no_nan(r, sums[COUNT])  # a count needs no stabilizer
        return Shares({COUNT: s}, tf.zeros_like(r), tf.where(sums[COUNT] == 0, r, tf.zeros_like(r)))


@dataclass(frozen=True)
class ZBox(Rule):
    """R_i = Σ_j (x_i w_ij − l w_ij⁺ − h w_ij⁻) R_j / Σ_i' … for inputs within [l, h] (Montavon et al. 2017, eq. 15).

    Biases are no terms of it.
    """

    low: float = -1.0
    high: float = 1.0

    def check(self) -> None:
        if not self.low < self.high:
            raise RuleError(f"low must be below high, got {self.low!r} and {self.high!r}")

    @property
    def needs(self) -> Sequence[Channel]:
        box = Box(self.low, self.high)
        return Channel("plain", "centred", box), Channel("abs", "half", box)

    def share(self, z: Tensor, sums: Mapping[Channel, Tensor], r: Tensor) -> Shares:
        centred, half = self.needs
        total = sums[centred] + sums[half]
        s, stabilizer = stabilized(total, r, self.epsilon)
        return Shares({centred: s, half: s}, stabilizer)


NAMES: dict[str, type[Rule]] = {
    "epsilon": Epsilon,
    "gamma": Gamma,
    "alpha-beta": AlphaBeta,
    "zplus": ZPlus,
    "flat": Flat,
    "wsquare": WSquare,
    "zbox": ZBox,
}


def make_rule(rule: str | Rule, epsilon: float) -> Rule:
    """A rule by its name, with the stabilizer asked for; a rule as it is.

    Behind a colon a name takes the rule's other numbers in their order: "gamma:0.5", "alpha-beta:3,2", "zbox:0,1".

    Raises:
        RuleError: no such rule, or not its numbers.
    """
    if isinstance(rule, Rule):
        return rule
    name, colon, rest = str(rule).partition(":")
    if name not in NAMES:
        raise RuleError(f"rule {rule!r} does not exist; there is: {', '.join(NAMES)}")
    wanted = [f.name for f in dataclasses.fields(NAMES[name]) if f.name != "epsilon"]
    try:
        numbers = [float(number) for number in rest.split(",")] if colon else []
    except ValueError:
        numbers = []
    if colon and len(numbers) != len(wanted):
        example = f"{name}:{','.join(wanted)}"
        raise RuleError(f"rule {rule!r}: " + (f"expected {example}, as numbers" if wanted else f"{name} takes no numbers"))
    return NAMES[name](epsilon, *numbers)


@dataclass(frozen=True)
class Policy:
    """What a layer with a relevance of its own is told: how its sums are stabilized, its weights' rule, its gates' rule.

    Args:
        epsilon: stabilizer of sums without weights (a cell's, a difference's).
        bias_factor: δ in [0, 1]; the share δ·(bias + stabilizer) of a sum goes evenly to its lower units instead of being absorbed
            (Arras et al. 2017 use δ = 1 for their sanity check).
        gates: how a product of a gate and a signal shares: "all" to the signal (Arras et al. 2017), "half" each, "prop" in
            proportion to the two values, "abs" to their sizes (Arras et al. 2019, *Explaining and interpreting LSTMs*).
        rule: of its weights.

    Raises:
        RuleError: a value outside its range.
    """

    epsilon: float = 1e-3
    bias_factor: float = 0.0
    gates: str = "all"
    rule: Rule = Epsilon()

    def __post_init__(self) -> None:
        _checked("epsilon", self.epsilon, 0.0)
        _checked("bias_factor", self.bias_factor, 0.0, 1.0)
        if self.gates not in GATE_RULES:
            raise RuleError(f"gate rule {self.gates!r} does not exist; there is: {', '.join(GATE_RULES)}")

    def ratio(self, z: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """(s, the stabilizer's share) of a sum without weights, by the epsilon rule."""
        return stabilized(z, r, self.epsilon)

    def split(self, gate: Tensor, signal: Tensor, r: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Relevance of gate · signal: (the gate's, None: none; the signal's; what a stabilizer absorbs, None: nothing)."""
        if self.gates == "all":
            return None, r, None
        if self.gates == "half":
            return r / 2, r / 2, None
        if self.gates == "abs":
            total = tf.abs(gate) + tf.abs(signal)
            part = tf.where(total > 0, tf.abs(gate) / tf.where(total > 0, total, tf.ones_like(total)), tf.ones_like(total) / 2)
            return part * r, (1 - part) * r, None
        s, stabilizer = stabilized(gate + signal, r, self.epsilon)
        return gate * s, signal * s, stabilizer
