# /// script
# requires-python = ">=3.11"
# dependencies = ["onnx-lrp[cpu]"]
# ///
"""Which events of a session gave the intruder away? An Embedding and a GRU on made-up logs whose right answer is known.

    python examples/events.py

An intrusion is three failed logins in a row, then one that works. Two failures before a login are common, as is all else.
"""

import keras
import numpy as np
from to_onnx import Net

import onnx_lrp

EVENTS = ("login", "fail", "read", "write", "search", "print", "export", "logout")
ID = {event: k for k, event in enumerate(EVENTS)}
CLASSES = ("normal", "intrusion")


def session(rng, intrusion, length=20):
    """(ids (T,), which of them are the intrusion (T,))."""
    ids = rng.choice([ID[event] for event in EVENTS[:-1]], length)  # logins, failures and exports too
    ids[0], ids[-1] = ID["login"], ID["logout"]
    for k in range(2, length):  # three failures in a row are left to intruders
        if (ids[k - 2 : k + 1] == ID["fail"]).all():
            ids[k] = ID["read"]
    part = np.zeros(length, bool)
    if intrusion:
        start = rng.integers(1, length - 5)
        ids[start : start + 4] = [ID["fail"]] * 3 + [ID["login"]]
        part[start : start + 4] = True
    return ids, part


def sessions(count, seed):
    """(ids (B, T), parts (B, T), classes (B,)), half of them intrusions."""
    rng, classes = np.random.default_rng(seed), np.arange(count) % 2
    made = [session(rng, bool(label)) for label in classes]
    return np.stack([ids for ids, _ in made]), np.stack([part for _, part in made]), classes


def train(count=2000, epochs=15, units=24, path="sessions.onnx"):
    keras.utils.set_random_seed(0)
    embedding, gru, head = keras.layers.Embedding(len(EVENTS), 8), keras.layers.GRU(units), keras.layers.Dense(len(CLASSES))
    inputs = keras.Input((None,), dtype="int64")
    model = keras.Model(inputs, head(gru(embedding(inputs))))
    model.compile(keras.optimizers.Adam(5e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ids, _, classes = sessions(count, seed=0)
    model.fit(ids, classes, epochs=epochs, batch_size=64, verbose=0)
    net = Net()
    x = net.embedding("events", *embedding.get_weights())
    net.dense(net.recurrent(x, "GRU", gru.get_weights()), *head.get_weights())
    return net.save(path, ("events", ["batch", "time"]), ("scores", ["batch", len(CLASSES)]), ids=True)


def main(**options):
    ids, parts, classes = sessions(200, seed=1)
    explainer = onnx_lrp.load(train(**options))
    # why an intrusion and not normal: what both scores have in common cancels
    explanation = explainer.explain(ids, onnx_lrp.targets.contrast(1, 0))
    right = explanation.outputs["scores"].argmax(1) == classes
    print(f"{right.mean():.1%} of {len(ids)} sessions right, books closed to {np.abs(explanation.residual).max():.0e}")

    relevance = explanation.per_step()  # (B, T), of ids: summed over their embedding
    found = np.flatnonzero(right & (classes == 1))
    top = np.argsort(-relevance[found], axis=1)[:, :4]
    hits = np.mean([parts[k][best].mean() for k, best in zip(found, top, strict=True)])
    chance = parts[found].mean()
    print(f"of the four events with most relevance {hits:.0%} are the intrusion's, {chance:.0%} of all events are")
    first = found[0]
    print(
        " ".join(
            f"{EVENTS[k]} {r:+.2f}{'*' if p else ''}" for k, r, p in zip(ids[first], relevance[first], parts[first], strict=True)
        )
    )
    return explanation, hits, chance


if __name__ == "__main__":
    main()
