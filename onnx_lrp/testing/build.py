"""What the strategies share: a small ONNX builder that spells every op as the drawn opset does, and draws of sizes and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

__all__ = ["OPSETS", "Builder", "Case", "generators", "opsets"]

Case = tuple[ModelProto, dict[str, np.ndarray]]
OPSETS = (7, 9, 11, 13, 14, 17, 18, 21, 22)
VERSIONS = {"ai.onnx.ml": 3, "com.microsoft": 1}
# ops whose axes moved from an attribute to an input, and since when
AXES_AS_INPUT = {"ReduceMax": 18, "ReduceMean": 18, "ReduceMin": 18, "ReduceSum": 13, "Squeeze": 13, "Unsqueeze": 13}


def opsets(*, least: int = 7) -> st.SearchStrategy[int]:
    """Opset versions from ``least`` on; shrinks to the newest."""
    return st.sampled_from([v for v in reversed(OPSETS) if v >= least])


def generators() -> st.SearchStrategy[np.random.Generator]:
    """Random number generators, for weights and inputs; shrinks to seed 0."""
    return st.integers(0, 2**16).map(np.random.default_rng)


class Builder:
    """Nodes, constants and graph inputs of one model; every method returns the name of a tensor."""

    def __init__(self, rng: np.random.Generator, opset: int) -> None:
        self.rng = rng
        self.opset = opset
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.constants: list[Any] = []
        self.feeds: dict[str, np.ndarray] = {}

    def numbers(self, *shape: int, scale: float = 0.8) -> np.ndarray:
        return self.rng.normal(0, scale, shape).astype(np.float32)

    def input(self, name: str, array: np.ndarray, dims: Sequence[int | str]) -> str:
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(dims)))
        self.feeds[name] = array
        return name

    def const(self, array: Any, dtype: Any = None) -> str:
        name = f"const{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(values, np.int64)

    def weight(self, *shape: int) -> str:
        return self.const(self.numbers(*shape))

    def ops(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        names = [f"{op.lower()}{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"{op}{len(self.nodes)}", **attributes))
        return names

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        return self.ops(op, *inputs, **attributes)[0]

    def over(self, op: str, x: str, *axes: int, **attributes: Any) -> str:
        """An op with axes: attribute or input, as the opset has it."""
        if self.opset >= AXES_AS_INPUT[op]:
            return self.op(op, x, self.ints(*axes), **attributes)
        return self.op(op, x, axes=list(axes), **attributes)

    def slice(self, x: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]) -> str:
        if self.opset >= 10:
            return self.op("Slice", x, self.ints(*starts), self.ints(*ends), self.ints(*axes))
        return self.op("Slice", x, starts=list(starts), ends=list(ends), axes=list(axes))

    def gemm(self, x: str, width: int, out: int) -> str:
        return self.op("Gemm", x, self.weight(width, out), self.weight(out))

    def rows(self, batch: int, width: int, name: str = "x") -> str:
        """A graph input (batch, width)."""
        return self.input(name, self.numbers(batch, width), ["batch", width])

    def series(self, time: int, batch: int, width: int, name: str = "x") -> str:
        """A graph input (batch, time, width)."""
        return self.input(name, self.numbers(batch, time, width), ["batch", time, width])

    def case(self, *outputs: str) -> Case:
        """The finished model, explaining the first of ``outputs``, with its inputs."""
        infos = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
        graph = helper.make_graph(self.nodes, "drawn", self.inputs, infos, self.constants)
        opset = [helper.make_opsetid("", self.opset)]
        opset += [helper.make_opsetid(domain, VERSIONS.get(domain, 1)) for domain in sorted({n.domain for n in self.nodes} - {""})]
        return helper.make_model(graph, opset_imports=opset, ir_version=8), self.feeds
