"""Makes the pictures of README and of the atlas's page from what `make demo` has written: python docs/make_demo_pictures.py

Needs Chromium and the extra `dev`.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

DEMO = Path(__file__).resolve().parents[1] / "out" / "demo" / "efficientnet_lite0"
OUT = Path(__file__).parent / "pictures"
PAGES = {"atlas": ("index.html", 1180, 900), "atlas_unit": ("unit/blocks.5.1.bn1.act/{unit}.html", 1180, 1250)}
"""Pictures of pages: the page, and how much of it is shown, in pixels."""


def small(png: bytes, name: str) -> None:
    """Writes a picture as WebP, a fraction of a PNG's size."""
    Image.open(io.BytesIO(png)).convert("RGB").save(OUT / f"{name}.webp", quality=80, method=6)


def main() -> None:
    site = DEMO / "atlas"
    pages = sorted((site / "unit" / "blocks.5.1.bn1.act").glob("[0-9]*.html"), key=lambda path: int(path.stem))
    healthy = [path for path in pages if "badge bad" not in path.read_text(encoding="utf-8")]
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (page, width, height) in PAGES.items():
            shown = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
            shown.goto((site / page.format(unit=healthy[len(healthy) // 2].stem)).as_uri())
            shown.wait_for_load_state("networkidle")
            small(shown.screenshot(), name)
        browser.close()
    small((DEMO / "output" / "sheet.png").read_bytes(), "demo_classes")


if __name__ == "__main__":
    main()
