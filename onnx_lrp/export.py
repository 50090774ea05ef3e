"""The whole explanation as an artifact that others run: a TensorFlow SavedModel, or StableHLO with its weights.

Neither needs onnx-lrp, ONNX or onnxruntime where it runs: the forward pass, the way back and the books are one program.
"""

from __future__ import annotations

import copy
import json
import keyword
import os
import re
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from ._lazy import tf
from .asked import Asked, answer
from .errors import InputError, OnnxLrpError, UnsupportedModel
from .inputs import prepare_inputs
from .ops.quantize import limits
from .plan import Plan
from .program import Program
from .registry import Var, is_float
from .seeds import Target, prepare, scores_of

__all__ = ["GIVEN", "Export"]

Tensor = Any
GIVEN = "input"  # target="input": the artifact is told the classes when it runs
SUFFIX = ".stablehlo"
SCHEMA = 1  # of the manifest
PORTABLE = "1.0.0"  # the StableHLO version written: runtimes read artifacts of older versions, not of newer ones
ERF = "mhlo.erf"  # the one op without a StableHLO of its own, and the call by which XLA's runtimes know it
VERSION = "{mhlo.attributes = {}, mhlo.version = 1 : i64}"
OLDEST = (2, 19)  # TensorFlow that writes StableHLO
LARGE = 128  # entries from which on a weight is no constant of the program, which is limited to 2 GiB


@dataclass(frozen=True, eq=False, kw_only=True)
class Export:
    """What is exported.

    Attributes:
        plan, program: the explanation, and what traces it.
        cut: tensors that the caller chose as attribution points; where they are not computed, the artifact takes them.
        branches: whether a call decides which nodes run.
        xla: whether a SavedModel is compiled where it runs.
        segment: steps between the states that recurrent layers keep, None: every step, as compiled programs always do.
        settings: of the explanation, for the manifest.
    """

    plan: Plan
    program: Program
    cut: Collection[str] = ()
    branches: bool = False
    xla: bool = False
    segment: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: str | os.PathLike[str], *, inputs: Any, shapes: Any, target: Any, outputs: Any, ledger: bool) -> None:
        """See :meth:`onnx_lrp.Explainer.export`."""
        place = Path(path)
        compiled = place.suffix == SUFFIX
        if place.exists() and place.is_dir() == compiled:
            raise InputError(f"{place} is a {'folder' if compiled else 'file'}; nothing was written")
        wanted = self._outputs(outputs)
        self._refuse(wanted, compiled)
        ready = self._target(target)
        specs = self._specs(self._sizes(inputs, shapes), fixed=compiled)
        if ready is None:
            specs[self._asked] = tf.TensorSpec(self._positions(specs, fixed=compiled), tf.int64)
        function = self._function(ready, wanted, ledger, None if compiled or self.xla else self.segment)
        if compiled:
            self._stablehlo(place, function, specs)
        else:
            self._saved_model(place, function, specs)

    # what can't be exported

    def _outputs(self, outputs: str | Sequence[str] | None) -> tuple[str, ...]:
        if outputs is None:
            return self.plan.outputs
        chosen = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        unknown = [name for name in chosen if name not in self.plan.outputs]
        if unknown:
            raise InputError(f"output {unknown[0]!r} does not exist; this model has {', '.join(self.plan.outputs)}")
        return chosen

    def _refuse(self, outputs: Sequence[str], compiled: bool) -> None:
        """Name everything in the way."""
        plan, wrong = self.plan, []
        if self.branches:
            wrong.append("each call decides which branch of an If it takes, and an artifact is one graph")

        def made(name: str) -> str:
            node = plan.graph.producers.get(name)
            return repr(name) if node is None else f"{name!r} ({node.label})"

        given = {v.name for v in plan.graph.inputs}
        before = [name for name in plan.feeds if name not in given and name not in self.cut]
        if before:
            wrong.append(
                f"onnxruntime computes {', '.join(map(made, before))} before the engine runs; a float tensor behind it can be the "
                "artifact's input: load(…, at=)"
            )
        here = {o for step in plan.steps for o in step.outputs} | set(plan.feeds) | set(plan.graph.constants)
        left = [name for name in outputs if name not in here]
        if left:
            rest = [name for name in plan.outputs if name in here]
            wrong.append(f"only onnxruntime computes the output(s) {', '.join(map(made, left))}; leave them out: outputs={rest}")
        texts = [name for name in plan.feeds if plan.vars[name].dtype in (None, np.dtype(object))]
        if texts:
            wrong.append(f"input(s) {', '.join(map(repr, texts))} hold no numbers")
        if compiled and not self.program.static:
            wrong.append(
                "a loop that a condition may end early has no fixed size; a SavedModel can hold it (a path without .stablehlo)"
            )
        if wrong:
            raise UnsupportedModel(f"this explanation can't be exported: {'; '.join(wrong)}", nodes=[made(n) for n in before])

    def _target(self, target: Any) -> Target | None:
        """The target that the artifact is made for, None: one that it is given."""
        if isinstance(target, str) and target == GIVEN:
            return None
        ready = prepare(target, scores_of(self.plan))
        if ready.mode == "seed":
            raise InputError("a seed tensor belongs to one batch; an artifact explains classes: None, an index, or target='input'")
        for array in (ready.value, ready.other):
            if array is not None and array.size != 1:
                raise InputError(f"target of shape {array.shape}: an artifact that is told one class a sample takes target='input'")
        return ready

    # what goes in

    @property
    def _asked(self) -> str:
        """Name of the argument that says the classes."""
        name = "target"
        while name in self.plan.feeds:
            name += "_"
        return name

    def _sizes(self, inputs: Any, shapes: Any) -> dict[str, tuple[int, ...]] | None:
        """The shapes that were asked for, by what the artifact takes."""
        plan = self.plan
        if inputs is not None and shapes is not None:
            raise InputError("give example inputs or shapes, not both")
        if shapes is not None:
            names = plan.feeds if any(n in self.cut for n in plan.feeds) else [v.name for v in plan.graph.inputs]
            if not isinstance(shapes, Mapping):
                if len(names) != 1:
                    raise InputError(f"the artifact takes {len(names)} inputs: pass shapes={{name: shape}} with {', '.join(names)}")
                shapes = {names[0]: shapes}
            inputs = {}
            for name, shape in shapes.items():
                sizes = tuple(shape)
                if any(isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1 for n in sizes):
                    raise InputError(f"shapes[{name!r}]={shape!r}: expected positive sizes")
                var = plan.vars.get(name)
                # stands for an array of that shape without its memory
                inputs[name] = np.broadcast_to(
                    np.zeros((), var.dtype if var is not None and var.dtype is not None else np.int8), sizes
                )
        if inputs is None:
            return None
        arrays = prepare_inputs(inputs, plan)
        for name, array in arrays.items():
            axis = plan.batch_axis(name)
            if plan.fixed_batch is not None and axis is not None and array.shape[axis] != plan.fixed_batch:
                raise InputError(
                    f"input {name!r}: batch {array.shape[axis]}, but the file was exported for batches of {plan.fixed_batch}: "
                    "so is the artifact"
                )
        return {name: array.shape for name, array in arrays.items()}

    def _specs(self, sizes: Mapping[str, tuple[int, ...]] | None, *, fixed: bool) -> dict[str, Any]:
        """Shape and dtype of everything that the artifact takes; a size that nothing fixes is None."""
        specs, unknown = {}, []
        for name in self.plan.feeds:
            var = self.plan.vars[name]
            shape = sizes.get(name) if sizes is not None else None
            if shape is None:
                if var.dims is None:
                    raise InputError(f"the rank of input {name!r} is unknown: pass inputs= or shapes=")
                shape = tuple(d.size for d in var.dims)  # type: ignore[misc]
            if None in shape:
                unknown.append(f"{name} ({', '.join(map(str, var.dims or ()))})")
            specs[name] = tf.TensorSpec(shape, tf.as_dtype(var.dtype))
        if fixed and unknown:
            raise InputError(
                f"StableHLO has fixed shapes, and the file leaves some open: {'; '.join(unknown)}. Pass shapes={{name: shape}} or "
                "example inputs"
            )
        return specs

    def _positions(self, specs: Mapping[str, Any], *, fixed: bool) -> list[int | None]:
        """Shape of a class a position: that of the scores without their axis of classes."""
        like = scores_of(self.plan)
        shape = list(like.shape)
        if fixed:
            asked = Asked.of(Target("scores"))
            found = tf.function(lambda feeds: self._run(self._traced({}), feeds, asked, {})["scores"], autograph=False)
            shape = found.get_concrete_function(dict(specs)).output_shapes.as_list()
        return [n for axis, n in enumerate(shape) if axis != like.class_axis]

    # what comes out

    def _run(
        self,
        program: Program,
        feeds: Mapping[str, Tensor],
        asked: Asked,
        given: Mapping[str, Tensor],
        segment: int | None = None,
    ) -> dict[str, Any]:
        def read(name: str, tensor: Tensor) -> Tensor:
            var: Var = self.plan.vars[name]
            return tf.cast(tensor, program.dtype) if var.is_float or tensor.dtype.is_floating else tensor

        run = program.forward({n: read(n, t) for n, t in feeds.items()}, segment=segment)
        return answer(run, asked, given)

    def _function(
        self, target: Target | None, outputs: Sequence[str], ledger: bool, segment: int | None
    ) -> Callable[..., dict[str, Tensor]]:
        """(program, {name: tensor}) → {key: tensor}; the classes, where they are given, are an argument as well."""
        plan = self.plan
        asked = Asked.of(target or Target("index"))
        dtypes = {v.name: v.dtype for v in plan.graph.outputs}

        def function(program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            given = {n: tf.constant(a) for n, a in target.arrays.items()} if target else {"value": tensors[self._asked]}
            result = self._run(program, {n: tensors[n] for n in plan.feeds}, asked, given, segment)
            if target is None:
                self._hold(given["value"], result["shape"])
            out = {f"outputs/{n}": _as_filed(result["outputs"][n], dtypes.get(n)) for n in outputs}
            out |= {f"relevance/{n}": r for n, r in result["relevance"].items()}
            for key, amount in result["absorbed"].items():
                kind = f"absorbed/{key if ledger else key.rsplit('|', 1)[1]}"
                out[kind] = out[kind] + amount if kind in out else amount
            return {**out, "seed": result["seed"], "index": result["index"]}

        return function

    def _hold(self, index: Tensor, shape: Tensor) -> None:
        """Refuse a class that does not exist, which would be explained as nothing (compiled programs skip this)."""
        like = scores_of(self.plan)
        count = tf.cast(shape[like.class_axis], tf.int64) if like.class_axis is not None and not like.signs else like.classes
        tf.debugging.Assert(tf.reduce_all((index >= 0) & (index < count)), ["target is out of range", index])

    def _manifest(self, arguments: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]) -> bytes:
        about = {
            "format": "onnx-lrp explanation",
            "schema": SCHEMA,
            "made_by": f"onnx-lrp {__version__}",
            "explained": self.plan.output,
            "settings": self.settings,
        }
        return json.dumps({**about, "arguments": arguments, "results": results}, indent=1).encode()

    def _argument(self, name: str, spec: Any) -> dict[str, Any]:
        if name not in self.plan.feeds:
            return {"kind": "target", "name": name, **_described(spec)}
        return {"kind": "input", "name": name, **self._axes(name), **_described(spec)}

    def _result(self, key: str, spec: Any) -> dict[str, Any]:
        kind, _, name = key.partition("/")
        of = self._axes(name) | {"origins": list(self.plan.origins[name])} if kind == "relevance" else {}
        return {"key": key, "kind": kind.removesuffix("s"), "name": name, **of, **_described(spec)}

    def _axes(self, name: str) -> dict[str, int | None]:
        return {"batch_axis": self.plan.batch_axis(name), "time_axis": self.plan.time_axis(name)}

    # the two formats

    def _weights(self) -> dict[int, Tensor]:
        """Large float parameters, by identity."""
        flat = tf.nest.flatten(self.program.parameters)
        return {id(t): t for t in flat if t.dtype.is_floating and t.shape.num_elements() >= LARGE}

    def _traced(self, held: Mapping[int, Any]) -> Program:
        """The program, inside a trace: weights from where they are held, all else as constants, which a compiler may look into."""

        def read(tensor: Tensor) -> Tensor:
            return tf.convert_to_tensor(held[id(tensor)]) if id(tensor) in held else tf.constant(tensor.numpy())

        program = copy.copy(self.program)
        program.parameters = tf.nest.map_structure(read, self.program.parameters)
        program.constants = tf.nest.map_structure(read, self.program.constants)
        return program

    def _saved_model(self, place: Path, function: Callable[..., Any], specs: Mapping[str, Any]) -> None:
        module = tf.Module()
        held = {k: tf.Variable(w, trainable=False, name=f"weight_{n}") for n, (k, w) in enumerate(self._weights().items())}
        module.weights = list(held.values())
        keys = _identifiers(specs)

        def explain(**tensors: Tensor) -> dict[str, Tensor]:
            return function(self._traced(held), {name: tensors[key] for name, key in keys.items()})

        traced = tf.function(explain, autograph=False, jit_compile=self.xla and self.program.static)
        named = {keys[n]: tf.TensorSpec(s.shape, s.dtype, name=keys[n]) for n, s in specs.items()}
        concrete = traced.get_concrete_function(**named)
        tf.saved_model.save(module, str(place), signatures={"serving_default": concrete})
        arguments = [{"key": keys[n], **self._argument(n, s)} for n, s in specs.items()]
        results = [self._result(k, s) for k, s in sorted(concrete.structured_outputs.items())]
        extra = place / "assets.extra"  # where TensorFlow leaves room for what is not its own
        extra.mkdir(exist_ok=True)
        (extra / "manifest.json").write_bytes(self._manifest(arguments, results))

    def _stablehlo(self, place: Path, function: Callable[..., Any], specs: Mapping[str, Any]) -> None:
        if tuple(map(int, tf.__version__.split(".")[:2])) < OLDEST:
            raise OnnxLrpError(f"TensorFlow {tf.__version__} writes no StableHLO: pip install -U 'tensorflow>=2.19'")
        held = self._weights()

        def explain(*tensors: Tensor) -> dict[str, Tensor]:
            return function(self._traced(held), dict(zip(specs, tensors, strict=True)))

        traced = tf.function(explain, autograph=False, jit_compile=True)
        concrete = traced.get_concrete_function(*specs.values())
        try:
            # as for a CPU, whatever this machine has: what is lowered for a GPU may call its libraries
            text = traced.experimental_get_compiler_ir(*specs.values())(stage="stablehlo", platform_name="CPU")
        except (tf.errors.OpError, TypeError, ValueError, RuntimeError) as error:
            raise UnsupportedModel(f"an op of this model can't be compiled: {str(error).splitlines()[0][:300]}") from error
        text = re.sub(r"= mhlo\.erf (%\w+) : (tensor<[^>]*>)", rf"= stablehlo.custom_call @{ERF}(\1) {VERSION} : (\2) -> \2", text)
        weights = [tensor.numpy() for tensor in concrete.captured_inputs]
        results = [self._result(k, s) for k, s in sorted(concrete.structured_outputs.items())]
        arguments = [self._argument(n, s) for n, s in specs.items()]
        arguments += [
            {"kind": "weight", "name": f"weights/{k}", "shape": list(w.shape), "dtype": str(w.dtype)} for k, w in enumerate(weights)
        ]
        _held_against(text, arguments, results)
        part = place.with_name(f".{place.name}.{os.getpid()}")
        with zipfile.ZipFile(part, "w") as archive:
            for name, content in (("manifest.json", self._manifest(arguments, results)), ("program.mlirbc", _portable(text))):
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
            for k, weight in enumerate(weights):
                with archive.open(zipfile.ZipInfo(f"weights/{k}.npy"), "w", force_zip64=True) as stream:
                    # numpy's files have no bfloat16: its bits are kept, and the manifest names the type
                    plain = weight.view(np.uint16) if weight.dtype.name == "bfloat16" else weight
                    np.lib.format.write_array(stream, plain, allow_pickle=False)
        os.replace(part, place)


def _described(spec: Any) -> dict[str, Any]:
    return {"shape": spec.shape.as_list(), "dtype": spec.dtype.name}


def _as_filed(tensor: Tensor, dtype: np.dtype[Any] | None) -> Tensor:
    """An output in the model's own dtype; the engine doesn't round quantized ones."""
    if dtype is None or tensor.dtype == dtype:
        return tensor
    if dtype.kind in "iu" and tensor.dtype.is_floating:
        tensor = tf.clip_by_value(tf.round(tensor), *(float(n) for n in limits(dtype)))
    elif not is_float(dtype):
        return tensor
    return tf.cast(tensor, tf.as_dtype(dtype))


def _identifiers(names: Collection[str]) -> dict[str, str]:
    """Graph names as names of a signature's arguments: letters, digits and _, each one's own."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not plain[:1].isalpha() or keyword.iskeyword(plain) or plain == "self":
            plain = f"input_{plain}"
        taken = {k.lower() for k in found.values()}  # TensorFlow tells names apart by more than their case
        tries = (plain if k == 1 else f"{plain}_{k}" for k in range(1, len(taken) + 2))
        found[name] = next(t for t in tries if t.lower() not in taken)
    return found


def _held_against(text: str, arguments: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]) -> None:
    """The program must take and return what the manifest says, and call nothing that only one compiler knows.

    Raises:
        UnsupportedModel: it does not.
    """
    foreign = sorted(set(re.findall(r"= mhlo\.(\w+)", text)) | set(re.findall(r"custom_call @([\w.$]+)", text)) - {ERF})
    if foreign:
        raise UnsupportedModel(f"the compiled program calls {', '.join(foreign)}, which is no StableHLO; a SavedModel can hold it")
    head = re.search(r"func\.func (?:public )?@main\((.*?)\) -> \(?(.*?)\)? \{", text)
    for side, wanted in ((1, arguments), (2, results)):
        types = re.findall(r"tensor<([^>]*)>", head.group(side)) if head else []
        counts = [[int(n) for n in t.split("x")[:-1]] for t in types]
        if counts != [entry["shape"] for entry in wanted]:
            raise UnsupportedModel(
                f"the compiled program has {'arguments' if side == 1 else 'results'} of shapes {counts}, not those of the "
                "explanation: some op needs an argument while it is compiled, or has no fixed shape; a SavedModel can hold it"
            )


def _portable(text: str) -> bytes:
    """The program as versioned bytecode, without the places in the source that made it.

    https://openxla.org/stablehlo/compatibility
    """
    from tensorflow.compiler.mlir.stablehlo import stablehlo

    plain = tf.mlir.experimental.run_pass_pipeline(text, "builtin.module(strip-debuginfo)", show_debug_info=False)
    try:
        return bytes(stablehlo.serialize_portable_artifact_str(plain, PORTABLE))
    except Exception:  # an op that this version did not have yet
        return bytes(stablehlo.serialize_portable_artifact_str(plain, stablehlo.get_current_version()))
