"""Every technique against every promise: the network untouched, also after an exception; the same twice; saved and loaded; few forwards."""

from __future__ import annotations

import copy
import functools
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
import fresh
import hand_built
import networks
import scanned
import torch_defaults
from convscope.errors import BadInput
from convscope.results.base import Result
from convscope.scope import Inputs, Scope

SIDE = 24
IMAGES = hand_built.draws(4, 3, SIDE, SIDE, seed=3)


SURVEYS: dict[str, cs.Survey] = {}
DETECTORS: dict[str, cs.Detector] = {}


def survey(scope: Scope) -> cs.Survey:
    """A survey of four images by a copy of the scope's network, made once."""
    if scope.weights_hash not in SURVEYS:
        folder = Path(tempfile.mkdtemp())
        SURVEYS[scope.weights_hash] = cs.scan(
            scope_on(copy.deepcopy(scope.model)), scanned.folder_of(folder / "images", 4), folder / "survey"
        )
    return SURVEYS[scope.weights_hash]


def detector(scope: Scope) -> cs.Detector:
    """A detector of two classes by the scope's network, made once."""
    if scope.weights_hash not in DETECTORS:
        folder = Path(tempfile.mkdtemp())
        files = scanned.folder_of(folder / "images", 15)
        made = cs.scan(scope_on(copy.deepcopy(scope.model)), files, folder / "survey", layers=["5"])
        DETECTORS[scope.weights_hash] = cs.detector(made, "5", {"ant": [0, 1], "bee": [2]}, draws=9)
    return DETECTORS[scope.weights_hash]


CALLS: dict[str, tuple[Callable[[Scope], Result], int]] = {
    "alarm": (lambda s: cs.alarm(s, detector(s), IMAGES[:2]), 1),
    "feature_visualization": (
        lambda s: cs.feature_visualization(s, "5", [0, 1], recipe="fourier", size=SIDE, steps=3),
        21,
    ),  # with every detour
    "spectrum": (lambda s: cs.spectrum(s, "5", IMAGES), 1),
    "hypothesis": (lambda s: cs.hypothesis(s, "5", 0, IMAGES[:2], IMAGES[2:], permutations=9), 2),
    "receptive_field": (lambda s: cs.receptive_field(s, "4"), 1),
    "activation_grid": (lambda s: cs.activation_grid(s, IMAGES[:2], follow={"5": 3}), 4),  # a path for each image
    "weight_grid": (lambda s: cs.weight_grid(s, "0"), 0),
    "map_overlay": (lambda s: cs.map_overlay(s, "5", IMAGES[:2], top=3), 2),
    "occlusion": (lambda s: cs.occlusion(s, IMAGES[:2], patch=6, stride=6), 8),  # of each picture: itself, two checks, the record
    "grad_cam": (lambda s: cs.grad_cam(s, IMAGES[:2], layer="5"), 2),
    "deconvnet": (lambda s: cs.deconvnet(s, "5", [0, 1], IMAGES[:2]), 2),
    "knockout": (lambda s: cs.knockout(s, "5", [0, 2], IMAGES, controls=2), 2),  # the check by a hook, and the record
    "top_patches": (lambda s: cs.top_patches(s, survey(s), "5", [0, 3], top=2), 1),
    "inversion": (lambda s: cs.inversion(s, "5", IMAGES[:2], edit=[None, cs.FeatureMap(1)], steps=3), 5),
    "style_transfer": (lambda s: cs.style_transfer(s, IMAGES[0], [IMAGES[1], IMAGES[2]], steps=3), 9),
    "style_similarity": (lambda s: cs.style_similarity(s, IMAGES[:3], groups=["a", "a", "b"]), 3),
}
"""How each technique is called on a small network, and how many forwards that may take beyond the one that records the layers."""

METHODS = {
    "alarm": "result.sounded()",
    "feature_visualization": "result.view().note",
    "spectrum": "(result.spikes(3), result.rank(2))",
    "hypothesis": "result.view().title",
    "receptive_field": "result.box(2, 3)",
    "activation_grid": "(result.grid('5', 1), result.dead_units('5'), result.path(1))",
    "weight_grid": "result.collated()",
    "map_overlay": "(result.masks(1), result.masked())",
    "occlusion": "result.view().subtitle",
    "grad_cam": "(result.at_image_size(), result.view().note)",
    "deconvnet": "result.view().subtitle",
    "knockout": "(result.effect(), result.view().note)",
    "top_patches": "result.evidence_map(1, 1)",
    "inversion": "result.evaluations",
    "style_transfer": "result.remaining()",
    "style_similarity": "result.nearest('gram')",
}
"""What each result can say beyond its fields, for a result that was loaded in another process to be held against."""


def scope_on(model: nn.Module) -> Scope:
    count = next(module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d))
    mean, std = ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)) if count == 3 else ((0.4,) * count, 0.25)
    return Scope(model, Inputs(size=SIDE, mean=mean, std=std), precision="float32", name="small")


@functools.cache
def plain(name: str) -> Result:
    """What a technique gives on the small network."""
    return CALLS[name][0](scope_on(hand_built.small()))


def random_states() -> tuple[object, ...]:
    """The states of the global generators of torch, NumPy and Python."""
    return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()), random.getstate()  # noqa: NPY002


def same(one: Any, other: Any) -> bool:
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return bool(one == other or (one != one and other != other))  # NaN where nothing could be compared


def equal(one: Result, other: Result) -> bool:
    pairs = zip(one.arrays(), other.arrays(), strict=True)
    return all(same(a.array, b.array) for a, b in pairs) and all(same(value, other.extras()[key]) for key, value in one.extras().items())


def test_the_matrix_has_every_technique() -> None:
    folder = Path(cs.__file__).parent / "techniques"
    support = {"__init__", "strongest_path", "fills", "style_layers"}
    assert set(CALLS) == {path.stem for path in folder.glob("*.py")} - support


def test_a_fresh_process_loads_the_class_of_every_technique(tmp_path: Path) -> None:
    results = {name: call(scope_on(hand_built.small())) for name, (call, _) in CALLS.items()}
    folders = {name: result.save(tmp_path / name, figure=False) for name, result in results.items()}
    for name, (cls, summary, value) in fresh.load_in_a_fresh_process(folders, METHODS).items():
        assert cls == f"convscope.results.{name}.{type(results[name]).__name__}" and summary == results[name].summary()
        assert same(eval(METHODS[name], {"result": results[name]}), value), name


@pytest.mark.parametrize("name", CALLS)
class TestTechnique:
    def test_network_is_untouched(self, name: str) -> None:
        model = hand_built.small()
        hand_built.unsettle(model)
        before = hand_built.state_of(model)
        CALLS[name][0](scope_on(model))
        assert hand_built.state_of(model) == before

    def test_network_is_untouched_after_an_exception_in_mid_forward(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if CALLS[name][1] == 0:
            pytest.skip("runs no forward of its own")
        model = hand_built.small()
        hand_built.unsettle(model)
        scope = scope_on(model)
        assert scope.layers
        before = hand_built.state_of(model)
        batch_norm = torch.nn.functional.batch_norm

        def broken(*_: object, **__: object) -> None:
            raise ArithmeticError("in mid-forward")

        monkeypatch.setattr(torch.nn.functional, "batch_norm", broken)
        with pytest.raises(ArithmeticError):
            CALLS[name][0](scope)
        monkeypatch.setattr(torch.nn.functional, "batch_norm", batch_norm)
        assert hand_built.state_of(model) == before

    def test_same_twice(self, name: str) -> None:
        first, second = (CALLS[name][0](scope_on(hand_built.small())) for _ in range(2))
        assert equal(first, second)

    @pytest.mark.parametrize("default", torch_defaults.DEFAULTS)
    def test_torch_defaults_do_not_reach_it(self, name: str, default: str) -> None:
        expected, model = plain(name), hand_built.small()
        with torch_defaults.set_to(default):
            assert equal(CALLS[name][0](scope_on(model)), expected)

    def test_a_network_built_in_float64(self, name: str) -> None:
        expected, narrow = plain(name), hand_built.small()
        with torch_defaults.set_to("float64"):
            model = hand_built.small()
            assert next(model.parameters()).dtype == torch.float64
            model.load_state_dict(narrow.state_dict())
            wide = CALLS[name][0](scope_on(model))
        for one, other in zip(expected.arrays(), wide.arrays(), strict=True):
            assert np.allclose(one.array, other.array, rtol=1e-2, atol=1e-3, equal_nan=True), one.name

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_gradients_may_be_off_around_it(self, name: str, mode: Callable[[], AbstractContextManager[Any]]) -> None:
        plain, scope = CALLS[name][0](scope_on(hand_built.small())), scope_on(hand_built.small())
        with mode():
            assert equal(CALLS[name][0](scope), plain)

    @pytest.mark.parametrize("kind", networks.UNUSUAL)
    def test_unusual_networks(self, name: str, kind: str) -> None:
        model = networks.UNUSUAL[kind]()
        hand_built.unsettle(model)
        before = hand_built.state_of(model), random_states()
        made = CALLS[name][0](scope_on(model))
        assert (hand_built.state_of(model), random_states()) == before
        same_values = kind in ("checkpointed", "dict_output")
        assert equal(made, CALLS[name][0](scope_on(hand_built.small() if same_values else networks.UNUSUAL[kind]())))

    def test_store_round_trip(self, name: str, tmp_path: Path) -> None:
        made = CALLS[name][0](scope_on(hand_built.small()))
        loaded = cs.load(made.save(tmp_path / name))
        assert type(loaded) is type(made)
        assert equal(made, loaded)
        assert (tmp_path / name / "figure.png").stat().st_size > 1000
        assert loaded.manifest["technique"] == name

    def test_forwards_are_bounded(self, name: str) -> None:
        scope = scope_on(hand_built.small())
        assert scope.layers
        before = scope.forwards
        CALLS[name][0](scope)
        assert scope.forwards - before <= CALLS[name][1]


REFUSED = {
    ("six_channels", "weight_grid"): 'its filters read 6 channels, so they are no RGB images; use mode="channels"',
    ("six_channels", "top_patches"): "this network takes 6 channels, and image files have three",
    ("six_channels", "alarm"): "this network takes 6 channels, and image files have three",
}


@pytest.mark.parametrize("network", networks.OTHER_INPUTS)
@pytest.mark.parametrize("name", CALLS)
def test_networks_of_other_inputs(name: str, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network untouched, the same twice, saved, loaded and shown: on images of one size alone, of one channel, of six."""
    models = [networks.OTHER_INPUTS[network]() for _ in range(2)]
    count = models[0].get_submodule("0").in_channels
    monkeypatch.setattr(sys.modules[__name__], "IMAGES", hand_built.draws(4, count, SIDE, SIDE, seed=3))
    hand_built.unsettle(models[0])
    before = hand_built.state_of(models[0])
    if (network, name) in REFUSED:
        with pytest.raises(BadInput, match=REFUSED[network, name]):
            CALLS[name][0](scope_on(models[0]))
        assert hand_built.state_of(models[0]) == before
        return
    made, again = (CALLS[name][0](scope_on(model)) for model in models)
    assert hand_built.state_of(models[0]) == before
    assert equal(made, again)
    assert equal(made, cs.load(made.save(tmp_path / name)))
    assert (tmp_path / name / "figure.png").stat().st_size > 1000
    for field in made.arrays():
        if "c" in field.axes and field.kind == "image":
            assert field.array.shape[field.axes.index("c")] == count
