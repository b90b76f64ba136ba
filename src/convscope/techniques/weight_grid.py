"""Weights of a convolution as images: filters in colour, kernels one by one, or all of them as one array."""

from __future__ import annotations

from typing import Literal

import numpy as np

from convscope.errors import BadInput
from convscope.results.provenance import technique
from convscope.results.weight_grid import WeightGrid
from convscope.scope import Scope


@technique
def weight_grid(
    scope: Scope,
    layer: str,
    *,
    mode: Literal["rgb", "channels", "collated"] = "rgb",
    scale: Literal["auto", "tile", "zscore", "shared", "range"] = "auto",
) -> WeightGrid:
    """Weights of a convolution as images.

    Args:
        scope: The network.
        layer: A convolution.
        mode: "rgb": each filter as an image, for layers that read the image's three channels, its only one, or those that ``Inputs.rgb``
            names; "channels": each kernel on its own;
            "collated": all kernels as one array.
        scale: "tile": brightness 0.5 + w / (2 max |w|) over the tile (a filter in "rgb", else a kernel): zero is grey, nothing is clipped;
            tiles do not compare. "zscore": 0.5 + z, clipped to [0,1], z = (w - mean) / std over the tile, as in the article. "shared":
            as "tile" with the layer's largest |w|: tiles compare. "range": from the layer's smallest to its largest weight, as the
            article's collated plot. "auto": "shared" for "collated" and for kernels of a single weight, else "tile".

    Returns:
        The weights, their brightness, and `.collated()`; the article's own array is `.collated(article=True)`.

    Raises:
        LayerNotFound: Unknown layer.
        BadInput: The layer has no kernels, or "rgb" of a layer that does not read three channels.

    Source:
        Kumar, PadhAI (S1), `plot_weights`. Deviations: the default scale keeps zero grey and clips nothing; a tile of equal weights is
        grey, not 0/0; kernels lie as they are applied; one image instead of thousands of plots. First-layer filters look like edges and
        colours; that raw kernels of deep layers show faces, as S1 says, is not so: see :func:`~convscope.feature_visualization`.

    Example:
        >>> import convscope as cs
        >>> scope = cs.open("textures")
        >>> first = next(iter(scope.layers.of_kind("Conv2d")))
        >>> cs.weight_grid(scope, first).shown.shape[1]
        3

    Command line:
        convscope weight-grid textures features.0
        convscope weight-grid textures features.4 --mode collated
    """
    weights = scope.weights_of(layer).cpu().numpy()
    _, channels, height, width = weights.shape
    named = scope.inputs.rgb is not None and channels == scope.inputs.channel_count
    if mode == "rgb" and channels != 3 and not named and not (channels == 1 == scope.inputs.channel_count):
        raise BadInput(f'layer {layer}: its filters read {channels} channels, so they are no RGB images; use mode="channels"')
    used: str = scale
    if scale == "auto":
        used = "shared" if mode == "collated" or channels * height * width == 1 or (mode == "channels" and height * width == 1) else "tile"
    return WeightGrid(
        weights=weights,
        shown=brightness(weights, used, (1, 2, 3) if mode == "rgb" else (2, 3)),
        layer=layer,
        mode=mode,
        scale=used,
        groups=int(getattr(scope.layers[layer].module, "groups", 1)),
        manifest={"precision": str(weights.dtype)},
    )


def brightness(weights: np.ndarray, scale: str, tile: tuple[int, ...]) -> np.ndarray:
    """Brightness in [0,1] of weights (filter channel h w); see :class:`WeightGrid`.

    Args:
        weights: Any finite values.
        scale: "tile", "zscore", "shared" or "range".
        tile: The axes that a tile spans.
    """
    if scale == "zscore":
        mean, deviation = weights.mean(tile, keepdims=True), weights.std(tile, keepdims=True)
        flat = deviation <= 1e-6 * np.abs(weights).max(tile, keepdims=True)  # equal but for rounding
        return np.clip((weights - mean) / np.where(flat, 1, deviation) + 0.5, 0, 1)
    if scale == "range":
        low, high = weights.min(), weights.max()
        return (weights - low) / (high - low or 1)
    reach = np.abs(weights).max(tile if scale == "tile" else None, keepdims=True)
    return 0.5 + weights / (2 * np.where(reach > 0, reach, 1))
