"""What the parts of making an atlas share: the network, its survey, the folder, and tables that are kept beside the survey."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from convscope.errors import BadImage
from convscope.names import OUTPUT
from convscope.scope import Scope
from convscope.site.content import Options
from convscope.site.tables import is_current, write_table
from convscope.survey.survey import Survey

DATA = "data"
"""The survey's folder in an atlas."""


@dataclass(frozen=True)
class Work:
    """What is at hand while an atlas is made.

    Attributes:
        scope: The network.
        survey: The survey of its images.
        root: Folder of the site.
        options: What is shown.
    """

    scope: Scope
    survey: Survey
    root: Path
    options: Options

    @cached_property
    def layers(self) -> list[str]:
        """The layers in call order, without "output"."""
        return [name for name in self.survey.layers if name != OUTPUT]

    @cached_property
    def key(self) -> str:
        """What the tables beside the survey depend on; tables of another key are made anew."""
        return json.dumps([self.survey.manifest["plan"], version("convscope")], sort_keys=True)

    def write_table(self, name: str, make: Callable[[], dict[str, Any]]) -> None:
        """Writes a table beside the survey, unless it is there."""
        folder = self.root / DATA
        if not is_current(folder, name, self.key):
            write_table(folder, name, make(), self.key)

    def place(self, name: str, cells: tuple[int, ...]) -> list[float]:
        """Where a layer's maps lie on an image: y0, x0, y1, x1 in pixels."""
        size = self.scope.inputs.height, self.scope.inputs.width
        return list(self.scope.layers.place(self.scope.layers[name], (cells[0], cells[1]), size))

    def photograph(self, row: int) -> np.ndarray | None:
        """An image as the network is fed it, (3 h w) in [0,1], grey if it takes one channel; None if its file is gone."""
        try:
            return self.survey.read_image(int(self.survey.ids[row]))
        except BadImage:
            return None
