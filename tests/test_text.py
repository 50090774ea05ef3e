"""Texts in: vocabularies and tokenizers, pieces and words, options beside the model, and what an explanation makes of them."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from test_cli import MODEL, fails, passes

import onnx_lrp
from onnx_lrp import Explanation, InputError, MissingExtra, demo
from onnx_lrp.labels import Labels, fold
from onnx_lrp.report.view import samples
from onnx_lrp.text import Text, TextOptions, Tokenizer, Word, beside
from onnx_lrp.tokensfile import KINDS

SENTENCES = ["the film is wonderful and funny", "a boring plot with unfunny jokes", "wonderfully acted, beautifully filmed"]
WORDS = {"<pad>": 0, "<unk>": 1, "a": 2, "fine": 3, "film": 4, ",": 5, "<s>": 6, "</s>": 7}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


@functools.cache
def backend(kind: str):
    """A tokenizer of each kind that people publish, trained on three sentences."""
    tokenizers = pytest.importorskip("tokenizers")
    models, trainers, before = tokenizers.models, tokenizers.trainers, tokenizers.pre_tokenizers
    if kind == "wordpiece":  # as BERT's
        made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer = tokenizers.normalizers.BertNormalizer(), before.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=SPECIAL, show_progress=False)
    elif kind == "bytes":  # as GPT-2's
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer = before.ByteLevel(add_prefix_space=False)
        alphabet = before.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    else:  # as T5's and Llama's: spaces are characters of the pieces, and nothing splits before
        made = tokenizers.Tokenizer(models.Unigram())
        normal = tokenizers.normalizers
        made.normalizer = normal.Sequence([normal.Prepend("▁"), normal.Replace(" ", "▁")])
        trainer = trainers.UnigramTrainer(vocab_size=60, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    made.train_from_iterator(SENTENCES, trainer)
    if kind == "wordpiece":
        around = [("[CLS]", 2), ("[SEP]", 3)]
        made.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    return made


@functools.cache
def tokenizer(kind: str) -> Tokenizer:
    if kind == "vocabulary":
        return Tokenizer(TextOptions(lowercase=True), vocabulary=WORDS)
    if kind == "framed":
        return Tokenizer(TextOptions(bos="<s>", eos=7, padding=0, pad="left", max_length=6), vocabulary=WORDS)
    return demo.tokenizer() if kind == "demo" else Tokenizer(backend=backend(kind))


KINDS_OF_TOKENIZERS = ["vocabulary", "framed", "demo", "wordpiece", "bytes", "unigram"]
LETTERS = st.sampled_from(list("aefilmnuy ,.'’\n\t-İßéñ日本🎬שט\u0301\ud800"))
TEXTS = st.text(LETTERS, max_size=20).map(lambda text: text + " film")  # at least one word

of_every_kind = pytest.mark.parametrize("kind", KINDS_OF_TOKENIZERS)


def encoded(kind: str, text: str) -> Text:
    [found] = tokenizer(kind).encode([text])
    return found


def write_backend(path: Path, kind: str = "wordpiece") -> str:
    backend(kind).save(str(path))
    return str(path)


# laws


@of_every_kind
@given(text=TEXTS, seed=st.integers(0, 99))
def test_folding_conserves_relevance(kind, text, seed):
    """Every piece is in one word: sums over words are the sums over their pieces, added up one by one."""
    found = encoded(kind, text)
    relevance = np.random.default_rng(seed).normal(size=(len(found), 3))
    folded = fold(relevance, found.words)
    np.testing.assert_allclose(folded.sum(0), relevance.sum(0), atol=1e-12)
    owner = {t: w for w, word in enumerate(found.words) for t in range(word.first, word.stop)}
    assert sorted(owner) == list(range(len(found)))
    slow = np.zeros((len(found.words), 3))
    for t, w in owner.items():
        slow[w] += relevance[t]
    np.testing.assert_allclose(folded, slow, atol=1e-12)


@of_every_kind
@given(text=TEXTS)
def test_spans_cover_the_text_in_order(kind, text):
    found = encoded(kind, text)
    assert len(found.ids) == len(found.pieces) == len(found.spans) == len(found.shown)
    for (start, stop), (after, _) in zip(found.spans, found.spans[1:], strict=False):
        assert 0 <= start <= stop <= len(found.text)
        assert start <= after
    for word in found.words:
        start, stop = found.span(word)
        if start < stop:
            assert word.text == found.text[start:stop].strip() or not found.text[start:stop].strip()
    seen = {i for start, stop in found.spans for i in range(start, stop)}
    if kind in ("vocabulary", "bytes", "unigram"):  # the others drop characters or cut
        assert {i for i, c in enumerate(found.text) if not c.isspace()} <= seen


@of_every_kind
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_a_text_is_encoded_as_if_it_came_alone(kind, texts):
    together = tokenizer(kind).encode(texts)
    assert len(together) == len(texts)
    for found, text in zip(together, texts, strict=True):
        alone = encoded(kind, text)
        np.testing.assert_array_equal(found.ids, alone.ids)
        assert found.ids.dtype == np.int64
        for name in ("text", "pieces", "spans", "words", "unknown", "padding"):
            assert getattr(found, name) == getattr(alone, name)


@given(text=TEXTS, cut=st.sampled_from(["left", "right"]), pad=st.sampled_from([None, "left", "right"]), bos=st.booleans())
def test_unknown_is_what_the_vocabulary_does_not_have(text, cut, pad, bos):
    options = TextOptions(bos="<s>" if bos else None, padding=0, pad=pad, max_length=4, cut=cut)
    [found] = Tokenizer(options, vocabulary=WORDS).encode(text)
    assert found.unknown == tuple(k for k, piece in enumerate(found.pieces) if piece not in WORDS)
    assert found.unknown == tuple(np.flatnonzero(found.ids == 1))
    assert found.padding == tuple(np.flatnonzero(found.ids == 0))


@given(text=st.text(LETTERS, max_size=20).map(lambda text: text + " film"))
def test_words_are_parted_by_spaces(text):
    """Whatever the pieces are: no word of a tokenizer that keeps all characters has a space inside."""
    for kind in ("bytes", "unigram"):
        for word in encoded(kind, text).words:
            assert not any(c in " " for c in word.text.strip("\n\t ")), kind


IDS = st.none() | st.integers(0, 9) | st.sampled_from(list(WORDS))
OPTIONS = st.fixed_dictionaries(
    {
        "lowercase": st.none() | st.booleans(),
        "split": st.none() | st.sampled_from([r"\S+", r"\w+"]),
        "replace": st.none() | st.dictionaries(st.characters(codec="utf-8"), st.text(max_size=2), max_size=2),
        "unknown": IDS,
        "bos": IDS,
        "eos": IDS,
        "cut": st.none() | st.sampled_from(["left", "right"]),
        "padding": st.just(0),
        "max_length": st.integers(5, 9),
        "pad": st.none() | st.sampled_from(["left", "right"]),
        "classes": st.none() | st.lists(st.text(st.characters(codec="utf-8"), max_size=3)),
    }
)


@given(fields=OPTIONS, text=TEXTS)
def test_options_come_back_from_their_file(fields, text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    vocabulary = folder / "words.json"
    vocabulary.write_text(json.dumps(WORDS))
    options = TextOptions(vocabulary=str(vocabulary), **fields)
    (folder / "deep").mkdir()
    file = folder / "deep" / "model.tokens.json"
    options.write(file)
    again = TextOptions.read(file)
    assert Path(again.vocabulary).resolve() == vocabulary.resolve()
    assert dataclasses.replace(again, vocabulary=options.vocabulary) == options
    assert set(json.loads(file.read_text())) <= set(KINDS)
    one, two = (Tokenizer(o).encode(text)[0] for o in (options, again))
    np.testing.assert_array_equal(one.ids, two.ids)


def test_options_move_with_their_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "words.txt").write_text("one\ntwo\n")
    TextOptions(vocabulary=str(tmp_path / "a" / "words.txt")).write(tmp_path / "a" / "m.tokens.json")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert Tokenizer.load(tmp_path / "b" / "m.tokens.json").encode("two one").ids[0].tolist() == [1, 0]


# what is a piece, a word, an id


def test_pieces_become_words():
    [found] = tokenizer("wordpiece").encode("A wonderfully unfunny film, 日!")
    assert found.words[0] == Word("[CLS]", 0, 1)
    assert [word.text for word in found.words] == ["[CLS]", "A", "wonderfully", "unfunny", "film", ",", "日", "!", "[SEP]"]
    assert [word.stop - word.first > 1 for word in found.words[2:4]] == [True, True]
    assert [found.pieces[k] for k in found.unknown] == ["[UNK]", "[UNK]"]
    assert [found.shown[k] for k in found.unknown] == ["日", "!"]
    assert "##" in "".join(found.shown)


def test_bytes_of_one_character_are_one_word():
    [found] = tokenizer("bytes").encode("日本 film")
    assert [word.text for word in found.words] == ["日本", "film"]
    assert found.words[0].stop - found.words[0].first == 6
    assert found.shown[:6] == ("日",) * 3 + ("本",) * 3


def test_letters_that_grow_in_lower_case_keep_their_place():
    [found] = Tokenizer(TextOptions(lowercase=True, replace={"’": "''"}, split=r"\w+|\S"), vocabulary=WORDS).encode("İ’a film")
    assert [found.text[start:stop] for start, stop in found.spans] == ["İ", "İ", "’", "’", "a", "film"]
    assert found.pieces == ("i", "\u0307", "'", "'", "a", "film")


def test_unknown_words_without_an_entry_are_refused_by_name():
    with pytest.raises(InputError, match=r"text 2 of 2: 'strange' is not in the vocabulary"):
        Tokenizer(vocabulary={"a": 0}).encode(["a", "a strange"])
    assert Tokenizer(TextOptions(unknown="a"), vocabulary={"a": 0}).encode("strange")[0].unknown == (0,)


@pytest.mark.parametrize(("cut", "words"), [(None, ["<s>", "a", "fine", "</s>"]), ("left", ["<s>", "fine", "film", "</s>"])])
def test_a_vocabulary_cuts_between_what_it_adds(cut, words):
    made = Tokenizer(TextOptions(bos="<s>", eos="</s>", max_length=4, cut=cut), vocabulary=WORDS)
    [found] = made.encode("a fine film")
    assert list(found.pieces) == words == [word.text for word in found.words]
    assert found.ids.tolist() == [WORDS[w] for w in words]


@pytest.mark.parametrize(("cut", "last"), [(None, ["[CLS]", "the", "[SEP]"]), ("left", ["[CLS]", "funny", "[SEP]"])])
def test_a_tokenizer_cuts_between_what_it_adds(cut, last):
    made = Tokenizer(TextOptions(max_length=3, cut=cut), backend=backend("wordpiece"))
    pieces = made.encode("the film is funny").pieces[0]
    assert len(pieces) == 3
    assert pieces[::2] == last[::2]
    assert len(Tokenizer(backend=backend("wordpiece")).encode("the film is funny").pieces[0]) > 3  # whose limits stay its own


@given(
    texts=st.lists(st.sampled_from(["the", "film", "is", "funny", "wonderfully", "acted"]), min_size=1, max_size=12).map(" ".join),
    length=st.integers(3, 9),
    cut=st.sampled_from([None, "left"]),
    kind=st.sampled_from(["vocabulary", "wordpiece", "bytes", "unigram"]),
)
def test_what_is_cut_off_is_counted(texts, length, cut, kind):
    """Against the same text as a whole."""
    if kind == "vocabulary":
        whole = Tokenizer(TextOptions(unknown=1, bos="<s>"), vocabulary=WORDS)
        made = Tokenizer(TextOptions(unknown=1, bos="<s>", max_length=length, cut=cut), vocabulary=WORDS)
    else:
        whole = Tokenizer(backend=backend(kind))
        made = Tokenizer(TextOptions(max_length=length, cut=cut), backend=backend(kind))
    [every], [found] = whole.encode(texts), made.encode(texts)
    assert found.left_out == len(every) - len(found)


@pytest.mark.parametrize("direction", ["left", "right"])
@pytest.mark.parametrize("stride", [0, 1, 2])
def test_a_tokenizers_own_cut_is_counted(stride, direction):
    """Also where the parts that are left overlap, and are filled up."""
    tokenizers = pytest.importorskip("tokenizers")
    own = tokenizers.Tokenizer.from_str(backend("wordpiece").to_str())
    own.enable_truncation(6, stride=stride, direction=direction)
    own.enable_padding(pad_id=0, pad_token="[PAD]", length=8)
    for text in ("film", "the film is funny", "wonderfully acted , beautifully filmed , the film is wonderful and funny"):
        [every], [found] = Tokenizer(backend=backend("wordpiece")).encode(text), Tokenizer(backend=own).encode(text)
        assert found.left_out == len(every) - (len(found) - len(found.padding))


def test_a_text_that_is_cut_is_not_passed_off_as_read(tmp_path):
    tokens = Tokenizer.load(Path(MODEL).with_name("vocabulary.txt"), max_length=2).encode(["a fine film", "a film"])
    assert [text.left_out for text in tokens] == [1, 0]
    found = explainer().explain(tokens)
    said = "The model did not read all of this text: 1 token more was cut off."
    assert [sample.cut for sample in samples(found)] == [said, ""]
    assert found.to_html().count(said) == 1
    found.save(tmp_path / "x.json")
    assert Explanation.load(tmp_path / "x.json").labels.left_out == (1, 0)
    assert "left_out" not in explainer().explain(tokens[1:]).labels.to_dict()


def test_filling_up_is_marked():
    left, right = (Tokenizer(TextOptions(padding=0, pad=side, max_length=5), vocabulary=WORDS) for side in ("left", "right"))
    assert left.encode("a film")[0].ids.tolist() == [0, 0, 0, 2, 4]
    assert left.encode("a film")[0].padding == (0, 1, 2)
    assert right.encode("a film")[0].ids.tolist() == [2, 4, 0, 0, 0]
    assert right.encode("a film")[0].padding == (2, 3, 4)
    made = Tokenizer(TextOptions(padding="[PAD]", pad="right", max_length=9), backend=backend("wordpiece"))
    assert made.encode("film")[0].pieces[-1] == "[PAD]"
    assert len(made.encode("film")[0]) == 9


def test_a_tokenizers_own_filling_up_is_of_one_text():
    tokenizers = pytest.importorskip("tokenizers")
    own = tokenizers.Tokenizer.from_str(backend("wordpiece").to_str())
    own.enable_padding(pad_id=0, pad_token="[PAD]")  # to the longest of a batch
    assert "[PAD]" not in Tokenizer(backend=own).encode(["film", "the film is funny"]).pieces[0]
    own.enable_padding(pad_id=0, pad_token="[PAD]", length=8)
    [found] = Tokenizer(backend=own).encode("film")
    assert len(found) == 8
    assert [found.pieces[k] for k in found.padding] == ["[PAD]"] * len(found.padding)
    assert found.padding


# files


def test_vocabularies_in_both_forms(tmp_path):
    (tmp_path / "v.txt").write_bytes("\ufeffone\r\n\r\ntwo\r\n".encode())
    (tmp_path / "v.json").write_text('{"one": 0, "two": 2}')
    for name in ("v.txt", "v.json"):
        made = Tokenizer.load(tmp_path / name)
        assert made.vocabulary == {"one": 0, "two": 2}
        assert made.encode("two one").ids[0].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.txt", b"", "no word"),
        ("v.txt", b"\xff", "not UTF-8"),
        ("v.txt", b"a\nb\na\n", "line 3: 'a' stands on line 1 already"),
        ("v.json", b"{", "not JSON"),
        ("v.json", b"[]", "expected an object"),
        ("v.json", b'{"a": "b"}', "the id of 'a' is 'b'"),
        ("v.json", b'{"a": -1}', "whole number"),
        ("v.json", b'{"a": 9223372036854775808}', "whole number from 0 to 9223372036854775807"),
        ("v.tokens.json", b"[]", "expected an object with the fields"),
        ("v.tokens.json", b"{", "not JSON"),
        ("v.tokens.json", b"{}", "neither a tokenizer.json nor a vocabulary"),
        ("v.tokens.json", b'{"lower": true}', "no field 'lower'"),
        ("v.tokens.json", b'{"vocabulary": "none.txt"}', "can't be read"),
        ("v.tokens.json", b'{"vocabulary": "."}', "expected a regular file"),
        ("v.tokens.json", b'{"tokenizer": "/dev/null"}', "expected a regular file"),
    ],
)
def test_damaged_files_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        Tokenizer.load(tmp_path / name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lowercase": "yes"}, "lowercase: 'yes', expected true or false"),
        ({"max_length": 0}, "max_length: 0"),
        ({"max_length": True}, "max_length: True"),
        ({"unknown": -1}, "unknown: -1"),
        ({"unknown": 2**63}, "unknown: 9223372036854775808"),
        ({"max_length": 2**63}, "max_length: 9223372036854775808"),
        ({"cut": "middle"}, "left or right"),
        ({"split": "("}, "no regular expression"),
        ({"replace": {"ab": "c"}}, "replace"),
        ({"pad": "right"}, "needs padding"),
        ({"classes": "no, yes"}, "classes: 'no, yes', expected a list of names"),
        ({"classes": [0, 1]}, "classes"),
        ({"bos": "nowhere"}, "bos: 'nowhere' is not in the vocabulary"),
        ({"bos": 1, "max_length": 1}, "leaves no room"),
        ({"tokenizer": "t.json", "vocabulary": "v.txt"}, "give one of them"),
    ],
)
def test_options_that_make_no_sense(fields, message):
    with pytest.raises(InputError, match=message):
        Tokenizer(TextOptions(**fields), vocabulary=WORDS).encode("film")


def test_a_tokenizer_file_and_a_vocabulary_are_told_apart(tmp_path):
    made = write_backend(tmp_path / "tokenizer.json")
    assert Tokenizer.load(made).backend is not None
    assert Tokenizer.load(made, lowercase=True).options.lowercase is True
    with pytest.raises(InputError, match="--tokenizer"):
        Tokenizer(TextOptions(vocabulary=made))
    (tmp_path / "v.txt").write_text("a\n")
    with pytest.raises(InputError, match="--vocab"):
        Tokenizer(TextOptions(tokenizer=str(tmp_path / "v.txt")))
    with pytest.raises(InputError, match="split: of a vocabulary alone"):
        Tokenizer.load(made, split=r"\S+")


def test_a_missing_package_names_the_pip_line(tmp_path, monkeypatch):
    made = write_backend(tmp_path / "tokenizer.json")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtra, match=r'pip install "onnx-lrp\[text\]"'):
        Tokenizer.load(made)


# in explanations


@functools.cache
def explainer() -> onnx_lrp.Explainer:
    return onnx_lrp.load(MODEL, jit="eager", verify="never", precision="float64")


def test_texts_are_explained_as_their_ids():
    tokens = demo.tokenizer().encode(["a fine film .", "It isn't zzyzx"])
    found = explainer().explain(tokens)
    by_hand = explainer().explain(tokens.ids)
    np.testing.assert_array_equal(found.relevance["embedding"], by_hand.relevance["embedding"])
    assert found.labels.samples == ("a fine film .", "It isn't zzyzx")
    assert by_hand.labels is None
    for b, (row, words) in enumerate(zip(found.per_word(), tokens.words, strict=True)):
        assert len(row) == len(words)
        np.testing.assert_allclose(row.sum(), found.arrived["embedding"][b], atol=1e-12)
    np.testing.assert_allclose(explainer().predict(tokens)["logits"], found.outputs["logits"])
    with pytest.raises(InputError, match="per_word"):
        by_hand.per_word()


def test_reports_show_words_and_fold_pieces():
    tokens = Tokenizer(TextOptions(max_length=8), backend=backend("wordpiece")).encode("wonderfully funny 日")
    found = explainer().explain(tokens)
    [shown] = samples(found)
    words = [word.text + ("?" if word.text == "日" else "") for word in tokens[0].words]
    assert list(shown.points[0].labels) == words
    assert shown.points[0].unit == "word"
    assert shown.unknown
    np.testing.assert_allclose(shown.points[0].relevance, found.per_word()[0])
    np.testing.assert_allclose(shown.points[0].features.sum(1), found.per_word()[0], atol=1e-12)
    pieces = dataclasses.replace(found, labels=dataclasses.replace(found.labels, words=()))
    [shown] = samples(pieces)
    assert shown.points[0].unit == "piece"
    assert [t.removesuffix("?") for t in shown.points[0].labels] == list(tokens[0].shown)
    page = found.to_html()
    assert "wonderfully" in page
    assert "##" not in page
    bare = dataclasses.replace(found, labels=None)
    assert bare.to_html(tokens=tokens) == page
    assert "##" in bare.to_html(tokens=tokens.pieces)


def test_texts_of_different_lengths_have_their_own_words():
    tokens = demo.tokenizer().encode(["a fine film .", "good"])
    shown = samples(explainer().explain(tokens))
    assert [list(s.points[0].labels) for s in shown] == tokens.words
    assert [s.title for s in shown] == ["a fine film .", "good"]


@pytest.mark.parametrize("suffix", [".npz", ".json", ".parquet"])
def test_labels_are_saved(suffix, tmp_path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    found = explainer().explain(demo.tokenizer().encode(["a fine film .", "zzyzx"]))
    found.save(tmp_path / f"x{suffix}")
    again = Explanation.load(tmp_path / f"x{suffix}")
    assert again.labels == found.labels
    assert again.to_html() == found.to_html()
    np.testing.assert_array_equal(again.per_word()[0], found.per_word()[0])


NAMES = st.lists(st.text(max_size=4), max_size=3).map(tuple)


@given(
    samples=NAMES,
    steps=st.lists(NAMES, max_size=3).map(tuple),
    features=NAMES,
    words=st.lists(st.lists(st.builds(Word, st.text(max_size=3), st.just(0), st.just(1)), max_size=2).map(tuple), max_size=2),
)
def test_labels_come_back_through_json(samples, steps, features, words):
    labels = Labels(samples=samples, steps=steps, features=features, units=("",) * len(features), words=tuple(words), time="t")
    assert Labels.from_dict(json.loads(json.dumps(labels.to_dict()))) == labels
    assert Labels() == Labels.from_dict(Labels().to_dict())


def test_words_must_cover_the_pieces():
    for words in ([Word("a", 0, 1)], [Word("a", 0, 1), Word("b", 2, 3)], [Word("a", 0, 2), Word("b", 1, 3)], [Word("a", 0, 0)]):
        with pytest.raises(InputError, match="cover"):
            fold(np.ones(3), words)


def transformer_like() -> bytes:
    """input_ids, attention_mask, token_type_ids (B, T) → mean over the tokens that count → (B, 2)."""
    rng = np.random.default_rng(0)
    table = helper.make_tensor("table", TensorProto.FLOAT, [60, 2], rng.normal(size=120).astype(np.float32))
    kinds = helper.make_tensor("kinds", TensorProto.FLOAT, [2, 2], np.float32([0, 0, 9, 9]))
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [2])
    along = helper.make_tensor("along", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["e"]),
        helper.make_node("Gather", ["kinds", "token_type_ids"], ["k"]),
        helper.make_node("Add", ["e", "k"], ["s"]),
        helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "axes"], ["w"]),
        helper.make_node("Mul", ["s", "w"], ["p"]),
        helper.make_node("ReduceSum", ["p", "along"], ["y"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["B", "T"]) for n in ("input_ids", "attention_mask", "token_type_ids")
    ]
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 2])], [table, kinds, axes, along]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def test_masks_and_token_types_are_filled_in():
    made = Tokenizer(TextOptions(padding=0, pad="right", max_length=6), vocabulary=WORDS)
    found = onnx_lrp.load(transformer_like(), jit="eager").explain(made.encode(["a fine film", "film"]))
    np.testing.assert_array_equal(found.inputs["attention_mask"], [[1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
    assert not found.inputs["token_type_ids"].any()
    assert found.labels.steps[1] == ("film", *["<pad>"] * 5)


def test_a_model_with_two_inputs_of_ids_is_refused():
    model = onnx.load_from_string(transformer_like())
    model.graph.input[1].name = model.graph.node[3].input[0] = "others"
    with pytest.raises(InputError, match="more than one input of this model may take the ids"):
        onnx_lrp.load(model.SerializeToString(), jit="eager").explain(tokenizer("vocabulary").encode("film"))


# the command line


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The demo's model by itself, without what lies beside it."""
    return shutil.copy(MODEL, tmp_path / "model.onnx")


EAGER = ("--jit", "eager", "--verify", "never")


def test_texts_on_the_command_line(capsys, tmp_path):
    shown = passes(capsys, "explain", MODEL, "--text", "It isn't zzyzx", "--text", "a fine film", *EAGER)
    assert "It isn't zzyzx\npredicted" in shown
    assert "zzyzx?" in shown
    (tmp_path / "texts.txt").write_text("It isn't zzyzx\na fine film\n")
    assert passes(capsys, "explain", MODEL, "--text-file", tmp_path / "texts.txt", *EAGER) == shown
    found = json.loads(passes(capsys, "explain", MODEL, "--text", "a fine film", *EAGER, "--json"))
    assert found["labels"]["steps"] == [["a", "fine", "film"]]
    assert [word for word, _ in found["per_word"][0]] == ["a", "fine", "film"]
    cut = ("--text", "a very fine film", *EAGER, "--text-option", "max_length=2")
    assert "2 tokens more were cut off" in " ".join(passes(capsys, "explain", MODEL, *cut).split())
    assert json.loads(passes(capsys, "explain", MODEL, *cut, "--json"))["labels"]["left_out"] == [2]
    books = sum(r for _, r in found["per_word"][0]) + sum(a[0] for a in found["absorbed"].values())
    assert books == pytest.approx(found["seed"][0], abs=1e-5)
    several = json.loads(passes(capsys, "explain", MODEL, "--text", "a fine film", *EAGER, "--target", "all", "--json"))
    assert np.shape(several["per_word"]) == (2, 1, 3, 2)


def test_an_evaluation_says_that_texts_were_cut(capsys, tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "rows.jsonl").write_text('{"text": "a fine film"}\n{"text": "a bad film"}\n{"text": "good"}\n')
    asked = ["--parts", "sparsity", "--methods", "lrp", "--resamples", "100", "--input", "token_ids=text"]
    shown = passes(capsys, "evaluate", MODEL, tmp_path / "rows.jsonl", *asked, "--text-option", "max_length=2")
    assert "skipped, rest of 2 texts: cut off, as max_length says" in shown
    assert "rest of" not in passes(capsys, "evaluate", MODEL, tmp_path / "rows.jsonl", *asked)


def test_classes_are_called_by_their_names(capsys, tmp_path):
    """As the file beside the model says; in the terminal and on the page, also where every class is explained."""
    assert demo.tokenizer().options.classes == demo.CLASSES
    unnamed = passes(capsys, "explain", MODEL, "--text", "a bad film", *EAGER, "--classes", ",good")
    assert "predicted   class 0  (class 0 " in unnamed  # an empty name is none
    page = tmp_path / "page.html"
    for target in ("1", "all"):
        shown = passes(capsys, "explain", MODEL, "--text", "a fine film", *EAGER, "--target", target, "--html", page)
        for text in (shown, page.read_text().replace("time yes, class 1", "")):  # the axis of the classes
            assert "positive" in text
            assert "class 1" not in text
    options = ["--text-option", 'classes=["bad", "good"]']
    assert "good" in passes(capsys, "explain", MODEL, "--text", "a fine film", *EAGER, *options, "--target", "1")


def test_remembered_options_and_those_that_win(capsys, tmp_path, model):
    vocabulary = Path(MODEL).with_name("vocabulary.txt")
    assert "--tokenizer" in fails(2, capsys, "explain", model, "--text", "a Fine film", *EAGER)
    options = ("--vocab", vocabulary, "--text-option", "unknown=1")
    first = passes(capsys, "explain", model, "--text", "a Fine film", *options, *EAGER)
    assert "Fine?" in first
    assert not beside(model).exists()
    told = passes(capsys, "explain", model, "--text", "a Fine film", *options, *EAGER, "--remember")
    assert "model.tokens.json" in told
    assert told.startswith(first.rstrip())
    assert passes(capsys, "explain", model, "--text", "a Fine film", *EAGER) == first
    lower = passes(capsys, "explain", model, "--text", "a Fine film", "--text-option", "lowercase=true", *EAGER)
    assert "Fine?" not in lower
    (tmp_path / "few.txt").write_text("<unk>\na\nfine\n")
    assert "film?" in passes(
        capsys, "explain", model, "--text", "a fine film", "--vocab", tmp_path / "few.txt", "--text-option", "unknown=0", *EAGER
    )
    beside(model).write_text("{")
    assert "model.tokens.json" in fails(4, capsys, "explain", model, "--text", "a film", *EAGER)


def test_pieces_or_words(capsys, tmp_path, model):
    made = write_backend(tmp_path / "tokenizer.json")
    words = passes(capsys, "explain", model, "--text", "wonderfully", "--tokenizer", made, *EAGER)
    assert "wonderfully " in words
    assert "relevance by word" in words
    pieces = passes(capsys, "explain", model, "--text", "wonderfully", "--tokenizer", made, "--by", "piece", *EAGER)
    assert "##" in pieces
    assert "relevance by piece" in pieces
    both = ("--method", "occlusion", "--by", "step", "--by", "piece")
    assert "##" in passes(capsys, "explain", model, "--text", "wonderfully", "--tokenizer", made, *both, *EAGER)


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (2, ()),
        (2, ("x.npy", "--text", "a")),
        (2, ("x.npy", "--vocab", "v.txt")),
        (2, ("x.npy", "--remember")),
        (2, ("x.npy", "--by", "piece")),
        (2, ("--text", "a", "--by", "word", "--by", "piece")),
        (2, ("--text", "a", "--vocab", "v.txt", "--tokenizer", "t.json")),
        (2, ("--text", "a", "--text-option", "lowercase")),
        (2, ("--text", "a", "--time", "t")),
        (2, ("--text", "a", "--text-option", "lower=true")),
        (2, ("--text", "a", "--text-option", "max_length=0")),
        (2, ("--text", "a", "--text-option", "split=(")),
        (4, ("--text", "a", "--text-option", "unknown=zzyzx")),
        (4, ("--text", "***")),
        (4, ("--text", "a", "--vocab", "none.txt")),
        (4, ("--text-file", "none.txt")),
    ],
)
def test_bad_texts(code, arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails(code, capsys, "explain", MODEL, *arguments)


def test_a_line_without_text_is_named(capsys, tmp_path):
    (tmp_path / "texts.txt").write_text("a film\n\na film\n")
    assert "texts.txt, line 2: no text" in fails(4, capsys, "explain", MODEL, "--text-file", tmp_path / "texts.txt")
    (tmp_path / "texts.txt").write_text("a film\n***\n")
    assert "texts.txt: text 2 of 2: no word in '***'" in fails(4, capsys, "explain", MODEL, "--text-file", tmp_path / "texts.txt")


def test_a_bad_text_leaves_nothing_remembered(capsys, model):
    fails(4, capsys, "explain", model, "--text", " ", "--vocab", Path(MODEL).with_name("vocabulary.txt"), "--remember")
    assert not beside(model).exists()
