"""Every public name says what it does: its errors where it raises, shapes where arrays go in or out, the source of a formula."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap

import pytest

import onnx_lrp
from onnx_lrp import testing

pytest.importorskip("hypothesis")
HOMES = (onnx_lrp, onnx_lrp.targets, testing)
SHAPE = re.compile(r"\((?:[A-Z0-9]|…)[^()]*\)|\bshapes?\b")  # (T, B, H), or that of something named
SOURCE = re.compile(r"et al\.?,? \(?\d{4}")
FORMULAS = ("AlphaBeta", "Epsilon", "Flat", "Gamma", "WSquare", "ZBox", "ZPlus", "load")


def function(member):
    """The function behind a property, a static or class method, or a strategy of hypothesis; None: no function."""
    for name in ("fget", "func", "__func__"):
        member = getattr(member, name, None) or member
    member = inspect.unwrap(member)
    return member if inspect.isfunction(member) else None


def public():
    """(qualified name, object, docstring, docstring of its class) of every public name, and of every public method."""
    for home in HOMES:
        for name in home.__all__:
            value = getattr(home, name)
            if not (inspect.isclass(value) or callable(value)):
                continue
            yield f"{home.__name__}.{name}", value, inspect.getdoc(value), ""
            if not inspect.isclass(value):
                continue
            for part, member in vars(value).items():
                if not part.startswith("_") and function(member) is not None:
                    doc = inspect.getdoc(getattr(value, part))  # a rule's is that of Rule
                    yield f"{home.__name__}.{name}.{part}", function(member), doc, inspect.getdoc(value) or ""


def complaints(value, doc, of_class=""):
    """What a docstring leaves unsaid."""
    if not doc:
        return ["no docstring"]
    if inspect.isclass(value) or (raw := function(value)) is None:
        return []
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(raw))).body[0]
    except (OSError, SyntaxError, TypeError):  # made by a decorator: nothing to read
        return []
    if not isinstance(tree, ast.FunctionDef):
        return []
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    errors = {ast.unparse(call.func) for call in calls if ast.unparse(call.func).endswith(("Error", "Model", "Extra"))}
    missing = [f"raises {e}, and doesn't say so" for e in sorted(errors) if e not in doc and e not in of_class]
    arguments = [a.annotation for a in (*tree.args.args, *tree.args.kwonlyargs) if a.annotation] + [tree.returns]
    if any("ndarray" in ast.unparse(a) for a in arguments if a is not None) and not SHAPE.search(doc):
        missing.append("arrays without a shape")
    return missing


@pytest.mark.parametrize("home", HOMES, ids=lambda home: home.__name__)
def test_public_names_say_what_they_do(home):
    found = [(name, complaints(value, doc, outer)) for name, value, doc, outer in public() if name.startswith(f"{home.__name__}.")]
    assert len(found) > 10
    assert not {name: missing for name, missing in found if missing}


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_have_a_source(name):
    assert SOURCE.search(inspect.getdoc(getattr(onnx_lrp, name)))


def test_every_rule_is_held_to_it():
    rules = {n for n in onnx_lrp.__all__ if inspect.isclass(v := getattr(onnx_lrp, n)) and issubclass(v, onnx_lrp.Rule)}
    assert rules - {"Rule"} <= set(FORMULAS)


def test_what_is_left_unsaid_is_noticed():
    def raises(x):
        """Doubles."""
        raise onnx_lrp.InputError("no")

    def arrays(x: np.ndarray) -> int:  # noqa: F821
        """Counts."""

    assert complaints(raises, None) == ["no docstring"]
    assert complaints(raises, raises.__doc__) == ["raises onnx_lrp.InputError, and doesn't say so"]
    assert complaints(arrays, arrays.__doc__) == ["arrays without a shape"]
    assert not complaints(arrays, "Counts the entries of x (B, T).")
