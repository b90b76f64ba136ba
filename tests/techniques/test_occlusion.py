"""Occlusion: a slow twin, Captum, the article's own function, exact answers on linear networks, and where the strongest drop lies."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import gaussian_blur

import convscope
import hand_built
import promises
from convscope.cli import main
from convscope.errors import BadInput, LayerNotFound, UnitNotFound
from convscope.ops.patches import positions
from convscope.render import panels
from convscope.render.panels import Group, Heat, Signed
from convscope.results import occlusion as shown
from convscope.scope import Inputs, Scope
from convscope.zoo.textures.generator import CLASSES, SHAPES, indexed
from hand_built import draws

PROMISE = promises.Promise(
    lambda s: convscope.occlusion(s, promises.IMAGES[:2], patch=6, stride=6),
    "result.view().subtitle",
    forwards=8,
)

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
HEIGHT, WIDTH = 22, 31
CLASS_NAMES = ["ant", "bee", "cat", "dog", "eel"]


@pytest.fixture
def wide() -> Scope:
    """The small network in float64, for pictures that are not square."""
    return Scope(hand_built.small().double(), Inputs(size=(HEIGHT, WIDTH), mean=MEAN, std=STD, classes=CLASS_NAMES), name="small")


@pytest.fixture
def picture() -> Tensor:
    return draws(3, HEIGHT, WIDTH, dtype=torch.float64)


def outputs(model: nn.Module, pictures: Tensor) -> Tensor:
    """What a network makes of pictures, by itself."""
    mean, std = (torch.tensor(values, dtype=pictures.dtype).view(3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        return model.eval()((pictures - mean) / std)


def scores(values: Tensor, target: int, score: str) -> Tensor:
    if score in ("logit", "mean"):
        return values[:, target] if values.ndim == 2 else values[:, target].mean((1, 2))
    p = values.softmax(1)[:, target]
    return p if score == "probability" else torch.log(p / (1 - p))


def starts(size: int, patch: int, stride: int, grid: str) -> list[int]:
    """Every place in turn, for as long as there is something left to hide."""
    found = [0]
    while found[-1] + patch < size and found[-1] + stride + (1 if grid == "cover" else patch) <= size:
        found.append(found[-1] + stride)
    return found


def hidden_slowly(
    model: nn.Module,
    picture: Tensor,
    fill: Tensor,
    target: int,
    patch: tuple[int, int],
    stride: tuple[int, int],
    *,
    score: str = "probability",
    grid: str = "cover",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Map, label and drop: one picture at a time."""
    height, width = picture.shape[1:]
    rows, columns = starts(height, patch[0], stride[0], grid), starts(width, patch[1], stride[1], grid)
    base = float(scores(outputs(model, picture[None]), target, score)[0])
    made, label = np.zeros((len(rows), len(columns))), np.zeros((len(rows), len(columns)), int)
    lost: list[list[list[float]]] = [[[] for _ in range(width)] for _ in range(height)]
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            other = picture.clone()
            other[:, y : y + patch[0], x : x + patch[1]] = fill[:, y : y + patch[0], x : x + patch[1]]
            values = outputs(model, other[None])
            made[i, j] = float(scores(values, target, score)[0])
            label[i, j] = int(values.flatten(1).argmax()) if values.ndim == 2 else -1
            for row in range(y, min(y + patch[0], height)):
                for column in range(x, min(x + patch[1], width)):
                    lost[row][column].append(base - made[i, j])
    drop = np.array([[sum(cell) / len(cell) if cell else math.nan for cell in row] for row in lost])
    return made, label, drop


def same_as_slow(made: convscope.Occlusion, expected: tuple[np.ndarray, np.ndarray, np.ndarray], index: int = 0) -> None:
    np.testing.assert_allclose(made.map[index], expected[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(made.label[index], expected[1])
    np.testing.assert_allclose(made.drop[index], expected[2], rtol=1e-7, atol=1e-11)


# --- the slow twin


@pytest.mark.parametrize("method", ["incremental", "full"])
@pytest.mark.parametrize(
    ("patch", "stride", "grid"),
    [(6, 4, "cover"), (5, 5, "valid"), ((3, 9), (5, 4), "cover"), ((3, 9), (5, 4), "valid"), (1, 7, "cover"), ((22, 4), (1, 9), "cover")],
)
def test_against_a_slow_twin(wide: Scope, picture: Tensor, method: str, patch, stride, grid: str) -> None:
    made = convscope.occlusion(wide, picture, 3, patch=patch, stride=stride, grid=grid, method=method)
    pairs = [(item, item) if isinstance(item, int) else item for item in (patch, stride)]
    same_as_slow(made, hidden_slowly(wide.model, picture, torch.full_like(picture, 0.5), 3, *pairs, grid=grid))
    assert made.targets == (3,) and made.target_names == ("dog",) and made.score == "probability" and made.layer == "output"
    assert made.base[0] == pytest.approx(float(outputs(wide.model, picture[None]).softmax(1)[0, 3]), rel=1e-12)
    for (y0, x0, y1, x1), (row, column) in zip(made.boxes.reshape(-1, 4), np.ndindex(*made.boxes.shape[:2]), strict=True):
        assert (y0, x0) == (row * pairs[1][0], column * pairs[1][1])
        assert (y1, x1) == (min(y0 + pairs[0][0], HEIGHT), min(x0 + pairs[0][1], WIDTH))


def test_incremental_was_incremental(wide: Scope, picture: Tensor) -> None:
    made = convscope.occlusion(wide, picture, 3, patch=4, stride=3)
    assert made.method == "incremental" and made.checked == 2 and made.largest_difference < 1e-12
    asked = convscope.occlusion(wide, picture, 3, patch=4, stride=3, method="full")
    assert asked.method == "full" and asked.checked == 0 and math.isnan(asked.largest_difference)
    np.testing.assert_allclose(made.map, asked.map, rtol=1e-10)


@pytest.mark.parametrize("score", ["probability", "logit", "log-odds"])
def test_scores(wide: Scope, picture: Tensor, score: str) -> None:
    made = convscope.occlusion(wide, picture, 1, patch=8, stride=6, score=score)
    same_as_slow(made, hidden_slowly(wide.model, picture, torch.full_like(picture, 0.5), 1, (8, 8), (6, 6), score=score))


@pytest.mark.parametrize("layer", ["0", "3", "5"])
def test_the_mean_of_a_unit(wide: Scope, picture: Tensor, layer: str) -> None:
    made = convscope.occlusion(wide, picture, 2, layer=layer, patch=8, stride=6)
    truncated = nn.Sequential(*list(wide.model)[: int(layer) + 1])  # type: ignore[arg-type]
    for module in truncated:
        if isinstance(module, nn.ReLU):
            module.inplace = False
    same_as_slow(made, hidden_slowly(truncated, picture, torch.full_like(picture, 0.5), 2, (8, 8), (6, 6), score="mean"))
    assert made.score == "mean" and (made.label == -1).all() and made.layer == layer


def test_fills(wide: Scope, picture: Tensor, tmp_path: Path) -> None:
    def colour(*rgb: float) -> Tensor:
        return torch.tensor(rgb, dtype=torch.float64).view(3, 1, 1).expand_as(picture)

    other = draws(3, HEIGHT, WIDTH, seed=9, dtype=torch.float64)
    stored = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(stored).save(tmp_path / "fill.png")
    read = torch.from_numpy(stored / 255.0).permute(2, 0, 1)
    blurred = gaussian_blur(picture, [2 * math.ceil(2 * 3.5) + 1, 2 * math.ceil(2 * 3) + 1], [3.5, 3.0])
    fills = [
        ("gray", colour(0.5, 0.5, 0.5)),
        ("median", colour(*(sorted(channel.flatten().tolist())[(HEIGHT * WIDTH - 1) // 2] for channel in picture))),
        ("mean", colour(*MEAN)),
        ("black", colour(0, 0, 0)),
        ("white", colour(1, 1, 1)),
        ("#ff8000", colour(1, 128 / 255, 0)),
        ("0.25", colour(0.25, 0.25, 0.25)),
        (0.75, colour(0.75, 0.75, 0.75)),
        ((0.1, 0.2, 0.9), colour(0.1, 0.2, 0.9)),
        (other, other),
        (tmp_path / "fill.png", read),
        (str(tmp_path / "fill.png"), read),
        ("blur", blurred),
    ]
    found = []
    for fill, source in fills:
        made = convscope.occlusion(wide, picture, 3, patch=(6, 7), stride=7, fill=fill)
        expected = hidden_slowly(wide.model, picture, source, 3, (6, 7), (7, 7))
        np.testing.assert_allclose(made.map[0], expected[0], rtol=1e-6, err_msg=str(fill))
        found.append(made.map[0])
    assert all((one != other).any() for index, one in enumerate(found) for other in found[index + 1 : 10])


# --- exact answers


def test_a_patch_as_large_as_the_picture_hides_all_of_it() -> None:
    scope = Scope(hand_built.small().double(), Inputs(size=24, mean=MEAN, std=STD))
    picture = draws(3, 24, 24, dtype=torch.float64)
    grey = float(outputs(scope.model, torch.full_like(picture, 0.5)[None]).softmax(1)[0, 2])
    for grid in ("cover", "valid"):
        made = convscope.occlusion(scope, picture, 2, patch=24, stride=24, grid=grid)
        assert made.map.shape == (1, 1, 1) and made.map[0, 0, 0] == pytest.approx(grey, rel=1e-10)
        np.testing.assert_allclose(made.drop, made.base[0] - grey, rtol=1e-9)


def test_hiding_with_the_picture_itself_changes_nothing(wide: Scope, picture: Tensor) -> None:
    made = convscope.occlusion(wide, picture, 2, patch=5, stride=4, fill=picture)
    np.testing.assert_allclose(made.map, made.base[0], rtol=1e-12)
    np.testing.assert_allclose(made.drop, 0, atol=1e-14)


def linear_network() -> nn.Module:
    return hand_built.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * HEIGHT * WIDTH, 4))).double()


def test_a_linear_network_loses_what_its_weights_say(picture: Tensor) -> None:
    model = linear_network()
    made = convscope.occlusion(Scope(model, Inputs(size=(HEIGHT, WIDTH), mean=MEAN, std=STD)), picture, 1, patch=6, stride=4, score="logit")
    weights = model[1].weight[1].detach().view(3, HEIGHT, WIDTH)  # type: ignore[index]
    share = weights * (picture - 0.5) / torch.tensor(STD, dtype=torch.float64).view(3, 1, 1)
    for (y0, x0, y1, x1), value in zip(made.boxes.reshape(-1, 4), made.map.ravel(), strict=True):
        assert made.base[0] - value == pytest.approx(float(share[:, y0:y1, x0:x1].sum()), abs=1e-10)


def test_disjoint_patches_of_an_additive_network_share_the_whole(picture: Tensor) -> None:
    """A convolution, a rectifier and a sum over positions, with patches that no kernel straddles: what is lost adds up."""
    additive = hand_built.seeded(lambda: nn.Sequential(nn.Conv2d(3, 5, 2, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    scope = Scope(additive.double(), Inputs(size=(24, 36), mean=MEAN, std=STD))
    picture = draws(3, 24, 36, dtype=torch.float64)
    made = convscope.occlusion(scope, picture, 2, patch=(6, 4), stride=(6, 4), score="logit")
    filled = float(outputs(scope.model, torch.full_like(picture, 0.5)[None])[0, 2])
    assert (made.base[0] - made.map).sum() == pytest.approx(made.base[0] - filled, abs=1e-12)
    assert made.drop.sum() / 24 == pytest.approx(made.base[0] - filled, abs=1e-11)


# --- others' programs


@pytest.mark.parametrize(("patch", "stride"), [((6, 6), (4, 4)), ((5, 8), (3, 8)), ((4, 4), (4, 4))])
@pytest.mark.parametrize("fill", [(0.5, 0.5, 0.5), MEAN])
def test_equal_to_captum(wide: Scope, picture: Tensor, patch: tuple[int, int], stride: tuple[int, int], fill) -> None:
    captum = pytest.importorskip("captum.attr")
    model = wide.model.eval()
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        theirs = captum.Occlusion(lambda values: model(values).softmax(1)).attribute(
            ((picture - mean) / std)[None],
            sliding_window_shapes=(3, *patch),
            strides=(3, *stride),
            baselines=((torch.tensor(fill, dtype=torch.float64).view(3, 1, 1) - mean) / std).expand(3, HEIGHT, WIDTH)[None],
            target=3,
        )
    made = convscope.occlusion(wide, picture, 3, patch=patch, stride=stride, fill=fill)
    np.testing.assert_allclose(made.drop[0], theirs[0, 0].numpy(), atol=1e-6 * float(theirs.abs().max()))


def the_articles_function(model: nn.Module, image: Tensor, label: int, size: int, stride: int, pixel: float = 0.5) -> Tensor:
    """As the article's notebook does it, names of width and height swapped as there."""
    width, height = image.shape[-2], image.shape[-1]
    output_height = int(np.ceil((height - size) / stride))
    output_width = int(np.ceil((width - size) / stride))
    heatmap = torch.zeros((output_height, output_width), dtype=image.dtype)
    for h in range(height):
        for w in range(width):
            h_start, w_start = h * stride, w * stride
            h_end, w_end = min(height, h_start + size), min(width, w_start + size)
            if w_end >= width or h_end >= height:
                continue
            changed = image.clone()
            changed[:, :, w_start:w_end, h_start:h_end] = pixel
            heatmap[h, w] = F.softmax(model(changed), dim=1)[0][label]
    return heatmap


@pytest.mark.parametrize(("size", "stride"), [(6, 4), (5, 5), (9, 10), (7, 3)])
def test_the_articles_map(wide: Scope, picture: Tensor, size: int, stride: int) -> None:
    with torch.no_grad():
        theirs = the_articles_function(wide.model.eval(), wide.inputs.normalize(picture[None]), 3, size, stride)
    made = convscope.occlusion(wide, picture, 3, patch=size, stride=stride, grid="article", fill="article")
    assert theirs.shape[0] != theirs.shape[1] and made.article_map()[0].shape == theirs.shape
    np.testing.assert_allclose(made.article_map()[0], theirs.numpy(), rtol=1e-10)
    np.testing.assert_allclose(made.map[0], theirs.numpy().T, rtol=1e-10)
    assert made.boxes.shape[:2] == made.label[0].shape == theirs.shape[::-1]
    y0, x0, y1, x1 = made.boxes[1, 0]
    assert (y0, x0, y1, x1) == (stride, 0, stride + size, size), "as declared: the first axis is y, even in the article's grid"
    assert np.isnan(made.drop[0, -1]).all() and np.isnan(made.drop[0, :, -1]).all(), "the far border is never hidden"
    made.figure()


def test_the_articles_grid_with_a_patch_as_large_as_the_image_has_no_position() -> None:
    scope = Scope(hand_built.small(), Inputs(size=24))
    made = convscope.occlusion(scope, draws(3, 24, 24), 1, patch=24, stride=8, grid="article")
    assert made.map.shape == (1, 0, 0) and np.isnan(made.drop).all() and "0 positions" in made.summary()
    assert made._repr_png_()[:4] == b"\x89PNG"


# --- positions


@pytest.mark.parametrize(
    ("size", "patch", "stride", "article", "valid", "cover"),
    [(224, 32, 14, 14, 14, 15), (224, 32, 32, 6, 7, 7), (224, 16, 4, 52, 53, 53), (224, 50, 50, 4, 4, 5), (24, 24, 8, 0, 1, 1)],
)
def test_positions_as_counted_by_hand(size: int, patch: int, stride: int, article: int, valid: int, cover: int) -> None:
    assert [len(positions(size, patch, stride, grid)) for grid in ("article", "valid", "cover")] == [article, valid, cover]


@pytest.mark.parametrize("grid", ["article", "valid", "cover"])
def test_positions_of_every_size(grid: str) -> None:
    for size in range(1, 26):
        for patch in range(1, size + 1):
            for stride in range(1, 28):
                found = positions(size, patch, stride, grid)
                assert found == sorted(set(found)) and all(0 <= first < end <= size for first, end in found)
                assert all(first == index * stride for index, (first, _) in enumerate(found))
                if grid == "cover":
                    assert not stride <= patch or found[-1][1] == size
                elif grid == "valid":
                    assert all(end - first == patch for first, end in found) and found[-1][0] + stride + patch > size
                else:
                    assert found == [(first, end) for first, end in positions(size, patch, stride, "cover") if end < size]


# --- several pictures, batches


def test_several_pictures_and_their_own_classes(wide: Scope) -> None:
    pictures = draws(4, 3, HEIGHT, WIDTH, seed=4, dtype=torch.float64) * torch.tensor([1, 0.2, 0.6, 1], dtype=torch.float64).view(
        4, 1, 1, 1
    )
    pictures[3, 0] = 0
    with torch.no_grad():
        wide.model[8].bias -= outputs(wide.model, pictures).mean(0)  # type: ignore[index]
    expected = outputs(wide.model, pictures).argmax(1).tolist()
    made = convscope.occlusion(wide, pictures, patch=8, stride=7)
    assert list(made.targets) == expected and len(set(expected)) > 1, "the test's pictures are of one class"
    for index, target in enumerate(expected):
        same_as_slow(made, hidden_slowly(wide.model, pictures[index], torch.full_like(pictures[0], 0.5), target, (8, 8), (7, 7)), index)
    assert made.target_names == tuple(CLASS_NAMES[target] for target in expected)
    assert made.classes == {str(unit): CLASS_NAMES[unit] for unit in np.unique(made.label)}
    named = convscope.occlusion(wide, pictures, "cat", patch=8, stride=7)
    assert named.targets == (2,) * 4 and (named.map == convscope.occlusion(wide, pictures, "2", patch=8, stride=7).map).all()


@pytest.mark.parametrize("method", ["incremental", "full"])
def test_batches_do_not_matter(wide: Scope, picture: Tensor, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    whole = convscope.occlusion(wide, picture, 1, patch=5, stride=3, method=method)
    monkeypatch.setattr(wide, "fitting", lambda _pixels: 1)
    single = convscope.occlusion(wide, picture, 1, patch=5, stride=3, method=method)
    np.testing.assert_allclose(single.map, whole.map, rtol=1e-10)
    assert (single.label == whole.label).all()


def test_running_out_of_memory_halves_the_batch(
    wide: Scope, picture: Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from convscope.incremental.planner import Batch
    from convscope.incremental.rerun import Rerun

    whole = convscope.occlusion(wide, picture, 1, patch=5, stride=3, verify=0)
    begin, finish = Rerun.begin, Rerun.finish

    def narrow(self: Rerun, batch: Batch, source: Tensor) -> Tensor:
        if len(batch.boxes) > 5:
            raise torch.OutOfMemoryError("out of memory")
        return begin(self, batch, source)

    def narrow_end(self: Rerun, begun: Tensor) -> Tensor:
        if len(begun) > 7:
            raise torch.OutOfMemoryError("out of memory")
        return finish(self, begun)

    for name, replacement in (("begin", narrow), ("finish", narrow_end)):
        caplog.clear()
        with monkeypatch.context() as patched:
            patched.setattr(Rerun, name, replacement)
            halved = convscope.occlusion(wide, picture, 1, patch=5, stride=3, verify=0)
        assert halved.method == "incremental" and "out of memory" in caplog.text
        np.testing.assert_allclose(halved.map, whole.map, rtol=1e-10)


def test_float32_and_bfloat16_agree() -> None:
    pictures = draws(1, 3, 64, 64)
    made = {
        precision: convscope.occlusion(convscope.open("textures", precision=precision), pictures, 3, stride=8, score="logit")
        for precision in ("float32", "bfloat16")
    }
    assert made["bfloat16"].manifest["precision"] == "bfloat16" and made["bfloat16"].method == "incremental"
    assert made["bfloat16"].base == pytest.approx(made["float32"].base, rel=1e-5), "the picture itself is never rounded"
    exact, rough = (made[precision].map.ravel() for precision in ("float32", "bfloat16"))
    assert 0 < np.abs(exact - rough).max() < 0.01 * np.ptp(exact), "what is rounded is the change, not the score"
    assert np.corrcoef(exact.argsort().argsort(), rough.argsort().argsort())[0, 1] >= 0.999


def test_a_network_that_mixes_the_pictures_of_a_batch_is_run_in_full(picture: Tensor) -> None:
    model = hand_built.seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    ).double()
    made = convscope.occlusion(Scope(model, Inputs(size=(HEIGHT, WIDTH), mean=MEAN, std=STD)), picture, 1, patch=6, stride=4, verify=0)
    assert made.method == "full"
    same_as_slow(made, hidden_slowly(model, picture, torch.full_like(picture, 0.5), 1, (6, 6), (4, 4)))


# --- wrong questions


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"patch": 23}, BadInput, "a patch of 23x23 pixels is larger than the image, 22x31"),
        ({"patch": (4, 32)}, BadInput, "a patch of 4x32 pixels is larger"),
        ({"patch": 0}, BadInput, "patch must be a whole number of pixels, at least 1"),
        ({"patch": 5.5}, BadInput, "patch must be a whole number"),
        ({"stride": 0}, BadInput, "stride must be a whole number of pixels, at least 1"),
        ({"stride": (4, -1)}, BadInput, "stride must be a whole number"),
        ({"stride": (4, 4, 4)}, BadInput, "stride must be a whole number"),
        ({"fill": "fog"}, BadInput, "fill must be gray, median, mean, black, white, blur"),
        ({"fill": "#12345"}, BadInput, "fill must be gray"),
        ({"fill": 128}, BadInput, r"fill must lie in \[0,1\], got 128"),
        ({"fill": (0.1, 0.2)}, BadInput, "a colour is"),
        ({"fill": math.nan}, BadInput, "fill must lie in"),
        ({"fill": draws(3, 8, 8)}, BadInput, r"the fill is an image of \(8, 8\) pixels, but the occluded image has \(22, 31\)"),
        ({"score": "loss"}, BadInput, "score must be probability, logit, log-odds or mean, got 'loss'"),
        ({"score": "probability", "layer": "5", "target": 1}, BadInput, "score 'probability' is about classes, but layer 5"),
        ({"target": "wasp"}, BadInput, "class 'wasp' is unknown"),
        ({"target": 5}, UnitNotFound, "5"),
        ({"target": 8, "layer": "5"}, UnitNotFound, "8"),
        ({"target": None, "layer": "5"}, BadInput, "layer 5 has no predicted class: say which unit is the target"),
        ({"layer": "12"}, LayerNotFound, "no layer '12'"),
        ({"grid": "dense"}, BadInput, "grid must be cover, valid or article, got 'dense'"),
        ({"method": "fast"}, BadInput, "method must be incremental or full, got 'fast'"),
        ({"verify": -1}, BadInput, "verify must be at least 0"),
        ({"images": torch.ones(2, 3, 22, 31) * 200}, BadInput, "divide by 255"),
    ],
)
def test_wrong_questions(wide: Scope, picture: Tensor, wrong: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        convscope.occlusion(wide, **({"images": picture, "target": 1, "patch": 6} | wrong))  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


NETWORK = """
import torch
from torch import nn
from convscope import Inputs

def build():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model, Inputs(size=32, classes=["ant", "bee", "cat", "dog"])
"""


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NETWORK)
    for name in ("one", "two"):
        pixels = np.random.default_rng(len(name) + ord(name[0])).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{name}.png")
    words = ["occlusion", "net.py:build", "one.png", "two.png", "--target", "bee", "--patch", "8", "--stride", "8", "--fill", "#204060"]
    assert main([*words, "--out", "made"]) == 0
    out = capsys.readouterr().out
    assert "one: probability of 1 bee" in out and "16 positions each" in out
    made = convscope.load(tmp_path / "made")
    assert made.map.shape == (2, 4, 4) and made.names == ("one", "two") and (tmp_path / "made" / "figure.png").exists()
    assert main(["occlusion", "net.py:build", "one.png", "--layer", "2", "--target", "3", "--out", "unit"]) == 0
    sides = ["--patch", "8x16", "--stride", "16x4", "--fill", "median"]
    assert main(["occlusion", "net.py:build", "one.png", *sides, "--target", "bee", "--out", "sides"]) == 0
    made = convscope.load(tmp_path / "sides")
    assert made.map.shape == (1, 2, 5) and made.boxes[0, 1].tolist() == [0, 4, 8, 20] and made.boxes[1, 0].tolist() == [16, 0, 24, 16]
    capsys.readouterr()
    for wrong, reason in (
        (["--patch", "99"], "a patch of 99x99 pixels is larger than the image, 32x32"),
        (["--stride", "0"], "stride must be"),
        (["--stride", "8,8,8"], "Invalid value for --stride: '8,8,8' is neither a whole number nor two"),
        (["--patch", "8x"], "Invalid value for --patch: '8x' is neither a whole number nor two such as 16x32 (down, across)"),
        (["--fill", "fog"], "fill must be"),
        (["--score", "loss"], 'Invalid value "loss" for --score'),
        (["--target", "wasp"], "class 'wasp' is unknown"),
        (["--layer", "7"], "no layer '7'"),
        (["--layer", "2"], "say which unit is the target"),
    ):
        assert main(["occlusion", "net.py:build", "one.png", *wrong, "--out", "wrong"]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and reason in err, err
        assert not (tmp_path / "wrong").exists()


# --- where the strongest drop lies


def pointing_game(count: int, stride: int) -> tuple[float, float]:
    """Shares of pictures of a known object whose largest drop, and whose centre, lies on the object.

    What hides has the colour of the picture's own background (its median): a patch of any other colour is an object itself.
    """
    scope = convscope.open("textures", precision="float32")
    hits: list[bool] = []
    centres: list[bool] = []
    index = 0
    while len(hits) < count:
        label = SHAPES[index % len(SHAPES)]
        drawn = indexed(label, index // len(SHAPES), seed=23)
        index += 1
        picture = torch.from_numpy(drawn.image.transpose(2, 0, 1) / 255).float()
        if int(scope.activations(picture[None], "output")["output"].argmax()) != CLASSES.index(label):
            continue
        made = convscope.occlusion(scope, picture, patch=24, stride=stride, fill="median", verify=0)
        assert drawn.mask is not None and made.target_names == (label,) and made.method == "incremental"
        hits.append(bool(drawn.mask[np.unravel_index(int(made.drop[0].argmax()), drawn.mask.shape)]))
        centres.append(bool(drawn.mask[64, 64]))
    return float(np.mean(hits)), float(np.mean(centres))


def test_the_largest_drop_lies_on_the_object() -> None:
    hits, centres = pointing_game(14, stride=8)
    assert hits >= 0.85 > 0.75 > centres


@pytest.mark.slow
def test_the_largest_drop_lies_on_the_object_in_two_hundred_pictures() -> None:
    hits, centres = pointing_game(200, stride=8)
    assert hits >= 0.9 and centres < 0.6


@pytest.mark.parametrize(
    ("size", "patch", "stride", "grid", "runs"),
    [
        (22, 5, 5, "cover", [(1, 5), (2, 5), (3, 5), (4, 5), (5, 2)]),
        (22, 6, 4, "cover", [(1, 5), (2, 4), (3, 4), (4, 4), (5, 5)]),
        (22, 7, 4, "cover", [(1, 5), (2, 4), (3, 4), (4, 4), (5, 5)]),
        (31, 4, 7, "valid", [(1, 4), (0, 3), (2, 4), (0, 3), (3, 4), (0, 3), (4, 4), (0, 6)]),
        (22, 8, 6, "article", [(1, 7), (2, 6), (3, 7), (0, 2)]),
        (9, 9, 3, "cover", [(1, 9)]),
        (9, 9, 3, "article", [(0, 9)]),
    ],
)
def test_each_patch_is_drawn_where_it_is(size: int, patch: int, stride: int, grid: str, runs: list[tuple[int, int]]) -> None:
    # runs of pixels: which patch is drawn there (0: none), and how many pixels; also tried: 224 with patches of 50 and 32, stride 1
    spans = positions(size, patch, stride, grid)
    boxes = np.array([[(first, 0, end, 8)] for first, end in spans], int).reshape(len(spans), 1, 4)
    drawn = shown.painted(np.arange(1.0, 1 + len(spans))[:, None], boxes, (size, 8))
    expected = np.repeat(*np.array(runs).T)
    np.testing.assert_array_equal(drawn, np.repeat(np.where(expected, expected, np.nan)[:, None], 8, 1))


def test_the_figure_shows_both_signs_in_register_with_the_image(wide: Scope) -> None:
    made = convscope.occlusion(wide, draws(2, 3, HEIGHT, WIDTH, dtype=torch.float64), 3, patch=(7, 10), stride=(5, 9))
    view = made.view()
    assert "patch of 7x10 px, stride 5x9 px, 16 positions" in view.subtitle
    for index, group in enumerate(view.panels):
        assert isinstance(group, Group)
        image, over, scores, classes = (panel.panels[0] for panel in group.panels if isinstance(panel, Group))
        assert isinstance(image, panels.Image) and isinstance(over, panels.Image) and isinstance(classes, panels.Image)
        assert isinstance(scores, Heat) and isinstance(over.heat, Signed)
        sizes = {image.pixels.shape[1:], over.pixels.shape[1:], classes.pixels.shape[1:], scores.values.shape, over.heat.values.shape}
        assert sizes == {(HEIGHT, WIDTH)} and {panel.side for panel in group.panels if isinstance(panel, Group)} == {300}
        np.testing.assert_array_equal(over.heat.values, made.drop[index])
        low, high = over.heat.range()
        assert -low == high == np.abs(made.drop[index]).max() and made.drop[index].min() < 0 < made.drop[index].max()
        assert scores.range() == (0, made.base[index])
        y, x = np.unravel_index(7, made.map[index].shape)
        y0, x0, y1, x1 = made.boxes[y, x]
        assert scores.values[(y0 + y1) // 2, (x0 + x1) // 2] == made.map[index, y, x]
        target, *others = classes.legend
        assert f"{made.target_names[index]}: at" in target[1] or made.targets[index] not in made.label[index]
        paint = classes.pixels[:, (y0 + y1) // 2, (x0 + x1) // 2]
        name = dict(classes.legend)["#" + "".join(f"{round(255 * value):02x}" for value in paint)]
        assert f"{CLASS_NAMES[made.label[index, y, x]]}: at" in name and len({paint for paint, _ in (target, *others)}) == len(
            classes.legend
        )


def test_where_no_patch_is_the_figure_is_grey_and_one_position_has_no_stride(wide: Scope, picture: Tensor) -> None:
    view = convscope.occlusion(wide, picture, 3, patch=(20, 20), stride=30, grid="valid").view()
    assert "stride" not in view.subtitle
    (scores,) = [panel for panel in view.flat() if isinstance(panel, Heat)]
    assert np.isnan(scores.values[20:]).all() and np.isnan(scores.values[:, 20:]).all() and np.isfinite(scores.values[:20, :20]).all()


def test_the_summary_says_where_another_class_wins_and_when_the_probability_hides_it() -> None:
    class Corner(nn.Module):
        """Class 1 by a bright corner, and far surer than 0.95 of it; class 0 without it."""

        def __init__(self, sure: float) -> None:
            super().__init__()
            self.sure = nn.Parameter(torch.tensor(sure))

        def forward(self, images: Tensor) -> Tensor:
            bright = images[:, :, :4, :4].mean((1, 2, 3))
            return torch.stack([torch.zeros_like(bright), self.sure * (bright - 0.1)], 1)

    image = torch.zeros(1, 3, 16, 16)
    image[..., :4, :4] = 1
    flips = convscope.occlusion(Scope(Corner(30.0), Inputs(size=16)), image, patch=8, stride=8, fill="black").summary()
    assert "class 0 wins at 1 position" in flips and "log-odds" not in flips
    hides = convscope.occlusion(Scope(Corner(3000.0), Inputs(size=16)), image, patch=2, stride=2, fill="black").summary()
    assert "wins" not in hides and "score log-odds shows more" in hides
