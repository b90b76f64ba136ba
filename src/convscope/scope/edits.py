"""Everything that changes a network or its operations for a while. Only reversible context managers live here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from convscope.errors import BadInput
from convscope.graph.operations import RELUS, nonlinear_functions, spellings

RULES = ("deconvnet", "guided", "gradient")
"""What a ReLU may do to what comes back to it, see :func:`relu_rule`."""
_RECTIFIERS = {
    "relu": ("input", "inplace"),
    "relu6": ("input", "inplace"),
    "hardtanh": ("input", "min_val", "max_val", "inplace"),
    "clamp": ("input", "min", "max"),
    "clip": ("input", "min", "max"),
    "clamp_min": ("input", "min"),
}
"""Functions that can be a ReLU, with or without an upper bound, and their parameters."""
_UNRULED = (nonlinear_functions() | {"softsign"}) - _RECTIFIERS.keys()  # torch computes softsign from other operations
"""Nonlinearities and gates for which the rules of deconvnet and guided backpropagation say nothing."""


class replaced_functions(TorchFunctionMode):
    """Within the block, calls of the given torch functions go to their replacements, from modules and functional code alike."""

    def __init__(self, replacements: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self.replacements = dict(replacements)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self.replacements.get(func, func)(*args, **(kwargs or {}))


def redirected_relu() -> replaced_functions:
    """ReLUs that let a blocked picture move.

    Where the whole gradient of a sample is blocked at a ReLU, the part of it that would push negative inputs upward passes.
    The convention is that of descent: a negative gradient pushes upward.

    Source:
        Lucid, misc/redirected_relu_grad.py, used for the first 16 steps.
    """
    return replaced_functions(dict.fromkeys(RELUS, lambda *args, **named: _RedirectedReLU.apply(args[0] if args else named["input"])))


class _RedirectedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (values,), gradient = ctx.saved_tensors, grads[0]
        plain = torch.where(values > 0, gradient, 0)
        blocked = plain.flatten(1).abs().sum(1).eq(0).view(-1, *[1] * (values.ndim - 1))
        return torch.where(blocked & (gradient < 0), gradient, plain)


def average_pooling() -> replaced_functions:
    """Within the block, max pooling takes the mean of each window instead (of the part of it inside the map), as in style transfer.

    Modules, functions and adaptive pooling alike; sizes stay as they are.

    Raises:
        BadInput: Within the block, when a pooling is dilated or its places are asked for.

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
        raise BadInput("average pooling cannot stand in for a max pooling that is dilated or tells the places of its maxima")
    return F.avg_pool2d(input, kernel_size, stride or None, padding, ceil_mode, count_include_pad=False)


def _adaptively_averaged(input: Tensor, output_size: Any, return_indices: bool = False) -> Tensor:
    return _averaged(input, 1, return_indices=True) if return_indices else F.adaptive_avg_pool2d(input, output_size)


def relu_rule(rule: str) -> AbstractContextManager[Any]:
    """What ReLUs do to the R that comes back to them, f being their input on the way forward.

    "gradient" is R * 1[f > 0], "deconvnet" R * 1[R > 0], "guided" R * 1[f > 0] * 1[R > 0]. Everything else keeps its own derivative.
    ReLUs are those of modules, functions and methods, ``clamp(min=0)``, and, with 0 < f < bound in place of f > 0, ReLU6 and
    other clamps from 0 up to a bound. On the way forward nothing changes.

    Raises:
        BadInput: There is no such rule; within the block, when what depends on the picture meets a nonlinearity that the rule does
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
    """A ReLU, bounded if `high` is given, that passes back what is positive; if `guided`, only where it is open, too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, high: float | None, guided: bool) -> Tensor:
        if guided:  # a mask, not the values, which may be overwritten in place
            ctx.save_for_backward(values > 0 if high is None else (values > 0) & (values < high))
        return values.clamp(min=0, max=high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        positive = grads[0].clamp(min=0)
        return (torch.where(ctx.saved_tensors[0], positive, 0) if ctx.saved_tensors else positive), None, None
