"""Names that a terminal or a browser would obey are harmless wherever they are printed."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from bases import recurrent
from harm import NASTY, harmless

import onnx_lrp
from onnx_lrp import cli


def named(text):
    """A model whose tensors, nodes, axes and ops carry a name."""
    model = recurrent("LSTM", 4)
    tensors = {v.name for v in (*model.graph.input, *model.graph.output)} | {
        n for node in model.graph.node for n in node.output if n
    }
    for node in model.graph.node:
        node.name = text + node.name
        for field in (node.input, node.output):
            field[:] = [text + n if n in tensors else n for n in field]
    for value in (*model.graph.input, *model.graph.output):
        value.name = text + value.name
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = text
    return model


def test_names_are_harmless_wherever_they_are_printed(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    onnx.save(named(NASTY), path)
    explainer = onnx_lrp.load(path)
    harmless(str(explainer.summary()))
    harmless(str(explainer.plan()))
    assert "<script>" not in explainer.summary()._repr_html_()
    x = np.ones((2, 1, 3), np.float32)
    tokens = [NASTY.replace("\x00", ""), "b"]
    explanation = explainer.explain(x)
    page = explanation.to_html(tokens=tokens)
    assert "<script>alert" not in page
    harmless(page)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    html, saved = tmp_path / "page.html", tmp_path / "saved.json"
    for command in (
        ["inspect", path],
        ["explain", path, tmp_path / "x.npy", "--tokens", tmp_path / "tokens.json", "--html", html, "--save", saved],
        ["explain", path, tmp_path / "x.npy", "--keep", NASTY.replace("\x00", "") + "nothing"],
        ["explain", path, tmp_path / "x.npy", "--output", NASTY.replace("\x00", "")],
        ["check", path, "--max-examples", "1", "--at", NASTY],
        ["weights", path, tmp_path / "w.npz"],
    ):
        cli.run([str(a) for a in command])
        out, err = capsys.readouterr()
        harmless(out)
        harmless(err, lines=False)
    for command in (["inspect", path, "--json"], ["explain", path, tmp_path / "x.npy", "--json"]):
        assert cli.run([str(a) for a in command]) == 0
        out = capsys.readouterr().out
        harmless(out)
        json.loads(out)
    assert "<script>alert" not in html.read_text()
    json.loads(saved.read_text())


@pytest.mark.parametrize("text", [NASTY, "n" * 100_000])
def test_errors_about_nodes_are_one_harmless_line(text, tmp_path, capsys):
    model = named(text)
    model.graph.node[0].op_type, model.graph.node[0].domain = text, "odd"
    del model.graph.node[0].attribute[:]
    model.opset_import.add(domain="odd", version=1)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert cli.run(["inspect", str(path)]) == 3
    out, err = capsys.readouterr()
    harmless(out)
    harmless(err, lines=False)
    assert len(err) < 5000
