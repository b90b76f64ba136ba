"""One forward pass that keeps the values asked for and goes no further than the deepest of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from convscope.errors import BadInput, NotReached
from convscope.scope.layers import Layer, first_tensor


class _Reached(BaseException):
    """Ends the forward. Not an Exception, so that a network's own `except Exception` does not swallow it."""


def forward_until(
    model: nn.Module, images: Tensor, layers: Sequence[Layer], take: Callable[[Layer, Tensor], Any] | None = None
) -> dict[str, Any]:
    """Runs `model` on `images` and returns the values of `layers`, stopping after the last of them in call order.

    A value is what the layer produced. Where later code is known to overwrite it in place, the network goes on with a copy.

    Args:
        model: The network, in the state it is to be run in.
        images: Network input, (n 3 h w), normalized.
        layers: The layers to keep.
        take: Called with a layer and its value as soon as it is there; what it returns is kept instead of the value.

    Returns:
        {layer name: tensor (n ...), attached to the autograd graph if there is one, or what `take` returned}.

    Raises:
        NotReached: The forward ended without coming to a layer.
        BadInput: A layer's value was overwritten after all (by code that behaves differently from the recorded forward).
    """
    wanted: dict[tuple[int, int], list[Layer]] = {}
    for layer in layers:
        wanted.setdefault((id(layer.module), layer.call), []).append(layer)
    last = max(layers, key=lambda layer: layer.position)
    calls: dict[int, int] = {}
    kept: dict[str, tuple[Any, int]] = {}

    def keep(module: nn.Module, arguments: Any, output: Any) -> Tensor | None:
        call = calls.get(id(module), 0)
        calls[id(module)] = call + 1
        passed_on = None
        for layer in wanted.get((id(module), call), ()):
            value = first_tensor(arguments if layer.of_input else output)
            if value is None:
                raise NotReached(f"layer {layer.name} gave no tensor this time but {type(output).__name__}")
            if take is not None:
                kept[layer.name] = take(layer, value), 0
                continue
            kept[layer.name] = value, value._version
            if layer.overwritten and output is value:
                passed_on = value.clone()
        if call == last.call and module is last.module:
            raise _Reached
        return passed_on

    handles = [module.register_forward_hook(keep) for module in {id(layer.module): layer.module for layer in layers}.values()]
    try:
        model(images)
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    for layer in layers:
        if layer.name not in kept:
            raise NotReached(f"the forward pass never came to layer {layer.name} on input {tuple(images.shape)}")
        value, version = kept[layer.name]
        if take is None and value._version != version:
            raise BadInput(f"layer {layer.name}: its value was overwritten in place later in the forward pass")
    return {layer.name: kept[layer.name][0] for layer in layers}
