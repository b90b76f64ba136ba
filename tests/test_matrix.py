"""Every technique against every promise: the network untouched, also after an exception; the same twice; saved and loaded; few forwards."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.linear_model  # noqa: F401  (its first import draws from Python's generator)
import torch

import convscope as cs
import fresh
import hand_built
import networks
import promises
import torch_defaults
from convscope.errors import BadInput
from convscope.results.base import Result
from promises import promises_in, scope_on

PROMISES = promises_in("techniques")


@functools.cache
def plain(name: str) -> Result:
    """What a technique gives on the small network."""
    return PROMISES[name].call(scope_on(hand_built.small()))


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
    assert set(PROMISES) == {path.stem for path in folder.glob("*.py")} - support


def test_a_fresh_process_loads_the_class_of_every_technique(tmp_path: Path) -> None:
    results = {name: promise.call(scope_on(hand_built.small())) for name, promise in PROMISES.items()}
    folders = {name: result.save(tmp_path / name, figure=False) for name, result in results.items()}
    for name, (cls, summary, value) in fresh.load_in_a_fresh_process(
        folders, {name: promise.says for name, promise in PROMISES.items()}
    ).items():
        assert cls == f"convscope.results.{name}.{type(results[name]).__name__}" and summary == results[name].summary()
        assert same(eval(PROMISES[name].says, {"result": results[name]}), value), name


@pytest.mark.parametrize("name", PROMISES)
class TestTechnique:
    def test_network_is_untouched(self, name: str) -> None:
        model = hand_built.small()
        hand_built.unsettle(model)
        before = hand_built.state_of(model)
        PROMISES[name].call(scope_on(model))
        assert hand_built.state_of(model) == before

    def test_network_is_untouched_after_an_exception_in_mid_forward(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if PROMISES[name].forwards == 0:
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
            PROMISES[name].call(scope)
        monkeypatch.setattr(torch.nn.functional, "batch_norm", batch_norm)
        assert hand_built.state_of(model) == before

    def test_same_twice(self, name: str) -> None:
        first, second = (PROMISES[name].call(scope_on(hand_built.small())) for _ in range(2))
        assert equal(first, second)

    @pytest.mark.parametrize("default", torch_defaults.DEFAULTS)
    def test_torch_defaults_do_not_reach_it(self, name: str, default: str) -> None:
        expected, model = plain(name), hand_built.small()
        with torch_defaults.set_to(default):
            assert equal(PROMISES[name].call(scope_on(model)), expected)

    def test_a_network_built_in_float64(self, name: str) -> None:
        expected, narrow = plain(name), hand_built.small()
        with torch_defaults.set_to("float64"):
            model = hand_built.small()
            assert next(model.parameters()).dtype == torch.float64
            model.load_state_dict(narrow.state_dict())
            wide = PROMISES[name].call(scope_on(model))
        for one, other in zip(expected.arrays(), wide.arrays(), strict=True):
            assert np.allclose(one.array, other.array, rtol=1e-2, atol=1e-3, equal_nan=True), one.name

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_gradients_may_be_off_around_it(self, name: str, mode: Callable[[], AbstractContextManager[Any]]) -> None:
        plain, scope = PROMISES[name].call(scope_on(hand_built.small())), scope_on(hand_built.small())
        with mode():
            assert equal(PROMISES[name].call(scope), plain)

    @pytest.mark.parametrize("kind", networks.UNUSUAL)
    def test_unusual_networks(self, name: str, kind: str) -> None:
        model = networks.UNUSUAL[kind]()
        hand_built.unsettle(model)
        before = hand_built.state_of(model), random_states()
        made = PROMISES[name].call(scope_on(model))
        assert (hand_built.state_of(model), random_states()) == before
        same_values = kind in ("checkpointed", "dict_output")
        assert equal(made, PROMISES[name].call(scope_on(hand_built.small() if same_values else networks.UNUSUAL[kind]())))

    def test_store_round_trip(self, name: str, tmp_path: Path) -> None:
        made = PROMISES[name].call(scope_on(hand_built.small()))
        loaded = cs.load(made.save(tmp_path / name))
        assert type(loaded) is type(made)
        assert equal(made, loaded)
        assert (tmp_path / name / "figure.png").stat().st_size > 1000
        assert loaded.manifest["technique"] == name

    def test_forwards_are_bounded(self, name: str) -> None:
        scope = scope_on(hand_built.small())
        assert scope.layers
        before = scope.forwards
        PROMISES[name].call(scope)
        assert scope.forwards - before <= PROMISES[name].forwards


REFUSED = {
    ("six_channels", "weight_grid"): 'its filters read 6 channels, so they are no RGB images; use mode="channels"',
    ("six_channels", "top_patches"): "this network takes 6 channels, and image files have three",
    ("six_channels", "alarm"): "this network takes 6 channels, and image files have three",
}


@pytest.mark.parametrize("network", networks.OTHER_INPUTS)
@pytest.mark.parametrize("name", PROMISES)
def test_networks_of_other_inputs(name: str, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network untouched, the same twice, saved, loaded and shown: on images of one size alone, of one channel, of six."""
    models = [networks.OTHER_INPUTS[network]() for _ in range(2)]
    count = models[0].get_submodule("0").in_channels
    monkeypatch.setattr(promises, "IMAGES", hand_built.draws(4, count, promises.SIDE, promises.SIDE, seed=3))
    hand_built.unsettle(models[0])
    before = hand_built.state_of(models[0])
    if (network, name) in REFUSED:
        with pytest.raises(BadInput, match=REFUSED[network, name]):
            PROMISES[name].call(scope_on(models[0]))
        assert hand_built.state_of(models[0]) == before
        return
    made, again = (PROMISES[name].call(scope_on(model)) for model in models)
    assert hand_built.state_of(models[0]) == before
    assert equal(made, again)
    assert equal(made, cs.load(made.save(tmp_path / name)))
    assert (tmp_path / name / "figure.png").stat().st_size > 1000
    for field in made.arrays():
        if "c" in field.axes and field.kind == "image":
            assert field.array.shape[field.axes.index("c")] == count


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("spectrum", "result.rank(-1)"),
        ("activation_grid", "result.layer('conv')"),
        ("activation_grid", "result.dead_units('conv')"),
        ("style_similarity", "result.nearest('grams')"),
    ],
)
def test_what_a_result_does_not_hold(name: str, asked: str) -> None:
    with pytest.raises(BadInput, match=r"is not in this result.*it holds"):
        eval(asked, {"result": plain(name)})
