"""Facts that a site's pages are made of: the one place that reads the survey, its analyses, and which images are there."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from convscope.analyses.activation_sums import activation_sums
from convscope.analyses.class_maps import class_maps
from convscope.analyses.class_profile import class_profile
from convscope.analyses.detector import detector
from convscope.analyses.exemplars import exemplars
from convscope.analyses.filter_health import filter_health
from convscope.analyses.predictions import predictions
from convscope.errors import BadInput
from convscope.names import OUTPUT
from convscope.results.activation_sums import ActivationSums
from convscope.results.class_maps import ClassMaps
from convscope.results.class_profile import ClassProfile
from convscope.results.detector import Detector
from convscope.results.exemplars import Exemplars
from convscope.results.filter_health import FilterHealth
from convscope.results.predictions import Predictions
from convscope.seeding import derive_seed
from convscope.site import addresses
from convscope.site.tables import Attributions, Connections, Maps, Studies, read_arrangement
from convscope.statistics import SIGNIFICANCE, group_areas, holm
from convscope.survey.survey import Survey, SurveyLayer

SHEET = 64
"""Thumbnails on a sheet."""
TOP, ROW = 9, 5
"""Images shown of a unit: the strongest, and of each further row."""
OF_LAYER = 8
"""Units shown of each layer on the first page."""
SIMILAR, NEAR = 8, 3
"""Similar units of the same layer, and of each neighbouring one."""
CARRIERS, GUESSES, MISTAKES, INSTEAD, COMPANIONS = 3, 5, 12, 4, 5
SPIKES = 5
"""Units shown of a layer on an image."""
MOST_COLUMNS = 16
"""Classes of a confusion matrix; of more, the commonest mistakes are listed."""
FINDINGS = ("dead", "structural", "constant", "saturated", "duplicate")
_MOST_PAIRS = 4_000_000
"""A class profile of more pairs of unit and label is left out: it would take minutes and could find nothing after correction."""
_MOST_DETECTED = 30_000
"""A detector of more pairs of label and image is left out: it would take more than ten seconds."""
_WIDE = 0.6
"""Receptive fields that cover more of the image's sides are shown as the whole image with a ring at the strongest position."""


@dataclass(frozen=True)
class Crop:
    """A part of an image, cut by the page.

    Attributes:
        image: The image's number.
        row: Its row in the survey's arrays.
        value: The unit's maximum on it.
        box: x, y, width and height of what is shown, in pixels of the image as fed; may reach over its border.
        ring: Middle of the strongest position, where the whole image is shown.
        unread: Columns at the right and rows at the bottom of the image that would be shown, but that no unit of the layer sees.
    """

    image: int
    row: int
    value: float
    box: tuple[int, int, int, int]
    ring: tuple[int, int] | None
    unread: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class UnitRef:
    """A unit that a page points to, with what is to be said of it.

    Attributes:
        layer: Its layer.
        unit: Its number.
        value: A number beside it: a correlation, a weight, an activation.
    """

    layer: str
    unit: int
    value: float


@dataclass(frozen=True)
class Instead:
    """What a layer does on the images of a class that are not recognized, compared with those that are.

    Attributes:
        more, less: Units that fire more and less on them; the value is how often more on one of them than on one that is recognized (AUC).
        found: Those of them whose p-value, corrected over the units of the layer, is a finding.
    """

    more: list[UnitRef]
    less: list[UnitRef]
    found: frozenset[int]


@dataclass(frozen=True)
class Options:
    """What a site shows.

    Attributes:
        units: {layer: its units with a page}, in call order, "output" last.
        photographs: Whether the images themselves are published.
        copies: Images by feature visualization for each unit.
        suffix: Of these images: ".avif" or ".webp".
        recipe: How they are made, for the reader.
        command: The `convscope` and `cs.` names of the network, for lines to copy.
        projections: Whether units have projections; text: why not.
        live: Whether there is a page that measures the reader's own photographs.
    """

    units: Mapping[str, tuple[int, ...]]
    photographs: bool = True
    copies: int = 1
    suffix: str = ".avif"
    recipe: Mapping[str, Any] = field(default_factory=dict[str, Any])
    projections: bool | str = False
    live: bool = False


@dataclass(frozen=True)
class Foremost:
    """The first few units of a layer for each of many images or classes, the highest first.

    Attributes:
        layer: The layer.
        units, values: Their numbers and what they are ordered by, (row few).
    """

    layer: str
    units: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, layer: str, values: np.ndarray, few: int) -> Foremost:
        """Those of values (row unit); of equals the smaller number."""
        units = np.argsort(-values, axis=1, kind="stable")[:, :few]
        return cls(layer, units, np.take_along_axis(values, units, 1))

    def refs(self, row: int, above: float = -np.inf) -> list[UnitRef]:
        """Those of a row whose values are above a limit."""
        pairs = zip(self.units[row].tolist(), self.values[row].tolist(), strict=True)
        return [UnitRef(self.layer, unit, value) for unit, value in pairs if value > above]


class LayerContent:
    """What is known of a layer, for all its units at once.

    Attributes:
        layer: Name, size and receptive fields.
        peaks, means: Maximum and mean over positions, (n unit).
        places: Positions of the maxima, (n unit 2).
        top: The strongest images of each unit.
        profile: The class profile; None where images have no labels, or no two of them the same.
    """

    def __init__(self, survey: Survey, name: str) -> None:
        self.survey = survey
        self.layer: SurveyLayer = survey.layer(name)
        self.peaks, self.means, self.places = survey.maximum(name), survey.mean(name), survey.positions(name)
        self.top: Exemplars = exemplars(survey, name, None, top=min(TOP, len(survey)), crops=False)
        pairs = self.layer.channels * len(survey.labels)
        several = len(survey.labels) > 1 and int(np.bincount(survey.truth[survey.truth >= 0]).max()) > 1
        self.profile: ClassProfile | None = class_profile(survey, name) if several and pairs <= _MOST_PAIRS else None
        self._table = survey.channels(name)
        self._extent = [int((span[:, 1] - span[:, 0]).max()) for span in (self.layer.field_rows, self.layer.field_columns)]

    def column(self, name: str) -> np.ndarray:
        """A column of the survey's table of channels."""
        return self._table[name].to_numpy()

    @property
    def field(self) -> tuple[int, int]:
        """Height and width of the largest receptive field inside the image."""
        return self._extent[0], self._extent[1]

    @property
    def wide(self) -> bool:
        """Whether receptive fields cover most of the image."""
        size = self.survey.preprocessing
        return self._extent[0] > _WIDE * size.height and self._extent[1] > _WIDE * size.width

    @cached_property
    def order(self) -> np.ndarray:
        """Rows of each unit's images, the strongest first; of equals the smaller number, (n unit)."""
        return np.argsort(-self.peaks, axis=0, kind="stable")

    @cached_property
    def direction(self) -> np.ndarray:
        """Each unit's log mean activations over the images, centred and of length 1; zero for a unit that never varies, (n unit)."""
        return directions(self.means)

    @cached_property
    def deviations(self) -> np.ndarray:
        """Each unit's mean on each image in standard deviations above its average, 0 where it never varies, (n unit)."""
        sd = self.column("sd")
        return np.divide(self.means - self.column("mean"), sd, out=np.zeros(self.means.shape), where=sd > 0)

    def excited(self, units: Sequence[int], unit: int, rows: Sequence[int]) -> tuple[float, float]:
        """How often images excite one of some units more than another of the layer, by the average of their deviations, and its p-value.

        Args:
            units: These units.
            unit: A unit that does not count.
            rows: Rows of the images.
        """
        values = self.deviations[list(rows)].mean(0)
        others = np.delete(np.arange(len(values)), unit)
        auc, p = group_areas(values[others, None].astype(np.float64), np.isin(others, units).astype(np.int64), 2)
        return float(auc[1, 0]), float(p[1, 0])

    def crop(self, unit: int, row: int) -> Crop:
        """The receptive field of a unit's strongest position on an image."""
        y, x = (int(place) for place in self.places[row, unit])
        size, known = self.survey.preprocessing, self.layer
        image, value = int(self.survey.ids[row]), float(self.peaks[row, unit])
        if self.wide:
            ring = round((x + 0.5) / known.width * size.width), round((y + 0.5) / known.height * size.height)
            return Crop(image, row, value, (0, 0, size.width, size.height), ring if known.height > 1 else None)
        (y0, y1), (x0, x1) = (int(end) for end in known.field_rows[y]), (int(end) for end in known.field_columns[x])
        height, width = self._extent
        # as in the exemplars' crops: a receptive field that the upper or left border cuts lacks its beginning
        left, top = x1 - width if x0 == 0 else x0, y1 - height if y0 == 0 else y0
        unread = size.width - x1 if left + width > x1 else 0, size.height - y1 if top + height > y1 else 0
        return Crop(image, row, value, (left, top, width, height), None, unread)

    def strongest(self, unit: int) -> list[Crop]:
        """The images with the largest activation."""
        return [self.crop(unit, self.survey.row(int(image))) for image in self.top.images[unit] if image >= 0]

    def middle(self, unit: int) -> list[Crop]:
        """Images around the median of the maxima; none where these are the strongest as well."""
        count = len(self.survey)
        if count < 3:
            return []
        first = max(min((count - ROW) // 2, count - ROW), 0)
        return [self.crop(unit, int(row)) for row in self.order[first : first + ROW, unit]]

    def lowest(self, unit: int) -> list[Crop]:
        """Images evenly spread over the lowest tenth of the maxima; none where these are the strongest as well."""
        count = len(self.survey)
        if count < 3:
            return []
        ranks = np.unique(np.linspace(int(np.floor(0.9 * count)), count - 1, ROW).round().astype(int))
        return [self.crop(unit, int(row)) for row in self.order[ranks, unit]]

    def classes(self, unit: int) -> list[tuple[int, float, float, float]]:
        """The labels that a unit separates best: (label, AUC, effect, corrected p), best first."""
        if self.profile is None:
            return []
        auc, effect = self.profile.auc[unit], self.profile.effect[unit]
        best = np.lexsort((np.arange(len(auc)), -effect, -auc))[:GUESSES]
        return [(int(label), float(auc[label]), float(effect[label]), float(self.profile.p_corrected[unit, label])) for label in best]


def directions(means: np.ndarray) -> np.ndarray:
    """Columns of signed log(1 + |mean|), centred and of length 1; zero where a column never varies, (n unit) float32."""
    values = np.sign(means) * np.log1p(np.abs(means.astype(np.float64)))
    values -= values.mean(0)
    length = np.sqrt((values**2).sum(0))
    varies = length > 1e-9
    return np.where(varies, values / np.where(varies, length, 1), 0).astype(np.float32)


class Content:
    """All that the pages ask for.

    Attributes:
        survey: The survey.
        site: The folder of the site.
        options: What is shown.
    """

    def __init__(self, survey: Survey, site: Path, options: Options) -> None:
        self.survey, self.site, self.options = survey, site, options
        self.layer = lru_cache(maxsize=6)(self._layer)
        # pages of classes and images ask every layer, and few layers are held in memory: what they need of all is kept instead
        self._carried, self._on_images = lru_cache(maxsize=None)(self._carriers), lru_cache(maxsize=None)(self._foremost)
        self.class_maps = lru_cache(maxsize=None)(self._class_maps)
        self.layers = [name for name in survey.layers if name != OUTPUT]
        self.connections = Connections.read(site)
        self.maps = Maps.read(site)
        self.studies = Studies.read(site)
        self.attributions = Attributions.read(site)

    def _layer(self, name: str) -> LayerContent:
        return LayerContent(self.survey, name)

    @property
    def network(self) -> Mapping[str, Any]:
        """The network's entry in the manifest."""
        return self.survey.manifest["network"]

    # ------------------------------------------------------------------------------------------------ classes and predictions

    @cached_property
    def outputs(self) -> np.ndarray:
        """The network's output on each image, (n class)."""
        return self.survey.maximum(OUTPUT)

    @cached_property
    def predictions(self) -> Predictions | None:
        """What the network says of each image; None with a single output."""
        return predictions(self.survey, worst=MISTAKES, top=GUESSES) if self.outputs.shape[1] > 1 else None

    @cached_property
    def ranked(self) -> np.ndarray:
        """Classes of each image from the most probable on, the first few, (n k)."""
        return np.zeros((len(self.survey), 1), np.int64) if self.predictions is None else self.predictions.predicted

    @cached_property
    def meant(self) -> np.ndarray:
        """The class that each label means, -1 for none, (label)."""
        meant = {} if self.predictions is None else self.predictions.meant or {}
        return np.array([meant.get(label, -1) for label in self.survey.labels], np.int64)

    @property
    def ordered(self) -> bool:
        """Whether labels were taken for classes by their order, because no names are known."""
        return not self.survey.manifest["inputs"]["classes"] and bool((self.meant >= 0).any())

    @cached_property
    def truth(self) -> np.ndarray:
        """The class that each image's label means, -1 for none, (n)."""
        return np.full(len(self.survey), -1) if self.predictions is None else self.predictions.truth

    @cached_property
    def known(self) -> np.ndarray:
        """Rows of the images whose class is known."""
        return np.flatnonzero(self.truth >= 0)

    @cached_property
    def right(self) -> np.ndarray:
        """Whether the most probable class of each image is its own, (n)."""
        return self.ranked[:, 0] == self.truth

    def accuracy(self, top: int = 1) -> float:
        """Share of the images with a known class that have it among the first `top`; NaN without any."""
        return float("nan") if self.predictions is None else self.predictions.accuracy(top)

    def mistakes(self) -> list[int]:
        """Rows of the images with the most probable wrong classes, the worst first."""
        return [] if self.predictions is None else self.predictions.mistakes.tolist()

    @cached_property
    def deepest(self) -> str:
        """The last layer whose units are not the classes themselves; "" without layers."""
        last = [name for name in self.layers if self.survey.layer(name).channels != self.outputs.shape[1]]
        return (last or self.layers or [""])[-1]

    def foremost_images(self) -> list[int]:
        """Rows of all images, in the order in which occlusion maps are computed: the worst mistakes, then the others at random."""
        wrong: list[int] = []
        if self.predictions is not None:
            rows = self.known[~self.right[self.known]]
            wrong = rows[np.argsort(-self.predictions.probability[rows, 0], kind="stable")].tolist()
        generator = np.random.default_rng(derive_seed(0, "atlas", "images"))
        return list(dict.fromkeys([*wrong, *generator.permutation(len(self.survey)).tolist()]))

    @property
    def wrong(self) -> int:
        """How many images of known class are not recognized."""
        return int((~self.right[self.known]).sum()) if len(self.known) else 0

    def confusions(self, most: int | None) -> list[tuple[int, int, list[int]]]:
        """The commonest pairs of (class, taken for, rows of the images), commonest first."""
        rows = self.known[~self.right[self.known]]
        pairs: dict[tuple[int, int], list[int]] = {}
        for row in rows.tolist():
            pairs.setdefault((int(self.truth[row]), int(self.ranked[row, 0])), []).append(row)
        found = sorted(pairs.items(), key=lambda item: (-len(item[1]), item[0]))
        return [(truth, taken, images) for (truth, taken), images in found[:most]]

    def taken_for(self, truth: int, taken: int) -> list[int]:
        """Rows of the images of a class that the network takes for a class, the surest first."""
        rows = self.known[(self.truth[self.known] == truth) & (self.ranked[self.known, 0] == taken)]
        sure = self.outputs[rows, taken] if self.predictions is None else self.predictions.probability[rows, 0]
        return rows[np.argsort(-sure, kind="stable")].tolist()

    def confusion(self) -> tuple[np.ndarray, tuple[int, ...], tuple[int, ...]] | None:
        """Counts (label class), the class of each row and of each column; None if they are too many for a table."""
        if self.predictions is None or not len(self.known):
            return None
        counts, labels, columns = self.predictions.confusion()
        if not (2 <= len(columns) <= MOST_COLUMNS and len(labels) <= MOST_COLUMNS):
            return None
        return counts, tuple((self.predictions.meant or {})[label] for label in labels), columns

    def class_name(self, unit: int) -> str:
        """The name of a class; "class 12" where none is known."""
        name = self.survey.unit_names(OUTPUT, [unit])[0]
        if name:
            return name
        labels = np.flatnonzero(self.meant == unit)
        return self.survey.labels[int(labels[0])] if len(labels) == 1 else f"class {unit}"

    def label_name(self, label: int) -> str:
        """The name of a label, that of its class where it has one."""
        unit = int(self.meant[label])
        return self.class_name(unit) if unit >= 0 else self.survey.labels[label]

    def label_page(self, label: int) -> str:
        """The page of a label: its class's, or one of its own."""
        unit = int(self.meant[label])
        return self.unit_page(OUTPUT, unit) if unit >= 0 else addresses.label_page(label)

    def image_name(self, row: int) -> str:
        """The name of an image, without the folders of a path that only holds on the machine it was made on."""
        name = self.survey.names[row]
        return re.split(r"[/\\]", name)[-1] if re.match(r"([/\\]|[A-Za-z]:|[a-z0-9]+://)", name) else name

    def label_of(self, row: int) -> str:
        """The label of an image as the reader knows it; "" for none."""
        label = int(self.survey.truth[row])
        return self.label_name(label) if label >= 0 else ""

    @cached_property
    def other_labels(self) -> list[int]:
        """Labels that are no class of the network."""
        return np.flatnonzero(self.meant < 0).tolist()

    def label_of_class(self, unit: int) -> int:
        """The label that means a class; -1 for none."""
        found = np.flatnonzero(self.meant == unit)
        return int(found[0]) if len(found) else -1

    # ------------------------------------------------------------------------------------------------------------------ units

    @cached_property
    def health(self) -> FilterHealth | None:
        """Findings about the units of all layers; None without a layer."""
        return filter_health(self.survey) if self.layers else None

    @cached_property
    def _findings(self) -> dict[str, dict[int, list[str]]]:
        found: dict[str, dict[int, list[str]]] = {}
        for name in self.layers if self.health is not None else ():
            of_layer = found.setdefault(name, {})
            for finding, units in self.health.of(name).items():  # pyright: ignore[reportOptionalMemberAccess]
                for unit in units:
                    of_layer.setdefault(unit, []).append(finding)
        return found

    def findings(self, layer: str, unit: int) -> list[str]:
        """What is wrong with a unit: names of :data:`FINDINGS`."""
        return self._findings.get(layer, {}).get(unit, [])

    def twin(self, layer: str, unit: int) -> tuple[int, float]:
        """The unit that a unit duplicates, -1 for none, and their correlation."""
        health = self.health
        if health is None or layer == OUTPUT:
            return -1, float("nan")
        row = int(np.flatnonzero(health.layer_index == health.layers.index(layer))[unit])
        return int(health.twin[row]), float(health.likeness[row])

    def interest(self, layer: str) -> list[int]:
        """The units with a page, the healthy before the others, then those that some image excites most compared with the layer."""
        units = list(self.options.units.get(layer, ()))
        maximum = self.survey.channels(layer)["maximum"].to_numpy()
        return sorted(units, key=lambda unit: (len(self.findings(layer, unit)) > 0, -float(maximum[unit]), unit))

    def touched(self) -> set[int]:
        """Classes that some image has or is taken for."""
        return {*self.truth[self.known].tolist(), *self.ranked[:, 0].tolist()}

    def has_page(self, layer: str, unit: int) -> bool:
        """Whether a unit has a page."""
        return unit in self._paged.get(layer, frozenset())

    @cached_property
    def _paged(self) -> dict[str, frozenset[int]]:
        return {layer: frozenset(units) for layer, units in self.options.units.items()}

    def place_of(self, layer: str, unit: int) -> int:
        """The place of a unit among those of its layer with a page."""
        return self._places[layer][unit]

    @cached_property
    def _places(self) -> dict[str, dict[int, int]]:
        return {layer: {unit: place for place, unit in enumerate(units)} for layer, units in self.options.units.items()}

    @cached_property
    def first_sheets(self) -> dict[str, int]:
        """The number of each layer's first sheet of thumbnails, among those of all layers."""
        counts = [-(-len(units) // SHEET) for units in self.options.units.values()]
        return dict(zip(self.options.units, [0, *np.cumsum(counts).tolist()], strict=False))

    def unit_page(self, layer: str, unit: int) -> str:
        """The address of a unit's page; "" if it has none."""
        return addresses.unit_page(layer, unit) if self.has_page(layer, unit) else ""

    def unit_title(self, layer: str, unit: int) -> str:
        """What a unit is called in a list: its number, on "output" its class."""
        return self.class_name(unit) if layer == OUTPUT else str(unit)

    def unit_images(self, layer: str, unit: int) -> list[str]:
        """Addresses of the unit's images by feature visualization that have been made, the first copy first."""
        found = (addresses.unit_image(layer, unit, copy, self.options.suffix) for copy in range(self.options.copies))
        return [address for address in found if (self.site / address).exists()]

    def projections(self, layer: str, unit: int) -> str:
        """The address of the unit's projections; "" if there are none."""
        address = addresses.unit_projections(layer, unit, self.options.suffix)
        return address if (self.site / address).exists() else ""

    def similar(self, layer: str, unit: int, other: str, most: int) -> list[UnitRef]:
        """The units of a layer that fire for the same images most, best first; none where all correlations are 1 or -1."""
        own = self.layer(layer).direction[:, unit]
        if not own.any() or len(self.survey) < 3:
            return []
        likeness = own @ self.layer(other).direction
        if other == layer:
            likeness[unit] = -np.inf
        best = np.argsort(-likeness, kind="stable")[:most].tolist()
        return [UnitRef(other, one, float(likeness[one])) for one in best if likeness[one] > 0]

    def neighbours(self, layer: str) -> tuple[str, str]:
        """The layer before and after, "" at the ends; "output" counts."""
        names = [*self.layers, OUTPUT]
        place = names.index(layer)
        return names[place - 1] if place else "", names[place + 1] if place + 1 < len(names) else ""

    @cached_property
    def arrangement(self) -> dict[str, np.ndarray]:
        """{layer: (unit 3)}: place in the order of similarity, and x and y on the map, NaN for silent units."""
        return read_arrangement(self.site)

    def verdicts(self, crops: Sequence[Crop]) -> list[tuple[int, int]]:
        """What the network takes images for: (class, how many), commonest first."""
        return Counter(int(self.ranked[crop.row, 0]) for crop in crops).most_common(3)

    def carriers(self, layer: str, label: int, unit: int) -> tuple[list[UnitRef], str]:
        """The units of a layer that carry a class, and by which measure: "AUC" for its label, else "r" with its output."""
        by_label, by_output = self._carried(layer)
        if by_label is not None and label >= 0 and self._count[label] > 1:
            return by_label.refs(label, 0.5), "AUC"
        # what the best of so many units reaches by chance is no finding: the largest of k normal draws is about sqrt(2 log k)
        chance = float(np.sqrt(2 * np.log(max(self.survey.layer(layer).channels, 2)) / len(self.survey)))
        return (by_output.refs(unit, chance), "r") if unit >= 0 else ([], "")

    @cached_property
    def _count(self) -> np.ndarray:
        """Number of images with each label, (label)."""
        return np.bincount(self.survey.truth[self.survey.truth >= 0], minlength=len(self.survey.labels))

    def _carriers(self, layer: str) -> tuple[Foremost | None, Foremost]:
        """The units that carry each label and each class."""
        content = self.layer(layer)
        by_label: Foremost | None = None
        if content.profile is not None:
            best = np.lexsort((-content.profile.effect, -content.profile.auc), axis=0)[:CARRIERS].T
            by_label = Foremost(layer, best, np.take_along_axis(content.profile.auc.T, best, 1))
        values = self.outputs - self.outputs.mean(0, dtype=np.float64)
        length = np.sqrt((values**2).sum(0))
        values = np.divide(values, length, out=np.zeros_like(values), where=length > 0).astype(np.float32)
        return by_label, Foremost.of(layer, values.T @ content.direction, CARRIERS)

    @property
    def several(self) -> tuple[str, ...]:
        """The labels with several images: only these have class maps."""
        return tuple(label for label, count in zip(self.survey.labels, self._count.tolist(), strict=True) if count > 1)

    def _class_maps(self, layer: str) -> ClassMaps | None:
        """The class maps of the labels with several images; None without any."""
        return class_maps(self.survey, layer, classes=self.several) if self.several else None

    @cached_property
    def sums(self) -> ActivationSums | None:
        """Activation sums over the class maps of the last layer that has maps; None without such a layer or maps."""
        mapped = [name for name in self.layers if self.survey.layer(name).height * self.survey.layer(name).width > 1]
        maps = self.class_maps(mapped[-1]) if mapped else None
        return None if maps is None else activation_sums(self.survey, mapped[-1], maps)

    @cached_property
    def detector(self) -> Detector | str:
        """The detector on the same layer, or why there is none."""
        if self.sums is None or len(self.survey.labels) * len(self.survey) > _MOST_DETECTED:
            return "of so many labels and images it is left to the command convscope detector"
        try:
            return detector(self.survey, self.sums.layers[0])
        except BadInput as error:
            return error.message

    def instead(self, layer: str, label: int) -> Instead | None:
        """The units that tell the images of a label that are not recognized from those that are; None with fewer than two of either."""
        own = np.flatnonzero(self.survey.truth == label)
        missed = ~self.right[own]
        if min(missed.sum(), (~missed).sum()) < 2:
            return None
        values = self.layer(layer).means[own].astype(np.float64)
        areas, p = group_areas(values, missed.astype(np.int64), 2)
        gap, spread = values[missed].mean(0) - values[~missed].mean(0), values.std(0)
        effect = np.divide(gap, spread, out=np.zeros_like(gap), where=spread > 0)
        sides: list[list[UnitRef]] = []
        found: set[int] = set()
        for auc, sign, corrected in ((areas[1], 1, holm(p[1])), (areas[0], -1, holm(p[0]))):
            best = [unit for unit in np.lexsort((-sign * effect, -auc))[:INSTEAD].tolist() if auc[unit] > 0.5]
            sides.append([UnitRef(layer, unit, float(areas[1][unit])) for unit in best])
            found.update(unit for unit in best if significant(float(corrected[unit])))
        return Instead(sides[0], sides[1], frozenset(found))

    def spikes(self, layer: str, row: int) -> list[UnitRef]:
        """The units that fire highest on an image, by their mean."""
        return self._on_images(layer)[0].refs(row)

    def unusual(self, layer: str, row: int) -> list[UnitRef]:
        """The units that fire most above their average over all images, in standard deviations."""
        return self._on_images(layer)[1].refs(row, 0.0)

    def _foremost(self, layer: str) -> tuple[Foremost, Foremost]:
        """The highest and the most unusual units on each image."""
        content = self.layer(layer)
        return Foremost.of(layer, content.means, SPIKES), Foremost.of(layer, content.deviations, SPIKES)


def companions(values: np.ndarray, unit: int) -> list[int]:
    """The units with the highest values (unit) but for one, the highest first."""
    order = np.argsort(-values, kind="stable")
    return order[order != unit][:COMPANIONS].tolist()


def by_chance(common: int, most: int, count: int) -> float:
    """How probable it is that two random sets of `most` out of `count` units have so many or more in common (hypergeometric)."""
    ways = sum(math.comb(most, k) * math.comb(count - most, most - k) for k in range(common, most + 1))
    return ways / math.comb(count, most)


def significant(p: float) -> bool:
    """Whether a corrected p-value counts as a finding."""
    return p < SIGNIFICANCE


def stem(name: str) -> str:
    """A file's name without folders and suffix."""
    return name.rpartition("/")[2].rpartition(".")[0] or name
