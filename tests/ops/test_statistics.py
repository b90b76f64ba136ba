"""Statistics of maps against their definitions, element by element."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from convscope.ops.statistics import DESCRIPTORS, channel_means, gram, gram_means, means_and_deviations, normalized_distances, style_loss
from hand_built import draws

MAPS = draws(2, 5, 4, 3, seed=2, dtype=torch.float64) - 0.3
STYLE = draws(2, 5, 6, 7, seed=3, dtype=torch.float64)


def gram_slowly(values: np.ndarray) -> np.ndarray:
    channels = len(values)
    return np.array(
        [[sum(float(a * b) for a, b in zip(values[i].flat, values[j].flat, strict=True)) for j in range(channels)] for i in range(channels)]
    )


def test_gram() -> None:
    made = gram(MAPS)
    for row in (0, 1):
        np.testing.assert_allclose(made[row], gram_slowly(MAPS[row].numpy()), rtol=1e-12)
    assert torch.equal(made, made.mT) or torch.allclose(made, made.mT, rtol=1e-15)
    assert float(torch.linalg.eigvalsh(made).min()) > -1e-12
    torch.testing.assert_close(made.diagonal(dim1=1, dim2=2).sum(1), MAPS.square().sum((1, 2, 3)))  # trace = ||F||^2
    torch.testing.assert_close(gram(3 * MAPS), 9 * made)
    assert int(torch.linalg.matrix_rank(gram(MAPS[:, :, :1, :2]))[0]) <= 2  # rank <= M
    shuffled = MAPS.flatten(2)[:, :, torch.randperm(12, generator=torch.Generator().manual_seed(0))].view_as(MAPS)
    for measure in DESCRIPTORS.values():
        torch.testing.assert_close(measure(shuffled), measure(MAPS))  # blind for places


def test_sums_are_a_row_of_the_augmented_gram() -> None:
    with_one = torch.cat([MAPS, torch.ones(2, 1, 4, 3, dtype=torch.float64)], 1)
    torch.testing.assert_close(gram(with_one)[:, -1, :-1], 12 * channel_means(MAPS))


def mmd_slowly(one: np.ndarray, other: np.ndarray, power: int) -> float:
    """Biased squared maximum mean discrepancy of positions as samples (m c), kernel (x . y) ** power."""

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([[np.dot(x, y) ** power for y in b] for x in a]))

    return mean(one, one) + mean(other, other) - 2 * mean(one, other)


def test_distances_are_maximum_mean_discrepancies() -> None:
    one, other = (values[0].flatten(1).T.numpy() for values in (MAPS, STYLE))
    apart = gram_means(MAPS)[0] - gram_means(STYLE)[0]
    assert float(apart.square().sum()) == pytest.approx(mmd_slowly(one, other, 2), rel=1e-10)
    apart = channel_means(MAPS)[0] - channel_means(STYLE)[0]
    assert float(apart.square().sum()) == pytest.approx(mmd_slowly(one, other, 1), rel=1e-10)


def losses_slowly(values: np.ndarray, style: np.ndarray) -> dict[str, float]:
    """The papers' losses, on pictures of one size: C channels, M positions."""
    channels, positions = values.shape[0], values[0].size
    rows, aim = values.reshape(channels, -1), style.reshape(channels, -1)
    sums = sum((rows[c].sum() - aim[c].sum()) ** 2 for c in range(channels))
    grams = ((gram_slowly(values) - gram_slowly(style)) ** 2).sum()
    moments = sum((rows[c].mean() - aim[c].mean()) ** 2 + (rows[c].std() - aim[c].std()) ** 2 for c in range(channels))
    return {
        "sums": sums / (2 * channels * positions),
        "gram": grams / (4 * channels**2 * positions**2),
        "mean-std": moments / channels,
    }


@pytest.mark.parametrize("statistic", DESCRIPTORS)
def test_style_losses(statistic: str) -> None:
    style = draws(2, 5, 4, 3, seed=4, dtype=torch.float64)
    measure = DESCRIPTORS[statistic]
    made = style_loss(statistic, MAPS, measure(style))
    for row in (0, 1):
        assert float(made[row]) == pytest.approx(losses_slowly(MAPS[row].numpy(), style[row].numpy())[statistic], rel=1e-10)
    assert float(style_loss(statistic, MAPS, measure(MAPS)).abs().max()) < 1e-25
    tiled = MAPS.repeat(1, 1, 2, 3)  # the same style on a larger picture
    assert float(style_loss(statistic, tiled, measure(MAPS)).abs().max()) < 1e-25


@pytest.mark.parametrize("statistic", DESCRIPTORS)
def test_derivatives(statistic: str) -> None:
    values = MAPS.clone().requires_grad_()
    aim = DESCRIPTORS[statistic](STYLE)
    assert torch.autograd.gradcheck(lambda x: style_loss(statistic, x, aim), values)


def test_the_papers_injected_gradients() -> None:
    """S4's code injects gradients: sums' is (F1 - t) 1^T / (C M); Gram's is (G - G_s) F / (C^2 M), M times Gatys et al.'s."""
    values = MAPS[:1].clone().requires_grad_()
    style = draws(1, 5, 4, 3, seed=4, dtype=torch.float64)
    (sums,) = torch.autograd.grad(style_loss("sums", values, channel_means(style)).sum(), values)
    expected = ((MAPS[0] - style[0]).sum((1, 2)) / (5 * 12))[:, None, None].expand(5, 4, 3)
    torch.testing.assert_close(sums[0], expected)
    (grams,) = torch.autograd.grad(style_loss("gram", values, gram_means(style)).sum(), values)
    expected = (gram(MAPS[:1]) - gram(style))[0] @ MAPS[0].flatten(1) / (5**2 * 12)
    torch.testing.assert_close(12 * grams[0].flatten(1), expected)


def test_constant_maps_have_a_derivative() -> None:
    values = torch.ones(1, 2, 3, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(means_and_deviations(values).sum(), values)
    assert bool(torch.isfinite(slope).all())


def test_normalized_distances() -> None:
    rows = draws(4, 3, 2, seed=6, dtype=torch.float64)
    made = normalized_distances(rows)
    for a in range(4):
        for b in range(4):
            expected = (rows[a] - rows[b]).norm() / (rows[a].norm() + rows[b].norm())
            assert float(made[a, b]) == pytest.approx(float(expected), abs=1e-15)
    assert float(normalized_distances(torch.tensor([[1.0, 0], [-1, 0]]))[0, 1]) == 1.0
    assert not bool(normalized_distances(torch.zeros(2, 3)).any())
