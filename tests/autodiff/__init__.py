"""A second implementation for whole graphs: relevance is input × gradient, by TensorFlow's own autodiff, of a copy of the program.

In the copy gates, masks and normalizers are constants (``tf.stop_gradient``), an activation is the multiplication with its secant
φ(z)/z, and a block's output carries the gradient z/(z + ε·sign z). It is written the simplest slow way: ONNX nodes are run one by
one in float64, recurrent ones and loops step by step, into a graph of plain values; then it is decided which of them are the roots
of blocks, and the graph is run again under a tape. Nothing of the engine is used but the reading of files.
"""

from __future__ import annotations

from .back import relevance
from .values import Missing

__all__ = ["Missing", "relevance"]
