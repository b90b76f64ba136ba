"""Everything that changes a network or its operations for a while. Only reversible context managers live here."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

RELUS: tuple[Callable[..., Tensor], ...] = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
"""Every spelling of ReLU. nn.ReLU calls F.relu, so an edit of these sees modules and functional calls alike."""


@contextmanager
def prepared(model: nn.Module) -> Generator[None]:
    """The state in which convscope runs a network: evaluation mode, frozen parameters, nothing in place.

    Training flags, requires_grad, .grad and in-place flags are as before afterwards, exceptions included.
    """
    training = [(module, module.training) for module in model.modules()]
    inplace = [module for module in model.modules() if getattr(module, "inplace", None) is True]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        for module, _ in training:
            module.training = False
        for module in inplace:
            module.inplace = False  # type: ignore[assignment]
        for parameter, _, _ in parameters:
            parameter.requires_grad = False
        yield
    finally:
        for module, flag in training:
            module.training = flag
        for module in inplace:
            module.inplace = True  # type: ignore[assignment]
        for parameter, requires_grad, grad in parameters:
            parameter.requires_grad = requires_grad
            parameter.grad = grad


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
