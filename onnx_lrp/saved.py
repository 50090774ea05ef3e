"""Explanations in files: ``.npz`` (exact, no pickle), ``.json``, and ``.parquet`` as a table that other tools read, too."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from .errors import InputError, MissingExtra
from .labels import Labels
from .table import columns, order
from .targets import Spec

if TYPE_CHECKING:
    from .explanation import Explanation

__all__ = ["SCHEMA", "SUFFIXES", "need_pyarrow", "read", "write"]

SCHEMA = 1
SUFFIXES = (".npz", ".json", ".parquet")
META = b"onnx-lrp"  # key in a .parquet file's metadata
DAMAGED = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)  # what a file can raise that holds something else than its name says
LARGEST = 2**31 - 1  # bytes of metadata; pyarrow's own limit is lower


def write(explanation: Explanation, file: Path) -> None:
    """See :meth:`Explanation.save`."""
    if file.suffix == ".json":
        _write_json(explanation, file)
    elif file.suffix == ".npz":
        with file.open("wb") as stream:
            _write_npz(explanation, stream)
    elif file.suffix == ".parquet":
        _write_parquet(explanation, file)
    else:
        raise InputError(f"{file.name}: an explanation is saved as {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def read(file: Path) -> dict[str, Any]:
    """The fields of a saved explanation; see :meth:`Explanation.load`."""
    try:
        if file.suffix == ".json":
            return _read_json(json.loads(file.read_text()))
        if file.suffix == ".parquet":
            return _read_parquet(file)
        with file.open("rb") as stream:
            return _read_npz(stream)
    except DAMAGED as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: not a saved explanation: {error or type(error).__name__}") from error


def need_pyarrow() -> tuple[Any, Any]:
    """(pyarrow, pyarrow.parquet).

    Raises:
        MissingExtra: they are not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtra("pyarrow", extra="data", purpose="an explanation in .parquet") from error


def _known(schema: Any) -> None:
    if schema != SCHEMA:
        raise InputError(f"saved with schema {schema}, this version reads {SCHEMA}")


def _labels(raw: Mapping[str, Any]) -> Labels | None:
    return None if raw.get("labels") is None else Labels.from_dict(raw["labels"])


def _axes(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) for k, v in raw.items()}


def _write_json(explanation: Explanation, file: Path) -> None:
    dtypes = {
        f"{part}/{name}": str(array.dtype)
        for part in ("relevance", "inputs", "outputs", "hidden")
        for name, array in getattr(explanation, part).items()
        if isinstance(array, np.ndarray)
    }
    document = explanation.to_dict() | {"residual": _without_nan(explanation.residual), "dtypes": dtypes}
    for name, array in explanation.inputs.items():
        if array.dtype.kind == "f" and np.isnan(array).any():  # missing entries, of a model that replaces them
            document["inputs"][name] = _without_nan(array)
    file.write_text(json.dumps(document))


def _without_nan(array: np.ndarray) -> Any:
    """As lists with None for NaN, which JSON does not have."""
    found = array.astype(np.float64).astype(object)
    found[np.isnan(array)] = None
    return found.tolist()


def _dtype(name: str) -> np.dtype[Any]:
    """By its name, which numpy alone may not know."""
    with contextlib.suppress(ImportError):
        importlib.import_module("ml_dtypes")
    return np.dtype(name)


def _read_json(raw: dict[str, Any]) -> dict[str, Any]:
    _known(raw["schema"])
    dtypes = raw["dtypes"]

    def arrays(part: str) -> dict[str, Any]:
        return {k: np.asarray(v, _dtype(dtypes[f"{part}/{k}"])) if f"{part}/{k}" in dtypes else v for k, v in raw[part].items()}

    return {
        "relevance": arrays("relevance"),
        "inputs": arrays("inputs"),
        "outputs": arrays("outputs"),
        "target": Spec.from_dict(raw["target"]) if isinstance(raw["target"], dict) else np.asarray(raw["target"]),
        "seed": np.asarray(raw["seed"]),
        "absorbed": {k: np.asarray(v) for k, v in raw["absorbed"].items()},
        "ledger": {layer: {k: np.asarray(v) for k, v in kinds.items()} for layer, kinds in raw["ledger"].items()},
        "residual": np.asarray(raw["residual"], np.float64),
        "axes": _axes(raw["axes"]),
        "origins": _axes(raw["origins"]),
        "explained": raw["explained"],
        "settings": raw["settings"],
        "hidden": arrays("hidden") if "hidden" in raw else {},
        "arrived": {k: np.asarray(v) for k, v in raw.get("arrived", {}).items()},
        "passed": {k: np.asarray(v) for k, v in raw.get("passed", {}).items()},
        "lengths": None if raw.get("lengths") is None else np.asarray(raw["lengths"]),
        "labels": _labels(raw),
    }


def _plain(array: np.ndarray) -> tuple[np.ndarray, str]:
    """(what .npy holds without pickle, the dtype it stands for where that is another one): of texts JSON, of bfloat16 its bits."""
    if array.dtype == object:
        return np.asarray(json.dumps(array.tolist())), "object"
    return (array.view(f"u{array.dtype.itemsize}"), str(array.dtype)) if array.dtype.kind == "V" else (array, "")


def _typical(array: np.ndarray, kind: str) -> np.ndarray:
    """What :func:`_plain` made."""
    if kind == "object":
        return np.asarray(json.loads(str(array)), object)
    return array.view(_dtype(kind)) if kind else array


def _write_npz(explanation: Explanation, stream: IO[bytes], *, relevance: bool = True) -> None:
    """``relevance``: also that of the attribution points, else its shapes alone."""
    arrays: dict[str, Any] = {}
    parts: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}  # of arrays that .npy has no dtype for
    for part in ("relevance", "inputs", "outputs", "absorbed", "hidden", "arrived", "passed"):
        if part == "relevance" and not relevance:
            continue
        values = {k: v for k, v in getattr(explanation, part).items() if isinstance(v, np.ndarray)}
        parts[part] = list(values)
        for i, v in enumerate(values.values()):
            arrays[f"{part}.{i}"], kind = _plain(v)
            if kind:
                kinds[f"{part}.{i}"] = kind
    rows = [(layer, kind, amount) for layer, kinds in explanation.ledger.items() for kind, amount in kinds.items()]
    arrays.update({f"ledger.{i}": amount for i, (_, _, amount) in enumerate(rows)})
    arrays.update(seed=explanation.seed, residual=explanation.residual)
    if isinstance(explanation.target, np.ndarray):
        arrays["target"] = explanation.target
    if explanation.lengths is not None:
        arrays["lengths"] = explanation.lengths
    meta = {
        "target": explanation.target.to_dict() if isinstance(explanation.target, Spec) else None,
        "schema": SCHEMA,
        "parts": parts,
        "kinds": kinds,
        "shapes": {name: array.shape for name, array in explanation.relevance.items()},
        "ledger": [(layer, kind) for layer, kind, _ in rows],
        "axes": explanation.axes,
        "origins": explanation.origins,
        "explained": explanation.explained,
        "settings": explanation.settings,
        "labels": None if explanation.labels is None else explanation.labels.to_dict(),
    }
    np.savez_compressed(stream, meta=np.asarray(json.dumps(meta)), **arrays)


def _read_npz(stream: IO[bytes], relevance: Callable[..., Any] | None = None) -> dict[str, Any]:
    """``relevance``: of the attribution points, made of the fields and of its shapes, where the file does not hold it."""
    with np.load(stream, allow_pickle=False) as archive:
        meta = json.loads(str(archive["meta"]))
        _known(meta["schema"])
        kinds = meta.get("kinds", {})
        parts = {
            part: {name: _typical(archive[f"{part}.{i}"], kinds.get(f"{part}.{i}", "")) for i, name in enumerate(names)}
            for part, names in meta["parts"].items()
        }
        ledger: dict[str, dict[str, np.ndarray]] = {}
        for i, (layer, kind) in enumerate(meta["ledger"]):
            ledger.setdefault(layer, {})[kind] = archive[f"ledger.{i}"]
        fields = {
            "relevance": parts.get("relevance", {}),
            "inputs": parts["inputs"],
            "outputs": parts["outputs"],
            "target": archive["target"] if meta.get("target") is None else Spec.from_dict(meta["target"]),
            "seed": archive["seed"],
            "absorbed": parts["absorbed"],
            "ledger": ledger,
            "residual": archive["residual"],
            "axes": _axes(meta["axes"]),
            "origins": _axes(meta["origins"]),
            "explained": meta["explained"],
            "settings": meta["settings"],
            "hidden": parts.get("hidden", {}),
            "arrived": parts.get("arrived", {}),
            "passed": parts.get("passed", {}),
            "lengths": archive["lengths"] if "lengths" in archive.files else None,
            "labels": _labels(meta),
        }
        return fields if relevance is None else fields | {"relevance": relevance(fields, meta["shapes"])}


def _write_parquet(explanation: Explanation, file: Path) -> None:
    """The rows are the table of the relevance; all the rest is an .npz in the file's metadata."""
    arrow, parquet = need_pyarrow()
    stream = io.BytesIO()
    _write_npz(explanation, stream, relevance=False)
    table = arrow.table(
        {name: arrow.array(_typed(column), from_pandas=name != "relevance") for name, column in columns(explanation).items()}
    )
    parquet.write_table(table.replace_schema_metadata({META: stream.getvalue()}), file)


def _read_parquet(file: Path) -> dict[str, Any]:
    arrow, parquet = need_pyarrow()
    try:
        table = parquet.read_table(file, thrift_string_size_limit=LARGEST)
    except arrow.ArrowException as error:
        raise InputError(f"{file}: not a saved explanation: {error}") from error
    held = (table.schema.metadata or {}).get(META)
    if held is None:
        raise InputError(f"{file}: a .parquet file, but not a saved explanation")
    rows = table.column("relevance").to_numpy()

    def relevance(fields: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
        found, at, lead = {}, 0, int(np.ndim(fields["seed"]) == 2)
        if len(rows) != sum(int(np.prod(shape)) for shape in shapes.values()):
            raise InputError(f"{file}: {len(rows)} rows, but the explanation had others")
        for name, shape in shapes.items():
            axes = order(len(shape), fields["axes"][name], lead)
            part = rows[at : at + int(np.prod(shape))].reshape([shape[axis] for axis in axes])
            found[name], at = np.ascontiguousarray(np.transpose(part, np.argsort(axes))), at + part.size
        return found

    return _read_npz(io.BytesIO(held), relevance)


def _typed(column: np.ndarray) -> Any:
    """A column of one type: words and numbers together are words."""
    return [None if entry != entry else str(entry) for entry in column.tolist()] if column.dtype == object else column
