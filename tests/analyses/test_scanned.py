"""Readers on what the scan writes: the same numbers as the network gives, by another way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import convscope as cs
import hand_built
from convscope.scope import Inputs, Scope

LABELS = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def scope() -> Scope:
    inputs = Inputs(size=24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), classes=["ant", "bee", "cat", "dog", "elk"], crop=0.875)
    return Scope(hand_built.small(), inputs, precision="float32", name="small")


@pytest.fixture(scope="module")
def survey(scope: Scope, tmp_path_factory: pytest.TempPathFactory) -> cs.Survey:
    folder = tmp_path_factory.mktemp("scanned")
    for number in range(30):
        values = np.random.default_rng(number).integers(0, 200, (40 + number % 5, 33 + number % 7, 3), dtype=np.uint8)
        values[..., number % 3] = np.minimum(values[..., number % 3] + 55, 255)
        path = folder / "images" / LABELS[number % 3] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    (folder / "images" / "ant" / "00a.png").write_text("no picture")
    return cs.scan(scope, str(folder / "images"), folder / "survey", layers=["2", "5"], shard_size=7, decoders=0)


def test_pictures_fields_and_values_are_the_networks(scope: Scope, survey: cs.Survey) -> None:
    assert len(survey) == 30 and survey.skipped.num_rows == 1 and survey.labels == LABELS
    pictures = torch.from_numpy(np.stack([survey.read_image(int(image)) for image in survey.ids]))
    assert torch.equal(pictures, torch.stack([scope.inputs(path) for path in survey.images["path"].to_pylist()]))
    for layer in ("2", "5"):
        maps = scope.activations(pictures, layer)[layer].numpy()
        np.testing.assert_allclose(survey.maximum(layer), maps.max((2, 3)), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(survey.mean(layer), maps.mean((2, 3)), rtol=1e-5, atol=1e-6)
        y, x = np.moveaxis(survey.positions(layer), -1, 0)
        rows = np.arange(30)[:, None], np.arange(maps.shape[1])
        np.testing.assert_allclose(maps[(*rows, y, x)], maps.max((2, 3)), rtol=1e-5, atol=1e-6)
        field = cs.receptive_field(scope, layer)
        for place in ((0, 0), (3, 5), (maps.shape[2] - 1, 2)):
            assert tuple(survey.receptive_fields(layer, np.array(place))) == field.box(*place)


def test_readers_run_on_it(scope: Scope, survey: cs.Survey) -> None:
    kept, fresh = (cs.exemplars(survey, "5", None, top=top) for top in (9, 10))
    np.testing.assert_array_equal(kept.images, fresh.images[:, :9])
    np.testing.assert_array_equal(kept.positions, fresh.positions[:, :9])
    counted, again = cs.class_maps(survey, "5", per_class=3), cs.class_maps(survey, "5", per_image=24, per_class=3)
    assert (counted.votes.sum(1) == 8 * counted.counts).all() and (again.votes == counted.votes).all()
    health = cs.filter_health(survey)
    assert health.layers == ("2", "5") and (health.bound >= health.maximum - 1e-4).all()
    detector = cs.detector(survey, "5", {"ant": [0, 1], "bee": [2, 3]}, draws=20)
    assert detector.outputs.tolist() == [0, 1] and cs.detector_evaluation(detector, survey).counts.tolist() == [[10, 10, 10]]
    assert cs.class_profile(survey, "5").auc.shape == (8, 3)
    assert cs.activation_sums(survey, "5", {"ant": [0]}).sums.shape == (30, 1)
    wins = survey.query("select channel, count(*) as n from values where layer = 'output' and maximum > 0 group by channel")
    assert sum(wins["n"].to_pylist()) == (survey.maximum("output") > 0).sum()


@pytest.mark.slow
def test_a_labels_own_output_is_found(squeezenet: Scope, shared: Callable[[str], Path], tmp_path: Path) -> None:
    files = sorted(shared("images/imagenet-sample").glob("*.jpg"))[::10]
    rows = [f"{path},{path.stem.partition('_')[2].replace('_', ' ')}" for path in files]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    survey = cs.scan(squeezenet, str(tmp_path / "list.csv"), tmp_path / "survey", layers=["features.12"], decoders=0)
    profile = cs.class_profile(survey, "output")
    names = [name.lower() for name in profile.unit_names]
    own = [(names.index(label.lower()), column) for column, label in enumerate(profile.labels) if names.count(label.lower()) == 1]
    assert len(own) > 80
    areas = np.array([profile.auc[at] for at in own])
    assert np.median(areas) > 0.98 and areas.mean() > 0.95
    first = [profile.best(profile.labels[column], 1)[0] == unit for unit, column in own]
    assert np.mean(first) > 0.4  # of 1000 outputs
