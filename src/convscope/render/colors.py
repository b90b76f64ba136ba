"""The colours of all views: one sequential and one diverging scale, both perceptually uniform, and a few named colours."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from convscope.render.panels import Heat, Signed

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

INK, FAINT, RULE, LEADER = "#1f2328", "#59636e", "#d0d7de", "#a8b1bb"
PLAIN, STRONG, ASKED, WARN = "#5b7ea6", "#c2410c", "#8b3fc4", "#b42318"
"""Bars and dots; what is emphasized; what was asked about; what went wrong (white text on it is legible)."""

CLASSES = ("#2563a8", "#c2410c", "#15803d", "#8b3fc4", "#b7791f", "#0e7490", "#be185d", "#4b5563")
"""Colours to tell groups apart, in this order."""

_MISSING = (0.6, 0.6, 0.6)
_BLUE, _RED = 255.0, 35.0


def oklab_to_srgb(lab: np.ndarray) -> np.ndarray:
    """OKLab (... 3) to sRGB (... 3) in [0,1] (Ottosson 2020), clipped to what a screen can show."""
    to_lms = np.array([[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]])
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ to_lms.T) ** 3 @ to_rgb.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _diverging(steps: int = 255) -> np.ndarray:
    """(steps 3) sRGB from blue over near-white to red, in equal steps of OKLab on either side."""
    position = np.linspace(-1, 1, steps)
    hue = np.deg2rad(np.where(position < 0, _BLUE, _RED))
    lightness, chroma = 0.97 - 0.52 * np.abs(position), 0.14 * np.abs(position)
    return oklab_to_srgb(np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1))


@lru_cache(maxsize=2)
def scale(signed: bool) -> Colormap:
    """The colour scale of a map; what is not finite is grey."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    colors = ListedColormap(_diverging(), name="convscope_signed") if signed else colormaps["viridis"]
    return colors.with_extremes(bad=_MISSING)


def table(name: Literal["heat", "signed", "grey"], steps: int) -> np.ndarray:
    """The colours of a scale from its lowest value to its highest, (steps 3) in [0,1]."""
    share = np.linspace(0, 1, steps)
    return np.repeat(share[:, None], 3, 1) if name == "grey" else np.asarray(scale(name == "signed")(share))[:, :3]


def colorize(panel: Heat) -> np.ndarray:
    """A map as an image (rgb h w) in [0,1], on the panel's own scale."""
    low, high = panel.range()
    values = np.ma.masked_invalid(np.asarray(panel.values, dtype=np.float64))
    colors = scale(isinstance(panel, Signed))((values - low) / (high - low))
    return np.moveaxis(np.asarray(colors)[..., :3], -1, 0)
