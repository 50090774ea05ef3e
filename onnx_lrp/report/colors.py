"""Colour schemes of relevance: diverging, symmetric about white at zero; as CSS, and as the level a number falls into."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["DEFAULT", "GRAYS", "LEVELS", "LOWERS", "RAISES", "SCHEMES", "Scheme", "contrast", "css", "level"]

LEVELS = 20  # shades a side
GRAYS = 16  # of an input, from black to white
RAISES, LOWERS = ("#b3402f", "#f5917e"), ("#2f5fb8", "#86b1f4")  # strong, weak: red and blue differ to every kind of colour vision
INKS = ("#000000", "#ffffff")  # one of them always has a contrast of 4.5 or more


@dataclass(frozen=True)
class Scheme:
    """Two hues, each from strong to weak, and the words for them."""

    label: str
    raises: tuple[str, str]
    lowers: tuple[str, str]
    words: tuple[str, str]

    def shade(self, k: int) -> str:
        """The colour of level k, from -LEVELS to LEVELS; 0 is white."""
        strong, weak = self.raises if k > 0 else self.lowers
        share = abs(k) / LEVELS
        return _mix("#ffffff", weak, 2 * share) if share <= 0.5 else _mix(weak, strong, 2 * share - 1)

    def ink(self, k: int) -> str:
        """Black or white, whichever is easier to read on that colour."""
        return max(INKS, key=lambda ink: contrast(ink, self.shade(k)))


SCHEMES = {
    "blue-white-red": Scheme("blue – white – red", RAISES, LOWERS, ("red", "blue")),
    # ColorBrewer's PuOr, safe for every kind of colour vision
    "purple-white-orange": Scheme(
        "purple – white – orange (colour-blind safe)", ("#b35806", "#fdb863"), ("#542788", "#b2abd2"), ("orange", "purple")
    ),
    # captum.attr.visualization: hsl(120, 75%, …) and hsl(0, 75%, …)
    "captum": Scheme("red – white – green (as Captum)", ("#20df20", "#8fef8f"), ("#e64d4d", "#f2a6a6"), ("green", "red")),
}
DEFAULT = "blue-white-red"


def level(value: float, largest: float) -> str:
    """The CSS class of a value on a scale from -largest to largest: u1 … u20 up, d1 … d20 down, "z" near 0, "x" if not finite."""
    if not math.isfinite(value):
        return "x"
    # divided before anything is multiplied, so that neither 1e-320 nor 1e308 breaks it
    k = round(LEVELS * max(-1.0, min(value / largest, 1.0))) if largest > 0 else 0
    return f"u{k}" if k > 0 else f"d{-k}" if k < 0 else "z"


def css(root: str = ".onnx-lrp") -> str:
    """Custom properties: of every scheme its shades, of every level its colour ``--c`` and the ink ``--i`` on it; grays."""
    rules = []
    for name, scheme in SCHEMES.items():
        shades = []
        for k in range(1, LEVELS + 1):
            for letter, sign in (("u", 1), ("d", -1)):
                shades.append(f"--{letter}{k}:{scheme.shade(sign * k)}")
                if scheme.ink(sign * k) == INKS[1]:
                    shades.append(f"--{letter}i{k}:{INKS[1]}")
        rules.append(f'{root}[data-scheme="{name}"]{{{";".join(shades)}}}')
        rules.append(f'{root}[data-scheme="{name}"] .hue:not(.{name}){{display:none}}')
    for k in range(1, LEVELS + 1):
        rules += [f"{root} .{c}{k}{{--c:var(--{c}{k});--i:var(--{c}i{k},{INKS[0]})}}" for c in "ud"]
    rules.append(f"{root} .z{{--c:#ffffff;--i:{INKS[0]}}}{root} .x{{--c:#d5d9df;--i:{INKS[0]}}}")
    rules.append("".join(f"{root} .g{k}{{--c:hsl(0 0% {100 * k / (GRAYS - 1):.0f}%)}}" for k in range(GRAYS)))
    return "\n".join(rules)


def contrast(a: str, b: str) -> float:
    """The contrast ratio of two colours, 1 to 21 (WCAG 2.1)."""
    bright, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _parts(color: str) -> list[int]:
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def _mix(a: str, b: str, share: float) -> str:
    return "#" + "".join(f"{round(x + (y - x) * share):02x}" for x, y in zip(_parts(a), _parts(b), strict=True))


def _luminance(color: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (p / 255 for p in _parts(color))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
