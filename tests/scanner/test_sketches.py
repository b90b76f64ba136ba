"""Quantile sketches: counted here, read by the library."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scanned
from convscope.scanner.sketches import ACCURACY, EDGE, MAPPING, QUANTILES, SIDE, Counter, buckets, quantiles, serialized, sketch_of


def spread(count: int, seed: int = 0) -> torch.Tensor:
    """Values of both signs over many orders of magnitude, a tenth of them zero."""
    values = scanned.draw(count, seed=seed) * torch.exp(2 * scanned.draw(count, seed=seed + 1))
    values[::10] = 0
    return values


def counted(values: torch.Tensor, signed: bool = True) -> np.ndarray:
    counter = Counter([1], [signed], torch.device("cpu"))
    counter.add([values.view(1, -1, 1)])
    return counter.taken(0)


def test_buckets_are_the_librarys() -> None:
    values = spread(3000)
    for value, place in zip(values.tolist(), buckets(values).tolist(), strict=True):
        if abs(value) < 2.0**-20:
            assert abs(place) <= 1
        else:
            assert abs(place) - EDGE == MAPPING.key(abs(value)) and np.sign(place) == np.sign(value)


def test_what_is_out_of_range_is_kept_at_the_edge() -> None:
    values = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e30, -1e30, 2.0**-19, 1.0])
    assert buckets(values).tolist() == [0, 0, 0, 0, SIDE, -SIDE, 32, EDGE]


@pytest.mark.parametrize("signed", [True, False])
def test_quantiles_are_the_librarys_and_within_its_accuracy(signed: bool) -> None:
    values = spread(2001) if signed else spread(2001).abs()
    counts = counted(values, signed)
    library = sketch_of(serialized(counts)[0])
    assert library.count == 2001
    ordered = np.sort(values.numpy())
    for name, found in quantiles(counts).items():
        assert found[0] == np.float32(library.get_quantile_value(QUANTILES[name]))
        true = ordered[int(QUANTILES[name] * 2000)]
        assert abs(found[0] - true) <= 1.0001 * ACCURACY * abs(true) + 2.0**-20


def test_merging_is_adding() -> None:
    one, other = spread(500, 3), spread(700, 5)
    merged = sketch_of(serialized(counted(one))[0])
    merged.merge(sketch_of(serialized(counted(other))[0]))
    counts = counted(one) + counted(other)
    assert np.array_equal(counts, counted(torch.cat([one, other])))
    for name, found in quantiles(counts).items():
        assert found[0] == np.float32(merged.get_quantile_value(QUANTILES[name]))


def test_channels_do_not_mix_and_nothing_counted_is_no_quantile() -> None:
    counter = Counter([2, 3], [False, True], torch.device("cpu"))
    counter.add([torch.tensor([[[1.0, 4.0]]]), torch.tensor([[[-2.0, 0.0, 2.0]]])])
    assert [np.flatnonzero(row).tolist() for row in counter.taken(0)] == [[SIDE + EDGE], [SIDE + EDGE + 64]]
    assert [np.flatnonzero(row).tolist() for row in counter.taken(1)] == [[SIDE - EDGE - 32], [SIDE], [SIDE + EDGE + 32]]
    assert np.isnan(quantiles(np.zeros((1, 2 * SIDE + 1), int))["q50"]).all()
