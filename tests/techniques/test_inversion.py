"""Inversion against its formula and on photographs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import convscope as cs
import hand_built
import promises
from convscope.errors import BadInput, LayerNotFound
from convscope.ops.denoise import tv_denoised
from convscope.optimize.parameterizations import MeanSubtracted
from convscope.optimize.priors import find_prior, natural_norm, natural_variation
from convscope.render.panels import Group, Table
from convscope.render.panels import Image as Tile
from convscope.scope import Inputs, Scope
from convscope.seeding import derive_seed
from hand_built import draws

PROMISE = promises.Promise(
    lambda s: cs.inversion(s, "5", promises.IMAGES[:2], edit=[None, cs.FeatureMap(1)], steps=3),
    "result.evaluations",
    forwards=5,
)

PHOTO = draws(1, 3, 24, 24, seed=7)


@pytest.fixture
def exact(small: nn.Module) -> Scope:
    """The small network in float64, so that rounding does not grow on the way."""
    return Scope(small.double(), Inputs(size=24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)), precision="float32", name="small")


def code_of(model: nn.Module, scope: Scope, pictures: Tensor, until: int) -> Tensor:
    """The value after module `until` of a sequential network, in evaluation mode."""
    with torch.no_grad():
        values = scope.inputs.normalize(pictures)
        for module in list(model.eval())[: until + 1]:
            values = module(values)
    return values


def test_errors_are_those_of_the_pictures(small: nn.Module, scope: Scope) -> None:
    images = draws(2, 3, 24, 24)
    made = cs.inversion(scope, "5", images, edit=[None, cs.FeatureMap(2), cs.Reallocate(1)], steps=6)
    assert made.images.shape == (2, 3, 3, 24, 24) and made.history.shape == (2, 3, 6)
    assert made.edits == ("own code", "map 2", "reallocated, seed 1") and made.names == ("image 0", "image 1")
    for row in (0, 1):
        code = code_of(small, scope, images[row : row + 1], 5)[0]
        alive = code.sum((1, 2)) > 0
        targets = [code, cs.FeatureMap(2)(code), cs.Reallocate(1)(code)]
        assert bool(alive.any())
        for column, target in enumerate(targets):
            seen = code_of(small, scope, torch.tensor(made.images[row, column][None]), 5)[0]
            expected = float((seen - target).square().sum() / target.square().sum())
            assert made.error[row, column] == pytest.approx(expected, rel=1e-4)
            assert made.losses[row, column, 0] == pytest.approx(expected, rel=1e-3)  # a Fourier picture needs no clipping
            assert made.history[row, column].min() <= made.history[row, column, 0]


def test_input_gives_the_image_itself(scope: Scope) -> None:
    made = cs.inversion(scope, "input", PHOTO)
    assert (made.history == 0).all()
    assert (made.images[:, 0] == PHOTO.numpy()).all() and made.error.item() == 0 and made.evaluations.item() == 1


def test_input_among_layers_and_with_a_prior(exact: Scope) -> None:
    made = cs.inversion(exact, ["input", "2"], PHOTO.double(), joint=True, steps=80)
    assert made.layers == ("input", "2") and made.codes == (("input", "2"),) and made.layer_errors.shape == (1, 1, 2)
    assert made.error.item() == pytest.approx(made.layer_errors.mean(), rel=1e-6) and made.error.item() < 0.01
    assert np.corrcoef(made.images.ravel(), PHOTO.ravel())[0, 1] > 0.98
    smooth = cs.inversion(exact, "input", PHOTO.double(), prior=1000 * natural_variation(), steps=40)
    assert smooth.images.std() < 0.3 * made.images.std(), "a strong prior flattens"


def test_one_gradient_step_of_half_returns_the_image() -> None:
    """Phi = identity and no prior: x - 1/2 * d/dx ||x - x0||^2 = x0."""
    start = draws(3, 4, 4, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad((start - PHOTO[0, :, :4, :4]).square().sum(), start)
    torch.testing.assert_close(start.detach() - slope / 2, PHOTO[0, :, :4, :4].double())


def test_an_injective_linear_code_has_one_inverse() -> None:
    model = hand_built.seeded(lambda: nn.Sequential(nn.Conv2d(3, 12, 3, padding=1))).double()
    scope = Scope(model, Inputs(size=12), precision="float32")
    image = 0.2 + 0.6 * draws(1, 3, 12, 12, seed=2, dtype=torch.float64)
    for written in ("fourier", "normalized"):
        made = cs.inversion(scope, "0", image, parameterization=written, steps=400)
        np.testing.assert_allclose(made.images[0, 0], image[0], atol=2e-3)
        assert made.error.item() < 1e-5


def enlarge(small: nn.Module) -> None:
    """Values as large as a trained network's: the paper's learning rate depends on them."""
    with torch.no_grad():
        small[4].weight *= 300  # type: ignore[operator]


@pytest.mark.parametrize(
    ("optimizer", "written"), [("lbfgs", "pixels"), ("lbfgs", "mean-subtracted"), ("adam", "fourier"), ("paper", None)]
)
def test_every_way_lowers_the_error(small: nn.Module, scope: Scope, optimizer: str, written: str | None) -> None:
    enlarge(small)
    made = cs.inversion(scope, "5", PHOTO, optimizer=optimizer, parameterization=written, steps=30)
    history = made.history[0, 0][np.isfinite(made.history[0, 0])]
    assert history[-1] < 0.7 * history[0]
    assert made.images.min() >= 0 and made.images.max() <= 1


def test_the_papers_preset_by_hand(small: nn.Module, scope: Scope) -> None:
    """Half the squared error in 0..255 minus the mean colour, clipped momentum descent from U(-0.1, 0.1)."""
    enlarge(small)
    made = cs.inversion(scope, "5", PHOTO, optimizer="paper", steps=5)
    mean = torch.tensor([123.68, 116.779, 103.939]).view(3, 1, 1)
    target = code_of(small, scope, PHOTO, 5)
    stream = torch.Generator().manual_seed(derive_seed(0, "inversion", "start"))
    numbers = MeanSubtracted(scope.inputs).start(24, 24, [stream])
    assert -0.1 <= float(numbers.min()) < -0.09 and 0.09 < float(numbers.max()) <= 0.1
    speed, history = torch.zeros_like(numbers), []
    for _ in range(5):
        free = numbers.clone().requires_grad_()
        values = scope.inputs.normalize((free + mean) / 255)
        for module in list(small.eval())[:6]:
            values = module(values)
        loss = (values - target).square().sum() / 2
        history.append(2 * loss.item() / target.square().sum().item())
        (slope,) = torch.autograd.grad(loss, free)
        speed = 0.9 * speed - 0.1 * (slope.clamp(-10, 10) + 5e-4 * numbers)
        numbers = numbers + speed
    np.testing.assert_allclose(made.history[0, 0], history, rtol=1e-3)
    expected = tv_denoised(((numbers + mean) / 255).clamp(0, 1), 0.2)[0]  # denoised at the end, as the paper's code does
    np.testing.assert_allclose(made.images[0, 0], expected, atol=1e-3)


def test_an_item_does_not_depend_on_its_batch(exact: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    images = draws(2, 3, 24, 24, dtype=torch.float64)
    edits = [cs.FeatureMap(1), None, cs.Reallocate(0)]
    whole = cs.inversion(exact, "5", images, edit=edits, steps=25)
    for row in (0, 1):
        for column, edit in enumerate(edits):
            alone = cs.inversion(exact, "5", images[row], edit=edit, steps=25)
            np.testing.assert_allclose(alone.history[0, 0], whole.history[row, column], rtol=1e-6)
            np.testing.assert_allclose(alone.images[0, 0], whole.images[row, column], atol=1e-5)
    monkeypatch.setattr(exact, "fitting", lambda _pixels: 2)
    np.testing.assert_allclose(cs.inversion(exact, "5", images, edit=edits, steps=25).images, whole.images, atol=1e-5)


def test_running_out_of_memory_halves_the_batch(exact: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    images = draws(4, 3, 24, 24, dtype=torch.float64)
    whole = cs.inversion(exact, "5", images, optimizer="adam", jitter=3, steps=4)
    run = exact.run

    def narrow(pictures: Tensor, layers: object, **named: object) -> dict[str, Tensor]:
        if len(pictures) > 2 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("not enough memory")
        return run(pictures, layers, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(exact, "run", narrow)
    np.testing.assert_allclose(cs.inversion(exact, "5", images, optimizer="adam", jitter=3, steps=4).images, whole.images, atol=1e-6)


def test_jitter_one_is_none_and_more_moves(scope: Scope) -> None:
    still = cs.inversion(scope, "5", PHOTO, optimizer="adam", steps=5)
    assert (cs.inversion(scope, "5", PHOTO, optimizer="adam", jitter=1, steps=5).images == still.images).all()
    moved = cs.inversion(scope, "5", PHOTO, optimizer="adam", jitter=4, steps=60)
    assert moved.images.shape == still.images.shape and not np.allclose(moved.images, still.images)
    assert moved.error.item() < 1


def test_average_pooling(small: nn.Module, scope: Scope) -> None:
    """The target is taken, and the picture measured, through averages."""
    made = cs.inversion(scope, "5", PHOTO, pooling="average", steps=3)
    small[3] = nn.AvgPool2d(2)
    target, seen = code_of(small, scope, PHOTO, 5), code_of(small, scope, torch.from_numpy(made.images[0].copy()), 5)
    assert made.error.item() == pytest.approx(float((seen - target).square().sum() / target.square().sum()), rel=1e-4)


def test_several_layers_are_each_as_if_alone(scope: Scope) -> None:
    images, edits = draws(2, 3, 24, 24), [None, cs.FeatureMap(1)]
    made = cs.inversion(scope, ["2", "5"], images, edit=edits, steps=5)
    assert made.images.shape == (2, 4, 3, 24, 24) and made.layer_errors.shape == (2, 4, 1) and made.layers == ("2", "5")
    assert made.codes == (("2",), ("2",), ("5",), ("5",)) and made.edits == ("own code", "map 1") * 2
    for place, layer in enumerate(["2", "5"]):
        alone = cs.inversion(scope, layer, images, edit=edits, steps=5)
        columns = slice(2 * place, 2 * place + 2)
        for name in ("images", "error", "layer_errors", "losses", "history"):
            np.testing.assert_array_equal(getattr(made, name)[:, columns], getattr(alone, name))
    assert made.summary().splitlines()[3].startswith("image 0, 5, map 1: normalized error ")
    (sheet, table) = made.view().panels
    assert isinstance(sheet, Group) and isinstance(table, Table) and len(sheet.panels) == 12 and sheet.columns == 3
    first = [tile for tile in sheet.panels if isinstance(tile, Tile)][::3]
    assert [(tile.title, tile.caption) for tile in first] == [(f"image {row}", layer) for row in (0, 1) for layer in ("2", "5")]
    assert "layers 2, 5" in made.view().subtitle and table.rows[2][1] == "5, own code"


def test_maps_alone_are_kept_within_the_contrast_of_photographs(scope: Scope) -> None:
    edits = [cs.FeatureMap(2), None, cs.Reallocate(1)]
    made, free = (cs.inversion(scope, "5", PHOTO, edit=edits, steps=6, prior=prior) for prior in (None, "none"))
    np.testing.assert_array_equal(made.images[:, 1:], free.images[:, 1:])
    assert (made.losses[0, 1:, 1] == 0).all() and made.losses[0, 0, 1] > 0 and free.losses.shape[2] == 1
    shown = torch.tensor(made.images[0, :1], dtype=torch.float64)
    assert made.losses[0, 0, 1] == pytest.approx(0.003 * natural_norm().score({}, shown).item(), rel=1e-3)
    named = cs.inversion(scope, "5", PHOTO, edit=edits[0], steps=6, prior="contrast")
    np.testing.assert_allclose(named.images[0], made.images[0, :1], atol=1e-5)
    assert cs.inversion(scope, "5", PHOTO, edit=edits[0], steps=2, optimizer="paper").parts == ("code",), "the paper has none"


def test_a_style_image_gives_its_code_at_every_layer(small: nn.Module, scope: Scope, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "night.png")
    made = cs.inversion(scope, ["2", "5"], PHOTO, edit=cs.Purposeful(tmp_path / "night.png"), steps=3)
    assert made.edits == ("in the order of night",) * 2
    for place, layer in enumerate((2, 5)):
        style = code_of(small, scope, torch.tensor(pixels / 255.0, dtype=torch.float32).permute(2, 0, 1)[None], layer)[0]
        known = cs.inversion(scope, str(layer), PHOTO, edit=cs.Purposeful(style), steps=3)
        np.testing.assert_allclose(made.images[0, place], known.images[0, 0], atol=1e-5)
    with pytest.raises(BadInput, match="expected one style image, got 2"):
        Image.fromarray(pixels).save(tmp_path / "day.png")
        cs.inversion(scope, "2", PHOTO, edit=cs.Purposeful(tmp_path), steps=1)
    with pytest.raises(BadInput, match="has a code at a layer only"):
        cs.Purposeful("night.png")(PHOTO[0])


def test_vector_layers(scope: Scope) -> None:
    made = cs.inversion(scope, "output", PHOTO, edit=[None, lambda code: 2 * code], steps=40)
    assert made.edits[1] == "<lambda>" and made.error[0, 0] < 0.05


def test_priors_by_hand() -> None:
    pictures = draws(2, 3, 5, 6, dtype=torch.float64)
    x = (255 * pictures - torch.tensor([123.68, 116.779, 103.939], dtype=torch.float64).view(3, 1, 1)).numpy()
    norm, variation, sixth = np.zeros(2), np.zeros(2), np.zeros(2)
    for image in range(2):
        for v in range(5):
            for u in range(6):
                norm[image] += (x[image, :, v, u] ** 2).sum() ** 3 / 80**6 / 30
                sixth[image] += (x[image, :, v, u] ** 6).sum() / 30
                for channel in range(3):
                    down = x[image, channel, v + 1, u] - x[image, channel, v, u] if v < 4 else 0
                    across = x[image, channel, v, u + 1] - x[image, channel, v, u] if u < 5 else 0
                    variation[image] += (down**2 + across**2) / 30
    np.testing.assert_allclose(natural_norm().score({}, pictures), norm, rtol=1e-9)
    np.testing.assert_allclose(natural_variation().score({}, pictures), variation * (6.5 / 80) ** 2, rtol=1e-9)
    ijcv, cvpr = find_prior("ijcv2016", 0.3), find_prior(("cvpr2015", 0.5), 0.3)
    assert ijcv is not None and cvpr is not None and find_prior("none", 0.1) is None
    contrast = find_prior(("contrast", 2.0), 0.3)
    assert contrast is not None
    np.testing.assert_allclose(contrast.score({}, pictures), 0.006 * norm, rtol=1e-9)
    np.testing.assert_allclose(ijcv.score({}, pictures), norm + variation * (6.5 / 80) ** 2, rtol=1e-9)
    np.testing.assert_allclose(cvpr.score({}, pictures), 0.5 * (4e-10 * sixth + 10 / 2 * variation) / 9961, rtol=1e-9)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_variation(power: float) -> None:
    prior = natural_variation(power)
    pictures = draws(1, 3, 5, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: prior.score({}, x), pictures)
    assert float(prior.score({}, torch.full((1, 3, 5, 6), 0.3))) == 0, "constant pictures are its optimum"
    torch.testing.assert_close(prior.score({}, pictures + 0.2), prior.score({}, pictures))
    flat = torch.full((1, 3, 5, 6), 0.3, requires_grad=True)
    assert bool(torch.isfinite(torch.autograd.grad(prior.score({}, flat).sum(), flat)[0]).all())


def test_seeds(scope: Scope) -> None:
    made = [cs.inversion(scope, "5", PHOTO, steps=3, seed=seed).images for seed in (0, 0, 1)]
    assert (made[0] == made[1]).all() and not np.allclose(made[0], made[2])


def test_what_is_said(scope: Scope) -> None:
    made = cs.inversion(scope, "5", PHOTO, edit=cs.FeatureMap(3), steps=4, pooling="average")
    assert made.summary() == f"image 0, map 3: normalized error {made.error.item():.3g} after 4 evaluations"
    assert made.manifest["recipe"]["optimizer"] == "lbfgs" and made.parts == ("code", "prior")
    assert made.view().subtitle.endswith("layer 5 · seed 0 · float32 · average pooling · 24x24 px · lbfgs")
    assert cs.inversion(scope, "5", PHOTO, prior="ijcv2016", steps=1).parts == ("code", "prior")


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"layer": "9"}, LayerNotFound, "no layer '9'"),
        ({"layer": []}, BadInput, "no layer asked for"),
        ({"steps": 0}, BadInput, "steps must be a whole number of at least 1, got 0"),
        ({"optimizer": "sgd"}, BadInput, "optimizer must be lbfgs, adam or paper"),
        ({"parameterization": "jpeg"}, BadInput, "parameterization must be fourier"),
        ({"prior": "l2"}, BadInput, "prior must be none, ijcv2016"),
        ({"prior": "cvpr2015*0.1"}, BadInput, "prior must be none, ijcv2016"),
        ({"prior": ("cvpr2015", -1)}, BadInput, "prior must be none, ijcv2016"),
        ({"pooling": "max"}, BadInput, "pooling must be own or average"),
        ({"jitter": 4}, BadInput, "optimizer='adam'"),
        ({"jitter": 0, "optimizer": "adam"}, BadInput, "jitter must be 1"),
        ({"edit": "map=3"}, BadInput, "edit: expected FeatureMap"),
        ({"edit": cs.FeatureMap(8)}, BadInput, r"FeatureMap\(8\): the layer has maps 0 to 7"),
        ({"edit": lambda code: code[:2]}, BadInput, "not a finite code of that shape"),
        ({"edit": lambda code: code / 0}, BadInput, "not a finite code of that shape"),
        ({"edit": torch.zeros_like}, BadInput, "zero everywhere"),
        ({"layer": ["2", "5"], "optimizer": "paper", "joint": True}, BadInput, "code of one layer"),
        ({"layer": ["2", "4", "5"], "edit": cs.FeatureMap(6)}, BadInput, r"maps 0 to 5 .*layer=2"),
        ({"images": [draws(3, 24, 24), draws(3, 20, 24)]}, BadInput, "different sizes"),
        ({"images": draws(1, 3, 24, 24) * 255}, BadInput, "divide by 255"),
        ({"images": draws(1, 3, 1, 1)}, BadInput, "too small"),
    ],
)
def test_wrong_questions(scope: Scope, wrong: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        cs.inversion(scope, **({"images": PHOTO, "layer": "5"} | wrong))  # type: ignore[arg-type]


def test_photographs_are_found_again(squeezenet: Scope, shared: Callable[[str], Path]) -> None:
    """Quick: 40 evaluations at 128 px; the bounds at full size are tested among the slow ones."""
    photo = squeezenet.inputs.uncropped(str(shared("images/inversion-paper/content-golden-gate.jpg")), 128)
    made = cs.inversion(squeezenet, "features.3", photo, steps=40)
    assert made.error.item() < 0.03
    assert np.corrcoef(made.images.ravel(), photo.numpy().ravel())[0, 1] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "most"), [("features.3", 0.005), ("features.7", 0.05), ("features.12", 0.13)])
def test_errors_on_a_photograph(squeezenet: Scope, shared: Callable[[str], Path], layer: str, most: float) -> None:
    made = cs.inversion(squeezenet, layer, shared("images/inversion-paper/content-golden-gate.jpg"))
    assert made.error.item() <= most


def test_averages_are_inverted_with_a_curvature_for_each_band(squeezenet: Scope, shared: Callable[[str], Path]) -> None:
    """At 128 px; with one band for all it is 0.0081."""
    photo = squeezenet.inputs.uncropped(str(shared("images/inversion-paper/content-golden-gate.jpg")), 128)
    made = cs.inversion(squeezenet, "features.3", photo, pooling="average", steps=20)
    assert made.manifest["recipe"]["banded"] and made.error.item() < 0.004
    assert not cs.inversion(squeezenet, "features.3", photo, pooling="average", parameterization="pixels", steps=1).manifest["recipe"][
        "banded"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "most"), [("features.3", 0.0002), ("features.7", 0.001), ("features.12", 0.04)])
def test_errors_through_averages(squeezenet: Scope, shared: Callable[[str], Path], layer: str, most: float) -> None:
    made = cs.inversion(squeezenet, layer, shared("images/inversion-paper/content-golden-gate.jpg"), pooling="average")
    assert made.error.item() <= most


@pytest.mark.slow
def test_one_filters_texture_is_alike_on_both_photographs(squeezenet: Scope, shared: Callable[[str], Path]) -> None:
    photos = [
        squeezenet.inputs.uncropped(str(shared(f"images/inversion-paper/content-{name}.jpg")), 160)[:, :104]
        for name in ("golden-gate", "tubingen")
    ]
    made = cs.inversion(
        squeezenet, "features.3", torch.stack(photos), edit=[cs.FeatureMap(number) for number in range(8)], steps=60, pooling="average"
    )
    pictures = [torch.tensor(one) for one in made.images.reshape(-1, *made.images.shape[2:])]
    alike = cs.style_similarity(squeezenet, pictures, layers="features.7")
    nearest = alike.nearest("gram", among=range(8, 16))[:8] - 8
    assert (nearest == np.arange(8)).sum() >= 6, "chance is 1"
