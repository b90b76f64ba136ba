"""Networks that compute what :func:`hand_built.small` does in ways of their own: the same values, and the network as it was.

Beside what is here were tried: spectral norms and parametrizations of other values, pruned weights, shared modules, needs of gradients in
the forward, functorch transforms, scripted parts, parts by name of odd letters, modes switched in the forward, bfloat16, control flow.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import convscope as cs
import hand_built
import scanned
from convscope.errors import BadInput
from networks import Unusual
from promises import scope_on

SIDE = 24
IMAGES = hand_built.draws(3, 3, SIDE, SIDE, seed=3)
FEW: dict[str, Any] = {"recipe": "multiscale", "size": 16, "stages": 1, "steps": 2}
Named = collections.namedtuple("Named", "features logits")


def plainly(net: Unusual, images: Tensor) -> Tensor:
    return net.head(net.maps(images))


def of(run: Callable[[Unusual, Tensor], Any] = plainly, **more: nn.Module) -> Unusual:
    return hand_built.seeded(lambda: Unusual(run, **more))


def normalized(make: Callable[[nn.Module], nn.Module]) -> Unusual:
    network = of()
    for name in "04":
        setattr(network, name, make(network.get_submodule(name)))
    return network


class Computed(nn.Conv2d):
    """Kernels that are computed at every call, as weight standardization does."""

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.weight * 1.0, self.bias, padding=1)


def computed(convolution: nn.Module) -> nn.Module:
    assert isinstance(convolution, nn.Conv2d)
    made = Computed(convolution.in_channels, convolution.out_channels, 3, padding=1)
    made.load_state_dict(convolution.state_dict())
    return made


def last_in(dtype: torch.dtype) -> Unusual:
    network = of(lambda net, images: net.get_submodule("8")(net.get_submodule("7")(net.get_submodule("6")(net.maps(images))).to(dtype)))
    network.get_submodule("8").to(dtype)
    return network


def remembering(net: Unusual, images: Tensor) -> Tensor:
    """Counters, caches and the last values, as attributes, in lists and tables, and in a buffer that gets a derivative."""
    net.calls = getattr(net, "calls", 0) + 1
    net.last = values = net.maps(images)
    net.seen.append(values)
    net.table[len(net.table)] = images
    net.moving.mul_(0.9).add_(values.mean())
    if "grid" not in dict(net.named_buffers()):
        net.register_buffer("grid", torch.zeros(images.shape[2:]))
        net.add_module("extra", nn.Identity())
    return net.head(values)


def remembers() -> Unusual:
    network = of(remembering)
    network.register_buffer("moving", torch.zeros(()))
    network.seen, network.table = [], {}
    return network


def hooked() -> Unusual:
    network = of()
    network.get_submodule("4").register_forward_hook(lambda _module, _inputs, value: value * 1.0)
    network.get_submodule("0").register_forward_pre_hook(lambda _module, inputs: (inputs[0] * 1.0,))
    network.get_submodule("2").register_full_backward_hook(lambda _module, given, _taken: tuple(each * 1.0 for each in given))
    return network


def in_place(net: Unusual, images: Tensor) -> Tensor:
    images.mul_(1.0).add_(0.0)
    images.data = images.data * 1.0
    return plainly(net, images)


def with_words(net: Unusual, images: Tensor, *, scale: float = 1.0, mask: Tensor | None = None) -> Tensor:
    return plainly(net, images) * scale if mask is None else plainly(net, images * mask)


ODD: dict[str, Callable[[], nn.Module]] = {
    "weight norm": lambda: normalized(parametrizations.weight_norm),
    "computed kernels": lambda: normalized(computed),
    "ends in float64": lambda: last_in(torch.float64),
    "ends in float16": lambda: last_in(torch.float16),
    "remembers": remembers,
    "hooks of its own": hooked,
    "input in place": lambda: of(in_place),
    "keywords": lambda: of(with_words),
    "named tuple": lambda: of(lambda net, images: Named(maps := net.maps(images), net.head(maps))),
    "complex numbers": lambda: of(lambda net, images: net.head(torch.fft.ifft2(torch.fft.fft2(net.maps(images))).real)),
    "DataParallel": lambda: nn.DataParallel(of()),
}


def survey_of(scope: cs.Scope, folder: Path) -> np.ndarray:
    return cs.scan(scope, scanned.folder_of(folder / "images", 3), folder / "survey", layers=["5"]).maximum("5")


TECHNIQUES: dict[str, Callable[[cs.Scope, Path], Any]] = {
    "activations": lambda scope, _: torch.cat([value.flatten(1) for value in scope.activations(IMAGES, ["5", "output"]).values()], 1),
    "feature_visualization": lambda scope, _: cs.feature_visualization(scope, "5", [0, 3], **FEW).images,
    "of the output": lambda scope, _: cs.feature_visualization(scope, "output", [1], **FEW).images,
    "inversion": lambda scope, _: next(iter(cs.inversion(scope, "5", IMAGES[:1], steps=2).arrays())).array,
    "occlusion": lambda scope, _: cs.occlusion(scope, IMAGES[:1], 1, patch=8, stride=8).map,
    "deconvnet": lambda scope, _: cs.deconvnet(scope, "5", [0, 1], IMAGES[:1]).projection,
    "grad_cam": lambda scope, _: next(iter(cs.grad_cam(scope, IMAGES[:1], 1).arrays())).array,
    "scan": survey_of,
}


@functools.cache
def plain(technique: str, folder: Path) -> np.ndarray:
    return np.asarray(TECHNIQUES[technique](scope_on(of()), folder / "plain"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("odd")


@pytest.mark.parametrize("kind", ODD)
def test_the_same_values_and_the_network_as_it_was(kind: str, place: Path, tmp_path: Path) -> None:
    model, images = ODD[kind](), IMAGES.clone()
    hand_built.unsettle(model)
    before = hand_built.state_of(model)
    scope = scope_on(model)
    assert scope.layers.after_relu() == ["2", "5"] or kind in ("complex numbers", "hooks of its own")
    for technique, call in TECHNIQUES.items():
        made = np.asarray(call(scope, tmp_path / technique))
        close = 5e-3 if kind == "ends in float16" else 1e-4
        np.testing.assert_allclose(made, plain(technique, place), atol=close, rtol=close, err_msg=f"{kind}: {technique}")
        assert hand_built.state_of(model) == before, technique
    assert torch.equal(IMAGES, images)
    if kind == "remembers":
        assert (model.seen, model.table, "grid" in dict(model.named_buffers())) == ([], {}, False)  # type: ignore[attr-defined]


def test_units_of_computed_kernels() -> None:
    """Of many units only some are computed, which computed kernels must not be taken for."""
    model = hand_built.seeded(lambda: nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 64, 3)), nn.BatchNorm2d(64), nn.ReLU()))
    scope = scope_on(model)
    with scope.session(lean=True), torch.no_grad():
        some = scope.run(IMAGES, "2", units={"2": [40, 7]})["2"]
    with torch.no_grad():
        expected = model.eval()(scope.inputs.normalize(IMAGES))[:, [40, 7]]
    torch.testing.assert_close(some, expected, atol=1e-5, rtol=1e-5)


def test_bounds_of_computed_kernels_follow_their_weights() -> None:
    model = hand_built.seeded(lambda: nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3))))
    scope = scope_on(model)
    before = scope.bounds(["0"])["0"]
    model.get_submodule("0").parametrizations.weight.original0.data.mul_(2)  # type: ignore[union-attr]
    after, fresh = scope.bounds(["0"])["0"], scope_on(model).bounds(["0"])["0"]
    assert before is not None and after is not None and fresh is not None
    assert torch.equal(after.high, fresh.high) and not torch.equal(after.high, before.high)


def test_weights_made_in_the_first_forward() -> None:
    def run(net: Unusual, images: Tensor) -> Tensor:
        if not hasattr(net, "scale"):
            net.scale = nn.Parameter(torch.randn(1))
        return plainly(net, images) * net.scale

    model = of(run)
    with pytest.raises(BadInput, match=r"makes weights in its first forward \(scale\): run it on an image once, and then open it"):
        _ = scope_on(model).layers
    assert not hasattr(model, "scale")
    model(IMAGES)
    assert scope_on(model).layers["output"].channels == 5
