"""What the tests of the zoo share: a picture, and a local stand-in for a download server."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter


@pytest.fixture
def photo() -> Image.Image:
    """A picture with structure at all scales, wider than high, of odd sides."""
    draws = np.random.default_rng(3)
    picture = Image.new("RGB", (451, 337))
    for side in (3, 17, 90):
        noise = Image.fromarray(draws.integers(0, 256, (337 // side + 2, 451 // side + 2, 3), dtype=np.uint8))
        picture = Image.blend(picture, noise.resize(picture.size, Image.Resampling.BICUBIC), 0.6)
    return picture.filter(ImageFilter.SHARPEN)


@pytest.fixture
def server(tmp_path: Path) -> Generator[tuple[str, Path]]:
    """A web server on this machine: its address, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}", folder
    running.shutdown()
    thread.join()
    running.server_close()
