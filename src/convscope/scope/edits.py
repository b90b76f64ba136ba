"""Edits of a network: context managers that change its modules or functions and change them back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from convscope.errors import BadInput
from convscope.graph.operations import CLIPS, DIPS, clip_of, nonlinear_functions, spellings
from convscope.scope.layers import Layer
from convscope.scope.outputs import tensor_in

RULES = ("deconvnet", "guided", "gradient")
"""Backward rules of ReLUs, see :func:`relu_rule`."""
_RECTIFIERS = {
    "relu": ("input", "inplace"),
    "relu6": ("input", "inplace"),
    "hardtanh": ("input", "min_val", "max_val", "inplace"),
    "clamp": ("input", "min", "max"),
    "clip": ("input", "min", "max"),
    "clamp_min": ("input", "min"),
}
"""Functions that can act as a ReLU, with or without an upper bound, and their parameters."""
_BENT = {name: (low, math.inf) for name, low in DIPS.items()} | {"hardsigmoid": (-3.0, 3.0)}
"""Between which inputs other activations than clips pass a gradient where it is redirected."""
_UNRULED = (nonlinear_functions() | {"softsign"}) - _RECTIFIERS.keys()  # torch computes softsign from other operations
"""Nonlinearities and gates for which deconvnet and guided backpropagation are not defined."""


class replaced_functions(TorchFunctionMode):
    """Within the block, the given torch functions are replaced, in modules and functional code alike."""

    def __init__(self, replacements: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self.replacements = dict(replacements)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self.replacements.get(func, func)(*args, **(kwargs or {}))


def redirected_relu() -> replaced_functions:
    """ReLUs with a gradient for images in which all units are inactive (redirected ReLU); other activations with flat parts as well.

    Where the whole gradient of a sample is blocked at a ReLU, the part of it passes that would raise inputs below the lower bound, or
    lower those above the upper one. The convention is that of descent: a negative gradient raises its input. ReLU6, hardtanh and
    hardsigmoid have two bounds. SiLU, GELU, hardswish and Mish count as flat left of their least value, where their derivative would lead
    away from what excites the unit.

    Source:
        Lucid, misc/redirected_relu_grad.py, used for the first 16 steps.
    """
    bent = {func: partial(_redirected_bent, name) for name in _BENT for func in spellings(name)}
    return replaced_functions({func: partial(_redirected_clip, func) for func in CLIPS} | bent)


def _redirected_clip(func: Callable[..., Any], *args: Any, **named: Any) -> Tensor:
    low, high = clip_of(func, args, named) or (0, math.inf)
    return _Redirected.apply(args[0] if args else named["input"], partial(torch.clamp, min=low, max=high), low, high)


def _redirected_bent(name: str, *args: Any, **named: Any) -> Tensor:
    values = args[0] if args else named["input"]
    function = partial(F.gelu, approximate=named.get("approximate", "none")) if name == "gelu" else getattr(F, name)
    return _Redirected.apply(values, function, *_BENT[name])


class _Redirected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, function: Callable[[Tensor], Tensor], low: float, high: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.function, ctx.bounds = function, (low, high)
        return function(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (values,), gradient, (low, high) = ctx.saved_tensors, grads[0], ctx.bounds
        with torch.enable_grad():
            given = values.detach().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.function(given), given, gradient)
        plain = torch.where((values > low) & (values < high), slope, 0)
        blocked = plain.flatten(1).abs().sum(1).eq(0).view(-1, *[1] * (values.ndim - 1))
        back = torch.where(values <= low, gradient < 0, gradient > 0)
        return torch.where(blocked & back, gradient, plain), None, None, None


def average_pooling() -> replaced_functions:
    """Average pooling in place of max pooling, as in style transfer: the mean of each window, of its part inside the map.

    Modules, functions and adaptive pooling alike; sizes stay the same.

    Raises:
        BadInput: Within the block, when a pooling is dilated or the indices of its maxima are asked for.

    Source:
        Gatys et al. 2016.
    """
    spellings = F.max_pool2d, F.max_pool2d_with_indices, torch.max_pool2d
    return replaced_functions({**dict.fromkeys(spellings, _averaged), F.adaptive_max_pool2d: _adaptively_averaged})


def _averaged(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    if return_indices or dilation not in (1, (1, 1), [1, 1]):
        raise BadInput("average pooling cannot replace a max pooling that is dilated or returns the indices of its maxima")
    return F.avg_pool2d(input, kernel_size, stride or None, padding, ceil_mode, count_include_pad=False)


def _adaptively_averaged(input: Tensor, output_size: Any, return_indices: bool = False) -> Tensor:
    return _averaged(input, 1, return_indices=True) if return_indices else F.adaptive_avg_pool2d(input, output_size)


class replaced_value(AbstractContextManager[None]):
    """Within the block, the network goes on with another value in place of a layer's.

    Args:
        layer: The layer; only its own call is changed.
        value: What takes its place, shaped as the layer's value for the batch, images in front; may be overwritten.

    Raises:
        BadInput: Within the block, when the layer gives its value in a container that cannot be rebuilt.
    """

    def __init__(self, layer: Layer, value: Tensor) -> None:
        self.layer, self.value = layer, value.movedim(0, layer.batch_axis) if layer.batch_axis else value
        self._calls = 0

    def __enter__(self) -> None:
        self._calls = 0
        if self.layer.of_input:
            self._handle = self.layer.module.register_forward_pre_hook(lambda _module, given: self._replaced(given))
        else:
            self._handle = self.layer.module.register_forward_hook(lambda _module, _given, output: self._replaced(output))

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _replaced(self, given: Any) -> Any:
        self._calls += 1
        if self._calls != self.layer.call + 1:
            return None
        part = None if self.layer.of_input else self.layer.part
        old = tensor_in(given, part)

        def exchange(leaf: Any) -> Any:
            return self.value if leaf is old else leaf

        replaced = tree_map(exchange, given)
        if old is None or tensor_in(replaced, part) is not self.value:
            raise BadInput(f"layer {self.layer.name} gives its value in a {type(given).__name__}, in which it cannot be replaced")
        return replaced


def relu_rule(rule: str) -> AbstractContextManager[Any]:
    """The backward rule of ReLUs: what they pass of an incoming gradient R, with input f in the forward.

    "gradient" is R * 1[f > 0], "deconvnet" R * 1[R > 0], "guided" R * 1[f > 0] * 1[R > 0]. Everything else keeps its own derivative.
    ReLUs are those of modules, functions and methods, ``clamp(min=0)``, and, with 0 < f < bound in place of f > 0, ReLU6 and
    other clamps from 0 up to a bound. The forward stays the same.

    Raises:
        BadInput: Unknown rule; within the block, when a value that depends on the image goes through a nonlinearity that the rule does
            not cover (GELU, SiLU, sigmoid gates, leaky ReLU, softmax, ...).

    Source:
        Zeiler and Fergus 2014 (deconvnet), Springenberg et al. 2015 (guided), Simonyan et al. 2014 (gradient).
    """
    if rule not in RULES:
        raise BadInput(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    if rule == "gradient":
        return nullcontext()
    rectifying = {func: partial(_rectify, rule, func, name) for name in _RECTIFIERS for func in spellings(name)}
    refusing = {func: partial(_refuse, rule, func, name) for name in _UNRULED for func in spellings(name)}
    return replaced_functions(rectifying | refusing)


def _rectify(rule: str, func: Callable[..., Any], name: str, *args: Any, **named: Any) -> Any:
    given = dict(zip(_RECTIFIERS[name], args, strict=False)) | named
    values = given["input"]
    low, high = {"relu": (0, None), "relu6": (0, 6), "hardtanh": (given.get("min_val", -1), given.get("max_val", 1))}.get(
        name, (given.get("min"), given.get("max"))
    )
    if not values.requires_grad or isinstance(low, Tensor) or isinstance(high, Tensor) or low != 0:
        return _refuse(rule, func, name, *args, **named) if name == "hardtanh" else func(*args, **named)
    out = _RuledReLU.apply(values, high, rule == "guided")
    return values.copy_(out) if given.get("inplace") or func.__name__.endswith("_") else out


def _refuse(rule: str, func: Callable[..., Any], name: str, *args: Any, **named: Any) -> Any:
    if any(isinstance(value, Tensor) and value.requires_grad for value in (*args, *named.values())):
        raise BadInput(
            f"rule {rule!r} is about ReLUs, but before the layer the network calls {name}; use rule='gradient', or a layer before that"
        )
    return func(*args, **named)


class _RuledReLU(torch.autograd.Function):
    """A ReLU, bounded if `high` is given, that passes back positive gradients; if `guided`, only where its input is inside the bounds."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, high: float | None, guided: bool) -> Tensor:
        if guided:  # a mask, not the values, which may be overwritten in place
            ctx.save_for_backward(values > 0 if high is None else (values > 0) & (values < high))
        return values.clamp(min=0, max=high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        positive = grads[0].clamp(min=0)
        return (torch.where(ctx.saved_tensors[0], positive, 0) if ctx.saved_tensors else positive), None, None
