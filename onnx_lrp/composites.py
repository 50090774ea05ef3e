"""Composites: which rule each affine block and recurrent layer gets. Resolved once for a plan, and printable before anything runs.

A composite is an ordered list of (match → rule); the first match wins. Other rules for lower than for higher layers: Montavon et
al. 2019, section 10.3. "first" and "last" follow the graph, not the order of the nodes in the file.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .affine import Role, Scope
from .errors import RuleError
from .layer import Affine, Opaque, Routing
from .nested import Nested, Step
from .plan import Plan
from .printable import visible
from .rules import COUNT, PLAIN, AlphaBeta, Channel, Epsilon, Flat, Gamma, Rule, ZBox, ZPlus

__all__ = ["PRESETS", "Assignment", "Block", "Composite", "assign", "make_composite"]

RECURRENT = ("LSTM", "GRU", "RNN")
DENSE = ("Linear", "Dense", "Embedding", *RECURRENT)
CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class Block:
    """One affine block that has weights, or a recurrent layer.

    Attributes:
        name: the node at its root.
        layers: titles of its layers with weights ("Linear", "Conv", "LSTM").
        nodes: the nodes in it.
        first: it reads an attribution point; last: it computes the explained scores.
        output: the root's tensor.
    """

    name: str
    layers: tuple[str, ...]
    nodes: tuple[str, ...]
    first: bool
    last: bool
    output: str


Match = str | tuple[str, ...] | Callable[[Block], bool]


@dataclass(frozen=True)
class Composite:
    """An ordered list of (match, rule).

    Args:
        entries: match is "first", "last", a layer's title ("Linear", "Conv", "LSTM"), a glob over node names ("*/encoder/*"),
            a tuple of these, or a function of a :class:`Block`.
        default: of blocks that nothing matches.

    Raises:
        RuleError: an entry is no pair of a match and a rule.
    """

    entries: tuple[tuple[Match, Rule], ...]
    default: Rule = field(default_factory=Epsilon)

    def __post_init__(self) -> None:
        for entry in self.entries:
            if len(entry) != 2 or not isinstance(entry[1], Rule):
                raise RuleError(f"a composite's entries are (match, rule), got {entry!r}")

    def __str__(self) -> str:
        """Short where one rule is for all."""
        return str(self.default) if not self.entries else "; ".join([*(f"{m}: {r}" for m, r in self.entries), str(self.default)])

    def rule(self, block: Block) -> Rule:
        """The rule of a block: the first match's."""
        return next((rule for match, rule in self.entries if _matches(match, block)), self.default)


def _matches(match: Match, block: Block) -> bool:
    if callable(match):
        return bool(match(block))
    if isinstance(match, tuple):
        return any(_matches(m, block) for m in match)
    if match in ("first", "last"):
        return block.first if match == "first" else block.last
    return match in block.layers or any(fnmatch.fnmatchcase(name, match) for name in block.nodes)


def _presets(epsilon: float) -> dict[str, Composite]:
    plain = Epsilon(epsilon)
    return {
        "epsilon": Composite((), plain),
        # Montavon et al. 2019, section 10.3: z+ in convolutions, epsilon above
        "epsilon-plus": Composite(((CONVOLUTIONS, ZPlus(epsilon)),), plain),
        "epsilon-plus-flat": Composite((("first", Flat(epsilon)), (CONVOLUTIONS, ZPlus(epsilon))), plain),
        "epsilon-gamma-box": Composite((("first", ZBox(epsilon, -3.0, 3.0)), (CONVOLUTIONS, Gamma(epsilon, 0.25))), plain),
        "epsilon-alpha2-beta1": Composite(((CONVOLUTIONS, AlphaBeta(epsilon, 2.0, 1.0)),), plain),
        # Arras et al. 2017: epsilon 0.001 everywhere
        "arras2017": Composite((), Epsilon(1e-3)),
    }


PRESETS = tuple(_presets(1e-3))


def make_composite(composite: str | Composite | Sequence[Any], epsilon: float = 1e-3) -> Composite:
    """A composite by its name, from a list of entries, or as it is.

    Raises:
        RuleError: no such preset.
    """
    if isinstance(composite, Composite):
        return composite
    if isinstance(composite, str):
        if composite not in PRESETS:
            raise RuleError(f"composite {composite!r} does not exist; there is: {', '.join(PRESETS)}")
        return _presets(epsilon)[composite]
    return Composite(tuple(tuple(entry) for entry in composite), Epsilon(epsilon))


@dataclass(frozen=True, eq=False)
class Assignment:
    """The rules of a plan. ``rows``: every block with its rule, in the order of the program."""

    rows: tuple[tuple[Block, Rule], ...]
    rules: Mapping[tuple[int, str], Rule]

    def of(self, scope: Scope | None, name: str) -> Rule | None:
        """The rule of a root or a recurrent layer; None: a sum without weights."""
        return self.rules.get((id(scope), name))

    def channels(self, scope: Scope, *, bias_factor: bool) -> list[Channel]:
        """What must be summed beside z inside a scope: also for the roots of the loops in it, whose blocks begin outside."""
        wanted: dict[Channel, None] = {}
        for inner in _scopes(scope):
            for (owner, _), rule in self.rules.items():
                if owner == id(inner):
                    wanted.update(dict.fromkeys(rule.needs))
                    if bias_factor:
                        wanted.update(dict.fromkeys(rule.channels))
        if bias_factor:
            wanted.update(dict.fromkeys((COUNT, PLAIN)))
        return list(wanted)

    def __str__(self) -> str:
        width = max((len(visible(block.name)) for block, _ in self.rows), default=0)
        lines = []
        for block, rule in self.rows:
            place = " ".join(w for w, on in (("first", block.first), ("last", block.last)) if on)
            lines.append(f"{visible(block.name).ljust(width)}  {', '.join(dict.fromkeys(block.layers))}  {place}  {rule}".rstrip())
        return "\n".join(lines)


def _scopes(scope: Scope) -> Iterator[Scope]:
    yield scope
    for inner in scope.inner.values():
        yield from _scopes(inner)


def assign(plan: Plan, composite: Composite) -> Assignment:
    """Find the blocks of a plan and give each its rule."""
    rows: list[tuple[Block, Rule]] = []
    rules: dict[tuple[int, str], Rule] = {}
    for scope, name, block in _blocks(plan):
        rule = composite.rule(block)
        rows.append((block, rule))
        rules[id(scope), name] = rule
    return Assignment(tuple(rows), rules)


def _blocks(plan: Plan) -> Iterator[tuple[Scope, str, Block]]:
    yield from _blocks_of(plan, [plan.scope])


def _blocks_of(plan: Plan, chain: list[Scope]) -> Iterator[tuple[Scope, str, Block]]:
    scope = chain[-1]
    for step in scope.steps:
        if isinstance(step.layer, Nested) and step.key in scope.inner:
            yield from _blocks_of(plan, [*chain, scope.inner[step.key]])
        for name in step.outputs:
            if name not in scope.path:
                continue
            last = len(chain) == 1 and name == plan.explained
            if scope.roles.get(name) is Role.ROOT:
                inside, ends = _walk(chain, name)
                layers = tuple(s.layer.title for s in inside if isinstance(s.layer, Affine) and s.layer.operands)
                if layers:
                    first = bool(ends & set(plan.points))
                    yield scope, name, Block(step.name, layers, tuple(s.name for s in inside), first, last, name)
            elif (
                isinstance(step.layer, Opaque) and step.layer.title in RECURRENT and name == step.outputs[_used_first(step, scope)]
            ):
                read = {end for n in step.inputs if n in scope.path for end in _reached(chain, n)}
                first = bool(read & set(plan.points))
                yield scope, step.key, Block(step.name, (step.layer.title,), (step.name,), first, last, name)


def _used_first(step: Step, scope: Scope) -> int:
    """Which of a layer's outputs is the first on the path."""
    return next(k for k, o in enumerate(step.outputs) if o in scope.path)


def _reached(chain: Sequence[Scope], name: str) -> set[str]:
    """The tensors that a tensor is made of by routing alone."""
    made = chain[-1].made
    found, stack, seen = set(), [name], {name}
    while stack:
        at = stack.pop()
        step = made.get(at)
        if at in chain[-1].leaves and len(chain) > 1:
            found |= _reached(chain[:-1], chain[-1].leaves[at])
        elif at in chain[-1].ends or step is None or not isinstance(step.layer, Routing):
            found.add(at)
        else:
            more = [n for n in step.inputs if n in chain[-1].path and n not in seen]
            seen.update(more)
            stack += more
    return found


def _walk(chain: Sequence[Scope], root: str) -> tuple[list[Step], set[str]]:
    """The steps of a block, and the tensors where its branches end."""
    scope = chain[-1]
    made = scope.made
    inside: dict[str, Step] = {}  # by key
    ends: set[str] = set()
    stack, seen = [root], {root}  # a tensor that is read twice is one branch
    while stack:
        name = stack.pop()
        step = made.get(name)
        if step is None or not isinstance(step.layer, Affine | Routing):
            ends.add(name)
            continue
        inside.setdefault(step.key, step)
        operands = step.layer.operands if isinstance(step.layer, Affine) else ()
        for index, source in enumerate(step.inputs):
            if source not in scope.path:
                continue
            if source in scope.leaves and index not in operands and len(chain) > 1:
                steps, more = _outside(chain[:-1], scope.leaves[source])
                for other in steps:
                    inside.setdefault(other.key, other)
                ends |= more
            elif index in operands or scope.roles.get(source) not in (Role.INLINE, Role.ROUTE):
                ends |= _reached(chain, source)
            elif source not in seen:
                seen.add(source)
                stack.append(source)
    return list(inside.values()), ends


def _outside(chain: Sequence[Scope], name: str) -> tuple[list[Step], set[str]]:
    """A block that goes on outside of a loop."""
    if chain[-1].roles.get(name) in (Role.INLINE, Role.ROUTE):
        return _walk(chain, name)
    return [], {name}
