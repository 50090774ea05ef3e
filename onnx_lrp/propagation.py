"""One pass through a plan, as TensorFlow operations: forward, and relevance backward by rules.

Relevance arrives at tensors as relevance, inside affine blocks as cotangents by channel and as even shares of a bias factor; every
layer's family says how it goes on to the inputs, and what ends there is absorbed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ._lazy import tf
from .absorbed import Absorbed, add
from .affine import Role, Scope
from .composites import Assignment
from .dims import split_axis
from .hidden import Kept
from .layer import Affine, Opaque, Routing, Share, Trace, unbroadcast
from .linear import LinearMap
from .nested import Nested, Step
from .plan import Plan
from .registry import Var
from .rules import COUNT, Channel, Epsilon, Policy
from .steps import Loop, walk
from .steps import forward as steps_forward
from .sums import INSIDE, Sums

__all__ = ["Propagation"]

Tensor = Any
Part = Any  # "r", "q" or a Channel


class Propagation:
    """One pass, forward at construction: tensors by name, traces by step, and what is absorbed on the way back."""

    def __init__(
        self,
        plan: Plan,
        policy: Policy,
        rules: Assignment,
        scope: Scope | None,
        steps: Sequence[Step],
        parameters: Any,
        feeds: Mapping[str, Tensor],
        dtype: Any,
    ) -> None:
        self.plan = plan
        self.dtype = dtype
        self.policy = policy
        self.rules = rules
        self.scope = scope  # None where no relevance passes
        self.steps = steps
        self.env: dict[str, Tensor] = dict(feeds)
        self.traces: list[Any] = []
        self.r: dict[str, Tensor] = {}  # relevance that has arrived
        self.s: dict[Channel, dict[str, Tensor]] = {}  # cotangents inside blocks
        self.q: dict[str, Tensor] = {}  # even shares of a bias factor, inside blocks
        self.sums: Sums | None = None
        self.order: dict[str, Tensor] = {}  # which samples stand where, where they are moved
        self.keep: Sequence[Kept] = ()
        self.seen: dict[str, Tensor] = {}  # what is kept, by its key
        self.absorbed = self._absorbed()
        self.zero: Tensor | None = None
        for step, tensors in zip(steps, parameters, strict=True):
            xs = [self.env[n] for n in step.inputs]
            if isinstance(step.layer, Nested):
                outputs, trace = self._loop(step, xs, tensors)
            else:
                trace = step.layer.run(xs, tensors)
                outputs = trace.outputs
            self.traces.append(trace)
            for name, tensor in zip(step.outputs, outputs, strict=False):
                if name and name not in feeds:
                    self.env[name] = tensor

    def _loop(self, step: Step, xs: Sequence[Tensor], tensors: Any) -> Any:
        layer: Any = step.layer
        scope = self.scope.inner.get(step.key) if self.scope is not None else None

        def make(given: Mapping[str, Tensor]) -> Propagation:
            feeds = {**tensors["constants"], **given}
            return Propagation(self.plan, self.policy, self.rules, scope, layer.body.steps, tensors["steps"], feeds, self.dtype)

        return steps_forward(step, xs, tensors["own"], self.dtype, make, trips=self.plan.graph.limits.trips)

    def explain(self, seed: Tensor, keep: Sequence[Kept]) -> dict[str, Any]:
        """Backward from a seed tensor; may be asked again."""
        plan = self.plan
        self.r, self.s, self.q, self.seen = {plan.explained: seed}, {}, {}, {}
        self.keep, self.absorbed = keep, self._absorbed()
        total = self.absorbed.per_sample(seed, plan.explained)
        self.zero = zero = tf.zeros_like(total)
        self.absorbed.size = tf.size(total)
        self.backward()
        return {
            "relevance": {p: self.r.get(p, tf.zeros_like(self.env[p])) for p in plan.points},
            "absorbed": {k: v + zero for k, v in self.absorbed.amounts.items()},
            "seed": total,
            "hidden": {k.key: self.seen.get(k.key, tf.zeros([0], total.dtype)) for k in keep},
        }

    def _absorbed(self) -> Absorbed:
        return Absorbed(self.plan, self.plan.vars if self.scope is None else self.scope.vars, self.env, self.order)

    def vars(self, name: str) -> Var:
        assert self.scope is not None
        return self.scope.vars[name]

    def batch_axis(self, name: str) -> int | None:
        dims = self.vars(name).dims
        return None if dims is None else next((i for i, d in enumerate(dims) if d.has(self.plan.batch)), None)

    def settle(self, name: str) -> None:
        """A branch of a block ends at this tensor: what arrived as s and as an even share becomes relevance."""
        for channel, part in self.s.items():
            if name in part:
                add(self.r, name, channel.value(self.env[name]) * part.pop(name))
        if name in self.q:
            add(self.r, name, self.q.pop(name))

    def parts(self) -> list[tuple[Part, dict[str, Tensor]]]:
        """All that may have arrived at a tensor: relevance, cotangents by channel, even shares."""
        return [("r", self.r), *self.s.items(), ("q", self.q)]

    def part(self, kind: Part) -> dict[str, Tensor]:
        """One of them."""
        return self.r if kind == "r" else self.q if kind == "q" else self.s.setdefault(kind, {})

    def backward(self) -> None:
        """Relevance from where it has arrived to the ends of this scope; everything else ends in ``absorbed``."""
        scope = self.scope
        assert scope is not None
        for step, trace in zip(reversed(self.steps), reversed(self.traces), strict=True):
            outputs = [o for o in step.outputs if o in scope.path and o not in scope.ends and o not in scope.leaves]
            self.look(outputs)
            trace = self.watched(step, trace)
            if not any(o in part for o in outputs for _, part in self.parts()):
                continue
            if isinstance(step.layer, Routing):
                self.route(step, trace, outputs)
            elif isinstance(step.layer, Affine):
                self.affine(step, trace, outputs[0])
            elif isinstance(step.layer, Nested):
                self.loop(step, trace, outputs)
            else:
                for output in outputs:
                    self.settle(output)
                rs = [self.r.get(o) if o in outputs else None for o in step.outputs]
                rs += [None] * (len(trace.outputs) - len(rs))  # outputs the file leaves out
                # an elementwise layer passes relevance unchanged
                share = self.opaque(step, trace, rs) if isinstance(step.layer, Opaque) else self.passed(step, rs[0])
                self.hand(step, share.inputs, "r")
                self.seen.update({k.key: share.states[k.state] for k in self.keep if k.state and k.tensor == step.key})
                for kind, amount in share.absorbed.items():
                    self.absorbed.add(step, kind, amount, outputs[0])
        for end in scope.ends:
            self.settle(end)
        self.look([*scope.ends, *scope.leaves])

    def look(self, names: Sequence[str]) -> None:
        """Keep what has arrived at tensors: relevance, x·s inside a block, and what is on its way to the lower units there."""
        assert self.scope is not None
        for kept in self.keep:
            name = kept.tensor
            if kept.loop or kept.state or name not in names:
                continue
            total = tf.zeros_like(self.env[name])
            if name in self.r:
                total += self.r[name]
            inside = name in self.scope.leaves or self.scope.roles.get(name) in (Role.INLINE, Role.ROUTE)
            for channel, part in self.s.items():
                if name in part:
                    total += self.read(channel, name, inside=inside) * part[name]
            if name in self.q:  # a share is that of one lower unit
                counts = {} if self.sums is None else self.sums.terms.get(COUNT, {})
                total += self.q[name] * (counts[name] if inside and name in counts else 1.0)
            self.seen[kept.key] = total

    def read(self, channel: Channel, name: str, *, inside: bool) -> Tensor:
        """A tensor as a channel reads it: inside a block the sum of the terms below.

        Of its constant part a bias factor's share is among the even ones.
        """
        measured = None if self.sums is None or not inside else self.sums.terms.get(channel, {}).get(name)
        if measured is None:
            return channel.value(self.env[name])
        assert self.sums is not None
        return measured + (1 - self.policy.bias_factor) * self.sums.constants[channel][name]

    def watched(self, step: Step, trace: Any) -> Any:
        """The trace, asking for the states of a recurrent layer where they are kept; none has relevance before it arrives."""
        if not any(k.state and k.tensor == step.key for k in self.keep):
            return trace
        x, layer = trace.saved["x"], step.layer
        shape = tf.shape(x)
        none = tf.zeros([shape[0], len(layer.backwards), shape[1], layer.hidden], x.dtype)  # type: ignore[attr-defined]
        self.seen.update({k.key: none for k in self.keep if k.state and k.tensor == step.key})
        return dataclasses.replace(trace, saved={**trace.saved, "keep": True})

    def loop(self, step: Step, trace: Any, outputs: Sequence[str]) -> None:
        """Through a nested program: its leaves are tensors of this scope."""
        assert self.scope is not None
        assert self.zero is not None
        layer: Any = step.layer
        scope = self.scope.inner[step.key]
        for output in outputs:
            self.settle(output)
        outside = layer.outside(step.inputs)

        def back(run: Propagation, arriving: Mapping[str, Tensor], t: Tensor) -> None:
            run.absorbed.size, run.zero = self.absorbed.size, self.zero
            run.keep = inside
            self.enter(run, trace, outside, t)
            run.measure()
            for name, r in arriving.items():
                add(run.r, name, r)
            run.backward()

        inside = [dataclasses.replace(k, loop="") for k in self.keep if k.loop == step.key]
        rs = [self.r.get(o) if o in outputs else None for o in step.outputs]
        left = walk(trace, scope, rs, self.zero, back)
        for (kind, leaf), tensor in left.arrived.items():
            add(self.part(kind), outside[leaf], tensor)
        for key, amount in left.absorbed.items():
            self.absorbed.add_sums(key, amount, outputs[0])
        self.seen.update(left.seen)
        for name, _, slot in layer.states:
            if name not in left.states:
                continue
            source = step.inputs[slot] if isinstance(slot, int) else None
            if source is not None and source in self.scope.path:
                add(self.r, source, left.states[name])
            elif source is None or all(d.size != 0 for d in self.vars(source).dims or ()):  # a list of none has no samples either
                place = split_axis(scope.vars[name].dims or (), self.plan.batch)
                self.absorbed.add_sums(f"{step.name}|initial_state", self.absorbed.summed(left.states[name], place), outputs[0])

    def opaque(self, step: Step, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        """Through a layer that has a relevance of its own."""
        layer: Any = step.layer
        rule = self.rules.of(self.scope, step.key)
        return layer.relevance(self.policy if rule is None else dataclasses.replace(self.policy, rule=rule), trace, rs)

    def passed(self, step: Step, r: Tensor) -> Share:
        """Relevance through an elementwise layer: all to its one signal."""
        (signal,) = step.layer.signals([self.vars(n) for n in step.inputs])
        return Share([r if i == signal else None for i in range(len(step.inputs))])

    def hand(self, step: Step, parts: Sequence[Tensor | None], kind: Part) -> None:
        """Give every input its part; at an input off the path relevance ends."""
        assert self.scope is not None
        for index, (name, part) in enumerate(zip(step.inputs, parts, strict=False)):
            if part is None:
                continue
            if name in self.scope.path:
                add(self.part(kind), name, part)
            elif kind == "r":
                lost = step.layer.lost_as(index) if isinstance(step.layer, Opaque) else "constant"
                self.absorbed.add(step, lost, part, name)
            elif isinstance(kind, Channel) and part.dtype.is_floating:
                constant = kind.constant(self.env[name])
                if constant is not None:
                    self.absorbed.add(step, self.constant_kind(name), (1 - self.policy.bias_factor) * constant * part, name)

    def constant_kind(self, name: str) -> str:
        """What a computed term is that carries no relevance: a state if it has the batch axis, else a bias."""
        return "constant" if self.batch_axis(name) is not None else "bias"

    def is_common(self, name: str) -> bool:
        """Whether a tensor carries no relevance and is the same for all samples, so that its own share does not tell them apart."""
        assert self.scope is not None
        batch = self.plan.batch
        return name not in self.scope.path and batch is not None and split_axis(self.vars(name).dims or (), batch) is None

    def leave(self, step: Step, trace: Trace, rs: Sequence[Tensor | None], kind: Part, index: int) -> None:
        """What a routing's input takes that :meth:`is_common`, by sample: where its entries stand in the outputs."""
        layer: Any = step.layer
        x = self.env[step.inputs[index]]
        value = tf.ones_like(x) if kind == "r" else kind.constant(x)
        if value is None:
            return
        others = [self.env[n] for n in step.inputs]
        alone = [value if i == index else tf.zeros_like(o) if o.dtype.is_floating else o for i, o in enumerate(others)]
        part = 1.0 if kind == "r" else 1 - self.policy.bias_factor
        for name, r, there in zip(step.outputs, rs, layer.move(trace, alone, constants=False), strict=False):
            if r is not None:
                self.absorbed.add(step, "constant" if kind == "r" else "bias", part * there * r, name)

    def route(self, step: Step, trace: Trace, outputs: Sequence[str]) -> None:
        layer: Any = step.layer
        for kind, part in self.parts():
            rs = [part.get(o) if o in outputs else None for o in step.outputs]
            if all(r is None for r in rs):
                continue
            shares = list(layer.route(trace, rs))
            if kind == "q":
                self.hand(step, shares, kind)
                continue
            for index, source in enumerate(step.inputs):
                if shares[index] is not None and self.is_common(source):
                    shares[index] = None
                    self.leave(step, trace, rs, kind, index)
            self.hand(step, shares, kind)
            for constant, r in layer.lost(trace, rs):
                if kind == "r":
                    self.absorbed.add(step, "constant", r, step.outputs[0])
                elif (value := kind.constant(constant)) is not None:
                    self.absorbed.add(step, "bias", (1 - self.policy.bias_factor) * value * r, step.outputs[0])

    def affine(self, step: Step, trace: Trace, name: str) -> None:
        layer: Any = step.layer
        linear = layer.linear(trace)
        assert self.scope is not None
        role = self.scope.roles[name]
        if role is Role.SELECT:
            # m·a + (1 − m)·b: each entry's relevance goes to the side its mask selects
            self.settle(name)
            parts = {}
            for term, mask in self.scope.selections[name]:
                part = self.r[name] * self.env[mask]
                if self.is_common(term):
                    self.absorbed.add(step, "constant", part, name)
                else:
                    parts[term] = unbroadcast(part, self.env[term])
            self.hand(step, [parts.get(n) for n in step.inputs], "r")
            return
        if role is Role.PASS:
            self.settle(name)
        if name in self.r and role in (Role.PASS, Role.INLINE):  # no sum from here down to the leaves
            self.hand(step, linear.mapped(tf.ones_like).pull(self.r[name]), "r")
        if role is Role.PASS:
            return
        if role is Role.ROOT:
            self.settle(name)
            cotangents, q = self.root(step, name)
        else:
            cotangents = {channel: part[name] for channel, part in self.s.items() if name in part}
            q = self.q.get(name)
        for channel, s in cotangents.items():
            bias = layer.bias(trace)
            constant = None if bias is None else channel.constant(bias)
            if constant is not None:
                self.absorbed.add(step, "bias", (1 - self.policy.bias_factor) * constant * s, name)
            self.end_branches(step, linear, name, channel, s)
        if q is not None:
            for index, part in enumerate(linear.mapped(tf.ones_like).pull(q)):
                if part is not None and step.inputs[index] in self.scope.path:
                    add(self.r if index in layer.operands else self.q, step.inputs[index], part)

    def root(self, step: Step, name: str) -> tuple[Mapping[Channel, Tensor], Tensor | None]:
        """Relevance at a block's root becomes cotangents, and an even share where there is a bias factor."""
        rule = self.rules.of(self.scope, name) or Epsilon(self.policy.epsilon)
        sums = {channel: self.sums.total(channel, name) for channel in rule.needs} if self.sums is not None else {}
        delta = self.policy.bias_factor
        shares = rule.share(self.env[name], sums, self.r[name])
        self.absorbed.add(step, "stabilizer", (1 - delta) * shares.stabilizer, name)
        if shares.lost is not None:
            self.absorbed.add(step, "rule", shares.lost, name)
        if not delta:
            return shares.cotangents, None
        assert self.sums is not None
        constant = shares.stabilizer
        for channel, s in shares.cotangents.items():
            constant += self.sums.constants[channel][name] * s
        return shares.cotangents, self.even(step, delta * constant, name)

    def end_branches(self, step: Step, linear: LinearMap, output: str, channel: Channel, s: Tensor) -> None:
        """Cotangents of an affine layer's inputs: relevance at operands of weights, cotangents elsewhere.

        A computed term that carries no relevance leaves, by linearity, (the map of that term alone) · s at the output.
        """
        layer: Any = step.layer
        assert self.scope is not None
        linear = linear if channel.function is None else linear.mapped(channel.function)
        for index, part in enumerate(linear.pull(s)):
            if part is None:
                continue
            name = step.inputs[index]
            if name not in self.scope.path:
                constant = channel.constant(self.env[name])
                if constant is None:
                    continue
                alone = [constant if i == index else tf.zeros_like(self.env[n]) for i, n in enumerate(step.inputs)]
                self.absorbed.add(step, self.constant_kind(name), (1 - self.policy.bias_factor) * linear.call(alone) * s, output)
            elif index in layer.operands:
                add(self.r, name, channel.value(self.env[name]) * part)
            else:
                add(self.part(channel), name, part)

    def measure(self) -> None:
        """The sums that the rules of this scope, or a bias factor, ask for."""
        assert self.scope is not None
        channels = self.rules.channels(self.scope, bias_factor=bool(self.policy.bias_factor))
        if channels:
            self.sums = self.sums or Sums(self.scope)
            self.sums.add(channels, self.steps, self.traces, self.env)

    def enter(self, run: Propagation, trace: Loop, outside: Mapping[str, str], t: Tensor) -> None:
        """A body knows the sums behind its leaves: those of the tensors outside."""
        assert self.scope is not None
        if self.sums is None:
            return
        rows = {row.name: row for row in trace.layer.rows}
        assert run.scope is not None
        run.sums = Sums(run.scope)
        for ours, theirs in ((self.sums.terms, run.sums.terms), (self.sums.constants, run.sums.constants)):
            for channel, measured in ours.items():
                for leaf, name in outside.items():
                    if name in measured and (name in self.scope.leaves or self.scope.roles.get(name) in INSIDE):
                        row = rows.get(leaf)
                        part = measured[name] if row is None else trace.row(row, run, t, measured[name])
                        theirs.setdefault(channel, {})[leaf] = part

    def even(self, step: Step, share: Tensor, name: str) -> Tensor:
        """A root's shares, averaged over its last axis unless that is the batch, per lower unit; absorbed where there is none.

        The block with all weights 1 counts the units that feed a position, and its transpose spreads a share over them.
        """
        assert self.sums is not None
        dims = self.vars(name).dims or ()
        if dims and not dims[-1].has(self.plan.batch):
            share = tf.zeros_like(share) + tf.reduce_mean(share, -1, keepdims=True)
        counts = self.sums.terms[COUNT][name]
        self.absorbed.add(step, "bias", tf.where(tf.equal(counts, 0), share, tf.zeros_like(share)), name)
        return tf.math.divide_no_nan(share, counts)
