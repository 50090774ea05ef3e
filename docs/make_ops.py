"""Make ``docs/ops.md``, the table of ops that are read.

    python docs/make_ops.py             write it from the registry and docs/ops.json
    python docs/make_ops.py --check     exit status 1 if the committed file is another one
    python docs/make_ops.py --measure   first run ONNX's node tests and read drawn models again, into docs/ops.json (half a minute)

docs/ops.json holds what takes a run to know: how many node tests pass, and which families of layers an op became.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import onnx

import onnx_lrp
from onnx_lrp import layer
from onnx_lrp.registry import registered
from onnx_lrp.rewrite import _REWRITERS

DOCS = Path(__file__).resolve().parent
FAMILIES = ("Routing", "Affine", "Elementwise", "Product", "Recurrent", "Opaque", "Nested", "Plain")
HEADER = """# Ops that are read

Made by `docs/make_ops.py` from the importers; edit nothing here. Opsets as of onnx {onnx}. A node off the relevance path
needs no importer: onnxruntime runs it, whatever its op.

How relevance goes through an op: **Affine** by the rule, as part of its block; **Elementwise** unchanged, as through an
activation; **Routing** back along the index map; **Product** half to each signal; **Recurrent** and **Opaque** by a rule of
their own; **Nested** through the sub-graph; **Plain** carries none. An op with several becomes one or the other by its
operands (a factor may be a gate or a signal). *Rewritten*: the node becomes several standard ones when the file is read
(so does SequenceMap: a Loop).

The last column counts [ONNX's own node tests](https://github.com/onnx/onnx/blob/main/docs/OnnxBackendTest.md) that the
engine's layers pass, {passed} in all.

| op | domain | opsets | relevance | file | strategies | node tests |
| --- | --- | --- | --- | --- | --- | --- |
"""


def family(kind: type) -> str:
    """The family of a layer class, by what it is derived from."""
    names = [base.__name__ for base in kind.__mro__]
    if "Product" in kind.__name__:
        return "Product"
    return next((f for f in ("Recurrent", "Nested", "Routing", "Affine", "Elementwise", "Opaque") if f in names), "Plain")


def classes(function: Callable[..., Any], seen: set[Any] | None = None) -> set[type]:
    """Layer classes that an importer may return: those that it, or a function of its module that it calls, names."""
    seen = set() if seen is None else seen
    if function in seen:
        return set()
    seen.add(function)
    scope = {
        **function.__globals__,
        **dict(zip(function.__code__.co_freevars, (c.cell_contents for c in function.__closure__ or ()), strict=True)),
    }
    found: set[type] = set()
    for name in (*function.__code__.co_names, *function.__code__.co_freevars):
        value = scope.get(name)
        if isinstance(value, type) and issubclass(value, layer.Layer):
            found.add(value)
        elif hasattr(value, "__code__") and str(getattr(value, "__module__", "")).startswith("onnx_lrp.ops"):
            found |= classes(value, seen)
    return found


def home(function: Callable[..., Any]) -> str:
    """The module of an importer; one whose signature was generated stands with its layer."""
    name = function.__module__ or ""
    return name if name.startswith("onnx_lrp") else sorted(c.__module__ for c in classes(function))[0]


def opsets(op: str, domain: str, since: int) -> str:
    """From the first opset that is read to the newest that onnx knows the op in."""
    schemas = sorted(
        (s for s in onnx.defs.get_all_schemas_with_history() if s.name == op and s.domain == domain), key=lambda s: s.since_version
    )
    if not schemas:
        return str(since)
    first = max(since, schemas[0].since_version)
    newest = {"": onnx.defs.onnx_opset_version()}.get(domain) or max(
        s.since_version for s in onnx.defs.get_all_schemas() if s.domain == domain
    )
    last = schemas[-1].since_version - 1 if schemas[-1].deprecated else newest
    return f"{first}–{last}" if last > first else str(first)


def public(module: str) -> str:
    """The strategies of an op family."""
    path = DOCS.parent / "onnx_lrp" / "testing" / f"{module}.py"
    if not path.is_file():
        return ""
    names = importlib.import_module(f"onnx_lrp.testing.{module}").__all__
    return ", ".join(f"`{n}`" for n in names if not n.startswith("assert"))


def rows(measured: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    """One row an op, sorted by domain and name."""
    found: dict[tuple[str, str], tuple[int, str, str]] = {}
    for module in pkgutil.iter_modules(onnx_lrp.__path__):  # rewriters stand in any of them
        if module.name != "__main__":
            importlib.import_module(f"onnx_lrp.{module.name}")
    importers = registered()
    for (domain, op), function in _REWRITERS.items():
        found[domain, op] = (1, "*Rewritten*", function.__module__)
    for (domain, op), entries in importers.items():
        known = measured.get(f"{domain}:{op}", {}).get("families")
        families = set(known or (family(c) for e in entries for c in classes(e.function)))
        listed = ", ".join(f for f in FAMILIES if f in families)
        found[domain, op] = (entries[0].since, listed, home(entries[0].function))
    for (domain, op), (since, families_, module) in sorted(found.items()):
        if domain == "onnx_lrp":  # what rewriters write, never in a file
            continue
        short = module.rsplit(".", 1)[-1]
        where = f"`ops/{short}.py`" if ".ops." in module else f"`{short}.py`"
        counts = measured.get(f"{domain}:{op}", {})
        tests = f"{counts['passed']} of {counts['total']}" if counts.get("total") else ""
        yield op, domain or "ai.onnx", opsets(op, domain, since), families_, where, public(short), tests


def table(measured: dict[str, Any]) -> str:
    """The whole page."""
    head = HEADER.format(onnx=measured["onnx"], passed=measured["passed"])
    return head + "".join("| " + " | ".join(row) + " |\n" for row in rows(measured["ops"]))


def measure() -> dict[str, Any]:
    """Run the node tests, and read drawn models: {op: passed, total, families}."""
    sys.path.insert(0, str(DOCS.parent / "tests"))
    import node_tests

    ops: dict[str, dict[str, Any]] = {}
    passed = 0

    def entry(domain: str, op: str) -> dict[str, Any]:
        return ops.setdefault(f"{domain}:{op}", {"passed": 0, "total": 0, "families": []})

    def note(steps: Iterable[Any]) -> None:
        for step in steps:
            node = step.node.origin or step.node
            if node.op != step.node.op and (node.domain, node.op) in registered():
                continue  # what is written out beside a node that stays
            own = entry(node.domain, node.op)
            own["families"] = sorted({*own["families"], family(type(step.layer))})
            if hasattr(step.layer, "body"):
                note(step.layer.body.steps)

    for outcome in node_tests.outcomes():
        own = entry(*outcome.op)
        own["total"] += 1
        own["passed"] += outcome.error is None
        passed += outcome.error is None
        note(outcome.steps)
    drawn(note)
    listed = {f"{domain}:{op}" for domain, op in (*registered(), *_REWRITERS)}
    return {"onnx": node_tests.version(), "passed": passed, "ops": {k: ops[k] for k in sorted(ops) if k in listed}}


def drawn(note: Callable[[Iterable[Any]], None]) -> None:
    """Read models of every family: products with gates and masks are not among the node tests."""
    from hypothesis import HealthCheck, Phase, given, settings

    from onnx_lrp import testing
    from onnx_lrp.reader import Reader
    from onnx_lrp.reading import load_graph

    @settings(
        max_examples=1500,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(testing.models())
    def read(case: Any) -> None:
        reader = Reader(load_graph(case[0]), ())
        reader.read()
        note(reader.order)

    read()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args()
    record, page = DOCS / "ops.json", DOCS / "ops.md"
    if options.measure:
        record.write_text(json.dumps(measure(), indent=1) + "\n")
    measured = json.loads(record.read_text())
    if onnx.__version__ != measured["onnx"]:
        print(f"docs/ops.md was made with onnx {measured['onnx']}; with {onnx.__version__} it is another table")
        return 0 if options.check else 1
    text = table(measured)
    if options.check:
        stale = not page.is_file() or page.read_text() != text
        print("docs/ops.md is stale: run python docs/make_ops.py" if stale else "docs/ops.md is up to date")
        return int(stale)
    page.write_text(text)
    print(f"{text.count(chr(10)) - HEADER.count(chr(10))} ops")
    return 0


if __name__ == "__main__":
    sys.exit(main())
