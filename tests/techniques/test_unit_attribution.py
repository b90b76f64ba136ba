"""Unit attribution against plain hooks in float64 and Captum, on units of known effect, with several images and classes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

import convscope as cs
import hand_built
import promises
from convscope.errors import BadInput
from convscope.scope import Inputs, Scope
from hand_built import draws

PROMISE = promises.Promise(
    lambda s: cs.unit_attribution(s, promises.IMAGES[:2], layer="5", top=2), "(result.mean(), result.view().note)", forwards=6
)

NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "squeezenet1_1": (lambda: torchvision.models.squeezenet1_1(weights=None), "features.9"),
    "resnet18": (lambda: torchvision.models.resnet18(weights=None), "layer3"),
    "mobilenet_v3_small": (lambda: torchvision.models.mobilenet_v3_small(weights=None), "features.9"),
    "densenet121": (lambda: torchvision.models.densenet121(weights=None), "features.denseblock3"),
}


def plain(name: str) -> tuple[nn.Module, str]:
    """A network of random weights whose ReLUs leave alone what a hook keeps, and its layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETWORKS[name][0]().eval()
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return model, NETWORKS[name][1]


def log_odds(logits: Tensor, target: int, against: int | None) -> Tensor:
    others = [value for index, value in enumerate(logits) if index != target] if against is None else [logits[against]]
    return logits[target] - torch.stack(others).exp().sum().log()


def twin(model: nn.Module, layer: str, image: Tensor, target: int, against: int | None, units: list[int]) -> tuple[np.ndarray, list[float]]:
    """Activation times derivative of the score, summed over positions, (unit); and the score lost without each of `units`: float64."""
    model = copy.deepcopy(model).double().eval()
    module = model.get_submodule(layer)
    kept: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, value: kept.append(value))
    score = log_odds(model(image[None].double())[0], target, against)
    handle.remove()
    slope = torch.autograd.grad(score, kept[0])[0][0]
    attribution = np.array([float((maps.detach() * own).sum()) for maps, own in zip(kept[0][0], slope, strict=True)])
    lost: list[float] = []
    for unit in units:

        def silence(_module: nn.Module, _inputs: object, value: Tensor, unit: int = unit) -> Tensor:
            value = value.clone()
            value[:, unit] = 0
            return value

        handle = module.register_forward_hook(silence)
        with torch.no_grad():
            lost.append(float(score.detach() - log_odds(model(image[None].double())[0], target, against)))
        handle.remove()
    return attribution, lost


@pytest.mark.parametrize("against", [None, 7])
@pytest.mark.parametrize("name", NETWORKS)
def test_against_plain_hooks(name: str, against: int | None) -> None:
    model, layer = plain(name)
    images = draws(2, 3, 64, 64)
    found = cs.unit_attribution(Scope(model, Inputs(size=64), precision="float32"), images, 3, against=against, layer=layer, top=2)
    for row, image in enumerate(images):
        attribution, lost = twin(model, layer, image, 3, against, list(found.units))
        np.testing.assert_allclose(found.attribution[row], attribution, atol=2e-5 * np.abs(attribution).max())
        np.testing.assert_allclose(found.effect[row], lost, atol=2e-4 * np.abs(lost).max())
        np.testing.assert_allclose(found.maps[row].sum((1, 2)), found.attribution[row][list(found.units)], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_against_captum(name: str) -> None:
    captum = pytest.importorskip("captum.attr", reason="Captum is in the extra `bench`")
    model, layer = plain(name)
    model, images = model.double(), draws(2, 3, 64, 64).double()
    found = cs.unit_attribution(Scope(model, Inputs(size=64)), images, 3, against=5, layer=layer, top=1)
    known = captum.LayerGradientXActivation(lambda x: (logits := model(x))[:, 3] - logits[:, 5], model.get_submodule(layer)).attribute(
        images
    )
    known = known.detach().flatten(2).sum(2).numpy()
    np.testing.assert_allclose(found.attribution, known, atol=1e-6 * np.abs(known).max())


def planted() -> nn.Module:
    """Two classes; unit 0 is the red of the image and raises class 1, unit 1 its green and raises class 0, unit 2 is not read."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        model[0].weight[:] = torch.eye(3)[:, :, None, None]
        model[4].weight[:] = torch.tensor([[0.0, 4.0, 0.0], [8.0, 0.0, 0.0]])
    return model


def test_units_of_known_effect() -> None:
    images = torch.zeros(3, 3, 8, 8)
    images[:2, 1] = 0.5  # green, as the class's own; the second image has a red corner, too
    images[1, 0, :4] = 1
    images[2, 1] = 0.25
    found = cs.unit_attribution(Scope(planted(), Inputs(size=8, classes=["bee", "ant"])), images, "ant", layer="1", top=3)
    assert found.units == (0, 1) and found.raising == 1, "unit 2 changes nothing"
    np.testing.assert_allclose(found.score, [-2, 2, -1], atol=1e-5)
    np.testing.assert_allclose(found.effect, [[0, -2], [4, -2], [0, -1]], atol=1e-5)
    np.testing.assert_allclose(found.attribution, [[0, -2, 0], [4, -2, 0], [0, -1, 0]], atol=1e-5)
    np.testing.assert_allclose(found.together, [0, 4, 0], atol=1e-5)
    assert found.own.tolist() == [False, True, False] and found.predicted_without.tolist() == [0, 0, 0]
    assert found.shown.tolist() == [1, 0, 2], "images taken for the class come first"
    assert found.maps[0, 0, :4].sum() == pytest.approx(4, abs=1e-5) and not found.maps[0, 0, 4:].any()
    said = found.summary()
    assert "1 ant: score lost without a unit of 1 (log-odds; mean over the 1 of 3 images predicted as it | over the other 2)" in said
    assert "raised by unit 0: 4.00 | 0.00" in said and "lowered by unit 1: -2.00 | -1.50" in said
    assert "without units 0 together 4.00 is lost: the prediction changes" in said
    assert "  more on the images predicted as it (the others lack what they see): 0\n" in said and "more on the other images" not in said


def test_the_next_commands_name_the_folder_of_the_labels(tmp_path: Path) -> None:
    for label in ("ants", "bees"):
        (tmp_path / "val set" / label).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), (255 * number, 99, 0)).save(tmp_path / "val set" / label / f"{number}.png")
    scope = Scope(planted(), Inputs(size=8, classes=["bee", "ant"]), name="planted", weights="own.pth")
    said = cs.unit_attribution(scope, str(tmp_path / "val set" / "ants"), "ant", layer="1").summary()
    assert f"convscope knockout planted 1 '{tmp_path / 'val set'}' --units 0 --weights own.pth" in said
    assert "convscope exemplars SURVEY 1 --units 0" in said
    one = cs.unit_attribution(scope, str(tmp_path / "val set" / "ants" / "1.png"), "ant", layer="1").summary()
    assert "convscope knockout planted 1 PHOTOS --units 0" in one


def test_one_image_and_the_class_that_it_is_predicted_as() -> None:
    scope = Scope(hand_built.small(), Inputs(size=24), precision="float32")
    images = draws(2, 3, 24, 24)
    found = cs.unit_attribution(scope, images, layer="5", top=2)
    assert found.own.all() and list(found.targets) == found.predicted.tolist()
    for row in range(2):
        alone = cs.unit_attribution(scope, images[row : row + 1], layer="5", top=2)
        np.testing.assert_allclose(alone.attribution[0], found.attribution[row], rtol=1e-4, atol=1e-6)
    assert "mean over 2 images, all predicted as it" in found.summary()
    assert len(set(found.targets)) == 1 and "different classes" not in found.summary()


def test_different_predictions_are_said() -> None:
    images = torch.zeros(2, 3, 8, 8)
    images[0, 0], images[1, 1] = 1, 1
    found = cs.unit_attribution(Scope(planted(), Inputs(size=8, classes=["bee", "ant"])), images, layer="1", top=2)
    assert found.targets == (1, 0) and "each image's own is followed" in found.summary()
    np.testing.assert_allclose(found.maps.sum((2, 3)), found.attribution[:, list(found.units)], atol=1e-5)


def test_a_dense_layer_has_no_maps() -> None:
    def build() -> nn.Sequential:
        pooled = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return nn.Sequential(*pooled, nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

    found = cs.unit_attribution(Scope(hand_built.seeded(build), Inputs(size=16)), draws(2, 3, 16, 16), 1, layer="5", top=2)
    assert found.maps.shape[2:] == (0, 0) and found.attribution.shape == (2, 6)
    assert found.view().panels


def test_refusals() -> None:
    scope = Scope(planted(), Inputs(size=8, classes=["bee", "ant"]))
    images = torch.zeros(2, 3, 8, 8)
    images[:, 0] = 1
    for message, options in (
        ("output's own units", {"layer": "output"}),
        ("is the target itself", {"target": "ant", "against": 1, "layer": "1"}),
        ("predicted as that class itself", {"against": "ant", "layer": "1"}),
        ("top must be", {"top": 0, "layer": "1"}),
    ):
        with pytest.raises(BadInput, match=message):
            cs.unit_attribution(scope, images, **options)
    with pytest.raises(BadInput, match="two or more classes"):
        cs.unit_attribution(Scope(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 1, 1)), Inputs(size=8)), images, layer="1")
