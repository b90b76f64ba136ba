"""The strongest path into a unit: which units of the layers before it make up its value, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.results.base import to_array
from convscope.scope import Scope

Pull = Callable[[str, Tensor, Sequence[str]], dict[str, Tensor]]


@dataclass
class Path:
    """A path on one image, from the unit that was asked for down to the first layer.

    Attributes:
        units: The unit of each layer on the path.
        places: Its position (y, x): of the unit asked for the maximum, of the others where they contribute most.
        shares: What it contributes, as a share of the value of the next unit on the path; 1 for the unit asked for.
        contributions: For each layer on the path, the layers that its unit reads, and what each of their units contributes to it, (c).
    """

    units: dict[str, int] = field(default_factory=dict[str, int])
    places: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    shares: dict[str, float] = field(default_factory=dict[str, float])
    contributions: dict[str, dict[str, np.ndarray]] = field(default_factory=dict[str, dict[str, np.ndarray]])


def strongest_path(scope: Scope, image: Tensor, layers: Sequence[str], layer: str, unit: int, name: str) -> Path:
    """Follows a unit back through layers: at each, the unit that contributes most to the value of the one before.

    Contribution of unit c of layer A to a value v of a later layer: sum over positions of (dv/dA_c) * A_c, with the layers in between that
    are on the list held fixed, so that nothing is counted twice. Where only convolutions, sums and scalings lie in between, that is the sum
    over the kernel window of weight * activation. A ReLU and a maximum are linear on an image (they pass or they do not), so that
    contributions and biases still add up to v exactly. For other nonlinearities it is a first-order approximation.

    Args:
        scope: The network.
        image: (1 3 h w).
        layers: The layers that the path may go through, in call order.
        layer: The layer to begin at, one of them.
        unit: Its unit, at the position of its maximum.
        name: The image's name, for messages.

    Raises:
        BadInput: The unit is zero everywhere on the image.
    """
    before = list(layers[: layers.index(layer) + 1])
    values, pull = scope.layer_jacobian(image, before)
    maps = {each: scope.layers[each].channels_first(values[each])[0] for each in before}
    at = int(maps[layer][unit].argmax())
    path, width = Path(), maps[layer].shape[2]
    place = at // width, at % width
    if not maps[layer][unit].any():
        raise BadInput(f"unit {unit} of layer {layer} is zero everywhere on {name}: there is nothing to follow")
    path.units[layer], path.places[layer], path.shares[layer] = unit, place, 1.0
    while True:
        cotangent = torch.zeros_like(values[layer])
        scope.layers[layer].channels_first(cotangent)[0, unit, *place] = 1
        value = float(maps[layer][unit, *place])
        parts = {
            each: scope.layers[each].channels_first(slope)[0] * maps[each]
            for each, slope in _direct(scope, pull, before, layer, cotangent).items()
        }
        totals = {each: to_array(part.sum((1, 2))) for each, part in parts.items()}
        path.contributions[layer] = totals
        best = max(totals, key=lambda each: totals[each].max(), default=layer)
        if best == layer or totals[best].max() <= 0:  # the image is reached, or biases alone make up the value
            return path
        layer, unit = best, int(totals[best].argmax())
        at, width = int(parts[best][unit].argmax()), maps[best].shape[2]
        place = at // width, at % width
        path.units[layer], path.places[layer], path.shares[layer] = unit, place, float(totals[best][unit] / value)


def _direct(scope: Scope, pull: Pull, layers: Sequence[str], layer: str, cotangent: Tensor) -> dict[str, Tensor]:
    """Derivatives with respect to the layers that a layer reads directly, each with the others held fixed."""
    known = [scope.layers[each] for each in reversed(layers)]
    by_node = {each.node: each.name for each in known if each.node is not None and not each.of_input}
    own = scope.layers[layer].node
    nodes = [] if own is None else scope.graph.sources(own, by_node.keys() - {own})
    names = [by_node[node] for node in nodes]
    if not names:
        return {}
    slopes = pull(layer, cotangent, names)
    for place in range(len(names) - 1, 0, -1):  # what reaches an earlier layer through a later one belongs to the later one
        through = pull(names[place], slopes[names[place]], names[:place])
        for each in names[:place]:
            slopes[each] = slopes[each] - through[each]
    return slopes
