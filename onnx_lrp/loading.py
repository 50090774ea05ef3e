"""load: a file, its bytes or a model in memory becomes an explainer; explain: that and the explanation in one call."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .batches import checked
from .branches import guesses
from .composites import Composite, make_composite
from .errors import InputError, InvalidModel, ModelError, OnnxLrpError, RuleError
from .explainer import Explainer, plan_of
from .explanation import Explanation
from .graph import Graph
from .limits import Limits
from .methods import OPTIONS
from .options import Options
from .plan import Plan
from .precision import PRECISIONS
from .reading import contradiction, load_graph
from .rules import Policy, Rule, make_rule

__all__ = ["explain", "load"]

Model = Any  # str | os.PathLike[str] | bytes | onnx.ModelProto
JITS = ("auto", "xla", "graph", "eager")
VERIFY = ("first", "always", "never")
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
            "zbox", with numbers behind a colon as in "gamma:0.5", "alpha-beta:3,2", "zbox:0,1", or a :class:`Rule`.
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
            from the third call on with one shape compiled, where that is faster; the two differ by rounding.
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
    options = Options(policy, which, precision, device, jit, verify, max_bytes, checkpoint)
    try:
        graph = dataclasses.replace(load_graph(model, limits), custom_ops=libraries)
        return Explainer(graph, _first_plan(graph, choose), choose=choose, options=options)
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
            plan = plan_of(candidate, choose)
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


def explain(model: Model, inputs: Any, target: Any = None, *, keep: str | Sequence[str] = (), **options: Any) -> Explanation:
    """:func:`load` and :meth:`Explainer.explain` in one call, with the options of both.

    Raises:
        OnnxLrpError: as these two do.
    """
    chosen = {k: options.pop(k) for k in ("method", "progress", *OPTIONS) if k in options}
    return load(model, **options).explain(inputs, target, keep=keep, **chosen)
