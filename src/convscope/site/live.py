"""What the live page loads: runtime, network and what is known of its units, as classic scripts, for pages from a file fetch nothing."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from convscope.errors import StoreConflict
from convscope.names import OUTPUT
from convscope.site import addresses
from convscope.site.content import Content, stem
from convscope.site.write import script

RECORD = "live.json"
RUNTIME, MODEL, NETWORK, LICENCE = "live/runtime.js", "live/model.js", "live/network.js", "live/LICENCE.txt"
_STEPS, _REACH = 32, 3.9
"""Steps to a standard deviation, and the most deviations, in which images are stored for the search of the nearest."""


@dataclass(frozen=True)
class Live:
    """What became of the network's export for the live page.

    Attributes:
        reason: Why it is not there, in a line; "" if it is.
        key: What it was made from.
        precision: How its weights are stored.
        bytes: Size of the ONNX file.
        difference: Largest difference to the library when it was checked, as a share of a layer's largest value.
        images: Number of images that it was checked on.
        places: Where each layer's maps lie on an image, {layer: (y0, x0, y1, x1)} in pixels; layers left out cover it evenly.
    """

    reason: str
    key: str = ""
    precision: str = ""
    bytes: int = 0
    difference: float = 0.0
    images: int = 0
    places: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])

    @classmethod
    def read(cls, site: Path) -> Live | None:
        """That of a site; None if it was not tried."""
        try:
            found = json.loads((site / "data" / RECORD).read_text(encoding="utf-8"))
            return cls(**{name: kind(found[name]) for name, kind in _FIELDS.items()})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def text(self) -> str:
        """Itself as a file's content."""
        return json.dumps(asdict(self), indent=1) + "\n"


_FIELDS: dict[str, Any] = {"reason": str, "key": str, "precision": str, "bytes": int, "difference": float, "images": int, "places": dict}


@dataclass(frozen=True)
class Vendored:
    """A file of another project that this one carries.

    Attributes:
        file: Its name here, with gzip.
        package, version, licence: Where it is from.
        path: Its name there.
        bytes, sha256: Of its content.
    """

    file: str
    package: str
    version: str
    licence: str
    path: str
    bytes: int
    sha256: str

    def packed(self) -> bytes:
        """Its content as it is stored, with gzip.

        Raises:
            StoreConflict: The file is damaged.
        """
        data = files("convscope.site").joinpath("vendored", self.file).read_bytes()
        if hashlib.sha256(gzip.decompress(data)).hexdigest() != self.sha256:
            raise StoreConflict(f"{self.file}: this installation of convscope is damaged; install it again")
        return data


def vendored() -> list[Vendored]:
    """The files of other projects, as their table lists them."""
    table = files("convscope.site").joinpath("vendored", "vendored.json").read_text(encoding="utf-8")
    return [Vendored(**row) for row in json.loads(table)]


def embedded(name: str, packed: bytes) -> str:
    """A script that holds bytes, which are packed with gzip, as `window.embedded[name]`."""
    return f'(window.embedded ??= {{}})[{script(name)}]="{base64.b64encode(packed).decode()}";\n'


def packed(data: bytes) -> bytes:
    """Bytes with gzip, always the same."""
    return gzip.compress(data, 9, mtime=0)


def runtime_script() -> str:
    """The runtime, onnxruntime-web, as a script."""
    return "".join(embedded(one.path.rpartition(".")[2], one.packed()) for one in vendored())


def licence_text() -> str:
    """The licences of the runtime, which go with it wherever a site is copied to."""
    folder = files("convscope.site").joinpath("vendored")
    own = folder.joinpath("LICENSE.onnxruntime").read_text(encoding="utf-8")
    of_others = gzip.decompress(folder.joinpath("NOTICES.onnxruntime.gz").read_bytes()).decode("utf-8")
    return f"runtime.js holds onnxruntime-web.\n\n{own}\n{of_others}"


def network_data(content: Content, shown: list[int], live: Live | None) -> dict[str, Any]:
    """What the live page knows of the network: how images enter, its layers and classes, and the images of the folder with a page.

    Args:
        content: The site.
        shown: Numbers of these images, ascending.
        live: What became of the network's export; None: it was not tried.
    """
    how, options = content.survey.preprocessing, content.options
    outputs = content.outputs
    sums = outputs.astype(np.float64).sum(1)
    places = {} if live is None else live.places
    return {
        "ready": live is not None and not live.reason,
        "preprocessing": {
            "height": how.height,
            "width": how.width,
            "interpolation": how.interpolation,
            "crop": how.crop,
            "channels": how.channels,
            "upright": _upright_first(),
        },
        "suffix": options.suffix,
        "probabilities": bool((outputs >= 0).all() and np.allclose(sums, 1, atol=1e-4)),
        "classes": [content.class_name(unit) for unit in range(outputs.shape[1])],
        "layers": [_layer(content, name, places.get(name)) for name in [*content.layers, OUTPUT]],
        "photographs": options.photographs,
        "images": [[image, stem(content.survey.names[row := content.survey.row(image)]), content.label_of(row)] for image in shown],
    }


def _upright_first() -> bool:
    """Whether this version of Pillow resizes an image along y first where that becomes much shorter, as it does from version 13 on."""
    rough = (np.arange(48 * 16 * 3, dtype=np.uint64) * 2654435761 >> 16).astype(np.uint8)
    tall = Pillow.fromarray(rough.reshape(48, 16, 3))
    steps = tall.resize((16, 16), Pillow.Resampling.BICUBIC).resize((20, 16), Pillow.Resampling.BICUBIC)
    return tall.resize((20, 16), Pillow.Resampling.BICUBIC).tobytes() == steps.tobytes()


def _layer(content: Content, name: str, place: Sequence[float] | None) -> dict[str, Any]:
    layer, table = content.survey.layer(name), content.layer(name)
    return {
        "name": name,
        "address": addresses.encode(name),
        "channels": layer.channels,
        "size": [layer.height, layer.width],
        "place": None if place is None else list(place),
        "units": list(content.options.units.get(name, ())),
        "mean": [_short(value) for value in table.column("mean").tolist()],
        "sd": [_short(value) for value in table.column("sd").tolist()],
    }


def near_script(content: Content, name: str, rows: list[int]) -> str:
    """The images of the folder by a layer's units: log mean activation in standard deviations, one byte each.

    The bytes are: the average of log(1 + |mean|) with its sign over the images, (unit) float32; its standard deviation, (unit) float32, 0
    for a unit that never varies; and, for each image, deviations from the average in steps of 1/32, (n unit) int8.
    """
    means = content.layer(name).means.astype(np.float64)
    values = np.sign(means) * np.log1p(np.abs(means))
    centre, spread = values.mean(0), values.std(0)
    spread[spread < 1e-9] = 0
    deviations = np.divide(values[rows] - centre, spread, out=np.zeros((len(rows), values.shape[1])), where=spread > 0)
    steps = np.rint(np.clip(deviations, -_REACH, _REACH) * _STEPS).astype(np.int8)
    data = centre.astype("<f4").tobytes() + spread.astype("<f4").tobytes() + steps.tobytes()
    return embedded(f"near:{name}", packed(data))


def near_address(name: str) -> str:
    """The script of :func:`near_script`."""
    return f"live/near/{addresses.encode(name)}.js"


def _short(value: float) -> float:
    return float(f"{value:.5g}")
