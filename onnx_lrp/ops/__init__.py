"""One file per op family: importer, canonical layer, forward pass and relevance.

Every module in this folder is imported here, so a new file is a new family and nothing else has to be touched.
"""

from __future__ import annotations

import importlib
import pkgutil

__all__: list[str] = []

for _module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
