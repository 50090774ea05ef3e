"""What a run's results are held against before anybody sees them: onnxruntime's forward pass, and finiteness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import ParityError, RuleError
from .locate import first_different, infinite_in_engine, infinite_in_runtime, mistyped, place
from .parity import differences, rounding, tolerance
from .plan import Plan
from .program import Program
from .runtime import Runtime

__all__ = ["Verifier", "defined"]


def defined(relevance: Mapping[str, np.ndarray], method: str) -> None:
    """Refuse derivatives that are not finite.

    Raises:
        RuleError: the score has none there.
    """
    for name, array in relevance.items():
        wrong = np.argwhere(~np.isfinite(array))
        if len(wrong):
            where = tuple(int(i) for i in wrong[0])
            raise RuleError(
                f"method {method!r}: {array[where]} at {where} of {name!r} and {len(wrong) - 1} more: the score has no finite "
                "derivative there, as a root or a norm at zero; method='occlusion' and 'lrp' need none"
            )


class Verifier:
    """Refuses results that are not those of the model, and says where they part.

    Args:
        plan: what is run.
        runtime: onnxruntime on the same model.
        precision: of the program.
        epsilon: of the rule, for messages.
    """

    def __init__(self, plan: Plan, runtime: Runtime, *, precision: str, epsilon: float) -> None:
        self._plan = plan
        self._runtime = runtime
        self._precision = precision
        self._epsilon = epsilon

    def check(
        self, program: Program, feeds: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], outputs: Mapping[str, Any]
    ) -> None:
        """The forward pass of a program against onnxruntime's.

        Raises:
            ParityError: they differ, or one of them is not finite.
        """
        expected = self._runtime.forward(feeds)
        if expected is None:
            if contradicts := mistyped(self._runtime):
                raise contradicts
            return
        both = [(a, outputs.get(n)) for n, a in expected.items() if isinstance(a, np.ndarray)]  # a sequence is a list
        if any(place(a) and place(np.asarray(0.0 if b is None else b)) for a, b in both):
            self.finite(program, outputs, given)
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
                where = first_different(self._plan, program, self._runtime, feeds, given, tolerance(self._plan, self._precision))
                raise ParityError(
                    f"output {name!r} differs from onnxruntime's by {error:.1e} of its largest value (tolerance {bound:g})"
                    f"{'; ' + where if where else ''}; "
                    "the explanation would be of another function. verify='never' explains all the same"
                )

    def finite(self, program: Program, arrays: Mapping[str, Any], given: Mapping[str, np.ndarray], *, relevance: str = "") -> None:
        """Refuse arrays that are not finite: the model's outputs, or relevance "at" points or "absorbed in" layers.

        Raises:
            ParityError: a number of the model's own is not finite on these inputs, or nothing stabilizes a sum.
        """
        for name, array in arrays.items():
            if isinstance(array, np.ndarray) and array.dtype.kind == "f" and not np.all(np.isfinite(array)):
                where = infinite_in_engine(self._plan, program, given)
                if where or not relevance:
                    what = f"relevance {relevance} {name!r}" if relevance else f"output {name!r}"
                    raise ParityError(
                        f"{what} is not finite although the inputs are: the model overflows on them, or makes such a number on "
                        f"purpose, as by a mask of -inf or the logarithm of 0, which has no shares; {where or place(array)}"
                    )
                raise ParityError(
                    f"relevance {relevance} {name!r} is not finite ({place(array)}) although the forward pass is: relevance "
                    f"overflows, or a sum is exactly 0 and nothing stabilizes it; a larger epsilon than {self._epsilon:g} helps"
                )
