"""An atlas of SqueezeNet over a thousand photographs: seconds until it can be used, megabytes by folder, first paint of every kind of page.

    python benchmarks/atlas.py --out /tmp/atlas             # makes the site, without images by feature visualization, and measures it
    python benchmarks/atlas.py --out /tmp/atlas --measure   # measures a site that is there

Photographs and weights are in ../shared. The site can be used as soon as `atlas.json` says what it has. Seconds are on the wall and of
processors, those of decoding processes included: on a machine that does other work only the latter say something. Paints are taken by
Chromium (Playwright, extra `dev`): of every kind of page from a file, and of the page with a thousand tiles from a server on this machine.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = SHARED / "weights" / "squeezenet1_0-imagenet.safetensors"
PAGES = {
    "network": "index.html",
    "layer, 256 units": "layer/features.12.expand3x3_activation.html",
    "layer, 1000 units": "layer/classifier.2.html",
    "classes": "layer/output.html",
    "unit": "unit/features.12.expand3x3_activation/100.html",
    "class": "class/207.html",
    "image": "image/207.html",
    "about": "about.html",
    "compare": "compare.html#a=unit/features.1/3.html&b=class/1.html",
    "your photograph": "live.html",
}
_HERTZ = os.sysconf("SC_CLK_TCK")


def processor_seconds(process: int) -> float:
    """Processor seconds of a process and of those it started and that have ended."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _HERTZ


def make(site: Path) -> None:
    """Makes the site and prints when it could be used."""
    photographs = sorted((SHARED / "images" / "imagenet-sample").glob("*.jpg"))
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "photographs.csv"
        listed.write_text("path,label\n" + "".join(f"{path},{path.stem}\n" for path in photographs), encoding="utf-8")
        command = [sys.executable, "-m", "convscope", "atlas", "squeezenet1_0", str(listed), "--weights", str(WEIGHTS)]
        begun = time.monotonic()
        process = subprocess.Popen([*command, "--out", str(site), "--budget", "1s"], stderr=subprocess.DEVNULL)
        seen: set[str] = set()
        note = site / "atlas.json"  # there from the start, to mark the folder; what the site has stands in it last
        marks: dict[str, Callable[[], bool]] = {
            "scanned": (site / "data/manifest.json").exists,
            "can be used": lambda: note.exists() and "made" in json.loads(note.read_text(encoding="utf-8")),
        }
        while process.poll() is None:
            for name in [name for name, is_there in marks.items() if name not in seen and is_there()]:
                seen.add(name)
                print(f"{name}: {time.monotonic() - begun:.0f} s, {processor_seconds(process.pid):.0f} s of processors", flush=True)
            time.sleep(0.2)
        print(f"with maps and the live page: {time.monotonic() - begun:.0f} s")


def sizes(site: Path) -> None:
    """Prints megabytes by folder and kind of file."""
    found: Counter[tuple[str, str]] = Counter()
    files: Counter[tuple[str, str]] = Counter()
    for path in site.rglob("*"):
        if path.is_file():
            place = path.relative_to(site).parts
            kind = (place[0] if len(place) > 1 else "", "" if place[0] in ("data", "live") else path.suffix)
            found[kind] += path.stat().st_size
            files[kind] += 1
    print("\n| folder | files | MB |\n|---|---:|---:|")
    for (folder, suffix), size in found.most_common():
        print(f"| {folder}/ {suffix} | {files[folder, suffix]:,} | {size / 2**20:.1f} |")
    print(f"| all | {files.total():,} | {found.total() / 2**20:.1f} |\n")


_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
_LOADED = """Math.max(performance.getEntriesByType('navigation')[0].loadEventEnd,
  ...performance.getEntriesByType('resource').map(one => one.responseEnd))"""


def opened(browser: Any, address: str) -> tuple[float, float]:
    """Milliseconds to the first paint, and until everything is loaded, in a browser without a cache."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(address, wait_until="networkidle")
    page.wait_for_function(_PAINT)
    found = page.evaluate(_PAINT), page.evaluate(_LOADED)
    context.close()
    return found


def paints(site: Path, rounds: int) -> None:
    """Prints how long pages take."""
    from playwright.sync_api import sync_playwright

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...

    print("| page | from | first paint ms | loaded ms |\n|---|---|---:|---:|")
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server,
        sync_playwright() as running,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        loopback = f"http://127.0.0.1:{server.server_port}"
        asked = [(name, "a file", site.resolve().as_uri(), page) for name, page in PAGES.items()]
        asked += [(name, "loopback", loopback, PAGES[name]) for name in ("network", "layer, 1000 units", "classes", "unit")]
        opened(browser, f"{site.resolve().as_uri()}/about.html")
        for name, source, base, page in asked:
            seen = [opened(browser, f"{base}/{page}") for _ in range(rounds)]
            first, loaded = (statistics.median(values) for values in zip(*seen, strict=True))
            print(f"| {name} | {source} | {first:.0f} | {loaded:.0f} |", flush=True)
        browser.close()
        server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if not given.measure:
        make(given.out)
    sizes(given.out)
    paints(given.out, given.rounds)


if __name__ == "__main__":
    main()
