"""A command from a technique's signature: arguments for what has no default, options for the knobs, help from the docstring."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

import convscope
from convscope.cli import reading
from convscope.cli.order import check_order
from convscope.cli.show import print_written, progress
from convscope.errors import BadInput, StoreConflict

if TYPE_CHECKING:
    from convscope.scope import Scope

EXAMPLES = {
    "receptive-field": (
        "convscope receptive-field resnet50 --weights random",
        "convscope receptive-field squeezenet1_0 --layer features.7 --image photo.jpg",
    ),
    "feature-visualization": (
        "convscope feature-visualization squeezenet1_0 features.12 --units 0-15",
        "convscope feature-visualization textures output --units chains,spirals --recipe fourier --set steps=64",
        "convscope feature-visualization my_model.py:build layer4 --weights best.pth --out pictures",
    ),
    "spectrum": (
        "convscope spectrum vgg16_bn features.42 chain.jpg",
        "convscope spectrum squeezenet1_0 features.12 photos/ --weights w.safetensors --pictures pictures/",
    ),
    "activation-grid": (
        "convscope activation-grid squeezenet1_0 photo.jpg",
        "convscope activation-grid vgg19 photo.jpg --layers features.3,features.8,features.35 --units features.35=12",
    ),
    "map-overlay": (
        "convscope map-overlay squeezenet1_0 features.12 photo.jpg --top 60",
        "convscope map-overlay squeezenet1_0 features.12 photos/ --units 12,40 --scale layer",
    ),
    "weight-grid": (
        "convscope weight-grid alexnet features.0",
        "convscope weight-grid alexnet features.3 --mode collated",
    ),
    "hypothesis": (
        "convscope hypothesis vgg16_bn features.42 265 --images chains/ --against others/",
        "convscope hypothesis textures output chains --images data/images/chains --against data/images/dots",
    ),
    "occlusion": (
        "convscope occlusion squeezenet1_0 photo.jpg",
        "convscope occlusion resnet50 photos/ --target 207 --patch 32,48 --stride 4 --fill median",
        "convscope occlusion squeezenet1_0 photo.jpg --layer features.12 --target 40",
    ),
    "deconvnet": (
        "convscope deconvnet squeezenet1_0 features.12 photo.jpg --units 0-15",
        "convscope deconvnet vgg16 features.29 photos/ --units 3,17 --rule guided --weights w.safetensors",
    ),
    "scan": (
        "convscope scan squeezenet1_0 photos/ --out survey",
        "convscope scan resnet50 labels.csv --layers layer4.2,layer3.5 --out survey --domain photo",
        "convscope scan vgg16_bn 'train-*.tar' --out s3://bucket/survey --summary-only --ray auto",
    ),
    **reading.EXAMPLES,
    "inversion": (
        "convscope inversion squeezenet1_0 features.7 photo.jpg",
        "convscope inversion squeezenet1_0 features.3 photo.jpg --edit map=0-4,reallocate=0 --pooling average",
        "convscope inversion squeezenet1_0 features.12 photos/ --prior cvpr2015*0.05 --steps 300",
    ),
    "style-transfer": (
        "convscope style-transfer squeezenet1_0 --content photo.jpg --style paintings/ --statistic gram",
        "convscope style-transfer vgg19 --content photo.jpg --style scream.jpg --size 512",
    ),
    "style-similarity": (
        "convscope style-similarity squeezenet1_0 paintings/",
        "convscope style-similarity vgg19 munch/ gogh/ --groups folder",
    ),
}

Simple = (int, float, str, bool)


class HasUnits(Protocol):
    """A network or a survey: knows the units of its layers."""

    def units(self, layer: str, asked: Any) -> list[int]: ...


def add_technique(app: typer.Typer, name: str) -> None:
    """Adds the command of a technique to `app`."""
    function = getattr(convscope, name.replace("-", "_"))
    described, parameters = _documented(function)
    signature = inspect.signature(function, eval_str=True)
    several_image_sets = sum(map(_holds_images, list(signature.parameters.values())[1:])) > 1
    arguments = [_argument(item, parameters, several_image_sets) for item in list(signature.parameters.values())[1:]]
    reads = next(iter(signature.parameters)) == "survey"
    network = typer.Argument(help="Network: a torchvision name, timm:NAME, file.py:function, or textures.")
    front = [_parameter("survey", str, reading.SURVEY) if reads else _parameter("network", str, network)]
    order = sorted((item for item in arguments if item is not None), key=_place)
    epilog = "Examples:\n\n" + "\n\n".join(EXAMPLES[name])
    lists = {item.name for item in signature.parameters.values() if _names_several(item)}
    pairs = {item.name for item in signature.parameters.values() if _takes_pair(item)}
    given = {item.name for item in order}
    usage = " ".join(["convscope", name, *filter(None, map(_required, [*front, *order]))])
    run = reading.runner(name, function, given) if reads else _runner(name, function, given, lists, pairs, usage)
    common = [item for item in _common(name) if item.name == "out" or not reads]
    run.__signature__ = inspect.Signature([*front, *order, *common])  # type: ignore[attr-defined]
    app.command(name, help=described, epilog=epilog)(run)


def _runner(name: str, function: Callable[..., Any], given: set[str], lists: set[str], pairs: set[str], usage: str) -> Callable[..., None]:
    def run(**values: Any) -> None:
        from convscope.zoo import open as open_network

        out: Path | None = values["out"]
        with progress():
            scope = open_network(
                values["network"], weights=values["weights"] or "pretrained", device=values["device"], precision=values["precision"]
            )
            if name not in SAVERS:
                check_free(out)
            arguments = {key: values[key] for key in given if values[key] not in (None, [])}
            for item in arguments.pop("set", []):
                number = _assignment(item)
                if taken := number.keys() & given:
                    raise BadInput(f"--set {item}: {taken.pop()} is an argument of its own, not a number of the recipe")
                arguments |= number
            if str(arguments.get("unit", "")).isdigit():
                arguments["unit"] = int(arguments["unit"])
            for key in lists & arguments.keys():
                arguments[key] = [part.strip() for part in arguments[key].split(",")]
            for key in pairs & arguments.keys():
                arguments[key] = _pair(key, arguments[key])
            check_order(usage, scope, arguments)
            if isinstance(arguments.get("units"), list):
                arguments["units"] = dict(map(_unit_of_layer, arguments["units"]))
            elif "units" in arguments:
                arguments["units"] = units(scope, arguments["layer"], arguments["units"])
            for key in ("images", "against", "content", "style"):
                if isinstance(arguments.get(key), list):
                    arguments[key] = _paths(arguments[key])
            folder = out or free_folder(name, values["network"], _joined(arguments.get("layer", "")), resumes=name in SAVERS)
            if name in SAVERS:
                written = SAVERS[name](scope, folder, **arguments)
            else:
                result = function(scope, **arguments)
                result.save(folder)
                written = (
                    result.summary(),
                    [(folder / "figure.png", "the figure"), (folder, "arrays and manifest; convscope.load reads them")],
                )
        typer.echo(written[0])
        print_written(written[1])

    return run


def _save_gallery(scope: Scope, folder: Path, layer: str, **arguments: Any) -> tuple[str, list[tuple[Path, str]]]:
    from convscope.galleries.gallery import gallery, write_sheet

    made = gallery(scope, layer, arguments.pop("units", None), folder, **arguments)
    sheet = write_sheet(made, f"{scope.name}, {layer}")
    counts = {status: list(made.status.values()).count(status) for status in dict.fromkeys(made.status.values())}
    words = ", ".join(f"{count} {status}" for status, count in counts.items())
    there = len(made.pictures) - len(made.made)
    summary = f"{len(made.pictures)} pictures: {words}" + (f" ({there} were there already)" if there else "")
    return summary, [(sheet, "all of them on one sheet"), (folder, "a PNG per unit, with receipt (convscope redo)")]


def _save_scan(scope: Scope, folder: str | Path, images: str, **arguments: Any) -> tuple[str, list[tuple[Path, str]]]:
    from convscope.scanner.files import Place
    from convscope.scanner.scan import scan

    scan(scope, images, folder, **arguments)
    found = Place(str(folder)).read_json("manifest.json")
    skipped = f"; {found['skipped']} skipped, see skipped.parquet" if found["skipped"] else ""
    labels = f", {len(found['labels'])} labels" if found["labels"] else ""
    summary = f"{found['images']} images{labels}, {len(found['layers'])} layers{skipped}"
    return summary, [(Path(folder), "the survey: Parquet tables, for convscope's other commands, DuckDB, pandas, Polars")]


SAVERS: dict[str, Callable[..., tuple[str, list[tuple[Path, str]]]]] = {"feature-visualization": _save_gallery, "scan": _save_scan}
"""Techniques that write, and resume, a folder of their own kind."""


def check_free(out: Path | None) -> None:
    """Says at once, and not after the work, that --out is taken.

    Raises:
        StoreConflict: It is.
    """
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreConflict(f"--out {out} is there already; choose another folder")


def units(scope: HasUnits, layer: str, text: str) -> list[int] | None:
    """Units meant by text such as ``0,3,8-11``, ``all``, or class names on the output layer.

    Raises:
        BadInput: It cannot be read that way.
    """
    if text.strip() == "all":
        return None
    chosen: list[int] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        if match := re.fullmatch(r"(\d+)-(\d+)", part):
            first, last = map(int, match.groups())
            if last < first:
                raise BadInput(f"--units {text}: {part} counts backwards")
            scope.units(layer, [first, last])
            chosen += range(first, last + 1)
        elif part.isdigit():
            chosen.append(int(part))
        elif layer == "output":
            chosen += scope.units(layer, [part])
        else:
            raise BadInput(f"--units {text}: {part!r} is neither a number, a range such as 0-15, nor 'all'")
    return chosen


def free_folder(command: str, network: str, layer: str, *, resumes: bool) -> Path:
    """A folder under out/ named after the question; numbered if it is taken, unless the command goes on where it left off."""
    plain = re.sub(r"[^\w.-]+", "-", f"{Path(network).name}-{layer}".strip("-"))
    folder = Path("out") / command / plain
    if resumes:
        return folder
    count = 2
    while folder.exists():
        folder = Path("out") / command / f"{plain}-{count}"
        count += 1
    return folder


def _paths(given: list[Path]) -> Any:
    from convscope.scope.inputs import image_files

    return given[0] if len(given) == 1 else [file for path in given for file in (image_files(path) if path.is_dir() else [path])]


def _assignment(text: str) -> dict[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise BadInput(f"--set {text}: expected NAME=VALUE, e.g. --set steps=64")
    try:
        return {name.strip().replace("-", "_"): ast.literal_eval(value)}
    except (ValueError, SyntaxError):
        return {name.strip().replace("-", "_"): value}


def _argument(item: inspect.Parameter, helps: dict[str, str], several_image_sets: bool) -> inspect.Parameter | None:
    """The command-line form of one parameter of a technique; None if it has none (an objective, say)."""
    words, kind = helps.get(item.name, ""), item.annotation
    if item.name == "out":  # one of the options that all commands share
        return None
    if item.name in reading.LISTS:
        return _parameter(item.name, list[str], typer.Option([], f"--{item.name}", metavar=reading.LISTS[item.name], help=words))
    if item.kind is inspect.Parameter.VAR_KEYWORD:
        return _parameter("set", list[str], typer.Option([], "--set", metavar="NAME=VALUE", help=words + " May be repeated."))
    if _holds_images(item) and item.default is None:
        return _parameter(item.name, Path, typer.Option(None, f"--{item.name}", help=words))
    if _holds_images(item):
        if several_image_sets:
            return _parameter(item.name, list[Path], typer.Option(..., f"--{item.name}", help=words + " Folder or file; may be repeated."))
        return _parameter(item.name, list[Path], typer.Argument(help=words))
    if "Mapping[str, int]" in str(kind):
        return _parameter(item.name, list[str], typer.Option([], f"--{item.name}", metavar="LAYER=UNIT", help=words + " May be repeated."))
    if item.name == "units" and "None for all" not in words:
        return _parameter("units", str, typer.Option(None, "--units", help=f"Units such as 0,3,8-11. {words}"))
    if item.name == "units":
        return _parameter("units", str, typer.Option("all", "--units", help="Units such as 0,3,8-11, all, or class names on output."))
    if item.default is inspect.Parameter.empty:
        return _parameter(item.name, str, typer.Argument(help=words))
    if _takes_pair(item):
        one = "N or N,N" if isinstance(item.default, int) else "N,N"
        default = None if item.default is None else str(item.default)
        return _parameter(item.name, str, typer.Option(default, f"--{item.name}", metavar=one, help=words))
    number = item.default is None and next((plain for plain in (int, float) if kind == plain | None), None)
    if not isinstance(item.default, Simple) and not number and not (item.default is None and "str" in str(kind)):
        return None
    plain = number or (type(item.default) if isinstance(item.default, Simple) else str)
    flag = item.name.replace("_", "-")
    switch = f"--{flag}/--no-{flag}" if plain is bool else f"--{flag}"
    return _parameter(item.name, plain, typer.Option(item.default, switch, help=words))


def _holds_images(item: inspect.Parameter) -> bool:
    """Whether a parameter takes images, and not also a word that says which."""
    return "Image" in str(item.annotation) and not isinstance(item.default, str)


def _joined(layers: str | list[str]) -> str:
    return layers if isinstance(layers, str) else "+".join(layers)


def _names_several(item: inspect.Parameter) -> bool:
    """Whether a parameter takes a list of names, written with commas."""
    return "Sequence[str]" in str(item.annotation) and "Image" not in str(item.annotation) and item.name != "units"


def _takes_pair(item: inspect.Parameter) -> bool:
    """Whether a parameter is one whole number for each axis."""
    return "tuple[int, int]" in str(item.annotation)


def _pair(name: str, text: str) -> int | tuple[int, ...]:
    """`16`, or `16,32`."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise BadInput(f"--{name} {text}: expected a whole number, or two such as 16,32 (down, across)") from None
    return numbers[0] if len(numbers) == 1 else numbers


def _unit_of_layer(text: str) -> tuple[str, int]:
    layer, _, unit = text.rpartition("=")
    if not layer or not unit.isdigit():
        raise BadInput(f"--units {text}: expected LAYER=UNIT, e.g. --units features.12=30")
    return layer, int(unit)


def _common(name: str) -> list[inspect.Parameter]:
    again = " An interrupted run goes on where it stopped." if name in SAVERS else ""
    place = str if name == "scan" else Path  # a scan may write to a URL
    return [
        _parameter("weights", str, typer.Option(None, help="Weights file (.safetensors, .pth), or 'random'. Default: pretrained.")),
        _parameter("out", place, typer.Option(None, help=f"Folder for what is written. Default: out/{name}/...{again}")),
        _parameter("device", str, typer.Option("auto", help="auto, cpu, cuda or cuda:N.")),
        _parameter("precision", str, typer.Option("auto", help="auto, float32 or bfloat16.")),
    ]


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)


def _place(item: inspect.Parameter) -> int:
    """Arguments first, the one that takes many words last among them, then options."""
    if isinstance(item.default, typer.models.ArgumentInfo):
        return 1 if item.annotation == list[Path] else 0
    return 2


def _required(item: inspect.Parameter) -> str:
    """How what cannot be left out is written: "LAYER", "--content CONTENT"; nothing for the rest."""
    if isinstance(item.default, typer.models.ArgumentInfo):
        return item.name.upper()
    return f"--{item.name} {item.name.upper()}" if item.default.default is ... else ""


def _documented(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The first paragraphs of a docstring, and {parameter: its words} from its Args section."""
    text = inspect.cleandoc(function.__doc__ or "")
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text).replace("``", "")
    head = text.split("\nArgs:")[0].strip()
    section = re.search(r"\nArgs:\n(.*?)(?:\n\S|\Z)", text, re.DOTALL)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section.group(1) if section else "", re.MULTILINE)
    return head, {name: " ".join(words.split()) for name, words in found}
