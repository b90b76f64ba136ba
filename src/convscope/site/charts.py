"""The charts that pages have beside those of results: histograms with marks, receptive fields, maps laid over an image."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image as Pillow

from convscope.render import charts, layout
from convscope.render.markup import Markup, element
from convscope.render.panels import Curves, Line, number

_BINS, _HEIGHT = 40, 100
_MOST_BARS, _ROWS = 128, 100


def histogram(values: np.ndarray, marked: np.ndarray, of: str) -> Markup:
    """How many images have which value, with ticks below at some of them.

    Args:
        values: (n) finite.
        marked: Values that get a tick.
        of: What is counted, for the alternative text.
    """
    low, high = min(float(values.min()), 0.0), float(values.max())
    high = high if high > low else low + 1.0
    counts, _ = np.histogram(values, _BINS, (low, high))
    most = max(int(counts.max()), 1)
    # the root of the count: a few strong images are seen beside hundreds of weak ones
    tops = np.rint(_HEIGHT * (1 - np.sqrt(counts / most))).astype(int)
    bars = "".join(f"M{place} {_HEIGHT}V{top}" for place, top in enumerate(tops.tolist()) if top < _HEIGHT)
    ticks = "".join(f"M{(value - low) / (high - low) * _BINS - 0.5:.1f} 0V{_HEIGHT}" for value in marked.tolist())
    words = f"Histogram: {of} of {len(values)} images, from {number(low)} to {number(high)}; "
    words += f"most in one of {_BINS} bins: {most}."
    drawn = [element("path", d=ticks, class_="cs-marks"), element("path", d=bars, class_="cs-bars")]
    kind = {"class_": "cs-histogram", "role": "img", "preserveAspectRatio": "none"}
    body = element("svg", *drawn, viewBox=f"-0.5 0 {_BINS} {_HEIGHT}", aria_label=words, **kind)
    marks = tuple(((value - low) / (high - low), number(value)) for value in layout.ticks(low, high, 4))
    return charts.framed(body, charts.Axis(marks, of))


def roc(scores: Sequence[np.ndarray], positive: np.ndarray, names: Sequence[str]) -> Markup:
    """Share of the positives above each threshold over the share of the others, a curve for each row of scores; (n) each."""
    lines: list[Line] = []
    for color, (name, each) in enumerate(zip(names, scores, strict=True)):
        levels = np.unique(each)[::-1]
        hits, alarms = ((group >= levels[:, None]).mean(1) for group in (each[positive], each[~positive]))
        lines.append(Line(name, np.concatenate([[0.0], alarms]), np.concatenate([[0.0], hits]), color))
    return charts.curves(Curves(tuple(lines), "", "share of false alarms", "share found", limits=(0, 1, 0, 1), diagonal=True))


def spectrum(values: np.ndarray) -> Markup:
    """Mean activations of a layer's units as bars from zero; of many units, neighbours share a bar and the larger is drawn."""
    step = -(-len(values) // _MOST_BARS)
    padded = np.concatenate([values, np.full(-len(values) % step, values.min())])
    bars = padded.reshape(-1, step)
    bars = np.where(np.abs(bars.max(1)) >= np.abs(bars.min(1)), bars.max(1), bars.min(1))
    low, high = min(float(bars.min()), 0.0), max(float(bars.max()), 0.0)
    tops = np.rint(_ROWS * (high - bars) / ((high - low) or 1.0)).astype(int)
    zero = round(_ROWS * high / ((high - low) or 1.0))
    outline = "h1V".join(map(str, tops.tolist()))  # one line over all bars: short, and a site has thousands of these
    words = f"Mean activations of {len(values)} units, from {number(float(values.min()))} to {number(float(values.max()))}."
    kind = {"class_": "at-spectrum", "role": "img", "preserveAspectRatio": "none"}
    drawn = element("path", d=f"M0 {zero}V{outline}h1V{zero}z")
    return element("svg", drawn, viewBox=f"0 0 {len(bars)} {_ROWS}", aria_label=words, **kind)


def field(height: int, width: int, box: tuple[int, int, int, int]) -> Markup:
    """A receptive field inside the image, to scale."""
    y0, x0, y1, x1 = box
    frame = element("rect", x=0, y=0, width=width, height=height, class_="at-sheet")
    inner = element("rect", x=x0, y=y0, width=max(x1 - x0, 1), height=max(y1 - y0, 1), class_="at-field")
    words = f"Receptive field: {y1 - y0} x {x1 - x0} of {height} x {width} pixels"
    return element("svg", frame, inner, viewBox=f"0 0 {width} {height}", class_="at-rf", role="img", aria_label=words)


def overlay(values: np.ndarray, place: Sequence[float], size: tuple[int, int]) -> dict[str, str]:
    """A map (h w) uint8 to be laid over a photograph: the address of a small image whose transparency is the map, and its style.

    Args:
        values: The map; 255 is clear.
        place: Where it lies: y0, x0, y1, x1 in pixels. Its border cells go on for one more, so that the whole photograph is covered.
        size: Height and width of the photograph.
    """
    (y0, x0, y1, x1), (height, width) = place, values.shape
    down, across = (y1 - y0) / height, (x1 - x0) / width
    box = {"top": (y0 - down) / size[0], "left": (x0 - across) / size[1]}
    box |= {"height": (y1 - y0 + 2 * down) / size[0], "width": (x1 - x0 + 2 * across) / size[1]}
    address = _address(np.broadcast_to((18, 18, 24), (height + 2, width + 2, 3)), np.pad(255 - values, 1, mode="edge"))
    return {"overlay": address, "style": ";".join(f"{name}:{100 * value:.4g}%" for name, value in box.items())}


def signed_overlay(values: np.ndarray) -> str:
    """The address of a map (h w) int8 that covers a photograph evenly: orange above zero, blue below, clear where it is zero."""
    color = np.where(values[..., None] > 0, (255, 106, 0), (0, 110, 255))
    return _address(color, np.rint(np.abs(values.astype(np.int16)) * (220 / 127)))


def _address(color: np.ndarray, alpha: np.ndarray) -> str:
    image = np.concatenate([color, alpha[..., None]], -1).astype(np.uint8)
    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
