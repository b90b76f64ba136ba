"""Recipes: the articles' parameters, and values that make no sense."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from convscope.errors import BadInput
from convscope.optimize.recipes import RECIPES, Recipe, RecipeName, find_recipe
from convscope.optimize.transforms import RandomAffine, RandomCrops


def test_sides_of_the_forty_line_article() -> None:
    assert RECIPES["multiscale"].sides(224) == [56, 67, 80, 96, 115, 138, 165, 198, 237, 284, 340, 408]


def test_sides_of_feature_map_visualizer() -> None:
    expected = [33, 39, 46, 55, 66, 79, 94, 112, 134, 160, 192, 230, 276, 331, 397, 476, 571, 685, 822, 986]
    assert RECIPES["multiscale-sigmoid"].sides(224) == expected


def test_the_articles_parameters() -> None:
    def numbers(name: str, *keys: str) -> list[object]:
        return [getattr(RECIPES[name], key) for key in keys]

    keys = ("parameterization", "optimizer", "learning_rate", "weight_decay", "steps", "start_range", "blur", "reduce", "transform")
    assert numbers("multiscale", *keys) == ["normalized", "adam", 0.1, 1e-6, 20, (150, 180), None, "mean", "none"]
    assert numbers("multiscale-sigmoid", *keys) == ["sigmoid", "adam", 0.2, 1e-6, 20, (150, 180), None, "mean", "none"]
    assert numbers("pixels", *keys) == ["pixels", "normalized-gradient", 1.0, 0.0, 40, (128, 148), None, "mean", "none"]
    assert RECIPES["pixels"].sides(224) == [150]
    for name in ("crops", "fourier"):
        assert numbers(name, "parameterization", "optimizer", "weight_decay", "start_range") == ["fourier", "adam", 0.0, (0, 0.01)]
    lucid = RECIPES["fourier"].random_transform()
    assert isinstance(lucid, RandomAffine)
    assert (lucid.pad, lucid.jitter, lucid.scale, lucid.rotate, RECIPES["fourier"].learning_rate) == (12, (8, 4), (0.9, 1.1), 10.0, 0.05)


def test_a_recipe_without_size_takes_the_networks() -> None:
    assert find_recipe("pixels", size=None, stages=3, enlargement=1.5).sides(20) == [20, 30, 45]


def test_transforms() -> None:
    assert RECIPES["multiscale"].random_transform() is None
    assert isinstance(RECIPES["crops"].random_transform(), RandomCrops)
    assert find_recipe("crops", crop_size=32).random_transform().output_side(500) == 32  # type: ignore[union-attr]


def test_changing_parameters() -> None:
    changed = find_recipe("crops", steps=7, crop_start=[0.5, 1.0])
    assert (changed.steps, changed.crop_start, changed.name) == (7, (0.5, 1.0), "crops")
    assert RECIPES["crops"].steps != 7
    assert find_recipe(changed) == changed
    assert all(find_recipe(name) == recipe for name, recipe in RECIPES.items())


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"stepz": 3}, "no parameter 'stepz'; near names: steps"),
        ({"name": "mine"}, "no parameter 'name'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 2.5}, "steps must be int, got 2.5"),
        ({"steps": "many"}, "steps must be int, got 'many'"),
        ({"steps": True}, "steps must be int, got True"),
        ({"steps": None}, "steps must be int, got None"),
        ({"learning_rate": "fast"}, "learning_rate must be float, got 'fast'"),
        ({"learning_rate": float("nan")}, "learning_rate must be float, got nan"),
        ({"size": "big"}, r"size must be int \| None, got 'big'"),
        ({"size": 4}, "size must be at least 8, got 4"),
        ({"parameterization": "jpeg"}, "parameterization must be pixels, normalized, sigmoid, fourier, got 'jpeg'"),
        ({"transform": "askew"}, "transform must be none, crops, affine, got 'askew'"),
        ({"optimizer": "sgd"}, "optimizer must be adam, normalized-gradient, got 'sgd'"),
        ({"reduce": "max"}, "reduce must be mean, sum, center, got 'max'"),
        ({"crop_start": 0.5}, r"crop_start must be tuple\[float, float\], got 0.5"),
        ({"crop_start": (0.5,)}, r"crop_start must be tuple\[float, float\]"),
        ({"jitter": (1.5, 2)}, r"jitter must be tuple\[int, int\]"),
        ({"stages": 2}, "a Fourier image has one size"),
        ({"enlargement": 0.5}, "enlargement must be at least 1"),
    ],
)
def test_wrong_parameters(numbers: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        find_recipe("crops", **numbers)
    assert "\n" not in str(caught.value)


def test_unknown_recipes() -> None:
    with pytest.raises(BadInput, match="no recipe 'cropz'; there are: crops, fourier, multiscale, multiscale-sigmoid, pixels"):
        find_recipe("cropz")
    assert get_args(RecipeName) == tuple(RECIPES)


def test_every_parameter_is_explained() -> None:
    text = Recipe.__doc__ or ""
    for field in dataclasses.fields(Recipe):
        assert field.name in text, field.name


@pytest.mark.parametrize(
    ("article", "ours"),
    [("upscaling_steps", "stages"), ("upscaling_factor", "enlargement"), ("opt_steps", "steps"), ("lr", "learning_rate")],
)
def test_names_of_the_articles_are_answered_with_ours(article: str, ours: str) -> None:
    with pytest.raises(BadInput, match=f"^a recipe has no parameter '{article}': it is called {ours} here$"):
        find_recipe("multiscale", **{article: 3})
    assert hasattr(RECIPES["multiscale"], ours)


def test_changes_are_those_from_the_recipe_of_that_name() -> None:
    assert find_recipe("crops").changes() == {}
    assert find_recipe("crops", steps=7, jitter=[1, 2]).changes() == {"steps": 7, "jitter": (1, 2)}
    assert set(Recipe("own", "pixels").changes()) >= {"parameterization", "steps"}
