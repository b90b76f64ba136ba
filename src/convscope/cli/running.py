"""What a technique's command does: opens what is asked, calls the technique, saves its result, and says where."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from convscope.cli import words
from convscope.cli.objectives import OfLayer
from convscope.cli.output import reserved, write_somewhere
from convscope.cli.show import print_written, progress, say, tell, wants_rows
from convscope.errors import BadImage, BadInput, LayerNotFound
from convscope.files import in_memory, is_url, without_protocol
from convscope.image_files import SUFFIXES
from convscope.names import is_whole, layer_names
from convscope.results.base import Result
from convscope.results.class_maps import maps_by_class, of_classes
from convscope.results.table import columns_of, plain, records
from convscope.text import printable

if TYPE_CHECKING:
    from convscope.scope import Scope


class Written(NamedTuple):
    """What a command did: a summary, files with what each is, whether a limit that was asked for holds, and the result's table for JSON."""

    summary: str
    files: Sequence[tuple[Path | str, str]]
    passed: bool = True
    rows: Sequence[Mapping[str, Any]] = ()


def open_network(
    network: str,
    *,
    weights: str = "pretrained",
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    output_part: str | None = None,
    size: int | None = None,
    resize: Literal["whole", "crop", "stretch"] | None = None,
) -> Any:
    """Opens a network.

    Args:
        network: A torchvision name, efficientnet_lite0 to 2, timm:NAME, hf:FOLDER, file.py:function, or textures.
        weights: A file (.safetensors, .pth), FILE::KEY for one of several sets in it (last.pth::ema), "pretrained" or "random".
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Number format of the network's computation.
        output_part: Which part of what the network returns is the layer "output": a key, attribute or number, e.g. logits.
        size: Side of the images in pixels, with whole the longer one. Default: the network's own.
        resize: How images are fitted to it: whole (in their own proportions, nothing is cut), crop (their middle), stretch. Default: the
            network's own way, mostly crop.
    """
    from convscope.zoo import open as open_by_name

    opened = open_by_name(network, weights=weights, device=device, precision=precision, output=output_part)
    return opened if size is None and resize is None else opened.reading(size, resize)


FITTING = ("size", "resize")
"""Parameters of :func:`open_network` for techniques that take images."""


def opening_of(function: Callable[..., Any]) -> list[str]:
    """The parameters of the function that opens a technique's subject, as far as the technique's command has them."""
    own = inspect.signature(function).parameters
    fits = not {"images", "image"}.isdisjoint(own) and "size" not in own and function.__name__ != "scan"
    return [name for name in inspect.signature(SUBJECTS[subjects_of(function)]).parameters if fits or name not in FITTING]


def open_survey(survey: str) -> Any:
    """Opens a survey.

    Args:
        survey: Folder that convscope scan has written, or a URL such as s3://bucket/survey.
    """
    from convscope.survey import read_survey

    return read_survey(survey)


def open_detector(detector: str) -> Any:
    """Opens a detector.

    Args:
        detector: Folder that convscope detector has written.
    """
    from convscope.results.detector import Detector

    return words.result(detector, Detector)


def open_both(
    survey: str,
    *,
    network: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
) -> Any:
    """Opens a survey and the network that it was made with.

    Args:
        survey: Folder that convscope scan has written, or a URL such as s3://bucket/survey.
        network: The network, if it is a file of your own; else the survey names it.
        weights: The file of its weights, if it was scanned with one.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Number format of the network's computation.
    """
    opened = open_survey(survey)
    return _open_recorded(opened, survey, network, weights, device=device, precision=precision), opened


def open_with_detector(
    detector: str,
    *,
    network: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
) -> Any:
    """Opens a detector and the network that it was made with.

    Args:
        detector: Folder that convscope detector has written.
        network: The network, if it is a file of your own; else the detector names it.
        weights: The file of its weights, if it was scanned with one.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Number format of the network's computation.
    """
    opened = open_detector(detector)
    return _open_recorded(opened, detector, network, weights, device=device, precision=precision), opened


def _open_recorded(opened: Any, source: str, network: str | None, weights: str | None, **settings: Any) -> Any:
    """The network given, or else the one that a survey or detector names."""
    from convscope.zoo import open as open_by_name
    from convscope.zoo.recorded import open_recorded, recorded_output

    recorded = opened.manifest["network"]
    if network is None:
        return open_recorded(recorded, source, weights=weights, **settings)
    return open_by_name(network, weights=weights or "pretrained", output=recorded_output(recorded), **settings)


SUBJECTS: dict[tuple[str, ...], Callable[..., Any]] = {
    ("scope",): open_network,
    ("survey",): open_survey,
    ("detector",): open_detector,
    ("scope", "survey"): open_both,
    ("scope", "detector"): open_with_detector,
}
"""What techniques are asked of, by the names of their first parameters. The command has the opening function's parameters, too."""


def subjects_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """The first parameters of a technique that a command opens: a key of :data:`SUBJECTS`."""
    parameters = inspect.signature(function).parameters.values()
    required = tuple(item.name for item in parameters if item.default is item.empty)
    return max((key for key in SUBJECTS if required[: len(key)] == key), key=len)


def run_technique(function: Callable[..., Any], values: dict[str, Any], usage: str) -> int:
    """Runs a technique's command.

    Args:
        function: The technique.
        values: What was given, by parameter of the technique and of the function that opens its subject, and "out".
        usage: The command with its required arguments, for messages.

    Returns:
        The exit code: 0, or 1 where a limit that was asked for is exceeded.

    Raises:
        ConvscopeError: A user's mistake.
    """
    signature = inspect.signature(function)
    name, opener = function.__name__, SUBJECTS[subjects_of(function)]
    opening = {key: values.pop(key) for key in opening_of(function) if key in values}
    subject_word, out = next(iter(opening.values())), values.pop("out", None)
    for key, value in values.pop("set", {}).items():
        if key in signature.parameters:
            raise BadInput(f"--set {key}: it has an option of its own, --{key.replace('_', '-')}")
        values[key] = value
    if "beside" in signature.parameters:
        layer, beside = words.layer_and_surveys(values.pop("words", None) or ())
        values |= {"layer": layer, "beside": beside}
    if chooses_units(signature):
        _check_choice(signature, values)
    save = SAVERS.get(name, _save)
    layer, resumes = values.get("layer", ""), save is not _save
    about = [layer if isinstance(layer, str) else "+".join(layer or ()), *([] if resumes else _asked_about(values))]
    folder = without_protocol(out or free_folder(name, subject_word, about, resumes=resumes))
    with progress(), _place(folder, name, resumes=resumes):
        opened = opener(**opening)
        subjects = opened if isinstance(opened, tuple) else (opened,)
        try:
            _name_layers(subjects[0], values)
            if chooses_units(signature):
                _choose_units(signature, values)
            written = save(function, subjects, folder, dict(values))
        except (LayerNotFound, BadImage):
            _check_order(subjects[-1], values, usage)
            raise
    say(written.summary)
    tell(passed=written.passed, **({"rows": written.rows} if written.rows else {}))
    print_written(written.files)
    return 0 if written.passed else 1


def _name_layers(subject: Any, values: dict[str, Any]) -> None:
    """Puts names in place of layers' numbers, and says which; makes objectives that wait for the name of their layer."""
    for key in ("layer", "layers"):
        if (asked := values.get(key)) and hasattr(subject, "layers"):
            values[key] = layer_names(asked, subject.layers)
            if values[key] != asked:
                say(f"layer {words.listing(asked)} is {words.listing(values[key])}", error=True)
    for key, value in values.items():
        if isinstance(value, OfLayer):
            values[key] = value.make(values["layer"])


def chooses_units(signature: inspect.Signature) -> bool:
    """Whether the command of a technique takes --maps and --class in place of --units."""
    return "units" in signature.parameters and "maps" not in signature.parameters


def units_of(
    layer: str, groups: bool, *, maps: Result | Mapping[str, Sequence[int]] | None = None, classes: Sequence[str] | None = None
) -> Any:
    """Units of a layer that a result names.

    Args:
        layer: The layer.
        groups: Whether the units of each class stay apart.
        maps: What names the units, in place of --units: a folder written by class-maps, detector or exemplars, or LABEL=0,3,8.
        classes: The classes of --maps that are meant.

    Raises:
        BadInput: The result is of another layer or names no units; or it has maps of several classes, and none is said.
    """
    own = getattr(maps, "units", None)
    if isinstance(maps, Result) and not hasattr(maps, "maps"):
        if getattr(maps, "layer", "") != layer or not isinstance(own, tuple) or not all(map(is_whole, own)) or classes:
            where = f"layer {getattr(maps, 'layer', '') or 'none'}" if not classes else "no classes"
            raise BadInput(f"--maps: expected class maps or units of layer {layer}, got {maps.technique} of {where}")
        return list(own)
    chosen = of_classes(maps_by_class(maps, layer), classes)
    if groups:
        return chosen
    if classes is None and len(chosen) > 1:
        raise BadInput(f"--maps has maps of {len(chosen)} classes; say of which: --class {next(iter(chosen))}")
    units = list(dict.fromkeys(unit for each in chosen.values() for unit in each))
    if not units:
        raise BadInput(f"class {', '.join(chosen)} has no map of its own; try a smaller per_class")
    return units


def _check_choice(signature: inspect.Signature, values: Mapping[str, Any]) -> None:
    """Raises BadInput if --units, --maps and --class do not go together."""
    if values.get("maps") is None:
        if values.get("classes"):
            raise BadInput("--class says whose maps of --maps are meant; give --maps, too")
        if signature.parameters["units"].default is inspect.Parameter.empty and "units" not in values:
            raise BadInput("which units? Say --units 0,3,8-11, or --maps and the folder of a result that names them")
    elif "units" in values:
        raise BadInput("--units and --maps both say which units; give one of them")


def _choose_units(signature: inspect.Signature, values: dict[str, Any]) -> None:
    """Puts the units that --maps and --class say in place of --units."""
    maps, classes = values.pop("maps", None), values.pop("classes", None)
    if maps is not None:
        values["units"] = units_of(values["layer"], _takes_groups(signature.parameters["units"]), maps=maps, classes=classes)


def _takes_groups(units: inspect.Parameter) -> bool:
    """Whether a technique takes the maps of several classes apart."""
    return "Knocked" in str(units.annotation)


def _save(function: Callable[..., Any], subjects: Sequence[Any], folder: str, values: dict[str, Any]) -> Written:
    several = [item.name for item in inspect.signature(function).parameters.values() if item.kind is item.VAR_POSITIONAL]
    form = values.pop("format", "png")
    result = function(*subjects, *(each for name in several for each in values.pop(name, ())), **values)
    where = write_somewhere(lambda place: result.save(place, figure=form), Path(folder))
    files = [(where / f"figure.{form}", "the figure")]
    files += [(where / "index.html", "the same with links to a figure of each part")] if (where / "index.html").exists() else []
    files += [(where, "arrays and manifest; convscope.load reads them")]
    rows = records(columns_of(result)) if wants_rows() and result.tabled else []
    return Written(result.summary(), files, getattr(result, "passed", True), rows)


def _save_gallery(_function: Callable[..., Any], subjects: Sequence[Scope], folder: str, values: dict[str, Any]) -> Written:
    from convscope.galleries.gallery import gallery
    from convscope.results.feature_visualization import FLAT
    from convscope.results.gallery import write_sheet
    from convscope.results.words import listed

    (scope,), layer = subjects, values.pop("layer")
    if (patience := values.pop("patience", None)) is not None:
        values["patience"] = patience
    made = gallery(scope, layer, values.pop("units", None), folder, **values)
    sheet = write_sheet(made, f"{scope.name}, {layer}")
    statuses = [image.status for image in made]
    counts = {status: statuses.count(status) for status in dict.fromkeys(statuses)}
    states = ", ".join(f"{count} {status}" for status, count in counts.items())
    there = len(made) - len(made.made)
    summary = f"{len(made)} images: {states}" + (f" ({there} were there already)" if there else "")
    summary += "".join(f"\n{state}: {meant}" for state, meant in _STATES.items() if state in counts)
    summary += f"\nended early: {made.saved}" if made.saved else ""
    if flat := [image.unit for image in made if image.flat]:
        summary += f"\n{FLAT}: {listed(flat, 12)}"
    kept = "a PNG per unit, with receipt (convscope redo)" + (", and a WebP of its optimization" if values.get("film") else "")
    rows = [
        {"unit": image.unit, "unit_name": image.unit_name, "copy": image.copy, "score": plain(image.score), "status": image.status}
        | {"path": printable(image.path)}
        for image in made
    ]
    return Written(summary, [(sheet, "all of them on one sheet"), (made.folder, kept)], rows=rows)


def _save_scan(function: Callable[..., Any], subjects: Sequence[Scope], folder: str, values: dict[str, Any]) -> Written:
    manifest = function(*subjects, values.pop("images"), folder, **values).manifest
    skipped = f"; {manifest['skipped']} skipped, see skipped.parquet" if manifest["skipped"] else ""
    labels = f", {len(manifest['labels'])} labels" if manifest["labels"] else ""
    summary = f"{manifest['images']} images{labels}, {len(manifest['layers'])} layers{skipped}"
    return Written(summary, [(folder, "the survey: Parquet tables, for convscope's other commands, DuckDB, pandas, Polars")])


def gallery_options(*, film: bool = False, patience: int | None = None) -> None:
    """Options of the command feature-visualization beside those of the technique.

    Args:
        film: Also write the optimization of each image, as an animated WebP beside its PNG.
        patience: End an image early when so many steps have brought nothing; says what that saved. Default: never.
    """


OPTIONS: dict[str, Callable[..., None]] = {"feature_visualization": gallery_options}
"""Functions whose parameters are further options of a technique's command."""

_STATES = {
    "rescued": "it took redirected ReLUs or another start",
    "stuck": "no image was found that excites the unit; this one means nothing (photographs may excite it: see exemplars of a scan)",
}
"""States of images by feature visualization that want a word."""

_LONGEST = 120
"""Characters of the name of a folder that is named after a question."""

SAVERS: dict[str, Callable[..., Written]] = {"feature_visualization": _save_gallery, "scan": _save_scan}
"""Techniques whose command writes, and resumes, a folder of its own kind."""


def _asked_about(values: Mapping[str, Any]) -> list[str]:
    """The first image, folder or file that a question is about, and the class."""
    paths, target = _several(values.get("images")), values.get("target")
    asked = [Path(str(path)).stem for path in paths[:1]]
    if target is not None:
        asked.append(f"target-{target}" if str(target).isdigit() else str(target))
    return asked


def free_folder(name: str, subject: str, about: Sequence[str], *, resumes: bool) -> str:
    """A folder under out/ named after the question; numbered if it is taken, unless the command goes on where it stopped."""
    question = re.sub(r"[^\w.-]+", "-", "-".join(word for word in (Path(subject).name, *about) if word))[:_LONGEST].strip("-")
    folder = Path("out") / name.replace("_", "-") / question
    count = 2
    while folder.exists() and not resumes:
        folder = folder.with_name(f"{question}-{count}")
        count += 1
    return str(folder)


def _place(folder: str, name: str, *, resumes: bool) -> AbstractContextManager[None]:
    """Checks --out before the work; see :func:`~convscope.cli.output.reserved`."""
    if not is_url(folder):
        return reserved(folder, resumes=resumes)
    if name != "scan":
        raise BadInput(f"--out {folder}: only scan writes to URLs; give a local folder")
    if in_memory(folder):
        raise BadInput(f"--out {folder}: a survey in memory would be gone when the command ends; give a folder or another URL")
    return nullcontext()


def _check_order(subject: Any, values: Mapping[str, Any], usage: str) -> None:
    """Says what comes where, if a layer and an image have changed places."""
    layers = _several(values.get("layer"))
    for text in layers:
        if text not in subject.layers and (Path(text).exists() or Path(text).suffix.lower() in SUFFIXES):
            raise BadInput(f"{text} is {'a file or folder' if Path(text).exists() else 'the name of an image'}, not a layer: {usage}")
    for path in (path for key, value in values.items() if key != "layer" for path in _several(value) if isinstance(path, Path)):
        if not path.exists() and all(name.strip() in subject.layers for name in str(path).split(",")):
            raise BadInput(f"{path} is the name of a layer, not an image: {usage}")


def _several(given: Any) -> Sequence[Any]:
    return given if isinstance(given, (list, tuple)) else () if given is None else (given,)
