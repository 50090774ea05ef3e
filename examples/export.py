# /// script
# requires-python = ">=3.11"
# dependencies = ["onnx-lrp[cpu]"]
# ///
"""Write the demo model's explanation as a SavedModel, for ``tensorflow_only.py``, which has neither onnx-lrp nor onnx.

python examples/export.py explainer && python examples/tensorflow_only.py explainer 45 18 7 31
"""

import argparse

import onnx_lrp
from onnx_lrp import demo


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--text", default="neither funny nor suspenseful")
    arguments = parser.parse_args(argv)
    explainer = onnx_lrp.load(demo.model())
    explainer.export(arguments.folder)
    ids = demo.encode(arguments.text)[1]
    explanation = explainer.explain(ids)
    print(f"{arguments.text!r} has the ids {' '.join(map(str, ids[0]))}")
    print("relevance here " + " ".join(f"{r:+.4f}" for r in explanation.per_step()[0]))
    return ids, explanation


if __name__ == "__main__":
    main()
