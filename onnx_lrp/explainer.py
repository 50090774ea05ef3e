"""Explainer: a model that was read, with how it is explained; what is asked of it becomes runs, and their results explanations."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from . import ragged
from .batches import shape_of
from .branches import Branches, is_open
from .composites import Assignment
from .errors import InputError, OnnxLrpError, RuleError
from .explanation import Explanation
from .export import Export
from .graph import Graph, Value
from .hidden import resolve
from .inputs import prepare_inputs, unlike_declared
from .labels import Labelled
from .lengths import LENGTHS, lengthened, lens, mixes_no_steps
from .locate import check_weights
from .methods import LRP, part_of_baseline, prepare_method
from .options import Options
from .parity import QUANTIZED, is_quantized
from .plan import Plan, make_plan
from .program import Program
from .progress import Progress, track, watched
from .reordering import Reordered, together
from .runs import Runs
from .runtime import Runtime
from .scaling import scaled
from .seeds import Target, prepare, samples_of_target, scores_of
from .summary import Summary, canonical_weights, summarize
from .targets import Output, Seed, Spec, seed

__all__ = ["Explainer", "plan_of"]

MANY_GROUPS = 32  # of sequences, from which on it is worth another program to make them fewer
ROUNDED = 8  # groups, from which on they run in few lengths, whose programs are worth compiling
AT_ONCE = 3  # groups of sequences; more of them gain little on two cores
UNVERIFIED = "onnxruntime can't load this model, so nothing is held against it"


def plan_of(graph: Graph, choose: Mapping[str, Any]) -> Plan:
    """The plan of a graph, as options choose its ends; refused where weights are not finite."""
    plan = make_plan(graph, **choose)
    check_weights(plan)
    if is_quantized(plan):
        plan = dataclasses.replace(plan, notes=(*plan.notes, QUANTIZED))
    return plan


class Explainer:
    """A model made ready to be explained; made by :func:`onnx_lrp.load`."""

    def __init__(
        self, graph: Graph, plan: Plan, *, choose: Mapping[str, Any], options: Options, runtime: Runtime | None = None
    ) -> None:
        self._graph = graph
        self._plan = plan
        self._choose = choose
        self._options = options
        self._runtime = runtime or Runtime(plan.graph)
        self._runs = Runs(plan, options, self._runtime, filed=graph.outputs)
        self._branches = Branches(graph) if is_open(graph) else None
        self._variants: dict[Any, Explainer] = {}

    def _variant(self, inputs: Any) -> Explainer:
        """The explainer of the branches that these inputs take."""
        if self._branches is None:
            return self
        feeds = prepare_inputs(inputs, self._plan, sizes=False)
        if set(feeds) != {v.name for v in self._graph.inputs}:  # a cut was entered directly
            return self
        try:
            choices, graph = self._branches.take(feeds)
        except InputError as error:
            raise (unlike_declared(feeds, self._plan) or error) from error
        if choices not in self._variants:
            self._variants[choices] = Explainer(graph, plan_of(graph, self._choose), choose=self._choose, options=self._options)
        return self._variants[choices]

    @property
    def _program(self) -> Program:
        return self._runs.program

    def plan(self) -> Assignment:
        """Which rule each affine block and recurrent layer gets; prints as text. Needs no TensorFlow."""
        return self._options.rules(self._plan)

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The graph inputs to pass."""
        return self._graph.inputs

    def summary(self) -> Summary:
        """What was read: layers, shapes, axes, attribution points, decisions. Needs no TensorFlow."""
        found = summarize(self._plan, self._options.policy, str(self._options.composite), self._options.precision, self.plan())
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
            names = [(n, self._plan.place(n) if n in self._plan.vars else None) for n in parts[0][1]]
            return {n: together(which, [made[n] for _, made in parts], place, count) for n, place in names}
        variant = self._variant(inputs)
        if variant is not self:
            return variant.predict(inputs)
        feeds = prepare_inputs(inputs, self._plan)
        return self._runs.chunks(feeds, Target("forward"), lambda result, _: self._runs.outputs(result))

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
        if isinstance(target, Output) and self._branches is None:
            return self._at_output(target.name).explain(inputs, target.target, method=method, keep=keep, **options)
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
        batch = self._runs.batch(feeds)
        if isinstance(target, Seed):
            target = self._seed(target, feeds)
        ready = prepare(target, like)
        for given in (ready.value, ready.other):
            at = samples_of_target(self._plan)
            if given is None or ready.mode == "seed" or at is None or given.ndim <= at:
                continue
            if given.shape[at] not in (1, batch):
                raise InputError(f"target has {given.shape[at]} entries for {batch} samples")
            want = [n for a, n in enumerate(shape_of(plan, plan.explained, feeds, batch)) if a != plan.class_axis]
            if any(n != 1 and w not in (None, n) for n, w in zip(given.shape, want, strict=True)):
                raise InputError(f"target has shape {given.shape}, the explained positions {tuple(want)}")
        kept = resolve(plan, keep)
        raw = self._runs.chunks(feeds, ready, lambda result, _: {**result, "outputs": self._runs.outputs(result)}, kept, other)
        absorbed: dict[str, np.ndarray] = {}
        ledger: dict[str, dict[str, np.ndarray]] = {}
        for key, amount in raw["absorbed"].items():
            layer, kind = key.rsplit("|", 1)
            absorbed[kind] = absorbed.get(kind, 0) + np.asarray(amount)
            ledger.setdefault(layer, {})[kind] = np.asarray(amount)
        start = raw["seed"]
        samples = self._runs.samples(feeds)
        if samples not in (None, start.shape[-1]):
            shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
            raise InputError(
                f"{samples} samples were given and {start.shape[-1]} came out ({shapes}): the file reshapes to sizes that these "
                "inputs don't have; it may have been exported for sequences of one length"
            )
        arrived = {p: plan.per_sample(r, p, start.shape) for p, r in raw["relevance"].items()}
        if other is None:
            residual = start.astype(np.float64) - sum(arrived.values()) - sum(np.asarray(a, np.float64) for a in absorbed.values())
        else:
            residual = raw["residual"]
        index = np.arange(len(start)) if ready.mode == "all" else raw["index"]
        if isinstance(target, Spec) and not ready.several and (ready.steps is None or ready.steps.size > 1):
            index = copy.deepcopy(target)
        axes = {p: (plan.batch_axis(p), plan.time_axis(p)) for p in plan.points}
        return Explanation(
            relevance=raw["relevance"],
            inputs={name: array.copy() for name, array in feeds.items()},  # the caller's own may change
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
                **(self._options.settings if other is None else other.settings),
                "precision": self._options.precision,
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
            xla=self._options.jit == "xla",
            segment=self._options.segment,
            settings={
                **self._options.settings,
                "precision": self._options.precision,
                "from_probabilities": bool(self._plan.options.get("from_probabilities")),
                "target": "predicted class" if target is None else str(target),
            },
        )
        artifact.write(path, inputs=inputs, shapes=shapes, target=target, outputs=outputs, ledger=ledger)

    def _ragged(self, given: ragged.Ragged, target: Any, **options: Any) -> Explanation:
        """Sequences of different lengths, group by group."""
        longer = self._lengthened(given)
        if longer is not None:
            with contextlib.suppress(OnnxLrpError):  # what is wrong is said of the model as it is
                return longer._ragged(dataclasses.replace(given, near=True, lens=LENGTHS), target, **options)
        plan, count, axis = self._plan, len(given.lengths), samples_of_target(self._plan)
        groups = given.groups()
        rounded = len(groups) >= ROUNDED

        def explained(rows: np.ndarray) -> Explanation:
            inputs, own = given.inputs(rows, rounded=rounded), dict(options)
            if "baseline" in own:
                own["baseline"] = part_of_baseline(own["baseline"], rows.tolist(), count, plan)
            return self.explain(inputs, ragged.part_of_target(target, rows, given.lengths, axis), **own)

        whole = Reordered(given, plan, keep=resolve(plan, options["keep"]), target=target)
        # groups are narrow: side by side they fill the cores. A function of the caller's, or a budget, is for one at a time
        alone = isinstance(target, Seed) or self._options.max_bytes is not None
        with self._program.habits.one_call(), ThreadPoolExecutor(1 if alone else AT_ONCE) as pool:
            futures: deque[Future[Explanation]] = deque()
            try:
                for k in track(range(len(groups)), [float(given.lengths[rows].sum()) for rows in groups]):
                    if k == 0:  # traced and compared with onnxruntime once
                        whole.put(groups[0], explained(groups[0]))
                        futures += [pool.submit(explained, rows) for rows in groups[1:]]
                    else:
                        whole.put(groups[k], futures.popleft().result())  # and forgotten
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return whole.explanation()

    def _lengthened(self, given: ragged.Ragged) -> Explainer | None:
        """The explainer of the same model with an input for lengths, under which far fewer groups do; made once."""
        if given.near or not given.alike or self._branches is not None or self._options.verify == "always":
            return None
        if len(np.unique(given.lengths)) < max(MANY_GROUPS, 2 * len(dataclasses.replace(given, near=True).groups())):
            return None
        if "lengths" not in self._variants:
            graph = lengthened(self._graph, self._plan, given.timed)
            plan = None if graph is None else plan_of(graph, self._choose)
            if graph is None or plan is None or not (lens(plan) == LENGTHS and mixes_no_steps(plan)):
                return None
            options = dataclasses.replace(self._options, verify="never")  # it is no file that onnxruntime could run
            longer = Explainer(graph, plan, choose=self._choose, options=options, runtime=self._runtime)
            near = dataclasses.replace(given, near=True, lens=LENGTHS)
            if not longer._runs.divides(prepare_inputs(near.inputs(near.groups()[0][:2]), plan)):
                return None  # samples see each other, those of one length at most
            self._variants["lengths"] = longer
        if self._options.verify == "first" and not self._runs.verified:
            self.predict(given.inputs(np.asarray([given.lengths.argmin()])))
        return self._variants["lengths"]

    def _at_output(self, name: str) -> Explainer:
        """The explainer of another output, made once."""
        if name == self._plan.output:
            return self
        if ("output", name) not in self._variants:
            choose = {**self._choose, "output": name}
            plan = plan_of(self._graph, choose)
            other = Explainer(self._graph, plan, choose=choose, options=self._options, runtime=self._runtime)
            self._variants["output", name] = other
        return self._variants["output", name]

    def _seed(self, target: Seed, feeds: dict[str, np.ndarray]) -> Seed:
        """The seed tensor of what the caller gave, held against the scores' shape."""
        plan, value = self._plan, target.value
        if callable(value):
            scores = self._runs.chunks(feeds, Target("scores"), lambda result, _: {plan.explained: result["scores"]})[
                plan.explained
            ]
            target = seed(value(scores))
            if target.value.shape != scores.shape:
                raise InputError(f"the seed has shape {target.value.shape}, the explained scores {scores.shape}")
            return target
        want = shape_of(plan, plan.explained, feeds, self._runs.batch(feeds))
        if len(want) != value.ndim or any(w not in (None, n) for w, n in zip(want, value.shape, strict=True)):
            raise InputError(f"the seed has shape {value.shape}, the explained scores {tuple(want)}")
        return target
