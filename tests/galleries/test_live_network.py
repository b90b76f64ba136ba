"""The network as it ships to the browser: its ONNX file gives what the network gives, or it does not ship."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hand_built
import scanned
from convscope.errors import BadInput, NotInstalled
from convscope.galleries import live_network as live
from convscope.galleries.live_network import live_network
from convscope.scope import Inputs, Scope

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (it is in the extra `live`)")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (it is in the extra `live`)")


class InPlace(nn.Module):
    """A block as residual networks have it: one ReLU called twice, a sum in place, and a functional ReLU in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        value = self.relu(self.first(images))
        other = self.second(value)
        other += value
        value = F.relu_(self.relu(other))
        return {"logits": self.head(value.mean((2, 3)))}


def images_of(scope: Scope, count: int = 3) -> np.ndarray:
    return hand_built.draws(count, scope.inputs.channel_count, scope.inputs.height, scope.inputs.width, seed=4).numpy()


def answers(data: bytes, image: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(data)
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, {"images": image[None]}), strict=True))


def test_it_gives_what_the_network_gives() -> None:
    # slow twin: the network itself in float64, layer by layer
    scope = scanned.small_scope()
    images = images_of(scope)
    made = live_network(scope, ["2", "5"], images)
    assert made.precision == "float32" and made.images == 3 and made.difference < 1e-5
    model = hand_built.small().double().eval()
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)))
    for image in images:
        found = answers(made.data, image)
        value = ((torch.from_numpy(image).double() - mean) / std)[None]
        maps: list[np.ndarray] = []
        with torch.no_grad():
            for name, module in model.named_children():
                value = module(value)
                if name in ("2", "5"):
                    maps.append(value.numpy().copy())
        for index, wanted in enumerate(maps):
            np.testing.assert_allclose(found[f"map:{index}"], wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["means"][0], np.concatenate([each[0].mean((1, 2)) for each in maps]), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["maxima"][0], np.concatenate([each[0].max((1, 2)) for each in maps]), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["output"], value.numpy(), rtol=1e-4, atol=1e-5)


def test_in_place_operations_and_repeated_modules() -> None:
    scope = Scope(hand_built.seeded(InPlace), Inputs(size=16), precision="float32", name="odd")
    layers = ["relu:0", "second", "relu:1"]
    images = images_of(scope)
    made = live_network(scope, layers, images)
    values = scope.activations(torch.from_numpy(images), [*layers, "output"])
    for index, image in enumerate(images):
        found = answers(made.data, image)
        for place, name in enumerate(layers):
            np.testing.assert_allclose(found[f"map:{place}"][0], values[name][index].numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["output"][0], values["output"][index].numpy(), rtol=1e-4, atol=1e-5)
    assert (values["second"] < 0).any()  # as the convolution gave it, before it was overwritten


def test_layers_without_maps() -> None:
    model = hand_built.seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 6), nn.ReLU()))
    scope = Scope(model, Inputs(size=8, channels=1), precision="float32")
    made = live_network(scope, ["1", "4"], images_of(scope))
    found = answers(made.data, images_of(scope)[0])
    assert found["map:1"].shape == (1, 6, 1, 1) and found["means"].shape == (1, 10)
    np.testing.assert_array_equal(found["means"][0, 4:], found["map:1"][0, :, 0, 0])


def test_the_network_stays_as_it_was() -> None:
    scope = scanned.small_scope()
    hand_built.unsettle(scope.model)
    before = hand_built.state_of(scope.model)
    live_network(scope, ["2"], images_of(scope))
    assert hand_built.state_of(scope.model) == before


def test_the_same_bytes_that_tell_nothing_of_this_machine() -> None:
    scope = scanned.small_scope()
    first, second = (live_network(scope, ["2", "5"], images_of(scope)).data for _ in range(2))
    assert first == second
    for word in (str(Path(live.__file__).parents[2]), "site-packages", "convscope", "hand_built"):
        assert word.encode() not in first


def test_large_networks_are_stored_in_half_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = scanned.small_scope()
    whole = live_network(scope, ["2", "5"], images_of(scope))
    monkeypatch.setattr(live, "LARGEST", 1000)
    monkeypatch.setattr(live, "_SMALLEST_TENSOR", 100)
    half = live_network(scope, ["2", "5"], images_of(scope))
    assert half.precision == "float16" and whole.difference < half.difference < 1e-2
    assert len(half.data) < len(whole.data)


def wrong(value: float) -> Callable[..., bytes]:
    true = live._exported

    def exported(*given: object) -> bytes:
        import onnx
        from onnx import numpy_helper

        model = onnx.load_model_from_string(true(*given))  # pyright: ignore[reportArgumentType]
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor).copy()
            if values.shape == (8,):
                values[3] += value
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return model.SerializeToString()

    return exported


@pytest.mark.parametrize("value", [0.05, float("nan")])
def test_what_differs_does_not_ship(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    scope = scanned.small_scope()
    monkeypatch.setattr(live, "_exported", wrong(value))
    with pytest.raises(BadInput, match="exported as ONNX it gives other values than the network"):
        live_network(scope, ["2", "5"], images_of(scope))


def test_what_cannot_ship(monkeypatch: pytest.MonkeyPatch) -> None:
    class Branching(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) if float(input.sum()) > -1e9 else input

    scope = scanned.small_scope()
    odd = Scope(Branching(*hand_built.small()), scope.inputs, precision="float32", name="odd")
    with pytest.raises(BadInput, match="it cannot be exported as ONNX") as raised:
        live_network(odd, ["2"], images_of(odd))
    assert "\n" not in str(raised.value) and "\x1b" not in str(raised.value) and len(str(raised.value)) < 300
    monkeypatch.setattr(live, "MOST_PARAMETERS", 100)
    with pytest.raises(BadInput, match="million parameters are too many for a browser"):
        live_network(scope, ["2"], images_of(scope))
    monkeypatch.setattr(live, "find_spec", lambda name: None if name == "onnxscript" else sys.modules[__name__])
    with pytest.raises(NotInstalled, match=r"needs onnxscript: pip install 'convscope\[live\]'"):
        live_network(scope, ["2"], images_of(scope))
