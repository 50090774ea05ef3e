"""onnxruntime, for what it is best at: the prefix of a model, and the forward pass everything is compared with."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .errors import InputError, MissingExtra, UnsupportedModel
from .graph import Graph, Node
from .inference import hold
from .limits import over, terminated
from .sanity import inner, shortened

__all__ = ["Runtime"]

TRIED, NODES = 32 * 2**20, 2000  # bytes of weights and nodes up to which a session is made only to tell whether it can be

# bytes of folded constants from which onnxruntime does not fold them once more: it holds three copies while it does
FOLDED = 64 * 2**20


def _onnxruntime(purpose: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", extra="cpu", purpose=purpose) from error
    return onnxruntime


def _as_filed(nodes: Sequence[Node], names: Sequence[str]) -> Sequence[Node]:
    """Nodes as the file has them instead of what they were rewritten to, unless something inside is asked for."""
    inside = {id(n.origin) for n in nodes if n.origin is not None and set(n.outputs) & set(names) - set(n.origin.outputs)}
    found = [n if n.origin is None or id(n.origin) in inside else n.origin for n in nodes]
    return list({id(n): n for n in found}.values())


def _nodes(graph: onnx.GraphProto) -> int:
    """Nodes of a graph and those inside."""
    stack, count = [graph], 0
    while stack:
        graph = stack.pop()
        count += len(graph.node)
        stack += [g for node in graph.node for g in inner(node)]
    return count


class Runtime:
    """Sessions of one model; built at their first use."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def _session(self, source: Any, *, lean: bool = False, as_written: bool = False) -> Any:
        ort = _onnxruntime("running a model's forward pass")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if as_written:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        for library in self.graph.custom_ops:
            try:
                options.register_custom_ops_library(library)
            except Exception as error:
                reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
                raise InputError(
                    f"custom_ops: onnxruntime can't load {library!r}; expected a library that exports RegisterCustomOps, built for "
                    f"onnxruntime {ort.__version__} or older. It says: {reason}"
                ) from error
        left_out = ["ConstantFolding"] if lean else []
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"], disabled_optimizers=left_out)

    @functools.cached_property
    def reference(self) -> tuple[Any, str]:
        """(session of the whole model or None, why there is none)."""
        return self._whole()

    def _whole(self, *, as_written: bool = False) -> tuple[Any, str]:
        _onnxruntime("checking the forward pass against onnxruntime (or pass verify='never')")
        graph = self.graph
        assert graph.model is not None
        hold(graph.model, data_prop=graph.tame)
        model = shortened(graph.model)
        made = {name for node in graph.model.graph.node for name in node.output}
        lean = sum(array.nbytes for name, array in graph.constants.items() if name in made) > FOLDED
        try:
            if graph.path is not None and model is graph.model:
                return self._session(str(graph.path), lean=lean, as_written=as_written), ""
            return self._session(model.SerializeToString(), lean=lean, as_written=as_written), ""
        except (MissingExtra, InputError):
            raise
        except Exception as error:
            return None, str(error).splitlines()[0][:200] if str(error) else type(error).__name__

    def unable(self) -> str:
        """Why onnxruntime can't load the model, and so verifies nothing; empty if it can, or for a model that takes long to try."""
        graph = self.graph
        size = sum(a.nbytes for a in graph.constants.values())
        if "reference" not in vars(self) and (size > TRIED or graph.size > min(NODES, graph.limits.runtime_nodes)):
            return ""
        try:
            return self.reference[1]
        except MissingExtra:
            return "it is not installed"

    def admit(self) -> None:
        """Refuse to load a model that would take too long, before anything else takes its time.

        Raises:
            ModelError: over ``Limits.runtime_nodes``.
        """
        if "reference" not in vars(self):
            what = "the forward pass is compared with onnxruntime's (not with verify='never'), which has to load the model"
            self.graph.limits.check("runtime_nodes", self.graph.size, what)

    def forward(self, inputs: Mapping[str, np.ndarray], *, as_written: bool = False) -> dict[str, Any] | None:
        """All graph outputs, or None where onnxruntime can't load the model.

        ``as_written``: node by node, without its optimizations, in which it may leave out what does not fit.
        """
        self.admit()
        session, _ = self._whole(as_written=True) if as_written else self.reference
        if session is None:
            return None
        names = [o.name for o in session.get_outputs()]
        return self._run(session, names, dict(inputs), "the model")

    def _run(self, session: Any, names: Sequence[str], feeds: Mapping[str, np.ndarray], what: str) -> dict[str, Any]:
        options, limit = _onnxruntime("running a model's forward pass").RunOptions(), self.graph.limits.run_seconds
        with terminated(options, limit) as ended:
            try:
                return dict(zip(names, session.run(list(names), dict(feeds), options), strict=True))
            except Exception as error:
                if ended.is_set():
                    raise over("run_seconds", limit, math.inf, f"onnxruntime, computing {what}", error=InputError) from error
                reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
                raise InputError(f"onnxruntime can't compute {what} from these inputs; it says: {reason}") from error

    @functools.lru_cache(maxsize=8)  # noqa: B019  (one Runtime a model, freed with it)
    def _prefix(self, names: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
        graph = self.graph
        wanted = graph.ancestors(names)
        nodes = _as_filed([n for n in graph.nodes if any(o in wanted for o in n.outputs)], names)
        needed = set(names).union(*(n.reads_as_filed() for n in nodes))
        given = [v for v in graph.inputs if v.name in needed]
        initializers = [numpy_helper.from_array(graph.constants[n], n) for n in sorted(needed) if n in graph.constants]
        assert graph.model is not None
        hold(graph.model, data_prop=graph.tame)
        protos = {v.name: v for v in shortened(graph.model).graph.input}
        subgraph = helper.make_graph(
            [n.proto for n in nodes],
            "prefix",
            [protos[v.name] for v in given],
            [onnx.ValueInfoProto(name=n) for n in names],
            initializers,
        )
        imports = [helper.make_opsetid(d, v) for d, v in graph.opsets.items()]
        graph.limits.check("runtime_nodes", _nodes(subgraph), f"onnxruntime computes {', '.join(names[:3])}, and has to load it")
        model = helper.make_model(subgraph, opset_imports=imports, ir_version=max(graph.model.ir_version, 4))
        model.functions.extend(graph.model.functions)  # those that were not inlined
        try:
            return self._session(model.SerializeToString()), tuple(v.name for v in given)
        except (MissingExtra, InputError):
            raise
        except Exception as error:
            reason = str(error).splitlines()[0][:200]
            raise UnsupportedModel(
                f"onnxruntime can't compute {', '.join(names)}; pass the array(s) by these names as inputs. It says: {reason}"
            ) from error

    def prefix(self, names: Sequence[str], inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Any tensors of the graph, computed from its inputs by a sub-model."""
        if not names:
            return {}
        session, given = self._prefix(tuple(names))
        what = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        return self._run(session, names, {n: inputs[n] for n in given}, what)
