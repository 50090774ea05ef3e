"""The command line. Thin: options in, library calls, reports out; every error becomes one line and an exit code.

0 done · 1 a check failed · 2 usage, or a missing extra · 3 the model · 4 the input · 5 the output, or interrupted · 70 a bug
"""

from __future__ import annotations

from .app import app
from .batch import batch
from .check import check
from .demo import demo
from .evaluate import evaluate
from .explain import explain
from .reading import inspect, weights
from .running import main, run
from .view import view

__all__ = ["app", "main", "run"]

for command in (explain, batch, evaluate, inspect, weights, check, demo, view):
    app.command()(command)
