"""Runs of one plan: in parts that fit the memory, their results verified, joined, and in the model's own dtypes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .asked import Asked
from .batches import exhausted, parts, schedule, splits
from .errors import InputError, OnnxLrpError, ParityError
from .graph import Value
from .hidden import Kept
from .joining import joined
from .locate import place, refusal
from .methods import Method, attribute
from .ops.quantize import limits
from .options import Options
from .plan import Plan
from .precision import PRECISIONS
from .program import OUTSIDE, Program, alike
from .progress import track
from .registry import is_float
from .runtime import Runtime
from .seeds import Target, scores_of
from .verifying import Verifier, defined

__all__ = ["Runs"]

TOGETHER = "samples of this model see each other: what it says of one depends on those beside it, so a batch can't be run in parts"
OVER = "over the limit trips"  # an assertion inside a TensorFlow program


def _rows(array: np.ndarray, axis: int | None, rows: range) -> np.ndarray:
    """Some samples; what has no axis of samples, or one entry for all, is for every sample."""
    return array if axis is None or array.shape[axis] == 1 else np.take(array, rows, axis)


def _unlike_first(samples: np.ndarray) -> np.ndarray:
    """(B,): which samples (B, …) are not the first one's equal."""
    return (samples != samples[:1]).reshape(len(samples), -1).any(1)


class Runs:
    """How a plan is run.

    Args:
        plan: what is run.
        options: how.
        runtime: onnxruntime on the same model.
        filed: the model's outputs, as the file declares them.

    Attributes:
        verified: whether a forward pass was compared with onnxruntime's.
    """

    def __init__(self, plan: Plan, options: Options, runtime: Runtime, *, filed: Sequence[Value]) -> None:
        self._plan = plan
        self._options = options
        self._runtime = runtime
        self._verifier = Verifier(plan, runtime, precision=options.precision, epsilon=options.policy.epsilon)
        self._filed = filed
        self.verified = False
        self._apart = False  # samples were found not to see each other

    @functools.cached_property
    def program(self) -> Program:
        """What runs the plan; TensorFlow is imported for it."""
        return self._options.program(self._plan)

    def samples(self, feeds: Mapping[str, np.ndarray]) -> int | None:
        """Number of samples, None where no input tells."""
        for name, array in feeds.items():
            dims = self._plan.vars[name].dims or ()
            for axis, dim in enumerate(dims):
                if self._plan.batch is not None and tuple(dim.roots) == (self._plan.batch.root,):
                    return int(array.shape[axis])
        return None

    def batch(self, feeds: Mapping[str, np.ndarray]) -> int:
        """Number of samples, 1 where no input tells."""
        return self.samples(feeds) or 1

    def chunks(
        self, feeds: dict[str, np.ndarray], target: Target, finish: Any, keep: tuple[Kept, ...] = (), method: Method | None = None
    ) -> Any:
        """Run, in micro-batches where the whole is too large; a model exported for a batch of one is run sample by sample."""
        batch, size = self.batch(feeds), PRECISIONS[self._options.precision].dtype.itemsize
        how = schedule(
            self._plan, feeds, batch, itemsize=size, max_bytes=self._options.max_bytes, checkpoint=self._options.checkpoint
        )
        axes = {n: self._plan.batch_axis(n) for n in feeds}
        if how.size < batch and not self.divides(feeds, how.segment):
            if self._options.max_bytes is not None:
                raise InputError(f"{TOGETHER}: they would keep more than max_bytes={self._options.max_bytes}")
            how = dataclasses.replace(how, size=batch)

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
                    found.append(finish(self.run(part, own, keep, few, how.segment), part))
                except Exception as error:
                    if not exhausted(error):
                        raise
                    if len(some) == 1 or not splits(self._plan):
                        raise InputError(
                            f"not enough memory for {len(some)} sample(s) of this size; pass fewer or shorter, or checkpoint=64"
                        ) from error
                    if len(some) == batch and not self.divides(feeds, how.segment):
                        raise InputError(f"{TOGETHER}, and there is not enough memory for all; pass fewer or shorter") from error
                    fits = len(some) // 2
                else:
                    at = some.stop
            return found

        done = [made for rows in track(parts(batch, how.size)) for made in parted(rows)]
        if len(done) == 1:
            return done[0]
        return joined(self._plan, done, Asked.of(target, keep))

    def divides(self, feeds: Mapping[str, np.ndarray], segment: int | None = None) -> bool:
        """Whether samples may be run apart from each other: two of them say the same together and alone.

        Nothing of a file tells of a mean over the batch, say, and parts of a batch would have another.
        """
        axes = {n: self._plan.batch_axis(n) for n in feeds}
        own = {n: np.moveaxis(a, axis, 0) for n, a in feeds.items() if (axis := axes[n]) is not None and a.shape[axis] > 1}
        if self._apart or self._plan.fixed_batch == 1:
            return True
        other = min((int(np.argmax(unlike)) for a in own.values() if (unlike := _unlike_first(a)).any()), default=0)
        if not other:
            return True  # of equal samples parts are the whole, which says nothing of others

        def scored(*rows: int) -> dict[str, Any]:
            part = {n: np.take(a, rows, axes[n]) if n in own else a for n, a in feeds.items()}
            result = self.run(part, Target("scores"), segment=segment, verify="never")  # that is for a whole part
            return {**result["outputs"], self._plan.explained: result["scores"]}

        try:
            both, each = scored(0, other), [scored(0), scored(other)]
        except Exception as error:
            if exhausted(error):
                return True  # so will the parts be
            raise
        places = {n: self._plan.batch_axis(n) for n in both if n in self._plan.vars}
        for k, alone in enumerate(each):
            one = {n: np.take(both[n], [k], axis) for n, axis in places.items() if axis is not None and both[n].shape[axis] == 2}
            if not alike(one, {n: alone[n] for n in one}, self.program.rounding):
                return False
        self._apart = True
        return True

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        target: Target,
        keep: tuple[Kept, ...] = (),
        method: Method | None = None,
        segment: int | None = None,
        verify: str | None = None,
    ) -> dict[str, Any]:
        """One run of the program; ``verify``: other than the options say."""
        plan, verify = self._plan, verify or self._options.verify
        entered = any(n in plan.prefix for n in feeds)  # the caller computed the cut himself
        verified = not entered and (verify == "always" or (verify == "first" and not self.verified))
        if verified:
            self._runtime.admit()
        before = self._runtime.prefix(plan.prefix, feeds) if plan.prefix and not entered else {}
        given = {n: before[n] if n in before else feeds[n] for n in plan.feeds}
        program = self.program
        try:
            result = program(given, target, keep, segment) if method is None else attribute(program, given, target, method)
        except Exception as error:
            if isinstance(error, OnnxLrpError) or exhausted(error):
                raise
            if OVER in str(error):
                raise InputError(next(line for line in str(error).splitlines() if OVER in line)) from error
            if not entered:
                if refused := refusal(self._runtime, feeds, error):
                    raise refused from error
                if OUTSIDE in str(error):
                    said = next(line for line in str(error).splitlines() if OUTSIDE in line)
                    raise InputError(said[said.index("[") + 1 : said.rindex("]")].replace("\\'", "'")) from error
                raise
            # nothing in the file says what shape a cut behind an unknown op has, so the engine is the first to notice
            reason = str(error).splitlines()[0][:200]
            raise InputError(f"the array(s) for {', '.join(given)} don't fit what reads them: {reason}") from error
        if "shape" in result:  # what the file left open is known now
            target.check(dataclasses.replace(scores_of(plan), shape=tuple(int(n) for n in result["shape"])))
        result["outputs"].update({n: before[n] for n in plan.outputs if n in before})
        if verified:
            self._verifier.check(program, feeds, given, result["outputs"])
            self.verified = True
        self._verifier.finite(program, result["outputs"], given)
        if method is None:
            self._verifier.finite(program, result.get("relevance", {}), given, relevance="at")
            ledger = {key.replace("|", " as "): amount for key, amount in result.get("absorbed", {}).items()}
            self._verifier.finite(program, ledger, given, relevance="absorbed in")
        else:
            defined(result["relevance"], method.name)
        return result

    def outputs(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs in the model's order and dtypes."""
        dtypes = {v.name: v.dtype for v in self._filed}
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
