"""Datasets of texts: each row as ``explain`` would do it alone, its pieces and words beside its relevance."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import explain, jsonl, parquet, reader, shards
from hypothesis import given
from hypothesis import strategies as st

import onnx_lrp
from onnx_lrp import InputError, cli
from onnx_lrp.dataset.tables import _folded
from onnx_lrp.labels import Word, fold
from onnx_lrp.text import Tokenizer

arrow = pytest.importorskip("pyarrow")
VOCABULARY = {"<unk>": 0, "good": 1, "bad": 2, "film": 3, "a": 4, "not": 5, "un": 6, "##watch": 7, "##able": 8}
TEXTS = ["a good film", "Bad!", "not a bad film, a GOOD film", "a", "watch a film"]


@pytest.fixture
def model(tmp_path):
    return reader(tmp_path / "reader.onnx")


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "words.json").write_text(json.dumps(VOCABULARY))
    return Tokenizer.load(tmp_path / "words.json", lowercase=True)


def wordpiece():
    """Pieces of words, with a piece put before every text."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import models, pre_tokenizers, processors

    known = {**VOCABULARY, "!": 5, ",": 5} | {"[S]": 4}
    backend = tokenizers.Tokenizer(models.WordPiece(known, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(single="[S] $A", special_tokens=[("[S]", 4)])
    return backend


def alone(model, tokenizer, text):
    return onnx_lrp.load(model, jit="eager", verify="never", precision="float64").explain(tokenizer.encode([text]))


@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("pieces", [True, False])
def test_every_text_is_explained_as_if_it_came_alone(tmp_path, model, tokenizer, summed, words, pieces):
    if pieces:
        tokenizer = Tokenizer(backend=wordpiece())
    texts = [*TEXTS, "unwatchable film"]
    file = jsonl(tmp_path / "x.jsonl", {"id": list(range(len(texts))), "review": texts})
    options = {"text": "review", "tokenizer": tokenizer, "words": words, "per_step": summed, "precision": "float64"}
    explain(model, file, tmp_path / "out", keep=["id"], shard_rows=4, **options)
    rows = shards(tmp_path / "out")
    assert [r["id"] for r in rows] == list(range(len(texts)))
    for text, row in zip(texts, rows, strict=True):
        expected = alone(model, tokenizer, text)
        (encoded,) = tokenizer.encode([text]).texts
        assert row["pieces"] == list(encoded.pieces)
        assert row["left_out"] == encoded.left_out
        assert ("words" in row) == words
        (relevance,) = expected.relevance.values()
        wanted = relevance[0]
        if words:
            assert row["words"] == [w.text for w in encoded.words]
            wanted = np.stack([wanted[w.first : w.stop].sum(0) for w in encoded.words])
        wanted = wanted.sum(-1) if summed else wanted
        assert len(row["relevance"]) == len(row["words" if words else "pieces"])
        np.testing.assert_allclose(row["relevance"], wanted, rtol=1e-9, atol=1e-12)
        if words and summed:
            np.testing.assert_allclose(row["relevance"], expected.per_word()[0], rtol=1e-9, atol=1e-12)
    if pieces and words:
        assert rows[-1]["pieces"] == ["[S]", "un", "##watch", "##able", "film"]
        assert rows[-1]["words"][1:] == ["unwatchable", "film"]


def test_texts_that_are_none_are_errors_of_their_rows(tmp_path, model, tokenizer):
    rows = ["a film", None, 7, "  ", "good"]
    file = jsonl(tmp_path / "x.jsonl", {"review": rows})
    explain(model, file, tmp_path / "out", text="review", tokenizer=tokenizer)
    errors = {e["row"]: (e["kind"], e["reason"]) for e in shards(tmp_path / "out", "errors")}
    assert {k: kind for k, (kind, _) in errors.items()} == {1: "null", 2: "text", 3: "text"}
    assert errors[2][1] == "column 'review': expected text, got int"
    assert errors[3][1] == "column 'review': no word in '  '"
    assert [r["row"] for r in shards(tmp_path / "out")] == [0, 4]


@given(texts=st.lists(st.text(st.sampled_from("unwatchable good film! İ\ud800"), max_size=12), min_size=1, max_size=6))
def test_a_text_among_others_is_the_text_alone(texts):
    made = Tokenizer(backend=wordpiece())
    for text, among in zip(texts, made.each(texts), strict=True):
        if isinstance(among, InputError):
            with pytest.raises(InputError, match="no word"):
                made.encode(text)
            continue
        (single,) = made.encode(text).texts
        assert (single.pieces, single.spans, single.words) == (among.pieces, among.spans, among.words)
        np.testing.assert_array_equal(single.ids, among.ids)


@given(data=st.data(), width=st.integers(1, 3))
def test_words_of_all_rows_at_once_are_those_of_each(data, width):
    rng = np.random.default_rng(0)
    arrays, texts = [], []

    class Pieces:
        def __init__(self, words, length):
            self.words, self.length = words, length

        def __len__(self):
            return self.length

    for sizes in data.draw(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=4), min_size=1, max_size=4)):
        stops = np.cumsum(sizes).tolist()
        words = [Word("w", stop - size, stop) for stop, size in zip(stops, sizes, strict=True)]
        arrays.append(rng.normal(size=(stops[-1], width)))
        texts.append(Pieces(words, stops[-1]))
    lengths = np.asarray([len(a) for a in arrays])
    made, sizes = _folded(np.concatenate(arrays).reshape(-1), [lengths, np.full(lengths.sum(), width)], texts, "relevance")
    expected = np.concatenate([fold(a, t.words) for a, t in zip(arrays, texts, strict=True)])
    np.testing.assert_allclose(made.reshape(-1, width), expected)
    assert sizes[0].tolist() == [len(t.words) for t in texts]
    assert sizes[1].tolist() == [width] * len(expected)


def test_steps_that_are_no_pieces_can_not_be_folded():
    class Text:
        words = (Word("w", 0, 3),)

        def __len__(self):
            return 3

    with pytest.raises(InputError, match=r"relevance: 2 steps for the 3 pieces of a text; .*--by piece"):
        _folded(np.zeros(2), [np.asarray([2])], [Text()], "relevance")


# the command line

FAST = ["--jit", "eager", "--verify", "never", "--sum", "features"]


def test_texts_on_the_command_line(tmp_path, model, tokenizer, capsys):
    file = parquet(tmp_path / "x.parquet", [[1]] * len(TEXTS), review=TEXTS)
    asked = ["batch", model, file, "--text", "review", *FAST]
    given_ = ["--vocab", str(tmp_path / "words.json"), "--text-option", "lowercase=true"]
    assert cli.run([*asked, *given_, "--out", str(tmp_path / "a")]) == 0
    assert cli.run([*asked, *given_, "--out", str(tmp_path / "b"), "--by", "piece"]) == 0
    assert cli.run([*asked, "--out", str(tmp_path / "c")]) == 2
    assert "texts need --tokenizer tokenizer.json or --vocab FILE" in capsys.readouterr().err
    (tmp_path / "reader.tokens.json").write_text(json.dumps({"vocabulary": "words.json", "lowercase": True}))
    assert cli.run([*asked, "--out", str(tmp_path / "c")]) == 0
    assert shards(tmp_path / "a") == shards(tmp_path / "c")
    assert shards(tmp_path / "a")[2]["words"] == ["not", "a", "bad", "film", ",", "a", "GOOD", "film"]
    assert "words" not in shards(tmp_path / "b")[2]
    explain(model, file, tmp_path / "d", text="review", per_step=True)
    assert shards(tmp_path / "a") == shards(tmp_path / "d")
    with pytest.raises(InputError, match="holds another run: text was"):
        explain(model, file, tmp_path / "d", text="review", per_step=True, words=False, resume=True)


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (2, ["--vocab", "v.txt"], "of texts, whose column --text names"),
        (2, ["--by", "word"], "--by word: of texts, which --text gives"),
        (4, ["--text", "nope", "--vocab", "words.json"], "no column 'nope' in the dataset"),
        (
            4,
            ["--text", "review", "--vocab", "words.json", "--input", "ids=ids"],
            "input 'ids' is made of the texts in column 'review'",
        ),
        (4, ["--text", "review", "--vocab", "words.json", "--keep", "words"], "can't be called 'words'"),
    ],
)
def test_exit_codes(tmp_path, model, tokenizer, code, arguments, message, capsys):
    file = parquet(tmp_path / "x.parquet", [[1]], review=["a"], words=["a"])
    own = [str(tmp_path / a) if a == "words.json" else a for a in arguments]
    assert cli.run(["batch", model, file, "--out", str(tmp_path / "out"), *FAST, *own]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
