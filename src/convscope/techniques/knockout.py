"""Knock-out: units of a layer are silenced, and what that does to the network's answers is measured against random units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from convscope.analyses.activation_sums import same_weights
from convscope.analyses.predictions import classes_of
from convscope.errors import BadInput
from convscope.fast.memory import reusing_memory
from convscope.incremental.above_layer import AboveLayer, Cached
from convscope.names import OUTPUT
from convscope.progress import task
from convscope.results.base import Result
from convscope.results.class_maps import ClassMaps, maps_by_class
from convscope.results.knockout import SHOWN, Knockout
from convscope.results.provenance import technique
from convscope.results.words import listed
from convscope.scope import Images, Scope, Units
from convscope.scope.inputs import ImageReader
from convscope.seeding import derive_seed
from convscope.statistics import mean_intervals
from convscope.survey.survey import Survey

Knocked: TypeAlias = Units | ClassMaps | Mapping[str, Sequence[int]]
"""Units silenced together; or {name: units} or class maps, whose groups are silenced one after another."""

MOST = 2**30
"""Bytes of cached values; where a data set needs more, what is below the layer is run twice."""
NEAREST = 10
"""A unit's control is drawn among so many units that are nearest to it by rank of mean activation."""


@technique
def knockout(
    scope: Scope,
    layer: str,
    units: Knocked,
    images: Images,
    *,
    by: Literal["zero", "mean", "resample"] = "zero",
    survey: Survey | None = None,
    labels: Sequence[str] | None = None,
    outputs: Mapping[str, Sequence[int | str]] | None = None,
    control: Literal["matched", "any"] = "matched",
    controls: int = 20,
    draws: int = 8,
    confidence: float = 0.95,
    bootstrap: int = 2000,
    seed: int = 0,
) -> Knockout:
    """What the network answers with units of a layer silenced, beside as many random units of the layer.

    p'_c(x) = probability of class c for image x with the maps of the units replaced at all positions. With labels (folders, lists), also
    the accuracy and confusion of each class before and after. Everything up to the layer is run once for each image; only what is above
    it is run again for each group of units, draw and control.

    Args:
        scope: The network.
        layer: The layer; best after its rectifier, since "zero" is silence only there.
        units: Units silenced together; or class maps, or {name: units}, whose groups are silenced one after another, each measured on the
            class of its name first of all.
        images: One or several images of one size, a folder or list; with subfolders or labels, a labelled data set.
        by: What takes the place of a unit's map: "zero"; its "mean" over images and positions; or "resample", its map on another of the
            images drawn at random, the same draw for all units.
        survey: A survey by this network for "mean"; None: the mean over the images given.
        labels: A label for each image; None: those of the folder or list.
        outputs: {label: the network's classes that belong to it, numbers or names}; None: the class of that name, found as
            :func:`~convscope.predictions` does.
        control: Random units are "matched", drawn among the ten that are nearest by rank of mean activation, or "any" of the layer; never
            the silenced ones.
        controls: Number of sets of random units for each group; 0: none.
        draws: Draws of "resample", averaged.
        confidence: Confidence of the bootstrap intervals.
        bootstrap: Number of bootstrap draws over images.
        seed: Seed of all draws.

    Returns:
        Probabilities before and after; with labels accuracies, what each class loses and what of it random units do not explain.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        BadInput: The layer is the output, or has no influence on it; the output has no class scores; images of several sizes; "resample"
            or "mean" of a single image; labels that are none of the network's classes; a survey by another network.
        BadImage: No image can be read.

    Source:
        Morcos et al. 2018 (arXiv 1803.06959) for ablation of single units and its comparison with random ones; mean and resampling
        ablation: Chan et al. 2022 (causal scrubbing). Articles S2 and S3 ask whether a class's maps matter for its prediction.

    Example:
        >>> import convscope as cs, torch
        >>> scope = cs.open("textures")
        >>> cs.knockout(scope, "features.27", [3, 5], torch.rand(2, 3, 128, 128), controls=2).after.shape[:2]
        (1, 2)

    Command line:
        convscope knockout textures features.27 data/images/chains/0000.png --units 0-7
        convscope knockout textures features.27 data/images/chains --maps out/class-maps/survey-features.27 --class chains --controls 2
    """
    if controls < 0 or min(draws, bootstrap) < 1 or not 0 < confidence < 1:
        asked = f"controls={controls}, draws={draws}, bootstrap={bootstrap}, confidence={confidence}"
        raise BadInput(f"controls must be at least 0, draws and bootstrap at least 1, and confidence in (0, 1); got {asked}")
    check_network(scope, layer, "a knock-out")
    groups, notices = _groups(scope, layer, units)
    reader = scope.inputs.reader(images)
    with scope.session(scope.resolve("measure")), reusing_memory(scope.fast), torch.no_grad():
        below = _Below(scope, layer, reader)
        with task(f"{layer}: knock-out on {len(reader)} images", 2 * len(reader)) as advance:
            means = below.measure(advance)
            answers = _Answers.of(scope, reader, labels, outputs)
            replacing = _Replacement.of(scope, by, below, means, survey, seed)
            sets = [_random_sets(own, means, control, controls, seed) for own in groups.values()]
            found = _run(below, answers, replacing, list(groups.values()), sets, draws if by == "resample" else 1, advance)
    if controls and not all(sets):
        notices.append("No control where fewer units of the layer are left than are silenced.")
    if by == "zero" and below.lowest < 0:
        notices += no_silence(scope, layer)
    return Knockout(
        **found,
        **_accuracies(found, answers, confidence, bootstrap, seed),
        truth=answers.truth,
        images=below.shown,
        layer=layer,
        groups=tuple(groups),
        units=tuple(groups.values()),
        random_units=tuple(map(tuple, sets)),
        classes=answers.names,
        names=reader.names,
        labelled=answers.labelled,
        by=by,
        mean_of=f"survey {survey.path}" if survey is not None else f"the {len(answers.truth)} images given",
        choice=control,
        confidence=confidence,
        method=below.above.method,
        skipped=reader.skipped,
        cut=reader.cut,
        notices=(*notices, *answers.notices),
        manifest={"precision": scope.resolve("measure"), "images": list(reader.names)},
    )


def check_network(scope: Scope, layer: str, what: str) -> None:
    """Refuses a network without class scores, and the output as the layer.

    Raises:
        LayerNotFound: Unknown layer.
        BadInput: See above.
    """
    known, output = scope.layers[layer], scope.layers[OUTPUT]
    if known.name == OUTPUT:
        raise BadInput(f"{what} is of a layer below the output; the output's own units are the classes")
    if output.spatial or output.channels < 2:
        shape = "x".join(map(str, output.shape))
        raise BadInput(f"{what} needs the scores of two or more classes, but this network's output is {shape} for an image")


def no_silence(scope: Scope, layer: str) -> tuple[str, ...]:
    """What to say where a unit that is set to zero is not silent."""
    near = ", ".join(scope.layers.after_relu()[-3:])
    return (f"Layer {layer} has values below zero, so zero is not its silence: take a layer after its rectifier ({near}).",)


def _groups(scope: Scope, layer: str, asked: Knocked) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """{name: units}, and what to say of it."""
    if not isinstance(asked, (Result, Mapping)):
        chosen = tuple(dict.fromkeys(scope.units(layer, asked)))
        name = f"unit {chosen[0]}" if len(chosen) == 1 else f"units {listed(chosen, 4)}" if len(chosen) < 5 else f"{len(chosen)} units"
        return {name: chosen}, []
    maps = maps_by_class(asked, layer)
    empty = [name for name, units in maps.items() if not units]
    groups = {name: tuple(dict.fromkeys(scope.units(layer, units))) for name, units in maps.items() if units}
    if not groups:
        raise BadInput("units: no class has a map of its own; try a smaller per_class")
    return groups, [f"Without units, left out: {listed(empty, 8)}."] if empty else []


class _Below:
    """Everything up to a layer, run once for each image: iterating gives (rows, cached values of a batch)."""

    def __init__(self, scope: Scope, layer: str, reader: ImageReader) -> None:
        self._scope, self._layer, self._reader = scope, layer, reader
        self._above: AboveLayer | None = None
        self._stored: list[tuple[slice, Cached]] | None = None
        self.lowest, self.count = 0.0, 0
        self.shown = np.zeros((0, 3, 1, 1), np.float32)

    @property
    def precise(self) -> type[np.floating[Any]]:
        """The type of probabilities: that of the network, at least float32."""
        return np.float64 if self._scope.dtype == torch.float64 else np.float32

    @property
    def above(self) -> AboveLayer:
        """What is run again."""
        if self._above is None:
            raise RuntimeError("no image has been run")
        return self._above

    def measure(self, advance: Callable[[int], None]) -> np.ndarray:
        """Runs all images once, keeps what fits into memory, and returns each unit's mean over images and positions, (c) float64."""
        stored: list[tuple[slice, Cached]] = []
        total, fits = np.zeros(()), True
        for rows, cached in self:
            values = self.above.layer.units_first(cached.value).double()
            total = total + (values.flatten(2).mean(2) if values.ndim > 2 else values).sum(0).cpu().numpy()
            self.lowest = min(self.lowest, float(values.min()))
            self.count += rows.stop - rows.start
            fits = fits and sum(each.bytes for _, each in stored) + cached.bytes <= MOST
            stored = [*stored, (rows, cached)] if fits else []
            advance(rows.stop - rows.start)
        self._stored = stored if fits else None
        return total / self.count

    def __iter__(self) -> Iterator[tuple[slice, Cached]]:
        if self._stored is not None:
            yield from self._stored
            return
        start, shown, size = 0, list[Tensor](), None
        at_once = self._scope.fitting(self._scope.inputs.height * self._scope.inputs.width)
        for batch in self._reader.batches(at_once):
            shown += list(batch[: max(SHOWN - len(shown), 0)])
            if size not in (None, batch.shape[2:]):
                raise BadInput(f"images of one size are needed, got {tuple(size or ())} and {tuple(batch.shape[2:])}")
            size = batch.shape[2:]
            if self._above is None:
                self._above = AboveLayer(self._scope, self._layer, (batch.shape[2], batch.shape[3]))
            for cached in self._scope.in_batches(batch, self._above.begin):
                yield slice(start, start + len(cached.value)), cached
                start += len(cached.value)
        self.shown = np.stack([image.numpy() for image in shown])

    def values(self) -> Tensor:
        """The layer's value for all images, (n ...).

        Raises:
            BadInput: There is only one image, or they are too many to be kept.
        """
        if self._stored is None:
            raise BadInput(f"resampling needs the layer's maps of all images in memory, which exceed {MOST >> 30} GiB; take fewer images")
        values = torch.cat([cached.value for _, cached in self._stored])
        if len(values) < 2:
            raise BadInput("resampling draws maps from other images, so it needs at least 2; got 1")
        return values


@dataclass(frozen=True, eq=False)
class _Answers:
    """How outputs become classes.

    Attributes:
        names: Names of the classes.
        owner: The class of each output, -1 for none, (c).
        truth: The label of each image as a class, -1 for none, (n).
        labelled: Whether classes are labels.
        notices: What to say.
    """

    names: tuple[str, ...]
    owner: np.ndarray
    truth: np.ndarray
    labelled: bool
    notices: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, scope: Scope, reader: ImageReader, labels: Sequence[str] | None, outputs: Mapping[str, Sequence[int | str]] | None
    ) -> _Answers:
        if labels is not None and len(labels) != len(reader):
            raise BadInput(f"labels: expected one for each of {len(reader)} images, got {len(labels)}")
        given = reader.labels if labels is None else reader.of_read(labels)
        names = tuple(sorted({str(label) for label in given if label is not None}))
        count = scope.layers[OUTPUT].channels
        found = _outputs_of(scope, names, outputs)
        unknown = [name for name, own in found.items() if own is None]
        if unknown and (outputs is not None or labels is not None):
            raise BadInput(f"label {unknown[0]!r} is no class of the network; say which of its classes it means: outputs {unknown[0]}=3,5")
        what = "Say which they mean: outputs LABEL=0 (a class's number or name)."
        if len(unknown) == len(names):
            shown = f"Labels ({listed(names, 3)}) are no classes of the network: shown is each image alone. {what}"
            return cls(scope.class_names, np.arange(count), np.full(len(given), -1), False, (shown,) if names else ())
        left = (f"Labels that are no class of the network, whose images do not count: {listed(unknown, 6)}. {what}",) if unknown else ()
        names = tuple(name for name in names if name not in unknown)
        owner = np.full(count, -1)
        for place, name in enumerate(names):
            for output in found[name] or ():
                if owner[output] >= 0:
                    raise BadInput(f"class {output} of the network belongs to two labels, {names[owner[output]]} and {name}")
                owner[output] = place
        truth = np.array([names.index(str(label)) if str(label) in names and label is not None else -1 for label in given])
        return cls(names, owner, truth, True, left)

    def probabilities(self, outputs: Tensor) -> np.ndarray:
        """(n c) outputs -> (n class) probabilities."""
        found = outputs.double().softmax(1).cpu().numpy()
        if not self.labelled:
            return found
        return found @ (self.owner[:, None] == np.arange(len(self.names)))

    def predictions(self, outputs: Tensor) -> np.ndarray:
        """(n c) outputs -> (n) classes, -1 for none."""
        return self.owner[outputs.argmax(1).cpu().numpy()]


def _outputs_of(scope: Scope, labels: Sequence[str], outputs: Mapping[str, Sequence[int | str]] | None) -> dict[str, list[int] | None]:
    """The network's classes that each label means, as `predictions` finds them where they are not given; None if there is none."""
    if outputs is not None:
        return {label: scope.units(OUTPUT, list(outputs[label])) if label in outputs else None for label in labels}
    meant = classes_of(labels, scope.class_names if scope.inputs.classes else (), scope.layers[OUTPUT].channels, {})
    return {label: [meant[label]] if label in meant else None for label in labels}


@dataclass(frozen=True, eq=False)
class _Replacement:
    """What takes the place of units' maps.

    Attributes:
        levels: A value for each unit, (c).
        maps: The layer's values for all images, (n c ...), for resampling; None: `levels`.
        seed: Of the draws.
    """

    levels: Tensor
    maps: Tensor | None
    seed: int

    @classmethod
    def of(cls, scope: Scope, by: str, below: _Below, means: np.ndarray, survey: Survey | None, seed: int) -> _Replacement:
        if survey is not None and by != "mean":
            raise BadInput(f"survey: its means are for by='mean', got by={by!r}")
        if by == "mean" and survey is not None:
            means = _survey_means(scope, below.above.layer.name, survey)
        elif by == "mean" and below.count == 1:
            raise BadInput("the mean over a single image leaves most of it as it is; give more images, a survey, or by='zero'")
        levels = torch.from_numpy(means if by == "mean" else np.zeros_like(means))
        return cls(levels, below.above.layer.units_first(below.values()) if by == "resample" else None, seed)

    def values(self, own: Tensor, rows: slice, units: Sequence[int], draw: int) -> Tensor:
        """In place of maps `own` (m unit ...) of images `rows`; of other images, the same for all units, if resampled."""
        if self.maps is None:
            return self.levels[list(units)].to(own).view(1, -1, *[1] * (own.ndim - 2)).expand_as(own)
        count = len(self.maps)
        generator = np.random.default_rng(derive_seed(self.seed, "knockout", "resample", draw))
        partners = (np.arange(count) + 1 + generator.integers(count - 1, size=count)) % count
        return self.maps[torch.from_numpy(partners[rows]).to(own.device)][:, list(units)]


def _survey_means(scope: Scope, layer: str, survey: Survey) -> np.ndarray:
    """Each unit's mean over a survey's images and positions, (c)."""
    same_weights(survey, scope.weights_hash, f"network {scope.name}")
    table = survey.channels(layer)
    means = np.zeros(scope.layers[layer].channels)
    means[table["channel"].to_numpy()] = table["mean"].to_numpy()
    return means


def _random_sets(own: tuple[int, ...], means: np.ndarray, choice: str, count: int, seed: int) -> list[tuple[int, ...]]:
    """Sets of as many other units of the layer; none where too few are left.

    "matched": for each silenced unit in turn, one of the units left that are nearest by rank of mean activation.
    """
    others = np.setdiff1d(np.arange(len(means)), own)
    if len(others) < len(own):
        return []
    rank = np.argsort(np.argsort(means, kind="stable"), kind="stable")
    sets: list[tuple[int, ...]] = []
    for number in range(count):
        generator = np.random.default_rng(derive_seed(seed, "knockout", "control", ",".join(map(str, own)), number))
        if choice == "any":
            sets.append(tuple(generator.choice(others, len(own), replace=False).tolist()))
            continue
        left, picked = others, list[int]()
        for unit in own:
            near = left[np.argsort(np.abs(rank[left] - rank[unit]), kind="stable")[:NEAREST]]
            picked.append(int(generator.choice(near)))
            left = left[left != picked[-1]]
        sets.append(tuple(picked))
    return sets


def _run(
    below: _Below,
    answers: _Answers,
    replacing: _Replacement,
    groups: Sequence[tuple[int, ...]],
    sets: Sequence[Sequence[tuple[int, ...]]],
    draws: int,
    advance: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """Fields of the result for all images: the part above the layer with each group and each set of random units silenced."""
    count, classes, most = len(answers.truth), len(answers.names), max(map(len, sets), default=0)
    found = {
        "before": np.zeros((count, classes), below.precise),
        "after": np.zeros((len(groups), count, classes), below.precise),
        "predicted": np.zeros(count, np.int64),
        "predicted_after": np.zeros((len(groups), draws, count), np.int64),
        "predicted_control": np.full((len(groups), most, count), -1),
        "control": np.full((len(groups), most, count), np.nan, below.precise),
        "target": answers.truth.copy(),
    }
    layer = below.above.layer
    for rows, cached in below:

        def silenced(units: Sequence[int], draw: int, rows: slice = rows, cached: Cached = cached) -> Tensor:
            value = cached.value.clone()
            maps = layer.units_first(value)
            maps[:, list(units)] = replacing.values(maps[:, list(units)], rows, units, draw)
            return below.above.finish(cached, value)

        found["before"][rows] = answers.probabilities(cached.output)
        found["predicted"][rows] = answers.predictions(cached.output)
        if not answers.labelled:
            found["target"][rows] = found["predicted"][rows]
        target: np.ndarray = found["target"][rows]
        for group, units in enumerate(groups):
            for draw in range(draws):
                outputs = silenced(units, draw)
                found["after"][group, rows] += answers.probabilities(outputs) / draws
                found["predicted_after"][group, draw, rows] = answers.predictions(outputs)
            for number, others in enumerate(sets[group]):
                outputs = silenced(others, number % draws)
                followed = answers.probabilities(outputs)[np.arange(len(target)), target]
                found["control"][group, number, rows] = np.where(target < 0, np.nan, followed)
                found["predicted_control"][group, number, rows] = answers.predictions(outputs)
        advance(len(target))
    return found


def _accuracies(found: Mapping[str, np.ndarray], answers: _Answers, confidence: float, bootstrap: int, seed: int) -> dict[str, np.ndarray]:
    """Accuracies of each class, what is lost of them, and paired bootstrap intervals over images; NaN without labels."""
    truth, groups, classes = answers.truth, len(found["after"]), len(answers.names)
    shapes = {"accuracy": (classes,), "accuracy_after": (groups, classes), "accuracy_control": (groups, classes)}
    shapes |= dict.fromkeys(("drop", "control_drop", "excess"), (groups, classes, 3))
    fields = {name: np.full(shape, np.nan) for name, shape in shapes.items()}
    if not answers.labelled:
        return fields
    before = (found["predicted"] == truth).astype(np.float64)
    after = (found["predicted_after"] == truth).mean(1)
    control = np.full(after.shape, np.nan)
    for group, drawn in enumerate(found["control"]):
        if len(drawn) and not np.isnan(drawn[:, truth >= 0]).all():
            control[group] = (found["predicted_control"][group] == truth).mean(0)
    for place, name in enumerate(answers.names):
        own = truth == place
        fields["accuracy"][place] = before[own].mean()
        fields["accuracy_after"][:, place] = after[:, own].mean(1)
        fields["accuracy_control"][:, place] = control[:, own].mean(1)
        lost = np.concatenate([before - after, before - control, control - after])[:, own]
        stream = derive_seed(seed, "knockout", "bootstrap", name)
        ends = np.concatenate([lost.mean(1)[:, None], mean_intervals(lost, confidence, bootstrap, stream)], 1)
        fields["drop"][:, place], fields["control_drop"][:, place], fields["excess"][:, place] = np.split(ends, 3)
    return fields
