"""Explainer and Explanation: the public way in and the result."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from . import ragged
from .batches import Schedule, checked, exhausted, parts, schedule, splits, within
from .branches import Branches, guesses, is_open
from .composites import Assignment, Composite, assign, make_composite
from .errors import InputError, InvalidModel, ModelError, OnnxLrpError, ParityError, RuleError
from .explanation import Explanation
from .export import Export
from .graph import Graph, Value, contradiction, load_graph
from .hidden import Kept, resolve
from .inputs import prepare_inputs
from .labels import Labelled
from .limits import Limits
from .locate import check_weights, first_different, infinite_in_engine, infinite_in_runtime, mistyped, place, refusal
from .methods import LRP, OPTIONS, Method, attribute, prepare_method
from .ops.quantize import limits
from .parity import QUANTIZED, differences, is_quantized, rounding, tolerance
from .plan import Plan, make_plan
from .precision import PRECISIONS
from .program import Program
from .progress import Progress, track, watched
from .registry import is_float
from .rules import Policy, Rule, make_rule
from .runtime import Runtime
from .scaling import scaled
from .seeds import Target, prepare, scores_of
from .summary import Summary, canonical_weights, summarize
from .targets import Output, Seed, Spec, seed

__all__ = ["Explainer", "explain", "load"]

Model = Any  # str | os.PathLike[str] | bytes | onnx.ModelProto
JITS = ("auto", "xla", "graph", "eager")
VERIFY = ("first", "always", "never")
AT_ONCE = 3  # groups of sequences; more of them gain little on two cores
OVER = "over the limit trips"  # an assertion inside a TensorFlow program
UNVERIFIED = "onnxruntime can't load this model, so nothing is held against it"
BRANCHES = "{} condition(s) are decided by the inputs of each call; shown is one of the ways that it may go"


def load(
    model: Model,
    *,
    rule: str | Rule = "epsilon",
    epsilon: float = 1e-3,
    bias_factor: float = 0.0,
    gates: str = "all",
    composite: str | Composite | Sequence[Any] | None = None,
    at: str | Sequence[str] | None = None,
    output: str | None = None,
    from_probabilities: bool = False,
    batch_axis: int | Mapping[str, int] | None = None,
    precision: str = "float32",
    device: str | None = None,
    jit: str = "auto",
    verify: str = "first",
    max_bytes: int | None = None,
    checkpoint: str | int = "auto",
    limits: Limits | None = None,
    custom_ops: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
) -> Explainer:
    """Read a model and decide how it is explained. Cheap: TensorFlow is not imported before the first run.

    Args:
        model: path of a ``.onnx`` file, its bytes, or a ``ModelProto``.
        rule: of every layer with weights: "epsilon" (Bach et al. 2015, eq. 58), "gamma", "alpha-beta", "zplus", "flat", "wsquare",
            "zbox", or a :class:`Rule` with its parameters.
        epsilon: stabilizer ε ≥ 0.
        bias_factor: share δ in [0, 1] of bias and stabilizer that goes evenly to the lower units (Arras et al. 2017).
        gates: "all": the signal of a gated product takes all its relevance (Arras et al. 2017); "half", "prop", "abs": the gate
            gets a share (Arras et al. 2019).
        composite: instead of ``rule``, ``epsilon`` and ``bias_factor``: which rule for which layer, as a preset's name, a list of
            (match, rule), or a :class:`Composite`.
        at: internal float tensor(s) to attribute to, instead of the inputs.
        output: the graph output to explain; default: the first float one that depends on the inputs.
        from_probabilities: start behind a final softmax or sigmoid instead of before it.
        batch_axis: axis of the samples (of the first input, or by input name), where the file leaves it open.
        precision: "float32" or "float64", of everything the engine computes; "tf32": float32, but a GPU may round the factors of
            products to 10 bits of fraction; "bfloat16": the matrices of dense and recurrent layers are held and multiplied in
            bfloat16 (7 bits), all else in float32. The last two are for many samples at a few digits; see docs/performance.md.
        device: TensorFlow device such as "/GPU:0"; default: TensorFlow's own placement.
        jit: "graph" (a TensorFlow graph for all sizes), "xla" (compiled anew for every shape), "eager", or "auto": a graph, and
            from the third call on with one shape of few samples compiled, where that is faster; the two differ by rounding.
        verify: compare the forward pass with onnxruntime's on the "first" batch, "always" or "never".
        max_bytes: what a run may keep in memory for its way back, estimated; a larger batch is run in parts. Default: 512 MiB, or a
            quarter of what is free.
        checkpoint: "auto": where not even a few samples fit, recurrent layers keep their states only every so many steps and run
            these again on the way back; a number: that many steps; "never".
        limits: what the model may ask for; see :class:`Limits`.
        custom_ops: your own shared libraries of custom ops for onnxruntime, which computes with them what relevance does not pass,
            and what the forward pass is compared with. They run as code of this process; nothing a model says loads one.

    Raises:
        ModelError: the model can't be read or explained; InvalidModel: it contradicts itself.
        RuleError: a rule or its parameters don't exist.
        InputError: another option doesn't fit this model.
    """
    policy, which = _rules(rule, epsilon, bias_factor, gates, composite)
    for name, value, known in (("precision", precision, PRECISIONS), ("jit", jit, JITS), ("verify", verify, VERIFY)):
        if value not in known:
            raise InputError(f"{name}={value!r} does not exist; one of {', '.join(known)}")
    checked(max_bytes, checkpoint)
    if limits is not None and not isinstance(limits, Limits):
        raise InputError(f"limits must be an onnx_lrp.Limits, got {type(limits).__name__}")
    libraries = _libraries(custom_ops)
    choose: dict[str, Any] = {"at": at, "output": output, "from_probabilities": from_probabilities, "batch_axis": batch_axis}
    choose["gates"] = gates
    run = {"policy": policy, "composite": which, "precision": precision, "device": device, "jit": jit, "verify": verify}
    run |= {"max_bytes": max_bytes, "checkpoint": checkpoint}
    try:
        graph = dataclasses.replace(load_graph(model, limits), custom_ops=libraries)
        return Explainer(graph, _first_plan(graph, choose), choose=choose, run=run)
    except (OnnxLrpError, MemoryError):
        raise
    except Exception as error:  # a model that contradicts itself where nothing here looked, or a bug
        if complaint := contradiction(model):
            raise InvalidModel(f"the model contradicts the ONNX standard: {complaint}") from error
        raise


def _libraries(custom_ops: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    """Absolute paths of libraries that are files: the loader of the system would search for a bare name where it likes."""
    given = [custom_ops] if isinstance(custom_ops, str | os.PathLike) else list(custom_ops)
    paths = [os.path.abspath(library) for library in given]
    for path in paths:
        if not os.path.isfile(path):
            raise InputError(f"custom_ops: {path}: no such file; expected a shared library of custom ops for onnxruntime")
    return tuple(paths)


def _first_plan(graph: Graph, choose: Mapping[str, Any]) -> Plan:
    """The plan of a graph, or of the first of the ways it may go that can be read."""
    complaint: ModelError | None = None
    for candidate, unknown in guesses(graph):
        try:
            plan = _plan(candidate, choose)
        except ModelError as error:
            complaint = complaint or error
            continue
        return dataclasses.replace(plan, notes=(*plan.notes, BRANCHES.format(unknown))) if unknown else plan
    assert complaint is not None
    raise complaint


def _rules(rule: str | Rule, epsilon: float, bias_factor: float, gates: str, composite: Any) -> tuple[Policy, Composite]:
    """What was asked for, as one policy and one composite."""
    if composite is None:
        own = make_rule(rule, epsilon)
        return Policy(own.epsilon if isinstance(rule, Rule) else epsilon, bias_factor, gates), Composite((), own)
    if (rule, epsilon, bias_factor) != ("epsilon", 1e-3, 0.0):
        raise RuleError("a composite stands instead of rule, epsilon and bias_factor: give either")
    made = make_composite(composite)
    return Policy(made.default.epsilon, 0.0, gates), made


def _plan(graph: Graph, choose: Mapping[str, Any]) -> Plan:
    plan = make_plan(graph, **choose)
    check_weights(plan)
    if is_quantized(plan):
        plan = dataclasses.replace(plan, notes=(*plan.notes, QUANTIZED))
    return plan


def explain(model: Model, inputs: Any, target: Any = None, *, keep: str | Sequence[str] = (), **options: Any) -> Explanation:
    """:func:`load` and :meth:`Explainer.explain` in one call, with the options of both.

    Raises:
        OnnxLrpError: as these two do.
    """
    chosen = {k: options.pop(k) for k in ("method", "progress", *OPTIONS) if k in options}
    return load(model, **options).explain(inputs, target, keep=keep, **chosen)


def _rows(array: np.ndarray, axis: int | None, rows: range) -> np.ndarray:
    """Some samples; what has no axis of samples, or one entry for all, is for every sample."""
    return array if axis is None or array.shape[axis] == 1 else np.take(array, rows, axis)


def _defined(relevance: Mapping[str, np.ndarray], method: str) -> None:
    for name, array in relevance.items():
        wrong = np.argwhere(~np.isfinite(array))
        if len(wrong):
            where = tuple(int(i) for i in wrong[0])
            raise RuleError(
                f"method {method!r}: {array[where]} at {where} of {name!r} and {len(wrong) - 1} more: the score has no finite "
                "derivative there, as a root or a norm at zero; method='occlusion' and 'lrp' need none"
            )


class Explainer:
    """A model made ready to be explained; made by :func:`load`."""

    def __init__(self, graph: Graph, plan: Plan, *, choose: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        self._graph = graph
        self._plan = plan
        self._choose = choose
        self._options = run
        self._policy: Policy = run["policy"]
        self._composite: Composite = run["composite"]
        self._precision: str = run["precision"]
        self._device: str | None = run["device"]
        self._jit: str = run["jit"]
        self._verify: str = run["verify"]
        self._max_bytes: int | None = run["max_bytes"]
        self._checkpoint: str | int = run["checkpoint"]
        self._verified = False
        self._runtime = Runtime(plan.graph)
        self._branches = Branches(graph) if is_open(graph) else None
        self._variants: dict[Any, Explainer] = {}

    def _variant(self, inputs: Any) -> Explainer:
        """The explainer of the branches that these inputs take."""
        if self._branches is None:
            return self
        feeds = prepare_inputs(inputs, self._plan, sizes=False)
        if set(feeds) != {v.name for v in self._graph.inputs}:  # a cut was entered directly
            return self
        choices, graph = self._branches.take(feeds)
        if choices not in self._variants:
            self._variants[choices] = Explainer(graph, _plan(graph, self._choose), choose=self._choose, run=self._options)
        return self._variants[choices]

    @functools.cached_property
    def _program(self) -> Program:
        return Program(
            self._plan, policy=self._policy, rules=self.plan(), precision=self._precision, jit=self._jit, device=self._device
        )

    def plan(self) -> Assignment:
        """Which rule each affine block and recurrent layer gets; prints as text. Needs no TensorFlow."""
        return assign(self._plan, self._composite)

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The graph inputs to pass."""
        return self._graph.inputs

    def summary(self) -> Summary:
        """What was read: layers, shapes, axes, attribution points, decisions. Needs no TensorFlow."""
        found = summarize(self._plan, self._policy, str(self._composite), self._precision, self.plan())
        reason = self._runtime.unable()
        return dataclasses.replace(found, notes=(*found.notes, f"{UNVERIFIED}: {reason}")) if reason else found

    def weights(self) -> dict[str, dict[str, np.ndarray]]:
        """Canonical weights by layer, gates in the order i, f, c, o. Needs no TensorFlow.

        Returns:
            arrays by layer and part; of an LSTM W_x (D, I, 4H), W_h (D, H, 4H) and b (D, 4H).
        """
        return canonical_weights(self._plan)

    def predict(self, inputs: Any) -> dict[str, np.ndarray]:
        """Forward pass alone.

        Args:
            inputs: as :meth:`explain` takes them.

        Returns:
            every graph output by name, in the model's shapes and dtypes; of sequences of different lengths padded with zeros.

        Raises:
            InputError: the inputs don't fit the model.
        """
        if isinstance(inputs, Labelled):
            inputs = ragged.plain(inputs, self._plan)
        sequences = ragged.read(inputs, self._plan)
        if sequences is not None:
            parts = [(rows, self.predict(sequences.inputs(rows))) for rows in sequences.groups()]
            which, count = [rows for rows, _ in parts], len(sequences.lengths)
            names = [(n, self._plan.batch_axis(n) if n in self._plan.vars else None) for n in parts[0][1]]
            return {n: ragged.together(which, [made[n] for _, made in parts], axis, count) for n, axis in names}
        variant = self._variant(inputs)
        if variant is not self:
            return variant.predict(inputs)
        feeds = prepare_inputs(inputs, self._plan)
        return self._chunks(feeds, Target("forward"), lambda result, feeds: self._outputs(result, feeds))

    def explain(
        self,
        inputs: Any,
        target: Any = None,
        *,
        method: str = LRP,
        keep: str | Sequence[str] = (),
        progress: Progress | None = None,
        **options: Any,
    ) -> Explanation:
        """Explain a batch.

        Args:
            inputs: anything ``np.asarray`` takes if the model has one required input, else ``{graph input: array}``; or in place of
                an array a list of sequences of different lengths, one a sample and without the axis of samples. Or texts
                that :class:`onnx_lrp.text.Tokenizer` encoded, or :class:`onnx_lrp.series.Series`, whose names the explanation
                keeps. With ``at=`` behind an op that onnxruntime can't run: ``{cut tensor: array}``.
            target: None (each sample's predicted class), a class index, or (B,) indices; for a score at every position
                also indices of the positions' shape. Or one of :mod:`onnx_lrp.targets`: time steps, a contrast of two classes,
                all classes at once, the top k, another output, any seed.
            method: "lrp", or as a baseline "gradient", "sensitivity" (the gradient squared), "gradient_x_input",
                "integrated_gradients" or "occlusion".
            keep: names of tensors or layers whose relevance is kept in ``explanation.hidden``; of a recurrent layer also
                ``name:h`` and ``name:c``, (T, D, B, H).
            progress: is called with the share that is done, 0 to 1, now and then where the batch runs in parts.
            options: of the method. ``steps=50``: points on the way that integrated gradients follow. ``baseline=0``: what they
                start from, and what occlusion puts in; a number, an array for the attribution point, or {point: either}.
                ``by="step"`` or ``"feature"``: occlude all features of a time step together, or every entry by itself.

        Returns:
            the :class:`Explanation`; its relevance has the shape of the attribution points. Of a method other than LRP
            nothing is absorbed, and the residual is NaN but for integrated gradients.

        Raises:
            InputError: inputs, target, baseline or a name to keep don't fit the model.
            RuleError: no such method, or an option it does not take.
            ParityError: the forward pass is not onnxruntime's (see ``verify``).
        """
        if isinstance(inputs, Labelled):
            found = self.explain(ragged.plain(inputs, self._plan), target, method=method, keep=keep, progress=progress, **options)
            own = scaled(self._plan.graph)
            also = tuple(point for point in found.relevance if point in own)
            named = also and inputs.labels.features
            return dataclasses.replace(found, labels=dataclasses.replace(inputs.labels, also=also) if named else inputs.labels)
        if progress is not None:
            with watched(progress):
                return self.explain(inputs, target, method=method, keep=keep, **options)
        sequences = ragged.read(inputs, self._plan)
        if sequences is not None:
            return self._ragged(sequences, target, method=method, keep=keep, **options)
        variant = self._variant(inputs)
        if isinstance(target, Output):
            variant, target = variant._at_output(target.name), target.target
        if variant is not self:
            return variant.explain(inputs, target, method=method, keep=keep, **options)
        other = prepare_method(method, options)
        if other is not None and keep:
            raise RuleError(f"method {method!r} keeps nothing inside; keep= is for 'lrp', and at= moves the attribution point")
        feeds = prepare_inputs(inputs, self._plan)
        plan = self._plan
        like = scores_of(plan)
        batch = self._batch(feeds)
        if isinstance(target, Seed):
            target = self._seed(target, feeds)
        ready = prepare(target, like)
        for given in (ready.value, ready.other):
            at = self._samples_of_target()
            if given is None or ready.mode == "seed" or at is None or given.ndim <= at:
                continue
            if given.shape[at] not in (1, batch):
                raise InputError(f"target has {given.shape[at]} entries for {batch} samples")
        kept = resolve(plan, keep)
        raw = self._chunks(feeds, ready, lambda result, part: {**result, "outputs": self._outputs(result, part)}, kept, other)
        absorbed: dict[str, np.ndarray] = {}
        ledger: dict[str, dict[str, np.ndarray]] = {}
        for key, amount in raw["absorbed"].items():
            layer, kind = key.rsplit("|", 1)
            absorbed[kind] = absorbed.get(kind, 0) + np.asarray(amount)
            ledger.setdefault(layer, {})[kind] = np.asarray(amount)
        start = raw["seed"]
        arrived = {p: self._sums(p, r, start.shape) for p, r in raw["relevance"].items()}
        if other is None:
            residual = start.astype(np.float64) - sum(arrived.values()) - sum(np.asarray(a, np.float64) for a in absorbed.values())
        else:
            residual = raw["residual"]
        index = np.arange(len(start)) if ready.mode == "all" else raw["index"]
        if isinstance(target, Spec) and not ready.several and (ready.steps is None or ready.steps.size > 1):
            index = target
        axes = {p: (plan.batch_axis(p), plan.time_axis(p)) for p in plan.points}
        return Explanation(
            relevance=raw["relevance"],
            inputs=feeds,
            outputs=raw["outputs"],
            target=index,
            seed=start,
            absorbed=absorbed,
            ledger=ledger,
            residual=residual,
            axes=axes,
            origins=dict(plan.origins),
            hidden=raw["hidden"],
            arrived=arrived,
            passed={k.key: k.per_sample(plan, raw["hidden"][k.key], start.shape) for k in kept},
            explained=plan.output,
            settings={
                **(self._settings() if other is None else other.settings),
                "precision": self._precision,
                "from_probabilities": bool(plan.options.get("from_probabilities")),
                **({"target": str(target)} if isinstance(target, Spec) else {}),
            },
        )

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        inputs: Any = None,
        shapes: Any = None,
        target: Any = None,
        outputs: str | Sequence[str] | None = None,
        ledger: bool = False,
    ) -> None:
        """Write the whole explanation, forward and back, as a program that others run without onnx-lrp.

        It takes the model's inputs (with ``at=``: that tensor), in the model's dtypes, and returns ``outputs/NAME``,
        ``relevance/POINT`` with the shape of the point, ``absorbed/KIND`` (B,), ``seed`` (B,) and ``index``, the explained class of
        every position; several classes have a leading axis. There inputs are not checked, a batch is not split, and nothing is
        compared with onnxruntime.

        Args:
            path: a folder gets a TensorFlow SavedModel with the signature "serving_default", its batch and time open where the
                file leaves them open, and ``assets.extra/manifest.json``. ``NAME.stablehlo`` gets a zip that ``numpy.load``
                opens: ``program.mlirbc`` (portable StableHLO of fixed shapes), ``weights/K.npy``, and ``manifest.json``, which
                lists arguments (inputs, then weights) and results in order, with shape, dtype, and the axes of batch and time.
            inputs: examples whose shapes are fixed.
            shapes: the same as a shape, or {graph input: shape}.
            target: None (the predicted class), a class index, one of :mod:`onnx_lrp.targets` but a seed; or "input": the artifact
                has an argument ``target``, int64, one class a position, (B,) for one score a sample.
            outputs: the graph outputs that it returns; default: all.
            ledger: absorbed relevance as ``absorbed/LAYER|KIND``.

        Raises:
            UnsupportedModel: onnxruntime or a branch has a part in this explanation, or it can't be compiled.
            InputError: shapes are missing or don't fit, or a target that is no part of an artifact.
        """
        if isinstance(target, Output):
            return self._at_output(target.name).export(
                path, inputs=inputs, shapes=shapes, target=target.target, outputs=outputs, ledger=ledger
            )
        at = self._choose["at"]
        artifact = Export(
            plan=self._plan,
            program=self._program,
            cut=(at,) if isinstance(at, str) else tuple(at or ()),
            branches=self._branches is not None,
            xla=self._jit == "xla",
            segment=None if isinstance(self._checkpoint, str) else int(self._checkpoint),
            settings={
                **self._settings(),
                "precision": self._precision,
                "from_probabilities": bool(self._plan.options.get("from_probabilities")),
                "target": "predicted class" if target is None else str(target),
            },
        )
        artifact.write(path, inputs=inputs, shapes=shapes, target=target, outputs=outputs, ledger=ledger)

    def _ragged(self, given: ragged.Ragged, target: Any, **options: Any) -> Explanation:
        """Sequences of different lengths, group by group."""
        plan, count = self._plan, len(given.lengths)

        def explained(rows: np.ndarray) -> tuple[np.ndarray, Explanation]:
            return rows, self.explain(given.inputs(rows), ragged.part_of_target(target, rows, count), **options)

        # groups are narrow: side by side they fill the cores. A function of the caller's, or a budget, is for one at a time
        alone = isinstance(target, Seed) or self._max_bytes is not None
        groups = list(given.groups())
        done: list[tuple[np.ndarray, Explanation]] = []
        with ThreadPoolExecutor(1 if alone else AT_ONCE) as pool:
            futures = []
            try:
                for k in track(range(len(groups)), [float(given.lengths[rows].sum()) for rows in groups]):
                    if k == 0:  # traced and compared with onnxruntime once
                        done.append(explained(groups[0]))
                        futures = [pool.submit(explained, rows) for rows in groups[1:]]
                    else:
                        done.append(futures[k - 1].result())
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        hidden = {k.key: k.batch_axis(plan) for k in resolve(plan, options["keep"])}
        return ragged.joined(done, given, plan, hidden=hidden, target_axis=self._samples_of_target())

    def _settings(self) -> dict[str, Any]:
        return {
            "method": LRP,
            "rule": str(self._composite),
            "epsilon": self._policy.epsilon,
            "bias_factor": self._policy.bias_factor,
            "gates": self._policy.gates,
        }

    def _batch(self, feeds: Mapping[str, np.ndarray]) -> int:
        for name, array in feeds.items():
            dims = self._plan.vars[name].dims or ()
            for axis, dim in enumerate(dims):
                if self._plan.batch is not None and tuple(dim.roots) == (self._plan.batch.root,):
                    return int(array.shape[axis])
        return 1

    def _samples_of_target(self) -> int | None:
        """The axis of the samples in a target, which has no axis of classes; None where samples and positions share one."""
        plan = self._plan
        axis = plan.batch_axis(plan.explained)
        dims = plan.vars[plan.explained].dims or ()
        if axis is None or len(dims[axis].labels) != 1:
            return None
        return axis - (plan.class_axis is not None and plan.class_axis < axis)

    def _sums(self, point: str, relevance: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """(B,), or (K, B) of several classes: relevance per sample; the batch may be merged with others (the letters of words)."""
        if len(shape) == 2:
            return np.stack([self._sums(point, r, shape[1:]) for r in relevance])
        return self._plan.per_sample(relevance, point, shape[0])

    def _at_output(self, name: str) -> Explainer:
        """The explainer of another output, made once."""
        if name == self._plan.output:
            return self
        if ("output", name) not in self._variants:
            choose = {**self._choose, "output": name}
            other = Explainer(self._graph, _plan(self._graph, choose), choose=choose, run=self._options)
            other._runtime = self._runtime
            self._variants["output", name] = other
        return self._variants["output", name]

    def _seed(self, target: Seed, feeds: dict[str, np.ndarray]) -> Seed:
        """The seed tensor of what the caller gave, held against the scores' shape."""
        plan, value = self._plan, target.value
        if callable(value):
            scores = self._chunks(feeds, Target("scores"), lambda result, _: {plan.explained: result["scores"]})[plan.explained]
            target = seed(value(scores))
            if target.value.shape != scores.shape:
                raise InputError(f"the seed has shape {target.value.shape}, the explained scores {scores.shape}")
            return target
        sizes = {plan.batch.root: self._batch(feeds)} if plan.batch is not None else {}
        for name, array in feeds.items():
            for dim, size in zip(plan.vars[name].dims or (), array.shape, strict=False):
                if len(dim.roots) == 1:
                    sizes.setdefault(dim.roots[0], size)
        want = [sizes.get(d.roots[0], d.size) if len(d.roots) == 1 else d.size for d in plan.vars[plan.explained].dims or ()]
        if len(want) != value.ndim or any(w not in (None, n) for w, n in zip(want, value.shape, strict=True)):
            raise InputError(f"the seed has shape {value.shape}, the explained scores {tuple(want)}")
        return target

    def _chunks(
        self, feeds: dict[str, np.ndarray], target: Target, finish: Any, keep: tuple[Kept, ...] = (), method: Method | None = None
    ) -> Any:
        """Run, in micro-batches where the whole is too large; a model exported for a batch of one is run sample by sample."""
        batch = self._batch(feeds)
        if self._plan.fixed_batch == 1:
            how = Schedule(1)
        else:
            size = PRECISIONS[self._precision].dtype.itemsize
            how = schedule(self._plan, feeds, batch, itemsize=size, max_bytes=self._max_bytes, checkpoint=self._checkpoint)
        within(self._plan, feeds, batch, how, itemsize=PRECISIONS[self._precision].dtype.itemsize)
        axes = {n: self._plan.batch_axis(n) for n in feeds}

        fits = how.size

        def parted(rows: range) -> list[Any]:
            """The results of some samples; where memory runs out all the same, from then on in smaller parts."""
            nonlocal fits
            found, at = [], rows.start
            while at < rows.stop:
                some = range(at, min(at + fits, rows.stop))
                whole = len(some) == batch
                part = feeds if whole else {n: _rows(a, axes[n], some) for n, a in feeds.items()}
                own = target if whole or not target.arrays else target.part(some, scores_of(self._plan))
                few = method if whole or method is None else method.part(some, batch, self._plan)
                try:
                    found.append(finish(self._run(part, own, keep, few, how.segment), part))
                except Exception as error:
                    if not exhausted(error):
                        raise
                    if len(some) == 1 or not splits(self._plan):
                        raise InputError(
                            f"not enough memory for {len(some)} sample(s) of this size; pass fewer or shorter, or checkpoint=64"
                        ) from error
                    fits = len(some) // 2
                else:
                    at = some.stop
            return found

        done = [made for rows in track(parts(batch, how.size)) for made in parted(rows)]
        if len(done) == 1:
            return done[0]
        return self._joined(done, target.several, keep)

    def _joined(self, parts: Sequence[Mapping[str, Any]], several: bool, keep: Sequence[Kept]) -> dict[str, Any]:
        lead = int(several)

        def along(axis: int | None, arrays: Sequence[Any], lead: int) -> Any:
            return np.concatenate(arrays, axis + lead) if axis is not None else np.stack(arrays, lead)

        def join(name: str, arrays: Sequence[Any], lead: int = 0) -> Any:
            if name in self._plan.vars:
                return along(self._plan.batch_axis(name), arrays, lead)
            return np.concatenate([np.asarray(a) for a in arrays], 0)

        if "outputs" not in parts[0]:
            return {n: join(n, [p[n] for p in parts]) for n in parts[0]}
        return {
            "outputs": {n: join(n, [p["outputs"][n] for p in parts]) for n in parts[0]["outputs"]},
            "relevance": {n: join(n, [p["relevance"][n] for p in parts], lead) for n in parts[0]["relevance"]},
            "hidden": {k.key: along(k.batch_axis(self._plan), [p["hidden"][k.key] for p in parts], lead) for k in keep},
            "absorbed": {n: np.concatenate([p["absorbed"][n] for p in parts], lead) for n in parts[0]["absorbed"]},
            **{n: np.concatenate([p[n] for p in parts], lead) for n in ("seed", "residual") if n in parts[0]},
            "index": np.concatenate([np.atleast_1d(p["index"]) for p in parts], lead),
        }

    def _run(
        self,
        feeds: Mapping[str, np.ndarray],
        target: Target,
        keep: tuple[Kept, ...] = (),
        method: Method | None = None,
        segment: int | None = None,
    ) -> dict[str, Any]:
        plan = self._plan
        entered = any(n in plan.prefix for n in feeds)  # the caller computed the cut himself
        before = self._runtime.prefix(plan.prefix, feeds) if plan.prefix and not entered else {}
        given = {n: before[n] if n in before else feeds[n] for n in plan.feeds}
        try:
            result = (
                self._program(given, target, keep, segment) if method is None else attribute(self._program, given, target, method)
            )
        except Exception as error:
            if isinstance(error, OnnxLrpError) or exhausted(error):
                raise
            if OVER in str(error):
                raise InputError(next(line for line in str(error).splitlines() if OVER in line)) from error
            if not entered:
                if refused := refusal(self._runtime, feeds, error):
                    raise refused from error
                raise
            # nothing in the file says what shape a cut behind an unknown op has, so the engine is the first to notice
            reason = str(error).splitlines()[0][:200]
            raise InputError(f"the array(s) for {', '.join(given)} don't fit what reads them: {reason}") from error
        if "shape" in result:  # what the file left open is known now
            target.check(dataclasses.replace(scores_of(plan), shape=tuple(int(n) for n in result["shape"])))
        result["outputs"].update({n: before[n] for n in plan.outputs if n in before})
        if not entered and (self._verify == "always" or (self._verify == "first" and not self._verified)):
            self._check(feeds, given, result["outputs"])
            self._verified = True
        self._finite(result["outputs"], given)
        if method is None:
            self._finite(result.get("relevance", {}), given)
        else:
            _defined(result["relevance"], method.name)
        return result

    def _finite(self, arrays: Mapping[str, Any], given: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            if isinstance(array, np.ndarray) and array.dtype.kind == "f" and not np.all(np.isfinite(array)):
                where = infinite_in_engine(self._plan, self._program, given)
                if where:
                    raise ParityError(f"{name!r} is not finite although the inputs are: the model overflows on them; {where}")
                raise ParityError(
                    f"relevance at {name!r} is not finite ({place(array)}) although the forward pass is: relevance overflows, "
                    f"or a sum is exactly 0 and nothing stabilizes it; a larger epsilon than {self._policy.epsilon:g} helps"
                )

    def _outputs(self, result: Mapping[str, Any], feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Outputs in the model's order and dtypes."""
        dtypes = {v.name: v.dtype for v in self._graph.outputs}
        out: dict[str, Any] = {}
        for name in self._plan.outputs:
            array = result["outputs"].get(name)
            if array is None:
                continue
            dtype = dtypes.get(name)
            if isinstance(array, np.ndarray) and dtype is not None and array.dtype != dtype:
                if is_float(dtype):
                    with np.errstate(over="ignore"):
                        array = array.astype(dtype)
                    if found := place(array):
                        raise ParityError(f"output {name!r} is beyond the range of {dtype}, in which the model returns it: {found}")
                elif dtype.kind in "iu" and array.dtype.kind == "f":  # a quantized tensor, which the engine doesn't round
                    array = np.clip(np.rint(array), *limits(dtype)).astype(dtype)
            out[name] = array
        return out

    def _check(self, feeds: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], outputs: Mapping[str, Any]) -> None:
        """The forward pass against onnxruntime's."""
        expected = self._runtime.forward(feeds)
        if expected is None:
            if contradicts := mistyped(self._runtime):
                raise contradicts
            return
        both = [(a, outputs.get(n)) for n, a in expected.items() if isinstance(a, np.ndarray)]  # a sequence is a list
        if any(place(a) and place(np.asarray(0.0 if b is None else b)) for a, b in both):
            self._finite(outputs, given)
        for name, array in expected.items():
            if isinstance(array, np.ndarray) and place(array) and not place(np.asarray(outputs.get(name, 0.0))):
                half = any(v.dtype.name == "float16" for v in self._plan.vars.values())
                where = infinite_in_runtime(self._plan, self._runtime, feeds)
                raise ParityError(
                    f"output {name!r} of onnxruntime's is not finite ({place(array)}), the engine's is"
                    + (f": float16 overflows at 65504, and the engine computes in {self._precision}" if half else "")
                    + (f"; {where}" if where else "")
                    + ". verify='never' explains all the same"
                )
        absolute, relative = rounding(self._plan, given, outputs, self._precision), tolerance(self._plan, self._precision)
        for name, error, bound in differences(expected, outputs, relative, absolute):
            if not error <= bound:
                where = first_different(
                    self._plan, self._program, self._runtime, feeds, given, tolerance(self._plan, self._precision)
                )
                raise ParityError(
                    f"output {name!r} differs from onnxruntime's by {error:.1e} of its largest value (tolerance {bound:g})"
                    f"{'; ' + where if where else ''}; "
                    "the explanation would be of another function. verify='never' explains all the same"
                )
