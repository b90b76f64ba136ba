"""The waist: everything in convscope that runs a network runs it through a Scope."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from convscope.errors import BadInput, asking
from convscope.fast.lean import lean_pass
from convscope.graph.bounds import Bounds, bounds_of
from convscope.graph.graph import Graph
from convscope.names import OUTPUT, Units, class_number, unit_numbers
from convscope.scope.edits import prepared
from convscope.scope.inputs import Images, Inputs
from convscope.scope.layers import Layer, Layers, record_layers
from convscope.scope.network import check_finite, out_of_memory, unwrapped, usable_device, weights_hash
from convscope.scope.precision import computing_in, own_modes, resolve_precision, wide
from convscope.scope.stop import forward_until

_T = TypeVar("_T")
_log = logging.getLogger("convscope")
_PIXELS_AT_ONCE = {"cpu": 8 * 224 * 224, "cuda": 128 * 224 * 224}
"""Larger batches are no faster per image (measured on 2 CPU cores) and only cost memory."""


class Scope:
    """A network under the microscope: its layers by name, their values, and a promise to leave it as it was.

    Every pass runs in evaluation mode with frozen parameters and nothing in place; afterwards the network is bit-identical, training
    flags, requires_grad, .grad, hooks and in-place flags included, also after an exception.

    Args:
        model: Any network that takes a normalized (n 3 h w) tensor.
        inputs: What it expects of its input; default 224 px, values in [0,1], no normalization.
        device: "auto" leaves the network where it is. A device other than that works on a copy there, and the original is not touched.
        precision: "float32", "bfloat16", or "auto": bfloat16 for what optimizes where the hardware is fast at it, else float32.
        name: How to call the network in receipts; a name that :func:`convscope.open` understands can be opened again from them.
        weights: Where its weights came from, for receipts.

    Attributes:
        forwards: Number of forward passes run so far (a batch counts once).

    Raises:
        BadInput: `model` is not a network that can be looked into (a scripted module, for example).
        BadWeights: A parameter or buffer holds NaN or infinity.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(inplace=True))
        >>> scope = Scope(network, Inputs(size=16))
        >>> scope.activations(torch.rand(2, 3, 16, 16), "0")["0"].shape
        torch.Size([2, 4, 14, 14])
    """

    subject: ClassVar[str] = "scope"

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs | None = None,
        *,
        device: str | torch.device = "auto",
        precision: Literal["auto", "float32", "bfloat16"] | str = "auto",
        name: str | None = None,
        weights: str | None = None,
    ) -> None:
        model = unwrapped(model)
        tensors = [*model.parameters(), *model.buffers()]
        here = tensors[0].device if tensors else torch.device("cpu")
        self.device = here if device == "auto" else usable_device(device)
        if self.device.type != here.type or (self.device.index is not None and self.device != here):
            model = copy.deepcopy(model).to(self.device)
        self.model = model
        self.inputs = inputs or Inputs()
        self.precision = precision
        self.dtype = next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), torch.float32)
        self.name = name or type(model).__name__
        self.weights = weights
        self.forwards = 0
        self._running_in: str | None = None
        self._lean: dict[object, lean_pass] | None = None
        self._lock = threading.RLock()
        resolve_precision(precision, self.device, "measure")
        self._hashed: tuple[object, str] | None = None
        self._bounded: tuple[object, list[Bounds | None]] | None = None
        check_finite(model, self.name)

    def entered(self) -> AbstractContextManager[Any]:
        """The state in which techniques work: the caller's ambient autocast and inference mode do not reach into it."""
        return own_modes(self.device)

    def __repr__(self) -> str:
        size = f"{self.inputs.height}x{self.inputs.width}"
        return f"Scope({self.name}, {size} px, {len(self.layers)} layers, {self.device}, {self.precision})"

    @property
    def layers(self) -> Layers:
        """All layers in call order, recorded on one forward at the network's own input size."""
        return self._recorded[0]

    @property
    def graph(self) -> Graph:
        """The network as a graph of tensor operations with spatial geometry, recorded with the layers."""
        return self._recorded[1]

    @cached_property
    def _recorded(self) -> tuple[Layers, Graph]:
        grey = torch.full((1, 3, self.inputs.height, self.inputs.width), 0.5, dtype=self.dtype, device=self.device)
        with self.session("float32"), asking(network=self.name):
            self.forwards += 1
            return record_layers(self.model, self.inputs.normalize(grey))

    @property
    def weights_hash(self) -> str:
        """First 16 hex digits of the SHA-256 over all parameters and buffers (names, types, shapes, values), as they are now."""
        state = tuple((tensor.data_ptr(), tensor._version) for tensor in [*self.model.parameters(), *self.model.buffers()])
        if self._hashed is None or self._hashed[0] != state:
            self._hashed = state, weights_hash(self.model)
        return self._hashed[1]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the outputs; numbers where no names are known."""
        count = self.layers[OUTPUT].channels
        names = tuple(self.inputs.classes or ())
        if names and len(names) != count:
            raise BadInput(f"Inputs.classes has {len(names)} names but the network has {count} outputs")
        return names or tuple(str(index) for index in range(count))

    def class_index(self, target: int | str) -> int:
        """The output unit meant by a class index or name.

        Raises:
            UnitNotFound: No such index.
            BadInput: No such name (near names are listed), or several.
        """
        return class_number(target, self.layers[OUTPUT].channels, self._known_classes)

    def units(self, layer: str, asked: Units) -> list[int]:
        """The unit numbers meant by a number, a list, a slice or None (all) on a layer; class names are understood on "output".

        Raises:
            UnitNotFound: The layer has no such unit, or none is asked for.
        """
        return unit_numbers(asked, layer, self.layers[layer].channels, self._known_classes if layer == OUTPUT else ())

    @property
    def _known_classes(self) -> tuple[str, ...]:
        return self.class_names if self.inputs.classes else ()

    def unit_labels(self, layer: str, units: Sequence[int]) -> tuple[str, ...]:
        """Names for the units of a layer: class names on the output, "" elsewhere."""
        if layer != OUTPUT or not self.inputs.classes:
            return ("",) * len(units)
        return tuple(self.class_names[unit] for unit in units)

    def weights_of(self, layer: str) -> Tensor:
        """A copy of a convolution's kernels, (filter channel h w), in float32 or wider; `channel` counts the inputs of its group.

        Raises:
            LayerNotFound: Unknown layer.
            BadInput: The layer is not a convolution; convolutions in it or near it are named.
        """
        known = self.layers[layer]
        if isinstance(known.module, nn.Conv2d):
            weights = known.module.weight.detach()
            return (weights.float() if weights.element_size() < 4 else weights).clone()
        convolutions = [other for other in self.layers.values() if isinstance(other.module, nn.Conv2d)]
        inside = [other.name for other in convolutions if layer == OUTPUT or other.name.startswith(f"{layer}.")]
        near = sorted(convolutions, key=lambda other: abs(other.position - known.position))
        names = ", ".join((inside or [other.name for other in near])[:4])
        hint = f"convolutions {'in' if inside else 'near'} it: {names}" if names else "this network has no convolution"
        raise BadInput(f"layer {layer} is a {known.kind}, which has no kernels to show; {hint}")

    def bounds(self, layers: Sequence[str]) -> dict[str, Bounds | None]:
        """What no picture with values in [0,1] can make the channels of layers exceed, by interval arithmetic; None where not known.

        Raises:
            LayerNotFound: A name is unknown.
        """
        wanted = {name: self.layers[name] for name in layers}
        exact = self.device.type == "cpu" and self.resolve("measure") == "float32"
        state = (exact, *((tensor.data_ptr(), tensor._version) for tensor in [*self.model.parameters(), *self.model.buffers()]))
        if self._bounded is None or self._bounded[0] != state:
            self._bounded = state, bounds_of(self.graph, self.inputs.mean, self.inputs.std, exact=exact)
        found = self._bounded[1]
        return {name: None if layer.node is None or layer.of_input else found[layer.node] for name, layer in wanted.items()}

    @contextmanager
    def session(self, precision: str | None = None, *, lean: bool = False) -> Generator[None]:
        """The state in which the network is run; reentrant. Long work enters it once, single calls enter it by themselves.

        Args:
            precision: "float32" or "bfloat16" for the passes inside; None keeps the surrounding session's, or resolves "auto".
            lean: Let :meth:`run` leave out what the wanted values do not need: the same values up to rounding, in less time.
        """
        with self._lock, ExitStack() as stack:
            outer, outer_lean = self._running_in, self._lean
            if outer is None:
                stack.enter_context(own_modes(self.device))
                stack.enter_context(prepared(self.model))
            self._running_in = precision or outer or self.resolve("measure")
            self._lean = {} if lean else outer_lean
            try:
                yield
            finally:
                self._running_in, self._lean = outer, outer_lean

    def _leaner(self, wanted: Sequence[Layer], units: Mapping[str, Sequence[int]]) -> lean_pass | None:
        """What a pass to these layers may leave out, where the session asks for it."""
        if self._lean is None:
            return None
        key = tuple(layer.name for layer in wanted), tuple((name, tuple(asked)) for name, asked in units.items())
        if key not in self._lean:
            self._lean.clear()  # the latest alone: each holds kernels of its own, and every batch of units asks for another
            nodes = {layer.name: layer.node for layer in wanted if layer.node is not None}
            some = {
                nodes[layer.name]: units[layer.name]
                for layer in wanted
                if layer.name in nodes.keys() & units.keys() and not layer.channel_axis
            }
            self._lean[key] = lean_pass(self.graph, set(nodes.values()), some)
        return self._lean[key]

    def resolve(self, purpose: Literal["measure", "optimize"]) -> str:
        """The number format that this scope uses for a purpose: "float32" or "bfloat16"."""
        return resolve_precision(self.precision, self.device, purpose)

    def run(
        self,
        images: Tensor,
        layers: str | Sequence[str],
        *,
        units: Mapping[str, Sequence[int]] | None = None,
        edit: AbstractContextManager[Any] | None = None,
        widen: bool = True,
    ) -> dict[str, Tensor]:
        """One pass over one batch, differentiable, values of any range: what optimization calls in its loop.

        Args:
            images: (n 3 h w) in pixel space; values outside [0,1] are let through.
            layers: Names of the layers wanted.
            units: Of some layers, the units that suffice; their values come in this order. A lean session computes no others.
            edit: What changes on the way, e.g. :func:`~convscope.scope.edits.average_pooling`.
            widen: Whether half-precision values are brought to float32.

        Returns:
            {name: (n ...)} in float32 (or the network's own wider type), with gradients if grad mode is on. The pass ends at the deepest
            layer.

        Raises:
            LayerNotFound: A name is unknown.
        """
        names = [layers] if isinstance(layers, str) else list(layers)
        if not names:
            raise BadInput("no layer asked for")
        wanted, some = [self.layers[name] for name in names], units or {}
        with self.session(), asking(network=self.name, input=tuple(images.shape)):
            leaner = self._leaner(wanted, some)
            values = self._forward(self.inputs.normalize(images.to(self.device, self.dtype)), wanted, leaner, edit=edit)
        for layer in wanted:
            if layer.name in some:
                asked = list(range(len(some[layer.name]))) if leaner and layer.node in leaner.narrow else list(some[layer.name])
                index = torch.tensor(asked, device=self.device)
                values[layer.name] = values[layer.name].index_select(layer.channel_axis + 1, index)
        return {name: wide(value) for name, value in values.items()} if widen else values

    def run_maps(self, images: Tensor, layers: Sequence[str], *, edit: AbstractContextManager[Any] | None = None) -> dict[str, Tensor]:
        """As :meth:`run`, with the units of every layer on axis 1: {name: (n c ...)}."""
        return {name: self.layers[name].channels_first(value) for name, value in self.run(images, layers, edit=edit).items()}

    def pull_back(self, images: Tensor, layer: str, seeds: Tensor, *, edit: AbstractContextManager[Any] | None = None) -> Tensor:
        """The derivative of sum(seeds * value of the layer) with respect to the images: one pass there and one back.

        Args:
            images: (n 3 h w) in pixel space.
            layer: Layer name.
            seeds: (n ...), as the layer's value.
            edit: What changes on the way, e.g. :func:`~convscope.scope.edits.relu_rule`.

        Returns:
            (n 3 h w), per pixel value; times ``inputs.std``, per value that the network is fed.
        """
        return self.vector_jacobian(images, layer, edit=edit)[1](seeds[None])[0]

    def vector_jacobian(
        self, images: Tensor, layer: str, *, edit: AbstractContextManager[Any] | None = None
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """A layer's value, and the way from it back to the images, for many seeds on one forward; see :meth:`pull_back`.

        Returns:
            The value (n ...), and a function: seeds (k n ...) -> (k n 3 h w), the k derivatives, taken together. It keeps the forward in
            memory for as long as it is held.

        Raises:
            LayerNotFound: The name is unknown.
            BadInput: The layer's value does not depend on the images, or `edit` refuses the network.
        """
        wanted = self.layers[layer]
        with self.session(), asking(network=self.name, input=tuple(images.shape)), torch.enable_grad():
            pictures = images.detach().to(self.device, self.dtype).requires_grad_()
            value = wide(self._forward(self.inputs.normalize(pictures), [wanted], edit=edit)[layer])
            if not value.requires_grad:
                raise BadInput(f"layer {layer}: no derivative leads from its value back to the picture")

        def pull(seeds: Tensor) -> Tensor:
            with own_modes(self.device):
                seeds = seeds.to(value)
                try:
                    return torch.autograd.grad(value, pictures, seeds, retain_graph=True, is_grads_batched=True)[0]
                except RuntimeError as error:
                    if out_of_memory(error):
                        raise
                # perhaps a derivative of the network's own that cannot be taken for many seeds at once
                return torch.stack([torch.autograd.grad(value, pictures, seed, retain_graph=True)[0] for seed in seeds])

        return value.detach(), pull

    def _forward(
        self,
        normalized: Tensor,
        wanted: Sequence[Layer],
        leaner: lean_pass | None = None,
        watch: Callable[[Layer, Tensor], Any] | None = None,
        edit: AbstractContextManager[Any] | None = None,
    ) -> dict[str, Any]:
        """The values of layers for a normalized batch, as computed, or what `watch` makes of them; within a session."""
        precision = self._running_in or "float32"
        with computing_in(precision, self.device), leaner or nullcontext(), edit or nullcontext():  # edits see the network's own calls
            if precision == "bfloat16":
                normalized = normalized.contiguous(memory_format=torch.channels_last)
            self.forwards += 1
            return forward_until(self.model, normalized, wanted, watch)

    @torch.no_grad()
    def observe(self, images: Tensor, layers: Sequence[str], watch: Callable[[Layer, Tensor], _T]) -> dict[str, _T]:
        """One pass over one batch, in which every layer's value is handed over as soon as it is there, and kept no longer than that.

        Args:
            images: (n 3 h w) in pixel space.
            layers: Names of the layers wanted; the pass ends at the deepest.
            watch: Called with a layer and its value (n ...), in whatever precision the network computed it; it must not change it.

        Returns:
            {name: what `watch` returned}.

        Raises:
            LayerNotFound: A name is unknown.
        """
        wanted = [self.layers[name] for name in layers]

        def seen(layer: Layer, value: Tensor) -> _T:
            with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage] (a lean pass has no say in it, and would cost time)
                return watch(layer, value)

        with self.session(), asking(network=self.name, input=tuple(images.shape)):
            normalized = self.inputs.normalize(images.to(self.device, self.dtype)).contiguous(memory_format=torch.channels_last)
            return self._forward(normalized, wanted, self._leaner(wanted, {}), seen)

    def activations(self, images: Images, layers: str | Sequence[str], *, batch_size: int | None = None) -> dict[str, Tensor]:
        """What the network makes of images, at the layers asked for.

        Args:
            images: Paths, PIL images, uint8 arrays or tensors in [0,1] of one size, see :class:`Inputs`.
            layers: Names of the layers wanted.
            batch_size: Images at once; by default as many as are fast. Does not change the values beyond rounding.

        Returns:
            {name: (n ...)} on the scope's device. If `images` is a tensor that requires grad, gradients flow back to it.

        Raises:
            LayerNotFound: A name is unknown.
            BadInput, BadImage: The images are not what a network can be fed.
        """
        batch = self.inputs.batch(images)
        if batch.requires_grad and torch.is_grad_enabled():
            return self.run(batch, layers)
        with torch.no_grad(), self.session():
            parts = list(self.in_batches(batch, lambda part: self.run(part, layers), batch_size))
        return {name: torch.cat([part[name] for part in parts]) if len(parts) > 1 else parts[0][name] for name in parts[0]}

    def in_batches(self, images: Tensor, work: Callable[[Tensor], _T], batch_size: int | None = None) -> Iterator[_T]:
        """Applies `work` to consecutive parts of a batch; halves the part when memory runs out, and says so once.

        Args:
            images: (n 3 h w).
            work: Called with (m 3 h w), m <= batch_size.
            batch_size: Images at once; by default chosen by their size.
        """
        if batch_size is not None and batch_size < 1:
            raise BadInput(f"batch_size must be at least 1, got {batch_size}")
        at_once = batch_size or self.fitting(images.shape[-2] * images.shape[-1])
        return self.in_parts(len(images), at_once, lambda part: work(images[part]))

    def in_parts(self, count: int, at_once: int, work: Callable[[slice], _T]) -> Iterator[_T]:
        """Applies `work` to consecutive slices of `count` things; halves the slices when memory runs out, and says so once.

        Raises:
            BadInput: Memory does not even suffice for one.
        """
        start, said = 0, False
        at_once = -(-count // -(-count // at_once)) if count else at_once  # equal parts: a last one of few is slow
        while start < count:
            part = slice(start, min(start + at_once, count))
            try:
                result = work(part)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if at_once == 1:
                    raise BadInput(f"{self.device} has too little memory for a single picture of this size") from None
                at_once = (min(at_once, count) + 1) // 2
                if not said:
                    _log.warning("out of memory: continuing with batches of %d", at_once)
                said = True
                continue
            yield result
            start = part.stop

    def fitting(self, pixels: int) -> int:
        """How many images of so many pixels make a good batch on this device."""
        return max(1, _PIXELS_AT_ONCE.get(self.device.type, _PIXELS_AT_ONCE["cpu"]) // pixels)

    def provenance(self) -> Mapping[str, Any]:
        """What a receipt keeps of the network, and of how it is run."""
        return {
            "libraries": ("torch", "torchvision"),
            "precision": self.precision,
            "network": {"name": self.name, "weights": self.weights, "weights_hash": self.weights_hash, "inputs": self.inputs.manifest()},
            "device": str(self.device),
        }
