"""What the tests of datasets share: small models, files of every format, and runs read back."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnx

import onnx_lrp
from onnx_lrp.testing.build import Builder

WIDTH, WORDS = 3, 9
EAGER = {"jit": "eager", "verify": "never"}


def reader(path: Path) -> str:
    """ids (B, T) of 9 words → embedding → GRU → three classes."""
    b = Builder(np.random.default_rng(2), 17)
    ids = b.input("ids", np.asarray([[1, 4, 2], [0, 3, 5]]), ["batch", "time"])
    x = b.op("Transpose", b.op("Gather", b.weight(WORDS, 4), ids), perm=[1, 0, 2])
    _, last = b.ops("GRU", x, b.weight(1, 9, 4), b.weight(1, 9, 3), b.weight(1, 18), outputs=2, hidden_size=3)
    return saved(b, b.op("Gemm", b.over("Squeeze", last, 0), b.weight(3, 3), b.weight(3)), path)


def series(path: Path) -> str:
    """x (T, B, 3) → LSTM → two classes."""
    b = Builder(np.random.default_rng(3), 17)
    x = b.input("x", b.numbers(5, 2, WIDTH), ["T", "B", WIDTH])
    _, last = b.ops("LSTM", x, b.weight(1, 16, WIDTH), b.weight(1, 16, 4), b.weight(1, 32), outputs=2, hidden_size=4)
    return saved(b, b.op("Gemm", b.over("Squeeze", last, 0), b.weight(4, 2), b.weight(2)), path)


def dense(path: Path) -> str:
    """x (B, 3) → two classes."""
    b = Builder(np.random.default_rng(4), 17)
    x = b.rows(2, WIDTH)
    return saved(b, b.gemm(b.op("Relu", b.gemm(x, WIDTH, 5)), 5, 2), path)


def both(path: Path) -> str:
    """ids (B, T) of 9 words → embedding → GRU, beside x (B, 3) → three classes."""
    b = Builder(np.random.default_rng(5), 17)
    ids, x = b.input("ids", np.asarray([[1, 4, 2], [0, 3, 5]]), ["batch", "time"]), b.input("x", b.numbers(2, 3), ["batch", 3])
    steps = b.op("Transpose", b.op("Gather", b.weight(WORDS, 4), ids), perm=[1, 0, 2])
    _, last = b.ops("GRU", steps, b.weight(1, 9, 4), b.weight(1, 9, 3), b.weight(1, 18), outputs=2, hidden_size=3)
    read = b.op("Gemm", b.over("Squeeze", last, 0), b.weight(3, 3), b.weight(3))
    return saved(b, b.op("Add", read, b.op("MatMul", b.op("Mul", x, b.const(9.0, np.float32)), b.weight(3, 3))), path)


def saved(b: Builder, output: str, path: Path) -> str:
    onnx.save(b.case(output)[0], path)
    return str(path)


def ids_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, WORDS, n).tolist() for n in lengths]


def table(rows, **columns):
    """An Arrow table: ids by default, and an id a row."""
    import pyarrow as arrow

    return arrow.table({"id": arrow.array(range(len(rows)), arrow.int64()), "ids": rows, **columns})


def parquet(path: Path, rows, *, row_group_size=None, **columns) -> str:
    from pyarrow import parquet as files

    files.write_table(table(rows, **columns), path, row_group_size=row_group_size)
    return str(path)


def text_csv(path: Path, columns: dict[str, list]) -> str:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow([json.dumps(cell) if isinstance(cell, list) else cell for cell in row])
    return str(path)


def jsonl(path: Path, columns: dict[str, list]) -> str:
    lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def explain(model, dataset, out, **options):
    return onnx_lrp.explain_dataset(model, dataset, out, **{**EAGER, **options})


def shards(out: Path, kind="relevance"):
    """All rows of a kind, as Python objects, in the order of the shards."""
    from pyarrow import parquet as files

    return [row for path in sorted((Path(out) / kind).glob("*.parquet")) for row in files.read_table(path).to_pylist()]


def same(left, right, *, but=()):
    """Whether two runs found the same rows."""
    assert [list(r) for r in left] == [list(r) for r in right]
    for a, b in zip(left, right, strict=True):
        for name in set(a) - set(but):
            if isinstance(a[name], float | list):
                assert np.shape(a[name]) == np.shape(b[name]), (a.get("row"), name)
                np.testing.assert_allclose(a[name], b[name], rtol=2e-4, atol=2e-6, err_msg=f"{name} of row {a.get('row')}")
            else:
                assert a[name] == b[name], (a.get("row"), name)
