"""The slow twin: LRP of LSTM, pooling and dense layers, message by message, one sample at a time, in float64.

Written from the papers: z_ij = x_i w_ij, R_{i←j} = (z_ij + δ·(b_j + ε·sign z_j)/N) / (z_j + ε·sign z_j) · R_j with sign 0 = +1
(Bach et al. 2015, eq. 58; Arras et al. 2017, section 2.2, which use δ = 1 for their sanity check), gates get nothing (ibid.).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Books:
    """What ended on the way, by kind."""

    epsilon: float
    delta: float
    absorbed: dict[str, float] = field(default_factory=dict)

    def absorb(self, kind: str, amount: float) -> None:
        self.absorbed[kind] = self.absorbed.get(kind, 0.0) + amount


def linear(x, w, b, r, books: Books):
    """Relevance (I,) of the inputs x (I,) of z = x w + b, given r (C,) of z."""
    out = np.zeros(len(x))
    for j in range(len(r)):
        z = sum(x[i] * w[i, j] for i in range(len(x))) + b[j]
        stabilizer = books.epsilon if z >= 0 else -books.epsilon
        for i in range(len(x)):
            out[i] += (x[i] * w[i, j] + books.delta * (b[j] + stabilizer) / len(x)) / (z + stabilizer) * r[j]
        books.absorb("bias", (1 - books.delta) * b[j] / (z + stabilizer) * r[j])
        books.absorb("stabilizer", (1 - books.delta) * stabilizer / (z + stabilizer) * r[j])
    return out


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm(x, w, u, b, h0, c0, length, backwards):
    """One direction of one sample. x (T, I), w (4H, I), u (4H, H), b (8H,) in ONNX's gate order i, o, f, c.

    Returns Y (T, H), zero at padded steps, h and c after the last step (H,), and what relevance needs of each step.
    """
    size = len(h0)
    y, h, c = np.zeros((len(x), size)), h0.copy(), c0.copy()
    steps = []
    for t in range(length - 1, -1, -1) if backwards else range(length):
        z = w @ x[t] + u @ h + b[: 4 * size] + b[4 * size :]
        i, o, f = (sigmoid(z[k * size : (k + 1) * size]) for k in range(3))
        g = np.tanh(z[3 * size :])
        steps.append((t, h, f * c, i * g))
        c = f * c + i * g
        h = o * np.tanh(c)
        y[t] = h
    return y, h, c, steps


def lstm_relevance(x, w, u, b, steps, r_y, r_h, r_c, books: Books):
    """Relevance of x (T, I), h0 and c0, given that of Y, the last h and the last c; and of h_t and c_t at every step (T, H)."""
    size = u.shape[1]
    candidate = np.concatenate([w[3 * size :].T, u[3 * size :].T])  # (I + H, H)
    bias = b[3 * size : 4 * size] + b[7 * size :]
    r_x, r_h, r_c = np.zeros(x.shape), np.array(r_h), np.array(r_c)
    met = {"h": np.zeros((len(x), size)), "c": np.zeros((len(x), size))}
    for t, h, kept, added in reversed(steps):
        # h = o·tanh(c): the signal takes all
        met["h"][t] = r_h + r_y[t]
        r_c = r_c + r_h + r_y[t]
        met["c"][t] = r_c
        # c = f·c₋ + i·g: a sum whose lower units are all 2H products
        both = np.concatenate([kept, added])
        own = np.concatenate([np.eye(size), np.eye(size)])
        shares = linear(both, own, np.zeros(size), r_c, books)
        r_c, r_g = shares[:size], shares[size:]
        # i·g: g takes all; its pre-activation is a sum over x and h₋
        lower = linear(np.concatenate([x[t], h]), candidate, bias, r_g, books)
        r_x[t] += lower[: x.shape[1]]
        r_h = lower[x.shape[1] :]
    return r_x, r_h, r_c, met


def pool(y, r, books: Books):
    """Relevance (T, H) of the steps of a mean over time: one sum whose lower units are all T·H entries."""
    steps, size = y.shape
    w = np.concatenate([np.eye(size)] * steps) / steps
    return linear(y.reshape(-1), w, np.zeros(size), r, books).reshape(steps, size)


def network(sample, weights, *, mean, epsilon, delta, lens=True):
    """The whole network of ``test_twin.network`` for one sample.

    Logits = V₂ᵀ tanh(V₁ᵀ features + Sᵀ x_0 + d₁) + d₂ with features = mean of Y over time or the last h of each direction.
    Returns relevance by input, absorbed by kind, the logits, and relevance of the states h and c at every step, (T, D, H); the
    predicted class is explained.
    """
    x, length = sample["x"], int(sample["lens"]) if "lens" in sample else len(sample["x"])
    runs, size = [], weights["R"].shape[2]
    for d, backwards in enumerate(weights["backwards"]):
        h0 = sample["h0"][d] if "h0" in sample else np.zeros(size)
        c0 = sample["c0"][d] if "c0" in sample else np.zeros(size)
        runs.append(lstm(x, weights["W"][d], weights["R"][d], weights["B"][d], h0, c0, length, backwards))
    y = np.concatenate([run[0] for run in runs], 1)
    features = y.mean(0) if mean else np.concatenate([run[1] for run in runs])
    both = np.concatenate([features, x[0]])
    first = np.concatenate([weights["V1"], weights["S"]])
    hidden = np.tanh(both @ first + weights["d1"])
    logits = hidden @ weights["V2"] + weights["d2"]
    seed = np.where(np.arange(len(logits)) == logits.argmax(), logits, 0)
    books = Books(epsilon, delta)
    r = linear(both, first, weights["d1"], linear(hidden, weights["V2"], weights["d2"], seed, books), books)
    r_features, r_x = r[: len(features)], np.zeros(x.shape)
    r_x[0] += r[len(features) :]
    r_y = pool(y, r_features, books) if mean else np.zeros(y.shape)
    books.absorb("constant", r_y[length:].sum())
    states, hidden = [], []
    for d, (_, _, _, steps) in enumerate(runs):
        own = slice(d * size, (d + 1) * size)
        r_h = np.zeros(size) if mean else r_features[own]
        r_d, r_h0, r_c0, met = lstm_relevance(
            x, weights["W"][d], weights["R"][d], weights["B"][d], steps, r_y[:, own], r_h, np.zeros(size), books
        )
        r_x += r_d
        states.append((r_h0, r_c0))
        hidden.append(met)
    relevance = {"x": r_x}
    for k, name in enumerate(("h0", "c0")):
        r = np.stack([s[k] for s in states])
        if name in sample:
            relevance[name] = r
        else:
            books.absorb("initial_state", r.sum())
    return relevance, books.absorbed, logits, {k: np.stack([m[k] for m in hidden], 1) for k in ("h", "c")}
