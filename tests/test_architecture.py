"""The house rules, read off the source: twins, direction of imports, public names, and importers against the ONNX standard."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import onnx_lrp
from onnx_lrp import testing
from onnx_lrp.registry import Importer, registered

PACKAGE = Path(onnx_lrp.__file__).parent
SHARED = {"__init__", "build", "checking", "inputs", "laws", "measures", "options", "plugin", "recurrent"}  # of no single op family
CHAIN = ["errors", "graph", "reading", "registry", "ops", "program", "methods", "explainer", "report", "serve", "cli"]
LEAVES = {"report", "serve", "cli"}


def modules() -> dict[str, Path]:
    """Dotted name inside the package → file."""
    out = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        out[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return out


def imported(name: str, source: str, known: set[str], *, is_package: bool = False) -> set[str]:
    """Modules of the package that a module imports when it is imported (not for typing, not inside functions)."""
    base = name.split(".") if is_package else name.split(".")[:-1]
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.ImportFrom):
            stem = (node.module or "").split(".") if node.module else []
            if node.level:
                stem = base[: len(base) - node.level + 1] + stem
            elif stem[:1] == ["onnx_lrp"]:
                stem = stem[1:]
            else:
                return
            for alias in node.names:
                found.update({".".join([*stem, alias.name]), ".".join(stem)} & known)
        if isinstance(node, ast.Import):
            found.update({a.name.removeprefix("onnx_lrp.") for a in node.names if a.name.startswith("onnx_lrp.")} & known)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source))
    return found - {name, ""}


def imports() -> dict[str, set[str]]:
    files = modules()
    folders = {n for n, p in files.items() if p.name == "__init__.py" and n != "__init__"}
    return {n: imported(n, p.read_text(), set(files), is_package=n in folders) for n, p in files.items()}


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen, stack = set(), [start]
    while stack:
        for name in graph.get(stack.pop(), ()):
            if name not in seen:
                seen.add(name)
                stack.append(name)
    return seen


def violations(graph: dict[str, set[str]]) -> list[str]:
    """What breaks errors ← graph ← reading ← registry ← ops ← program ← methods ← explain ← {report, cli}, or imports testing."""
    wrong = []
    for name in graph:
        head, seen = name.split(".")[0], reachable(graph, name)
        if name in seen:
            wrong.append(f"{name} imports itself in a circle")
        if head != "testing" and any(s.split(".")[0] == "testing" for s in seen):
            wrong.append(f"{name} imports testing")
        if head in CHAIN:
            later = set(CHAIN[CHAIN.index(head) + 1 :])
            wrong += [f"{name} imports {s}" for s in sorted(seen) if s.split(".")[0] in later and head not in LEAVES]
        if head == "ops":
            wrong += [f"{name} imports {s}" for s in sorted(seen & {"program", "explainer", "plan"})]
        if head == "rules":
            wrong += [f"{name} imports {s}" for s in sorted(seen) if s.split(".")[0] in ("ops", "layer")]
    return sorted(set(wrong))


def test_imports_keep_their_direction():
    assert violations(imports()) == []


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("errors", "graph", "errors imports graph"),
        ("ops.lstm", "program", "ops.lstm imports program"),
        ("ops.lstm", "plan", "ops.lstm imports plan"),
        ("graph", "reading", "graph imports reading"),
        ("graph", "testing.laws", "graph imports testing"),
        ("rules", "layer", "rules imports layer"),
        ("linear", "explainer", "linear imports itself in a circle"),
    ],
)
def test_a_wrong_import_is_noticed(name, target, expected):
    graph = imports()
    graph[name] = graph[name] | {target}
    assert expected in violations(graph)


def test_imports_are_read_from_source():
    source = "from ..program import Program\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..plan import Plan\n"
    source += "def f():\n    from ..explainer import load\n"
    assert imported("ops.x", source, {"program", "plan", "explainer"}) == {"program"}


def test_every_op_family_has_its_strategies():
    ops = {m.name for m in pkgutil.iter_modules([str(PACKAGE / "ops")])}
    strategies = {m.name for m in pkgutil.iter_modules([str(PACKAGE / "testing")])} - SHARED
    assert ops - strategies == set(), "op families without strategies in testing/"
    assert strategies - ops == set(), "strategies without an op family"


def isort_style(name: str) -> tuple[int, str]:
    """CONSTANTS, Classes, the rest: ruff's order of ``__all__``."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("name", sorted(n for n in modules() if n not in ("__main__", "_lazy")))
def test_public_names_are_sorted_and_exist(name):
    module = importlib.import_module("onnx_lrp" if name == "__init__" else f"onnx_lrp.{name}")
    if modules()[name].name == "__init__.py" and not hasattr(module, "__all__"):
        return  # a folder of private modules
    assert list(module.__all__) == sorted(module.__all__, key=isort_style)
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert hasattr(module, public), f"{name}.{public} does not exist"


def test_public_names_are_complete():
    assert set(onnx_lrp.__all__) - {"__version__"} == set(onnx_lrp._HOME) | (set(onnx_lrp.__all__) & {"ops", "targets", "testing"})
    errors = {n for n, v in vars(onnx_lrp.errors).items() if isinstance(v, type)}
    assert errors <= set(onnx_lrp.__all__)
    for module in pkgutil.iter_modules([str(PACKAGE / "testing")]):
        if module.name not in ("build", "recurrent"):
            names = set(importlib.import_module(f"onnx_lrp.testing.{module.name}").__all__)
            assert names <= set(testing.__all__), module.name
            assert module.name not in testing.__all__, f"{module.name}: importing the module would hide the function"


def test_no_tensorflow_before_the_first_run():
    script = """
import sys
import hypothesis
import onnx_lrp
from onnx_lrp import testing
assert "tensorflow" not in sys.modules, "by the package"
model, _ = hypothesis.find(testing.lstms(), lambda case: True, settings=hypothesis.settings(database=None, max_examples=20))
explainer = onnx_lrp.load(model.SerializeToString())
str(explainer.summary()), explainer.weights()
assert "tensorflow" not in sys.modules, "by load, summary or weights"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# importers against the standard

# (op or "*", input or attribute) → why the importer's signature says something else than onnx.defs; attributes that it does not
# name are refused when a file has them, never ignored
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("*", "consumed_inputs"): "an in-place hint of opsets 1 to 5, which had no other meaning",
    ("Clip", "min"): "float32's own limits: -inf clips no finite number either",
    ("Clip", "max"): "float32's own limits: inf clips no finite number either",
    ("MeanVarianceNormalization", "axes"): "None is [0, 2, 3]",
    ("RNN", "activations"): "None is Tanh for every direction, one or two",
    ("Range", "stash_type"): "the accumulator of half-precision ranges, new in opset 27",
}


def history(op: str, domain: str) -> list[onnx.defs.OpSchema]:
    found = [s for s in onnx.defs.get_all_schemas_with_history() if s.name == op and s.domain == domain]
    return sorted(found, key=lambda s: s.since_version)


def covered(entry: Importer, entries: list[Importer]) -> list[onnx.defs.OpSchema]:
    """The schemas that an importer reads: from its first opset until the next importer takes over."""
    until = min([e.since for e in entries if e.since > entry.since], default=10**6)
    schemas = history(entry.op, entry.domain)
    before = [s for s in schemas if s.since_version <= entry.since]
    return before[-1:] + [s for s in schemas if entry.since < s.since_version < until]


def complaints(entry: Importer, schemas: list[onnx.defs.OpSchema]) -> list[str]:
    """What an importer's signature gets wrong of the schemas it reads."""
    if not schemas:
        return [f"{entry.op}: no such op in the standard"]
    newest, wrong = schemas[-1], []
    names = [i.name for i in newest.inputs]
    variadic = bool(newest.inputs) and newest.inputs[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic
    if variadic != entry.variadic:
        wrong.append(f"{entry.op}-{entry.since}: variadic {entry.variadic}, the standard says {variadic}")
    if not variadic and list(entry.inputs) != names and not (len(names) == len(entry.inputs) == 1):  # one binds by position
        wrong.append(f"{entry.op}-{entry.since}: inputs {list(entry.inputs)}, the standard says {names}")
    known: dict[str, onnx.defs.OpSchema.Attribute] = {}
    for schema in schemas:
        known |= schema.attributes
    wrong += [f"{entry.op}-{entry.since}: attribute {a!r} is not read" for a in sorted(known) if a not in entry.attributes]
    wrong += [f"{entry.op}-{entry.since}: there is no attribute {a!r}" for a in entry.attributes if a not in known]
    parameters = inspect.signature(entry.function).parameters
    for name in set(entry.attributes) & set(newest.attributes):
        proto = newest.attributes[name].default_value
        if not proto.name or not proto.type:
            continue
        want, got = onnx.helper.get_attribute_value(proto), parameters[name].default
        want = want.decode() if isinstance(want, bytes) else want
        same = abs(got - want) < 1e-6 if isinstance(want, float) and isinstance(got, int | float) else got == want
        if not same:
            wrong.append(f"{entry.op}-{entry.since}: {name}={got!r}, the standard's default is {want!r}")

    def excused(complaint: str) -> bool:
        ours = [n for op, n in EXCEPTIONS if op in ("*", entry.op)]
        return any(repr(n) in complaint or f": {n}=" in complaint for n in ours)

    return [w for w in wrong if not excused(w)]


STANDARD = [(d, op) for d, op in registered() if d in ("", "ai.onnx.ml")]


@pytest.mark.parametrize(("domain", "op"), STANDARD, ids=[op for _, op in STANDARD])
def test_importers_follow_the_standard(domain, op):
    entries = list(registered()[domain, op])
    assert [c for e in entries for c in complaints(e, covered(e, entries))] == []


def test_a_wrong_signature_is_noticed():
    def read(A, C, *, alpha=2.0, gamma=1.0):
        """A Gemm that nobody should accept."""

    entry = Importer(read, "Gemm", "", 7, inputs=("A", "C"), attributes=("alpha", "gamma"))
    found = " ".join(complaints(entry, covered(entry, [entry])))
    for part in ("inputs ['A', 'C']", "'beta' is not read", "no attribute 'gamma'", "alpha=2.0"):
        assert part in found
