"""The `technique` decorator: a wrong subject, a wrong choice, a wrong call, and what a manifest records."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convscope as cs
import hand_built
from convscope.errors import AmbiguousLayer, LayerNotFound
from convscope.results.base import Array, Result, axes
from convscope.results.provenance import SUBJECTS, Choices, technique

TECHNIQUES = [
    name
    for name in cs.__all__
    if getattr(getattr(cs, name), "__module__", "") in (f"convscope.{home}.{name}" for home in ("techniques", "analyses"))
]
Rule: TypeAlias = Literal["first", "second"]


class Stand:
    """A subject without a network."""

    subject = "scope"

    def provenance(self) -> Mapping[str, Any]:
        return {"network": {"name": "none"}, "libraries": ("pillow",)}

    def entered(self, seed: int | None = None) -> AbstractContextManager[Any]:
        return nullcontext()


@dataclass(frozen=True, eq=False)
class Chosen(Result):
    values: Array = axes("n")
    rule: str = ""


@technique
def chosen(
    scope: Stand,
    layer: str,
    images: Any = None,
    *,
    rule: Rule = "first",
    mode: Literal["mean", "max"] | None = None,
    stride: Literal["auto"] | int = "auto",
    fill: Literal["gray", "mean"] | str = "gray",
) -> Chosen:
    return Chosen([1, 2], str(rule))


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_wrong_subject_is_refused_with_the_order_of_arguments(name: str) -> None:
    function = getattr(cs, name)
    parameters = list(inspect.signature(function).parameters.values())
    positional = [each.name for each in parameters if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    required = [
        each for each in parameters if each.default is inspect.Parameter.empty and each.kind is not inspect.Parameter.VAR_POSITIONAL
    ]
    for wrong in ("vgg16", None, 3):
        with pytest.raises(cs.ConvscopeError) as raised:
            function(wrong, *["x"] * (len(required) - 1))
        message = str(raised.value)
        assert message.startswith(f"{name}({', '.join(positional)}): {positional[0]} must be {SUBJECTS[positional[0]]}")
        assert message.endswith(f"got {type(wrong).__name__}")


@pytest.mark.parametrize("name", TECHNIQUES)
def test_too_few_arguments_are_told_with_their_order(name: str) -> None:
    first = next(iter(inspect.signature(getattr(cs, name)).parameters))
    with pytest.raises(TypeError, match=rf"^{name}\({first}.*\): missing a required argument"):
        getattr(cs, name)()


@pytest.mark.parametrize("name", TECHNIQUES)
def test_choices_are_literals_and_defaults_are_among_them(name: str) -> None:
    for parameter, hint in get_type_hints(getattr(cs, name)).items():
        default = parameter != "return" and inspect.signature(getattr(cs, name)).parameters[parameter].default
        found = Choices.of(hint)
        if found and default is not inspect.Parameter.empty:
            found.check(parameter, default)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rule": "third"}, "rule must be first or second, got 'third'"),
        ({"rule": "secnd"}, "rule must be first or second, got 'secnd'; near names: second"),
        ({"rule": None}, "rule must be first or second, got None"),
        ({"rule": 1}, "rule must be first or second, got 1"),
        ({"mode": "sum"}, "mode must be mean or max, got 'sum'"),
        ({"mode": 0}, "mode must be mean or max, got 0"),
        ({"stride": "auto "}, "stride must be auto, got 'auto '; near names: auto"),
    ],
)
def test_a_value_that_is_no_choice_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(cs.errors.BadInput) as raised:
        chosen(Stand(), "conv1", **given)
    assert str(raised.value) == f"{message} [technique=chosen, layer=conv1]"


@pytest.mark.parametrize("given", [{}, {"rule": "second"}, {"mode": None}, {"mode": "max"}, {"stride": 3}, {"fill": "a.png"}])
def test_choices_and_other_types_are_taken(given: dict[str, Any]) -> None:
    chosen(Stand(), "conv1", **given)


def test_a_technique_of_the_library_refuses_a_wrong_choice(scope: cs.Scope) -> None:
    with pytest.raises(cs.errors.BadInput, match=r"reduce must be mean or max, got 'maximum'; near names: max"):
        cs.spectrum(scope, "2", np.zeros((8, 8, 3), np.uint8), reduce="maximum")


def test_the_manifest_records_every_parameter() -> None:
    result = chosen(Stand(), "conv1", np.zeros((2, 3), np.float32), mode="max")
    assert result.manifest["technique"] == "chosen"
    assert result.manifest["network"] == {"name": "none"}
    assert set(result.manifest["versions"]) == {"convscope", "numpy", "pillow", "python"}
    assert result.manifest["parameters"] == {
        "layer": "conv1",
        "images": "ndarray float32 (2, 3)",
        "rule": "first",
        "mode": "max",
        "stride": "auto",
        "fill": "gray",
    }


def test_arguments_in_another_order(tmp_path: Path) -> None:
    """Every technique with a layer. Further ones: a list of images, a unit, a survey for a scope."""
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    scope = cs.Scope(hand_built.small(), cs.Inputs(size=16), name="small")
    images = hand_built.draws(2, 3, 16, 16)
    for layer, words in {
        str(tmp_path / "a.png"): "got the file or folder",
        tmp_path: "got the file or folder",
        "nowhere.jpg": "got the file or folder nowhere.jpg",
        images: "got Tensor",
        3: "got int",
    }.items():
        for call in (
            lambda: cs.spectrum(scope, layer, "2"),  # noqa: B023
            lambda: cs.activation_grid(scope, "2", layer),  # noqa: B023
            lambda: cs.map_overlay(scope, layer, images),  # noqa: B023
            lambda: cs.feature_visualization(scope, layer, [0]),  # noqa: B023
            lambda: cs.deconvnet(scope, layer, [0], images),  # noqa: B023
        ):
            with pytest.raises(LayerNotFound) as error:
                call()
            shown = str(error.value)
            assert "layer must be the name of a layer" in shown and words in shown and "\n" not in shown and len(shown) < 400, shown
    with pytest.raises(LayerNotFound, match="no layer 'nonsense' in this network; it has, among others: 2, 5"):
        cs.activation_grid(scope, images, "nonsense")


class Numbered(nn.Module):
    """Layers as torchvision numbers them: features.0 and classifier.0, and a block with a 1 of its own."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), block)
        self.classifier = nn.Sequential(nn.Flatten(), nn.LazyLinear(5))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images))


def test_layers_by_number() -> None:
    network = Numbered()
    images = hand_built.draws(2, 3, 16, 16)
    network(images)
    scope = cs.Scope(network, cs.Inputs(size=16), name="numbered")
    made = cs.spectrum(scope, "2", images)
    assert made.layer == "features.2" and made.manifest["parameters"]["layer"] == "features.2"
    assert (made.values == cs.spectrum(scope, "features.2", images).values).all()
    assert cs.activation_grid(scope, images, ["2"]).layers == ("features.2",)
    assert cs.spectrum(scope, "3", images).layer == "features.3"
    with pytest.raises(AmbiguousLayer, match=r"layer 0: 2 layers have this number; say which: features\.0, features\.3\.0"):
        cs.spectrum(scope, "0", images)
    with pytest.raises(LayerNotFound, match="no layer '17'"):
        cs.spectrum(scope, "17", images)
    plain = cs.Scope(hand_built.small(), cs.Inputs(size=24))
    assert cs.spectrum(plain, "5", hand_built.draws(1, 3, 24, 24)).layer == "5", "a name is a name"


def test_of_layers_with_one_number_those_with_maps_are_meant() -> None:
    network = nn.Sequential()
    network.add_module("features", nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", nn.Sequential(nn.Linear(4, 5), nn.ReLU()))
    scope = cs.Scope(network, cs.Inputs(size=16))
    assert (
        cs.weight_grid(scope, "0").layer == "features.0" and cs.spectrum(scope, "1", hand_built.draws(1, 3, 16, 16)).layer == "features.1"
    )
