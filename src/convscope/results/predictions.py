"""Result of `predictions`: what a network says of each image of a survey, how often that is right, and the worst mistakes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import ClassVar

import numpy as np

from convscope.image_files import MEMBER
from convscope.render.panels import Counts, Group, Image, Panel, Table, View
from convscope.results import words
from convscope.results.base import Array, Result, axes
from convscope.results.occlusion import patch_for
from convscope.results.table import Rows
from convscope.statistics import wilson
from convscope.text import percent

_MATRIX, _ROWS, _SIDE = 16, 30, 150
_LISTED, _TOP, _COMMANDS = 12, 3, 2


@dataclass(frozen=True, eq=False)
class Predictions(Result):
    """The network's prediction for every image of a survey.

    Attributes:
        predicted: The most probable classes of each image, the most probable first, (n rank).
        probability: Their probabilities, (n rank).
        truth: The class that the image's label means, (n); -1 where the label is no class of the network.
        truth_probability: The probability of that class, (n); NaN where it is not known.
        truth_rank: How many classes are more probable, (n); -1 where it is not known.
        images: The worst mistakes as the network was fed them, the worst first, (mistake rgb h w) in [0,1].
        mistakes: Rows of these images, (mistake).
        names: Name of each image.
        paths: Path of each image.
        labels: The labels of the images, "" for none.
        splits: The split of each image, such as "train", "" for none.
        meant: The class that each label means, {label: number}.
        classes: Names of the network's outputs.
        network: Name of the network.
        weights: Its weights as they were asked for; "" for none.
    """

    tabled: ClassVar[Rows] = Rows("n", image="n:names", path="n:paths", label="n:labels", predicted_name="n:predicted_names")

    predicted: Array = axes("n rank")
    probability: Array = axes("n rank")
    truth: Array = axes("n")
    truth_probability: Array = axes("n")
    truth_rank: Array = axes("n")
    images: Array = axes("mistake rgb h w", "image")
    mistakes: Array = axes("mistake")
    names: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    meant: dict[str, int] | None = None
    classes: tuple[str, ...] = ()
    network: str = ""
    weights: str = ""

    @property
    def known(self) -> np.ndarray:
        """Whether the true class of each image is known, (n)."""
        return self.truth >= 0

    @property
    def right(self) -> np.ndarray:
        """Whether each image's most probable class is the true one, (n)."""
        return self.known & (self.truth_rank == 0)

    def accuracy(self, top: int = 1) -> float:
        """Share of the images with a known class whose class is among the `top` most probable; NaN without such images."""
        return float((self.truth_rank[self.known] < top).mean()) if self.known.any() else float("nan")

    def by_class(self) -> dict[str, tuple[int, int]]:
        """{label: (images that are right, images)} for every label that means a class, by name."""
        labels, right = np.array(self.labels), self.right
        return {label: (int(right[labels == label].sum()), int((labels == label).sum())) for label in sorted(self.meant or {})}

    def by_split(self) -> dict[str, tuple[int, int]]:
        """{split: (images that are right, images whose class is known)}, by name; empty where there are not several."""
        splits, right, known = np.array(self.splits), self.right, self.known
        names = sorted(set(self.splits))
        counts = {split: (int(right[splits == split].sum()), int(known[splits == split].sum())) for split in names}
        return {split: count for split, count in counts.items() if count[1]} if len(names) > 1 else {}

    def confusion(self) -> tuple[np.ndarray, tuple[str, ...], tuple[int, ...]]:
        """Images of each label by predicted class: counts (label class), the labels, and the numbers of the classes.

        Classes are those that a label means, in the labels' order, then all others that were predicted, the most frequent first.
        """
        rows = tuple(sorted(self.meant or {}))
        own = [(self.meant or {})[label] for label in rows]
        first = self.predicted[:, 0]
        found, times = np.unique(first[self.known], return_counts=True)
        others = [int(number) for number in found[np.argsort(-times, kind="stable")] if number not in own]
        columns = tuple(dict.fromkeys([*own, *others]))
        row, column = ({one: place for place, one in enumerate(several)} for several in (rows, columns))
        counts = np.zeros((len(rows), len(columns)), np.int64)
        for label, number in zip(self.labels, first.tolist(), strict=True):
            if label in row:
                counts[row[label], column[number]] += 1
        return counts, rows, columns

    @property
    def predicted_names(self) -> tuple[str, ...]:
        """The name of each image's most probable class."""
        return tuple(self.class_name(int(number)) for number in self.predicted[:, 0])

    def class_name(self, number: int) -> str:
        """The name of a class; without names, the label that means it, or its number."""
        if self.classes:
            return self.classes[number]
        return next((label for label, meant in (self.meant or {}).items() if meant == number), str(number))

    def summary(self) -> str:
        """Accuracy with its 95 % interval, the worst mistakes, and the commands that look closer."""
        unknown = sorted({label for label, known in zip(self.labels, self.known, strict=True) if label and not known})
        lines: list[str] = []
        if self.known.any():
            right, count = int(self.right.sum()), int(self.known.sum())
            low, high = wilson(right, count)
            more = f"; among the five most probable {100 * self.accuracy(5):.1f} %" if self.predicted.shape[1] >= 5 else ""
            share = f"{100 * right / count:.1f} %, 95 % interval {100 * low:.1f} to {100 * high:.1f}"
            lines.append(f"{right} of {words.plural(count, 'image')} right ({share}){more}")
            lines += [
                f"  {name or 'no split'}: {own} of {all_} right ({100 * own / all_:.1f} %)" for name, (own, all_) in self.by_split().items()
            ]
        else:
            lines.append(f"{words.plural(len(self.names), 'image')}; which are right is not known: {self._why_unknown()}")
            lines += [f"  {self.names[row]}: {', '.join(self._most_probable(row))}" for row in range(min(len(self.names), _LISTED))]
            lines += [f"  ... and {len(self.names) - _LISTED} more"] * (len(self.names) > _LISTED)
        if unknown and self.known.any():
            lines.append(
                f"labels that are no class of the network: {words.listed(unknown, 6)}; say what they mean with --classes LABEL=CLASS"
            )
        if len(self.mistakes):
            confused = self.confused()
            named = [f"{count} of {label} taken for {self.class_name(number)}" for label, number, count in confused]
            lines.append(f"most frequent: {words.listed(named, 3)}")
            lines.append("worst mistakes:")
            lines += [f"  {self._mistake(int(row))}" for row in self.mistakes]
            wrong = int((self.known & ~self.right).sum())
            if wrong > len(self.mistakes):
                lines.append(f"  {len(self.mistakes)} of {wrong}; --worst {wrong} shows all, --json lists every image")
            lines += self._next(int(self.mistakes[0]), confused)
        return "\n".join(lines)

    def confused(self) -> list[tuple[str, int, int]]:
        """(label, predicted class, images) of all mistakes, the most frequent first."""
        counts, rows, columns = self.confusion()
        for row, label in enumerate(rows):
            counts[row, columns.index((self.meant or {})[label])] = 0
        order = [divmod(int(place), len(columns)) for place in np.argsort(-counts, axis=None, kind="stable") if counts.flat[place]]
        return [(rows[row], columns[column], int(counts[row, column])) for row, column in order]

    def _most_probable(self, row: int) -> list[str]:
        pairs = zip(self.predicted[row].tolist(), self.probability[row].tolist(), strict=True)
        return [f"{words.named(number, self.classes[number] if self.classes else '')} {percent(share)}" for number, share in pairs][:_TOP]

    def _why_unknown(self) -> str:
        if not any(self.labels):
            return "the images have no labels (a folder for each class, or a list with a column `label`)"
        return f"no label is a class of the network ({words.listed(sorted(set(self.labels) - {''}), 4)}); use --classes LABEL=CLASS"

    def _mistake(self, row: int) -> str:
        said, share = self.class_name(int(self.predicted[row, 0])), 100 * self.probability[row, 0]
        own = self.class_name(int(self.truth[row]))
        return f"{self.names[row]}: {said} {share:.0f} %, is {own} ({percent(self.truth_probability[row])})"

    def _next(self, row: int, confused: Sequence[tuple[str, int, int]]) -> list[str]:
        """The commands that show where the wrong class comes from; by log-odds, since the probability of a worst mistake is often 1."""
        weights = f" --weights {shlex.quote(self.weights)}" if self.weights not in ("", "pretrained") else ""
        network, target = shlex.quote(self.network), int(self.predicted[row, 0])
        patch = patch_for(self.images.shape[2], self.images.shape[3])
        lines = [
            "where in the image the wrong class is seen:",
            f"  convscope occlusion {network} {shlex.quote(self.paths[row])} --target {target} --score log-odds --patch {patch}{weights}",
        ]
        ask = "convscope unit-attribution"
        # a folder of one label: its right images are the comparison; tars and URLs have none that a command takes
        folders = {label: PurePath(path).parent for label, path in zip(self.labels, self.paths, strict=True) if "://" not in path}
        whole = [(folders[label], *about) for label, *about in confused[:_COMMANDS] if label in folders and _is_of(folders[label], label)]
        if not whole:
            return [*lines, "which units see it:", f"  {ask} {network} {shlex.quote(self.paths[row])} --target {target}{weights}"]
        lines.append(
            "which units see it, on the wrong images of a label beside its right ones (the label's own class as --target: what they lack):"
        )
        return [*lines, *(f"  {ask} {network} {shlex.quote(str(folder))} --target {number}{weights}" for folder, number, _ in whole)]

    def view(self) -> View:
        """The confusion matrix, or accuracy by label and the most frequent confusions; the worst mistakes."""
        panels: list[Panel] = []
        if len(self.mistakes):
            panels.append(Group(tuple(map(self._tile, range(len(self.mistakes)))), 6, "Worst mistakes", side=_SIDE))
        if self.known.any():
            counts, rows, columns = self.confusion()
            names = tuple(self.class_name(number) for number in columns)
            if len(rows) <= _MATRIX and len(columns) <= _MATRIX:
                right = tuple(columns.index((self.meant or {})[label]) for label in rows)
                panels.insert(0, Counts(counts, rows, names, "Confusion matrix", "label \\ predicted", right))
            elif self.known.sum() > len(rows):  # with one image for each label, tables say nothing
                panels.append(Group((self._by_class(), self._confusions()), 2))
        else:
            panels.append(self._table())
        count = int(self.known.sum())
        right = f"{int(self.right.sum())} of {count} right ({100 * self.accuracy():.1f} %)" if count else "labels unknown"
        note = words.note(
            "Worst mistakes: the images whose predicted class is most probable while the label says another." if len(self.mistakes) else "",
            "Below each image: the predicted class with its probability, and the label's class with its own." if len(self.mistakes) else "",
        )
        return View("Predictions", tuple(panels), subtitle=words.subtitle(self, words.plural(len(self.names), "image"), right), note=note)

    def _tile(self, index: int) -> Image:
        row = int(self.mistakes[index])
        said, own = self.class_name(int(self.predicted[row, 0])), self.class_name(int(self.truth[row]))
        caption = f"{said} {100 * self.probability[row, 0]:.0f} %\nis {own} {percent(self.truth_probability[row])}"
        return Image(self.images[index], PurePath(self.names[row]).name, caption)

    def _by_class(self) -> Table:
        shares = sorted(self.by_class().items(), key=lambda item: (item[1][0] / item[1][1], item[0]))
        rows = tuple((label, str(count), f"{100 * right / count:.0f} %") for label, (right, count) in shares[:_ROWS])
        return Table(("label", "images", "right"), rows, _titled("Accuracy by label, the worst first", len(shares)))

    def _confusions(self) -> Table:
        cells = tuple((label, self.class_name(number), str(count)) for label, number, count in self.confused())
        return Table(("label", "predicted", "images"), cells[:_ROWS], _titled("Most frequent confusions", len(cells)))

    def _table(self) -> Table:
        rows = tuple((self.names[row], *self._most_probable(row)) for row in range(min(len(self.names), _ROWS)))
        places = range(1, len(rows[0]))
        return Table(("image", *map(str, places)), rows, _titled("Most probable classes", len(self.names)))


def _is_of(folder: PurePath, label: str) -> bool:
    return folder.name == label and MEMBER not in str(folder)


def _titled(title: str, count: int) -> str:
    return f"{title} ({words.first(_ROWS, count)})" if count > _ROWS else title
