"""Histograms with logarithmic bins: counting, quantiles and merging against plain formulas."""

from __future__ import annotations

import math
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch

import convscope as cs
import scanned
from convscope.scanner.histograms import ACCURACY, ONE, QUANTILES, SIDE, HistogramCounter, bins_of, quantiles, to_lists


def edge(b: int) -> float:
    """The upper edge of bin b > 0, as documented."""
    return 2.0 ** (b // 32 - 20) * (1 + (b % 32) / 32)


def spread(count: int, seed: int = 0) -> torch.Tensor:
    """Values of both signs over many orders of magnitude, a tenth of them zero."""
    values = scanned.draw(count, seed=seed) * torch.exp(2 * scanned.draw(count, seed=seed + 1))
    values[::10] = 0
    return values


def counted(values: torch.Tensor, signed: bool = True) -> np.ndarray:
    counter = HistogramCounter([1], [signed], torch.device("cpu"))
    counter.add([values.view(1, -1, 1)])
    return counter.layer_counts(0)


def test_bins_are_those_of_the_formula() -> None:
    values = torch.cat([spread(3000), torch.tensor([edge(b) for b in range(1, SIDE + 1, 7)])])
    for value, found in zip(values.tolist(), bins_of(values).tolist(), strict=True):
        size = abs(found)
        if size == 0:
            assert abs(value) <= 2.0**-20
        else:
            assert edge(size - 1) < abs(value) <= edge(size) and math.copysign(1, value) == math.copysign(1, found)


def test_what_is_out_of_range_is_in_the_outermost_bins() -> None:
    values = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e30, -1e30, 2.0**-19, 1.0])
    assert bins_of(values).tolist() == [0, 0, 0, 0, SIDE, -SIDE, 32, ONE]


@pytest.mark.parametrize("signed", [True, False])
def test_quantiles_are_those_of_the_sorted_samples_within_the_accuracy(signed: bool) -> None:
    values = spread(2001) if signed else spread(2001).abs()
    counts = counted(values, signed)
    assert counts.sum() == 2001
    ordered = np.sort(values.numpy())
    for name, found in quantiles(counts).items():
        true = float(ordered[int(QUANTILES[name] * 2000)])
        b = int(bins_of(torch.tensor([true]))[0])
        value = math.copysign(edge(abs(b)) * 2 / (1 + math.exp(1 / 32)), b) if b else 0.0  # as DDSketch reads its bins
        assert found[0] == np.float32(value)
        assert abs(found[0] - true) <= 1.0001 * ACCURACY * abs(true) + 2.0**-20


def test_merging_is_adding() -> None:
    one, other = spread(500, 3), spread(700, 5)
    assert np.array_equal(counted(one) + counted(other), counted(torch.cat([one, other])))


def test_channels_do_not_mix_and_nothing_counted_is_no_quantile() -> None:
    counter = HistogramCounter([2, 3], [False, True], torch.device("cpu"))
    counter.add([torch.tensor([[[1.0, 4.0]]]), torch.tensor([[[-2.0, 0.0, 2.0]]])])
    assert [np.flatnonzero(row).tolist() for row in counter.layer_counts(0)] == [[SIDE + ONE], [SIDE + ONE + 64]]
    assert [np.flatnonzero(row).tolist() for row in counter.layer_counts(1)] == [[SIDE - ONE - 32], [SIDE], [SIDE + ONE + 32]]
    assert np.isnan(quantiles(np.zeros((1, 2 * SIDE + 1), int))["q50"]).all()


def test_lists_hold_the_bins_that_are_not_empty() -> None:
    counts = np.zeros((3, 2 * SIDE + 1), np.int64)
    counts[0, [0, SIDE, SIDE + 5]] = 1, 7, 2
    counts[2, 2 * SIDE] = 2**40
    found = {name: column.to_pylist() for name, column in to_lists(counts).items()}
    assert found == {"bins": [[-SIDE, 0, 5], [], [SIDE]], "counts": [[1, 7, 2], [], [2**40]]}


def test_the_quantile_query_of_the_documentation(tmp_path: Path) -> None:
    """Quantiles over several surveys by SQL alone; over one survey they are those that the scan wrote."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    query = next(block for block in text.split("```sql\n")[1:] if "unnest(bins)" in block).partition("```")[0].rpartition("\n\n")[2]
    for name, first in (("a", 0), ("b", 8)):
        for number in range(first, first + 8):
            file = tmp_path / "images" / name / f"{number:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            scanned.picture(number).save(file)
    surveys = tmp_path / "surveys"
    cs.scan(scanned.small_scope(), tmp_path / "images" / "a", surveys / "0", decoders=0)
    own = scanned.table(surveys / "0", "channels").to_pylist()
    asked = query.replace("s3://bucket/surveys", str(surveys))
    found = {(row[0], row[1]): row[2] for row in duckdb.sql(asked).fetchall()}
    assert len(found) == len(own) and all(found[row["layer"], row["channel"]] == pytest.approx(row["q99"], rel=1e-6) for row in own)
    cs.scan(scanned.small_scope(), tmp_path / "images" / "b", surveys / "1", decoders=0)
    merged = {(row[0], row[1]): row[2] for row in duckdb.sql(asked).fetchall()}
    histograms = [scanned.table(surveys / each, "channels").to_pylist() for each in "01"]
    for one, other in zip(*histograms, strict=True):
        both = sorted(b for row in (one, other) for b, count in zip(row["bins"], row["counts"], strict=True) for _ in range(count))
        b = both[math.floor(0.99 * (len(both) - 1))]
        value = math.copysign(edge(abs(b)) * (1 - ACCURACY), b) if b else 0.0
        assert merged[one["layer"], one["channel"]] == pytest.approx(value, rel=1e-5)
