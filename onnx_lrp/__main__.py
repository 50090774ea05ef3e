"""``python -m onnx_lrp``."""

from .cli import main

main()
