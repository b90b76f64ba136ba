"""Figures and tables of the study."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

import convscope as cs
from convscope import render

DECISIONS = {"maps": "class maps", "output": "network's output", "probe": "linear probe", "network": "network's own decision"}


@dataclass(frozen=True)
class Study:
    """What convscope found about a model."""

    name: str
    maps: cs.ClassMaps
    overlay: cs.MapOverlay
    sums: dict[str, cs.ActivationSums]
    detector: cs.Detector
    evaluation: cs.DetectorEvaluation


def write_report(studies: Sequence[Study], out: Path) -> None:
    """Figures as PNG, tables as Markdown, and every number as JSON."""
    folder = out / "report"
    folder.mkdir(parents=True, exist_ok=True)
    for study in studies:
        for kind in ("maps", "overlay", "detector", "evaluation"):
            _picture(getattr(study, kind), folder / f"{study.name}_{kind}.png")
    for domain in studies[0].sums:
        first, *rest = (study.sums[domain] for study in studies)
        _picture(first.beside(*rest), folder / f"sums_{domain}.png")
    (folder / "results.json").write_text(json.dumps({study.name: _numbers(study) for study in studies}, indent=1))
    rates = [_rates_table(studies, label) for label in studies[0].evaluation.classes]
    text = "\n\n".join([_maps_table(studies), _against_table(studies), *rates])
    (folder / "tables.md").write_text(text + "\n")
    print(text)


def _picture(result: Any, path: Path) -> None:
    """The result's figure in 256 colours, which is a third of the size."""
    picture = Image.open(io.BytesIO(render.png(result.view()))).convert("RGB")
    picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)


def _maps_table(studies: Sequence[Study]) -> str:
    rows = [
        "| model | class | maps of its own | shared | strongest (share of the class's images that vote for it) |",
        "|---|---|---|---|---|",
    ]
    for study in studies:
        for row, label in enumerate(study.maps.classes):
            own, shared = study.maps.maps[label], study.maps.shared[label]
            strongest = ", ".join(f"{channel} ({100 * study.maps.frequency[row, channel]:.0f} %)" for channel in own[:4])
            rows.append(f"| {study.name} | {label} | {len(own)} | {len(shared)} | {strongest} |")
    return "\n".join(rows)


def _against_table(studies: Sequence[Study]) -> str:
    """Areas of class maps against one other label at a time: what the maps tell a class from."""
    judged = studies[0].evaluation
    pairs = [(label, other) for label in judged.classes for other in judged.labels if other != label]
    header = " | ".join(f"{label} against {other}" for label, other in pairs)
    rows = [f"| model | images | {header} |", "|---|---|" + "---|" * len(pairs)]
    for study in studies:
        for domain, sums in study.sums.items():
            areas = " | ".join(f"{_area(sums, label, other):.3f}" for label, other in pairs)
            rows.append(f"| {study.name} | {domain} | {areas} |")
    return "\n".join(rows)


def _area(sums: cs.ActivationSums, label: str, other: str) -> float:
    places = [sums.labels.index(each) for each in (label, other)]
    rows = np.isin(sums.truth, places)
    return float(roc_auc_score(sums.truth[rows] == places[0], sums.sums[rows, sums.classes.index(label)]))


def _rates_table(studies: Sequence[Study], label: str) -> str:
    rows = [f"| {label} | | photographs | | | X-ray-like | | |", "|---|---|---|---|---|---|---|---|"]
    rows.append("| model | decided by | recall | false alarms | AUC | recall | false alarms | AUC |")
    for study in studies:
        for decision, name in enumerate(DECISIONS):
            cells = [cell for survey in range(2) for cell in _rates(study.evaluation, survey, decision, label)]
            rows.append(f"| {study.name} | {DECISIONS[name]} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _rates(judged: cs.DetectorEvaluation, survey: int, decision: int, label: str) -> list[str]:
    column = judged.classes.index(label)
    at = survey, decision, column
    recall, area = f"{100 * judged.recall[at]:.0f} %", ""
    if decision < judged.auc.shape[1]:
        recall += _ends(100 * judged.recall_intervals[at], ".0f")
        area = f"{judged.auc[at]:.3f}{_ends(judged.auc_intervals[at], '.2f')}"
    return [recall, f"{100 * judged.fpr[at]:.0f} %", area]


def _ends(ends: np.ndarray, style: str) -> str:
    return f" [{ends[0]:{style}}, {ends[1]:{style}}]"


def _numbers(study: Study) -> dict[str, Any]:
    """Everything that the tables and the text are made from."""
    judged, alarms = study.evaluation, study.detector
    medians = {
        f"{domain}: {label} on {truth}": float(np.median(sums.sums[sums.truth == place, column]))
        for domain, sums in study.sums.items()
        for place, truth in enumerate(sums.labels)
        for column, label in enumerate(sums.classes)
    }
    arrays = ("confusion", "alarms", "counts", "recall", "recall_intervals", "fpr", "precision", "auc", "auc_intervals", "ap")
    return {
        "maps": {label: list(channels) for label, channels in study.maps.maps.items()},
        "shared": {label: list(channels) for label, channels in study.maps.shared.items()},
        "thresholds": alarms.thresholds.tolist(),
        "threshold_intervals": alarms.intervals.tolist(),
        "validation_auc": alarms.auc.tolist(),
        "median_sums": medians,
        "truths": list(judged.labels),
        "surveys": list(judged.surveys),
        "decisions": list(DECISIONS),
    } | {name: getattr(judged, name).tolist() for name in arrays}
