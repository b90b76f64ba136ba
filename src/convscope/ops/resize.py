"""Resizing and blurring: as OpenCV does them, so that the articles' figures can be made again without it, and antialiased."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from convscope.errors import BadInput


def cubic(images: Tensor, side: int) -> Tensor:
    """(n c h w) resized to (n c side side), bicubic with a = -0.75 and no antialiasing: equals cv2.INTER_CUBIC up to 3e-5."""
    return F.interpolate(images, size=(side, side), mode="bicubic", align_corners=False, antialias=False)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(n c h w) at another (height, width), bilinear and antialiased, differentiable; `images` itself where the size is its own."""
    if size == (images.shape[-2], images.shape[-1]):
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


def box_blur(images: Tensor, width: int) -> Tensor:
    """(n c h w) averaged over boxes of `width` pixels with reflected borders: equals cv2.blur, even widths included.

    Raises:
        BadInput: The box is not smaller than the image.
    """
    if not 1 <= width < min(images.shape[-2:]):
        raise BadInput(f"blur width must be 1 to {min(images.shape[-2:]) - 1} for images {tuple(images.shape)}, got {width}")
    before, after = width // 2, width - 1 - width // 2
    return F.avg_pool2d(F.pad(images, (before, after, before, after), mode="reflect"), width, stride=1)
