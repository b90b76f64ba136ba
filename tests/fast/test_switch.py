"""One switch turns everything in fast/ off: Scope(fast=False) or CONVSCOPE_FAST=0. Results are the same up to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convscope as cs
import hand_built
from convscope.errors import BadInput
from convscope.fast import lean, memory, use_fast
from convscope.fast.stem import Stem
from convscope.fast.winograd import Winograd
from convscope.scope import Inputs, Scope
from promises import SIDE, promises_in, scope_on

PROMISES = promises_in("techniques")


@pytest.fixture
def nothing_fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever is used of fast/ is an error."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("used although the switch is off")

    for owner, name in (
        (lean.lean_pass, "__init__"),
        (lean.FusedConvolution, "__init__"),
        (Stem, "of"),
        (Winograd, "of"),
        (memory, "_set"),
        (memory, "trim_heap"),
        (memory, "_glibc"),
    ):
        monkeypatch.setattr(owner, name, refuse)
    yield


def agree(one: Any, other: Any) -> bool:
    """Whether values are the same up to rounding."""
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(agree(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(agree(one[key], other[key]) for key in one)
    if isinstance(one, float) or (isinstance(one, np.ndarray) and one.dtype.kind == "f"):
        reach = float(np.nanmax(np.abs(one), initial=1e-3))
        return np.allclose(one, other, rtol=0, atol=1e-4 * reach, equal_nan=True)
    return bool(np.all(one == other))


@pytest.mark.parametrize("name", PROMISES)
def test_techniques_without_it(name: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.delenv("CONVSCOPE_FAST", raising=False)
    fast = PROMISES[name].call(scope_on(hand_built.small()))
    assert fast.manifest["fast"] is True
    request.getfixturevalue("nothing_fast")
    monkeypatch.setenv("CONVSCOPE_FAST", "0")
    plain = PROMISES[name].call(scope_on(hand_built.small()))
    assert plain.manifest["fast"] is False
    for one, other in zip(fast.arrays(), plain.arrays(), strict=True):
        assert agree(one.array, other.array), one.name
    for key, value in fast.extras().items():
        assert agree(value, plain.extras()[key]), key


def test_a_scan_without_it(tmp_path: Path, nothing_fast: None) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    scope = Scope(hand_built.small(), Inputs(size=SIDE), fast=False)
    files = [tmp_path / f"{number}.png" for number in range(3)]
    survey = cs.scan(scope, files, tmp_path / "survey", decoders=0)
    expected = scope.activations(files, "5")["5"].amax((2, 3)).cpu().numpy()
    np.testing.assert_allclose(survey.maximum("5"), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("asked", "given", "expected"),
    [
        ("auto", None, True),
        ("auto", "", True),
        ("auto", "1", True),
        ("auto", "0", False),
        (True, "0", True),
        (False, "1", False),
    ],
)
def test_the_argument_wins_over_the_environment(asked: Any, given: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVSCOPE_FAST", raising=False)
    if given is not None:
        monkeypatch.setenv("CONVSCOPE_FAST", given)
    assert use_fast(asked) is expected and cs.open("textures", fast=asked).fast is expected


def test_wrong_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="fast must be True, False or 'auto', got 'on'"):
        use_fast("on")  # type: ignore[arg-type]
    monkeypatch.setenv("CONVSCOPE_FAST", "off")
    with pytest.raises(BadInput, match=r"the environment variable CONVSCOPE_FAST must be 0 \(off\) or 1 \(on\), got 'off'"):
        use_fast("auto")
