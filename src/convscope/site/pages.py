"""What each page of a site shows, as HTML: templates filled with what :class:`~convscope.site.content.Content` knows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from convscope.names import OUTPUT
from convscope.receipts import read_receipt
from convscope.render.html import counts_table
from convscope.render.markup import Markup, text
from convscope.render.panels import Counts, number
from convscope.results.detector import METHODS, NAMES, interval
from convscope.results.feature_visualization import FLAT
from convscope.site import addresses, charts
from convscope.site.content import COMPANIONS, FINDINGS, NEAR, OF_LAYER, SIMILAR, Content, Crop, UnitRef, by_chance, significant, stem
from convscope.site.images import thumbnail_class
from convscope.site.live import Live, network_data
from convscope.site.tables import StoredMap
from convscope.site.write import script
from convscope.statistics import SIGNIFICANCE
from convscope.text import percent

_WEIGHTS, _INSTEAD, _STRIP, _FEW, _OWN_MAPS = 4, 3, 8, 3, 4
_CONFUSIONS, _SHOWN, _MOST_MISTAKES = 12, 24, 2000
_MOST_CHARTS, _MOST_LISTED = 3, 12
"""Layers whose spectrum is drawn on the page of an image, and layers that it shows at all."""
_TIGHT = 10
"""Bounds beyond so many times what is reached are not told: they grow with every layer."""


class Pages:
    """Renders every kind of page.

    Attributes:
        content: What they show.
        stored: Numbers of the images that have a page.
    """

    def __init__(self, content: Content, stored: frozenset[int], facts: Mapping[str, Any]) -> None:
        self.content, self.stored, self.facts = content, stored, facts
        self._environment = environment()

    # -------------------------------------------------------------------------------------------------------------- the whole

    def network(self) -> str:
        """The first page."""
        content = self.content
        known, right = len(content.known), int(content.right[content.known].sum())
        confusion = content.confusion()
        pairs = content.confusions(_CONFUSIONS) if known and confusion is None else []
        health = content.health
        return self._page(
            "network.html",
            "index.html",
            known=known,
            right=right,
            of_layer=OF_LAYER,
            five=content.accuracy(5),
            most_classes=content.outputs.shape[1],
            ordered=content.ordered,
            confusion=None if confusion is None else self._confusion(*confusion),
            cells=[] if confusion is None else self._cells(*confusion),
            pairs=[
                {"truth": self._class(truth), "taken": self._class(taken), "count": len(rows), "photos": self._photos(rows[:_FEW])}
                for truth, taken, rows in pairs
            ],
            mistakes=[self._photo(row) | {"truth": self._truth(row), "taken": self._taken(row)} for row in content.mistakes()],
            layers=(layers := [self._layer_row(name) for name in [*content.layers, OUTPUT]]),
            complete=all(row["shown"] == row["channels"] for row in layers if not row["output"]),
            dead=0 if health is None else int(health.dead.sum()),
            units=sum(content.survey.layer(name).channels for name in content.layers),
            other_labels=[{"href": addresses.label_page(one), "name": content.survey.labels[one]} for one in content.other_labels[:60]],
        )

    def _confusion(self, counts: np.ndarray, rows: Sequence[int], columns: Sequence[int]) -> Markup:
        truths, taken = (tuple(map(self.content.class_name, units)) for units in (rows, columns))
        links = {(y, x): f"#{_cell(rows[y], columns[x])}" for y, x in np.argwhere(counts).tolist()}
        return counts_table(Counts(counts, truths, taken, corner="truth \\ taken for", right=tuple(map(columns.index, rows))), links)

    def _cells(self, counts: np.ndarray, rows: Sequence[int], columns: Sequence[int]) -> list[dict[str, Any]]:
        """The images behind each number of the confusion matrix."""
        found: list[dict[str, Any]] = []
        for y, x in np.argwhere(counts).tolist():
            truth, taken = rows[y], columns[x]
            behind = self.content.taken_for(truth, taken)
            named = {"id": _cell(truth, taken), "truth": self._class(truth), "taken": self._class(taken), "right": truth == taken}
            found.append(named | {"count": len(behind), "photos": self._photos(behind[:_STRIP])})
        return found

    def _layer_row(self, name: str) -> dict[str, Any]:
        content, layer = self.content, self.content.survey.layer(name)
        units = content.interest(name)
        if name == OUTPUT:
            touched = content.touched()
            units = sorted(units, key=lambda unit: unit not in touched)
        health = {} if content.health is None or name == OUTPUT else content.health.of(name)
        known = content.layer(name)
        height, width = known.field
        return {
            "name": name,
            "href": addresses.layer_page(name),
            "kind": layer.kind,
            "channels": layer.channels,
            "shown": len(units),
            "size": f"{layer.height} x {layer.width}" if layer.height * layer.width > 1 else "",
            "field": f"{height} x {width}" if name != OUTPUT else "",
            "whole": known.wide,
            "health": [(finding, len(found)) for finding, found in health.items() if found],
            "tiles": [self._tile(UnitRef(name, unit, 0.0), "") for unit in units[:OF_LAYER]],
            "made": self._made(name),
            "output": name == OUTPUT,
        }

    def _made(self, name: str) -> int:
        folder = self.content.site / addresses.unit_folder(name)
        if not folder.is_dir():
            return 0
        return sum(1 for unit in self.content.options.units.get(name, ()) if self.content.unit_images(name, unit))

    def mistakes(self) -> str:
        """Every image that is not recognized, by class and what it is taken for."""
        content, left = self.content, _MOST_MISTAKES
        pairs: list[dict[str, Any]] = []
        for truth, taken, _ in content.confusions(None):
            behind = content.taken_for(truth, taken)  # the surest first
            rows = behind[:left]
            left -= len(rows)
            if rows:
                named = {"id": _cell(truth, taken), "truth": self._class(truth), "taken": self._class(taken)}
                pairs.append(named | {"count": len(behind), "photos": self._photos(rows)})
        return self._page("mistakes.html", "mistakes.html", pairs=pairs, wrong=content.wrong, known=len(content.known), most=_MOST_MISTAKES)

    def about(self) -> str:
        """What every number means."""
        return self._page("about.html", "about.html", tables=_TABLES)

    def compare(self) -> str:
        """Two pages side by side, named in the address."""
        return self._page("compare.html", "compare.html")

    def live(self, live: Live | None) -> str:
        """The page for a photograph of the reader's."""
        reason = live.reason if live is not None else ""
        return self._page("live.html", "live.html", ready=live is not None and not reason, reason=reason, alone=False)

    def live_data(self, live: Live | None) -> str:
        """What the live page knows of the network, as a script."""
        return f"window.atlasNetwork={script(network_data(self.content, sorted(self.stored), live))};\n"

    def search(self) -> str:
        """What search looks in, as a script: layers with their numbers of units, classes, images."""
        content = self.content
        layers = [[name, addresses.encode(name), list(_ranges(content.options.units.get(name, ())))] for name in content.layers]
        classes = [[unit, content.class_name(unit)] for unit in content.options.units.get(OUTPUT, ())]
        images = [[int(image), content.image_name(content.survey.row(image)), ""] for image in sorted(self.stored)]
        labels = [[label, content.survey.labels[label]] for label in content.other_labels]
        return f"window.atlasSearch={script({'layers': layers, 'classes': classes, 'images': images, 'labels': labels})};\n"

    # --------------------------------------------------------------------------------------------------------------- a layer

    def layer(self, name: str) -> str:
        """The page of a layer: all its units."""
        content, layer = self.content, self.content.survey.layer(name)
        before, after = content.neighbours(name)
        known = content.layer(name)
        place = layer.height // 2, layer.width // 2
        box = content.survey.receptive_fields(name, np.array(place)).tolist()
        units = content.options.units.get(name, ())
        return self._page(
            "layer.html",
            addresses.layer_page(name),
            name=name,
            layer=layer,
            size=f"{layer.height} x {layer.width}" if layer.height * layer.width > 1 else "one value",
            field=known.field,
            rf=charts.field(content.survey.preprocessing.height, content.survey.preprocessing.width, tuple(box)),
            before=self._layer_link(before),
            after=self._layer_link(after),
            tiles=[self._tile(UnitRef(name, unit, 0.0), "") for unit in units],
            count=len(units),
            made=self._made(name),
            health=[] if name == OUTPUT or content.health is None else [(k, v) for k, v in content.health.of(name).items() if v],
            data=PurePosixPath(addresses.layer_data(name)).name,
            weights=addresses.layer_weights(name) if (content.site / addresses.layer_weights(name)).exists() else "",
            has_map=name in content.arrangement and bool(np.isfinite(content.arrangement[name][:, 1]).any()),
            labelled=known.profile is not None,
            output=name == OUTPUT,
        )

    def layer_data(self, name: str) -> str:
        """What the page of a layer sorts and filters by, as a script: a row for each unit, in the order of the page."""
        content, known = self.content, self.content.layer(name)
        placed = content.arrangement.get(name)
        maximum, positive = known.column("maximum"), known.column("positive")
        rows: list[list[Any]] = []
        for unit in content.options.units.get(name, ()):
            classes = known.classes(unit)[:1]
            best = [content.label_name(classes[0][0]), _round(classes[0][1])] if classes else ["", None]
            findings = sum(1 << FINDINGS.index(one) for one in content.findings(name, unit))
            place = [unit, None, None] if placed is None else [int(placed[unit, 0]), _round(placed[unit, 1]), _round(placed[unit, 2])]
            title = content.class_name(unit) if name == OUTPUT else ""
            rows.append([unit, title, _round(maximum[unit]), _round(positive[unit]), *best, findings, *place])
        return f"window.atlasLayer={script({'rows': rows, 'findings': FINDINGS})};\n"

    # ---------------------------------------------------------------------------------------------------------------- a unit

    def unit(self, name: str, unit: int) -> str:
        """The page of a unit."""
        content, known = self.content, self.content.layer(name)
        strongest, middle, lowest = known.strongest(unit), known.middle(unit), known.lowest(unit)
        units = content.options.units[name]
        place = content.place_of(name, unit)
        peaks = known.peaks[:, unit]
        boxes, size = [crop.box for crop in strongest], content.survey.preprocessing
        before, after = content.neighbours(name)
        near = [(other, content.similar(name, unit, other, NEAR)) for other in (before, after) if other]
        table = {key: float(known.column(key)[unit]) for key in ("maximum", "positive", "mean", "sd", "bound")}
        classes = [
            {
                "name": content.label_name(label),
                "href": content.label_page(label),
                "auc": auc,
                "effect": effect,
                "p": p,
                "found": significant(p),
            }
            for label, auc, effect, p in known.classes(unit)
        ]
        return self._page(
            "unit.html",
            addresses.unit_page(name, unit),
            name=name,
            unit=unit,
            layer=self._layer_link(name),
            previous=addresses.unit_page(name, units[place - 1]) if place else "",
            following=addresses.unit_page(name, units[place + 1]) if place + 1 < len(units) else "",
            findings=content.findings(name, unit),
            twin=content.twin(name, unit),
            silent=not strongest or strongest[0].value <= 0,
            **(made := self._visualization(name, unit)),
            checks=self._checks(name, unit, made["images"], [crop.row for crop in strongest]),
            strongest=self._crops(strongest),
            beyond=any(min(x, y) < 0 or x + width > size.width or y + height > size.height for x, y, width, height in boxes),
            middle=self._crops(middle),
            lowest=self._crops(lowest),
            field=known.field,
            wide=known.wide,
            size=(size.height, size.width),
            histogram=charts.histogram(peaks, np.array([crop.value for crop in strongest]), "maximum activation"),
            active=int((peaks > 0).sum()),
            bounded=0 < table["bound"] < _TIGHT * table["maximum"],
            table=table,
            classes=classes,
            verdicts=[(self._class(one), count) for one, count in content.verdicts(strongest)] if content.outputs.shape[1] > 1 else [],
            of=len(strongest),
            similar=self._tiles(content.similar(name, unit, name, SIMILAR), _hundredths),
            near=[(self._layer_link(other), self._tiles(refs, _hundredths)) for other, refs in near if refs],
            **self._weights("inward", content.connections.to.get((name, unit), [])),
            **self._weights("outward", content.connections.out_of.get((name, unit), [])),
        )

    def _visualization(self, name: str, unit: int) -> dict[str, Any]:
        """What a page shows of a unit's images by feature visualization and its projections."""
        content = self.content
        images: list[dict[str, Any]] = []
        strongest = float(content.layer(name).means[:, unit].max())
        for address in content.unit_images(name, unit):
            receipt = read_receipt(content.site / address)
            value = receipt.get("after_relu") if name != OUTPUT else receipt.get("before_relu")
            ratio = float(value) / strongest if isinstance(value, float) and strongest > 0 else math.nan
            images.append(
                {
                    "path": address,
                    "status": str(receipt.get("status", "")),
                    "reason": str(receipt.get("reason", "")),
                    "flat": FLAT in str(receipt.get("reason", "")),
                    "score": float(receipt.get("score", math.nan)),
                    "ratio": ratio,
                    "rank": receipt.get("rank"),
                    "companions": receipt.get("companions"),
                    "side": receipt.get("side", 224),
                }
            )
        return {"images": images, "projections": content.projections(name, unit)}

    def _checks(self, name: str, unit: int, images: Sequence[Mapping[str, Any]], strongest: Sequence[int]) -> list[dict[str, Any]]:
        """Whether a unit's image and its strongest photographs, and its images from different noise, agree."""
        if not images or images[0]["status"] == "stuck":
            return []
        first, found = images[0], list[dict[str, Any]]()
        if math.isfinite(first["ratio"]):
            found.append({"kind": "ratio", "holds": first["ratio"] > 1, "value": first["ratio"]})
        if first["rank"] is not None:
            found.append({"kind": "rank", "holds": first["rank"] == 1, "value": first["rank"]})
        count, own = self.content.survey.layer(name).channels - 1, first["companions"]
        if own and by_chance(COMPANIONS, COMPANIONS, max(count, COMPANIONS)) < SIGNIFICANCE:
            auc, p = self.content.layer(name).excited(own, unit, strongest)
            found.append({"kind": "photographs", "holds": significant(p), "value": auc})
            if len(images) > 1 and images[1]["companions"]:
                common = len(set(own) & set(images[1]["companions"]))
                found.append({"kind": "seed", "holds": significant(by_chance(common, COMPANIONS, count)), "value": common})
        return found

    def _weights(self, key: str, connections: Sequence[Any]) -> dict[str, Any]:
        """The strongest weights as tiles, and the layer that all of them belong to."""
        refs = [UnitRef(one.layer, one.unit, one.weight) for one in connections[:_WEIGHTS]]
        layers = {ref.layer for ref in refs}
        return {key: self._tiles(refs, _signed, with_layer=len(layers) > 1), f"{key}_of": layers.pop() if len(layers) == 1 else ""}

    # ---------------------------------------------------------------------------------------------------------- classes, images

    def classes(self, unit: int) -> str:
        """The page of an output unit."""
        return self._class_page(addresses.class_page(unit), unit, self.content.label_of_class(unit))

    def label(self, label: int) -> str:
        """The page of a label that is no class of the network."""
        return self._class_page(addresses.label_page(label), -1, label)

    def _class_page(self, address: str, unit: int, label: int) -> str:
        content = self.content
        name = content.class_name(unit) if unit >= 0 else content.survey.labels[label]
        own = np.flatnonzero(content.survey.truth == label) if label >= 0 else np.zeros(0, np.int64)
        taken = np.flatnonzero(content.ranked[:, 0] == unit) if unit >= 0 else np.zeros(0, np.int64)
        wrong = own[~content.right[own]] if unit >= 0 else np.zeros(0, np.int64)
        mistaken = taken[content.truth[taken] != unit]
        units = content.options.units.get(OUTPUT, ())
        place = content.place_of(OUTPUT, unit) if unit >= 0 else -1
        highest: list[int] = []
        if unit >= 0:
            highest = np.argsort(-content.outputs[:, unit], kind="stable")[:_STRIP].tolist()
        return self._page(
            "class.html",
            address,
            name=name,
            unit=unit,
            label=content.survey.labels[label] if label >= 0 else "",
            ordered=content.ordered,
            previous=addresses.class_page(units[place - 1]) if place > 0 else "",
            following=addresses.class_page(units[place + 1]) if place >= 0 and place + 1 < len(units) else "",
            **(self._visualization(OUTPUT, unit) if unit >= 0 else {"images": [], "projections": ""}),
            own=len(own),
            right=len(own) - len(wrong),
            failing=[self._photo(int(row)) | {"taken": self._taken(int(row)), "fires": self._fires(int(row))} for row in wrong[:_STRIP]],
            wrong=len(wrong),
            instead=(instead := self._instead(label) if unit >= 0 else []),
            told=any(one["found"] for one in instead),
            mistaken=self._photos(mistaken[:_STRIP].tolist()),
            others=len(mistaken),
            mine=[self._photo(int(row)) | {"taken": self._taken(int(row)) if row in wrong else None} for row in own[:_SHOWN]],
            highest=[self._photo(row) | {"value": float(content.outputs[row, unit])} for row in highest],
            deepest=content.deepest,
            listed=content.wrong > 0,
            behind=self._behind(unit),
            carriers=(carriers := self._carriers(label, unit)),
            by_auc=any(one["how"] == "AUC" for one in carriers),
            with_maps=any(one["maps"] for one in carriers),
            histogram=charts.histogram(content.outputs[:, unit], content.outputs[own, unit], "output") if unit >= 0 else "",
            **self._sums(label, own),
        )

    def _behind(self, unit: int) -> list[dict[str, Any]]:
        """The units behind the verdict for a class: on its images, on those wrongly taken for it, or on images of unknown labels."""
        groups = self.content.attributions.of.get(unit, {})
        found: list[dict[str, Any]] = []
        for group in ("right", "wrong", "unknown"):
            if group in groups:
                count, units = groups[group]
                layers = dict.fromkeys(layer for layer, _, _ in units)
                parts = {name: [UnitRef(*one) for one in units if one[0] == name] for name in layers}
                shown = [{"link": self._layer_link(name), "tiles": self._tiles(refs, "+{:.2f}".format)} for name, refs in parts.items()]
                found.append({"group": group, "count": count, "layers": shown})
        return found

    def _carriers(self, label: int, unit: int) -> list[dict[str, Any]]:
        """For each layer, the units that carry a class, and its class map."""
        content, found = self.content, list[dict[str, Any]]()
        for name in content.layers:
            refs, how = content.carriers(name, label, unit)
            maps = content.class_maps(name)
            own, shared, several = [], 0, 0
            if maps is not None and label >= 0 and (label_name := content.survey.labels[label]) in maps.maps:
                row, units = maps.classes.index(label_name), maps.maps[label_name]
                several, shared = len(units), len(maps.shared[label_name])
                own = [UnitRef(name, one, float(maps.votes[row, one])) for one in units[:_OWN_MAPS]]
            if refs or own:
                tiles = {"tiles": self._tiles(refs, _hundredths), "maps": self._tiles(own, "{:.0f}".format)}
                found.append({"link": self._layer_link(name), "how": how, "several": several, "shared": shared} | tiles)
        return found

    def _instead(self, label: int) -> list[dict[str, Any]]:
        """For a few layers, the units that fire more, and less, on the images of a class that are not recognized than on the others."""
        content, found = self.content, list[dict[str, Any]]()
        shown = _spread(content.layers, _MOST_CHARTS)
        for name in content.layers:
            if name in shown and (one := content.instead(name, label)) is not None and (one.more or one.less):
                tiles = (
                    [self._tile(ref, f"{ref.value:.2f}{' ●' if ref.unit in one.found else ''}") for ref in refs]
                    for refs in (one.more, one.less)
                )
                found.append({"link": self._layer_link(name), "found": one.found, **dict(zip(("more", "less"), tiles, strict=True))})
        return found

    def _sums(self, label: int, own: np.ndarray) -> dict[str, Any]:
        """The activation sum of a class on all images, and how well it, the output and a probe detect the class."""
        content, name = self.content, self.content.survey.labels[label] if label >= 0 else ""
        nothing: dict[str, Any] = {"sums": "", "detector": "", "why": ""}
        if name not in content.several or (found := content.sums) is None:
            return nothing
        values = found.sums[:, found.classes.index(name)]
        if not np.isfinite(values).all():
            return nothing | {"why": f"all units that its images vote for in {found.layers[0]} belong to other labels as well"}
        size, layer = int(found.sizes[0, found.classes.index(name)]), self._layer_link(found.layers[0])
        shown = {"sums": charts.histogram(values, values[own], "mean activation of its class map"), "sums_of": size, "sums_layer": layer}
        detected = content.detector
        if isinstance(detected, str) or name not in detected.classes:
            return nothing | shown | {"why": detected if isinstance(detected, str) else ""}
        column, positive = detected.classes.index(name), detected.truth == content.survey.labels.index(name)
        methods = [NAMES[method] for method in METHODS]
        rows = [
            {"name": method, "auc": f"{detected.auc[row, column]:.3f}", "interval": interval(detected.auc_intervals[row, column])}
            for row, method in enumerate(methods)
        ]
        curve = charts.roc(list(detected.scores[:, :, column]), positive, methods)
        counts = {"positives": int(positive.sum()), "negatives": int((~positive).sum()), "fitted": detected.fitted}
        return nothing | shown | {"detector": curve, "methods": rows} | counts

    def _fires(self, row: int) -> list[dict[str, Any]]:
        """The units of the last layer that fire most above their average on an image."""
        if not self.content.deepest:
            return []
        return self._tiles(self.content.unusual(self.content.deepest, row)[:_INSTEAD], "{:.2g}".format)

    def image(self, image: int) -> str:
        """The page of an image."""
        content = self.content
        row, found = content.survey.row(image), content.predictions
        truth = int(content.truth[row])
        numbers = sorted(self.stored)
        place = numbers.index(image)
        guesses = [
            {"class": self._class(unit), "output": float(content.outputs[row, unit]), "share": float(share)}
            for unit, share in zip(content.ranked[row].tolist(), found.probability[row] if found is not None else (), strict=False)
        ]
        drawn, listed = _spread(content.layers, _MOST_CHARTS), _spread(content.layers, _MOST_LISTED)
        label = int(content.survey.truth[row])
        return self._page(
            "image.html",
            addresses.image_page(image),
            image=image,
            name=content.image_name(row),
            photo=self._photo(row),
            stored=(content.site / addresses.image_file(image)).exists(),
            size=(content.survey.preprocessing.height, content.survey.preprocessing.width),
            label=content.label_of(row),
            label_href=content.label_page(label) if label >= 0 else "",
            truth=truth,
            right=bool(content.right[row]),
            guesses=guesses,
            output=float(content.outputs[row, 0]),
            previous=addresses.image_page(numbers[place - 1]) if place else "",
            following=addresses.image_page(numbers[place + 1]) if place + 1 < len(numbers) else "",
            layers=[self._on_image(name, row, name in drawn) for name in content.layers if name in drawn | listed],
            some=len(drawn) < len(content.layers),
            few=len(drawn | listed) < len(content.layers),
            study=self._study(row),
            studied=len(content.studies.of),
            maps=[
                {
                    "tile": self._tile(UnitRef(one.layer, one.unit, one.maximum), _number(one.maximum)),
                    "layer": one.layer,
                }
                | self._overlay(one)
                for one in content.maps.of.get(image, [])
            ],
        )

    def _overlay(self, one: StoredMap) -> dict[str, str]:
        size = self.content.survey.preprocessing
        return charts.overlay(one.values, one.place, (size.height, size.width))

    def _study(self, row: int) -> dict[str, Any] | None:
        """What occlusion of an image shows, and the strip of its layers; None where it was not computed."""
        content = self.content
        known = content.studies.of.get(int(content.survey.ids[row]))
        if known is None:
            return None
        truth, found = int(content.truth[row]), known.row
        shown = _spread([one.layer for one in known.strip], _MOST_LISTED)
        return {
            "overlay": charts.signed_overlay(known.drop),
            "target": self._class(found["target"]),
            "then": self._class(found["then"]),
            "same": found["then"] == found["target"],
            "single": content.predictions is None,
            "own": self._class(truth) if truth >= 0 and truth != found["target"] else None,
            "of_own": found["own"],
            **{key: found[key] for key in ("patch", "base", "lowest", "positions", "largest")},
            "strip": [
                {
                    "layer": self._layer_link(one.layer),
                    "tile": self._tile(UnitRef(one.layer, one.unit, one.maximum), ""),
                }
                | self._overlay(one)
                for one in known.strip
                if one.layer in shown
            ],
        }

    def _on_image(self, name: str, row: int, drawn: bool) -> dict[str, Any]:
        """The spectrum of a layer on an image, and the units that stand out."""
        content = self.content
        spikes = content.spikes(name, row)
        return {
            "link": self._layer_link(name),
            "drawn": drawn,
            "chart": charts.spectrum(content.layer(name).means[row]) if drawn else "",
            "spikes": self._tiles(spikes if drawn else spikes[:_FEW], _number),
            "unusual": self._tiles(content.unusual(name, row) if drawn else (), _deviations),
            "last": content.survey.layer(name).channels - 1,
            "highest": float(content.layer(name).means[row].max()) if drawn else 0.0,
        }

    # ----------------------------------------------------------------------------------------------------------------- pieces

    def _page(self, template: str, address: str, **values: Any) -> str:
        root = addresses.root_of(address)
        rendered = self._environment.get_template(template).render(
            **values, root=root, address=address, facts=self.facts, options=self.content.options, network=self.content.network
        )
        folder = address.rpartition("/")[0]
        if folder:  # thousands of pages: links within the folder are short
            rendered = rendered.replace(f'="{root}{folder}/', '="')
            if above := folder.rpartition("/")[0]:
                rendered = rendered.replace(f'="{root}{above}/', '="../')
        return rendered if rendered.endswith("\n") else rendered + "\n"

    def _layer_link(self, name: str) -> dict[str, str] | None:
        return {"name": name, "href": addresses.layer_page(name)} if name else None

    def _class(self, unit: int) -> dict[str, str]:
        return {"name": self.content.class_name(unit), "href": self.content.unit_page(OUTPUT, unit)}

    def _truth(self, row: int) -> dict[str, str]:
        return self._class(int(self.content.truth[row]))

    def _taken(self, row: int) -> dict[str, str]:
        return self._class(int(self.content.ranked[row, 0]))

    def _photo(self, row: int) -> dict[str, Any]:
        """An image as a link with its small copy."""
        content, image = self.content, int(self.content.survey.ids[row])
        size = content.survey.preprocessing
        return {
            "href": addresses.image_page(image) if image in self.stored else "",
            "src": addresses.image_file(image) if content.options.photographs else "",
            "name": stem(content.survey.names[row]),
            "label": content.label_of(row),
            "width": size.width,
            "height": size.height,
        }

    def _photos(self, rows: Iterable[int]) -> list[dict[str, Any]]:
        return [self._photo(row) for row in rows]

    def _crops(self, crops: Sequence[Crop]) -> list[dict[str, Any]]:
        return [self._photo(crop.row) | self._cut(crop) for crop in crops]

    def _cut(self, crop: Crop) -> dict[str, Any]:
        box = " ".join(map(str, crop.box))
        return {"value": crop.value, "box": box, "ring": crop.ring, "unread": crop.unread, "place": crop.box}

    def _tiles(self, refs: Iterable[UnitRef], written: Any, *, with_layer: bool = False) -> list[dict[str, Any]]:
        return [self._tile(ref, written(ref.value), with_layer=with_layer) for ref in refs]

    def _tile(self, ref: UnitRef, value: str, *, with_layer: bool = False) -> dict[str, Any]:
        """A unit as a link with its thumbnail, from the sheet of its layer."""
        content = self.content
        title = content.unit_title(ref.layer, ref.unit)
        href = content.unit_page(ref.layer, ref.unit)
        shown = {"title": title, "value": value, "href": href, "layer": ref.layer if with_layer else ""}
        return shown | {"at": thumbnail_class(content, ref.layer, ref.unit) if href else ""}


_TABLES = (
    ("images.parquet", "every image that was read: number, name, label, size"),
    ("layers.parquet", "every layer: size, receptive field of each row and column of its map"),
    ("channels.parquet", "every unit over all images: mean, spread, maximum, share above zero, bound, quantiles, histogram"),
    ("classes.parquet", "every unit and label of several images: mean, spread, votes; of a label of one image, its row in values/ says it"),
    ("top.parquet", "the images with the largest activation of every unit, over all images and for each label of several images"),
    ("values/", "every unit on every image: maximum, its position, mean"),
    ("units.parquet", "every unit: place in the order of similarity, and on the map"),
    ("connections.parquet", "the strongest weights between units"),
    ("maps.parquet", "activation maps of the strongest units on every image"),
    ("attribution.parquet", "the units behind each class's verdicts, on images that are right and on those that are wrong"),
    ("occlusion.parquet", "occlusion maps of some images, and for each layer the map of their strongest unit"),
    ("manifest.json", "network, inputs, parameters, versions"),
)


def environment() -> Environment:
    """The templates, with the filters that they use."""
    made = Environment(
        loader=PackageLoader("convscope.site"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalized,
    )
    made.filters |= {"num": _number, "signed": _signed, "pct": percent, "thousands": "{:,}".format, "breaks": breaks}
    return made


def breaks(name: str) -> Markup:
    """A name that may be broken behind each dot and underscore."""
    return Markup(re.sub(r"([._/:])(?=.)", r"\1<wbr>", text(name)))


def _finalized(value: Any) -> Any:
    """Text is escaped here, with the characters that HTML forbids; markup stays as it is."""
    return text(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _number(value: float) -> str:
    return number(value) if math.isfinite(value) else "–"


def _hundredths(value: float) -> str:
    return f"{value:.2f}"


def _deviations(value: float) -> str:
    return f"{value:.2g} sd"


def _cell(truth: int, taken: int) -> str:
    """The place on the first page that shows the images behind a number of the confusion matrix."""
    return f"is-{truth}-taken-{taken}"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{number(abs(value))}" if math.isfinite(value) else "–"


def _round(value: float) -> float | None:
    value = float(value)
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _ranges(numbers: Sequence[int]) -> Iterable[list[int]]:
    """Ascending numbers as ranges [first, last]."""
    first = previous = None
    for one in numbers:
        if previous is not None and one == previous + 1:
            previous = one
            continue
        if first is not None and previous is not None:
            yield [first, previous]
        first = previous = one
    if first is not None and previous is not None:
        yield [first, previous]


def _spread(names: Sequence[str], most: int) -> set[str]:
    """At most so many of the names, evenly spread, the last among them."""
    if len(names) <= most:
        return set(names)
    return {str(names[round(place)]) for place in np.linspace(0, len(names) - 1, most)}
