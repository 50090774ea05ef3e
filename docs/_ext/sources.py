"""Pages of source without dead links back: viewcode takes all names of a file for documented under the module of the first."""

from __future__ import annotations

import re
from typing import Any


def mend(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Let links back that have no end lead to the name under the file's own module."""
    if not pagename.startswith("_modules/onnx_lrp") or "body" not in context:
        return
    known = app.env.domaindata["py"]["objects"]
    module = pagename.removeprefix("_modules/").replace("/", ".")

    def right(link: re.Match[str]) -> str:
        own = f"{module}.{link[2].removeprefix('onnx_lrp.')}"
        return link[0] if link[2] in known or own not in known else f"{link[1]}#{own}"

    context["body"] = re.sub(r"(viewcode-back\" href=\"[^#\"]*)#([\w.]+)", right, context["body"])


def setup(app: Any) -> dict[str, Any]:
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
