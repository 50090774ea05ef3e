"""The engine: layers in topological order as one TensorFlow program, forward and backward by rules."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from ._lazy import tf
from .affine import Role, Scope
from .batches import is_light
from .composites import Assignment
from .dims import split_axis
from .hidden import Kept
from .layer import Affine, Opaque, PerSample, Routing, Share, Trace, unbroadcast
from .linear import LinearMap
from .nested import Nested, Step
from .order import orders, to_samples
from .plan import Plan
from .precision import PRECISIONS, tensor_float_32
from .recurrence import Recurrent
from .registry import Var, is_float
from .rules import COUNT, Channel, Epsilon, Policy
from .seeds import Target, at_own_step, classes, scores_of, start
from .steps import Loop, walk
from .steps import forward as steps_forward
from .sums import INSIDE, Sums

__all__ = ["Asked", "Program"]

Tensor = Any
Part = Any  # "r", "q" or a Channel
ALIGNED = 64  # bytes: an address that TensorFlow reads at is a multiple of it
OFTEN = 3  # calls of one shape after which it is worth seconds of compilation
PROGRAMS = 12  # compiled programs of one plan; a text reader's many lengths stay with the graph


def _add(into: dict[str, Tensor], name: str, value: Tensor | None) -> None:
    if value is not None:
        into[name] = into[name] + value if name in into else value


def _tensor(array: np.ndarray) -> Tensor:
    """Of an array, which is copied once, to where TensorFlow may read it; ``tf.constant`` copies twice and takes far longer."""
    if array.dtype.kind not in "fiu" or not array.size:
        return tf.constant(array)
    raw = np.empty(array.nbytes + ALIGNED, np.uint8)
    start = -raw.ctypes.data % ALIGNED
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return tf.experimental.dlpack.from_dlpack(copy.__dlpack__())


def _each(function: Any, index: Tensor) -> dict[str, Any]:
    """``function`` of every class, (K, positions), its results stacked: K ways back behind one forward pass."""
    if tf.executing_eagerly():
        return tf.nest.map_structure(lambda *parts: tf.stack(parts), *[function(row) for row in tf.unstack(index)])
    # the structure and the shapes of what comes back are told by one class, traced apart
    row = tf.TensorSpec(index.shape[1:], index.dtype)
    like = tf.function(function, autograph=False).get_concrete_function(row).structured_outputs
    return tf.map_fn(function, index, fn_output_signature=tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), like))


def _ends_early(steps: Sequence[Step]) -> bool:
    nested = [step.layer for step in steps if isinstance(step.layer, Nested)]
    return any(n.going is not None or n.start is not None or _ends_early(n.body.steps) for n in nested)


class Program:
    """A plan under one rule and precision, traced at most once a signature.

    Args:
        plan: what to run.
        policy: how sums are stabilized, gates share, biases are treated.
        rules: the rule of every affine block and recurrent layer.
        precision: one of :data:`onnx_lrp.precision.PRECISIONS`.
        jit: "graph" (tf.function), "xla" (compiled, one program a shape), "eager", or "auto" (see ``load``).
        device: a TensorFlow device name, None: TensorFlow's own placement.
    """

    def __init__(
        self, plan: Plan, *, policy: Policy, rules: Assignment, precision: str, jit: str, device: str | None = None
    ) -> None:
        self.plan = plan
        self.policy = policy
        self.rules = rules
        self.precision = PRECISIONS[precision]
        self.dtype = self.precision.dtype
        self.device = device
        with self._placed():
            self.parameters = self._tensors(plan.steps)
            self.constants = {
                name: tf.constant(self._cast(plan.graph.constants[name])) for name in plan.outputs if name in plan.graph.constants
            }
        self._modes: dict[Any, Any] = {}
        # XLA's arrays have a fixed size: a loop that a condition may end early can't be compiled
        self._static = not _ends_early(plan.steps)
        self._jit = "graph" if jit == "xla" and not self._static else jit
        self._calls: dict[Any, int] = {}
        self._lock = threading.RLock()  # one trace at a time: threads that share a program ask for the same ones
        self._compiled: set[Any] = set()

    @property
    def static(self) -> bool:
        """Whether it can be compiled, as far as is known."""
        return self._static

    def _tensors(self, steps: Sequence[Step]) -> list[Any]:
        """The parameters of every step; of a loop also those of its body's steps, and results that are constant."""
        out: list[Any] = []
        for step in steps:
            own: Any = {k: tf.constant(self._cast(v)) for k, v in step.layer.tensors().items()}
            if self.precision.weights is not None:
                own |= {k: tf.cast(own[k], self.precision.weights) for k in step.layer.matrices if k in own}
            if isinstance(step.layer, Nested):
                body = step.layer.body
                constants = {k: tf.constant(self._cast(v)) for k, v in body.constants.items()}
                own = {"own": own, "constants": constants, "steps": self._tensors(body.steps)}
            out.append(own)
        return out

    def _placed(self) -> Any:
        return tf.device(self.device) if self.device else contextlib.nullcontext()

    def _cast(self, array: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # what is too large for float32 shows up as the layer that is not finite
            return array.astype(self.dtype, copy=False) if is_float(array.dtype) else array

    def _feed(self, name: str, array: np.ndarray) -> np.ndarray:
        """A fed tensor as its readers take it: a quantized one computed elsewhere is held in floating point, too."""
        var = self.plan.vars.get(name)
        return array.astype(self.dtype, copy=False) if var is not None and var.is_float else self._cast(array)

    def __call__(
        self, feeds: Mapping[str, np.ndarray], target: Target, keep: tuple[Kept, ...] = (), segment: int | None = None
    ) -> dict[str, Any]:
        """Run forward and backward.

        Args:
            feeds: every tensor of ``plan.feeds``; float ones are cast to the precision.
            target: mode "forward" for the outputs alone, "scores" for the explained tensor too.
            keep: where else relevance is looked at.
            segment: steps between the states that recurrent layers keep, None: they keep every step.

        Returns:
            outputs {name: array}, and unless "forward" relevance {point: array}, hidden {key: array}, absorbed
            {(layer, kind): (B,)}, seed (B,), index, shape of the scores. Where the target is several classes, all but the outputs
            have a leading axis.
        """
        asked = Asked.of(target, keep)
        segment = None if any(k.state for k in keep) else segment

        def body(tensors: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Any]:
            return self.forward(tensors, segment=segment).result(asked, given)

        return self.call((asked, segment), body, feeds, target.arrays, may_compile=segment is None)

    def call(
        self, key: Any, body: Any, feeds: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], *, may_compile: bool = False
    ) -> Any:
        """``body(feeds, given)`` on tensors: in this precision, on this device, traced at most once a ``key`` and signature.

        ``may_compile``: where ``jit`` is "auto", it may be compiled.
        """
        with self._placed(), tensor_float_32(self.precision.tensor_float):
            tensors = {n: _tensor(self._feed(n, np.asarray(v))) for n, v in feeds.items()}
            extra = {n: _tensor(self._cast(v)) for n, v in given.items()}
            xla = self._jit == "xla" or (may_compile and self._jit == "auto" and self._pays(key, tensors, extra))
            try:
                result = self._function(key, body, tensors, extra, xla=xla)(tensors, extra)
            except tf.errors.OpError:
                if not xla or self._jit == "xla":
                    raise
                self._static = False  # an op of this model can't be compiled, and nobody asked for it
                result = self._function(key, body, tensors, extra, xla=False)(tensors, extra)
        return tf.nest.map_structure(lambda t: t.numpy(), result)

    def tensors(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every tensor of a forward pass, run eagerly: to find out where it went wrong."""
        with self._placed(), tensor_float_32(self.precision.tensor_float):
            run = self.forward({n: tf.constant(self._feed(n, np.asarray(v))) for n, v in feeds.items()})
        return {n: t.numpy() for n, t in run.env.items() if hasattr(t, "numpy")}

    def _function(self, name: Any, body: Any, tensors: Mapping[str, Tensor], given: Mapping[str, Tensor], *, xla: bool) -> Any:
        if self._jit == "eager":
            return body
        # compiled programs are made for one shape; a graph for any
        specs = {n: tf.TensorSpec(t.shape if xla else self._open(n, t), t.dtype) for n, t in tensors.items()}
        more = {n: tf.TensorSpec(t.shape if xla else [None] * t.shape.rank, t.dtype) for n, t in given.items()}
        key = (name, xla, *((n, tuple(spec.shape)) for n, spec in (*specs.items(), *more.items())))
        if key not in self._modes:
            with self._lock:
                if key not in self._modes:
                    function = tf.function(body, jit_compile=xla, autograph=False)
                    self._modes[key] = function.get_concrete_function(specs, more)
        return self._modes[key]

    def _pays(self, key: Any, tensors: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> bool:
        """Whether a call is compiled: few samples, this shape for the third time, and not too many shapes so far."""
        if not self._static or not is_light(self.plan, tensors):
            return False
        call = (key, *((name, tuple(tensor.shape)) for name, tensor in (*tensors.items(), *given.items())))
        with self._lock:
            self._calls[call] = self._calls.get(call, 0) + 1
            if self._calls[call] >= OFTEN and len(self._compiled) < PROGRAMS:
                self._compiled.add(call)
            return call in self._compiled

    def _open(self, name: str, tensor: Tensor) -> list[int | None]:
        """The shape a graph is traced for: sizes are fixed only where the file says so and nothing may vary them."""
        dims = self.plan.vars[name].dims
        if dims is None or len(dims) != tensor.shape.rank:
            return [None] * tensor.shape.rank
        batch = self.plan.batch
        return [None if d.size is None or d.has(batch) or d.size != n else d.size for d, n in zip(dims, tensor.shape, strict=True)]

    def forward(self, feeds: Mapping[str, Tensor], only: Container[str] | None = None, segment: int | None = None) -> _Run:
        """A forward pass on tensors; what is fed is not computed. ``only``: keys of the steps to run, None: all."""
        steps, parameters = self.plan.steps, self.parameters
        if segment is not None:
            steps = tuple(self._segmented(step, segment) for step in steps)
        if only is not None:
            chosen = [k for k, step in enumerate(steps) if step.key in only]
            steps, parameters = tuple(steps[k] for k in chosen), [parameters[k] for k in chosen]
        tensors = {**self.constants, **feeds}
        run = _Run(self.plan, self.policy, self.rules, self.plan.scope, steps, parameters, tensors, self.dtype)
        run.order = orders(steps, self.plan.vars, run.env, self.plan.batch)
        return run

    def _segmented(self, step: Step, segment: int) -> Step:
        """A recurrent layer that keeps its states every so many steps, and makes Y only if somebody reads it."""
        if not isinstance(step.layer, Recurrent):
            return step
        read = {name for other in self.plan.steps for name in other.inputs} | {*self.plan.outputs, self.plan.explained}
        layer = dataclasses.replace(step.layer, segment=segment, silent=not step.outputs or step.outputs[0] not in read)
        return dataclasses.replace(step, layer=layer)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a program is traced for: mode and number of classes of the target, whether it is one time step, what is kept."""

    mode: str
    count: int
    single: bool
    keep: tuple[Kept, ...] = ()

    @classmethod
    def of(cls, target: Target, keep: tuple[Kept, ...] = ()) -> Asked:
        """Of a target."""
        return cls(target.mode, target.count, target.steps is not None and target.steps.size == 1, keep)


class _Run:
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
        self.absorbed: dict[str, Tensor] = {}
        self.sums: Sums | None = None
        self.order: dict[str, Tensor] = {}  # which samples stand where, where they are moved
        self.keep: Sequence[Kept] = ()
        self.seen: dict[str, Tensor] = {}  # what is kept, by its key
        self.size: Tensor | None = None
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

        def make(given: Mapping[str, Tensor]) -> _Run:
            feeds = {**tensors["constants"], **given}
            return _Run(self.plan, self.policy, self.rules, scope, layer.body.steps, tensors["steps"], feeds, self.dtype)

        return steps_forward(step, xs, tensors["own"], self.dtype, make, trips=self.plan.graph.limits.trips)

    def result(self, asked: Asked, given: Mapping[str, Tensor]) -> dict[str, Any]:
        """See :meth:`Program.__call__`."""
        plan, env, mode = self.plan, self.env, asked.mode
        result: dict[str, Any] = {"outputs": {n: env[n] for n in plan.outputs if n in env}}
        if mode == "forward":
            return result
        scores = env[plan.explained]
        if mode == "scores":
            return {**result, "scores": scores}
        like = scores_of(plan)
        index = classes(mode, given, asked.count, scores, like)
        mask = self.positions(scores, given.get("steps"), like.time)
        self.measure()

        def explained(chosen: Tensor) -> dict[str, Any]:
            seed = start(mode, given, chosen, scores, like)
            return self.explained(seed if mask is None else seed * tf.cast(mask, scores.dtype), asked.keep)

        if mode in ("all", "top", "bottom"):
            result |= _each(explained, index)
        else:
            result |= explained(index)
        return {**result, "index": self.reported(asked, index, mask), "shape": tf.shape(scores)}

    def reported(self, asked: Asked, index: Tensor, mask: Tensor | None) -> Tensor:
        """The explained classes as the caller sees them: of one time step, those at it."""
        if not asked.single:
            return index
        like = scores_of(self.plan)
        assert mask is not None
        assert like.time is not None
        chosen = mask if like.class_axis is None else tf.squeeze(mask, [like.class_axis])
        time = like.time - (like.class_axis is not None and like.class_axis < like.time)
        return at_own_step(index, tf.cast(chosen, tf.int64), time)

    def explained(self, seed: Tensor, keep: Sequence[Kept]) -> dict[str, Any]:
        """Backward from a seed tensor; may be asked again."""
        plan = self.plan
        self.r, self.s, self.q, self.absorbed, self.seen = {plan.explained: seed}, {}, {}, {}, {}
        self.keep, self.size = keep, None
        total = self.per_sample(seed, plan.explained)
        self.zero = zero = tf.zeros_like(total)
        self.size = tf.size(total)
        self.backward()
        return {
            "relevance": {p: self.r.get(p, tf.zeros_like(self.env[p])) for p in plan.points},
            "absorbed": {k: v + zero for k, v in self.absorbed.items()},
            "seed": total,
            "hidden": {k.key: self.seen.get(k.key, tf.zeros([0], total.dtype)) for k in keep},
        }

    def positions(self, scores: Tensor, steps: Tensor | None, time: int | None) -> Tensor | None:
        """Which positions of the scores are explained, broadcastable to them: none that is padding, and of time only ``steps``."""
        plan, batch = self.plan, self.plan.batch_axis(self.plan.explained)
        lengths = None if batch is None or plan.time_axis(plan.explained) != time else plan.lengths
        if time is None or (lengths is None and steps is None):
            return None
        shape = tf.shape(scores)
        at = tf.range(shape[time])[None]  # (1, T)
        ends = shape[time] * tf.ones([1, 1], tf.int32) if lengths is None else self.ends(lengths)[:, None]
        mask = at < ends  # (B or 1, T)
        if steps is not None:
            wanted = tf.cast(steps, tf.int32)
            wanted = tf.where(wanted < 0, ends + wanted, wanted)  # (B or 1, S)
            mask &= tf.reduce_any(at[:, :, None] == wanted[:, None], 2)
        if batch is not None and batch > time:
            mask = tf.transpose(mask)
        sizes = [shape[a] if a == time else -1 if a == batch else 1 for a in range(scores.shape.rank)]
        return tf.reshape(mask, tf.stack(sizes))

    def ends(self, lengths: str) -> Tensor:
        """(B,) lengths of the sequences, as the samples stand in the explained tensor."""
        readers = [self.order[step.outputs[0]] for step in self.steps if lengths in step.inputs and step.outputs[0] in self.order]
        ends = tf.cast(self.env[lengths], tf.int32)
        ends = to_samples(ends, readers[0] if readers else None, tf.size(ends))
        explained = self.order.get(self.plan.explained)
        return ends if explained is None else tf.gather(ends, explained)

    def batch_size(self) -> Tensor:
        """B, from a tensor whose batch axis is not merged with another."""
        if self.size is not None:
            return self.size
        for name, tensor in self.env.items():
            for axis, dim in enumerate(self.plan.vars[name].dims or () if name in self.plan.vars else ()):
                if tuple(dim.roots) == (self.plan.batch.root if self.plan.batch else None,):
                    return tf.shape(tensor)[axis]
        raise AssertionError("no tensor has the batch as an axis of its own")

    def per_sample(self, x: Tensor, name: str) -> Tensor:
        """Sum a tensor with the axes of ``name`` to shape (B,)."""
        return self.summed(x, split_axis(self.vars(name).dims or (), self.plan.batch))

    def summed(self, x: Tensor, place: tuple[int, int | None, bool] | None) -> Tensor:
        """(B,): sum over everything but the batch, which stands at ``place``."""
        if place is None:
            return tf.reshape(tf.reduce_sum(x), [1])
        axis, inner, outer = place
        whole = tf.reduce_sum(x, [a for a in range(x.shape.rank) if a != axis])
        if not outer and inner == 1:
            return whole
        if not outer:
            return tf.reduce_sum(tf.reshape(whole, [self.batch_size(), -1]), 1)
        return tf.reduce_sum(tf.reshape(whole, [-1, self.batch_size(), inner or 1]), [0, 2])

    def vars(self, name: str) -> Var:
        assert self.scope is not None
        return self.scope.vars[name]

    def batch_axis(self, name: str) -> int | None:
        dims = self.vars(name).dims
        return None if dims is None else next((i for i, d in enumerate(dims) if d.has(self.plan.batch)), None)

    def absorb(self, step: Step, kind: str, amount: Tensor | PerSample, name: str) -> None:
        if isinstance(amount, PerSample):
            # a layer's own samples: the words of all sentences, where it reads their letters
            layer: Any = step.layer
            own = layer.evidence([self.vars(n) for n in step.inputs]).get("batch")
            if own is None and self.plan.batch is not None:  # a tensor of no known rank; its samples are those of the model
                total = amount.amount
            else:
                total = self.summed(amount.amount, split_axis(() if own is None else (own,), self.plan.batch))
        else:
            total = self.per_sample(amount, name)
        self.lose(f"{step.name}|{kind}", total, name)

    def lose(self, key: str, amount: Tensor, name: str) -> None:
        """Absorbed, (B,), by the places that samples have in the tensor ``name``."""
        if name in self.order:
            amount = to_samples(amount, self.order[name], self.batch_size())
        _add(self.absorbed, key, amount)

    def settle(self, name: str) -> None:
        """A branch of a block ends at this tensor: what arrived as s and as an even share becomes relevance."""
        for channel, part in self.s.items():
            if name in part:
                _add(self.r, name, channel.value(self.env[name]) * part.pop(name))
        if name in self.q:
            _add(self.r, name, self.q.pop(name))

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
                    self.absorb(step, kind, amount, outputs[0])
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

        def back(run: _Run, arriving: Mapping[str, Tensor], t: Tensor) -> None:
            run.size, run.zero = self.size, self.zero
            run.keep = inside
            self.enter(run, trace, outside, t)
            run.measure()
            for name, r in arriving.items():
                _add(run.r, name, r)
            run.backward()

        inside = [dataclasses.replace(k, loop="") for k in self.keep if k.loop == step.key]
        rs = [self.r.get(o) if o in outputs else None for o in step.outputs]
        left = walk(trace, scope, rs, self.zero, back)
        for (kind, leaf), tensor in left.arrived.items():
            _add(self.part(kind), outside[leaf], tensor)
        for key, amount in left.absorbed.items():
            self.lose(key, amount, outputs[0])
        self.seen.update(left.seen)
        for name, _, slot in layer.states:
            if name not in left.states:
                continue
            source = step.inputs[slot] if isinstance(slot, int) else None
            if source is not None and source in self.scope.path:
                _add(self.r, source, left.states[name])
            elif source is None or all(d.size != 0 for d in self.vars(source).dims or ()):  # a list of none has no samples either
                place = split_axis(scope.vars[name].dims or (), self.plan.batch)
                self.lose(f"{step.name}|initial_state", self.summed(left.states[name], place), outputs[0])

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
                _add(self.part(kind), name, part)
            elif kind == "r":
                lost = step.layer.lost_as(index) if isinstance(step.layer, Opaque) else "constant"
                self.absorb(step, lost, part, name)
            elif isinstance(kind, Channel) and part.dtype.is_floating:
                constant = kind.constant(self.env[name])
                if constant is not None:
                    self.absorb(step, self.constant_kind(name), (1 - self.policy.bias_factor) * constant * part, name)

    def constant_kind(self, name: str) -> str:
        """What a computed term is that carries no relevance: a state if it has the batch axis, else a bias."""
        return "constant" if self.batch_axis(name) is not None else "bias"

    def route(self, step: Step, trace: Trace, outputs: Sequence[str]) -> None:
        layer: Any = step.layer
        for kind, part in self.parts():
            rs = [part.get(o) if o in outputs else None for o in step.outputs]
            if all(r is None for r in rs):
                continue
            self.hand(step, layer.route(trace, rs), kind)
            if kind == "q":
                continue
            for constant, r in layer.lost(trace, rs):
                if kind == "r":
                    self.absorb(step, "constant", r, step.outputs[0])
                elif (value := kind.constant(constant)) is not None:
                    self.absorb(step, "bias", (1 - self.policy.bias_factor) * value * r, step.outputs[0])

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
                parts[term] = unbroadcast(self.r[name] * self.env[mask], self.env[term])
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
                self.absorb(step, "bias", (1 - self.policy.bias_factor) * constant * s, name)
            self.end_branches(step, linear, name, channel, s)
        if q is not None:
            for index, part in enumerate(linear.mapped(tf.ones_like).pull(q)):
                if part is not None and step.inputs[index] in self.scope.path:
                    _add(self.r if index in layer.operands else self.q, step.inputs[index], part)

    def root(self, step: Step, name: str) -> tuple[Mapping[Channel, Tensor], Tensor | None]:
        """Relevance at a block's root becomes cotangents, and an even share where there is a bias factor."""
        rule = self.rules.of(self.scope, name) or Epsilon(self.policy.epsilon)
        sums = {channel: self.sums.total(channel, name) for channel in rule.needs} if self.sums is not None else {}
        delta = self.policy.bias_factor
        shares = rule.share(self.env[name], sums, self.r[name])
        self.absorb(step, "stabilizer", (1 - delta) * shares.stabilizer, name)
        if shares.lost is not None:
            self.absorb(step, "rule", shares.lost, name)
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
                self.absorb(step, self.constant_kind(name), (1 - self.policy.bias_factor) * linear.call(alone) * s, output)
            elif index in layer.operands:
                _add(self.r, name, channel.value(self.env[name]) * part)
            else:
                _add(self.part(channel), name, part)

    def measure(self) -> None:
        """The sums that the rules of this scope, or a bias factor, ask for."""
        assert self.scope is not None
        channels = self.rules.channels(self.scope, bias_factor=bool(self.policy.bias_factor))
        if channels:
            self.sums = self.sums or Sums(self.scope)
            self.sums.add(channels, self.steps, self.traces, self.env)

    def enter(self, run: _Run, trace: Loop, outside: Mapping[str, str], t: Tensor) -> None:
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
        self.absorb(step, "bias", tf.where(tf.equal(counts, 0), share, tf.zeros_like(share)), name)
        return tf.math.divide_no_nan(share, counts)
