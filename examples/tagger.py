# /// script
# requires-python = ">=3.11"
# dependencies = ["onnx-lrp[cpu]"]
# ///
"""Why does this token have this tag? A bidirectional LSTM tags the numbers of sentences; what a number is, the words around it say.

python examples/tagger.py
"""

import keras
import numpy as np
from to_onnx import Net

import onnx_lrp

TAGS = ("other", "price", "weight", "date")
PATTERNS = {"price": ("pay", "{n}", "euro"), "weight": ("lift", "{n}", "kilo"), "date": ("meet", "{n}", "may")}
WORDS = ("the", "and", "we", "can", *(w for pattern in PATTERNS.values() for w in pattern if w != "{n}"), *map(str, range(1, 10)))
ID = {word: k for k, word in enumerate(WORDS)}


def sentence(rng, parts=2):
    """(words, tags): a verb or a unit may be missing, never both, so that both sides are needed."""
    words, tags = [], []
    for kind in rng.choice(list(PATTERNS), parts):
        verb, _, unit = PATTERNS[kind]
        left, right = [(True, True), (True, False), (False, True)][rng.integers(3)]
        words += [rng.choice(WORDS[:4]), verb if left else rng.choice(WORDS[:4]), str(rng.integers(1, 10))]
        words.append(unit if right else str(rng.choice(WORDS[:4])))
        tags += ["other", "other", kind, "other"]
    return [str(word) for word in words], tags


def data(count, seed):
    rng = np.random.default_rng(seed)
    made = [sentence(rng) for _ in range(count)]
    return np.array([[ID[w] for w in words] for words, _ in made]), np.array([[TAGS.index(t) for t in tags] for _, tags in made])


def train(count=1500, epochs=12, units=16, path="tagger.onnx"):
    keras.utils.set_random_seed(0)
    embedding, head = keras.layers.Embedding(len(WORDS), 12), keras.layers.Dense(len(TAGS))
    both = keras.layers.Bidirectional(keras.layers.LSTM(units, return_sequences=True))
    inputs = keras.Input((None,), dtype="int64")
    model = keras.Model(inputs, head(both(embedding(inputs))))
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*data(count, seed=0), epochs=epochs, batch_size=64, verbose=0)
    net = Net()
    x = net.embedding("words", *embedding.get_weights())
    h = net.recurrent(x, "LSTM", both.forward_layer.get_weights(), both.backward_layer.get_weights(), steps=True)
    net.dense(h, *head.get_weights())
    return net.save(path, ("words", ["batch", "time"]), ("scores", ["batch", "time", len(TAGS)]), ids=True)


def main(**options):
    ids, tags = data(200, seed=1)
    explainer = onnx_lrp.load(train(**options))
    # one position at a time: the tag that is predicted there. Without a target: all positions together
    explanation = explainer.explain(ids, onnx_lrp.targets.step(2))
    print(f"{(explanation.outputs['scores'].argmax(2) == tags).mean():.1%} of tags right")
    print(f"books closed to {np.abs(explanation.residual).max():.0e}")
    relevance = explanation.per_step()
    strongest = np.abs(relevance).argmax(1)
    beside = np.isin(strongest, (1, 3)).mean()
    print(f"the number at position 2 gets its tag by a word beside it in {beside:.0%} of sentences")
    for k in range(3):
        words = " ".join(f"{WORDS[i]} {r:+.2f}" for i, r in zip(ids[k], relevance[k], strict=True))
        print(f"{WORDS[ids[k, 2]]} is a {TAGS[explanation.target[k]]}: {words}")
    return explanation, beside


if __name__ == "__main__":
    main()
