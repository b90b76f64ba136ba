"""Networks that cannot be looked at, or not with derivatives: one line that says where and why."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import convscope as cs
import hand_built
from convscope.errors import BadInput, BadWeights, ConvscopeError, NotReached
from convscope.scope import Inputs, Scope
from hand_built import built, draws

SIDE = 24
IMAGES = draws(2, 3, SIDE, SIDE)


def opened(model: nn.Module, **more: Any) -> Scope:
    return Scope(model, Inputs(size=SIDE), precision="float32", **more)


def quantized() -> nn.Module:
    """Conv and ReLU in int8, calibrated on noise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao import quantization as ao

        model = hand_built.seeded(
            lambda: nn.Sequential(ao.QuantStub(), nn.Conv2d(3, 4, 3), nn.ReLU(), ao.DeQuantStub(), nn.Flatten(), nn.Linear(4 * 22 * 22, 5))
        ).eval()
        model[5].qconfig = None
        model.qconfig = ao.get_default_qconfig("x86")  # type: ignore[assignment]
        ready = ao.prepare(model)
        ready(draws(4, 3, SIDE, SIDE))
        return ao.convert(ready)


def without(context: Callable[[], Any]) -> nn.Module:
    def forward(net: Any, images: Tensor) -> Tensor:
        with context():
            return net.head(net.relu(net.conv(images)).mean((2, 3)))

    return built(forward, conv=lambda: nn.Conv2d(3, 4, 3), relu=nn.ReLU, head=lambda: nn.Linear(4, 5))


def in_numpy() -> nn.Module:
    def forward(net: Any, images: Tensor) -> Tensor:
        return net.head(torch.from_numpy(net.relu(net.conv(images)).numpy().mean((2, 3))))

    return built(forward, conv=lambda: nn.Conv2d(3, 4, 3), relu=nn.ReLU, head=lambda: nn.Linear(4, 5))


def integers() -> nn.Module:
    def forward(net: Any, images: Tensor) -> Tensor:
        return net.head(net.relu((net.conv(images) * 64).to(torch.int8)).float().mean((2, 3)))

    return built(forward, conv=lambda: nn.Conv2d(3, 4, 3), relu=nn.ReLU, head=lambda: nn.Linear(4, 5))


FLAT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "no_grad": (lambda: without(torch.no_grad), "relu"),
    "inference_mode": (lambda: without(torch.inference_mode), "relu"),
    "numpy": (in_numpy, "head"),
    "integers": (integers, "relu"),
    "int8": (quantized, "2"),
}
"""Networks without derivatives, and a layer of each that has none."""
QUICK: dict[str, Any] = {"recipe": "fourier", "size": SIDE, "steps": 2}
NEED_DERIVATIVES: dict[str, Callable[[Scope, str], object]] = {
    "feature_visualization": lambda scope, layer: cs.feature_visualization(scope, layer, [0], **QUICK),
    "deconvnet": lambda scope, layer: cs.deconvnet(scope, layer, [0], IMAGES[:1], rule="gradient"),
    "inversion": lambda scope, layer: cs.inversion(scope, layer, IMAGES[:1], steps=2),
    "receptive_field": lambda scope, layer: cs.receptive_field(scope, layer),
    "vector_jacobian": lambda scope, layer: scope.vector_jacobian(IMAGES, layer),
    "activations": lambda scope, layer: scope.activations(IMAGES.clone().requires_grad_(), layer),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", FLAT)
class TestWithoutDerivatives:
    @pytest.mark.parametrize("technique", NEED_DERIVATIVES)
    def test_what_needs_one_is_refused(self, kind: str, technique: str) -> None:
        build, layer = FLAT[kind]
        with pytest.raises(BadInput, match=f"layer {layer}:? (its value )?does not depend (differentiably )?on the image") as caught:
            NEED_DERIVATIVES[technique](opened(build()), layer)
        assert "\n" not in str(caught.value)

    def test_what_needs_none_works(self, kind: str) -> None:
        build, layer = FLAT[kind]
        model = build()
        scope = opened(model)
        found = scope.activations(IMAGES, [layer, "output"])
        assert layer in repr(scope.layers) and found[layer].dtype == torch.float32
        with torch.no_grad():
            assert torch.equal(found["output"], model(IMAGES))
        found["output"] += 1  # a tensor like any other
        assert cs.spectrum(scope, layer, IMAGES).values.shape[0] == 2 and len(scope.weights_hash) == 16


def test_style_transfer_without_derivatives() -> None:
    scope = opened(without(torch.no_grad))
    with pytest.raises(BadInput, match="layer relu: its value does not depend differentiably on the image"):
        cs.style_transfer(scope, IMAGES[0], IMAGES[1], content_layer="relu", style_layers=["relu"], steps=2)


# --- networks that do not run on (1 3 h w), named with layer and shape


class TwoInputs(nn.Module):
    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        return images * mask


class FromDict(nn.Module):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["pixel_values"]


class Leaves(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise SystemExit(0)


UNUSABLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "wrong size": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 5)),
        r"layer 2 \(Linear\): RuntimeError: .*mat1",
    ),
    "other channels": (lambda: nn.Sequential(nn.ReLU(), nn.Conv2d(12, 4, 3)), r"layer 1 \(Conv2d\): RuntimeError"),
    "two inputs": (TwoInputs, "fails: TypeError: .*missing 1 required positional argument: 'mask'"),
    "dict": (FromDict, "fails: "),
    "1d": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3)), r"layer 0 \(Conv1d\): RuntimeError"),
    "3d": (lambda: nn.Sequential(nn.Conv3d(3, 4, 3)), r"layer 0 \(Conv3d\): a volume is expected"),
    "3d, one channel": (lambda: nn.Sequential(nn.Conv3d(1, 4, 3, padding=1)), r"layer 0 \(Conv3d\): a volume is expected"),
    "assertion": (lambda: nn.Sequential(networks_that_assert()), r"layer 0 \(Forward\): AssertionError: 224 only"),
    "exit": (lambda: nn.Sequential(Leaves()), r"layer 0 \(Leaves\): SystemExit"),
}


def networks_that_assert() -> nn.Module:
    def forward(_net: Any, images: Tensor) -> Tensor:
        if images.shape[-1] != 224:
            raise AssertionError("224\nonly")
        return images

    return built(forward)


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_network_that_does_not_run(kind: str) -> None:
    build, reason = UNUSABLE[kind]
    model = build()
    before = hand_built.state_of(model)
    with pytest.raises(BadInput, match=rf"does not run on one image \(1, 3, 24, 24\), the size of its Inputs: it .*{reason}") as caught:
        opened(model).activations(IMAGES, "output")
    assert "\n" not in str(caught.value) and hand_built.state_of(model) == before


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), "0.weight has no shape before the first forward"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, device="meta")), "0.weight is on the meta device"),
        (lambda: sparse(), r"0.weight is sparse \(sparse_coo\)"),
        (lambda: in_inference_mode(), "0.weight was made in torch's inference mode"),
    ],
    ids=["lazy", "meta", "sparse", "inference"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_weights_without_values(build: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(BadWeights, match=reason):
        Scope(build())


def in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return nn.Sequential(nn.Conv2d(3, 4, 3))


def sparse() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 4))
    model[0].weight = nn.Parameter(model[0].weight.detach().to_sparse())
    return model


def test_a_network_that_leaves_the_program_later() -> None:
    """On three images, where recording saw one and two: the command ended with code 0 and no output."""

    def forward(net: Any, images: Tensor) -> Tensor:
        if len(images) == 3:
            raise SystemExit(0)
        return net.conv(images)

    model = built(forward, conv=lambda: nn.Conv2d(3, 4, 3))
    scope = opened(model)
    before = hand_built.state_of(model)
    assert scope.activations(IMAGES, "conv")["conv"].shape == (2, 4, 22, 22)
    for ask in (
        lambda: scope.activations(draws(3, 3, SIDE, SIDE), "output"),
        lambda: scope.observe(draws(3, 3, SIDE, SIDE), ["output"], print),
    ):
        with pytest.raises(BadInput, match=r"the network leaves the program in its forward \(SystemExit: 0\)"):
            ask()
    assert hand_built.state_of(model) == before


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (Tensor.to_sparse, "sparse"),
        (lambda images: images.to("meta"), "on the meta device"),
        (lambda images: images[0].to_sparse(), "sparse"),
    ],
)
def test_images_without_values(form: Callable[[Tensor], Tensor], words: str) -> None:
    with pytest.raises(BadInput, match=f"in \\[0,1\\], got one that is {words}"):
        opened(hand_built.small()).activations(form(IMAGES), "4")


# --- scripted parts


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_a_scripted_part_is_passed_over(how: str) -> None:
    plain = hand_built.seeded(lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())).eval()
    part = torch.jit.script(plain) if how == "script" else torch.jit.trace(plain, torch.rand(1, 4, 22, 22))
    model = nn.Sequential(hand_built.linear_conv()[0], part, nn.Conv2d(4, 2, 1)).train()
    scope = opened(model)
    assert list(scope.layers) == ["0", "2", "output"]
    found = scope.activations(IMAGES, ["0", "output"])
    with torch.no_grad():
        assert torch.allclose(found["output"], copy.deepcopy(model).eval()(IMAGES), atol=1e-6)
    with pytest.raises(NotReached, match=r"layer '1\.0' is in this network, but it is scripted"):
        scope.activations(IMAGES, "1.0")
    assert cs.feature_visualization(scope, "2", [0], **QUICK).images.shape == (1, 3, SIDE, SIDE)
    assert model.training and part.training


# --- what a network returns


@dataclass
class Returned:
    features: Tensor
    logits: Tensor


class Slotted:
    __slots__ = ("features", "logits")

    def __init__(self, features: Tensor, logits: Tensor) -> None:
        self.features, self.logits = features, logits


def of_itself(head: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {}
    found |= {"me": found, "scores": head}
    return found


class Pair(NamedTuple):
    maps: Tensor
    classes: Tensor


def returning(form: Callable[[Tensor, Tensor], Any]) -> nn.Module:
    def forward(net: Any, images: Tensor) -> Any:
        maps = net.conv(images)
        return form(maps, net.head(maps.mean((2, 3))))

    return built(forward, conv=lambda: nn.Conv2d(3, 4, 3), head=lambda: nn.Linear(4, 5))


# also tried: a subclass of Tensor, numbers as keys, a frozen dataclass, two matrices, of which the first is taken
FORMS: dict[str, tuple[Callable[[Tensor, Tensor], Any], str, tuple[int, ...]]] = {
    "dict": (lambda maps, head: {"features": maps, "logits": head}, "logits", (5,)),
    "dataclass": (lambda maps, head: Returned(maps, head), "logits", (5,)),
    "tuple": (lambda maps, head: (maps, head), "1", (5,)),
    "named tuple": (lambda maps, head: Pair(maps, head), "classes", (5,)),
    "nested": (lambda maps, head: {"loss": head.sum(), "model": {"a": head[:, :2], "logits": [head]}}, "model.logits.0", (5,)),
    "segmentation": (lambda maps, head: {"aux": maps, "out": maps * 2}, "out", (4, 22, 22)),
    "object": (lambda maps, head: SimpleNamespace(boxes=None, scores=head), "scores", (5,)),
    "only maps": (lambda maps, _: [maps], "0", (4, 22, 22)),
    "slots": (lambda maps, head: Slotted(maps, head), "logits", (5,)),
    "of an auxiliary head": (lambda maps, head: {"aux": {"logits": head * 2}, "logits": head}, "logits", (5,)),
    "whole numbers": (lambda maps, head: (torch.zeros_like(head, dtype=torch.int32), head), "1", (5,)),
    "itself": (lambda maps, head: of_itself(head), "scores", (5,)),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_prediction_is_found(form: str) -> None:
    make, part, shape = FORMS[form]
    scope = opened(returning(make))
    assert scope.layers["output"].shape == shape and scope.layers["output"].part == part
    assert f"[{part}]" in repr(scope.layers)
    values = scope.activations(IMAGES, ["conv", "head", "output"])
    expected = values["head"] if shape == (5,) else values["conv"] * (2 if form == "segmentation" else 1)
    assert torch.equal(values["output"], expected)


@pytest.mark.parametrize("way", ["all", "end"])
def test_values_of_one_image_without_an_axis_of_images_say_so(way: str) -> None:
    """As `squeeze()` makes them of one image alone; also tried: a single logit as (n), classes as (n), complex numbers."""

    def forward(net: Any, images: Tensor) -> Tensor:
        values = net.conv(images).mean((2, 3))
        return net.head(values.squeeze()) if way == "all" else net.head(values).squeeze()

    scope = opened(built(forward, conv=lambda: nn.Conv2d(3, 4, 3), head=lambda: nn.Linear(4, 5)))
    with pytest.raises(NotReached, match=r"layer 'output' is in this network, but none of .* of one image .*: a tensor \(5,\) float32"):
        scope.activations(IMAGES, "output")
    if way == "all":
        with pytest.raises(NotReached, match=r"layer 'head' is in this network, but its value, of one image, is no \(n c \.\.\.\) tensor"):
            scope.activations(IMAGES, "head")
    assert scope.activations(IMAGES, "conv")["conv"].shape == (len(IMAGES), 4, 22, 22)


def test_the_prediction_is_named() -> None:
    model = returning(lambda maps, head: {"features": maps, "logits": head, "deep": {"maps": maps * 2}})
    for name, factor in (("features", 1), ("deep", 2), ("deep.maps", 2)):
        scope = opened(model, output=name)
        values = scope.activations(IMAGES, ["conv", "output"])
        assert torch.equal(values["output"], factor * values["conv"])
        assert cs.spectrum(scope, "output", IMAGES).manifest["network"]["output"] == name
    with pytest.raises(BadInput, match=r"output='scores': the network returned dict: features \(1, 4, 22, 22\) float32, logits \(1, 5\)"):
        _ = opened(model, output="scores").layers
    with pytest.raises(BadInput, match=r"output='0': the network returned a tensor \(1, 5\)"):
        _ = opened(hand_built.small(), output="0").layers


@pytest.mark.parametrize(
    ("form", "told"),
    [
        (lambda maps, _: [maps, maps], r"list: 0 \(1, 4, 22, 22\) float32, 1 \(1, 4, 22, 22\) float32"),
        (lambda maps, _: maps.sum(), r"a tensor \(\) float32"),
        (lambda maps, head: {"labels": head.argmax(1)}, r"dict: labels \(1,\) int64"),
        (lambda maps, head: None, "NoneType: no tensor"),
    ],
    ids=["maps", "number", "labels", "nothing"],
)
def test_no_prediction(form: Callable[[Tensor, Tensor], Any], told: str) -> None:
    scope = opened(returning(form))
    assert "output" not in scope.layers and scope.activations(IMAGES, "conv")["conv"].shape == (2, 4, 22, 22)
    with pytest.raises(ConvscopeError, match=f"'output' is in this network, but .*{told}"):
        scope.activations(IMAGES, "output")


def test_open_passes_the_part_on(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch, convscope as cs\n"
        "class Net(torch.nn.Conv2d):\n"
        "    def forward(self, x):\n"
        "        y = super().forward(x)\n"
        "        return {'maps': y, 'logits': y.mean((2, 3))}\n"
        "def build():\n"
        "    return Net(3, 4, 3), cs.Inputs(size=16)\n"
        "def scope():\n"
        "    return cs.Scope(Net(3, 4, 3), cs.Inputs(size=16), output='maps')\n"
    )
    assert cs.open(f"{path}:build").layers["output"].part == "logits"
    assert cs.open(f"{path}:build", output="maps").layers["output"].part == "maps"
    assert cs.open(f"{path}:scope").layers["output"].part == "maps"


# --- gradient checkpointing


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_has_no_effect_inside(reentrant: bool) -> None:
    """Also tried: a decorator, torchvision's memory_efficient, timm's set_grad_checkpointing of seven kinds, nested ones,
    checkpoint_sequential, keywords, selective contexts, CheckpointFunction itself, a function kept before, checkpoint_wrapper."""

    def forward(net: Any, images: Tensor) -> Tensor:
        return net.head(checkpoint(lambda values: net.relu(net.norm(net.conv(values))), images, use_reentrant=reentrant).mean((2, 3)))

    model = built(forward, conv=lambda: nn.Conv2d(3, 8, 3), norm=lambda: nn.BatchNorm2d(8), relu=nn.ReLU, head=lambda: nn.Linear(8, 5))
    scope = opened(model)
    assert cs.feature_visualization(scope, "relu", [0, 1], **QUICK).images.shape == (2, 3, SIDE, SIDE)
    leaf, other = IMAGES.clone().requires_grad_(), IMAGES.clone().requires_grad_()
    scope.activations(leaf, "relu")["relu"].square().sum().backward()
    model.relu(model.norm(model.conv(other))).square().sum().backward()
    assert leaf.grad is not None and other.grad is not None and torch.allclose(leaf.grad, other.grad, atol=1e-6)
    assert cs.deconvnet(scope, "relu", [0], IMAGES).projection.any()


def test_checkpointing_outside_is_as_before() -> None:
    runs: list[int] = []

    def counted(values: Tensor) -> Tensor:
        runs.append(1)
        return values.sin().sin()

    def recomputed() -> int:
        runs.clear()
        for reentrant in (False, True):
            checkpoint(counted, torch.ones(2, requires_grad=True), use_reentrant=reentrant).sum().backward()
        return len(runs)

    functions = dict(vars(torch.utils.checkpoint))
    scope = opened(hand_built.small())
    assert recomputed() == 4
    with scope.session(), torch.enable_grad():
        assert recomputed() == 2
        with scope.session():
            assert recomputed() == 2
        assert recomputed() == 2
        with ThreadPoolExecutor(1) as other:  # which trains meanwhile
            assert other.submit(recomputed).result() == 4
        values = torch.ones(2, requires_grad=True)
        checkpoint_sequential([counted, counted], 2, values, use_reentrant=False).sum().backward()
        assert values.grad is not None
    assert recomputed() == 4
    assert vars(torch.utils.checkpoint) == functions


def test_densenet_that_saves_memory() -> None:
    import torchvision

    model = torchvision.models.DenseNet(4, (2, 2), 8, num_classes=5, memory_efficient=True)
    scope = Scope(model, Inputs(size=32))
    assert cs.feature_visualization(scope, "output", [0], recipe="fourier", size=32, steps=2).images.shape == (1, 3, 32, 32)
