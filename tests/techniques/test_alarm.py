"""Alarms on single images: equal to a detector's scores on a survey of them, evidence by plain loops, the command, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import convscope as cs
import hand_built
import promises
import scanned
from convscope.analyses.detector_evaluation import detector_scores
from convscope.cli import main
from convscope.errors import BadInput, BadWeights
from convscope.render.panels import Image
from convscope.scope import Inputs, Scope

PROMISE = promises.Promise(lambda s: cs.alarm(s, promises.detector(s), promises.IMAGES[:2]), "result.sounded()", forwards=1)

METHODS = ("maps", "output", "probe")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alarm")


@pytest.fixture(scope="module")
def made(place: Path) -> tuple[Scope, cs.Survey, cs.Detector]:
    scope, folder = scanned.small_scope(), scanned.folder_of(place / "images", 15)
    survey = cs.scan(scope, str(folder), place / "survey", layers=["5"])
    return scope, survey, cs.detector(survey, "5", {"ant": [0, 1], "bee": [2, 5]}, draws=9)


@pytest.mark.parametrize("method", METHODS)
def test_the_scores_are_those_on_a_survey(made: tuple[Scope, cs.Survey, cs.Detector], place: Path, method: str) -> None:
    scope, survey, detector = made
    found = cs.alarm(scope, detector, str(place / "images"), method=method)
    want = detector_scores(detector, survey)
    order = [
        survey.names.index(f"{name}.png")
        for name in (path.relative_to(place / "images").with_suffix("").as_posix() for path in sorted((place / "images").rglob("*.png")))
    ]
    np.testing.assert_allclose(found.scores, want[:, order], atol=1e-4)
    assert (found.alarms == (found.scores > detector.thresholds[:, None])).all()
    row = METHODS.index(method)
    sounded = tuple(tuple(label for column, label in enumerate(("ant", "bee")) if found.alarms[row, image, column]) for image in range(15))
    assert found.sounded() == sounded and any(sounded) and not all(sounded)
    said = "\n".join(found.summary().splitlines())
    assert said.count("ALARM for") == sum(map(len, sounded)) and said.count("no alarm for") == 30 - sum(map(len, sounded))
    tiles = [panel for panel in found.view().flat() if isinstance(panel, Image) and panel.heat is not None]
    assert [tile.marked is not None for tile in tiles] == found.alarms[row].ravel().tolist()


def test_evidence_by_plain_loops(made: tuple[Scope, cs.Survey, cs.Detector]) -> None:
    scope, _, detector = made
    images = hand_built.draws(2, 3, scanned.SIDE, scanned.SIDE)
    found = cs.alarm(scope, detector, images)
    maps = scope.activations(images, "5")["5"].double().numpy()
    for linear, image, column in np.ndindex(2, 2, 2):
        evidence = np.full(maps.shape[2:], detector.offsets[linear, column])
        for unit in range(8):
            evidence = evidence + detector.weights[linear, column, unit] * maps[image, unit]
        np.testing.assert_allclose(found.evidence[linear, image, column], evidence, atol=1e-6)
        assert evidence.mean() == pytest.approx(found.scores[2 * linear, image, column], abs=1e-4)


def test_another_network_is_refused(made: tuple[Scope, cs.Survey, cs.Detector]) -> None:
    images, detector = hand_built.draws(1, 3, scanned.SIDE, scanned.SIDE), made[2]
    other = hand_built.small()
    with torch.no_grad():
        other[0].weight += 1
    with pytest.raises(BadWeights, match="the detector: made with weights"):
        cs.alarm(Scope(other, made[0].inputs), detector, images)
    with pytest.raises(BadInput, match="made with other inputs"):
        cs.alarm(Scope(hand_built.small(), Inputs(size=16)), detector, images)
    with pytest.raises(BadInput, match="detector must be a detector"):
        cs.alarm(made[0], made[1], images)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    scanned.folder_of(tmp_path / "images", 12)
    assert main("scan textures images --layers features.27 --out s".split()) == 0
    assert main("detector s features.27 --maps ant=0,1 --maps bee=5 --class ant --draws 9 --out d".split()) == 0
    capsys.readouterr()
    assert main("alarm d images/ant/000.png images/bee/001.png --out a".split()) == 0
    said = capsys.readouterr().out
    assert said.count("arm for ant") + said.count("ARM for ant") == 2 and (tmp_path / "a" / "figure.png").exists()
