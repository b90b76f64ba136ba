"""What is learned of a network before it is used: its layers in call order, its graph, and how it treats the images of a batch.

One forward on one image is recorded. Two others, on this image and another, tell which axis of each layer's value counts the images, and
whether an image's values are the same alone and in a batch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from convscope.errors import BadInput, ConvscopeError
from convscope.graph.graph import Graph, Recorder
from convscope.graph.layout import Axes, axes_of, conventional, layout_of
from convscope.names import OUTPUT
from convscope.scope.generators import Generators, States
from convscope.scope.layers import Layer, Layers
from convscope.scope.outputs import described, floating, is_value, prediction_in, tensor_in, version_of
from convscope.scope.precision import wide
from convscope.text import one_line

_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-4}
_COARSE = 0.05
"""Largest difference that counts as rounding, as a share of a layer's largest value; on a GPU, and in half precision, the coarse one."""
_NUDGE, _AMPLIFIED = 1e-5, 30
"""A layer that makes much of a small change of the image makes as much of rounding: so many times that much is allowed as well."""
_OTHER_DIMENSIONS = (nn.Conv3d, nn.ConvTranspose3d)
"""Modules that take a batch of images for a single volume."""
_TINY = 1e-3
"""Layers whose largest value is below this are compared as if it were this."""

Key = tuple[int, int]
"""A call of a module: its id, and how many calls came before."""


@dataclass(frozen=True)
class Batching:
    """How a network treats the images of a batch.

    Attributes:
        axes: For each call of each module, (id, call): the axis of its value that counts the images; None: no single one does.
        alone: Why images are run one at a time; "" if they need not be.
        random: Whether the network draws at random in evaluation mode.
        in_order: Whether it rests on values that lie in memory in the order of their axes, as ``view(-1, 400)`` does.
    """

    axes: Mapping[Key, int | None] = field(default_factory=dict[Key, int | None])
    alone: str = ""
    random: bool = False
    in_order: bool = False


@dataclass(frozen=True)
class Recording:
    """What is known of a network.

    Attributes:
        layers: Its layers in call order.
        graph: Its operations.
        batching: How it treats the images of a batch.
    """

    layers: Layers
    graph: Graph
    batching: Batching


@dataclass
class _Call:
    """One call of one module on one image: its layer, its value, and whether that was changed later."""

    layer: Layer
    value: Tensor
    version: int

    @property
    def overwritten(self) -> bool:
        return version_of(self.value) != self.version

    @property
    def key(self) -> Key:
        return id(self.layer.module), self.layer.call


def record(model: nn.Module, images: Tensor, generators: Generators, *, output: str | None, known: Batching | None) -> Recording:
    """Records a network.

    Containers are layers as well: ``features`` has the value of its last child.

    Args:
        model: The network, in the state in which it is to be run.
        images: Three images, (3 c h w), normalized: the second brighter and of more contrast than the first, the third the opposite.
        generators: Whatever it may draw from; its state afterwards is not what it was.
        output: The part of what the network returns that is its prediction, see :func:`~convscope.scope.outputs.prediction_in`.
        known: How it treats batches, where that was found out before.

    Raises:
        BadInput: The network cannot be run on an image of this shape, or returns no such part.
    """
    names = {id(module): name for name, module in model.named_modules()}
    scripted = {name for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)}
    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    before, weights = generators.states(), {id(parameter) for parameter in model.parameters()}
    with _memory_order() as order:
        found, calls, returned, graph = _record_one(model, modules, names, images[:1].clone(), output)  # a network may overwrite its input
    if known is None:
        known = _batching(model, modules, images, found, generators, before)
        known = replace(known, in_order=order.relied_on(model, images[:1] if known.alone else images[:2]))
    batching = known
    if made := [name for name, parameter in model.named_parameters() if id(parameter) not in weights]:
        raise BadInput(f"the network makes weights in its first forward ({', '.join(made[:3])}): run it on an image once, and then open it")
    axes = axes_of(graph)
    layers: list[Layer] = []
    for one in found:
        layer, axis = one.layer, batching.axes.get(one.key, _only_one(one.value.shape))
        several = calls[id(layer.module)] > 1
        layers.append(
            replace(
                _laid_out(layer, one.value, axis, axes),
                name=f"{layer.name}:{layer.call}" if several and layer.name != OUTPUT else layer.name,
                overwritten=one.overwritten,
            )
        )
    read = {id(one.layer.module) for one in found}
    idle = {
        name: "its value, of one image, is no (n c ...) tensor of numbers"
        if calls.get(module)
        else "its forward pass does not run it in evaluation mode"
        for module, name in names.items()
        if name and module not in read
    }
    idle |= dict.fromkeys(scripted, "it is scripted, so that its values cannot be read")
    if all(layer.name != OUTPUT for layer in layers):
        several = "" if isinstance(returned, Tensor) else "; name a part, as Scope(..., output=NAME)"
        idle[OUTPUT] = f"none of what it returned of one image is clearly its prediction, (1 c ...): {described(returned)}{several}"
    return Recording(Layers(layers, idle, graph), graph, batching)


def _record_one(
    model: nn.Module, modules: Sequence[nn.Module], names: Mapping[int, str], image: Tensor, output: str | None
) -> tuple[list[_Call], dict[int, int], Any, Graph]:
    """One forward on one image: the calls whose values can be layers, the number of calls of each module, what was returned, the graph."""
    calls: dict[int, int] = defaultdict(int)
    begun: dict[int, list[tuple[int, int | None]]] = defaultdict(list)
    inside: list[nn.Module] = []
    found: list[_Call] = []
    recorder = Recorder(image)

    def begin(module: nn.Module, arguments: Any) -> None:
        source = tensor_in(arguments)
        begun[id(module)].append((len(recorder.nodes), None if source is None else recorder.node_of(source)))
        inside.append(module)
        if isinstance(module, _OTHER_DIMENSIONS) and arguments and getattr(arguments[0], "ndim", 0) == 4:
            raise BadInput("a volume is expected there, not a batch of images")

    def keep(module: nn.Module, arguments: Any, returned: Any) -> None:
        call = calls[id(module)]
        calls[id(module)] += 1
        first, entered = begun[id(module)].pop()
        inside.pop()
        part, value = None, tensor_in(returned)
        if module is model:
            part, value = prediction_in(returned, output) or ("", None)
        if value is None or not is_value(value):
            return
        source = tensor_in(arguments)
        layer = Layer(
            name=names[id(module)] or OUTPUT,
            kind=type(module).__name__,
            shape=tuple(value.shape[1:]),
            channel_axis=0,
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            macs=sum(one.macs for one in recorder.nodes[first:]),
            position=len(found),
            node=(node := recorder.node_of(value)),
            call=call,
            overwritten=False,
            pointwise=source is not None and source.shape == value.shape,
            of_input=False,
            passes=node is not None and node == entered,
            module=module,
            part=part or None,
        )
        found.append(_Call(layer, value, version_of(value)))

    handles = [module.register_forward_pre_hook(begin) for module in modules]
    handles += [module.register_forward_hook(keep) for module in modules]
    try:
        with torch.no_grad(), recorder, _told(names, inside, image):
            returned = model(image)
    finally:
        for handle in handles:
            handle.remove()
    return found, calls, returned, recorder.graph()


class _memory_order(TorchFunctionMode):
    """Notes calls whose result may rest on how a value lies in memory: passes are faster on images whose channels lie side by side."""

    _ASK = frozenset([Tensor.view, Tensor.view_as, Tensor.stride, Tensor.is_contiguous])
    _READ = frozenset([Tensor.as_strided, torch.as_strided, torch.as_strided_copy])

    def __init__(self) -> None:
        super().__init__()
        self.asked = self.read = False

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        self.asked |= func in self._ASK
        self.read |= func in self._READ
        return func(*args, **(kwargs or {}))

    def relied_on(self, model: nn.Module, images: Tensor) -> bool:
        """Whether the network that made these calls needs its values in order: tried, where one of them may fail."""
        if self.read or not self.asked:
            return self.read
        try:
            with torch.no_grad():
                model(images.clone(memory_format=torch.channels_last))
        except (Exception, SystemExit):
            return True
        return False


@contextmanager
def _told(names: Mapping[int, str], inside: Sequence[nn.Module], image: Tensor) -> Generator[None]:
    """Turns whatever a network raises into one line that names the layer and the shape."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, ConvscopeError) and not inside:
            raise
        where = ""
        if inside and names[id(inside[-1])]:
            where = f" in layer {names[id(inside[-1])]} ({type(inside[-1]).__name__})"
        reason = error.message if isinstance(error, ConvscopeError) else _named(error)
        tried = f"the network does not run on one image {tuple(image.shape)}, the size of its Inputs: it fails{where}"
        raise BadInput(f"{tried}: {reason}") from error


def _named(error: BaseException) -> str:
    """Type and message of an exception on one line."""
    return f"{type(error).__name__}: {one_line(error, 200)}" if str(error) else type(error).__name__


def _laid_out(layer: Layer, value: Tensor, axis: int | None, axes: Sequence[Axes]) -> Layer:
    """A layer with its axes, where `axis` of its value counts the images."""
    batch = axis or 0
    shape = tuple(length for own, length in enumerate(value.shape) if own != batch)
    laid = replace(layer, shape=shape, batch_axis=axis, channel_axis=0)
    if len(shape) < 2:
        return laid
    own = None if layer.node is None else axes[layer.node]
    layout = None if own is None else layout_of(own, batch)
    if layout is None:
        return replace(laid, unclear=len(shape) != 3 or not conventional(own, batch))
    laid = replace(laid, channel_axis=layout.channel_axis - (layout.channel_axis > batch))
    return laid if len(shape) > 2 else replace(laid, grid=layout.grid, prefix=layout.offset)


def _only_one(shape: Sequence[int]) -> int | None:
    """The axis of a value of one image that counts images, where no batch has told: the first, or else the only one, that is 1 long."""
    ones = [axis for axis, length in enumerate(shape) if length == 1]
    return ones[0] if ones and (ones[0] == 0 or len(ones) == 1) else None


def _batching(
    model: nn.Module, modules: Sequence[nn.Module], images: Tensor, found: Sequence[_Call], generators: Generators, before: States
) -> Batching:
    """Runs the first image with each of the others, and compares it with what it was alone.

    It comes last in one pair and first in the other; what is taken over both, such as a largest value, is its own in one at most.
    """
    alone = {one.key: one for one in found}
    axes: dict[Key, int | None] = {}
    gaps: dict[str, float] = {}

    def one_at_a_time(why: str) -> Batching:
        return Batching({key: axis for key, axis in axes.items() if axis is not None}, why, generators.moved(before))

    try:
        for pair, place in ((images[[1, 0]], 1), (images[[0, 2]], 0)):
            axes, found_there = _compared(model, modules, pair, alone, place)
            gaps = {name: max(gap, gaps.get(name, 0.0)) for name, gap in found_there.items()}
    except (Exception, SystemExit) as error:
        return one_at_a_time(f"it fails on two images at once ({_named(error)})")
    if generators.moved(before):
        return one_at_a_time("it draws at random in evaluation mode")
    if axes.keys() != alone.keys():
        return one_at_a_time("it runs other layers for two images than for one")
    for one in found:  # of one image alone, such a value is that image's own
        if one.layer.node is not None and one.value.shape[0] == 1 and axes[one.key] is None:
            return one_at_a_time(f"layer {one.layer.name} joins the images of a batch")
    allowed = dict.fromkeys(gaps, _ROUNDING.get(images.dtype, _COARSE) if images.device.type == "cpu" else _COARSE)
    if _beyond(gaps, allowed) is None:
        return Batching(axes)
    _, same = _compared(model, modules, images[:1], alone, 0)
    if _beyond(same, allowed) is not None:
        return one_at_a_time("its values are others each time it runs")
    _, nudged = _compared(model, modules, images[:1] * (1 + _NUDGE), alone, 0)  # how much a layer makes of rounding
    differing = _beyond(gaps, {name: max(share, _AMPLIFIED * nudged[name]) for name, share in allowed.items() if name in nudged})
    return Batching(axes) if differing is None else one_at_a_time(f"images influence each other, first in layer {differing}")


def _compared(
    model: nn.Module, modules: Sequence[nn.Module], images: Tensor, alone: Mapping[Key, _Call], place: int
) -> tuple[dict[Key, int | None], dict[str, float]]:
    """Runs the network again, and compares the image at a place with one that was alone.

    Returns:
        For each call of a layer, the axis that counts the images; a call that does not belong to one of the layers is listed, too. For
        layers that have such an axis, the largest difference as a share of the largest value, in call order.
    """
    calls: dict[int, int] = defaultdict(int)
    axes: dict[Key, int | None] = {}
    gaps: dict[str, Tensor] = {}

    def compare(module: nn.Module, _arguments: Any, returned: Any) -> None:
        key = id(module), calls[id(module)]
        calls[id(module)] += 1
        one = alone.get(key)
        value = tensor_in(returned, None if one is None else one.layer.part)
        if one is None or value is None:
            if is_value(value) or one is not None:
                axes[key] = None
            return
        axis = axes[key] = _counting_axis(one.value.shape, value.shape, len(images))
        if axis is not None and not one.overwritten and value.numel():
            gaps[one.layer.name] = _gap(one.value.select(axis, 0), value.select(axis, place))

    handles = [module.register_forward_hook(compare) for module in modules]
    try:
        with torch.no_grad():
            model(images.clone())
    finally:
        for handle in handles:
            handle.remove()
    return axes, dict(zip(gaps, torch.stack(list(gaps.values())).tolist(), strict=True)) if gaps else {}


def _counting_axis(one: Sequence[int], several: Sequence[int], count: int) -> int | None:
    """The axis that is 1 long for one image and `count` long for several, if it alone differs; of one image, any axis that is 1 long."""
    if count == 1:
        return next((axis for axis, length in enumerate(one) if length == 1), None) if one == several else None
    if len(one) != len(several):
        return None
    differing = [(axis, pair) for axis, pair in enumerate(zip(one, several, strict=True)) if pair[0] != pair[1]]
    return differing[0][0] if len(differing) == 1 and differing[0][1] == (1, count) else None


def _gap(one: Tensor, other: Tensor) -> Tensor:
    """Largest difference as a share of the largest value."""
    one, other = wide(floating(one)), wide(floating(other))
    gap, largest = (torch.stack(torch.aminmax(values)).abs().max() for values in (one - other, one))  # one pass over memory each
    return (gap / largest.clamp(min=_TINY)).double()


def _beyond(gaps: Mapping[str, float], allowed: Mapping[str, float]) -> str | None:
    """The first layer whose difference is more than is allowed; where that is NaN, values overflow and tell nothing."""
    return next((name for name, gap in gaps.items() if gap > allowed.get(name, math.inf)), None)
