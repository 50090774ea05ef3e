"""Recurrent Paddle networks with the pitfalls of exporting them."""

from __future__ import annotations

import paddle
from paddle import nn


class Bidirectional(nn.Layer):
    """Two stacked layers behind an embedding, a softmax at the end."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.rnn = nn.LSTM(6, 8, 2, direction="bidirect")
        self.head = nn.Linear(16, 3)

    def forward(self, ids):
        return nn.functional.softmax(self.head(self.rnn(self.embed(ids))[0].mean(1)), -1)


class Last(nn.Layer):
    """The last step of a recurrent layer; the label in place of the scores, perhaps."""

    def __init__(self, rnn=nn.GRU, label=False):
        super().__init__()
        self.rnn, self.head, self.label = rnn(4, 8), nn.Linear(8, 3), label

    def forward(self, x):
        z = self.head(self.rnn(x)[0][:, -1])
        return z.argmax(-1) if self.label else z


class Lengths(nn.Layer):
    """Lengths, which the exporter leaves out of the layer; as a mask behind it they stay."""

    def __init__(self, mask=False):
        super().__init__()
        self.rnn, self.head, self.mask = nn.LSTM(4, 8), nn.Linear(8, 3), mask

    def forward(self, x, lengths):
        if not self.mask:
            return self.head(self.rnn(x, sequence_length=lengths)[1][0][-1])
        steps = paddle.arange(x.shape[1]).unsqueeze(0) < lengths.unsqueeze(1)
        return self.head((self.rnn(x)[0] * steps.astype("float32").unsqueeze(-1)).sum(1))


class Cells(nn.Layer):
    """A loop over a cell, whose first state is given or not."""

    def __init__(self, state=True, steps=None):
        super().__init__()
        self.cell, self.head, self.state, self.steps = nn.LSTMCell(4, 8), nn.Linear(8, 3), state, steps

    def forward(self, x):
        h = c = paddle.zeros([x.shape[0], 8])
        states = (h, c) if self.state else None
        for t in range(self.steps or x.shape[1]):
            y, states = self.cell(x[:, t], states)
        return self.head(y if self.steps else states[0])


class Flat(nn.Layer):
    """A head that takes seven steps."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(4, 8), nn.Linear(56, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0].flatten(1))


def around_a_cell():
    return Last(lambda i, h: nn.RNN(nn.GRUCell(i, h)))
