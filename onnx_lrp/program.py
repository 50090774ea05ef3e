"""The engine: layers in topological order as one TensorFlow program, forward and backward by rules."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np

from ._lazy import tf
from .asked import Asked, answer
from .composites import Assignment
from .hidden import Kept
from .joining import joined
from .nested import Nested, Step
from .order import orders
from .plan import Plan
from .precision import PRECISIONS, tensor_float_32
from .propagation import Propagation
from .recurrence import Recurrent
from .registry import is_float
from .rules import Policy
from .seeds import Target, scores_of
from .steps import checked, within
from .ways import Habits, Way, choose, cores, fixed, programs, shares

__all__ = ["OUTSIDE", "Program", "alike"]

Tensor = Any
Body = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Any]
ALIGNED = 64  # bytes: an address that TensorFlow reads at is a multiple of it
OUTSIDE = "is led to a place that does not exist: an index or a length is outside of what it reads"
WITHIN = "within"  # beside a compiled program's results: whether its indices exist
ROUNDS = 1e3  # units of rounding by which ways may differ, of an output's largest value; another sample changes more


def _tensor(array: np.ndarray) -> Tensor:
    """Of an array, which is copied once, to where TensorFlow may read it; ``tf.constant`` copies twice and takes far longer."""
    if array.dtype.kind not in "fiu" or not array.size:
        return tf.constant(array)
    raw = np.empty(array.nbytes + ALIGNED, np.uint8)
    start = -raw.ctypes.data % ALIGNED
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return tf.experimental.dlpack.from_dlpack(copy.__dlpack__())


def _arrays(result: Any) -> Any:
    """Tensors of nested dicts and lists as arrays; ``tf.nest`` takes as long as a short loop."""
    if isinstance(result, dict):
        return {key: _arrays(value) for key, value in result.items()}
    return type(result)(map(_arrays, result)) if isinstance(result, list | tuple) else result.numpy()


def _ends_early(steps: Sequence[Step]) -> bool:
    nested = [step.layer for step in steps if isinstance(step.layer, Nested)]
    return any(n.condition is not None or n.start is not None or _ends_early(n.body.steps) for n in nested)


def _apart(step: Step) -> Step:
    layer = step.layer
    return dataclasses.replace(step, layer=dataclasses.replace(layer, apart=True)) if isinstance(layer, Recurrent) else step


def alike(expected: Mapping[str, Any], found: Mapping[str, Any], relative: float) -> bool:
    """Whether results differ by rounding at most, relative to the largest value of each; integers not at all."""
    for name, want in expected.items():
        got = found[name]
        if not isinstance(want, np.ndarray) or want.shape != got.shape:
            return False
        if want.dtype.kind == "f" and want.size:
            bound = relative * float(np.abs(want, where=np.isfinite(want), out=np.zeros_like(want)).max())
            if not np.allclose(got, want, rtol=0, atol=bound, equal_nan=True):
                return False
        elif not np.array_equal(got, want):
            return False
    return True


def _sized(run: Propagation) -> Propagation:
    if not fixed(run):
        raise ValueError("sizes depend on values")
    return run


def _scored(result: Mapping[str, Any]) -> dict[str, Any]:
    """What of a result comes of the forward pass: the outputs, and the scores, which may be none of them."""
    return {**result["outputs"], **{("", n): result[n] for n in ("seed", "scores") if n in result}}


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
                name: self._constant(plan.graph.constants[name]) for name in plan.outputs if name in plan.graph.constants
            }
        self._modes: dict[Any, Any] = {}
        # XLA's arrays have a fixed size: a loop that a condition may end early can't be compiled
        self._static = not _ends_early(plan.steps)
        self._jit = "graph" if jit == "xla" and not self._static else jit
        self.habits = Habits()
        self._lock = threading.RLock()  # one trace at a time: threads that share a program ask for the same ones
        self._proven: set[Any] = set()  # what runs in parts with the results of the whole
        self._mixes = False  # parts were found to have other results than the whole

    @property
    def static(self) -> bool:
        """Whether it can be compiled, as far as is known."""
        return self._static

    @property
    def rounding(self) -> float:
        """By how much of its largest value a result may change with how it is run."""
        return max(ROUNDS * float(np.finfo(self.dtype).eps), self.precision.rounds)

    def _tensors(self, steps: Sequence[Step]) -> list[Any]:
        """The parameters of every step; of a loop also those of its body's steps, and results that are constant."""
        out: list[Any] = []
        for step in steps:
            own: Any = {k: tf.nest.map_structure(self._constant, v) for k, v in step.layer.tensors().items()}
            if self.precision.weights is not None:
                rounded = functools.partial(tf.cast, dtype=self.precision.weights)
                own |= {k: tf.nest.map_structure(rounded, own[k]) for k in step.layer.matrices if k in own}
            if isinstance(step.layer, Nested):
                body = step.layer.body
                constants = {k: self._constant(v) for k, v in body.constants.items()}
                own = {"own": own, "constants": constants, "steps": self._tensors(body.steps)}
            out.append(own)
        return out

    def _placed(self) -> Any:
        return tf.device(self.device) if self.device else contextlib.nullcontext()

    def _constant(self, array: np.ndarray) -> Tensor:
        return tf.constant(self._cast(array))

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
        key, given = (asked, segment), target.arrays

        def body(tensors: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Any]:
            return answer(self.forward(tensors, segment=segment), asked, given)

        def told(run: Propagation, given: Mapping[str, Tensor]) -> dict[str, Any]:
            inside = within(run)
            return {**answer(run, asked, given), WITHIN: tf.constant(True) if inside is None else inside}

        def compiled(tensors: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Any]:
            return told(_sized(self.forward(tensors)), given)

        def directions(tensors: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Any]:
            return told(_sized(self.forward(tensors, apart=True)), given)

        def asked_for(tensors: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Any]:
            return told(self.forward(tensors), given)

        def in_parts(tensors: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[dict[str, Any]]:
            return self._in_parts(compiled, target, tensors, given)

        def graph() -> Any:
            return self._run(key, body, feeds, given, Way.GRAPH)

        if self._jit == "xla" and segment is None:
            result = self._run(key, asked_for, feeds, given, Way.WHOLE)
            return result if result.pop(WITHIN) else graph()  # which refuses in words an index that does not exist
        if self._jit != "auto" or segment is not None or not self._static:
            return graph()
        call = (key, *((name, array.shape) for name, array in (*feeds.items(), *given.items())))
        way = self.habits.way(call, lambda: self._choice(feeds))
        if way is Way.PARTS and (self._mixes or (call not in self._proven and not self._telling(feeds))):
            way = Way.GRAPH
        if way is Way.GRAPH:
            return graph()
        bodies: dict[Way, Body] = {Way.WHOLE: compiled, Way.DIRECTIONS: directions, Way.PARTS: in_parts}
        try:
            result = self._run(key, bodies[way], feeds, given, way)
            inside = all(part.pop(WITHIN) for part in (result if way is Way.PARTS else [result]))
            together = joined(self.plan, result, asked) if way is Way.PARTS else result
        except (tf.errors.OpError, ValueError, TypeError):
            result = graph()  # what is wrong with the inputs fails here, too
            self._static = False  # something of this model can't be compiled, and nobody asked for it
            return result
        if not inside:
            return graph()
        if way is Way.PARTS and call not in self._proven:
            whole = graph()
            if not alike(_scored(whole), _scored(together), self.rounding):
                self._mixes = True  # its samples see each other
                self.habits.settle(call, Way.GRAPH)
                return whole
            self._proven.add(call)
        return together

    def _telling(self, feeds: Mapping[str, np.ndarray]) -> bool:
        """Whether parts of these samples differ: a mean of equal samples is that of any part."""
        axes = {name: self.plan.batch_axis(name) for name in feeds}
        for name, axis in axes.items():
            if axis is None or feeds[name].shape[axis] == 1:
                continue
            rows = shares(feeds[name].shape[axis], self._cores())
            few = min(map(len, rows))
            first, *others = (np.take(feeds[name], range(r.start, r.start + few), axis) for r in rows)
            if any(not np.array_equal(first, other) for other in others):
                return True
        return False

    def _choice(self, feeds: Mapping[str, np.ndarray]) -> tuple[Way, int]:
        way, axes = choose(self.plan, feeds, self._cores()), {name: self.plan.batch_axis(name) for name in feeds}
        batch = max([feeds[n].shape[axis] for n, axis in axes.items() if axis is not None], default=1)
        return way, programs(way, batch, self._cores())

    def _cores(self) -> int:
        """Those that programs can share; a GPU's programs run one after the other."""
        return 1 if tf.config.list_logical_devices("GPU") else cores()

    def _in_parts(self, body: Body, target: Target, tensors: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[Any]:
        """``body`` of equal parts of the samples, each a compiled program that runs beside the others."""
        like = scores_of(self.plan)
        axes = {name: self.plan.batch_axis(name) for name in tensors}
        at = like.batch_axis if target.mode == "seed" else like.sample_axis()
        batch = max(t.shape[axes[n]] for n, t in tensors.items() if axes[n] is not None)

        def of(rows: range, tensor: Tensor, axis: int | None) -> Tensor:
            if axis is None or tensor.shape.rank <= axis or tensor.shape[axis] == 1:  # of every sample
                return tensor
            return tensor[(slice(None),) * axis + (slice(rows.start, rows.stop),)]

        compiled = tf.function(body, jit_compile=True, autograph=False)
        return [
            compiled(
                {name: of(rows, tensor, axes[name]) for name, tensor in tensors.items()},
                {name: of(rows, tensor, None if name == "steps" else at) for name, tensor in given.items()},
            )
            for rows in shares(batch, self._cores())
        ]

    def call(self, key: Any, body: Body, feeds: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> Any:
        """``body(feeds, given)`` on tensors: in this precision, on this device, traced at most once a ``key`` and signature."""
        return self._run(key, body, feeds, given, Way.WHOLE if self._jit == "xla" else Way.GRAPH)

    def held(self, feeds: Mapping[str, np.ndarray]) -> None:
        """Refuse indices that don't exist where :meth:`call` would not, in a compiled program."""
        if self._jit == "xla":
            self._run("held", lambda tensors, _: {"y": self.forward(tensors).env[self.plan.explained]}, feeds, {}, Way.GRAPH)

    def _run(self, key: Any, body: Body, feeds: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], way: Way) -> Any:
        with self._placed(), tensor_float_32(self.precision.tensor_float):
            tensors = {n: _tensor(self._feed(n, np.asarray(v))) for n, v in feeds.items()}
            extra = {n: _tensor(self._cast(v)) for n, v in given.items()}
            result = self._function(key, body, tensors, extra, way)(tensors, extra)
        return _arrays(result)

    def tensors(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every tensor of a forward pass, run eagerly: to find out where it went wrong."""
        with self._placed(), tensor_float_32(self.precision.tensor_float):
            run = self.forward({n: tf.constant(self._feed(n, np.asarray(v))) for n, v in feeds.items()})
        return {n: t.numpy() for n, t in run.env.items() if hasattr(t, "numpy")}

    def _function(self, name: Any, body: Body, tensors: Mapping[str, Tensor], given: Mapping[str, Tensor], way: Way) -> Any:
        if self._jit == "eager":
            return body
        # a graph is made for any shape, what is compiled for one
        fixed = way is not Way.GRAPH
        specs = {n: tf.TensorSpec(t.shape if fixed else self._open(n, t), t.dtype) for n, t in tensors.items()}
        more = {n: tf.TensorSpec(t.shape if fixed else [None] * t.shape.rank, t.dtype) for n, t in given.items()}
        key = (name, way, *((n, tuple(spec.shape)) for n, spec in (*specs.items(), *more.items())))
        if key not in self._modes:
            with self._lock:
                if key not in self._modes:
                    function = tf.function(body, jit_compile=way is Way.WHOLE, autograph=False)
                    self._modes[key] = function.get_concrete_function(specs, more)
        return self._modes[key]

    def _open(self, name: str, tensor: Tensor) -> list[int | None]:
        """The shape a graph is traced for: sizes are fixed only where the file says so and nothing may vary them."""
        dims = self.plan.vars[name].dims
        if dims is None or len(dims) != tensor.shape.rank:
            return [None] * tensor.shape.rank
        batch = self.plan.batch
        return [None if d.size is None or d.has(batch) or d.size != n else d.size for d, n in zip(dims, tensor.shape, strict=True)]

    def forward(
        self, feeds: Mapping[str, Tensor], only: Container[str] | None = None, segment: int | None = None, *, apart: bool = False
    ) -> Propagation:
        """A forward pass on tensors; what is fed is not computed.

        Args:
            feeds: as :meth:`__call__` takes them.
            only: keys of the steps to run, None: all.
            segment: as above.
            apart: the loops of recurrent layers are compiled, a program a direction.
        """
        steps, parameters = self.plan.steps, self.parameters
        if segment is not None:
            steps = tuple(self._segmented(step, segment) for step in steps)
        if apart:
            steps = tuple(_apart(step) for step in steps)
        if only is not None:
            chosen = [k for k, step in enumerate(steps) if step.key in only]
            steps, parameters = tuple(steps[k] for k in chosen), [parameters[k] for k in chosen]
        tensors = {**self.constants, **feeds}
        run = Propagation(self.plan, self.policy, self.rules, self.plan.scope, steps, parameters, tensors, self.dtype)
        run.order = orders(steps, self.plan.vars, run.env, self.plan.batch)
        for step, trace in zip(run.steps, run.traces, strict=True):
            inside = checked(step, trace)
            if inside is not None:  # an assertion is lost where a program is compiled
                tf.raw_ops.Assert(condition=inside, data=[f"{step.node.label} {OUTSIDE}"])
        return run

    def _segmented(self, step: Step, segment: int) -> Step:
        """A recurrent layer that keeps its states every so many steps, and makes Y only if somebody reads it."""
        if not isinstance(step.layer, Recurrent):
            return step
        read = {name for other in self.plan.steps for name in other.inputs} | {*self.plan.outputs, self.plan.explained}
        layer = dataclasses.replace(step.layer, segment=segment, silent=not step.outputs or step.outputs[0] not in read)
        return dataclasses.replace(step, layer=layer)
