"""What the test file of a technique says for the tests that hold for all of them: `PROMISE`, and what its call needs."""

from __future__ import annotations

import copy
import importlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import convscope as cs
import hand_built
import scanned
from convscope.results.base import Result
from convscope.scope import Inputs, Scope

SIDE = 24
IMAGES = hand_built.draws(4, 3, SIDE, SIDE, seed=3)
MAPS = {"ant": [0, 1], "bee": [2]}
SURVEYS: dict[str, cs.Survey] = {}
DETECTORS: dict[str, cs.Detector] = {}


@dataclass(frozen=True)
class Promise:
    """How a technique is called on a small network, or on a small survey.

    Attributes:
        call: The scope of the small network, or the survey, to a result.
        says: An expression of `result`: what it can say beyond its fields, for a result loaded in another process to be held against.
        forwards: How many forwards it may take beyond those that record the layers.
    """

    call: Callable[[Any], Result]
    says: str
    forwards: int = 0


def promises_in(folder: str) -> dict[str, Promise]:
    """{technique: its promise} of the files test_TECHNIQUE.py in a folder of tests."""
    home = Path(__file__).parent / folder
    if str(home) not in sys.path:
        sys.path.append(str(home))
    found = {path.stem.removeprefix("test_"): importlib.import_module(path.stem) for path in sorted(home.glob("test_*.py"))}
    return {name: module.PROMISE for name, module in found.items() if hasattr(module, "PROMISE")}


def scope_on(model: nn.Module) -> Scope:
    count = next(module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d))
    mean, std = ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)) if count == 3 else ((0.4,) * count, 0.25)
    return Scope(model, Inputs(size=SIDE, mean=mean, std=std), precision="float32", name="small")


def survey(scope: Scope) -> cs.Survey:
    """A survey of four images by a copy of the scope's network, made once."""
    if scope.weights_hash not in SURVEYS:
        folder = Path(tempfile.mkdtemp())
        SURVEYS[scope.weights_hash] = cs.scan(
            scope_on(copy.deepcopy(scope.model)), scanned.folder_of(folder / "images", 4), folder / "survey"
        )
    return SURVEYS[scope.weights_hash]


def detector(scope: Scope) -> cs.Detector:
    """A detector of two classes by the scope's network, made once."""
    if scope.weights_hash not in DETECTORS:
        folder = Path(tempfile.mkdtemp())
        files = scanned.folder_of(folder / "images", 15)
        made = cs.scan(scope_on(copy.deepcopy(scope.model)), files, folder / "survey", layers=["5"])
        DETECTORS[scope.weights_hash] = cs.detector(made, "5", MAPS, draws=9)
    return DETECTORS[scope.weights_hash]
