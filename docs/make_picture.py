"""Draw docs/report.webp, the README's picture: the first sample of the demo's page, as a headless Chromium shows it.

Run it in the repository: pip install -e ".[cpu,browser]" pillow, apt-get install chromium, python docs/make_picture.py
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parent / "report.webp"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update"]
LIMIT = 200_000  # bytes
PATIENCE = 120_000  # milliseconds


def page() -> str:
    """The demo's report."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "demo.html"
        subprocess.run([sys.executable, "-m", "onnx_lrp", "demo", "--html", str(file)], check=True, stdout=subprocess.DEVNULL)
        return file.read_text(encoding="utf-8")


def picture(html: str) -> bytes:
    """Its first sample as PNG, at twice the size it has in the README."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS, timeout=PATIENCE)
        sheet = browser.new_page(viewport={"width": 1120, "height": 1200}, device_scale_factor=1.5, color_scheme="light")
        sheet.set_content(html)
        png = sheet.locator("article").first.screenshot(timeout=PATIENCE)
        browser.close()
    return png


def main() -> None:
    """Draw, and say how large it became."""
    Image.open(io.BytesIO(picture(page()))).convert("RGB").save(PICTURE, quality=88, method=6)
    size = PICTURE.stat().st_size
    print(f"{PICTURE}: {size:,} bytes")
    if size > LIMIT:
        sys.exit(f"the picture is larger than {LIMIT:,} bytes")


if __name__ == "__main__":
    main()
