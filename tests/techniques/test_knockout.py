"""Knock-out: a slow twin with hooks in float64, accuracies by plain counting, random units, answers that are known, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import convscope as cs
import hand_built
import promises
import scanned
from convscope.cli import main
from convscope.errors import BadInput, LayerNotFound, NotReached, UnitNotFound
from convscope.results.class_maps import ClassMaps
from convscope.scope import Inputs, Scope
from convscope.seeding import derive_seed
from hand_built import draws

PROMISE = promises.Promise(
    lambda s: cs.knockout(s, "5", [0, 2], promises.IMAGES, controls=2), "(result.effect(), result.view().note)", forwards=2
)

SIDE = 24
CLASSES = ["ant", "bee", "cat", "dog", "eel"]
LABELS = ["ant", "bee", "cat", "ant", "bee", "cat", "ant"]


def network() -> Scope:
    """The small network in float64, with a last layer that tells images apart."""
    model = hand_built.small().double()
    model[8].weight.data.mul_(40).sub_(model[8].weight.data.mean(1, keepdim=True))
    return Scope(model, Inputs(size=SIDE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), classes=CLASSES), name="small")


IMAGES = draws(7, 3, SIDE, SIDE, dtype=torch.float64) * torch.linspace(0.1, 1, 7, dtype=torch.float64)[:, None, None, None]


def twin(scope: Scope, layer: str, images: Tensor, change: object) -> np.ndarray:
    """Class probabilities with the layer's value changed by a hook, one image at a time."""
    module = scope.model.get_submodule(layer)
    found = []
    for number, image in enumerate(images):
        handle = module.register_forward_hook(lambda _module, _given, value, number=number: change(value.clone(), number))
        with torch.no_grad(), scope.session():
            found.append(scope.model(scope.inputs.normalize(image[None])).softmax(1)[0].numpy())
        handle.remove()
    return np.stack(found)


def maps_of(scope: Scope, layer: str) -> Tensor:
    return scope.activations(IMAGES, layer)[layer]


@pytest.mark.parametrize("layer", ["0", "2", "5"])
@pytest.mark.parametrize("by", ["zero", "mean", "resample"])
def test_slow_twin(by: str, layer: str) -> None:
    scope, units = network(), [1, 4]
    maps = maps_of(scope, layer)

    def partners(draw: int) -> np.ndarray:
        return (np.arange(7) + 1 + np.random.default_rng(derive_seed(5, "knockout", "resample", draw)).integers(6, size=7)) % 7

    def change(draw: int) -> object:
        def write(value: Tensor, number: int) -> Tensor:
            for unit in units:
                if by == "resample":
                    value[0, unit] = maps[partners(draw)[number], unit]
                else:
                    value[0, unit] = maps[:, unit].mean() if by == "mean" else 0
            return value

        return write

    draws_ = 3 if by == "resample" else 1
    want = np.mean([twin(scope, layer, IMAGES, change(draw)) for draw in range(draws_)], 0)
    found = cs.knockout(scope, layer, units, IMAGES, by=by, draws=3, controls=2, seed=5)
    np.testing.assert_allclose(found.after[0], want, atol=1e-6)
    np.testing.assert_allclose(found.before, twin(scope, layer, IMAGES, lambda value, _: value), atol=1e-6)
    np.testing.assert_allclose(found.effect(), found.before - want, atol=1e-6)
    assert np.abs(found.effect()).max() > 1e-3 and found.method == "cached"
    for number, others in enumerate(found.random_units[0]):  # a control is the same with other units
        units = list(others)
        again = twin(scope, layer, IMAGES, change(number % draws_))
        np.testing.assert_allclose(found.control[0, number], again[np.arange(7), found.target], atol=1e-6)
        assert (found.predicted_control[0, number] == again.argmax(1)).all()


def test_accuracies_are_counted() -> None:
    scope = network()
    found = cs.knockout(scope, "5", {"ant": [0, 6], "bee": [2]}, IMAGES, labels=LABELS, controls=3, control="any")
    assert found.classes == ("ant", "bee", "cat") and found.labelled
    owner = {0: 0, 1: 1, 2: 2}
    for group, units in enumerate(([0, 6], [2])):

        def silence(value: Tensor, _number: int, units: list[int] = units) -> Tensor:
            value[:, units] = 0
            return value

        p = twin(scope, "5", IMAGES, silence)
        np.testing.assert_allclose(found.after[group], p[:, :3], atol=1e-6)
        predicted = [owner.get(int(best), -1) for best in p.argmax(1)]
        assert found.predicted_after[group, 0].tolist() == predicted
        for place, name in enumerate(found.classes):
            own = [number for number, label in enumerate(LABELS) if label == name]
            right = [predicted[number] == place for number in own]
            before = [found.predicted[number] == place for number in own]
            control = [np.mean([found.predicted_control[group, s, number] == place for s in range(3)]) for number in own]
            assert found.accuracy_after[group, place] == pytest.approx(np.mean(right))
            assert found.accuracy[place] == pytest.approx(np.mean(before))
            assert found.accuracy_control[group, place] == pytest.approx(np.mean(control))
            assert found.drop[group, place, 0] == pytest.approx(np.mean(before) - np.mean(right))
            assert found.excess[group, place, 0] == pytest.approx(np.mean(control) - np.mean(right))
            # the interval, by resampling images by hand
            generator = np.random.default_rng(derive_seed(0, "knockout", "bootstrap", name))
            weights = generator.multinomial(len(own), np.full(len(own), 1 / len(own)), size=2000)
            drawn = weights @ (np.array(before, float) - np.array(right, float)) / len(own)
            np.testing.assert_allclose(found.drop[group, place, 1:], np.quantile(drawn, [0.025, 0.975]), atol=1e-12)
        confusion = found.confusion(group)
        for truth in range(3):
            for column in range(4):
                count = sum(
                    LABELS[number] == CLASSES[truth] and (predicted[number] if predicted[number] >= 0 else 3) == column
                    for number in range(7)
                )
                assert confusion[truth, column] == count
    assert found.confusion().sum() == 7


def test_a_label_may_mean_several_classes() -> None:
    scope = network()
    words = {"insect": [0, 1], "other": [2, 3, 4]}
    labels = ["insect" if label in ("ant", "bee") else "other" for label in LABELS]
    found = cs.knockout(scope, "5", [1], IMAGES, labels=labels, outputs=words, controls=0)
    plain = cs.knockout(scope, "5", [1], IMAGES, controls=0)
    np.testing.assert_allclose(found.after[0, :, 0], plain.after[0][:, :2].sum(1), atol=1e-12)
    np.testing.assert_allclose(found.before.sum(1), 1)
    named = {"insect": ["ant", "bee"], "other": [2, *CLASSES[3:]]}
    np.testing.assert_array_equal(cs.knockout(scope, "5", [1], IMAGES, labels=labels, outputs=named, controls=0).after, found.after)
    said = cs.knockout(scope, "5", [1], IMAGES, labels=labels, outputs=words, controls=2).summary()
    assert "  insect: " in said and "  other: " in said and ("points lost beyond random" in said or "points won beyond random" in said)
    assert (found.predicted == (plain.predicted > 1)).all() and found.control.shape == (1, 0, 7)
    with pytest.raises(BadInput, match="belongs to two labels"):
        cs.knockout(scope, "5", [1], IMAGES, labels=labels, outputs={"insect": [0, 1], "other": [1, 2]})
    with pytest.raises(BadInput, match="label 'other' is no class of the network"):
        cs.knockout(scope, "5", [1], IMAGES, labels=labels, outputs={"insect": [0]})


def test_silence_of_what_a_class_is_made_of() -> None:
    """Output c reads unit c alone: without it the class is lost; random units leave it."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3, bias=False))
    model[0].weight.data = torch.eye(3).view(3, 3, 1, 1)
    model[4].weight.data = 20 * torch.eye(3)
    scope = Scope(model, Inputs(size=8, classes=["red", "green", "blue"]))
    images = torch.zeros(6, 3, 8, 8)
    for number in range(6):
        images[number, number % 3] = 1 - 0.1 * (number // 3)
    found = cs.knockout(scope, "1", {"red": [0], "green": [1]}, images, labels=["red", "green", "blue"] * 2, controls=5)
    assert found.accuracy.tolist() == [1, 1, 1]
    # without any colour left, all outputs are equal, and the first of them wins
    assert found.accuracy_after.tolist() == [[1, 1, 1], [1, 0, 1]]
    np.testing.assert_allclose(found.after[0, 0], 1 / 3, atol=1e-6)
    np.testing.assert_allclose(found.excess[1, 1], [1, 1, 1])
    assert all(1 not in units for units in found.random_units[1])
    assert "2 of 2" not in found.summary() and "1 of 2 classes" in found.summary()


def test_random_units_are_matched_by_rank() -> None:
    layers = lambda: (nn.Conv2d(3, 60, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(60, 3))  # noqa: E731
    scope = Scope(hand_built.seeded(lambda: nn.Sequential(*layers())), Inputs(size=12))
    images = draws(4, 3, 12, 12)
    means = scope.activations(images, "1")["1"].double().mean((0, 2, 3)).numpy()
    order = np.argsort(means, kind="stable")
    chosen = [int(order[-1]), int(order[-2]), int(order[30])]
    found = cs.knockout(scope, "1", chosen, images, controls=30)
    rank = {int(unit): place for place, unit in enumerate(order)}
    for others in found.random_units[0]:
        assert len(set(others)) == 3 and not set(others) & set(chosen)
        assert all(abs(rank[other] - rank[unit]) <= 12 for unit, other in zip(chosen, others, strict=True))
    assert len({others[2] for others in found.random_units[0]}) > 5
    anywhere = cs.knockout(scope, "1", chosen, images, controls=30, control="any").random_units[0]
    assert min(rank[other] for others in anywhere for other in others) < 10
    assert cs.knockout(scope, "1", chosen, images, controls=30).random_units == found.random_units
    assert cs.knockout(scope, "1", chosen, images, controls=30, seed=1).random_units != found.random_units


def test_no_control_where_too_few_units_are_left() -> None:
    found = cs.knockout(network(), "5", slice(0, 5), IMAGES, labels=LABELS, controls=4)
    assert found.control.shape == (1, 0, 7) and np.isnan(found.accuracy_control).all() and "No control" in found.summary()
    found.view()


def test_batches_do_not_matter_and_much_data_is_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cs.knockout(network(), "5", [1, 2], IMAGES, controls=2)
    scope = network()
    monkeypatch.setattr("convscope.techniques.knockout.MOST", 1)
    monkeypatch.setattr(Scope, "fitting", lambda *_: 3)
    parts = cs.knockout(scope, "5", [1, 2], IMAGES, controls=2)
    np.testing.assert_allclose(parts.after, whole.after, atol=1e-9)
    np.testing.assert_allclose(parts.control, whole.control, atol=1e-9)
    with pytest.raises(BadInput, match="take fewer images"):
        cs.knockout(scope, "5", [1], IMAGES, by="resample")


def test_means_of_a_survey(tmp_path: Path) -> None:
    scope = scanned.small_scope()
    folder = scanned.folder_of(tmp_path / "photos", 9)
    survey = cs.scan(scope, str(folder), tmp_path / "survey", layers=["5"])
    files = sorted(folder.rglob("*.png"))
    found = cs.knockout(scope, "5", [2], [str(files[0])], by="mean", survey=survey, controls=0)
    level = scope.activations([str(file) for file in files], "5")["5"].mean((0, 2, 3))[2]

    def write(value: Tensor, _number: int) -> Tensor:
        value[:, 2] = level
        return value

    np.testing.assert_allclose(found.after[0], twin(scope, "5", scope.inputs(str(files[0]))[None], write), atol=1e-6)
    assert "survey" in found.mean_of
    with pytest.raises(BadInput, match="other weights"):
        cs.knockout(network(), "5", [2], IMAGES, by="mean", survey=survey)
    with pytest.raises(BadInput, match="by='mean'"):
        cs.knockout(scope, "5", [2], str(files[0]), survey=survey)


def test_labels_of_a_folder(tmp_path: Path) -> None:
    scope, folder = network(), scanned.folder_of(tmp_path / "photos", 6)  # ant, bee, cat
    found = cs.knockout(scope, "5", [2], str(folder), controls=1)
    assert found.labelled and found.classes == ("ant", "bee", "cat") and found.truth.tolist() == [0, 0, 1, 1, 2, 2]
    for name, other in (("ant", "wolf"), ("bee", "fox"), ("cat", "owl")):
        (folder / name).rename(folder / other)
    alone = cs.knockout(scope, "5", [2], str(folder), controls=1)
    assert not alone.labelled and alone.classes == tuple(CLASSES) and "are no classes of the network" in alone.summary()
    (folder / "owl").rename(folder / "dog")
    some = cs.knockout(scope, "5", [2], str(folder), controls=1)
    assert some.classes == ("dog",) and some.truth.tolist() == [0, 0, -1, -1, -1, -1] and some.confusion().sum() == 2
    assert "Labels that are no class of the network, whose images do not count: fox, wolf" in some.summary()


def test_labels_mean_what_predictions_finds(tmp_path: Path) -> None:
    """Without class names and with as many labels as outputs, in alphabetical order, as ImageFolder numbers them."""
    folder = scanned.folder_of(tmp_path / "photos", 6)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    found = cs.knockout(Scope(model, Inputs(size=24)), "1", [2], str(folder), controls=0)
    assert found.labelled and found.classes == ("ant", "bee", "cat")


def test_class_maps_choose_the_groups() -> None:
    zero = np.zeros((2, 8))
    maps = ClassMaps(zero, zero, zero, np.ones(2), layer="5", classes=("ant", "bee", "cat")[:2], maps={"ant": (1, 2), "bee": ()})
    found = cs.knockout(network(), "5", maps, IMAGES, labels=LABELS, controls=1)
    assert found.groups == ("ant",) and found.units == ((1, 2),) and "left out: bee" in found.summary()
    with pytest.raises(BadInput, match="class maps of layer 2, got class_maps of layer 5"):
        cs.knockout(network(), "2", maps, IMAGES)


def test_zero_before_the_rectifier_is_said() -> None:
    assert "zero is not its silence" in cs.knockout(network(), "0", [1], IMAGES, controls=0).summary()
    assert "zero is not" not in cs.knockout(network(), "2", [1], IMAGES, controls=0).summary()


def test_figures() -> None:
    scope = network()
    one = cs.knockout(scope, "5", [1], IMAGES[:2], controls=3)
    assert len(one.view().panels) == 2 and "Random units: 3 sets" in one.view().note
    several = cs.knockout(scope, "5", {"ant": [1], "bee": [2]}, IMAGES, labels=LABELS, controls=3)
    assert "more than with random units for" in several.view().panels[0].title
    single = cs.knockout(scope, "5", [1], IMAGES, labels=LABELS, controls=0)
    assert "Random units" not in single.view().note


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"layer": "nothing"}, LayerNotFound, "no layer 'nothing'"),
        ({"layer": "output"}, BadInput, "below the output"),
        ({"units": [9]}, UnitNotFound, "units 0 to 7, got 9"),
        ({"units": {"ant": []}}, BadInput, "no class has a map"),
        ({"units": {}}, BadInput, "expected class maps"),
        ({"controls": -1}, BadInput, "controls must be at least 0"),
        ({"confidence": 1.0}, BadInput, "confidence"),
        ({"by": "noise"}, BadInput, "by must be zero, mean or resample"),
        ({"labels": ["ant"]}, BadInput, "one for each of 7 images"),
        ({"images": IMAGES[:1], "by": "mean"}, BadInput, "mean over a single image"),
        ({"images": IMAGES[:1], "by": "resample"}, BadInput, "at least 2"),
        ({"images": [IMAGES[0], IMAGES[1][:, :16]]}, BadInput, "images of one size"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_refusals(asked: dict[str, object], error: type[Exception], words: str) -> None:
    given = {"layer": "5", "units": [1], "images": IMAGES} | asked
    with pytest.raises(error, match=words):
        cs.knockout(network(), given.pop("layer"), given.pop("units"), given.pop("images"), **given)


def test_outputs_that_are_no_class_scores() -> None:
    maps = Scope(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), Inputs(size=12))
    with pytest.raises(BadInput, match="output is 4x10x10"):
        cs.knockout(maps, "0", [1], draws(1, 3, 12, 12))
    heads = Scope(hand_built.Heads(lambda main, other: (main, other)), Inputs(size=16))
    with pytest.raises((BadInput, NotReached)):
        cs.knockout(heads, "output", [0], draws(1, 3, 16, 16))


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (140, 140, 3), dtype=np.uint8)).save("a.png")
    assert main("knockout textures features.27 a.png --units 0-3 --controls 2 --out k".split()) == 0
    assert "units 0, 1, 2, 3 silenced" in capsys.readouterr().out and (tmp_path / "k" / "figure.png").exists()
    for words in ("--maps chains=3,5 --maps dots=7", "--maps chains=3,5 --maps dots=7 --class dots"):
        assert main(f"knockout textures features.27 a.png --controls 0 {words}".split()) == 0
    first, second = (cs.load(tmp_path / "out" / "knockout" / f"textures-features.27-a{number}") for number in ("", "-2"))
    assert (first.groups, second.groups) == (("chains", "dots"), ("dots",)) and first.units == ((3, 5), (7,))
