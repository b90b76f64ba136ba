"""A network, its layers and their activations: everything in convscope that runs a network runs it through a Scope."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from convscope.errors import BadInput, NotReached, asking
from convscope.fast import use_fast
from convscope.fast.lean import lean_pass
from convscope.graph.bounds import Bounds, bounds_of
from convscope.graph.graph import Graph
from convscope.names import OUTPUT, Units, class_number, unit_numbers
from convscope.ops.resize import resized
from convscope.scope.generators import Generators
from convscope.scope.guard import Parts, Session, guard_of, parts_of_network
from convscope.scope.inputs import Images, Inputs, Resize
from convscope.scope.layers import Layer, Layers
from convscope.scope.network import check_tensors, lacks_derivative, no_derivative, out_of_memory, unwrapped, usable_device, weights_hash
from convscope.scope.precision import computing_in, resolve_precision, wide
from convscope.scope.recording import Recording, record
from convscope.scope.sizes import FAILURES, NotTaken, Size, is_about_size, nearest, refusal, tried
from convscope.scope.truncated_forward import forward_until
from convscope.seeding import derive_seed
from convscope.text import one_line

_T = TypeVar("_T")
_log = logging.getLogger("convscope")
_PIXELS_AT_ONCE = {"cpu": 8 * 224 * 224, "cuda": 128 * 224 * 224}
"""Pixels of a batch. Larger batches are no faster per image (measured on 2 CPU cores) and only cost memory."""

_GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, without their whole part, are as even as draws, and look as rough."""


class Scope:
    """A network with its layers by name and their activations.

    Every forward runs in evaluation mode with frozen parameters and without in-place operations; afterwards the network is
    bit-identical, training flags, requires_grad, .grad, hooks and in-place flags included, also after an exception.

    Five methods run the network: :meth:`activations` (images of any kind and number), and for one batch :meth:`run` (differentiable),
    :meth:`observe` (values handed over one by one, not stored), :meth:`vector_jacobian` (backward to the images) and
    :meth:`layer_jacobian` (backward from layer to layer).

    Args:
        model: Any network that takes a normalized (n c h w) tensor.
        inputs: Its input size and normalization; default 224 px, values in [0,1], no normalization.
        device: "auto" leaves the network where it is. For another device a copy is made there, and the original is not touched.
        precision: "float32", "bfloat16", or "auto": bfloat16 for optimization where the hardware is fast at it, else float32.
        fast: Whether :mod:`convscope.fast` may be used: folded batch norms, fused operations, Winograd convolutions, memory that is
            reused. Same values up to rounding, in less time, mostly on a CPU. "auto" is True unless the environment has
            ``CONVSCOPE_FAST=0``.
        name: The network's name in receipts; a name that :func:`convscope.open` understands can be opened again from them.
        weights: Where its weights came from, for receipts.
        output: Which part of what the network returns is the layer "output", where that is a tuple, dict or object: a key, attribute or
            number, with dots between nested ones ("head.logits"). None: ``logits``, ``out``, or the first (n c) tensor.

    Attributes:
        forwards: Number of forward passes so far (a batch counts once).

    Raises:
        BadInput: `model` is not a module whose layers can be hooked (a scripted module, for example), or another argument is wrong.
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
        fast: bool | Literal["auto"] = "auto",
        name: str | None = None,
        weights: str | None = None,
        output: str | None = None,
    ) -> None:
        model = unwrapped(model)
        self.name = name or type(model).__name__
        check_tensors(model, self.name)
        here, self.dtype = _where_and_what(model)
        self.device = here if device == "auto" else usable_device(device)
        if self.device.type != here.type or (self.device != torch.device(self.device.type) and self.device != here):
            model = copy.deepcopy(model).to(self.device)
        self.model = model
        self.inputs = (inputs or Inputs()).of_network(model)
        self.precision = precision
        self.fast = use_fast(fast)
        self.weights = weights
        self.output = output
        self.forwards = 0
        self._recording: tuple[Parts, Recording] | None = None
        resolve_precision(precision, self.device, "measure")
        self._bounded: tuple[object, list[Bounds | None]] | None = None
        self._steps: dict[Size, int] = {}
        self._seen_at: dict[tuple[Size, str], Size] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: the network, and how it is run. Layers and graph are recorded again."""
        return vars(self) | {"_recording": None, "_bounded": None}

    def entered(self, seed: int | None = None) -> AbstractContextManager[Any]:
        """The state in which techniques work: one session from start to end."""
        return self.session(seed=seed)

    def at(self, size: tuple[int, int]) -> Scope:
        """This scope for images of another size (height, width): its layers and graph are those at that size."""
        if size == (self.inputs.height, self.inputs.width):
            return self
        other = copy.copy(self)
        other.inputs, other._seen_at = replace(self.inputs, size=size), {}
        return other

    def reading(self, size: int | None = None, resize: Resize | None = None) -> Scope:
        """This scope for images of another size, or fitted to it in another way; arguments as of :meth:`Inputs.resized`."""
        other = copy.copy(self)
        other.inputs, other._seen_at = self.inputs.resized(size, resize), {}
        return other

    def __repr__(self) -> str:
        size = f"{self.inputs.height}x{self.inputs.width}"
        return f"Scope({self.name}, {size} px, {len(self.layers)} layers, {self.device}, {self.precision})"

    @property
    def layers(self) -> Layers:
        """All layers in call order, recorded on one forward at the network's own input size."""
        return self._recorded.layers

    @property
    def graph(self) -> Graph:
        """The network as a graph of tensor operations with spatial geometry, recorded with the layers."""
        return self._recorded.graph

    @property
    def one_at_a_time(self) -> str:
        """Why the network is run on one image at a time; "" if images go through it in batches.

        It is where the images of a batch influence each other, where the network cannot take several, and where it draws at random in
        evaluation mode. What is drawn then comes from the technique's seed and is the same for every image and in every pass, so that
        values can be compared: a network that drops units at random is looked at as one of the networks that it may become.
        """
        return self._recorded.batching.alone

    @property
    def _recorded(self) -> Recording:
        """What is known of the network as it is now: recorded again after it was cast, moved, or got other modules or tensors."""
        guard = guard_of(self.model)
        parts = guard.parts if guard.sessions else parts_of_network(self.model)
        if self._recording is None or self._recording[0] != parts:
            if self._recording is not None:
                self.device, self.dtype = _where_and_what(self.model)
                self._steps, self._seen_at, self._bounded = {}, {}, None
            self._recording = parts, self._record(parts)
        return self._recording[1]

    def _record(self, parts: Parts) -> Recording:
        shape = self.inputs.channel_count, self.inputs.height, self.inputs.width
        rough = (torch.arange(math.prod(shape), dtype=torch.float64, device="cpu") * _GOLDEN % 1).view(shape)
        images = torch.stack([0.25 + rough / 2, 1 - rough.flip(0, 1, 2).square(), 0.3 + rough.flip(2) / 10]).to(self.device, self.dtype)
        guard = guard_of(self.model)
        known = guard.batching[2] if guard.batching is not None and guard.batching[:2] == (parts, self.output) else None
        with self.session("float32") as session, asking(network=self.name):
            generators = Generators(self.model, self.device)
            session.at_end(partial(generators.restore, generators.states()))
            self.forwards += 1
            found = record(self.model, self.inputs.normalize(images), generators, output=self.output, known=known)
        if known is None:
            guard.batching = parts, self.output, found.batching
            if found.batching.alone:
                _log.warning("%s: images are run one at a time: %s", self.name, found.batching.alone)
        return found

    @property
    def weights_hash(self) -> str:
        """First 16 hex digits of the SHA-256 over all parameters, buffers and settings of torch's layers, as they are now."""
        return weights_hash(self.model)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the outputs; numbers where no names are known."""
        count = self.layers[OUTPUT].channels
        names = tuple(self.inputs.classes or ())
        if names and len(names) != count:
            raise BadInput(f"Inputs.classes has {len(names)} names but the network has {count} outputs")
        return names or tuple(str(index) for index in range(count))

    def class_index(self, target: int | str) -> int:
        """The unit of "output" that a class index or name means.

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

    def unit_names(self, layer: str, units: Sequence[int]) -> tuple[str, ...]:
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
        """Upper and lower bounds of every channel of layers for any image in [0,1] (interval arithmetic); None where not known.

        Raises:
            LayerNotFound: A name is unknown.
        """
        wanted = {name: self.layers[name] for name in layers}
        exact = self.device.type == "cpu" and self.resolve("measure") == "float32"
        state = exact, self.weights_hash
        if self._bounded is None or self._bounded[0] != state:
            own = {_memory_of(tensor) for tensor in (*self.model.parameters(), *self.model.buffers())}
            if any(isinstance(each, Tensor) and _memory_of(each) not in own for node in self.graph.nodes for each in node.arguments):
                self._recording = None  # the graph holds what was computed from the weights as they were
            self._bounded = state, bounds_of(self.graph, self.inputs.means, self.inputs.stds, exact=exact)
        found = self._bounded[1]
        return {
            name: None if layer.node is None or layer.of_input or layer.batch_axis else found[layer.node] for name, layer in wanted.items()
        }

    def session(self, precision: str | None = None, *, lean: bool = False, seed: int | None = None) -> Session:
        """The state in which the network is run: a context manager, reentrant, shared by all scopes on the network.

        Long work enters it once, single calls enter it by themselves. Other threads wait.

        Args:
            precision: "float32" or "bfloat16" for the passes inside; None keeps the surrounding session's, or resolves "auto".
            lean: Let passes fold batch norms and skip unused channels (:mod:`convscope.fast.lean`): same values up to rounding, in less
                time. Ignored where the scope's `fast` is off.
            seed: Seed of what a network draws that draws at random in evaluation mode; None keeps the surrounding session's, or is 0.
        """
        return Session(guard_of(self.model), self.model, self, precision, self.resolve("measure"), lean=lean and self.fast, seed=seed)

    def resolve(self, purpose: Literal["measure", "optimize"]) -> str:
        """The number format that this scope uses for a purpose: "float32" or "bfloat16"."""
        return resolve_precision(self.precision, self.device, purpose)

    def _forward(
        self,
        images: Tensor,
        names: Sequence[str],
        *,
        units: Mapping[str, Sequence[int]] | None = None,
        edit: AbstractContextManager[Any] | None = None,
        take: Callable[[Layer, Tensor], Any] | None = None,
    ) -> dict[str, Any]:
        """The one way into the network: a forward pass over one batch that ends at the deepest layer named.

        Args:
            images: (n c h w) in pixel space, values of any range.
            names: Layer names.
            units: Of some layers, the units wanted, in this order. A lean session computes no others where it can.
            edit: A context entered around the forward, see :mod:`convscope.scope.edits`.
            take: Called with a layer and its value as soon as it is computed; its result is returned in place of the value.

        Returns:
            {name: (n ...) as computed, attached to the autograd graph if grad mode is on, or what `take` returned}.

        Raises:
            LayerNotFound: A name is unknown.
            BadInput: No layer is named, or the network does not take images of this size.
        """
        with self.session() as session, asking(network=self.name, input=tuple(images.shape)):
            wanted, units = [self.layers[name] for name in names], units or {}
            if not wanted:
                raise BadInput("no layer asked for")
            for layer in wanted:
                layer.check_readable()
            precision, lean = session.running_in, self._lean_pass(session, wanted, units)
            normalized = self.inputs.normalize(images.to(self.device, self.dtype))
            if self._recorded.batching.in_order:
                normalized = _in_order(normalized)
            elif precision == "bfloat16":
                normalized = normalized.contiguous(memory_format=torch.channels_last)
            try:
                # edits are entered last, so that they see the network's own calls
                with computing_in(precision, self.device), lean or nullcontext(), edit or nullcontext():
                    values = self._pass(session, normalized, wanted, take)
            except SystemExit as error:
                raise BadInput(f"the network leaves the program in its forward (SystemExit: {one_line(error)})") from error
            except FAILURES as error:
                size = images.shape[-2], images.shape[-1]
                if isinstance(error, RuntimeError) and lacks_derivative(error):
                    raise no_derivative(max(wanted, key=lambda layer: layer.position).name) from error
                if size == self._size or not is_about_size(error):
                    raise
                raise refusal(size, self._size, self._step, error) from error
        for layer in wanted:
            if take is None and images.requires_grad and torch.is_grad_enabled() and not values[layer.name].requires_grad:
                raise no_derivative(layer.name)
            if layer.name in units:
                asked = units[layer.name]
                index = range(len(asked)) if lean and layer.node in lean.narrow else asked
                values[layer.name] = values[layer.name].index_select(
                    layer.channel_axis + 1, torch.tensor(list(index), dtype=torch.int64, device=self.device)
                )
        return values

    def _resized(
        self,
        images: Tensor,
        names: Sequence[str],
        *,
        units: Mapping[str, Sequence[int]] | None = None,
        edit: AbstractContextManager[Any] | None = None,
    ) -> dict[str, Any]:
        """:meth:`_forward` of images as :meth:`seen_at` says. Costs nothing where the network takes them: that is tried by this pass."""
        size, deepest = (images.shape[-2], images.shape[-1]), self._deepest(names)
        if (size, deepest) not in self._seen_at and size != self._size and edit is None and not self._has_grid(names):
            try:
                values = self._forward(images, names, units=units)
            except NotTaken:
                self._seen_at[size, deepest] = self._nearest(size, deepest)
            else:
                self._seen_at[size, deepest] = size
                return values
        return self._forward(resized(images, self.seen_at(size, names)), names, units=units, edit=edit)

    def seen_at(self, size: Size, names: Sequence[str]) -> Size:
        """The (height, width) at which a pass to some layers is shown images of a size: that, or the nearest that it takes.

        A network takes images of any size, those whose sides are multiples of a number, or those of its own input size alone. Layers
        before the one where it fails take what the whole does not. Tokens are of a grid that is known at its own input size alone.
        """
        deepest = self._deepest(names)
        if size == self._size or self._has_grid(names):
            return self._size
        if (size, deepest) not in self._seen_at:
            self._seen_at[size, deepest] = size if self._takes(size, deepest) else self._nearest(size, deepest)
        return self._seen_at[size, deepest]

    def _has_grid(self, names: Sequence[str]) -> bool:
        return any(self.layers[name].grid is not None for name in names)

    def _nearest(self, size: Size, layer: str) -> Size:
        near = nearest(size, self._step) if self._step else size
        return near if near != size and self._takes(near, layer) else self._size

    @property
    def _size(self) -> Size:
        return self.inputs.height, self.inputs.width

    @property
    def _step(self) -> int:
        """The network takes images whose sides are multiples of this; 0: of its own input size alone. Asked when it failed at a size."""
        if self._size not in self._steps:
            self._steps[self._size] = 0
            whole = self._deepest([name for name, layer in self.layers.items() if layer.batch_axis is not None])
            fitting = (step for step, sizes in tried(self._size).items() if all(self._takes(size, whole) for size in sizes))
            self._steps[self._size] = next(fitting, 0)
        return self._steps[self._size]

    def _deepest(self, names: Sequence[str]) -> str:
        return max(names, key=lambda name: self.layers[name].position)

    def _takes(self, size: Size, layer: str) -> bool:
        """Whether a forward pass to a layer succeeds on one image of a size."""
        grey = torch.full((1, self.inputs.channel_count, *size), 0.5, dtype=self.dtype, device=self.device)
        try:
            with self.session("float32"), torch.no_grad():
                self._forward(grey, [layer])
        except (NotTaken, NotReached, RuntimeError):  # also for lack of memory
            return False
        return True

    def _pass(
        self, session: Session, normalized: Tensor, wanted: Sequence[Layer], take: Callable[[Layer, Tensor], Any] | None
    ) -> dict[str, Any]:
        """The forward itself: of the batch, or of one image after another, whose values are then those of the batch."""
        batching = self._recorded.batching
        if not batching.random and (not batching.alone or len(normalized) == 1):
            self.forwards += 1
            return forward_until(self.model, normalized, wanted, take)
        parts: list[dict[str, Tensor]] = []
        generators = Generators(self.model, self.device)
        if batching.random:
            normalized = normalized.contiguous()  # draws go through memory in order
            session.at_end(partial(generators.restore, generators.states()))
        for one in (image.clone() for image in normalized.split(1)):  # a network may overwrite its input
            if batching.random:
                generators.seed(derive_seed(session.seed, "network"))
            self.forwards += 1
            parts.append(forward_until(self.model, one, wanted))
        values = {layer.name: torch.cat(found) if len(found := [part[layer.name] for part in parts]) > 1 else found[0] for layer in wanted}
        return values if take is None else {layer.name: take(layer, values[layer.name]) for layer in wanted}

    def _lean_pass(self, session: Session, wanted: Sequence[Layer], units: Mapping[str, Sequence[int]]) -> lean_pass | None:
        """The faster forward to these layers and units, where the session asks for it."""
        passes = session.lean_passes
        if passes is None or self._recorded.batching.random:
            return None
        key = tuple(layer.name for layer in wanted), tuple((name, tuple(asked)) for name, asked in units.items())
        if key not in passes:
            passes.clear()  # only the latest: each holds kernels of its own, and every batch of units needs another
            nodes = {layer.name: layer.node for layer in wanted if layer.node is not None}
            some = {
                nodes[layer.name]: units[layer.name]
                for layer in wanted
                if layer.name in nodes.keys() & units.keys() and not layer.channel_axis
            }
            passes[key] = lean_pass(self.graph, set(nodes.values()), some, in_order=self._recorded.batching.in_order)
        return passes[key]

    def activations(self, images: Images, layers: str | Sequence[str], *, batch_size: int | None = None) -> dict[str, Tensor]:
        """Activations of layers for any number of images, in batches.

        Args:
            images: Paths, PIL images, uint8 arrays or tensors in [0,1] of one size, see :class:`Inputs`.
            layers: Layer names.
            batch_size: Images per forward; by default chosen by their size. Does not change the values beyond rounding.

        Returns:
            {name: (n ...)} on the scope's device, in float32 or the network's own wider type. If `images` is a tensor that requires grad,
            gradients flow back to it.

        Raises:
            LayerNotFound: A name is unknown.
            BadInput, BadImage: The images cannot be fed to the network.
        """
        batch = self.inputs.batch(images)
        if batch.requires_grad and torch.is_grad_enabled():
            return self.run(batch, layers)
        with self.session(), torch.no_grad():
            parts = list(self.in_batches(batch, lambda part: self.run(part, layers), batch_size))
        return {name: torch.cat([part[name] for part in parts]) if len(parts) > 1 else parts[0][name] for name in parts[0]}

    def run(
        self,
        images: Tensor,
        layers: str | Sequence[str],
        *,
        units: Mapping[str, Sequence[int]] | None = None,
        edit: AbstractContextManager[Any] | None = None,
        channels_first: bool = False,
        widen: bool = True,
        resize: bool = False,
    ) -> dict[str, Tensor]:
        """Activations of layers for one batch, differentiable: the forward pass of an optimization loop.

        Args:
            images: (n c h w) in pixel space; values outside [0,1] are allowed.
            layers: Layer names; the pass ends at the deepest.
            units: Of some layers, the units wanted; their values come in this order.
            edit: A context entered around the forward, e.g. :func:`~convscope.scope.edits.average_pooling`.
            channels_first: Whether units come on axis 1 in every layer, (n c ...), even where the layer's own value has them elsewhere.
            widen: Whether half-precision values are converted to float32.
            resize: Whether images of a size that the network does not take are shown to it at one that it does, see :meth:`seen_at`.

        Returns:
            {name: (n ...)} in float32 or the network's own wider type, with gradients if grad mode is on.

        Raises:
            LayerNotFound: A name is unknown.
            BadInput: No layer is named.
        """
        names = [layers] if isinstance(layers, str) else layers
        values = (self._resized if resize else self._forward)(images, names, units=units, edit=edit)
        if widen:
            values = {name: wide(value) for name, value in values.items()}
        return {name: self.layers[name].channels_first(value) for name, value in values.items()} if channels_first else values

    def observe(self, images: Tensor, layers: Sequence[str], watch: Callable[[Layer, Tensor], _T]) -> dict[str, _T]:
        """Activations of layers for one batch, each handed to a function as soon as it is computed and not stored.

        Args:
            images: (n c h w) in pixel space.
            layers: Layer names; the pass ends at the deepest.
            watch: Called with a layer and its value (n ...), in the precision in which it was computed; it must not change the value.

        Returns:
            {name: what `watch` returned}.

        Raises:
            LayerNotFound: A name is unknown.
            BadInput: No layer is named.
        """

        def take(layer: Layer, value: Tensor) -> _T:
            with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage] (a lean pass costs time here)
                return watch(layer, value)

        images = images.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
        with self.session(), torch.no_grad():
            return self._forward(images, layers, take=take)

    def vector_jacobian(
        self, images: Tensor, layer: str, *, edit: AbstractContextManager[Any] | None = None
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """A layer's activation for one batch and its vector-Jacobian product with respect to the images, for many cotangents.

        Args:
            images: (n c h w) in pixel space.
            layer: Layer name.
            edit: A context entered around the forward, e.g. :func:`~convscope.scope.edits.relu_rule`.

        Returns:
            The value (n ...), and a function: cotangents (k n ...), shaped as the value -> (k n c h w), the derivatives of
            sum(cotangent * value) per pixel value; times ``inputs.std``, per value that the network is fed. The function holds the
            forward in memory.

        Raises:
            LayerNotFound: The name is unknown.
            BadInput: The layer's value does not depend on the images, or `edit` refuses the network.
        """
        with self.session(), asking(network=self.name, input=tuple(images.shape)), torch.enable_grad():
            leaf = images.detach().to(self.device, self.dtype).requires_grad_()
            value = wide(self._forward(leaf, [layer], edit=edit)[layer])

        def pull(cotangents: Tensor) -> Tensor:
            with self.session():
                cotangents = cotangents.to(value)
                try:
                    return torch.autograd.grad(value, leaf, cotangents, retain_graph=True, is_grads_batched=True)[0]
                except RuntimeError as error:
                    if out_of_memory(error):
                        raise
                # a custom autograd.Function of the network may not support batched cotangents
                return torch.stack([torch.autograd.grad(value, leaf, one, retain_graph=True)[0] for one in cotangents])

        return value.detach(), pull

    def layer_gradient(self, images: Tensor, layer: str, score: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """A layer's activation, and the derivative of a score of the logits with respect to it.

        Args:
            images: (n 3 h w) in pixel space.
            layer: Layer name.
            score: Logits (n class) to a score for each image, (n).

        Returns:
            The activation (n ...), the derivative of the same shape, and the logits (n class).

        Raises:
            LayerNotFound: The name is unknown.
            BadInput: The output does not depend differentiably on the layer, or is not (n class).
        """
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        with self.session(), asking(network=self.name, layer=layer), torch.enable_grad():
            for part in images.detach().to(self.device, self.dtype).split(1 if self.one_at_a_time else len(images)):
                values = self._forward(part.clone().requires_grad_(), [layer, OUTPUT])
                logits = values[OUTPUT]
                if logits.ndim != 2:
                    raise BadInput(f"{self.name} returns {tuple(logits.shape)}, not a logit for each class")
                total = score(logits).sum()
                derivative: Tensor | None = None
                if total.requires_grad and values[layer].requires_grad:
                    (derivative,) = torch.autograd.grad(total, values[layer], allow_unused=True)
                if derivative is None:
                    raise BadInput(f"the output does not depend differentiably on the value of layer {layer}")
                found.append((wide(values[layer].detach()), wide(derivative), wide(logits.detach())))
        activation, derivative, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
        return activation, derivative, logits

    def layer_jacobian(
        self, images: Tensor, layers: Sequence[str]
    ) -> tuple[dict[str, Tensor], Callable[[str, Tensor, Sequence[str]], dict[str, Tensor]]]:
        """Activations of layers for one batch, and vector-Jacobian products between them.

        Args:
            images: (n 3 h w) in pixel space.
            layers: Layer names.

        Returns:
            {name: (n ...)}, and a function: a layer, a cotangent shaped as its value, and earlier layers -> {earlier layer: derivatives of
            sum(cotangent * value), shaped as its value; zeros where the layer does not depend on it}. It holds the forward in memory.

        Raises:
            LayerNotFound: A name is unknown.
        """
        with self.session(), asking(network=self.name, input=tuple(images.shape)), torch.enable_grad():
            leaf = images.detach().to(self.device, self.dtype).requires_grad_()
            values = self._forward(leaf, layers)

        def pull(layer: str, cotangent: Tensor, of: Sequence[str]) -> dict[str, Tensor]:
            sources = [values[name] for name in of]
            with self.session():
                found = torch.autograd.grad(
                    values[layer], sources, cotangent.to(values[layer]), retain_graph=True, allow_unused=True, materialize_grads=True
                )
            return {name: wide(value) for name, value in zip(of, found, strict=True)}

        return {name: wide(value.detach()) for name, value in values.items()}, pull

    def in_batches(self, images: Tensor, work: Callable[[Tensor], _T], batch_size: int | None = None) -> Iterator[_T]:
        """Applies `work` to consecutive parts of a batch; halves the part when memory runs out, and logs that once.

        Args:
            images: (n c h w).
            work: Called with (m c h w), m <= batch_size.
            batch_size: Images per part; by default chosen by their size.
        """
        if batch_size is not None and batch_size < 1:
            raise BadInput(f"batch_size must be at least 1, got {batch_size}")
        at_once = batch_size or self.fitting(images.shape[-2] * images.shape[-1])
        return self.in_parts(len(images), at_once, lambda part: work(images[part]))

    def in_parts(self, count: int, at_once: int, work: Callable[[slice], _T]) -> Iterator[_T]:
        """Applies `work` to consecutive slices of range(count); halves the slices when memory runs out, and logs that once.

        Raises:
            BadInput: Memory does not suffice for a slice of one.
        """
        start, logged = 0, False
        at_once = -(-count // -(-count // at_once)) if count else at_once  # equal parts: a small last one is slow
        while start < count:
            part = slice(start, min(start + at_once, count))
            try:
                result = work(part)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if at_once == 1:
                    raise BadInput(f"{self.device} has too little memory for a single image of this size") from None
                at_once = (min(at_once, count) + 1) // 2
                if not logged:
                    _log.warning("out of memory: continuing with batches of %d", at_once)
                logged = True
                continue
            yield result
            start = part.stop

    def fitting(self, pixels: int) -> int:
        """The batch size for images of so many pixels on this device."""
        return max(1, _PIXELS_AT_ONCE.get(self.device.type, _PIXELS_AT_ONCE["cpu"]) // pixels)

    def provenance(self) -> Mapping[str, Any]:
        """What a manifest holds about the network and how it is run."""
        alone = "" if self._recording is None else self._recording[1].batching.alone
        return {
            "libraries": ("torch", "torchvision"),
            "precision": self.precision,
            "fast": self.fast,
            "network": {"name": self.name, "weights": self.weights, "weights_hash": self.weights_hash, "inputs": self.inputs.manifest()}
            | ({"output": self.output} if self.output else {})
            | ({"one_at_a_time": alone} if alone else {}),
            "device": str(self.device),
        }


def _memory_of(tensor: Tensor) -> int:
    """Where a tensor's values lie; those of its views lie there, too."""
    return tensor.untyped_storage().data_ptr()


def _in_order(images: Tensor) -> Tensor:
    """Images that lie in memory in the order of their axes, also where an axis of length 1 leaves several orders open."""
    strides = tuple(math.prod(images.shape[axis + 1 :]) for axis in range(images.ndim))
    return images if images.stride() == strides else images.clone(memory_format=torch.contiguous_format)


def _where_and_what(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device of a network and the type that it computes in."""
    tensors = [*model.parameters(), *model.buffers()]
    floating = next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), torch.float32)
    return tensors[0].device if tensors else torch.device("cpu"), floating
