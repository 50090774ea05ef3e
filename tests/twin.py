"""The slow twin: LRP of LSTM, GRU, RNN, pooling and dense layers, message by message, one sample at a time, in float64.

Written from the papers: z_ij = x_i w_ij, R_{i←j} = (z_ij + δ·(b_j + ε·sign z_j)/N) / (z_j + ε·sign z_j) · R_j with sign 0 = +1
(Bach et al. 2015, eq. 58; Arras et al. 2017, section 2.2, which use δ = 1 for their sanity check).
Gates get nothing (ibid.), or what the rules of Arras et al. 2019 give them.
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
        steps.append((t, h, c, (i, o, f, g)))
        c = f * c + i * g
        h = o * np.tanh(c)
        y[t] = h
    return y, h, c, steps


def product(gate, signal, r, rule, books: Books):
    """(relevance of the gate, of the signal) of their product, entry by entry (Arras et al. 2019: LRP-all, -half, -prop, -abs)."""
    out_gate, out_signal = np.zeros(len(r)), np.zeros(len(r))
    for k in range(len(r)):
        g, s = gate[k], signal[k]
        if rule == "all":
            shares = 0.0, r[k]
        elif rule == "half":
            shares = r[k] / 2, r[k] / 2
        elif rule == "abs":
            shares = abs(g) / (abs(g) + abs(s)) * r[k], abs(s) / (abs(g) + abs(s)) * r[k]
        else:  # prop, stabilized as any quotient is
            shares = linear(np.array([g, s]), np.ones((2, 1)), np.zeros(1), r[k : k + 1], books)
        out_gate[k], out_signal[k] = shares
    return out_gate, out_signal


def lstm_relevance(x, w, u, b, steps, r_y, r_h, r_c, books: Books, gates: str = "all"):
    """Relevance of x (T, I), h0 and c0, given that of Y, the last h and the last c; and of h_t and c_t at every step (T, H)."""
    size = u.shape[1]
    r_x, r_h, r_c = np.zeros(x.shape), np.array(r_h), np.array(r_c)
    met = {"h": np.zeros((len(x), size)), "c": np.zeros((len(x), size))}
    for t, h, c, (i, o, f, g) in reversed(steps):
        # h = o·tanh(c)
        met["h"][t] = r_h + r_y[t]
        r_o, r_signal = product(o, np.tanh(f * c + i * g), r_h + r_y[t], gates, books)
        r_c = r_c + r_signal
        met["c"][t] = r_c
        # c = f·c₋ + i·g: a sum whose lower units are all 2H products
        both = np.concatenate([f * c, i * g])
        own = np.concatenate([np.eye(size), np.eye(size)])
        shares = linear(both, own, np.zeros(size), r_c, books)
        r_f, r_c = product(f, c, shares[:size], gates, books)
        r_i, r_g = product(i, g, shares[size:], gates, books)
        # a pre-activation is a sum over x and h₋; gates that got nothing send nothing
        r_h = np.zeros(size)
        for k, r in enumerate((r_i, r_o, r_f, r_g)):
            own = slice(k * size, (k + 1) * size)
            weights = np.concatenate([w[own].T, u[own].T])  # (I + H, H)
            bias = b[own] + b[4 * size + k * size : 4 * size + (k + 1) * size]
            lower = linear(np.concatenate([x[t], h]), weights, bias, r, books)
            r_x[t] += lower[: x.shape[1]]
            r_h += lower[x.shape[1] :]
    return r_x, r_h, r_c, met


def pool(y, r, books: Books):
    """Relevance (T, H) of the steps of a mean over time: one sum whose lower units are all T·H entries."""
    steps, size = y.shape
    w = np.concatenate([np.eye(size)] * steps) / steps
    return linear(y.reshape(-1), w, np.zeros(size), r, books).reshape(steps, size)


def network(sample, weights, *, mean, epsilon, delta, gates="all"):
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
            x, weights["W"][d], weights["R"][d], weights["B"][d], steps, r_y[:, own], r_h, np.zeros(size), books, gates
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


# GRU and RNN. Formulas: h_t = (1 − z)·n + z·h₋ and its parts share as any sum and any product of a gate and a signal do.


def gru(x, w, u, b, h0, length, backwards, reset_after):
    """One direction of one sample. x (T, I), w (3H, I), u (3H, H), b (6H,) in ONNX's gate order z, r, n; as :func:`lstm`.

    ``reset_after`` (linear_before_reset): n = tanh(x w + b + r·(h₋ u + b')), else tanh(x w + (r·h₋) u + b + b').
    """
    size = len(h0)
    own = [slice(k * size, (k + 1) * size) for k in range(3)]
    outer, inner = b[: 3 * size], b[3 * size :]
    y, h, steps = np.zeros((len(x), size)), h0.copy(), []
    for t in range(length - 1, -1, -1) if backwards else range(length):
        z, r = (sigmoid(w[k] @ x[t] + u[k] @ h + outer[k] + inner[k]) for k in own[:2])
        k = own[2]
        if reset_after:
            n = np.tanh(w[k] @ x[t] + outer[k] + r * (u[k] @ h + inner[k]))
        else:
            n = np.tanh(w[k] @ x[t] + outer[k] + inner[k] + u[k] @ (r * h))
        steps.append((t, h, (z, r, n)))
        h = (1 - z) * n + z * h
        y[t] = h
    return y, h, steps


def gru_relevance(x, w, u, b, steps, r_y, r_h, books: Books, gates: str, reset_after: bool):
    """Relevance of x (T, I) and h0, given that of Y and of the last h; and of h_t at every step (T, H)."""
    size, width = u.shape[1], x.shape[1]
    outer, inner = b[: 3 * size], b[3 * size :]
    r_x, r_h, met = np.zeros(x.shape), np.array(r_h), np.zeros((len(x), size))
    for t, h, (z, r, n) in reversed(steps):
        met[t] = r_h + r_y[t]
        # h = (1 − z)·n + z·h₋: a sum whose lower units are all 2H products
        both = np.concatenate([(1 - z) * n, z * h])
        shares = linear(both, np.concatenate([np.eye(size)] * 2), np.zeros(size), met[t], books)
        r_rest, r_n = product(1 - z, n, shares[:size], gates, books)
        r_z, r_h = product(z, h, shares[size:], gates, books)
        if gates != "all":  # 1 − z: a sum of −z and a bias of 1
            r_z = r_z + linear(-z, np.eye(size), np.ones(size), r_rest, books)
        # the candidate's pre-activation
        own = slice(2 * size, 3 * size)
        if reset_after and gates == "all":  # a gate takes nothing: r scales the weights and the bias inside
            weights = np.concatenate([w[own].T, u[own].T * r])
            lower = linear(np.concatenate([x[t], h]), weights, outer[own] + r * inner[own], r_n, books)
            r_r, r_h = np.zeros(size), r_h + lower[width:]
        elif reset_after:  # the product r·v is a lower unit of its own, and v = h₋ u + b' another sum
            v = u[own] @ h + inner[own]
            weights = np.concatenate([w[own].T, np.eye(size)])
            lower = linear(np.concatenate([x[t], r * v]), weights, outer[own], r_n, books)
            r_r, r_v = product(r, v, lower[width:], gates, books)
            r_h = r_h + linear(h, u[own].T, inner[own], r_v, books)
        else:
            weights = np.concatenate([w[own].T, u[own].T])
            lower = linear(np.concatenate([x[t], r * h]), weights, outer[own] + inner[own], r_n, books)
            r_r, r_signal = product(r, h, lower[width:], gates, books)
            r_h = r_h + r_signal
        r_x[t] += lower[:width]
        # the gates' pre-activations; one that got nothing sends nothing
        for k, part in enumerate((r_z, r_r)) if gates != "all" else ():
            own = slice(k * size, (k + 1) * size)
            weights = np.concatenate([w[own].T, u[own].T])
            lower = linear(np.concatenate([x[t], h]), weights, outer[own] + inner[own], part, books)
            r_x[t] += lower[:width]
            r_h = r_h + lower[width:]
    return r_x, r_h, met


def rnn(x, w, u, b, h0, length, backwards):
    """h_t = tanh(x w + h₋ u + b + b'); x (T, I), w (H, I), u (H, H), b (2H,)."""
    size = len(h0)
    y, h, steps = np.zeros((len(x), size)), h0.copy(), []
    for t in range(length - 1, -1, -1) if backwards else range(length):
        steps.append((t, h))
        h = np.tanh(w @ x[t] + u @ h + b[:size] + b[size:])
        y[t] = h
    return y, h, steps


def rnn_relevance(x, w, u, b, steps, r_y, r_h, books: Books):
    """Relevance of x (T, I) and h0, given that of Y and of the last h; and of h_t at every step (T, H)."""
    size, width = u.shape[1], x.shape[1]
    r_x, r_h, met = np.zeros(x.shape), np.array(r_h), np.zeros((len(x), size))
    for t, h in reversed(steps):
        met[t] = r_h + r_y[t]
        lower = linear(np.concatenate([x[t], h]), np.concatenate([w.T, u.T]), b[:size] + b[size:], met[t], books)
        r_x[t] += lower[:width]
        r_h = lower[width:]
    return r_x, r_h, met


def cell_network(sample, weights, *, op, mean, epsilon, delta, gates, reset_after):
    """The whole network of ``test_twin.cell_network`` for one sample: logits = Vᵀ features + d; returns as :func:`network`."""
    x, length = sample["x"], int(sample["lens"]) if "lens" in sample else len(sample["x"])
    runs, size = [], weights["R"].shape[2]
    for d, backwards in enumerate(weights["backwards"]):
        h0 = sample["h0"][d] if "h0" in sample else np.zeros(size)
        own = (x, weights["W"][d], weights["R"][d], weights["B"][d])
        runs.append(gru(*own, h0, length, backwards, reset_after) if op == "GRU" else rnn(*own, h0, length, backwards))
    y = np.concatenate([run[0] for run in runs], 1)
    features = y.mean(0) if mean else np.concatenate([run[1] for run in runs])
    logits = features @ weights["V"] + weights["d"]
    seed = np.where(np.arange(len(logits)) == logits.argmax(), logits, 0)
    books = Books(epsilon, delta)
    r_features = linear(features, weights["V"], weights["d"], seed, books)
    r_y = pool(y, r_features, books) if mean else np.zeros(y.shape)
    books.absorb("constant", r_y[length:].sum())
    r_x, states, met = np.zeros(x.shape), [], []
    for d, (_, _, steps) in enumerate(runs):
        own = slice(d * size, (d + 1) * size)
        given = (x, weights["W"][d], weights["R"][d], weights["B"][d], steps, r_y[:, own])
        r_h = np.zeros(size) if mean else r_features[own]
        if op == "GRU":
            r_d, r_h0, seen = gru_relevance(*given, r_h, books, gates, reset_after)
        else:
            r_d, r_h0, seen = rnn_relevance(*given, r_h, books)
        r_x += r_d
        states.append(r_h0)
        met.append(seen)
    relevance = {"x": r_x}
    if "h0" in sample:
        relevance["h0"] = np.stack(states)
    else:
        books.absorb("initial_state", np.sum(states))
    return relevance, books.absorbed, logits, {"h": np.stack(met, 1)}
