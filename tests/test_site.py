"""The documentation builds with warnings as errors, has every public name on it, and asks nothing of the network."""

from __future__ import annotations

import re
import subprocess
import sys
import zlib
from pathlib import Path
from urllib.parse import unquote

import pytest

import onnx_lrp
from onnx_lrp import targets, testing

for package in ("sphinx", "furo", "myst_parser", "latex2mathml", "hypothesis"):
    pytest.importorskip(package)
DOCS = Path(__file__).resolve().parents[1] / "docs"
LOADED = re.compile(r"""<(?:script|img|iframe|source|link)\b[^>]*?(?:src|href)=["'](?:https?:)?//[^"']+""")  # links are no loading


def build(source, out):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", str(source), str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    done = build(DOCS, out)
    assert done.returncode == 0, done.stderr[-5000:]
    return out


def pages(site):
    return {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}


@pytest.mark.parametrize("home", [onnx_lrp, targets, testing], ids=lambda home: home.__name__)
def test_every_public_name_is_on_it(site, home):
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]  # four lines of header
    found = {line.split(" ")[0] for line in zlib.decompress(packed).decode().splitlines() if " py:" in line}
    missing = {f"{home.__name__}.{name}" for name in home.__all__} - found
    assert not missing


def test_nothing_comes_from_the_network(site):
    assert not {page.name: found for page, text in pages(site).items() if (found := LOADED.findall(text))}
    for file in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import\s+)[\"']?(?:https?:)?//", file.read_text(encoding="utf-8")), file.name


def test_links_inside_have_an_end(site):
    found = pages(site)
    ids = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in found.items()}
    broken = []
    for page, text in found.items():
        for link in re.findall(r'<a\b[^>]*\bhref="([^"]*)"', text):
            if re.match(r"[a-z]+:", link) or link == "#":
                continue
            path, _, anchor = unquote(link).partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.is_file() or (anchor and target in ids and anchor not in ids[target]):
                broken.append((page.name, link))
    assert not broken, broken[:20]


def test_formulas_are_drawn_by_the_browser(site):
    text = (site / "formulas.html").read_text(encoding="utf-8")
    assert text.count("<math ") > 30
    assert not re.search(r"\$\$|\\(?:sum|frac|odot)\b", re.sub(r"<(script|annotation).*?</\1>", "", text, flags=re.DOTALL))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[a](nowhere.md)", "nowhere"),
        ("[a](#no-such-heading)", "no-such-heading"),
        ("$\\frac{$", "frac"),
        ("```{eval-rst}\n.. autofunction:: onnx_lrp.no_such\n```", "no_such"),
        ("```{eval-rst}\n:py:func:`onnx_lrp.no_such`\n```", "no_such"),
    ],
)
def test_a_fault_fails_the_build(tmp_path, text, complaint):
    (tmp_path / "_static").mkdir()
    (tmp_path / "conf.py").write_text(
        (DOCS / "conf.py").read_text().replace("Path(__file__).resolve().parent", f"Path({str(DOCS)!r})")
    )
    (tmp_path / "index.md").write_text(f"# Page\n\n{text}\n")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode != 0
    assert complaint in done.stderr
