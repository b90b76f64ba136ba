"""Style layers: those at which images and styles are customarily compared, found by depth instead of by name."""

from __future__ import annotations

from collections.abc import Sequence

from convscope.errors import BadInput
from convscope.names import OUTPUT
from convscope.scope import Layer, Layers

DEPTHS = 5


def trunk(layers: Layers) -> list[Layer]:
    """The layers with rectified maps, in call order: the ReLUs of a plain network, the whole blocks (residual, fire, ...) of others.

    Args:
        layers: The network's layers.
    """
    found: dict[str, Layer] = {}
    for name in layers.after_relu():
        words = name.partition(":")[0].split(".")
        above = (".".join(words[:count]) for count in range(1, len(words)))
        block = next((layers[one] for one in above if one in layers and _is_block(layers[one])), layers[name])
        if len(block.spatial) == 2 and min(block.spatial) > 1 and not (OUTPUT in layers and block.channels == layers[OUTPUT].channels):
            found[block.name] = block
    return sorted(found.values(), key=lambda layer: layer.position)


def _is_block(layer: Layer) -> bool:
    return layer.kind not in ("Sequential", "ModuleList") and layer.name != OUTPUT and len(layer.spatial) == 2


def style_depths(layers: Layers) -> list[str]:
    """Five layers from shallow to deep: the first of each resolution; with fewer resolutions, also the middle of the longest.

    VGG's relu1_1, relu2_1, ... relu5_1; ResNet's relu, layer1.0, ... layer4.0; SqueezeNet's features.1, 3, 7, 9, 12.

    Raises:
        BadInput: No layer of the network has rectified maps.
    """
    along = trunk(layers)
    if not along:
        raise BadInput("no layer of this network has rectified maps; name the style layers")
    starts = [place for place, layer in enumerate(along) if place == 0 or layer.spatial != along[place - 1].spatial][:DEPTHS]
    while len(starts) < min(DEPTHS, len(along)):
        ends = [*starts[1:], len(along)]
        length, start = max((end - start, -start) for start, end in zip(starts, ends, strict=True))
        starts = sorted([*starts, -start + length // 2])
    return [along[place].name for place in starts]


def layer_after(layers: Layers, names: Sequence[str], depth: int) -> str:
    """The layer that follows the `depth`-th of `names` in the network (VGG's relu2_2 for depth 2), or the last one."""
    along = [layer.name for layer in trunk(layers)]
    place = along.index(names[min(depth, len(names)) - 1]) + 1
    return along[min(place, len(along) - 1)]


def find_style_layers(layers: Layers, asked: str | Sequence[str] | None) -> tuple[str, ...]:
    """The layers asked for, or those of :func:`style_depths`.

    Raises:
        LayerNotFound: Unknown layer.
        BadInput: A layer without maps, or none at all.
    """
    names = style_depths(layers) if asked is None else [asked] if isinstance(asked, str) else list(asked)
    if not names:
        raise BadInput("no style layer asked for")
    for name in names:
        if len(layers[name].spatial) != 2:
            raise BadInput(f"layer {name} has no maps: its value is {layers[name].shape}")
    return tuple(dict.fromkeys(names))
