# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.13", "onnx", "onnxruntime", "onnxscript", "numpy", "onnx-lrp"]
# ///
"""Train a small LSTM that tells nine speakers apart by two vowels, and write it as .onnx with its test data.

The data, Japanese Vowels (Kudo, Toyama & Shimbo 1999; 640 utterances, 12 coefficients a step, 7 to 29 steps), lie in aeon's wheel:

    pip download aeon --no-deps
    python examples/vowels/train.py aeon-*.whl --out vowels

``vowels`` receives vowels.onnx, written by converters/torch_to_onnx.py, and the 370 test utterances in two halves, choose.jsonl to
choose settings with and report.jsonl to report on. Letters: T time, B batch.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

WIDTH, SPEAKERS = 12, 9
INSIDE = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_{}.ts"
CONVERTER = Path(__file__).resolve().parents[2] / "converters" / "torch_to_onnx.py"


class Speaker(nn.Module):
    """LSTM → last state → linear."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, hidden, batch_first=True)
        self.head = nn.Linear(hidden, SPEAKERS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, T, 12) → logits (B, 9)."""
        return self.head(self.lstm(x)[0][:, -1])

    def packed(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The same of sequences of different lengths, padded."""
        _, (h, _) = self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        return self.head(h[-1])


def read(wheel: Path, part: str) -> list[tuple[np.ndarray, int]]:
    """[((T, 12), speaker)] of aeon's file TRAIN or TEST."""
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(INSIDE.format(part)).decode().splitlines()
    rows = []
    for line in lines[lines.index("@data") + 1 :]:
        *channels, label = line.split(":")
        rows.append((np.array([c.split(",") for c in channels], np.float32).T, int(label) - 1))
    return rows


def batch(rows: list[tuple[np.ndarray, int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(x (B, T, 12), lengths (B,), speakers (B,))."""
    x = pad_sequence([torch.from_numpy(x) for x, _ in rows], batch_first=True)
    return x, torch.tensor([len(x) for x, _ in rows]), torch.tensor([y for _, y in rows])


def accuracy(model: Speaker, rows: list[tuple[np.ndarray, int]]) -> float:
    """The share of right answers."""
    x, lengths, y = batch(rows)
    with torch.no_grad():
        return float((model.eval().packed(x, lengths).argmax(1) == y).float().mean())


def train(rows: list[tuple[np.ndarray, int]], *, seed: int, epochs: int, noise: float) -> Speaker:
    """Adam on four fifths of the rows; the epoch that is best on the last fifth is kept."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    rows = rows[:]
    rng.shuffle(rows)
    kept_out, rows = rows[: len(rows) // 5], rows[len(rows) // 5 :]
    model = Speaker()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, weight_decay=1e-4)
    best, kept = -1.0, copy.deepcopy(model.state_dict())
    for _ in range(epochs):
        rng.shuffle(rows)
        model.train()
        for first in range(0, len(rows), 16):
            x, lengths, y = batch(rows[first : first + 16])
            loss = nn.functional.cross_entropy(model.packed(x + noise * torch.randn_like(x), lengths), y)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        score = accuracy(model, kept_out)
        if score >= best:
            best, kept = score, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    print(f"seed {seed}: {best:.1%} of {len(kept_out)} kept out for validation")
    return model


def main(argv: list[str] | None = None) -> None:
    """Train, score, export, write the halves."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path, help="aeon's wheel")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--noise", type=float, default=0.3, help="added in training, in standard deviations")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)

    training, test = (read(options.wheel, part) for part in ("TRAIN", "TEST"))
    steps = np.concatenate([x for x, _ in training])
    mean, spread = steps.mean(0), steps.std(0)  # of every coefficient; zero is its mean from here on
    training, test = ([((x - mean) / spread, y) for x, y in rows] for rows in (training, test))
    model = train(training, seed=options.seed, epochs=options.epochs, noise=options.noise)
    print(f"{accuracy(model, test):.1%} of {len(test)} test utterances")

    options.out.mkdir(parents=True, exist_ok=True)
    weights = options.out.resolve() / "vowels.pt"
    torch.save(model.state_dict(), weights)
    target = options.out.resolve() / "vowels.onnx"
    arguments = ["--weights", str(weights), "--input", f"x:float32:B,T,{WIDTH}", "--outputs", "logits", "--out", str(target)]
    command = [sys.executable, str(CONVERTER), "train:Speaker", *arguments]
    subprocess.run(command, check=True, cwd=Path(__file__).resolve().parent)
    weights.unlink()
    random.Random(options.seed).shuffle(test)
    for name, rows in (("choose", test[: len(test) // 2]), ("report", test[len(test) // 2 :])):
        with open(options.out / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for x, y in rows:
                file.write(json.dumps({"x": x.round(6).tolist(), "speaker": y}) + "\n")


if __name__ == "__main__":
    main()
