"""Watches a training: now and then, feature visualizations, exemplars and filter health go into a folder, and nothing else changes."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from convscope.analyses.exemplars import exemplars
from convscope.analyses.filter_health import filter_health
from convscope.errors import BadInput, StoreConflict, asking
from convscope.files import local_path
from convscope.names import Units, is_whole, layer_names
from convscope.optimize.recipes import DEFAULT, Recipe, RecipeName, find_recipe
from convscope.progress import reporting
from convscope.results.exemplars import Exemplars
from convscope.results.feature_visualization import FeatureVisualization
from convscope.results.filter_health import FilterHealth
from convscope.results.provenance import describe, manifest
from convscope.results.watch import Watch
from convscope.scanner.scan import scan
from convscope.scope import Inputs, Scope
from convscope.scope.generators import Generators
from convscope.scope.network import check_tensors
from convscope.techniques.feature_visualization import feature_visualization
from convscope.text import one_line
from convscope.training.history import History
from convscope.training.lightning import callback
from convscope.training.subject import as_files, batch_of, scope_of, unit_names, watched_units
from convscope.training.tensorboard import Board

_log = logging.getLogger("convscope")
TIMELINE, IMAGES = "timeline", "images"
"""Folders beside those of the looks: the result of all looks, and images that were given as a tensor."""
_STEP = re.compile(r"step_(\d+)")


def watch(
    model: nn.Module | Scope,
    units: Sequence[tuple[str, Units]] | Mapping[str, Units],
    images: Any,
    out: str | os.PathLike[str],
    *,
    inputs: Inputs | None = None,
    every: int = 1000,
    start: int = 0,
    layers: str | Sequence[str] | None = None,
    top: int = 9,
    recipe: RecipeName | Recipe = DEFAULT,
    seed: int = 0,
    tensorboard: Any = None,
    **changes: Any,
) -> Watcher:
    """Watches a training: every so many steps, looks at the network and writes what its units look for.

    The first look is taken at once, so that what is wrong is said before the training begins, and to have the untrained network to compare
    with. A look that fails later is logged and listed; the training goes on. It ends with the same weights, bit for bit, as without
    watching: the network's modes, buffers, gradients and hooks, and the random generators of torch, NumPy and Python are as they were.

    In `out`, each look has a folder `step_0001000`, with ``feature_visualization/LAYER``, ``exemplars/LAYER`` and ``filter_health``, which
    :func:`~convscope.load` reads, and ``survey``, which :func:`~convscope.read_survey` reads. ``timeline`` holds the
    :class:`~convscope.results.watch.Watch` of all looks with its figure.

    Args:
        model: The network that is trained, or a scope of it. Of a compiled or parallel one, the network inside is looked at.
        units: The units to watch: (layer, units) pairs, or {layer: units}; class names are understood on "output".
        images: A small fixed set of images, for exemplars and filter health: a folder, a list (.csv, .parquet), a sequence of files; or
            images (n c h w) in [0,1], before normalization, which are written to `out` as PNGs.
        out: Folder to write to; empty, or that of the training that goes on here (see `start`).
        inputs: Input size and normalization of the network. None: those of the scope; else images in [0,1] of the size of `images`, or 224.
        every: Steps from look to look.
        start: The step at which this training begins, where it goes on from a checkpoint.
        layers: Layers whose filter health is taken. None: every convolution, after its ReLU if it has one.
        top: Exemplars of each unit.
        recipe: As for :func:`~convscope.feature_visualization`.
        seed: Seed of all draws; the same at every look.
        tensorboard: A ``SummaryWriter``, or a folder for one: images and dead units go there as well.
        changes: Recipe parameters to replace, e.g. ``steps=64, size=128`` for quicker looks.

    Returns:
        The watcher: call :meth:`Watcher.step` after every step of the optimizer, or use it as a context manager, which takes a last look
        at the end, or pass :meth:`Watcher.lightning` to a Lightning trainer.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        BadInput, BadImage: The network or the images cannot be looked at.
        StoreConflict: `out` holds something else.
        NotInstalled: TensorBoard is asked for but not installed.

    Example:
        >>> import torch, tempfile, convscope as cs
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 30 * 30, 4))
        >>> watcher = cs.watch(network, {"1": [0, 3]}, torch.rand(6, 3, 32, 32), tempfile.mkdtemp(), every=2, steps=2, size=32)
        >>> watcher.step(), watcher.step().name
        (None, 'step_0000002')
    """
    with asking(technique="watch"):
        if not is_whole(every) or every < 1:
            raise BadInput(f"every must be a whole number of at least 1, got {every!r}")
        if not is_whole(start) or start < 0:
            raise BadInput(f"start must be a whole number of at least 0, got {start!r}")
        given = batch_of(images)
        scope = scope_of(model, inputs, given)
        with _undisturbed(scope):
            plan = find_recipe(recipe, **changes)
            watcher = Watcher(scope, watched_units(scope, units), local_path(out), layers, top, plan, seed, every, start)
            if _leads():
                watcher.begin(images, given, tensorboard)
        return watcher


class Watcher:
    """Looks at a network while it is trained; made by :func:`watch`.

    Attributes:
        scope: The network.
        folder: Where looks are written.
        every: Steps from look to look.
        count: The training steps so far.
    """

    def __init__(
        self,
        scope: Scope,
        watched: dict[str, list[int]],
        folder: Path,
        layers: str | Sequence[str] | None,
        top: int,
        recipe: Recipe,
        seed: int,
        every: int,
        start: int,
    ) -> None:
        self.scope, self.folder, self.every, self.count = scope, folder, every, start
        self._watched, self._top, self._recipe, self._seed = watched, top, recipe, seed
        asked = scope.layers.after_relu() if layers is None else layer_names(layers, scope.layers)
        self._layers = list(dict.fromkeys([*([asked] if isinstance(asked, str) else asked), *watched]))
        self._history = History(unit_names(scope, watched))
        self._images: Any = None
        self._parameters: dict[str, Any] = {"units": watched, "every": every, "top": top, "seed": seed}
        self._board: Board | None = None

    @property
    def timeline(self) -> Watch:
        """All looks so far.

        Raises:
            BadInput: There is none: of processes that train in parallel, the first alone looks.
        """
        if not self._history.looks:
            raise BadInput("nothing was looked at: of processes that train in parallel, the first alone looks")
        recipe = {"recipe": self._recipe.describe(), "changed": self._recipe.changes(), "precision": self.scope.resolve("optimize")}
        return self._history.timeline(manifest(self.scope, "watch", self._parameters) | recipe)

    @property
    def failed(self) -> tuple[tuple[int, str], ...]:
        """Looks that failed, as (step, reason)."""
        return tuple(self._history.failed)

    def __repr__(self) -> str:
        cost = self.timeline.cost() if self._history.looks else "no look"
        return f"Watcher({self.folder}, step {self.count}, {cost})"

    def step(self, number: int | None = None) -> Path | None:
        """Says that the training has taken a step, and looks at the network if it is time to. To be called after the optimizer's step.

        Args:
            number: The step's number, where the training counts by itself; the same number again is no step. None: one more.

        Returns:
            The folder of the look, if one was taken.
        """
        before, self.count = self.count, self.count + 1 if number is None else number
        return self._tried() if self.count // self.every > before // self.every else None

    def look(self) -> Path:
        """Looks at the network now, unless this step was looked at.

        Returns:
            The folder of the look.

        Raises:
            ConvscopeError, OSError: The network cannot be looked at, or the folder cannot be written.
        """
        folder = self.folder / f"step_{self.count:07d}"
        if folder.exists() or not _leads():
            return folder
        with _undisturbed(self.scope):
            begun = time.monotonic()
            part = folder.with_name(f".{folder.name}.tmp")
            shutil.rmtree(part, ignore_errors=True)
            try:
                seen, health = self._write(part)
                part.rename(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
            look = self._history.add(self.count, [pictures for pictures, _ in seen], health)
            look.seconds = time.monotonic() - begun
            self.timeline.save(self.folder / TIMELINE, overwrite=True)
            if self._board is not None:
                self._board.show(self.timeline, seen)
            look.seconds = time.monotonic() - begun  # with what writing the timeline took, which the file cannot know
        _log.info("watch: step %d: %s", self.count, self.timeline.cost())
        return folder

    def finish(self) -> Watch | None:
        """Takes a last look, unless this step was looked at.

        Returns:
            The timeline; None in processes that do not look.
        """
        self._tried()
        return self.timeline if self._history.looks else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()

    def lightning(self) -> Any:
        """A callback for the trainer of Lightning (``lightning`` or ``pytorch_lightning``), which counts steps as the trainer does.

        Raises:
            NotInstalled: Neither is installed.
        """
        return callback(self.step, self.finish)

    def begin(self, images: Any, given: Tensor | None, tensorboard: Any) -> None:
        """Takes the first look, or goes on from those in the folder.

        Args:
            images: As for :func:`watch`.
            given: The images, where they are no files.
            tensorboard: As for :func:`watch`.
        """
        self._board = None if tensorboard is None else Board(tensorboard)
        self._check_folder()
        self._images = images if given is None else as_files(given, self.folder / IMAGES)
        self._parameters["images"] = describe(images)
        self.look()

    def _check_folder(self) -> None:
        """Reads the looks that are in the folder.

        Raises:
            StoreConflict: It holds something else, looks at later steps, or looks at other units.
        """
        folder = self.folder
        if folder.exists() and not folder.is_dir():
            raise StoreConflict(f"{folder}: is a file, not a folder")
        there = sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []
        if others := [name for name in there if not _STEP.fullmatch(name) and name not in (TIMELINE, IMAGES)]:
            raise StoreConflict(f"{folder}: holds other files ({one_line(', '.join(others[:3]))}); choose another folder")
        steps = [int(match[1]) for name in there if (match := _STEP.fullmatch(name))]
        if not steps:
            return
        last = max(steps)
        if last > self.count or not self.count:
            raise StoreConflict(
                f"{folder}: holds a look at step {last}, and this training begins at step {self.count}; "
                f"choose another folder, or go on from there (start={last})"
            )
        self._history.resume(folder / TIMELINE)

    def _tried(self) -> Path | None:
        """A look; if it fails, that is logged and listed."""
        try:
            return self.look()
        except Exception as error:
            reason = one_line(error, 300) or type(error).__name__
            self._history.failed.append((self.count, reason))
            _log.warning("watch: step %d was not looked at, training goes on: %s", self.count, reason)
            return None

    def _write(self, folder: Path) -> tuple[list[tuple[FeatureVisualization, Exemplars]], FilterHealth]:
        """Looks, and writes it into a folder. Returns what was seen of the units of each layer, and the filter health."""
        if self.scope.device.type == "cuda":
            torch.cuda.synchronize(self.scope.device)  # what training still does is not the look's time
        check_tensors(self.scope.model, self.scope.name)
        seen: list[tuple[FeatureVisualization, Exemplars]] = []
        with self.scope.session():
            survey = scan(self.scope, self._images, folder / "survey", layers=self._layers, top=self._top, decoders=0)
            for layer, units in self._watched.items():
                pictures = feature_visualization(self.scope, layer, units, recipe=self._recipe, seed=self._seed)
                seen.append((pictures, exemplars(survey, layer, units, top=self._top)))
        for result in (each for pair in seen for each in pair):
            result.save(folder / result.technique / result.layer)
        health = filter_health(survey)
        health.save(folder / health.technique)
        return seen, health


@contextmanager
def _undisturbed(scope: Scope) -> Generator[None]:
    """Within the block, whatever is drawn at random leaves the generators of torch, NumPy, Python and the network as they were.

    The network itself is restored by the scope's sessions. Progress is silent: the training has a display of its own.
    """
    generators, threads = Generators(scope.model, scope.device), torch.get_num_threads()
    states = generators.states()
    try:
        with reporting(None):
            yield
    finally:
        generators.restore(states)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _leads() -> bool:
    """Whether this process looks: of those that train in parallel, the first."""
    distributed: Any = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) == 0
