"""A detector elsewhere: the torch modules and the ONNX files say what the detector says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import convscope as cs
import hand_built
from convscope.analyses.detector_evaluation import detector_scores
from convscope.errors import BadInput, BadWeights
from convscope.scope import Inputs, Scope
from made import made


@pytest.fixture(scope="module")
def scope() -> Scope:
    return Scope(hand_built.small(), Inputs(size=24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)), precision="float32", name="small")


@pytest.fixture(scope="module")
def images() -> Tensor:
    made_up = hand_built.draws(40, 3, 24, 24, seed=1)
    made_up[::2, 0] *= 0.2
    return made_up


@pytest.fixture(scope="module")
def detector(scope: Scope, images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> cs.Detector:
    found = scope.activations(images, ["5", "output"])
    folder = tmp_path_factory.mktemp("survey") / "s"
    maps = {"5": found["5"].numpy()}
    survey = made(folder, maps, ["a", "b"] * 20, output=found["output"].numpy(), weights=scope.weights_hash)
    return cs.detector(survey, "5", {"a": [0, 1, 4], "b": [3]}, draws=20)


def expected(detector: cs.Detector, scope: Scope, images: Tensor, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores and alarms in float64, by the detector's own numbers."""
    means = scope.activations(images, "5")["5"].double().mean((2, 3)).numpy()
    row = ("maps", "probe").index(method)
    scores = means @ detector.weights[row].T + detector.offsets[row]
    return scores, scores > detector.thresholds[("maps", "output", "probe").index(method)]


@pytest.mark.parametrize("method", ["maps", "probe"])
def test_the_modules_say_what_the_detector_says(detector: cs.Detector, scope: Scope, images: Tensor, method: str) -> None:
    scores, alarms = expected(detector, scope, images, method)
    module, network = cs.detector_module(detector, method), cs.detector_network(detector, scope, method)
    for found in (module(scope.activations(images, "5")["5"]), network(images)):
        np.testing.assert_allclose(found[0].numpy(), scores, rtol=1e-4, atol=1e-5)
        clear = np.abs(scores - detector.thresholds[0 if method == "maps" else 2]) > 1e-4
        np.testing.assert_array_equal(found[1].numpy()[clear], alarms[clear])
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())


def test_the_network_is_a_copy(detector: cs.Detector) -> None:
    model = hand_built.small()
    hand_built.unsettle(model)
    before = hand_built.state_of(model)
    scope = Scope(model, Inputs(size=24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)), precision="float32")
    network = cs.detector_network(detector, scope)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.zero_()
    assert hand_built.state_of(model) == before


@pytest.mark.parametrize("whole", [False, True])
def test_onnx_says_what_the_detector_says(detector: cs.Detector, scope: Scope, images: Tensor, whole: bool, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    module = cs.detector_network(detector, scope) if whole else cs.detector_module(detector)
    path = cs.detector_onnx(module, tmp_path / "detector.onnx", size=(24, 24) if whole else None)
    session = runtime.InferenceSession(str(path))
    assert [each.name for each in session.get_inputs()] == ["images" if whole else "maps"]
    assert [each.name for each in session.get_outputs()] == ["scores", "alarms"]
    given = images[:7] if whole else scope.activations(images[:7], "5")["5"]
    scores, alarms = session.run(None, {session.get_inputs()[0].name: given.numpy()})
    wanted = expected(detector, scope, images[:7], "maps")
    np.testing.assert_allclose(scores, wanted[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(alarms, wanted[1])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_squeezenet_is_cut_where_it_was_scanned(squeezenet: Scope, shared: Callable[[str], Path], tmp_path: Path) -> None:
    files = sorted(shared("images/imagenet-sample").glob("*.jpg"))[:12]
    images = squeezenet.inputs.batch(files)
    found = squeezenet.activations(images, ["features.12", "output"])
    maps, output = {"features.12": found["features.12"].numpy()}, found["output"].numpy()
    survey = made(tmp_path / "s", maps, ["a", "b"] * 6, output=output, weights=squeezenet.weights_hash)
    detector = cs.detector(survey, "features.12", {"a": [3, 17]}, draws=5)
    scores, _ = cs.detector_network(detector, squeezenet)(images)
    np.testing.assert_allclose(scores.numpy(), detector_scores(detector, survey)[0], rtol=1e-3, atol=1e-4)


def test_wrong_questions(detector: cs.Detector, scope: Scope) -> None:
    with pytest.raises(BadInput, match="method must be maps or probe, got 'output'"):
        cs.detector_module(detector, "output")
    other = Scope(hand_built.seeded(hand_built.small, 3), Inputs(size=24), name="other")
    with torch.no_grad():
        next(other.model.parameters()).add_(1)
    with pytest.raises(BadWeights, match=r"the detector is for weights .*, but other has"):
        cs.detector_network(detector, other)
    with pytest.raises(BadInput, match="size: expected height and width"):
        cs.detector_onnx(cs.detector_network(detector, scope), "x.onnx")


def test_a_network_that_cannot_be_traced_is_refused(detector: cs.Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    class Branching(torch.nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) if float(input.sum()) > -1e9 else input

    model = Branching(*hand_built.small())
    odd = Scope(model, Inputs(size=24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)), precision="float32", name="odd")
    with pytest.raises(BadInput, match="odd cannot be traced up to 5") as raised:
        cs.detector_network(detector, odd)
    assert "\n" not in str(raised.value)
