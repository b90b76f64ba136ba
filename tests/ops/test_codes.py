"""Codes made from codes: the algebra of feature map inversion, random and purposeful modification."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.ops.codes import FeatureMap, Purposeful, Reallocate, edit_name, find_edits, reallocated
from hand_built import draws


@pytest.fixture
def code() -> Tensor:
    """7 rectified maps of 5x4, of which 2 and 5 are dead."""
    values = (draws(7, 5, 4, seed=1, dtype=torch.float64) - 0.4).clamp(min=0)
    values[[2, 5]] = 0
    return values


@pytest.mark.parametrize("chosen", [0, 3, 6])
def test_a_feature_map_gets_everything(code: Tensor, chosen: int) -> None:
    target = FeatureMap(chosen)(code).numpy()
    slow = np.zeros((7, 5, 4))
    for y in range(5):
        for x in range(4):
            slow[chosen, y, x] = sum(float(code[channel, y, x]) for channel in range(7))
    np.testing.assert_allclose(target, slow, rtol=1e-12)
    np.testing.assert_allclose(target.sum(0), code.sum(0), rtol=1e-12)  # the total at every position is preserved
    np.testing.assert_array_equal(FeatureMap(1)(code)[1], target[chosen])  # l and l' differ by a swap of channels


def test_a_code_of_one_map_is_inverted_plainly(code: Tensor) -> None:
    assert torch.equal(FeatureMap(0)(code[:1]), code[:1])


def reallocated_slowly(code: np.ndarray, shares: np.ndarray) -> np.ndarray:
    total = code.sum()
    alive = code.sum((1, 2)) > 0
    shares = np.where(alive, shares, 0)
    return np.stack(
        [share / shares.sum() * total * one / one.sum() if one.sum() > 0 else one for share, one in zip(shares, code, strict=True)]
    )


@pytest.mark.parametrize("seed", range(4))
def test_reallocation(code: Tensor, seed: int) -> None:
    target = Reallocate(seed)(code)
    assert bool(((target > 0) == (code > 0)).all()), "what was at rest stays at rest, what was active stays active"
    torch.testing.assert_close(target.sum(), code.sum())
    assert not torch.allclose(target, code)
    assert torch.equal(target, Reallocate(seed)(code))
    assert not torch.equal(target, Reallocate(seed + 1)(code))
    shares = draws(7, seed=seed, dtype=torch.float64) + 0.1
    np.testing.assert_allclose(reallocated(code, shares), reallocated_slowly(code.numpy(), shares.numpy()), rtol=1e-12)


def test_reallocating_what_is_there_changes_nothing(code: Tensor) -> None:
    torch.testing.assert_close(reallocated(code, code.sum((1, 2))), code, rtol=1e-12, atol=0)


def test_reallocation_of_vectors_and_of_signed_codes(code: Tensor) -> None:
    vector = code.sum((1, 2))
    target = Reallocate(3)(vector)
    torch.testing.assert_close(target.sum(), vector.sum())
    assert bool(((target > 0) == (vector > 0)).all())
    with pytest.raises(BadInput, match="without negative values"):
        Reallocate(0)(code - 0.1)


def test_purposeful(code: Tensor) -> None:
    torch.testing.assert_close(Purposeful(code)(code), code, rtol=1e-12, atol=1e-15)  # the style is the content
    style = draws(7, 3, 6, seed=5, dtype=torch.float64) * torch.arange(7, 0, -1)[:, None, None]
    target = Purposeful(style)(code)
    torch.testing.assert_close(target.mean((1, 2)), style.mean((1, 2)))
    by_content = sorted(range(7), key=lambda one: float(code[one].mean()))
    by_style = sorted(range(7), key=lambda one: float(style[one].mean()))
    for source, place in zip(by_content, by_style, strict=True):
        torch.testing.assert_close(target[place] - target[place].mean(), code[source] - code[source].mean())
    with pytest.raises(BadInput, match=r"style's code is \(6, 3, 6\), but the layer's is \(7, 5, 4\)"):
        Purposeful(style[:6])(code)


def test_edits() -> None:
    own = torch.nn.Identity()
    assert find_edits(None) == [None] and find_edits(own) == [own]
    assert find_edits([FeatureMap(1), None, own]) == [FeatureMap(1), None, own]
    assert [edit_name(edit) for edit in (None, FeatureMap(3), Reallocate(1), torch.relu, own)] == [
        "own code",
        "map 3",
        "reallocated, seed 1",
        "relu",
        "Identity",
    ]


@pytest.mark.parametrize("wrong", ["map=3", "", 3, [5], [], [None, 2.0], [FeatureMap(1), "map=2"]])
def test_what_is_no_edit(wrong: object) -> None:
    with pytest.raises(BadInput, match="edit: "):
        find_edits(wrong)  # type: ignore[arg-type]
