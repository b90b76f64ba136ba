"""A command from a function's signature: positional arguments for what has no default, options for the rest, by types alone.

Help comes from the docstring. `convscope.cli.derive:x_y` is the command of the technique `x_y`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import Parameter
from cyclopts.token import Token

import convscope
from convscope.cli import words
from convscope.cli.docstrings import read_docstring, techniques
from convscope.cli.running import OPTIONS, SAVERS, SUBJECTS, chooses_units, opening_of, run_technique, subjects_of, units_of
from convscope.cli.show import answering
from convscope.names import SomeUnits, Units
from convscope.render import Format

_EDITS = "Written own, map=3, map=0-4, reallocate=0 or purposeful=STYLE.jpg."

PLAIN = (int, float, str, bool, Path, NoneType)
"""Types that cyclopts reads by itself, beside Literal."""


UNITS = "UNITS"
"""What units look like; they are always an option."""


class Word(str):
    """What a converter reads. No `str`: where pydantic is loaded, cyclopts would have it check that what the converter gives is one."""


@dataclass(frozen=True)
class Written:
    """How values of a type are written.

    Attributes:
        kind: The type.
        read: A word to a value; all words of an argument to one value, if `several`; None where cyclopts knows by itself.
        form: What a value looks like, shown beside the option.
        help: What to say of it after the docstring's text.
        several: Whether an argument takes several words.
        default: What None is called.
    """

    kind: Any
    read: Callable[[Any], Any] | None
    form: str | None = None
    help: str = ""
    several: bool = False
    default: str | None = None


def known_types(*, network: bool) -> list[Written]:
    """The types that are written in a way of their own; those of networks load torch."""
    from convscope.results.base import Result
    from convscope.results.class_maps import ClassMaps
    from convscope.survey.survey import Survey

    known = [
        Written(Units, words.units, UNITS, 'Written 0,3,8-11, names, or "all".'),
        Written(SomeUnits, words.some_units, UNITS, "Written 0,3,8-11, or names."),
        Written(tuple[int, int], words.position, "Y,X"),
        Written(int | tuple[int, int], words.pair, "N|NxN", "Written 16, or 16x32 (down, across)."),
        Written(str | Sequence[str], words.names, "NAME,..."),
        Written(Sequence[str], words.several_names, "NAME,..."),
        Written(Mapping[str, int], words.numbers_of, "NAME=N...", several=True),
        Written(Mapping[str, int | str], words.named, "LABEL=CLASS...", several=True),
        Written(
            ClassMaps | Mapping[str, Sequence[int]],
            words.maps,
            "MAPS...",
            "Written as a folder by class-maps, or as LABEL=0,3,8, which may be repeated.",
            several=True,
        ),
        Written(
            Mapping[str, Sequence[int | str]],
            words.lists_of,
            "LABEL=N,...",
            "Written LABEL=0,3,8-11 or LABEL=NAME, which may be repeated.",
            several=True,
        ),
        Written(list[Path], words.folders, "FOLDER...", several=True),
        Written(Result | Mapping[str, Sequence[int]], words.results_units, "MAPS...", several=True),
        Written(Survey, words.survey, "SURVEY"),
        Written(Sequence[Survey], words.surveys, "SURVEY...", several=True),
    ]
    if network:
        from convscope.cli import objectives
        from convscope.ops.codes import Edit
        from convscope.optimize.objective import Objective
        from convscope.optimize.priors import Prior
        from convscope.scope.inputs import Image, Images
        from convscope.techniques.feature_visualization import ObjectiveLike
        from convscope.techniques.fills import Fill
        from convscope.techniques.knockout import Knocked
        from convscope.techniques.style_transfer import Statistic

        known += [
            Written(Knocked, words.units, UNITS, 'Written 0,3,8-11, or "all".'),
            Written(Images, words.images, "IMAGE...", several=True),
            Written(Image, Path, "IMAGE"),
            Written(Fill, words.fill, "FILL"),
            Written(Edit | Sequence[Edit | None], words.edits, "EDIT,...", _EDITS, default="own"),
            Written(Prior | tuple[Prior, float] | Objective, words.prior, "PRIOR", "Written as a name, or with a weight: cvpr2015*0.1."),
            Written(Statistic | Sequence[Statistic], words.names, "NAME,..."),
            Written(ObjectiveLike, objectives.objective, "OBJECTIVE", objectives.HELP),
            Written(Objective, objectives.penalty, "NAME*WEIGHT", objectives.PENALTY_HELP),
        ]
    return known


def __getattr__(name: str) -> Callable[..., Any]:
    """The command of the technique `name`."""
    if name.replace("_", "-") not in techniques():
        raise AttributeError(name)
    function = getattr(convscope, name)
    subjects, signature = subjects_of(function), inspect.signature(function, eval_str=True)
    asked = [item for item in signature.parameters.values() if item.name not in (*subjects, "out")]
    named, *opening = [item for item in _parameters(SUBJECTS[subjects]) if item.name in opening_of(function)]
    own = _parameters(function, asked, network="scope" in subjects)
    if "beside" in signature.parameters:
        own = [_words(item) if item.name == "layer" else item for item in own if item.name != "beside"]
    if chooses_units(signature):
        own += _parameters(units_of, list(inspect.signature(units_of, eval_str=True).parameters.values())[2:])
    own += _parameters(OPTIONS[name]) if name in OPTIONS else []
    written = [_option("out", str | None, None, OUT)] + ([] if name in SAVERS else [_option("format", Format, "png", FORMAT)])
    parameters = sorted([named, *own, *opening, *written], key=lambda item: item.kind)
    usage = " ".join(["convscope", name.replace("_", "-"), *filter(None, map(_required, parameters))])
    if chooses_units(signature):  # --maps may say which
        parameters = [item.replace(default=None) if item.name == "units" else item for item in parameters]

    def run(*given: Any, **options: Any) -> int:
        values = dict(zip((item.name for item in parameters), given, strict=False)) | options
        return run_technique(function, values, usage)

    return _as_command(run, parameters)


OTHER_NAMES = {"classes": ("--classes", "--class")}
"""Options that answer to several names."""

OUT = "Folder to write to. Default: below out/, named after the question."
FORMAT = "File format of the figure."
JSON = "The answer as JSON on standard output."


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command of a function that is no technique."""
    parameters = _parameters(function)
    if len(parameters) < len(inspect.signature(function).parameters):
        raise TypeError(f"{function.__name__}: a parameter is of a type that cannot be written")

    def run(*given: Any, **options: Any) -> Any:
        return function(*given, **options)

    run.__doc__ = read_docstring(inspect.getdoc(function) or "").description
    run.__name__ = function.__name__
    return _as_command(run, parameters)


def _option(name: str, kind: Any, default: Any, text: str, **more: Any) -> inspect.Parameter:
    """An option that is none of a function's own."""
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, Parameter(help=text, **more)]
    )


def _as_command(answer: Callable[..., Any], parameters: Sequence[inspect.Parameter]) -> Callable[..., Any]:
    """A command with the option --json, unless it has one of its own."""
    if any(item.name == "json" for item in parameters):
        run = answer
    else:
        parameters = [*parameters, _option("json", bool, False, JSON, negative=(), show_default=False)]

        def run(*given: Any, json: bool = False, **options: Any) -> Any:
            with answering(as_json=json):
                return answer(*given, **options)

        run.__doc__, run.__name__ = answer.__doc__, answer.__name__
    run.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {item.name: item.annotation for item in parameters}
    return run


def _parameters(
    function: Callable[..., Any], items: Iterable[inspect.Parameter] | None = None, *, network: bool = False
) -> list[inspect.Parameter]:
    """The command line's form of a function's parameters; those whose values cannot be written have none."""
    texts = read_docstring(inspect.getdoc(function) or "").parameters
    known = known_types(network=network)
    items = inspect.signature(function, eval_str=True).parameters.values() if items is None else items
    found: list[inspect.Parameter] = []
    several = False  # one argument may take several words; further ones are options
    for item in items:
        if (way := _way(item, known)) is None:
            continue
        required = item.default is item.empty and item.kind in (item.POSITIONAL_OR_KEYWORD, item.VAR_POSITIONAL)
        required |= item.kind is item.POSITIONAL_ONLY  # an argument even where it may be left out
        positional = required and way.form != UNITS and not (several and way.several)
        several = several or (positional and way.several)
        found.append(_parameter(item, way, f"{texts.get(item.name, '')} {way.help}".strip(), positional=positional))
    return found


def _way(item: inspect.Parameter, known: Iterable[Written]) -> Written | None:
    """How a parameter's values are written; None if they cannot be."""
    if item.kind is item.VAR_KEYWORD:
        return Written(item.annotation, words.settings, "NAME=VALUE", several=True)
    kind = Sequence[item.annotation] if item.kind is item.VAR_POSITIONAL else item.annotation
    for way in known:
        if {*_members(way.kind), NoneType} == {*_members(kind), NoneType}:
            return way
    plain = [member for member in _members(kind) if member in PLAIN or get_origin(member) is Literal]
    return Written(Union[tuple(plain)], None) if set(plain) - {NoneType} else None  # noqa: UP007


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if isinstance(kind, UnionType) or get_origin(kind) is Union else (kind,)


def _parameter(item: inspect.Parameter, way: Written, text: str, *, positional: bool) -> inspect.Parameter:
    """One argument or option."""
    name = "set" if item.kind is item.VAR_KEYWORD else item.name
    more: dict[str, Any] = {} if positional else {"name": OTHER_NAMES.get(name, (f"--{name.replace('_', '-')}",))}
    if way.read is not None:
        more["converter"] = _converter(way)
        more |= {"negative": (), "consume_multiple": not positional} if way.several else {}
    if way.form:
        more["metavar"] = way.form
    if item.default is False:
        more |= {"negative": (), "show_default": False}
    if item.default is None or way.default:
        more["show_default"] = way.default or False
    kind = (list[Word] if way.several else Word) if way.read is not None else way.kind
    default = None if item.kind is item.VAR_KEYWORD else item.default
    return inspect.Parameter(
        name,
        inspect.Parameter.POSITIONAL_ONLY if positional else inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[kind if default is not None else kind | None, Parameter(help=text, **more)],
        default=inspect.Parameter.empty if item.kind is item.VAR_POSITIONAL else default,
    )


def _words(layer: inspect.Parameter) -> inspect.Parameter:
    """In place of a layer: it and further surveys, in any order; :func:`convscope.cli.words.layer_and_surveys` tells them apart."""
    text = "The layer (default: the last one scanned that has maps), and surveys by other networks to show beside."
    kind = Annotated[list[str] | None, Parameter(help=text, negative=())]
    return layer.replace(name="words", kind=inspect.Parameter.POSITIONAL_ONLY, annotation=kind, default=None)


def _converter(way: Written) -> Callable[[Any, Sequence[Token]], Any]:
    def convert(_kind: Any, tokens: Sequence[Token]) -> Any:
        given = [token.value for token in tokens]
        return way.read(given if way.several else given[0]) if way.read is not None else given

    return convert


def _required(item: inspect.Parameter) -> str:
    """How what cannot be left out is written: "LAYER", "--units UNITS"; nothing for the rest."""
    if item.default is not item.empty:
        return ""
    return item.name.upper() if item.kind is item.POSITIONAL_ONLY else f"--{item.name} {item.name.upper()}"
