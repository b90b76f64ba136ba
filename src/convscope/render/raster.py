"""An image in a figure, pixel for pixel. Imports matplotlib: import it only where something is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.transforms import Bbox
from PIL import Image as Pillow


class Raster(Artist):
    """Puts an array on a figure without resampling it, which matplotlib's own images do even at their own size.

    At the figure's own resolution every pixel stays what it is; at another one, pixels are repeated or averaged.
    """

    def __init__(self, pixels: np.ndarray, box: tuple[float, float, float, float]) -> None:
        """`pixels` is (h w 3) uint8, `box` x0 y0 x1 y1 in figure coordinates."""
        super().__init__()
        self.pixels = pixels
        self.box = Bbox.from_extents(*box)

    def draw(self, renderer: Any) -> None:
        """Called by matplotlib."""
        figure = self.get_figure(root=True)
        if figure is None or not self.get_visible():
            return
        box = figure.transFigure.transform_bbox(self.box)
        zoom = renderer.get_image_magnification()
        size = (max(round(box.width * zoom), 1), max(round(box.height * zoom), 1))
        pixels = self.pixels
        if size != (pixels.shape[1], pixels.shape[0]):
            smaller = size[0] < pixels.shape[1]
            resampling = Pillow.Resampling.BOX if smaller else Pillow.Resampling.NEAREST
            pixels = np.asarray(Pillow.fromarray(pixels).resize(size, resampling))
        opaque = np.full((*pixels.shape[:2], 4), 255, dtype=np.uint8)
        opaque[..., :3] = pixels[::-1]  # matplotlib draws from the bottom
        context = renderer.new_gc()
        renderer.draw_image(context, round(box.x0), round(box.y0), opaque)
        context.restore()
