"""Pictures optimized from noise: slow twins in float64 written plainly from the articles, known optima, and units without gradient."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convscope
import hand_built
import promises
from convscope.errors import BadInput, LayerNotFound, UnitNotFound
from convscope.optimize import objectives
from convscope.optimize.recipes import RECIPES
from convscope.results.feature_visualization import FLAT
from convscope.scope import Inputs, Scope
from convscope.seeding import derive_seed
from hand_built import draws

PROMISE = promises.Promise(
    lambda s: convscope.feature_visualization(s, "5", [0, 1], recipe="fourier", size=promises.SIDE, steps=3),
    "result.view().note",
    forwards=21,
)

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def in_double() -> Generator[None]:
    """The twin's new tensors are float64; what is tested is in float64 because its network is."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def double(in_double: None) -> Scope:
    return Scope(hand_built.small().double(), Inputs(size=24, mean=MEAN, std=STD), precision="float32")


# --- slow twins


def value_of(scope: Scope, layer: int, unit: int) -> Callable[[Tensor], Tensor]:
    """The mean of a unit's map at a normalized picture (1 3 h w), with plain module calls."""
    modules = list(scope.model.eval())[: layer + 1]

    def value(normalized: Tensor) -> Tensor:
        for module in modules:
            normalized = F.relu(normalized) if isinstance(module, nn.ReLU) else module(normalized)
        return normalized[0, unit].mean()

    return value


def gradient_of(value: Callable[[Tensor], Tensor], at: Tensor) -> tuple[float, Tensor]:
    at = at.detach().requires_grad_()
    result = value(at)
    return float(result.detach()), torch.autograd.grad(result, at)[0]


def adam_slowly(value: Callable[[Tensor], Tensor], numbers: Tensor, steps: int, rate: float, decay: float) -> tuple[Tensor, list[float]]:
    """Kingma and Ba 2015 with the decay added to the gradient, maximizing."""
    first, second, trace = torch.zeros_like(numbers), torch.zeros_like(numbers), []
    for step in range(1, steps + 1):
        score, gradient = gradient_of(value, numbers)
        trace.append(score)
        gradient = -gradient + decay * numbers
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        numbers = numbers - rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    return numbers, trace


def start_generator(layer: str, unit: int, purpose: str, seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, "feature_visualization", layer, unit, 0, purpose))


def eight_bit_noise(layer: str, unit: int, side: int, low: int, high: int) -> Tensor:
    noise = torch.rand(1, 3, side, side, generator=start_generator(layer, unit, "start"), dtype=torch.float32).double()
    return (low + (high - low) * noise).floor() / 255


def column(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


@pytest.mark.parametrize(("layer", "unit"), [("4", 3), ("5", 1), ("2", 0)])
@pytest.mark.parametrize("blur", [None, 3])
def test_multiscale_is_the_forty_line_article(double: Scope, layer: str, unit: int, blur: int | None) -> None:
    numbers = {"size": 16, "stages": 3, "steps": 6, "blur": blur}
    made = convscope.feature_visualization(double, layer, unit, recipe="multiscale", **numbers)

    value, mean, std = value_of(double, int(layer), unit), column(MEAN), column(STD)
    picture, side, trace = eight_bit_noise(layer, unit, 16, 150, 180), 16, []
    for _ in range(3):
        normalized, scores = adam_slowly(value, (picture - mean) / std, 6, 0.1, 1e-6)
        trace += scores
        picture = output = normalized * std + mean
        side = int(1.2 * side)
        picture = F.interpolate(picture, size=(side, side), mode="bicubic", align_corners=False)
        if blur:
            picture = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    assert made.status == ("converged",) and trace[0] != trace[5], "the unit must be alive for this to mean anything"
    assert made.images.shape == (1, 3, 22, 22), "the last enlargement is discarded"
    np.testing.assert_allclose(made.history[0], trace, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(made.images, output.clamp(0, 1).numpy(), rtol=0, atol=1e-7)


def test_multiscale_sigmoid_is_feature_map_visualizer(double: Scope) -> None:
    made = convscope.feature_visualization(double, "4", 3, recipe="multiscale-sigmoid", size=13, stages=3, steps=6)
    value, mean, std = value_of(double, 4, 3), column(MEAN), column(STD)
    logits, side, trace = eight_bit_noise("4", 3, 13, 150, 180), 13, []
    for stage in range(3):
        if stage:
            side = int(1.2 * side)
            logits = F.interpolate(logits, size=(side, side), mode="bicubic", align_corners=False)
        logits, scores = adam_slowly(lambda theta: value((torch.sigmoid(theta) - mean) / std), logits, 6, 0.2, 1e-6)
        trace += scores
    np.testing.assert_allclose(made.history[0], trace, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(made.images, torch.sigmoid(logits).numpy(), rtol=0, atol=1e-7)


def test_pixels_is_chollets_loop(double: Scope) -> None:
    made = convscope.feature_visualization(double, "5", 1, recipe="pixels", size=20, steps=8)
    value, mean, std = value_of(double, 5, 1), column(MEAN), column(STD)
    picture, trace = eight_bit_noise("5", 1, 20, 128, 148) * 255, []
    for _ in range(8):
        score, gradient = gradient_of(lambda raw: value((raw / 255 - mean) / std), picture)
        trace.append(score)
        picture = picture + 1.0 * gradient / gradient.square().mean().sqrt()
    np.testing.assert_allclose(made.history[0], trace, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(made.images, (picture / 255).clamp(0, 1).numpy(), rtol=0, atol=1e-7)


def sampled_slowly(picture: Tensor, matrix: Tensor, side: int) -> Tensor:
    """Bilinear sampling of (1 3 h w) at affine positions, pixel by pixel, 0.5 grey outside."""
    height, width = picture.shape[-2:]
    rows = []
    for i in range(side):
        row = []
        for j in range(side):
            x, y = (2 * j + 1) / side - 1, (2 * i + 1) / side - 1
            at_x, at_y = (float(matrix[axis] @ torch.tensor([x, y, 1.0])) for axis in (0, 1))
            column_at, row_at = ((at_x + 1) * width - 1) / 2, ((at_y + 1) * height - 1) / 2
            value = torch.full((3,), 0.5)
            for r in (math.floor(row_at), math.floor(row_at) + 1):
                for c in (math.floor(column_at), math.floor(column_at) + 1):
                    if 0 <= r < height and 0 <= c < width:
                        value = value + (1 - abs(row_at - r)) * (1 - abs(column_at - c)) * (picture[0, :, r, c] - 0.5)
            row.append(value)
        rows.append(torch.stack(row, 1))
    return torch.stack(rows, 1)[None]


@pytest.mark.parametrize("recipe", ["crops", "fourier"])
def test_fourier_recipes_slowly(double: Scope, recipe: str) -> None:
    side, steps = 12, 4
    made = convscope.feature_visualization(double, "4", 3, recipe=recipe, size=side, steps=steps, crop_size=10, pad=3, jitter=(2, 2))
    plan = RECIPES[recipe]
    value, mean, std = value_of(double, 4, 3), column(MEAN), column(STD)
    start, views = start_generator("4", 3, "start"), start_generator("4", 3, "views")
    spectrum = 0.01 * torch.randn(3, side, side // 2 + 1, 2, generator=start, dtype=torch.float32).double()[None]
    matrix = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
    matrix = matrix / max(float(matrix[:, c].square().sum().sqrt()) for c in range(3))
    frequency = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None])
    scale = side / torch.maximum(frequency, torch.tensor(1 / side))

    def painted(numbers: Tensor) -> Tensor:
        waves = torch.fft.irfft2(torch.complex(numbers[..., 0], numbers[..., 1]) * scale, s=(side, side)) / 4
        return torch.sigmoid(torch.stack([sum(matrix[r, c] * waves[:, c] for c in range(3)) for r in range(3)], 1))

    first, second, trace = torch.zeros_like(spectrum), torch.zeros_like(spectrum), []
    for step in range(1, steps + 1):
        done = (step - 1) / (steps - 1)
        if recipe == "crops":
            share, y, x = torch.rand(3, generator=views, dtype=torch.float32).tolist()
            low, high = 0.6 + (0.2 - 0.6) * done, 1.0 + (0.6 - 1.0) * done
            size = low + (high - low) * share
            look, seen = torch.tensor([[size, 0.0, (2 * x - 1) * (1 - size)], [0.0, size, (2 * y - 1) * (1 - size)]]), 10
        else:
            share, turn, still, y0, x0, y1, x1 = torch.rand(7, generator=views, dtype=torch.float32).tolist()
            angle = 0.0 if still < 5 / 26 else math.radians(10 * (2 * turn - 1))
            seen = side + 2 * 3 - 4
            zoom = seen / side / (0.9 + 0.2 * share)
            down = math.floor(y0 * 3) - 1 + math.floor(y1 * 3) - 1
            right = math.floor(x0 * 3) - 1 + math.floor(x1 * 3) - 1
            look = torch.tensor(
                [
                    [zoom * math.cos(angle), -zoom * math.sin(angle), 2 * right / side],
                    [zoom * math.sin(angle), zoom * math.cos(angle), 2 * down / side],
                ]
            )
        noise = plan.noise * torch.randn(3, seen, seen, generator=views, dtype=torch.float32).double()[None] if plan.noise else 0.0
        score, gradient = gradient_of(lambda n: value((sampled_slowly(painted(n), look, seen) + noise - mean) / std), spectrum)  # noqa: B023
        trace.append(score)
        first, second = 0.9 * first - 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        spectrum = spectrum - 0.05 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    np.testing.assert_allclose(made.history[0], trace, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(made.images, painted(spectrum).numpy(), rtol=0, atol=1e-7)


# --- known optima


def test_the_gradient_of_a_linear_unit_is_its_filter() -> None:
    scope = Scope(hand_built.linear_conv(torch.float64), Inputs(size=9), precision="float32")
    picture = draws(1, 3, 9, 9, dtype=torch.float64).requires_grad_()
    objectives.neuron("0", 2, y=3, x=4)(scope, picture).sum().backward()
    expected = torch.zeros(1, 3, 9, 9, dtype=torch.float64)
    expected[:, :, 3:6, 4:7] = scope.model[0].weight[2]
    assert torch.equal(picture.grad, expected)


def test_the_best_patch_of_a_given_norm_is_the_filter() -> None:
    scope, radius = Scope(hand_built.linear_conv(torch.float64), Inputs(size=8), precision="float32"), 0.9
    aim = objectives.neuron("0", 1, y=0, x=0)
    picture = draws(1, 3, 3, 3, dtype=torch.float64)
    for _ in range(200):
        picture = picture.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(aim(scope, picture).sum(), picture)
        picture = picture + gradient
        picture = radius * picture / picture.norm()
    weight, bias = scope.model[0].weight[1], scope.model[0].bias[1]
    torch.testing.assert_close(picture[0], (radius * weight / weight.norm()).detach())
    assert float(aim(scope, picture.detach()).detach()) == pytest.approx(float((radius * weight.norm() + bias).detach()))


def test_the_mean_of_a_linear_map_wants_a_flat_colour() -> None:
    scope = Scope(hand_built.linear_conv(torch.float64), Inputs(size=10), precision="float32")
    picture = draws(1, 3, 10, 10, dtype=torch.float64).requires_grad_()
    objectives.unit("0", 3)(scope, picture).sum().backward()
    interior = picture.grad[0, :, 2:-2, 2:-2]
    expected = scope.model[0].weight[3].detach().sum((1, 2)) / 64
    torch.testing.assert_close(interior, expected.view(3, 1, 1).expand_as(interior))


def test_mean_and_sum_climb_alike_where_adam_has_no_epsilon(double: Scope) -> None:
    ends = {}
    for reduce in ("mean", "sum"):
        aim = objectives.unit("4", 3, reduce=reduce)
        numbers = draws(1, 3, 24, 24, dtype=torch.float64).requires_grad_()
        optimizer = torch.optim.Adam([numbers], lr=0.05, eps=1e-30)
        before = float(aim(double, numbers).detach())
        for _ in range(20):
            optimizer.zero_grad()
            (-aim(double, numbers).sum()).backward()
            optimizer.step()
        assert float(aim(double, numbers).detach()) > before, "a dead unit would make this vacuous"
        ends[reduce] = numbers.detach()
    torch.testing.assert_close(ends["mean"], ends["sum"], rtol=0, atol=1e-10)


def test_what_recipes_maximize(double: Scope) -> None:
    for reduce in ("mean", "sum", "center"):
        made = convscope.feature_visualization(double, "4", 3, recipe="multiscale", size=16, stages=1, steps=1, reduce=reduce)
        values = double.activations(eight_bit_noise("4", 3, 16, 150, 180), "4")["4"][0, 3]
        expected = {"mean": values.mean(), "sum": values.sum(), "center": values[4, 4]}[reduce]
        assert made.history[0, 0] == pytest.approx(float(expected), rel=1e-9)


# --- every recipe


def short(recipe: str) -> dict[str, object]:
    if recipe in ("crops", "fourier"):
        return {"size": 32, "steps": 24, "crop_size": 24, "pad": 4, "jitter": (2, 2)}
    return {"size": 16, "stages": 1 if recipe == "pixels" else 3, "steps": 8}


def seen(scope: Scope, recipe: str, units: object = (0, 3, 5), layer: str = "4", **more: object) -> convscope.FeatureVisualization:
    return convscope.feature_visualization(scope, layer, list(units), recipe=recipe, **{**short(recipe), **more})  # type: ignore[arg-type, call-overload]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_picture_changes_and_the_objective_rises(scope: Scope, recipe: str) -> None:
    made, start = seen(scope, recipe), seen(scope, recipe, steps=1, learning_rate=0)
    assert np.abs(made.images - start.images).mean((1, 2, 3)).min() > 0.01
    assert (made.scores > start.scores).all()
    assert (made.history[:, -1] > made.history[:, 0]).all()
    assert made.history.shape == (3, short(recipe)["steps"] * short(recipe).get("stages", 1))
    assert made.images.dtype == np.float32 and made.images.min() >= 0 and made.images.max() <= 1
    assert made.status == ("converged",) * 3 and made.reasons == ("",) * 3 and made.units == (0, 3, 5) and made.unit_names == ("",) * 3


@pytest.mark.parametrize("recipe", RECIPES)
def test_same_seed_same_bits(recipe: str) -> None:
    def run(seed: int) -> convscope.FeatureVisualization:
        scope = Scope(hand_built.small(), Inputs(size=24, mean=MEAN, std=STD), precision="float32")
        return seen(scope, recipe, seed=seed)

    one, again, other = run(0), run(0), run(1)
    for field in ("images", "scores", "before_relu", "after_relu", "history"):
        assert (getattr(one, field) == getattr(again, field)).all(), field
    assert (one.images != other.images).any((1, 2, 3)).all()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_unit_does_not_depend_on_the_other_units_of_its_batch(scope: Scope, recipe: str) -> None:
    first, second = seen(scope, recipe, (0, 3, 5)), seen(scope, recipe, (7, 2, 0))
    assert (first.images[0] == second.images[2]).all() and first.scores[0] == second.scores[2]
    alone = seen(scope, recipe, (0,), steps=3)
    crowd = seen(scope, recipe, range(8), steps=3)
    np.testing.assert_allclose(alone.images[0], crowd.images[0], rtol=0, atol=2e-3)


def test_more_units_than_go_at_once() -> None:
    model = hand_built.seeded(lambda: nn.Sequential(nn.Conv2d(3, 20, 3)))
    scope = Scope(model, Inputs(size=12), precision="float32")
    whole = seen(scope, "multiscale", range(20), "0", stages=1, steps=3)
    assert whole.images.shape == (20, 3, 16, 16) and whole.units == tuple(range(20))
    late = seen(scope, "multiscale", range(16, 20), "0", stages=1, steps=3)
    assert (whole.images[16:] == late.images).all() and (whole.history[16:] == late.history).all()


def test_the_network_is_left_as_it_was(small: nn.Module) -> None:
    hand_built.unsettle(small)
    before = hand_built.state_of(small)
    scope = Scope(small, Inputs(size=24), precision="float32")
    seen(scope, "crops")
    assert hand_built.state_of(small) == before
    small[4].register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("in mid-forward")))
    before = hand_built.state_of(small)
    with pytest.raises(BadInput, match=r"in layer 4 .*in mid-forward"):
        seen(Scope(small, Inputs(size=24)), "crops")
    assert hand_built.state_of(small) == before


def test_passes_are_counted(scope: Scope) -> None:
    _ = scope.layers
    before = scope.forwards
    seen(scope, "multiscale", stages=2, steps=5)
    assert scope.forwards - before <= 1 + 2 * 5 + 2, "the start, every step, the final scores"


# --- scores


def test_a_network_that_overflows_is_no_success() -> None:
    """Sums of infinities of either sign; ReLUs would make zero of them in some of the faster passes."""
    model = hand_built.small()
    with torch.no_grad():
        model[0].weight.mul_(1e30)
        model[4].weight.mul_(1e30)
    made = seen(Scope(model, Inputs(24)), "fourier", (0, 1), "5", steps=2)
    assert made.status == ("stuck", "stuck") and all("the network overflows" in reason for reason in made.reasons)


def test_scores_are_those_of_the_final_picture(scope: Scope) -> None:
    made = seen(scope, "crops", (0, 3), "5")
    values = scope.activations(torch.from_numpy(made.images.copy()), ["4", "5"])
    for index, unit in enumerate((0, 3)):
        assert made.scores[index] == float(values["5"][index, unit].mean())
        assert made.before_relu[index] == float(values["4"][index, unit].mean())
        assert made.after_relu[index] == made.scores[index]


def test_scores_of_a_convolution_before_and_after_rectification(scope: Scope) -> None:
    made = seen(scope, "crops", (1, 6), "4")
    values = scope.activations(torch.from_numpy(made.images.copy()), "4")["4"]
    for index, unit in enumerate((1, 6)):
        assert made.scores[index] == made.before_relu[index] == float(values[index, unit].mean())
        assert made.after_relu[index] == float(values[index, unit].relu().mean())


def test_scores_of_classes() -> None:
    scope = Scope(hand_built.small(), Inputs(size=24, classes=["a", "b", "c", "d", "e"]), precision="float32")
    made = seen(scope, "crops", ("b", 3), "output")
    logits = scope.activations(torch.from_numpy(made.images.copy()), "output")["output"]
    assert made.scores.tolist() == [float(logits[0, 1]), float(logits[1, 3])]
    assert made.unit_names == ("b", "d") and made.units == (1, 3)


def test_scores_after_running_out_of_memory(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, run = seen(scope, "multiscale"), scope.run

    def short_of_memory(images: Tensor, layers: object, **how: bool) -> dict[str, Tensor]:
        if not torch.is_grad_enabled() and len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(images, layers, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(scope, "run", short_of_memory)
    made = seen(scope, "multiscale")
    assert (made.images == expected.images).all()
    np.testing.assert_allclose(made.scores, expected.scores, rtol=1e-5)


def test_optimizing_in_bfloat16_is_scored_in_float32() -> None:
    scope = Scope(hand_built.small(), Inputs(size=24, mean=MEAN, std=STD), precision="bfloat16")
    made = seen(scope, "crops")
    exact = Scope(hand_built.small(), Inputs(size=24, mean=MEAN, std=STD), precision="float32")
    values = exact.activations(torch.from_numpy(made.images.copy()), "4")["4"]
    assert made.scores.tolist() == [float(values[index, unit].mean()) for index, unit in enumerate((0, 3, 5))]
    assert made.manifest["precision"] == "bfloat16" and (made.history[:, -1] > made.history[:, 0]).all()


def test_views_are_mirrored_for_units_that_take_the_mirrored_image_for_the_same_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 7, bias=False), nn.ReLU())
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(7.0), indexing="ij")
    with torch.no_grad():
        network[0].weight.copy_(torch.stack([torch.sin(y), torch.sin(x + y)])[:, None].expand(2, 3, 7, 7))  # level stripes, slanted ones
    scope = Scope(network, Inputs(size=24, mean=MEAN, std=STD), precision="float32")
    both, plain = (
        convscope.feature_visualization(scope, "1", [0, 1], size=32, crop_size=24, steps=40, mirror=mirror).images
        for mirror in (True, False)
    )
    assert (both[0] != plain[0]).any()
    assert (both[1] == plain[1]).all()
    early = convscope.feature_visualization(scope, "1", [0], size=32, crop_size=24, steps=16).images
    assert (early == convscope.feature_visualization(scope, "1", [0], size=32, crop_size=24, steps=16, mirror=False).images).all()


def test_class_weight_makes_the_class_win(scope: Scope) -> None:
    def share(weight: float) -> float:
        made = seen(scope, "crops", (2,), "output", class_weight=weight)
        return float(scope.activations(torch.from_numpy(made.images.copy()), "output")["output"].softmax(1)[0, 2])

    assert share(4.0) > share(0.0)


def test_a_penalty_is_subtracted(scope: Scope) -> None:
    plain = seen(scope, "multiscale")
    smooth = seen(scope, "multiscale", penalty=0.1 * objectives.total_variation())

    def roughness(made: convscope.FeatureVisualization) -> np.ndarray:
        return objectives.total_variation().score({}, torch.from_numpy(made.images.copy())).numpy()

    assert (roughness(smooth) < 0.8 * roughness(plain)).all()
    assert (smooth.history[:, 0] < plain.history[:, 0]).all()


# --- units without gradient


def with_biases(*biases: float) -> Scope:
    """A convolution whose units see the picture's brightness, shifted by a bias, and a ReLU."""
    model = hand_built.seeded(lambda: nn.Sequential(nn.Conv2d(3, len(biases), 3), nn.ReLU(inplace=True)))
    with torch.no_grad():
        model[0].weight.fill_(0.1)
        model[0].bias.copy_(torch.tensor(biases))
    return Scope(model, Inputs(size=16), precision="float32")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_dead_unit_is_stuck_and_the_others_are_not(recipe: str) -> None:
    scope = with_biases(0.0, -1e6, 0.1)
    made = seen(scope, recipe, (0, 1, 2), "1")
    assert made.status == ("converged", "stuck", "converged")
    assert {made.reasons[0], made.reasons[2]} <= {"", FLAT} and "no gradient" in made.reasons[1] and "3 starts" in made.reasons[1]
    assert made.scores[1] == 0 and made.scores[0] > 0 and made.scores[2] > 0
    assert made.before_relu[1] < -1e5


def test_all_units_dead() -> None:
    made = seen(with_biases(-1e6, -1e6), "multiscale", (0, 1), "1")
    assert made.status == ("stuck", "stuck")


def test_a_penalty_does_not_hide_a_dead_unit() -> None:
    made = seen(with_biases(0.0, -1e6), "multiscale", (0, 1), "1", penalty=1e-3 * objectives.total_variation())
    assert made.status == ("converged", "stuck")


@pytest.mark.parametrize("recipe", ["multiscale", "multiscale-sigmoid", "pixels"])
def test_a_unit_that_is_silent_at_the_start_is_rescued(recipe: str) -> None:
    start = {"multiscale": 165 / 255, "multiscale-sigmoid": 1 / (1 + math.exp(-165 / 255)), "pixels": 138 / 255}[recipe]
    bias = -2.7 * start - 0.1  # below zero all over the start picture, above zero on a slightly brighter one
    made = seen(with_biases(0.0, bias), recipe, (0, 1), "1", steps=30)
    assert made.status == ("converged", "rescued") and "redirected ReLUs" in made.reasons[1]
    assert made.history[1, 0] == 0 and made.scores[1] > 0.05


@pytest.mark.parametrize("bent", [nn.SiLU, nn.GELU, nn.Hardswish, nn.Mish])
@pytest.mark.parametrize("whole", [False, True], ids=["activation", "block"])
def test_a_unit_left_of_where_its_activation_is_least_is_rescued(bent: type[nn.Module], whole: bool) -> None:
    model = hand_built.seeded(lambda: nn.Sequential(nn.Sequential(nn.Conv2d(3, 2, 3), bent())))
    with torch.no_grad():
        model[0][0].weight.fill_(8 / 27)
        model[0][0].bias.copy_(torch.tensor([-3.0, -7.0]))  # at the start 2.2 and -1.8, at white 5 and 1
    made = seen(Scope(model, Inputs(size=16), precision="float32"), "multiscale", (0, 1), "0" if whole else "0.1", steps=40)
    assert made.status == ("converged", "rescued"), made.reasons
    assert "stayed below zero everywhere" in made.reasons[1] and made.scores[1] > 0.1


def test_a_unit_that_cannot_be_above_zero_is_stuck() -> None:
    model = hand_built.seeded(lambda: nn.Sequential(nn.Conv2d(3, 1, 3), nn.SiLU()))
    with torch.no_grad():
        model[0].weight.fill_(8 / 27)
        model[0].bias.fill_(-9.0)
    made = seen(Scope(model, Inputs(size=16), precision="float32"), "multiscale", (0,), "1", steps=40)
    assert made.status == ("stuck",) and "stayed below zero everywhere" in made.reasons[0]


def test_another_start_may_help(monkeypatch: pytest.MonkeyPatch) -> None:
    home = importlib.import_module("convscope.techniques.feature_visualization")
    ascend, calls = home.ascend, []

    def useless_at_first(*arguments: object, **options: object) -> object:
        done = ascend(*arguments, **options)
        calls.append(options.get("redirect"))
        useless = dataclasses.replace(
            done, images=torch.zeros_like(done.images), history=torch.zeros_like(done.history), followed=torch.zeros_like(done.followed)
        )
        return useless if len(calls) == 1 else done

    monkeypatch.setattr(home, "ascend", useless_at_first)
    made = seen(with_biases(-2.7 * 165 / 255 - 0.1), "multiscale", (0,), "1", steps=30)
    assert made.status == ("rescued",) and "start 2" in made.reasons[0]
    assert made.scores[0] > 0.05 and len(calls) == 2


def test_a_unit_that_does_not_rise_is_not_called_converged() -> None:
    made = seen(with_biases(0.0), "pixels", (0,), "1", learning_rate=0.0)
    assert made.status == ("stuck",) and "did not rise" in made.reasons[0]


@pytest.mark.parametrize("weight", [0.0, 4.0])
def test_a_class_that_wins_from_the_start_has_converged_all_the_same(weight: float) -> None:
    model = hand_built.small()
    with torch.no_grad():
        model[8].bias[2] += 20  # so that the class's log-odds are large on any picture
    scope = Scope(model, Inputs(size=24, mean=MEAN, std=STD), precision="float32")
    assert seen(scope, "multiscale", (2,), "output", class_weight=weight).status == ("converged",)


# --- what was asked


def test_the_manifest(scope: Scope) -> None:
    made = seen(scope, "crops", seed=5)
    assert made.manifest["technique"] == "feature_visualization" and made.manifest["parameters"]["seed"] == 5
    assert made.manifest["recipe"]["steps"] == 24 and made.manifest["recipe"]["name"] == "crops"
    assert made.manifest["network"]["weights_hash"] == scope.weights_hash and made.manifest["precision"] == "float32"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"layer": "9"}, LayerNotFound),
        ({"units": [8]}, UnitNotFound),
        ({"units": []}, UnitNotFound),
        ({"recipe": "cropz"}, BadInput),
        ({"stepz": 3}, BadInput),
        ({"steps": 0}, BadInput),
    ],
)
def test_wrong_questions(scope: Scope, wrong: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        convscope.feature_visualization(scope, **({"layer": "4", "units": [0]} | wrong))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value) and caught.value.question["technique"] == "feature_visualization"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.2},
        {"weight_decay": 0.3},
        {"start_range": (10, 240)},
        {"steps": 9},
        {"stages": 2},
        {"enlargement": 1.5},
        {"blur": 3},
        {"reduce": "center"},
        {"transform": "crops", "crop_size": 12},
        {"transform": "affine"},
        {"noise": 0.1},
        {"optimizer": "normalized-gradient"},
        {"parameterization": "sigmoid"},
        {"size": 18},
    ],
    ids=str,
)
def test_every_parameter_changes_something(scope: Scope, change: dict[str, object]) -> None:
    plain, changed = seen(scope, "multiscale", (0,)), seen(scope, "multiscale", (0,), **change)
    assert plain.images.shape != changed.images.shape or (plain.images != changed.images).any()


def test_a_trained_network(squeezenet: Scope) -> None:
    made = convscope.feature_visualization(squeezenet, "features.12", [0, 7], size=96, steps=40, crop_size=64)
    start = convscope.feature_visualization(squeezenet, "features.12", [0, 7], size=96, steps=1, learning_rate=0, crop_size=64)
    assert set(made.status) <= {"converged", "rescued"} and (made.scores > start.scores + 1).all()
    assert (made.scores == made.after_relu).all()


# --- objectives, copies, diversity


def close(one: np.ndarray, other: np.ndarray) -> None:
    """Equal up to what rounding grows to in a few steps."""
    np.testing.assert_allclose(one, other, rtol=0, atol=2e-3)


def test_an_objective_for_each_unit(scope: Scope) -> None:
    plain = seen(scope, "crops", steps=4)
    same = seen(scope, "crops", steps=4, objective=lambda unit: objectives.unit("4", unit))
    close(same.images, plain.images)
    np.testing.assert_allclose(same.scores, plain.scores, rtol=1e-3)
    assert same.objectives == plain.objectives == ('unit("4", 0)', 'unit("4", 3)', 'unit("4", 5)')
    assert same.manifest["objective"][1] == objectives.unit("4", 3).describe() and plain.manifest["objective"] is None
    assert (same.before_relu == same.scores).all()


def test_objectives_of_other_layers(scope: Scope) -> None:
    def objective(unit: int) -> objectives.Objective:
        return objectives.neuron("2", unit, 1, 2) + 0.5 * objectives.unit("4", 0) - objectives.deepdream("1")

    made = seen(scope, "multiscale", (1, 2), objective=objective)
    for row, unit in enumerate((1, 2)):
        values = scope.activations(torch.from_numpy(made.images[row : row + 1].copy()), ["1", "2", "4"])
        expected = values["2"][0, unit, 1, 2] + 0.5 * values["4"][0, 0].mean() - values["1"].square().mean()
        assert made.scores[row] == pytest.approx(float(expected), rel=1e-4)
        assert made.before_relu[row] == pytest.approx(float(values["4"][0, unit].mean()), rel=1e-4)
    assert (made.scores > seen(scope, "multiscale", (1, 2), objective=objective, steps=1, learning_rate=0).scores).all()


def alone(scope: Scope, objective: objectives.Objective, **more: object) -> convscope.FeatureVisualization:
    return convscope.feature_visualization(scope, "4", objective=objective, recipe="multiscale", **{**short("multiscale"), **more})  # type: ignore[arg-type]


def test_one_objective_makes_one_image(scope: Scope) -> None:
    made = alone(scope, objectives.deepdream("4"))
    values = scope.activations(torch.from_numpy(made.images.copy()), "4")["4"]
    assert made.images.shape == (1, 3, 22, 22) and made.units == (None,) and made.copies == (0,) and made.unit_names == ("",)
    assert made.scores[0] == pytest.approx(float(values.square().mean()), rel=1e-5)
    assert np.isnan(made.before_relu).all() and np.isnan(made.after_relu).all()
    assert made.scores[0] > alone(scope, objectives.deepdream("4"), steps=1, learning_rate=0).scores[0]
    assert made.view().panels[0].title == 'deepdream("4")'  # type: ignore[union-attr]
    assert alone(scope, objectives.neuron("4", 3)).units == (3,), "an objective of one unit is that unit's"
    assert alone(scope, objectives.unit("4", 3) + objectives.unit("4", 5)).units == (None,)
    vector = torch.zeros(8)
    vector[3] = 1.0
    close(
        alone(scope, objectives.direction("4", vector), steps=3).images,
        alone(scope, objectives.unit("4", 3) + 0 * objectives.deepdream("4"), steps=3).images,
    )


def test_an_objective_that_compares_images_sees_one_unit_only(scope: Scope) -> None:
    """A score function of the caller's own may read the whole batch it is given: that is one unit's."""

    def crowd(unit: int) -> objectives.Objective:
        return objectives.Objective(frozenset(["4"]), lambda values, _: values["4"][:, unit].mean() + 0 * values["4"].flatten(1).mean(1))

    made, fewer = (seen(scope, "multiscale", units, steps=3, objective=crowd) for units in ((3, 5, 0), (3,)))
    close(made.images[:1], fewer.images)
    penalty = objectives.Objective(frozenset(), lambda _, images: images.std() + 0 * images.flatten(1).mean(1))
    made, fewer = (seen(scope, "multiscale", units, steps=3, penalty=penalty) for units in ((3, 5, 0), (3,)))
    close(made.images[:1], fewer.images)


def test_copies_are_images_of_their_own(scope: Scope) -> None:
    made, one = seen(scope, "crops", (3, 5), copies=3, steps=4), seen(scope, "crops", (3, 5), steps=4)
    assert made.images.shape[0] == 6 and made.units == (3, 3, 3, 5, 5, 5) and made.copies == (0, 1, 2, 0, 1, 2)
    close(made.images[[0, 3]], one.images)  # the first copy draws what a single image does
    for first, second in ((0, 1), (0, 2), (1, 2), (3, 4)):
        assert np.abs(made.images[first] - made.images[second]).mean() > 0.005
    more = seen(scope, "crops", (3,), copies=4, steps=4)
    close(more.images[:3], made.images[:3])
    assert [tile.title for tile in made.view().panels[:2]] == ["unit 3, copy 0", "unit 3, copy 1"]  # type: ignore[union-attr]
    assert made.summary().startswith("2 units, 6 images of 4: 6 converged")


def test_copies_by_hand(double: Scope) -> None:
    """The second copy is the slow twin from a start of its own."""
    made = convscope.feature_visualization(double, "4", 3, copies=2, recipe="multiscale", size=16, stages=1, steps=4)
    generator = torch.Generator().manual_seed(derive_seed(0, "feature_visualization", "4", 3, 0, "start", "copy", 1))
    start = (150 + 30 * torch.rand(1, 3, 16, 16, generator=generator, dtype=torch.float32).double()).floor() / 255
    value, mean, std = value_of(double, 4, 3), column(MEAN), column(STD)
    normalized, trace = adam_slowly(value, (start - mean) / std, 4, 0.1, 1e-6)
    np.testing.assert_allclose(made.history[1], trace, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(made.images[1:], (normalized * std + mean).clamp(0, 1).numpy(), rtol=0, atol=1e-7)


def likeness(scope: Scope, images: np.ndarray) -> float:
    """Mean cosine of the Gram matrices of images at layer 4."""
    values = scope.activations(torch.from_numpy(images.copy()), "4")["4"].flatten(2)
    grams = F.normalize((values @ values.mT).flatten(1), dim=1) @ F.normalize((values @ values.mT).flatten(1), dim=1).T
    return float((grams.sum() - grams.trace()) / (len(grams) * (len(grams) - 1)))


def test_diversity_makes_copies_different_and_leaves_other_units_alone(scope: Scope) -> None:
    plain, diverse = (seen(scope, "multiscale", (3, 5), copies=3, diversity=weight) for weight in (0.0, 20.0))
    for rows in (slice(0, 3), slice(3, 6)):
        assert likeness(scope, diverse.images[rows]) < likeness(scope, plain.images[rows]) - 0.02
    assert diverse.objectives[0] == 'unit("4", 3) + 20*|unit("4", 3)|*diversity("4")'
    few, alone_ = (seen(scope, "multiscale", units, copies=2, diversity=20.0, steps=3) for units in ((5, 0, 3), (3,)))
    close(few.images[4:], alone_.images)
    np.testing.assert_allclose(few.history[4:], alone_.history, rtol=2e-3, atol=1e-4)
    assert np.abs(seen(scope, "multiscale", (3,), copies=3, diversity=20.0, steps=3).images[:2] - alone_.images).max() > 1e-3


def test_diversity_by_hand(double: Scope) -> None:
    """The first step's objective: activation minus its own magnitude times the weighted likeness to the other copy."""
    made = convscope.feature_visualization(double, "4", 3, copies=2, diversity=7.0, recipe="multiscale", size=16, stages=1, steps=1)
    starts = []
    for copy in ((), ("copy", 1)):
        generator = torch.Generator().manual_seed(derive_seed(0, "feature_visualization", "4", 3, 0, "start", *copy))
        starts.append((150 + 30 * torch.rand(3, 16, 16, generator=generator, dtype=torch.float32).double()).floor() / 255)
    values = double.activations(torch.stack(starts), "4")["4"]
    grams = [(value.flatten(1) @ value.flatten(1).T) for value in values]
    cosine = float((grams[0] * grams[1]).sum() / grams[0].norm() / grams[1].norm())
    np.testing.assert_allclose(
        made.history[:, 0], [float(value[3].mean()) - 7 * abs(float(value[3].mean())) * cosine for value in values], rtol=1e-6
    )


def test_a_dead_unit_with_diverse_copies() -> None:
    made = seen(with_biases(0.0, -1e6, 0.1), "multiscale", (0, 1, 2), "1", copies=2, diversity=0.1)
    assert made.status == ("converged",) * 2 + ("stuck",) * 2 + ("converged",) * 2


def test_many_copies_go_in_groups(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = seen(scope, "multiscale", (3, 5), copies=3, diversity=1.0, steps=3)
    monkeypatch.setattr(scope, "fitting", lambda _pixels: 4)  # a batch has room for one group and a third
    close(seen(scope, "multiscale", (3, 5), copies=3, diversity=1.0, steps=3).images, whole.images)
    crowd = seen(scope, "multiscale", (3,), copies=20, steps=2)
    assert crowd.images.shape[0] == 20 and len({image.tobytes() for image in crowd.images}) == 20


def test_manifests_hold_no_addresses(scope: Scope, tmp_path: Path) -> None:
    bare = objectives.Objective(frozenset(), lambda _, images: images.flatten(1).mean(1))
    made = seen(scope, "multiscale", (0,), steps=1, objective=lambda unit: objectives.unit("4", unit) + bare, penalty=0.1 * bare)
    loaded = convscope.load(made.save(tmp_path / "made", figure=False))
    text = (tmp_path / "made" / "manifest.json").read_text()
    assert " at 0x" not in text and text.count('"unnamed"') >= 3
    assert loaded.manifest["parameters"]["objective"] == "<lambda>" and loaded.units == (0,) and loaded.copies == (0,)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"copies": 0}, "copies must be a whole number from 1 to 1000, got 0"),
        ({"copies": True}, "copies must be a whole number"),
        ({"diversity": 0.1}, "needs copies=2 or more"),
        ({"copies": 2, "diversity": -1}, "diversity must be a number from 0 to"),
        ({"objective": objectives.deepdream("4")}, r'units: deepdream\("4"\) makes images of its own'),
        ({"objective": "deepdream"}, "objective must be an objective or a function unit -> objective, got str"),
        ({"objective": lambda: None}, "cannot be called with a unit number"),
        ({"objective": lambda unit: unit}, "for unit 0 it gave int"),
        ({"objective": lambda unit: objectives.unit("9", unit)}, "no layer '9'"),
        ({"penalty": 0.1}, "penalty must be an objective such as"),
        ({"penalty": objectives.deepdream("9")}, "no layer '9'"),
    ],
)
def test_wrong_objectives(scope: Scope, wrong: dict[str, object], words: str) -> None:
    with pytest.raises((BadInput, LayerNotFound), match=words) as caught:
        convscope.feature_visualization(scope, "4", [0], **wrong)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_what_the_network_takes_the_image_of_a_class_for(scope: Scope, tmp_path: Path) -> None:
    made = convscope.feature_visualization(scope, "output", [0, 1, 2, 3, 4], recipe="fourier", size=24, steps=1)
    for image, unit, (winner, likely), line in zip(made.images, made.units, made.verdicts, made.summary().splitlines()[1:], strict=True):
        logits = scope.activations(torch.from_numpy(image[None].copy()), "output")["output"][0].double().numpy()
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert winner == int(shares.argmax()) and likely == pytest.approx(shares.max(), abs=1e-6)
        assert line.endswith(f"; {100 * likely:.0f} %" if winner == unit else f"; network: {winner} {100 * likely:.0f} %")
    assert len({winner for winner, _ in made.verdicts}) < 5  # after one step some classes are not yet seen
    assert convscope.feature_visualization(scope, "5", [0], recipe="fourier", size=24, steps=1).verdicts == ()
    gallery = convscope.gallery(scope, "output", [0, 1], tmp_path / "g", recipe="fourier", size=24, steps=1)
    assert [image.verdict for image in gallery] == [line.rpartition("; ")[2] for line in made.summary().splitlines()[1:3]]
    assert [image.verdict for image in convscope.gallery(scope, "5", [0], tmp_path / "h", recipe="fourier", size=24, steps=1)] == [""]


def test_a_unit_that_wants_one_colour_is_flat(tmp_path: Path) -> None:
    """The unit is the larger, the less neighbouring pixels differ, so that its image loses all pattern."""
    model = hand_built.built(
        lambda parts, images: 3 + 0 * parts.conv(images) - 50 * (images - images.mean((2, 3), keepdim=True)).abs().mean(1, keepdim=True),
        conv=lambda: nn.Conv2d(3, 1, 1),
    )
    scope = Scope(model, Inputs(size=24))
    made = convscope.feature_visualization(scope, "output", [0], recipe="fourier", steps=40, size=24)
    assert made.images.std((2, 3)).max() < 0.01 and made.flat() == (0,) and "flat: no pattern" in made.summary()
    written = convscope.gallery(scope, "output", [0], tmp_path / "g", recipe="fourier", steps=40, size=24)
    assert [image.flat for image in written] == [True]
