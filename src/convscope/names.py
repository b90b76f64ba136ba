"""Names of layers, units and classes: the layer "output", unit numbers from names, and what is said of an unknown one, with near names."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

from convscope.errors import AmbiguousLayer, BadInput, LayerNotFound, UnitNotFound

OUTPUT = "output"
"""Name of the layer that is the network's output; its units are the classes."""

Units: TypeAlias = int | str | slice | Sequence[int | str] | None
"""Units of a layer: a number, a list, a slice, or None for all; on "output" class names as well."""

SomeUnits: TypeAlias = int | str | Sequence[int | str]
"""Units of a layer where all of them cannot be meant."""


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number: an integer of Python or NumPy, no boolean."""
    return not isinstance(value, bool) and isinstance(value, numbers.Integral)


def no_layer(name: object, known: Iterable[str], where: str, more: str = "", worth: Sequence[str] = ()) -> LayerNotFound:
    """The error of a layer name that a network or survey does not have.

    Args:
        name: What was asked for.
        known: The names there are.
        where: What it was looked for in, "network" or "survey".
        more: What else is said.
        worth: Layers that are worth a look, in call order. Where no name is near, an early, a middle and the last of them are named;
            by default of all.
    """
    names = list(known)
    near = near_names(str(name), names)
    chosen = list(worth or [each for each in names if each != OUTPUT]) or names
    hint = f"near names: {', '.join(near)}" if near else f"it has, among others: {', '.join(early_middle_last(chosen))}"
    return LayerNotFound(f"no layer {name!r} in this {where}; {hint}{more}")


def early_middle_last(names: Sequence[str]) -> list[str]:
    """The first, the middle and the last of some names; all of up to three."""
    return [names[place] for place in sorted({0, len(names) // 2, len(names) - 1} & set(range(len(names))))]


def near_names(name: str, known: Iterable[str], *, count: int = 4) -> list[str]:
    """At most `count` of the known names that are near an unknown one: those that contain it, then those spelled like it."""
    names = list(dict.fromkeys(known))
    lower = {each.lower(): each for each in reversed(names)}
    containing = [each for each in names if name and name.lower() in each.lower()]
    alike = [lower[each] for each in difflib.get_close_matches(name.lower(), lower, n=count, cutoff=0.6)]
    return list(dict.fromkeys([*containing, *alike]))[:count]


def near_hint(name: str, known: Iterable[str]) -> str:
    """ "; near names: a, b" for an error message; "" if no known name is near."""
    near = near_names(name, known)
    return f"; near names: {', '.join(near)}" if near else ""


def place_of(asked: Any, known: Sequence[Any], what: str) -> int:
    """The place of a layer, label or unit among those that a result holds.

    Args:
        asked: Its name or number.
        known: Those there are.
        what: What it is, for the message.

    Raises:
        BadInput: It is not among them.
    """
    if asked in known:
        return known.index(asked)
    shown = ", ".join(map(str, known[:8])) + (", ..." if len(known) > 8 else "")
    raise BadInput(f"{what} {asked!r} is not in this result{near_hint(asked, known) if isinstance(asked, str) else ''}; it holds {shown}")


def layer_name(asked: str, known: Mapping[str, Any]) -> str:
    """A layer's name, or the name that a layer's number stands for: "40" for features.40, as articles count the layers of VGG.

    Args:
        asked: A name, which is returned as it is, or a number.
        known: The layers by name. Where several have the number, those with maps are meant, as classifier.0 of VGG has none.

    Raises:
        AmbiguousLayer: Several layers have that number.
    """
    if asked in known or not asked.isdecimal():
        return asked
    found = [name for name in known if name.rpartition(".")[2] == asked]
    found = [name for name in found if _has_maps(known[name])] if len(found) > 1 else found
    if len(found) > 1:
        listed = ", ".join(found[:4]) + ", ..." * (len(found) > 4)
        raise AmbiguousLayer(f"layer {asked}: {len(found)} layers have this number; say which: {listed}")
    return found[0] if found else asked


def layer_names(asked: Any, known: Mapping[str, Any]) -> Any:
    """:func:`layer_name` of one layer or of several; anything else as it is."""
    if isinstance(asked, str):
        return layer_name(asked, known)
    return [layer_names(each, known) for each in asked] if isinstance(asked, (list, tuple)) else asked


def _has_maps(layer: Any) -> bool:
    """Whether a layer of a network or of a survey has maps."""
    return len(layer.spatial) == 2 if hasattr(layer, "spatial") else layer.height * layer.width > 1


def class_number(target: int | str, count: int, names: Sequence[str]) -> int:
    """The unit of "output" that a class index or name means; a name wins over a number written as text.

    Args:
        target: Index, or name (upper and lower case are the same, as are spaces and underscores where no name is spelled so).
        count: Number of outputs.
        names: Class names, empty where none are known.

    Raises:
        UnitNotFound: No such index.
        BadInput: No such name (near names are listed), or several.
    """
    if isinstance(target, str):
        found = [index for index, name in enumerate(names) if name.lower() == target.lower()]
        found = found or [index for index, name in enumerate(names) if name.lower().replace("_", " ") == target.lower().replace("_", " ")]
        if len(found) == 1:
            return found[0]
        if found:
            raise BadInput(f"class {target!r} is not unique: it is the name of {', '.join(map(str, found))}")
        if not target.isdecimal():
            hint = near_hint(target, names) if names else "; no class names are known, give a number"
            raise BadInput(f"class {target!r} is unknown{hint}")
    return unit_numbers(int(target) if isinstance(target, str) else target, OUTPUT, count)[0]


def unit_numbers(asked: Any, layer: str, count: int, names: Sequence[str] = ()) -> list[int]:
    """The unit numbers meant by a number, a list, a slice or None (all) on a layer; class names are understood on "output".

    Args:
        asked: As :data:`Units`; NumPy integers and arrays are understood as well.
        layer: Layer name.
        count: How many units the layer has.
        names: Class names, empty where none are known.

    Raises:
        UnitNotFound: The layer has no such unit, or none is asked for.
        BadInput: On "output": an unknown class name.
    """
    if asked is None or isinstance(asked, slice):
        chosen: list[Any] = list(range(count))[slice(None) if asked is None else asked]
    elif isinstance(asked, str) or not hasattr(asked, "__iter__"):
        chosen = [asked]
    else:
        chosen = list(asked)
    if layer == OUTPUT:
        chosen = [class_number(unit, count, names) if isinstance(unit, str) else unit for unit in chosen]
    for unit in chosen:
        whole = isinstance(unit, int) or (hasattr(unit, "dtype") and getattr(unit.dtype, "kind", "") in "iu")
        if isinstance(unit, bool) or not whole or not 0 <= unit < count:
            raise UnitNotFound(f"layer {layer} has units 0 to {count - 1}, got {unit!r}")
    if not chosen:
        raise UnitNotFound(f"no unit of layer {layer} asked for: {asked!r} is empty (it has 0 to {count - 1})")
    return [int(unit) for unit in chosen]
