# /// script
# requires-python = ">=3.11"
# dependencies = ["tensorflow>=2.18"]
# ///
"""Explain with a program that ``export.py`` wrote: TensorFlow is all it needs, the artifact says what goes in and comes out.

python examples/tensorflow_only.py explainer 45 18 7 31
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf


def main(folder, *ids):
    manifest = json.loads((Path(folder) / "assets.extra" / "manifest.json").read_text(encoding="utf-8"))
    [argument] = manifest["arguments"]
    run = tf.saved_model.load(folder).signatures["serving_default"]
    found = run(**{argument["key"]: tf.constant([[int(k) for k in ids]], tf.int64)})
    [point] = [key for key in found if key.startswith("relevance/")]
    relevance = found[point].numpy().sum(-1)
    absorbed = sum(float(value[0]) for key, value in found.items() if key.startswith("absorbed/"))
    print(f"class {int(found['index'][0])}, score {float(found['seed'][0]):+.4f}")
    print("relevance there " + " ".join(f"{r:+.4f}" for r in relevance[0]))
    print(f"residual {float(found['seed'][0]) - relevance.sum() - absorbed:.0e}")
    return np.asarray(relevance)


if __name__ == "__main__":
    main(*sys.argv[1:])
