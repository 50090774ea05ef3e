# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.13", "onnx", "onnxruntime", "onnxscript", "numpy"]
# ///
"""Train the small sentiment LSTM that ships with onnx-lrp and export it to one .onnx file.

    python examples/sentiment/train.py DATA.tsv --out DIR
    python examples/sentiment/train.py DATA.tsv --out DIR --parts    # only training.csv, validation.csv and test.csv

DATA.tsv has a header and two columns: `rating` (-4 … +4) and `sentence`; MODEL_CARD.md beside the
shipped model says where ours comes from. DIR receives `sentiment.onnx` and `vocabulary.txt` (one
token a line, the line's number from 0 is its id). Letters: T time, B batch.
"""

import argparse
import collections
import copy
import csv
import pathlib
import random
import re

import numpy as np
import onnx
import onnxruntime
import onnxscript
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

PADDING, UNKNOWN = 0, 1
CLASSES = ("negative", "positive")
TOKEN = re.compile(r"[^\W_]+?(?=n't\b)|n't\b|'(?:s|m|d|re|ve|ll)\b|[^\W_]+|\.\.\.|[.,;:!?()]")


def tokenize(text):
    """All matches of TOKEN in the lower-cased text, with ’ read as '; the rest is dropped.

    >>> tokenize("It isn't well-drawn, we’ve seen Pokémon 2 ... :-)")
    ['it', 'is', "n't", 'well', 'drawn', ',', 'we', "'ve", 'seen', 'pokémon', '2', '...', ':', ')']
    """
    return TOKEN.findall(text.lower().replace("’", "'"))


def repair(text):
    """Undo UTF-8 that was read as Latin-1 ("clichÃ©" → "cliché"), which the data file holds."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def read(path, *, least=0.3):
    """[(tokens, label)]: sentences with |rating| >= least, each distinct token sequence once."""
    rows = {}
    with open(path, encoding="utf-8") as file:
        header = next(file, "").rstrip("\n")
        if header != "rating\tsentence":
            raise SystemExit(f"{path}: expected the header 'rating<tab>sentence', got {header!r}")
        for line in file:
            rating, sentence = line.rstrip("\n").split("\t")
            tokens = tokenize(repair(sentence))
            if tokens and abs(float(rating)) >= least:
                rows.setdefault(tuple(tokens), int(float(rating) > 0))
    return list(rows.items())


def split(rows, *, seed):
    """80 % training, 10 % validation, 10 % test, from one seeded shuffle."""
    rows = rows[:]
    random.Random(seed).shuffle(rows)
    tenth = len(rows) // 10
    return rows[2 * tenth :], rows[:tenth], rows[tenth : 2 * tenth]


def write_parts(parts, folder):
    """The three parts as .csv: text (the tokens, joined by spaces) and label."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in zip(("training", "validation", "test"), parts, strict=True):
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *((" ".join(tokens), label) for tokens, label in rows)])


def build_vocabulary(rows, *, least=2):
    """<pad> (0), <unk> (1), then the tokens seen at least `least` times, most frequent first."""
    counts = collections.Counter(token for tokens, _ in rows for token in tokens)
    kept = [token for token, n in counts.items() if n >= least]
    return ["<pad>", "<unk>", *sorted(kept, key=lambda token: (-counts[token], token))]


def encode(rows, vocabulary):
    """[(tokens, label)] → [(ids (T,), label)]."""
    ids = {token: i for i, token in enumerate(vocabulary)}
    return [(torch.tensor([ids.get(token, UNKNOWN) for token in tokens]), y) for tokens, y in rows]


class Sentiment(nn.Module):
    """Embedding → bidirectional LSTM → last state of both directions → linear."""

    def __init__(self, size, *, embedding, hidden, dropout):
        super().__init__()
        self.embedding = nn.Embedding(size, embedding, padding_idx=PADDING)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, len(CLASSES))
        self.dropout = nn.Dropout(dropout)

    def forward(self, token_ids, lengths=None):
        """token_ids (B, T), lengths (B,) or None where nothing is padded → logits (B, 2)."""
        x = self.dropout(self.embedding(token_ids))
        if lengths is not None:
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.lstm(x)
        return self.head(self.dropout(torch.cat([h[0], h[1]], dim=1)))


def batches(data, size, *, rng=None):
    """Yield (token_ids (B, T), lengths (B,), labels (B,)), similar lengths together.

    With `rng` in random order, which costs a little of the similarity.
    """
    order = list(range(len(data)))
    if rng:
        rng.shuffle(order)
    span = 50 * size if rng else len(order)
    pools = [sorted(order[i : i + span], key=lambda j: len(data[j][0])) for i in range(0, len(order), span)]
    chunks = [pool[i : i + size] for pool in pools for i in range(0, len(pool), size)]
    if rng:
        rng.shuffle(chunks)
    for chunk in chunks:
        ids = [data[i][0] for i in chunk]
        yield (
            pad_sequence(ids, batch_first=True, padding_value=PADDING),
            torch.tensor([len(row) for row in ids]),
            torch.tensor([data[i][1] for i in chunk]),
        )


@torch.no_grad()
def confusion(model, data):
    """Counts (2, 2): rows are the labels, columns the predictions."""
    model.eval()
    counts = torch.zeros(2, 2, dtype=torch.int64)
    for token_ids, lengths, labels in batches(data, 256):
        predicted = model(token_ids, lengths).argmax(1)
        counts += torch.bincount(2 * labels + predicted, minlength=4).reshape(2, 2)
    return counts


def accuracy(counts):
    """The share on the diagonal of `confusion`'s counts."""
    return counts.trace().item() / counts.sum().item()


def train(model, training, validation, *, epochs, size, rate, word_dropout, seed):
    """Train in place and keep the epoch that is best on validation."""
    rng = random.Random(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    best, kept = 0.0, None
    for epoch in range(1, epochs + 1):
        model.train()
        for token_ids, lengths, labels in batches(training, size, rng=rng):
            hidden = (torch.rand(token_ids.shape) < word_dropout) & (token_ids != PADDING)
            loss = cross_entropy(model(token_ids.masked_fill(hidden, UNKNOWN), lengths), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        score = accuracy(confusion(model, validation))
        print(f"epoch {epoch}: validation accuracy {score:.4f}")
        if score > best:
            best, kept = score, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)


def export(model, path):
    """Write one .onnx file, weights inside: token_ids int64 (batch, time) → logits (batch, 2)."""
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
    program = torch.onnx.export(
        model.eval(),
        (torch.randint(2, 10, (2, 7)),),
        dynamo=True,
        input_names=["token_ids"],
        output_names=["logits"],
        dynamic_shapes={"token_ids": {0: batch, 1: time}},
        verbose=False,
    )
    # The exporter reorders the LSTM's gates by nodes: fold them, whatever the size of the weights.
    folded = onnxscript.optimizer.optimize(program.model, input_size_limit=2**30, output_size_limit=2**30)
    proto = onnxscript.ir.to_proto(folded)
    graph = proto.graph
    values = (*graph.input, *graph.output, *graph.initializer, *graph.value_info)
    for part in (proto, graph, *graph.node, *values):
        del part.metadata_props[:]  # the exporter's stack traces
    onnx.helper.set_model_props(proto, {"classes": ",".join(CLASSES), "tokenizer": TOKEN.pattern})
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


@torch.no_grad()
def check(model, path, *, tolerance=1e-5):
    """Largest difference between onnxruntime's logits and PyTorch's, at several (batch, time)."""
    runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for shape in ((1, 1), (1, 2), (1, 23), (4, 1), (3, 17), (32, 60)):
        token_ids = torch.randint(UNKNOWN, model.embedding.num_embeddings, shape)
        (logits,) = runtime.run(["logits"], {"token_ids": token_ids.numpy()})
        worst = max(worst, float(np.abs(logits - model(token_ids).numpy()).max()))
    if worst > tolerance:
        raise SystemExit(f"onnxruntime differs from PyTorch by {worst:.2g}, more than {tolerance:.2g}")
    return worst


def main(argv=None):
    """Train, score, export, check."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=pathlib.Path, help="tab-separated, header: rating, sentence")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the two files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--embedding", type=int, default=50)
    parser.add_argument("--hidden", type=int, default=48, help="units per direction")
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--word-dropout", type=float, default=0.2, help="share of tokens read as unknown")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1, help="another number may change the last digits")
    parser.add_argument("--parts", action="store_true", help="only write the three parts of the data")
    options = parser.parse_args(argv)

    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    parts = split(read(options.data), seed=options.seed)
    if options.parts:
        write_parts(parts, options.out)
        return
    vocabulary = build_vocabulary(parts[0])
    training, validation, test = (encode(part, vocabulary) for part in parts)
    print(f"{len(training)} training, {len(validation)} validation, {len(test)} test sentences")
    print(f"{len(vocabulary)} vocabulary entries")

    model = Sentiment(len(vocabulary), embedding=options.embedding, hidden=options.hidden, dropout=options.dropout)
    with torch.no_grad():  # a tenth of PyTorch's default: learns faster and generalizes better here
        model.embedding.weight.mul_(0.1)
    train(
        model,
        training,
        validation,
        epochs=options.epochs,
        size=options.batch_size,
        rate=options.rate,
        word_dropout=options.word_dropout,
        seed=options.seed,
    )
    for name, data in (("validation", validation), ("test", test)):
        counts = confusion(model, data)
        print(f"{name} accuracy {accuracy(counts):.4f} = {counts.trace()}/{counts.sum()}")
        print(f"  labels {'/'.join(CLASSES)} by prediction: {counts.tolist()}")

    options.out.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{token}\n" for token in vocabulary)
    (options.out / "vocabulary.txt").write_bytes(lines.encode())
    export(model, options.out / "sentiment.onnx")
    print(f"onnxruntime agrees to {check(model, options.out / 'sentiment.onnx'):.2g}")


if __name__ == "__main__":
    main()
