"""Recurrent PyTorch networks with the pitfalls of exporting them."""

from __future__ import annotations

import torch
from torch import nn


class Bidirectional(nn.Module):
    """Two stacked layers behind an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.rnn = nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, ids):
        return self.head(self.rnn(self.embed(ids))[0].mean(1))


class Cells(nn.Module):
    """A loop over cells, unrolled where it is traced, and a softmax at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        h = torch.zeros(x.shape[0], 8)
        c = torch.zeros(x.shape[0], 8)
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
        return torch.softmax(self.head(h), -1)


class Unscriptable(Cells):
    """The same behind arguments that scripting refuses."""

    def forward(self, *xs, **_):
        return Cells.forward(self, xs[0])


class Labels(nn.Module):
    """The argmax in the model, and perhaps a state for one batch size."""

    def __init__(self, batch: int | None = None) -> None:
        super().__init__()
        self.batch = batch
        self.rnn = nn.GRU(4, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        state = torch.zeros(1, self.batch or x.shape[0], 8)
        return self.head(self.rnn(x, state)[0][:, -1]).argmax(-1)
