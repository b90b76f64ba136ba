"""Small networks with known answers, and a picture of a network's whole state, for tests."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

M = TypeVar("M", bound=nn.Module)


def seeded(build: Callable[[], M], seed: int = 0) -> M:
    """A network whose random weights and batch norm statistics are the same every time; global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
                nn.init.normal_(module.running_mean, 0, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
    return model


def draws(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform values in [0,1] from a generator of their own."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def small(channels: int = 3) -> nn.Module:
    """Of images of so many channels: conv 0, bn 1, relu 2, pool 3, conv 4, relu 5, average 6, flatten 7, linear 8 with 5 outputs."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
    )


class Residual(nn.Module):
    """One ReLU module for three calls, a sum in place, and a convolution registered first but called last."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(4, 3, 1)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.middle = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        identity = self.relu(self.stem(images))
        out = self.norm(self.relu(self.middle(identity)))
        out += identity
        return self.last(self.relu(out)).mean((2, 3))


class Functional(nn.Module):
    """A ReLU in place that is no module, right after a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.conv(images)), inplace=True))


class Heads(nn.Module):
    """A network whose output is a tuple or a dict, and that has a head for training only."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.main = nn.Linear(4, 3)
        self.auxiliary = nn.Linear(4, 7)
        self.form = form

    def forward(self, images: Tensor) -> Any:
        pooled = self.conv(images).mean((2, 3))
        return self.form(self.main(pooled), self.auxiliary(pooled)) if self.training else self.form(self.main(pooled), pooled)


class Raises(nn.Module):
    """Passes on what it gets until it is told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: BaseException | None = None

    def forward(self, values: Tensor) -> Tensor:
        if self.fail is not None:
            raise self.fail
        return values


class Forward(nn.Module):
    """A network whose forward is a function of itself and the images."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.function = function

    def forward(self, images: Tensor) -> Any:
        return self.function(self, images)


def built(function: Callable[[Any, Tensor], Any], **modules: Callable[[], nn.Module]) -> nn.Module:
    """A network with seeded weights."""
    return seeded(lambda: Forward(function, **{name: make() for name, make in modules.items()})).eval()


def linear_conv(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """A single convolution without padding: 3 to 4 channels, kernel 3, with bias."""
    return seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3))).to(dtype)


def state_of(model: nn.Module) -> dict[str, Any]:
    """Everything that a visit could have changed: values, types, flags, gradients, hooks."""
    state: dict[str, Any] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        values = tensor.detach().cpu().contiguous().view(-1)
        state[f"{name} values"] = hashlib.blake2b(values.view(torch.uint8).numpy().data).hexdigest() if values.numel() else ""
        state[f"{name} about"] = (id(tensor), tensor.data_ptr(), tensor.dtype, tensor.device, tensor.requires_grad, tensor.is_leaf)
        state[f"{name} grad"] = None if tensor.grad is None else (id(tensor.grad), tensor.grad.sum().item())
    for name, module in model.named_modules():
        state[f"{name} module"] = (id(module), type(module), module.training, getattr(module, "inplace", None), sorted(vars(module)))
        for registry in [key for key in vars(module) if "hooks" in key and isinstance(vars(module)[key], dict)]:
            state[f"{name} {registry}"] = [(key, id(hook)) for key, hook in vars(module)[registry].items()]
    return state


def unsettle(model: nn.Module) -> None:
    """Flags as a user may have left them: some modules in training, some parameters frozen, some with gradients."""
    model.train()
    for index, module in enumerate(model.modules()):
        if index % 3 == 1:
            module.training = False
    for index, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(index % 2 == 0)
        if index % 4 == 0 and parameter.numel() < 10**6:
            parameter.grad = torch.ones_like(parameter)


class Uninitialized(TorchFunctionMode):
    """Within the block, networks are made without drawing the weights that would be replaced anyway."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func in (Tensor.uniform_, Tensor.normal_, Tensor.erfinv_):
            return args[0]
        return func(*args, **(kwargs or {}))


def torchvision_network(name: str) -> nn.Module:
    """A network of torchvision with cheap random weights that neither fade nor explode, without torchvision's slow initialization."""
    with Uninitialized():
        model = torchvision.models.get_model(
            name, weights=None, **({"init_weights": False} if name in ("googlenet", "inception_v3") else {})
        )
    noise = torch.randn(100_003, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            cells = parameter.view(-1)
            for start in range(0, len(cells), len(noise)):
                part = cells[start : start + len(noise)]
                part.copy_(noise[: len(part)])
            cells *= math.sqrt(2 / parameter[0].numel()) if parameter.ndim > 1 else 0.1
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(noise[: module.num_features] * 0.1)
                module.running_var.copy_(1 + noise[: module.num_features].abs() * 0.2)
                module.num_batches_tracked.zero_()
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
                module.weight += 1
    return model
