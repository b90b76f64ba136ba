"""The pass of a scan over one batch, and a whole scan, against a plain float64 twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import convscope as cs
import hand_built
import scanned
from convscope.errors import BadInput
from convscope.scanner import measure as the_pass
from convscope.scanner.measure import SAMPLES, as_maps, measure, reduce_maps, sample_positions
from convscope.survey.votes import votes_for


def plainly(maps: np.ndarray) -> tuple[np.ndarray, ...]:
    """Maximum, mean, position, positive of (n h w c), by loops."""
    n, h, w, c = maps.shape
    maximum, mean, position, positive = np.zeros((n, c)), np.zeros((n, c)), np.zeros((n, c), int), np.zeros((n, c), int)
    for i in range(n):
        for k in range(c):
            best = -np.inf
            for y in range(h):
                for x in range(w):
                    value = float(maps[i, y, x, k])
                    mean[i, k] += value / (h * w)
                    positive[i, k] += value > 0
                    if value > best:
                        best, position[i, k] = value, y * w + x
            maximum[i, k] = best
    return maximum, mean, position, positive


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 5, 7, 4), (3, 8, 3, 2), (1, 40, 30, 5)])
@pytest.mark.parametrize("chunk", [2**18, 64, 1])
def test_maps_are_reduced_as_by_loops(shape: tuple[int, ...], chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(the_pass, "_CHUNK", chunk)
    maps = scanned.draw(*shape)
    found = reduce_maps(maps, range(shape[0]))
    maximum, mean, position, positive = plainly(maps.numpy())
    assert np.array_equal(found.maximum.numpy(), maximum.astype(np.float32))
    np.testing.assert_allclose(found.mean.numpy(), mean, atol=1e-6)
    assert np.array_equal(found.position.numpy(), position)
    assert np.array_equal(found.positive.numpy(), positive)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_maps_of_every_precision_are_reduced(dtype: torch.dtype) -> None:
    maps = scanned.draw(2, 5, 7, 4).to(dtype)
    maps[0, 1, 2] = torch.tensor([0.0, -0.0, torch.finfo(dtype).tiny, -torch.finfo(dtype).tiny], dtype=dtype)
    found = reduce_maps(maps, range(2))
    maximum, mean, position, positive = plainly(maps.double().numpy())
    assert np.array_equal(found.maximum.numpy(), maximum.astype(np.float32))
    np.testing.assert_allclose(found.mean.numpy(), mean, atol=1e-5)
    assert np.array_equal(found.position.numpy(), position) and np.array_equal(found.positive.numpy(), positive)


def test_maps_without_finite_values_have_places_all_the_same() -> None:
    """They are skipped later, with a reason; until then nothing may fail."""
    maps = scanned.draw(3, 4, 5, 3)
    maps[0], maps[1], maps[2, 1, 2] = float("nan"), float("inf"), float("-inf")
    found = reduce_maps(maps, range(3))
    assert ((found.position >= 0) & (found.position < 20)).all()
    assert not found.maximum[0].isfinite().any() and not found.mean[2].isfinite().any()


def test_of_equal_maxima_the_first_in_reading_order_counts() -> None:
    maps = torch.randint(0, 2, (4, 6, 6, 5), generator=torch.Generator().manual_seed(1)).float()
    maps[0, ..., 0], maps[1, ..., 1] = 0, -1
    assert np.array_equal(reduce_maps(maps, range(4)).position.numpy(), plainly(maps.numpy())[2])


def test_layout_does_not_matter() -> None:
    maps = scanned.draw(2, 6, 5, 4)
    first = maps.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)  # the same values, channels first in memory
    for one, other in zip(reduce_maps(maps, [0, 1]), reduce_maps(first, [0, 1]), strict=True):
        assert torch.equal(one, other)


def test_samples_are_values_at_positions_spread_evenly() -> None:
    maps = scanned.draw(3, 9, 11, 4)
    numbers = [5, 6, 900]
    where = sample_positions(tuple(numbers), 9, 11)
    taken = reduce_maps(maps, numbers).samples
    assert taken.shape == (3, SAMPLES, 4)
    for image in range(3):
        assert torch.equal(taken[image], maps[image].reshape(99, 4)[where[image]])
    counts = np.bincount(sample_positions(tuple(range(2000)), 9, 11).flatten().numpy(), minlength=99)
    assert counts.min() > 0.97 * 2000 * SAMPLES / 99 and counts.max() < 1.03 * 2000 * SAMPLES / 99
    assert torch.equal(sample_positions(tuple(range(5)), 9, 11)[3], sample_positions((3,), 9, 11)[0]), (
        "an image's samples do not depend on its batch"
    )
    assert sample_positions((3, 4), 1, 1).tolist() == [[0], [0]]


def test_votes_go_to_the_largest_means_and_equals_by_number() -> None:
    mean = np.array([[0.0, 2.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0], [3.0, -1.0, 4.0, 3.0]], np.float32)
    assert votes_for(mean, 2).tolist() == [[False, True, True, False], [True, True, False, False], [True, False, True, False]]
    assert votes_for(mean, 9).all()


@pytest.mark.parametrize(("shape", "axis"), [((4,), 0), ((4, 3, 5), 0), ((7, 4), 1)])
def test_vectors_maps_and_tokens_become_maps(shape: tuple[int, ...], axis: int) -> None:
    scope = scanned.small_scope()
    layer = scope.layers["5"].__class__(**{**scope.layers["5"].__dict__, "shape": shape, "channel_axis": axis})
    value = scanned.draw(2, *shape)
    maps = as_maps(layer, value)
    assert maps.shape == (2, *the_pass.map_size(layer), 4)
    assert torch.equal(maps.flatten(1, 2), value.movedim(axis + 1, 1).reshape(2, 4, -1).transpose(1, 2))


def test_one_forward_measures_all_layers_and_leaves_the_network_alone() -> None:
    scope = scanned.small_scope()
    hand_built.unsettle(scope.model)
    assert scope.layers
    before, forwards = hand_built.state_of(scope.model), scope.forwards
    images = hand_built.draws(3, 3, 24, 24)
    found = measure(scope, images, ["2", "5", "output"], [0, 1, 2])
    assert scope.forwards == forwards + 1 and hand_built.state_of(scope.model) == before
    values = scope.activations(images, ["2", "5", "output"])
    expected = torch.cat([values["2"].amax((2, 3)), values["5"].amax((2, 3)), values["output"]], 1)
    np.testing.assert_allclose(found.maximum, expected.numpy(), atol=1e-6)


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    scanned.folder_of(folder / "images", 20)
    cs.scan(scanned.small_scope(), folder / "images", folder / "survey", top=4, votes_per_image=2, shard_size=7, batch_size=3)
    return folder / "survey"


def files(survey: Path) -> list[Path]:
    return [survey.parent / "images" / name for name in scanned.table(survey, "images")["name"].to_pylist()]


def test_values_equal_the_twin(survey: Path) -> None:
    for layer, row in twin_of(survey).items():
        found = scanned.values_of(survey, layer)
        assert found["image"].tolist() == list(range(20))
        for key in ("maximum", "mean"):
            np.testing.assert_allclose(found[key], row[key], rtol=1e-5, atol=1e-6)
        clear = row["maximum"] > 1e-3  # a tie in float32 may be none in float64, but hardly away from zero
        for key in ("y", "x"):
            assert np.array_equal(found[key][clear], row[key][clear])


def twin_of(survey: Path) -> dict[str, dict[str, np.ndarray]]:
    return scanned.twin(scanned.small_scope(), files(survey), [*scanned.LAYERS, "output"])


def test_channels_equal_the_twin(survey: Path) -> None:
    rows = scanned.table(survey, "channels").to_pylist()
    for layer, row in twin_of(survey).items():
        own = [one for one in rows if one["layer"] == layer]
        positions = {"2": 24 * 24, "5": 12 * 12, "output": 1}[layer] * 20
        assert [one["channel"] for one in own] == list(range(row["mean"].shape[1]))
        assert {one["positions"] for one in own} == {positions} and {one["images"] for one in own} == {20}
        for name, values in (
            ("mean", row["mean"].mean(0)),
            ("sd", row["mean"].std(0)),
            ("peak_mean", row["maximum"].mean(0)),
            ("peak_sd", row["maximum"].std(0)),
            ("maximum", row["maximum"].max(0)),
            ("positive", row["positive"].sum(0) / positions),
        ):
            np.testing.assert_allclose([one[name] for one in own], values, rtol=1e-4, atol=1e-6, err_msg=f"{layer} {name}")


def test_classes_equal_the_twin(survey: Path) -> None:
    labels = np.array(scanned.table(survey, "images")["label"].to_pylist())
    rows = scanned.table(survey, "classes").to_pylist()
    for layer, row in twin_of(survey).items():
        votes = np.zeros(row["mean"].shape, int)
        for image, means in enumerate(row["mean"]):
            votes[image, sorted(range(len(means)), key=lambda k: (-means[k], k))[:2]] = 1
        own = [one for one in rows if one["layer"] == layer]
        assert [(one["channel"], one["label"]) for one in own] == [(k, c) for k in range(votes.shape[1]) for c in scanned.CLASSES]
        for one in own:
            of = labels == one["label"]
            means, peaks = row["mean"][of, one["channel"]], row["maximum"][of, one["channel"]]
            assert one["images"] == of.sum() and one["votes"] == votes[of, one["channel"]].sum()
            expected = (means.mean(), means.std(), peaks.mean(), peaks.std())
            np.testing.assert_allclose([one[key] for key in ("mean", "sd", "peak_mean", "peak_sd")], expected, rtol=1e-4, atol=1e-6)


def test_layers_say_what_each_position_sees(survey: Path) -> None:
    rows = {row["layer"]: row for row in scanned.table(survey, "layers").to_pylist()}
    assert list(rows) == ["2", "5", "output"]
    assert [rows[name]["rectified"] for name in rows] == [True, True, False]
    assert (rows["5"]["kind"], rows["5"]["channels"], rows["5"]["height"], rows["5"]["width"]) == ("ReLU", 8, 12, 12)
    # conv 3 pad 1, pool 2, conv 3 pad 1: rows 2y-3 .. 2y+4, cut to the picture
    assert rows["5"]["field_y0"] == [max(0, 2 * y - 3) for y in range(12)]
    assert rows["5"]["field_y1"] == [min(24, 2 * y + 5) for y in range(12)]
    assert (rows["output"]["field_x0"], rows["output"]["field_x1"]) == ([0], [24])


def test_quantiles_are_near_those_of_all_positions(tmp_path: Path) -> None:
    scanned.folder_of(tmp_path / "images", 60)
    scope = scanned.small_scope()
    cs.scan(scope, tmp_path / "images", tmp_path / "survey")
    files = sorted((tmp_path / "images").rglob("*.png"))
    everything = torch.cat([scope.activations(file, "2")["2"] for file in files]).transpose(0, 1).flatten(1).numpy()
    rows = [row for row in scanned.table(tmp_path / "survey", "channels").to_pylist() if row["layer"] == "2"]
    for row, values in zip(rows, everything, strict=True):
        for name, share in (("q50", 0.5), ("q75", 0.75), ("q95", 0.95)):
            # 960 of 34560 values: the share of values below must be right within four standard errors
            below = (values <= row[name] * 1.016).mean()
            assert abs(below - share) < 4 * np.sqrt(share * (1 - share) / 960) + 0.02 or (
                row[name] == 0 and (values <= 0).mean() >= share - 0.06
            )


def test_numbers_that_make_no_sense(tmp_path: Path) -> None:
    for wrong in ({"top": 0}, {"votes_per_image": 0}, {"shard_size": -1}, {"batch_size": -1}, {"threads": -2}, {"decoders": -2}):
        with pytest.raises(BadInput, match=f"{next(iter(wrong))} must be a whole number from"):
            cs.scan(scanned.small_scope(), tmp_path, tmp_path / "survey", **wrong)
    assert not (tmp_path / "survey").exists()
