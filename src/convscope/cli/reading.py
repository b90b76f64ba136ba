"""Commands that read surveys: those derived from signatures that begin with a survey, and `query` and `evaluate`. Loads no torch."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from convscope.cli.show import print_table, print_written, progress
from convscope.errors import BadInput

SURVEY: Any = typer.Argument(help="Folder of a survey, or a URL such as s3://bucket/survey.")
LISTS = {"maps": "FOLDER | LABEL=0,3,8", "others": "SURVEY", "outputs": "LABEL=OUTPUT"}
"""Options of readers that take several words, with what one of them looks like; each may be repeated."""
EXAMPLES = {
    "exemplars": (
        "convscope exemplars surveys/photos features.12 --units 0-7",
        "convscope exemplars surveys/photos output --units goldfish --top 16 --label fish",
    ),
    "class-maps": ("convscope class-maps surveys/train features.12", "convscope class-maps surveys/train features.12 --per-image 10"),
    "activation-sums": (
        "convscope activation-sums surveys/train features.12 --maps out/class-maps/train-features.12 --others surveys/xray",
        "convscope activation-sums surveys/train features.12 --maps ants=3,17 --maps bees=40 --mode sum",
    ),
    "detector": (
        "convscope detector surveys/train features.12 --rule youden",
        "convscope detector surveys/train features.12 --fpr 0.01 --maps out/class-maps/train-features.12",
    ),
    "filter-health": ("convscope filter-health surveys/photos", "convscope filter-health surveys/photos --layer features.12"),
    "class-profile": (
        "convscope class-profile surveys/photos features.12",
        "convscope class-profile surveys/photos features.12 --units 3,17 --reduce max",
    ),
}
_LONGEST = 48


def runner(name: str, function: Callable[..., Any], given: set[str]) -> Callable[..., None]:
    """What a derived command does: opens the survey, calls the function, saves the result, prints its summary."""

    def run(**values: Any) -> None:
        from convscope.cli.derive import check_free, free_folder, units
        from convscope.survey import read_survey

        with progress():
            check_free(values["out"])
            survey = read_survey(values["survey"])
            arguments = {key: values[key] for key in given if values[key] not in (None, [])}
            if "units" in arguments:
                arguments["units"] = units(survey, arguments["layer"], arguments["units"])
            if "maps" in arguments:
                arguments["maps"] = _maps(arguments["maps"])
            if "others" in arguments:
                arguments["others"] = [read_survey(path) for path in arguments["others"]]
            if "outputs" in arguments:
                arguments["outputs"] = {label: _number("outputs", value) for label, value in _pairs("outputs", arguments["outputs"])}
            result = function(survey, **arguments)
            where = values["survey"].rstrip("/")
            folder = result.save(values["out"] or free_folder(name, where, arguments.get("layer", ""), resumes=False))
        _finish(result, folder)

    return run


def evaluate(
    detector: Path = typer.Argument(help="Folder that convscope detector has written."),
    surveys: list[str] = typer.Argument(help="Folders or URLs of surveys by the same network."),
    out: Path = typer.Option(None, help="Folder for what is written. Default: out/evaluate/..."),
) -> None:
    """How a detector does on other images.

    Confusion matrices, recall, ROC and precision-recall curves on each survey, beside the network's own output and a linear probe.
    """
    from convscope.analyses.detector_evaluation import detector_evaluation
    from convscope.cli.derive import check_free, free_folder
    from convscope.results.detector import Detector
    from convscope.results.folder import load
    from convscope.survey import read_survey

    with progress():
        check_free(out)
        loaded = load(detector)
        if not isinstance(loaded, Detector):
            raise BadInput(f"{detector}: holds a result of {loaded.technique}, not a detector")
        result = detector_evaluation(loaded, *(read_survey(path) for path in surveys))
        folder = result.save(out or free_folder("evaluate", surveys[0].rstrip("/"), loaded.layer, resumes=False))
    _finish(result, folder)


def query(
    survey: str = SURVEY,
    sql: str = typer.Argument(help="A query in DuckDB's SQL."),
    rows: int = typer.Option(40, help="Rows shown at most; --csv and --json give all.", min=1),
    csv: bool = typer.Option(False, "--csv", help="All rows as CSV."),
    json: bool = typer.Option(False, "--json", help="All rows as JSON."),
) -> None:
    """SQL over a survey.

    Views: images, skipped, layers, channels, classes, top; values with a row per image, layer and channel; rows, the same with lists.
    """
    from convscope.survey import read_survey

    if csv and json:
        raise BadInput("--csv and --json exclude each other")
    found = read_survey(survey).query(sql)
    if csv:
        _write_csv(found.column_names, found.to_pylist())
    elif json:
        _write_json(found.to_pylist())
    else:
        _write_table(found.column_names, found.slice(0, rows).to_pylist(), found.num_rows)


def _write_table(names: Sequence[str], rows: list[dict[str, Any]], count: int) -> None:
    numeric = [bool(rows) and all(isinstance(row[name], (int, float, type(None))) for row in rows) for name in names]
    print_table("", names, [[_cell(row[name]) for name in names] for row in rows], right=numeric)
    more = f"; the first {len(rows)} are shown, --rows, --csv or --json give more" if count > len(rows) else ""
    typer.echo(f"{count} row{'s' if count != 1 else ''}{more}")


def _write_csv(names: Sequence[str], rows: list[dict[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_text(row[name]) for name in names] for row in rows)


def _write_json(rows: list[dict[str, Any]]) -> None:
    sys.stdout.write(json.dumps([{name: _plain(value) for name, value in row.items()} for row in rows], indent=1, ensure_ascii=False))
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    """A value as JSON has it: bytes as hexadecimal digits, what is not a number as null."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _text(value: Any) -> Any:
    plain = _plain(value)
    return json.dumps(plain) if isinstance(plain, list) else plain


def _cell(value: Any) -> str:
    """A value in one short line of a table."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        inner = ", ".join(_cell(each) for each in value[:4])
        return f"[{inner}, ... {len(value)} in all]" if len(value) > 4 else f"[{inner}]"
    text = str(value)
    return text if len(text) <= _LONGEST else f"...{text[-_LONGEST + 3 :]}"


def _maps(given: list[str]) -> Any:
    """Class maps from a folder that holds them, or from words such as ``ants=3,17``."""
    if len(given) == 1 and "=" not in given[0]:
        from convscope.analyses.class_maps import ClassMaps
        from convscope.results.folder import load

        loaded = load(given[0])
        if not isinstance(loaded, ClassMaps):
            raise BadInput(f"--maps {given[0]}: holds a result of {loaded.technique}, not class maps")
        return loaded
    return {label: [_number("maps", part) for part in value.split(",")] for label, value in _pairs("maps", given)}


def _pairs(option: str, given: list[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for text in given:
        label, _, value = text.rpartition("=")
        if not label or not value:
            raise BadInput(f"--{option} {text}: expected {LISTS[option]}")
        pairs.append((label, value))
    return pairs


def _number(option: str, text: str) -> int:
    if not text.strip().isdigit():
        raise BadInput(f"--{option}: {text!r} is not a number; expected {LISTS[option]}")
    return int(text)


def _finish(result: Any, folder: Path) -> None:
    typer.echo(result.summary())
    print_written([(folder / "figure.png", "the figure"), (folder, "arrays and manifest; convscope.load reads them")])
