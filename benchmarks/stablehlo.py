"""An exported explanation under JAX's runtime, where neither TensorFlow nor onnx_lrp is needed, against PyTorch's own LSTM.

    python benchmarks/stablehlo.py export FOLDER [--shape I H C T B]     where onnx_lrp is: a bidirectional LSTM, its results
    python benchmarks/stablehlo.py run FOLDER [--pairs N] [--json]       where JAX is: checks them, and times

Export writes ``explainer.stablehlo`` and ``given.npz`` (inputs, and the results of onnx_lrp). Run compiles the program for JAX's
first device, compares every result with the stored one (1e-3 of its largest value; a GPU keeps to that with NVIDIA_TF32_OVERRIDE=0)
and times it on arrays that are on the device already. Where torch is importable, it takes turns with a torch.nn.LSTM of the same
sizes on the same kind of device: forward alone, and gradient × input. Exit codes: 0 done, 1 a result differs, 2 JAX is missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-3
SHAPE = (128, 256, 2, 100, 64)  # I, H, C, T, B


def export(folder: Path, shape: tuple[int, ...]) -> None:
    """Write the artifact, and what it has to say."""
    from _models import bilstm

    import onnx_lrp

    i, h, c, t, b = shape
    explainer = onnx_lrp.load(bilstm(i, h, c), verify="never")
    x = np.random.default_rng(1).normal(size=(t, b, i)).astype(np.float32)
    explanation = explainer.explain(x)
    folder.mkdir(parents=True, exist_ok=True)
    explainer.export(folder / "explainer.stablehlo", inputs=x)
    results = {f"outputs/{n}": a for n, a in explanation.outputs.items()}
    results |= {f"relevance/{n}": a for n, a in explanation.relevance.items()}
    results |= {f"absorbed/{n}": a for n, a in explanation.absorbed.items()}
    results |= {"seed": explanation.seed, "index": explanation.target}
    np.savez(folder / "given.npz", shape=np.array(shape), **{"inputs/x": x}, **results)
    size = (folder / "explainer.stablehlo").stat().st_size
    print(f"{folder}: (I, H, C, T, B) = {shape}, {size / 2**20:.1f} MiB")


class Program:
    """The artifact, compiled for JAX's first device; its arguments are there already."""

    def __init__(self, artifact: Any, given: Any) -> None:
        import jax
        from jaxlib import xla_client

        jax.config.update("jax_enable_x64", True)  # the explained class is int64
        self.manifest = json.loads(artifact["manifest.json"])
        self.device = jax.devices()[0]
        start = time.perf_counter()
        devices = xla_client.DeviceList((self.device,))
        compile_ = getattr(self.device.client, "compile_and_load", None) or self.device.client.compile
        self.compiled = compile_(artifact["program.mlirbc"], devices, xla_client.CompileOptions())
        self.seconds = time.perf_counter() - start
        arrays = [
            artifact[a["name"]] if a["kind"] == "weight" else given[f"inputs/{a['name']}"] for a in self.manifest["arguments"]
        ]
        kinds = [a["dtype"] for a in self.manifest["arguments"]]
        arrays = [a.view(jax.numpy.bfloat16) if kind == "bfloat16" else a for a, kind in zip(arrays, kinds, strict=True)]
        self.arguments = jax.block_until_ready([jax.device_put(a, self.device) for a in arrays])

    def __call__(self) -> list[Any]:
        outputs = self.compiled.execute_sharded(self.arguments).disassemble_into_single_device_arrays()
        for output in outputs:
            output[0].block_until_ready()
        return [output[0] for output in outputs]


def differences(program: Program, given: Any) -> dict[str, float]:
    """{result: its largest difference from the stored one, over the largest value of that}."""
    off = {}
    for entry, result in zip(program.manifest["results"], program(), strict=True):
        want, got = given[entry["key"]], np.asarray(result)
        off[entry["key"]] = float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-9))
    return off


def torch_lstm(shape: tuple[int, ...], kind: str) -> dict[str, Callable[[], Any]]:
    """The same network in PyTorch: {what: a call that returns when it is done}; {} where torch, or its device, is not there."""
    try:
        import torch
    except ImportError:
        return {}
    if kind == "gpu" and not torch.cuda.is_available():
        return {}
    i, h, c, t, b = shape
    device = torch.device("cuda" if kind == "gpu" else "cpu")
    lstm = torch.nn.LSTM(i, h, bidirectional=True).to(device)
    head = torch.nn.Linear(2 * h, c).to(device)
    x = torch.randn(t, b, i, device=device)
    for parameter in (*lstm.parameters(), *head.parameters()):
        parameter.requires_grad_(False)  # only the input's gradient is asked for

    def scores(x: Any) -> Any:
        _, (state, _) = lstm(x)
        return head(torch.cat([state[0], state[1]], 1))

    def done(result: Any) -> Any:
        if kind == "gpu":
            torch.cuda.synchronize()
        return result

    def forward() -> Any:
        with torch.no_grad():
            return done(scores(x))

    def gradient() -> Any:
        leaf = x.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(scores(leaf).max(1).values.sum(), leaf)
        return done(slope * leaf.detach())

    return {"torch forward": forward, "torch gradient × input": gradient}


def pairs(functions: dict[str, Callable[[], Any]], count: int) -> dict[str, list[float]]:
    """Seconds of each, the functions taking turns."""
    for function in functions.values():
        function()
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(count):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def run(folder: Path, count: int, as_json: bool) -> int:
    try:
        import jax
    except ImportError:
        print("JAX is not installed: pip install jax (with a GPU: pip install 'jax[cuda12]')", file=sys.stderr)
        return 2
    given, artifact = np.load(folder / "given.npz"), np.load(folder / "explainer.stablehlo")
    shape = tuple(int(n) for n in given["shape"])
    program = Program(artifact, given)
    off = differences(program, given)
    wrong = {key: value for key, value in off.items() if not value <= TOLERANCE}
    for key, value in wrong.items():
        print(f"{key} is off by {value:.1e} of its largest value", file=sys.stderr)
    kind = "cpu" if program.device.platform == "cpu" else "gpu"
    seconds = pairs({"explanation": program, **torch_lstm(shape, kind)}, count)
    ours = seconds["explanation"]
    rows = [
        {
            "what": name,
            "ms": 1e3 * statistics.median(theirs),
            "ratio": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        }
        for name, theirs in seconds.items()
    ]
    about = {"device": program.device.device_kind, "jax": jax.__version__, "shape": shape, "compile_s": program.seconds, "off": off}
    if as_json:
        print(json.dumps({**about, "rows": rows}))
        return int(bool(wrong))
    print(f"(I, H, C, T, B) = {shape}, JAX {jax.__version__} on {about['device']}, compiled in {program.seconds:.1f} s;")
    print(f"results agree to {max(off.values()):.1e} of their largest value\n")
    print("| what | time | explanation / this |")
    print("| --- | --- | --- |")
    for row in rows:
        print(f"| {row['what']} | {row['ms']:.2f} ms | {row['ratio']:.2f} |")
    return int(bool(wrong))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("export", "run"):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        if name == "export":
            command.add_argument("--shape", type=int, nargs=5, default=SHAPE, metavar=("I", "H", "C", "T", "B"))
        else:
            command.add_argument("--pairs", type=int, default=15)
            command.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.command == "export":
        export(options.folder, tuple(options.shape))
        return 0
    return run(options.folder, options.pairs, options.json)


if __name__ == "__main__":
    sys.exit(main())
