"""Words of the command line as values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from convscope.cli import words
from convscope.cli.running import units_of
from convscope.errors import BadInput
from convscope.ops.codes import FeatureMap, Purposeful, Reallocate
from convscope.results.class_maps import ClassMaps
from convscope.results.receptive_field import ReceptiveField

NONE = np.zeros((1, 8))
NAMED = ClassMaps(NONE, NONE, NONE, np.ones(1), layer="5", classes=("ants",), maps={"ants": (2,)})


def test_units() -> None:
    assert words.units("all") is None and words.units(" all ") is None
    assert words.units("0,3, 5-7 ,2") == [0, 3, 5, 6, 7, 2]
    assert words.units("3-3") == [3] and words.units(",") == []
    assert words.units("bee,red fox,0,3-4,-1,1-,1.5") == ["bee", "red fox", 0, 3, 4, "-1", "1-", "1.5"]
    for text in ("4-2", "0-999999999999"):
        with pytest.raises(BadInput, match=text):
            words.units(text)


def test_names() -> None:
    assert words.names("features.3") == "features.3" and words.names("a, b,") == ["a", "b"]
    assert words.several_names("a") == ["a"]


def test_pairs_and_positions() -> None:
    assert words.pair("16") == 16 and words.pair("16x32") == words.pair("16,32") == words.position("16x32") == (16, 32)
    for text in ("x", "16x", "-1", "1.5", "1,2,3", ""):
        with pytest.raises(BadInput, match="neither a whole number nor two"):
            words.pair(text)
    with pytest.raises(BadInput, match="'3' is not a position"):
        words.position("3")


def test_fills() -> None:
    assert words.fill("0.5") == 0.5 and words.fill("#ff0080") == (1.0, 0.0, 128 / 255)
    assert words.fill("median") == "median" and words.fill("photo.png") == "photo.png"


def test_edits() -> None:
    maps = [FeatureMap(0), FeatureMap(1), FeatureMap(2)]
    assert words.edits("map=3, own,map=0-2,reallocate=7") == [FeatureMap(3), None, *maps, Reallocate(7)]
    own, style = words.edits("own,purposeful=a/night.jpg")
    assert own is None and isinstance(style, Purposeful) and style.style == Path("a/night.jpg") and str(style) == "in the order of night"
    for text in ("map", "map=-1", "map=4-2", "style=2", "maps", "purposeful", "purposeful="):
        with pytest.raises(BadInput, match=r"is no edit|counts backwards"):
            words.edits(text)


def test_priors() -> None:
    assert words.prior("ijcv2016") == "ijcv2016"
    assert words.prior("cvpr2015*0.05") == ("cvpr2015", 0.05) and words.prior("cvpr2015*2e-3") == ("cvpr2015", 0.002)
    for text in ("cvpr2015*x", "cvpr2015*", "cvpr2015*-1"):
        with pytest.raises(BadInput, match="is no prior"):
            words.prior(text)


def test_numbers_and_settings() -> None:
    assert words.numbers_of(["features.6=12", "output=0"]) == {"features.6": 12, "output": 0}
    assert words.settings(["steps=64", "crop-size=8", "transform=none", "scale=(0.9, 1.1)", "mirror=false"]) == {
        "steps": 64,
        "crop_size": 8,
        "transform": "none",
        "scale": (0.9, 1.1),
        "mirror": False,
    }
    for given in (["a"], ["=3"], ["a="]):
        with pytest.raises(BadInput, match="expected NAME=VALUE"):
            words.settings(given)
    with pytest.raises(BadInput, match="'x' is not a whole number"):
        words.numbers_of(["a=x"])


def test_class_maps() -> None:
    assert words.maps(["ants=3,17", "bees=40"]) == {"ants": [3, 17], "bees": [40]}


class TestUnitsOf:
    """--maps and --class in place of --units. Tried beside these: maps of a detector, an empty class, exemplars with --class."""

    MAPS: ClassVar[dict[str, list[int]]] = {"ants": [3, 5], "bees": [5, 7], "none": []}

    def test_units(self) -> None:
        assert units_of("5", False, maps=self.MAPS, classes=["ants"]) == [3, 5]
        assert units_of("5", False, maps=self.MAPS, classes=["bees", "ants"]) == [5, 7, 3]
        assert units_of("5", False, maps={"ants": [1]}) == [1]
        assert units_of("5", True, maps=self.MAPS, classes=["bees"]) == {"bees": (5, 7)}
        assert units_of("5", False, maps=NAMED) == [2]

    @pytest.mark.parametrize(
        ("layer", "asked", "said"),
        [
            ("5", {"maps": MAPS}, "maps of 3 classes; say of which: --class ants"),
            ("5", {"maps": MAPS, "classes": ["wasps"]}, "maps have none for class 'wasps'; they are for ants, bees, none"),
            ("5", {"maps": MAPS, "classes": ["none"]}, "class none has no map of its own"),
            ("6", {"maps": NAMED}, "class maps of layer 6, got class_maps of layer 5"),
            ("5", {"maps": object.__new__(ReceptiveField)}, "got receptive_field of layer none"),
        ],
        ids=["several", "unknown", "empty", "layer", "another result"],
    )
    def test_refusals(self, layer: str, asked: dict[str, Any], said: str) -> None:
        with pytest.raises(BadInput, match=re.escape(said)):
            units_of(layer, False, **asked)

    def test_lists(self) -> None:
        assert words.lists_of(["dog=151-153,160", "cat=281"]) == {"dog": [151, 152, 153, 160], "cat": [281]}
        assert words.lists_of(["dog=golden retriever,207", "cat=tabby"]) == {"dog": ["golden retriever", 207], "cat": ["tabby"]}
        with pytest.raises(BadInput, match="which units"):
            words.lists_of(["dog=all"])
