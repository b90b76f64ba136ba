"""A colour-decorrelated Fourier image: every frequency and every natural colour direction is equally easy to change."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from convscope.errors import BadInput
from convscope.optimize.parameterizations.sigmoid import sigmoid_of_each
from convscope.scope import Inputs

# Square root of the colour covariance of ImageNet pixels, as published with Lucid; columns are the decorrelated axes.
COLOR_CORRELATION = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))

_BANDS = 10


def color_matrix(dtype: torch.dtype = torch.float32) -> Tensor:
    """(3 3) matrix from decorrelated to RGB colours: COLOR_CORRELATION divided by its largest column norm."""
    matrix = torch.tensor(COLOR_CORRELATION, dtype=dtype, device="cpu")
    return matrix / matrix.norm(dim=0).max()


@dataclass(frozen=True)
class Fourier:
    """Parameters are the real and imaginary parts of the image's spectrum, (n c h w//2+1 2), scaled by 1/frequency.

    image = sigmoid(C irfft2(parameters * scale) / 4), with scale = sqrt(h w) / max(f, 1/max(h, w))^decay and C the colour matrix.
    Of images that are not RGB nothing is known of how their channels go together, so that C is the identity.

    Attributes:
        inputs: For the number of channels.
        start_range: (0, sd): the start is normal with this standard deviation.
        decay: Power of the frequency in the scale: 1 makes the spectrum of natural images equally easy to change, 0 that of white noise.

    Source:
        Olah, Mordvintsev, Schubert 2017 (distill.00007), as in Lucid's `param/spatial.py`; odd widths are inverted at their own
        width instead of being cropped.
    """

    inputs: Inputs
    start_range: tuple[float, float] = (0.0, 0.01)
    decay: float = 1.0

    def start(self, height: int, width: int, generators: list[Generator], dtype: torch.dtype = torch.float32) -> Tensor:
        shape = self.inputs.channel_count, height, width // 2 + 1, 2
        draws = [torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu") for generator in generators]
        return self.start_range[1] * torch.stack(draws).to(dtype)

    def image(self, parameters: Tensor, height: int, width: int) -> Tensor:
        scale = spectrum_scale(height, width, self.decay, parameters.dtype).to(parameters)
        pixels = torch.fft.irfft2(torch.view_as_complex(parameters) * scale, s=(height, width)) / 4
        if pixels.shape[1] == 3:
            pixels = torch.einsum("rc,nchw->nrhw", color_matrix(parameters.dtype).to(parameters), pixels)
        return sigmoid_of_each(pixels)

    def bands(self, height: int, width: int) -> Tensor:
        """Which band each pair of parameters belongs to, (c h w//2+1) from 0: ten of frequency, equally many octaves wide, a colour."""
        frequency = _frequency(height, width, torch.float32).clamp(min=1 / max(height, width))
        lowest, highest = frequency.min().log(), frequency.max().log()
        band = ((frequency.log() - lowest) / (highest - lowest).clamp(min=1e-6) * _BANDS).long().clamp(max=_BANDS - 1)
        return band + _BANDS * torch.arange(self.inputs.channel_count, dtype=torch.int64, device="cpu")[:, None, None]

    def enlarge(self, parameters: Tensor, side: int, blur: int | None) -> Tensor:  # noqa: ARG002
        raise BadInput("a Fourier image has one size from the start: use stages=1 with parameterization='fourier'")


def spectrum_scale(height: int, width: int, decay: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """(h w//2+1) factors that give a white spectrum the 1/f^decay fall of natural images: sqrt(h w) / max(f, 1/max(h, w))^decay."""
    return math.sqrt(height * width) / _frequency(height, width, dtype).clamp(min=1 / max(height, width)) ** decay


def _frequency(height: int, width: int, dtype: torch.dtype) -> Tensor:
    """(h w//2+1), in cycles per pixel."""
    down, across = (
        torch.fft.fftfreq(height, dtype=dtype, device="cpu"),
        torch.fft.rfftfreq(width, dtype=dtype, device="cpu"),
    )
    return torch.hypot(down[:, None], across[None, :])
