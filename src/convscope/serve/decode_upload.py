"""Decodes one uploaded image in a process of its own with limited time, memory and no files. Reads bytes, writes the network's input.

Started as a script with three arguments: the folder of the package, limits as JSON, and how images are prepared as JSON. Ends with 0 and
raw bytes (h w c), uint8, after a line with width and height of the file; or with 1 and a line that says why not.
"""

from __future__ import annotations

import json
import sys

FORMATS = ("JPEG", "PNG", "WEBP")


def limit(seconds: int, memory: int) -> None:
    """No more than so much time and memory, and no file written."""
    try:
        import resource
    except ImportError:  # not on this system; time is limited by the caller
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))


def main() -> int:
    """Decodes what stands on the standard input."""
    home, limits, how = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    sys.path.insert(0, home)
    import io

    from PIL import Image

    from convscope.errors import BadImage, ConvscopeError
    from convscope.preprocessing import Preprocessing

    Image.preinit()
    Image.init()
    data = sys.stdin.buffer.read(limits["bytes"] + 1)
    limit(limits["seconds"], limits["memory"])
    try:
        if len(data) > limits["bytes"]:
            raise BadImage("too large")
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            if opened.width * opened.height > limits["pixels"]:
                raise BadImage(f"{opened.width}x{opened.height} pixels are too many")
        preparing = Preprocessing((how["height"], how["width"]), how["interpolation"], how["crop"], channels=how["channels"])
        image, (height, width) = preparing.decode(data)
        pixels = preparing.fit(image)
    except ConvscopeError as error:
        sys.stdout.write(error.message)
        return 1
    except Exception:  # Pillow raises anything, MemoryError among it
        sys.stdout.write(f"not an image of {', '.join(FORMATS)} that can be read")
        return 1
    sys.stdout.buffer.write(f"{width} {height}\n".encode() + pixels.tobytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
