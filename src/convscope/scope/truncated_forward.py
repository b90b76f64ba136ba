"""A truncated forward pass that captures the values of layers and ends at the deepest of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from convscope.errors import BadInput, NotReached
from convscope.scope.layers import Layer
from convscope.scope.outputs import floating, tensor_in, version_of
from convscope.scope.sizes import OtherCount


class _Reached(BaseException):
    """Ends the forward. Not an Exception, so that a network's own `except Exception` does not catch it."""


def forward_until(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[Layer],
    take: Callable[[Layer, Tensor], Any] | None = None,
    *,
    whole: bool = False,
) -> dict[str, Any]:
    """The values of layers in one forward, which ends after the last of them in call order.

    A value is what the layer computed, with the axis that counts the images in front. Where later code is known to overwrite it in place,
    the network continues with a copy.

    Args:
        model: The network, in the state in which it is to be run.
        images: Network input, (n c h w), normalized.
        layers: The layers wanted.
        take: Called with a layer and its value as soon as it is computed; its result is returned in place of the value.
        whole: Whether the forward goes on to its end: tracers lose their place when it does not.

    Returns:
        {layer name: tensor (n ...), attached to the autograd graph if there is one, or what `take` returned}.

    Raises:
        NotReached: The forward ended without running a layer.
        BadInput: A layer's value was overwritten in place, or does not count the images, by code that behaves differently from the recorded
            forward.
    """
    wanted: dict[tuple[int, int], list[Layer]] = {}
    for layer in layers:
        wanted.setdefault((id(layer.module), layer.call), []).append(layer)
    last = max(layers, key=lambda layer: layer.position)
    calls: dict[int, int] = {}
    captured: dict[str, tuple[Any, int]] = {}

    def capture(module: nn.Module, arguments: Any, output: Any) -> Tensor | None:
        call = calls.get(id(module), 0)
        calls[id(module)] = call + 1
        passed_on = None
        for layer in wanted.get((id(module), call), ()):
            found = tensor_in(arguments) if layer.of_input else tensor_in(output, layer.part)
            if found is None:
                raise NotReached(f"layer {layer.name} returned no such tensor this time but {type(output).__name__}")
            value = floating(found.movedim(layer.batch_axis, 0) if layer.batch_axis else found)
            if not whole and len(value) != len(images):
                raise OtherCount(f"layer {layer.name}: its value is of {len(value)} images where {len(images)} were given")
            if take is not None:
                captured[layer.name] = take(layer, value), 0
                continue
            captured[layer.name] = value, version_of(value)
            if layer.overwritten and output is found:
                passed_on = found.clone()
        if call == last.call and module is last.module and not whole:
            raise _Reached
        return passed_on

    handles = [module.register_forward_hook(capture) for module in {id(layer.module): layer.module for layer in layers}.values()]
    try:
        model(images)
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    for layer in layers:
        if layer.name not in captured:
            raise NotReached(f"the forward pass did not run layer {layer.name} on input {tuple(images.shape)}")
        value, version = captured[layer.name]
        if take is None and version_of(value) != version:
            raise BadInput(f"layer {layer.name}: its value was overwritten in place later in the forward pass")
    values = {layer.name: captured[layer.name][0] for layer in layers}
    return {name: value.clone() if take is None and value.is_inference() else value for name, value in values.items()}
