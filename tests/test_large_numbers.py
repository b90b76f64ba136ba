"""Numbers that are far too large, as a slip of the finger or a hostile file gives them: one line, and neither memory nor time is spent.

Found by trying each command with 10^20 and numbers near it: steps, stages, copies, patches, tops, seeds, threads, sizes, columns, draws.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convscope as cs
import hand_built
from convscope.errors import BadInput, ConvscopeError
from made import drawn, made
from promises import IMAGES, scope_on

HUGE = 10**20


def visualized(**more: Any) -> Callable[[cs.Scope, Path], object]:
    return lambda scope, _: cs.feature_visualization(
        scope, "5", [0], **({"recipe": "multiscale", "steps": 1, "stages": 1, "size": 12} | more)
    )


ASKED: dict[str, tuple[Callable[[cs.Scope, Path], object], str]] = {
    "steps": (visualized(steps=HUGE), "steps must be at most 100000"),
    "stages": (visualized(stages=HUGE), "stages must be at most 1000"),
    "growth": (visualized(stages=99, enlargement=99.0), "enlarged to .* px after 2 of 99 stages, more than 16384"),
    "side": (visualized(size=100_000), "size must be at most 16384"),
    "crop": (visualized(crop_size=10**6), "crop_size must be at most 4096"),
    "pad": (visualized(pad=10**6), "pad must be at most 4096"),
    "seed": (visualized(seed=HUGE), "seed must be a whole number of at most 63 bits"),
    "copies": (lambda scope, place: cs.gallery(scope, "5", [0], place, copies=10**9), "copies must be a whole number from 1 to 1000"),
    "diversity": (visualized(copies=2, diversity=1e300), "diversity must be a number from 0 to 1e"),
    "patch": (lambda scope, _: cs.occlusion(scope, IMAGES, patch=HUGE), "patch must be at most|larger than the image"),
    "points": (lambda scope, _: cs.integrated_gradients(scope, IMAGES, steps=10**6), "steps must be a whole number from 1 to 1000"),
    "columns": (lambda scope, _: cs.activation_grid(scope, IMAGES, columns=HUGE), "columns must be at most 10000000"),
    "evaluations": (lambda scope, _: cs.inversion(scope, "5", IMAGES, steps=HUGE), "steps must be at most 10000000"),
    "input": (lambda scope, _: scope.reading(HUGE), "each from 1 to 8192"),
    "top": (lambda scope, place: cs.scan(scope, place, place / "s", top=HUGE), "top must be a whole number from 1 to"),
    "votes": (lambda scope, place: cs.scan(scope, place, place / "s", votes_per_image=HUGE), "votes_per_image must be a whole"),
    "batch": (lambda scope, place: cs.scan(scope, place, place / "s", batch_size=HUGE), "batch_size must be a whole number"),
    "threads": (
        lambda scope, place: cs.scan(scope, place, place / "s", threads=2**31 - 1),
        "threads must be a whole number from 0 to",
    ),
    "decoders": (lambda scope, place: cs.scan(scope, place, place / "s", decoders=10**5), "decoders must be a whole number from -1 to"),
    "no number": (lambda scope, place: cs.scan(scope, place, place / "s", top="9"), "top must be a whole number from 1 to"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", ASKED)
def test_one_line_at_once(what: str, tmp_path: Path) -> None:
    ask, words = ASKED[what]
    scope = scope_on(hand_built.small())
    assert scope.layers
    begun = time.process_time()
    with pytest.raises(ConvscopeError, match=words) as error:
        ask(scope, tmp_path)
    assert "\n" not in str(error.value) and time.process_time() - begun < 5
    assert not any(tmp_path.iterdir()), "nothing was written"


def test_more_exemplars_than_images(tmp_path: Path) -> None:
    survey = made(tmp_path / "s", {"layer": drawn(4, 3, 2, 2)}, [None] * 4)
    found = cs.exemplars(survey, "layer", [0, 1], top=10_000)
    assert found.values.shape == (2, 10_000) and (found.images[:, 4:] == -1).all()
    assert np.array_equal(found.values[:, 0], survey.maximum("layer")[:, :2].max(0))
    for top in (10_001, HUGE):
        with pytest.raises(BadInput, match="top must be at"):
            cs.exemplars(survey, "layer", [0], top=top)
