"""Results saved as folders: ``arrays.safetensors``, ``figure.png`` and, written last, ``manifest.json``.

A folder without a manifest holds no finished result.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from convscope import render
from convscope.errors import BadInput, ConvscopeError, StoreConflict
from convscope.files import jsonable, local_path, read_file, read_json, write_synced
from convscope.receipts import png_bytes, published_bytes, read_receipt
from convscope.render import Format
from convscope.render.panels import View
from convscope.results.base import Result
from convscope.results.classes import result_class
from convscope.results.coding import decode, encode
from convscope.results.gallery import is_gallery
from convscope.text import one_line

SCHEMA = 1
"""Version of the folder's layout; a reader refuses what is newer."""

_ARRAYS, _FIGURE, _INDEX, _MANIFEST = "arrays.safetensors", "figure", "index.html", "manifest.json"
_DTYPES = "biuf"
_LONGEST = 120
"""Most characters of a sheet's file name."""


def save(result: Result, folder: str | Path, *, figure: bool | Format = True, overwrite: bool = False) -> Path:
    """Writes a result into a folder, all or nothing.

    Where the result has sheets, each is a PNG of its own, and ``index.html`` shows the figure with links to them.
    Everything is written into a hidden folder beside it, which is renamed when it is complete: a crash leaves no unfinished result. A
    figure that cannot be drawn is left out with a warning, since the arrays may have taken hours.

    Args:
        result: Any result; its plain fields may hold numbers, text, arrays, and tuples, lists and mappings of those.
        folder: Created together with the folders above it; may exist if empty.
        figure: The format of the figure; True: "png"; False: none, and matplotlib is not loaded. Sheets are PNGs.
        overwrite: Whether a saved result of the same technique is replaced, at the moment when the new one is complete.

    Returns:
        The folder.

    Raises:
        StoreConflict: The folder already holds something, or is a file.
        BadInput: A field holds something that cannot be stored, the folder is a URL, or there is no such format.
    """
    folder, form = local_path(folder), "png" if figure is True else figure
    if form is not False and form not in get_args(Format):
        raise BadInput(f"figure must be True, False or one of {', '.join(get_args(Format))}, got {one_line(repr(figure), 60)}")
    replaces = overwrite and _is_result_alone(folder, result.technique)
    if not replaces:
        _check_free(folder)
    arrays, head = _encode(result)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        temporary.mkdir()
    except OSError:
        if not folder.is_dir():
            raise
        temporary = folder / temporary.name  # the folder may be written to, the one above it not
        temporary.mkdir()
    try:
        _write(result, temporary, arrays, head, form)
        (_replace if replaces else _rename)(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync_folder(folder.parent)
    return folder


def load(folder: str | Path) -> Result:
    """Reads what :func:`save` wrote: the same arrays bit for bit, and equal plain fields.

    Results of this library have their own class. A result class defined elsewhere is used if this process has defined it; otherwise
    the result gets a class with the same name and fields.

    Raises:
        BadInput: `folder` is no path.
        StoreConflict: There is no such folder, it is unfinished or damaged, or a newer version of convscope wrote it.
    """
    folder = local_path(folder)
    head = _read_manifest(folder)
    stored = _read_arrays(folder, head)
    try:
        if not isinstance(head["manifest"], dict):
            raise TypeError("its provenance is no table")
        cls = result_class(head["class"], head["module"], head["fields"], list(head["extras"]))
        fields: dict[str, Any] = {declared["name"]: stored[declared["name"]] for declared in head["fields"]}
        fields.update((name, decode(value, stored)) for name, value in head["extras"].items())
        result = cls(**fields, manifest=head["manifest"])
        if cls.__module__.startswith("convscope."):
            object.__setattr__(result, "loaded_from", str(folder))
        return result
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreConflict(f"{folder}: {_MANIFEST} is damaged ({type(error).__name__}: {error})") from error


def _check_free(folder: Path) -> None:
    if folder.is_dir():
        if any(folder.iterdir()):
            what = "a finished result" if (folder / _MANIFEST).exists() else "other files"
            raise StoreConflict(f"{folder}: already holds {what}; choose another folder, or replace it (overwrite=True)")
    elif folder.exists() or folder.is_symlink():
        raise StoreConflict(f"{folder}: is not a folder")


def _is_result_alone(folder: Path, technique: str) -> bool:
    """Whether a folder holds a finished result of a technique and nothing besides.

    Raises:
        StoreConflict: It holds a result and other files, or another technique's result.
    """
    if not (folder / _MANIFEST).exists():
        return False
    if (held := _read_manifest(folder).get("technique")) != technique:
        raise StoreConflict(f"{folder}: holds a result of {one_line(str(held))}, which one of {technique} does not replace")
    ours = {_MANIFEST, _ARRAYS, _INDEX, *map(_figure_name, get_args(Format))}
    others = [path.name for path in sorted(folder.iterdir()) if path.name not in ours and not _is_sheet(path)]
    if others:
        raise StoreConflict(f"{folder}: holds {one_line(', '.join(others[:3]))} besides the result, so it is not replaced")
    return True


def _is_sheet(path: Path) -> bool:
    """Whether a file is a figure with a receipt."""
    try:
        return path.suffix == ".png" and bool(read_receipt(path))
    except ConvscopeError:
        return False


def _replace(temporary: Path, folder: Path) -> None:
    """Puts the new folder in the place of the old one, which is put back if that fails."""
    aside = folder.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        folder.rename(aside)
        try:
            temporary.rename(folder)
        except OSError:
            aside.rename(folder)
            raise
    except OSError as error:
        raise StoreConflict(f"{folder}: cannot be replaced ({error.strerror})") from error
    shutil.rmtree(aside, ignore_errors=True)


def _encode(result: Result) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays to store and the manifest without what is only known once the files are written."""
    arrays = {field.name: field.array for field in result.arrays()}
    fields = [
        {"name": field.name, "axes": list(field.axes), "kind": field.kind, "unit": field.unit, "shape": list(field.array.shape)}
        for field in result.arrays()
    ]
    extras = {name: encode(value, name, arrays) for name, value in result.extras().items()}
    for name, array in arrays.items():
        if array.dtype.kind not in _DTYPES:
            raise BadInput(f"the field {name} is an array of {array.dtype}, which a stored result cannot hold")
    cls = type(result)
    head = {
        "schema": SCHEMA,
        "technique": cls.technique,
        "class": cls.__name__,
        "module": cls.__module__,
        "fields": fields,
        "extras": extras,
    }
    return arrays, {**head, "manifest": jsonable(result.manifest)}


def _write(result: Result, folder: Path, arrays: Mapping[str, np.ndarray], head: dict[str, Any], form: Format | Literal[False]) -> None:
    from safetensors.numpy import save as pack

    data = pack({name: _native(array) for name, array in arrays.items()})
    write_synced(folder / _ARRAYS, data)
    head["arrays"] = {"file": _ARRAYS, "sha256": hashlib.sha256(data).hexdigest()}
    drawn = _drawn(result, form) if form else None
    if form and drawn is not None:
        write_synced(folder / _figure_name(form), drawn)
    head["figure"] = _figure_name(form) if form and drawn is not None else None
    if drawn is not None and (sheets := result.sheets()):
        _write_sheets(result, folder, sheets)
    write_synced(folder / _MANIFEST, json.dumps(head, indent=1, ensure_ascii=False, allow_nan=False).encode())
    _sync_folder(folder)


def _write_sheets(result: Result, folder: Path, sheets: Mapping[str, View]) -> None:
    """A PNG for each sheet, called by its name, and an HTML page with the figure and links to them."""
    links: dict[str, str] = {}
    for name, view in sheets.items():
        plain = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip(".-")[:_LONGEST] or "sheet"
        taken = {file.casefold() for file in (*links.values(), _figure_name("png"), _INDEX)}
        numbered = (f"{plain}{f'-{count}' if count else ''}.png" for count in itertools.count())
        file = next(file for file in numbered if file.casefold() not in taken)
        if (drawn := _drawn(result, "png", view)) is not None:
            write_synced(folder / file, drawn)
            links[name] = file
    write_synced(folder / _INDEX, render.index(result.view(), links, result.manifest).encode())


def _figure_name(form: str) -> str:
    return f"{_FIGURE}.{form}"


def _drawn(result: Result, form: Format, view: View | None = None) -> bytes | None:
    """The result's figure, or one of its sheets, as a file with the manifest in it; None with a warning where it cannot be drawn."""
    try:
        figure = result.figure() if view is None else render.figure(view)
        if form in ("svg", "pdf"):
            return render.encode_lines(figure, form, json.dumps(jsonable(result.manifest), ensure_ascii=False, allow_nan=False))
        pixels = render.pixels(figure)
        return png_bytes(pixels, result.manifest) if form == "png" else published_bytes(pixels, result.manifest, ".webp", lossless=True)
    except Exception as error:
        warnings.warn(f"{result.technique}: saved without a figure ({type(error).__name__}: {error})", RuntimeWarning, stacklevel=4)
        return None


def _native(array: np.ndarray) -> np.ndarray:
    """The array in C order and this machine's byte order, which is what safetensors writes."""
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def _rename(temporary: Path, folder: Path) -> None:
    try:
        if temporary.parent == folder:
            if [path for path in folder.iterdir() if path != temporary]:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
            # the manifest last: without it there is no finished result
            for path in sorted(temporary.iterdir(), key=lambda path: path.name == _MANIFEST):
                path.rename(folder / path.name)
            temporary.rmdir()
            return
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()  # an empty folder may stand in the way; the system refuses to remove or replace one that was filled meanwhile
        temporary.rename(folder)
    except OSError as error:
        raise StoreConflict(f"{folder}: came into use while the result was written ({error.strerror})") from error


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise StoreConflict(f"{folder}: there is no such folder")
    try:
        head = read_json(folder / _MANIFEST)
    except FileNotFoundError:
        if is_gallery(folder):
            raise StoreConflict(f"{folder}: is a gallery, a folder of images; read it with convscope.read_gallery(folder)") from None
        raise StoreConflict(f"{folder}: holds no finished result ({_MANIFEST} is missing)") from None
    except (OSError, ValueError) as error:
        raise StoreConflict(f"{folder}: {_MANIFEST} cannot be read ({error})") from error
    if isinstance(head, dict) and head.get("technique") == "scan":
        raise StoreConflict(f"{folder}: is a survey, no result; open it with convscope.read_survey")
    schema = head.get("schema") if isinstance(head, dict) else None
    if not isinstance(schema, int):
        raise StoreConflict(f"{folder}: {_MANIFEST} is not that of a convscope result")
    if schema > SCHEMA:
        raise StoreConflict(f"{folder}: written by a newer convscope (layout {schema}, this one reads up to {SCHEMA})")
    missing = {"technique", "class", "module", "fields", "extras", "arrays", "manifest"} - set(head)
    if missing:
        raise StoreConflict(f"{folder}: {_MANIFEST} is damaged (without {', '.join(sorted(missing))})")
    return head


def _read_arrays(folder: Path, head: Mapping[str, Any]) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as unpack

    try:
        data = read_file(folder / _ARRAYS)
    except OSError as error:
        raise StoreConflict(f"{folder}: {_ARRAYS} cannot be read ({one_line(error)})") from error
    declared = head["arrays"].get("sha256") if isinstance(head["arrays"], dict) else None
    if hashlib.sha256(data).hexdigest() != declared:
        raise StoreConflict(f"{folder}: {_ARRAYS} is damaged (its checksum is not the one in {_MANIFEST})")
    try:
        arrays = unpack(data)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:  # the latter for types that NumPy has not
        raise StoreConflict(f"{folder}: {_ARRAYS} is damaged, or holds types that NumPy has not ({one_line(error)})") from error
    for array in arrays.values():
        array.setflags(write=False)
    return arrays
