"""Base class of all results: frozen NumPy arrays with declared axes and kinds, and a manifest.

A new technique declares its fields and can be shown, saved and loaded. Constructing a result is the one place where tensors become
arrays: detached, on the CPU, bfloat16 widened to float32, read-only.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Literal, ParamSpec, Self, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike

from convscope import render
from convscope.errors import ConvscopeError, StoreConflict
from convscope.render.panels import View
from convscope.results.default_view import default_view
from convscope.results.table import Rows, columns_of, frame
from convscope.text import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

Shown = TypeVar("Shown", str, bytes)
_MOST_SKIPPED = 5
_CUT = 0.02
"""Share of an image's area from which on it is said that edges were cut off."""

Kind = Literal["image", "heat", "signed", "series", "values", "boxes"]
"""How to display an array: images (c h w) in [0,1], a map >= 0, a map around zero, bars along the last axis, plain numbers, pixel boxes
(y0 x0 y1 x1, end exclusive)."""


class Array:
    """Type of an array field: the constructor takes a tensor, an array or a nested list; the value is always an ``np.ndarray``.

    For type checkers only, which read a field whose type is a descriptor this way. Nothing of it exists at run time.
    """

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type[Any]) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: type[Any]) -> np.ndarray: ...
        def __get__(self, instance: object, owner: type[Any]) -> Self | np.ndarray: ...
        def __set__(self, instance: object, value: ArrayLike) -> None: ...


def axes(names: str, kind: Kind = "values", *, unit: str = "") -> Any:
    """Declares an array field of a result.

    Args:
        names: The axes in order, separated by spaces, e.g. ``"unit c h w"``. Fields that share a name share its length, except
            for the spatial names ``h w y x``, which may differ from field to field.
        kind: How to display the array.
        unit: The physical unit of the values, printed on colour bars and axes.
    """
    return dataclasses.field(metadata={"axes": tuple(names.split()), "kind": kind, "unit": unit})


@dataclasses.dataclass(frozen=True)
class ArrayField:
    """An array of a result with its declaration."""

    name: str
    array: np.ndarray
    axes: tuple[str, ...]
    kind: Kind
    unit: str


_SHOWN = {"summary", "view", "sheets"}
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _in_one_line(method: Callable[Concatenate[Any, _P], _R]) -> Callable[Concatenate[Any, _P], _R]:
    """A method of a result which, where the result was loaded and its parts do not fit together, says that its folder is damaged."""

    @functools.wraps(method)
    def run(self: Any, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return method(self, *args, **kwargs)
        except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            if isinstance(error, ConvscopeError) or not self.loaded_from:
                raise
            what = f"{type(error).__name__}: {one_line(error, 200)}"
            raise StoreConflict(f"{self.loaded_from}: is damaged, its parts do not fit together ({what})") from None

    return run


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """Base of all results. Subclasses are frozen dataclasses whose array fields are declared with :func:`axes`.

    Attributes:
        manifest: Provenance: technique, every parameter, seed, network, weights hash, versions, device, precision.
    """

    technique: ClassVar[str] = "result"
    tabled: ClassVar[Rows] = Rows("")
    """What :meth:`to_frame` has rows for; nothing where a result is no table."""
    loaded_from: ClassVar[str] = ""
    """The folder of a result that was loaded."""
    _free_axes: ClassVar[frozenset[str]] = frozenset(["h", "w", "y", "x"])

    manifest: Mapping[str, Any] = dataclasses.field(default_factory=dict, kw_only=True, repr=False)

    def __init_subclass__(cls) -> None:
        cls.technique = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Result.__repr__  # a dataclass would write one that prints whole arrays
        for name in _SHOWN & cls.__dict__.keys():
            setattr(cls, name, _in_one_line(cls.__dict__[name]))

    def __post_init__(self) -> None:
        lengths: dict[str, tuple[int, str]] = {}
        for field in dataclasses.fields(self):
            if "axes" not in field.metadata:
                continue
            array = to_array(getattr(self, field.name))
            names = field.metadata["axes"]
            if array.ndim != len(names):
                raise TypeError(f"{type(self).__name__}.{field.name} is declared ({' '.join(names)}) but has shape {array.shape}")
            for name, length in zip(names, array.shape, strict=True):
                known, first = lengths.setdefault(name, (length, field.name))
                if known != length and name not in self._free_axes:
                    raise TypeError(f"{type(self).__name__}: axis {name!r} is {known} in {first} but {length} in {field.name}")
            object.__setattr__(self, field.name, array)

    def arrays(self) -> Iterator[ArrayField]:
        """The array fields in order of declaration, each with its axes, kind and unit."""
        for field in dataclasses.fields(self):
            if "axes" in field.metadata:
                yield ArrayField(field.name, getattr(self, field.name), **field.metadata)

    def extras(self) -> dict[str, Any]:
        """The fields that are not arrays (names, statuses, numbers), without the manifest."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if "axes" not in field.metadata and field.name != "manifest"
        }

    def with_manifest(self, manifest: Mapping[str, Any]) -> Self:
        """The same result with another manifest (arrays are shared, not copied)."""
        return dataclasses.replace(self, manifest=dict(manifest))

    def summary(self) -> str:
        """The finding in a few lines of text, as the command line prints it."""
        return repr(self)

    def view(self) -> View:
        """The panels that are shown of the result; by default every field as its kind says."""
        return default_view(self)

    def sheets(self) -> Mapping[str, View]:
        """Further figures by name, where one figure would be too large: each is saved as a file of its own, and an index links to them."""
        return {}

    def figure(self) -> Figure:
        """The result as a matplotlib figure, which a notebook shows by itself."""
        return render.figure(self.view())

    def to_frame(self) -> DataFrame:
        """The result as a pandas data frame: a row for each unit, image or pair, the arrays as columns under their own names.

        Raises:
            NotInstalled: pandas is not installed.
            BadInput: The result is maps or images, no table.
        """
        return frame(columns_of(self))

    def save(self, folder: str | Path, *, figure: bool | render.Format = True, overwrite: bool = False) -> Path:
        """Writes arrays, manifest and figure into `folder` (created; manifest last) and returns it.

        Args:
            folder: Created with the folders above it; may exist if empty.
            figure: The format of the figure, ``figure.svg`` and so on; True: "png"; False: none, and matplotlib is not loaded.
            overwrite: Whether a saved result of the same technique is replaced; a folder with anything else in it is not.

        Raises:
            StoreConflict: The folder already holds something.
            BadInput: No such format.
        """
        from convscope.results import folder as store

        return store.save(self, folder, figure=figure, overwrite=overwrite)

    def _repr_png_(self) -> bytes | None:
        return self._shown(lambda: render.png(self.view()))

    def _repr_html_(self) -> str | None:
        return self._shown(lambda: render.html(self.view(), self.manifest))

    def _shown(self, shown: Callable[[], Shown]) -> Shown | None:
        """`shown()`, or None with a warning if it fails: an error here would hide the whole result in a notebook."""
        try:
            return shown()
        except Exception as error:
            warnings.warn(f"{self.technique}: cannot be shown ({type(error).__name__}: {error})", RuntimeWarning, stacklevel=3)
            return None

    def __repr__(self) -> str:
        shown = ", ".join(f"{item.name}({' '.join(item.axes)})={list(item.array.shape)}" for item in self.arrays())
        return f"{type(self).__name__}({shown})"


@dataclasses.dataclass(frozen=True, eq=False)
class ImageResult(Result):
    """Base of results about images that the caller gave.

    Attributes:
        skipped: Images that could not be read, as (name, reason), in order.
        cut: The share of its area that was cut off at the edges of each image read; 0 for tensors.
    """

    skipped: tuple[tuple[str, str], ...] = dataclasses.field(default=(), kw_only=True)
    cut: tuple[float, ...] = dataclasses.field(default=(), kw_only=True)

    def with_skipped(self, text: str, between: str = " ") -> str:
        """A summary or note, followed by what was not seen: edges that were cut off, and images that were skipped and why."""
        parts = [text]
        most = max(self.cut, default=0.0)
        if most >= _CUT:
            count = sum(share >= _CUT for share in self.cut)
            whose = "the image" if len(self.cut) == 1 else f"{count} of {len(self.cut)} images"
            parts.append(f"Edges are cut off: of {whose} only the middle was used, without up to {100 * most:.0f} % of the area.")
        if self.skipped:
            named = "; ".join(f"{name} ({reason})" for name, reason in self.skipped[:_MOST_SKIPPED])
            more = f"; and {len(self.skipped) - _MOST_SKIPPED} more" if len(self.skipped) > _MOST_SKIPPED else ""
            parts.append(f"{len(self.skipped)} image{'s' if len(self.skipped) > 1 else ''} skipped: {named}{more}.")
        return between.join(filter(None, parts))


def to_array(value: Any) -> np.ndarray:
    """A read-only array with the values of a tensor, array or nested list; bfloat16 and float16 become float32."""
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        return value
    tensor: Any = value
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        tensor = (tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor).numpy()
    array = np.array(tensor)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    array.setflags(write=False)
    return array
