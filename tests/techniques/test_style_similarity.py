"""Style similarity against its formula, and on textures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convscope as cs
import promises
from convscope.errors import BadImage, BadInput, LayerNotFound
from convscope.scope import Scope
from hand_built import draws

PROMISE = promises.Promise(
    lambda s: cs.style_similarity(s, promises.IMAGES[:3], groups=["a", "a", "b"]), "result.nearest('gram')", forwards=3
)

IMAGES = [draws(3, 24, 24, seed=1), 0.4 * draws(3, 24, 24, seed=2), draws(3, 18, 30, seed=3), 0.4 * draws(3, 20, 20, seed=4)]


def distances_slowly(small: nn.Module, scope: Scope) -> np.ndarray:
    """(statistic layer n n), from the definitions, in float64."""
    described: list[list[list[np.ndarray]]] = []
    for image in IMAGES:
        values, found = scope.inputs.normalize(image[None]).double(), {}
        for name, module in small.eval().double().named_children():
            values = module(values)
            found[name] = values[0].flatten(1).detach().numpy() if name in ("2", "5") else None
            if name == "5":
                break
        maps = [found["2"], found["5"]]
        described.append([[m.mean(1) for m in maps], [m @ m.T / m.shape[1] for m in maps], [np.stack([m.mean(1), m.std(1)]) for m in maps]])
    small.float()
    apart = np.zeros((3, 2, 4, 4))
    for statistic in range(3):
        for layer in range(2):
            for a in range(4):
                for b in range(4):
                    one, other = described[a][statistic][layer], described[b][statistic][layer]
                    apart[statistic, layer, a, b] = np.linalg.norm(one - other) / (np.linalg.norm(one) + np.linalg.norm(other))
    return apart


def test_similarity_by_hand(small: nn.Module, scope: Scope) -> None:
    expected = distances_slowly(small, scope)
    made = cs.style_similarity(scope, IMAGES)
    assert made.layers == ("2", "5") and made.statistics == ("sums", "gram", "mean-std")
    np.testing.assert_allclose(made.layer_distance, expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(made.similarity, 1 - expected.mean(1), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(made.similarity.diagonal(axis1=1, axis2=2), 1, atol=1e-6)
    np.testing.assert_allclose(made.similarity, made.similarity.transpose(0, 2, 1), atol=1e-6)
    assert np.isnan(made.auc).all() and made.groups == ()


def test_auc_by_counting(scope: Scope) -> None:
    groups = ["bright", "dark", "bright", "dark"]
    made = cs.style_similarity(scope, IMAGES, groups=groups)
    for row in range(3):
        same = [made.similarity[row, a, b] for a, b in ((0, 2), (1, 3))]
        different = [made.similarity[row, a, b] for a, b in ((0, 1), (0, 3), (1, 2), (2, 3))]
        wins = [1.0 if one > other else 0.5 if one == other else 0.0 for one in same for other in different]
        assert made.auc[row] == pytest.approx(np.mean(wins))
    assert made.auc[0] == 1.0, "dark noise and bright noise are told apart"
    assert made.layer_auc.shape == (3, 2)
    assert made.nearest("gram").tolist() == [2, 3, 0, 1]
    assert made.nearest("gram", among=[0, 1]).tolist() == [1, 0, 0, 1]
    assert made.summary().splitlines()[-1].startswith("same group told from different ones, AUC: sums 1.000")


def test_places_do_not_matter_but_styles_do() -> None:
    """Two windows of one texture are more alike than windows of two textures."""
    from convscope.zoo.textures.generator import indexed

    pictures = [indexed(name, number, seed=2).image for name in ("chains", "dots", "waves") for number in range(3)]
    made = cs.style_similarity(cs.open("textures"), pictures, groups=[name for name in "abc" for _ in range(3)], size=96)
    assert (made.auc > 0.7).all()


def test_folders_are_groups(scope: Scope, tmp_path: Path) -> None:
    for index, name in enumerate("aabb"):
        (tmp_path / name).mkdir(exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 200 if name == "a" else 60, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    files = sorted(tmp_path.glob("*/*.png"))
    made = cs.style_similarity(scope, files, groups="folder", size=32)
    assert made.groups == ("a", "a", "b", "b") and made.names == ("0", "1", "2", "3") and (made.auc == 1).all()
    (tmp_path / "a" / "bad.png").write_text("no picture")
    skipping = cs.style_similarity(scope, [tmp_path / "a" / "bad.png", *files], groups="folder", size=32)
    assert skipping.skipped == ((str(tmp_path / "a" / "bad.png"), "not an image file"),)
    assert skipping.groups == made.groups and skipping.names == made.names and (skipping.similarity == made.similarity).all()
    in_folder = cs.style_similarity(scope, tmp_path, groups="folder", size=32)
    assert in_folder.skipped == (("a/bad.png", "not an image file"),) and (in_folder.similarity == made.similarity).all()
    with pytest.raises(BadImage, match=r"none of the 2 images can be read; the first: .*not an image file"):
        cs.style_similarity(scope, [tmp_path / "a" / "bad.png"] * 2)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"images": IMAGES[:1]}, BadInput, "at least two images"),
        ({"layers": "9"}, LayerNotFound, "no layer '9'"),
        ({"layers": "output"}, BadInput, "has no maps"),
        ({"layers": []}, BadInput, "no style layer"),
        ({"groups": ["a", "b"]}, BadInput, "2 names for 4 images"),
        ({"groups": "aabb"}, BadInput, "1 names for 4 images"),
        ({"groups": list("aaaa")}, BadInput, "pairs of one group and pairs of different ones"),
        ({"groups": list("abcd")}, BadInput, "pairs of one group and pairs of different ones"),
        ({"groups": "folder"}, BadInput, "needs image files"),
        ({"size": 0}, BadInput, "size must be"),
        ({"images": [torch.ones(3, 24, 24) * 2, IMAGES[0]]}, BadInput, "expected values in"),
    ],
)
def test_wrong_questions(scope: Scope, wrong: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        cs.style_similarity(scope, **({"images": IMAGES} | wrong))  # type: ignore[arg-type]
