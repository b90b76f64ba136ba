"""Builds the pages of a site from its survey and the images that are there, the whole or what a few new images change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from convscope.names import OUTPUT
from convscope.render.html import STYLE
from convscope.site import addresses
from convscope.site.content import SHEET, Content, Options
from convscope.site.images import Thumbnails, photograph_bytes, sheet_styles
from convscope.site.live import LICENCE, MODEL, NETWORK, RUNTIME, Live, licence_text, near_address, near_script, runtime_script
from convscope.site.pages import Pages
from convscope.site.write import Writer
from convscope.survey.survey import Survey

MOST_IMAGES = 2000
"""Of a larger folder, only those images have a page that some unit or mistake shows."""


class Site:
    """The site of a survey.

    Args:
        survey: The survey.
        root: Folder of the site.
        options: What is shown.
        facts: What all pages say of the network and the images.
    """

    def __init__(self, survey: Survey, root: Path, options: Options, facts: Mapping[str, Any]) -> None:
        self.content = Content(survey, root, options)
        self.writer = Writer(root)
        self.stored = self._stored()
        self.pages = Pages(self.content, self.stored, facts)
        self._thumbnails = Thumbnails(self.content)

    def write(self, advance: Callable[[int], None] = lambda _: None) -> None:
        """Writes every page, and removes pages of what is no longer shown."""
        write, pages, options = self.writer.write, self.pages, self.content.options
        static = files("convscope.site").joinpath("static")
        write("static/atlas.css", STYLE + static.joinpath("atlas.css").read_text(encoding="utf-8"))
        write("static/atlas.js", static.joinpath("atlas.js").read_text(encoding="utf-8"))
        write("static/sheets.css", sheet_styles(self.content))
        self._photographs(advance)
        for name in [*self.content.layers, OUTPUT]:
            self.write_layer(name)
            self.write_units(name, options.units.get(name, ()), advance)
        for label in self.content.other_labels:
            write(addresses.label_page(label), pages.label(label))
        for image in sorted(self.stored):
            self.write_image(image)
            advance(1)
        write("search.js", pages.search())
        self._live()
        for address, page in (("about.html", pages.about()), ("compare.html", pages.compare()), ("index.html", pages.network())):
            write(address, page)
        if self.content.wrong:
            write("mistakes.html", pages.mistakes())
        else:
            (self.content.site / "mistakes.html").unlink(missing_ok=True)
        self._clean()

    def steps(self) -> int:
        """How often :meth:`write` advances."""
        return 2 * len(self.stored) + sum(map(len, self.content.options.units.values()))

    def write_units(self, name: str, units: Iterable[int], advance: Callable[[int], None] = lambda _: None) -> None:
        """Writes the pages of some units of a layer; of "output", of classes."""
        for unit in units:
            page = self.pages.classes(unit) if name == OUTPUT else self.pages.unit(name, unit)
            self.writer.write(addresses.unit_page(name, unit), page)
            advance(1)

    def write_image(self, image: int) -> None:
        """Writes the page of an image, if it has one."""
        if image in self.stored:
            self.writer.write(addresses.image_page(image), self.pages.image(image))

    def write_layer(self, name: str, units: Iterable[int] | None = None) -> None:
        """Writes the page of a layer, and its sheets of thumbnails, or those of them that show some units."""
        shown = self.content.options.units.get(name, ())
        places = range(len(shown)) if units is None else (self.content.place_of(name, unit) for unit in units)
        for sheet in sorted({place // SHEET for place in places}):
            address = addresses.layer_sheet(name, sheet, self.content.options.suffix)
            self.writer.write(address, self._thumbnails.sheet(name, sheet))
        self.writer.write(addresses.layer_data(name), self.pages.layer_data(name))
        self.writer.write(addresses.layer_page(name), self.pages.layer(name))

    def _live(self) -> None:
        """Writes the live page and what it loads; the network itself is there already, or is not."""
        if not self.content.options.live:
            return
        write, live = self.writer.write, Live.read(self.content.site)
        static = files("convscope.site").joinpath("static")
        for name in ("live.js", "live-worker.js"):
            write(f"static/{name}", static.joinpath(name).read_text(encoding="utf-8"))
        write("live.html", self.pages.live(live))
        write(NETWORK, self.pages.live_data(live))
        rows = [self.content.survey.row(image) for image in sorted(self.stored)]
        for name in [*self.content.layers, OUTPUT]:
            write(near_address(name), near_script(self.content, name, rows))
        if live is not None and not live.reason:
            write(RUNTIME, runtime_script())
            write(LICENCE, licence_text())

    def _photographs(self, advance: Callable[[int], None]) -> None:
        survey = self.content.survey
        for image in sorted(self.stored):
            address = addresses.image_file(image)
            if self.content.options.photographs and not (self.content.site / address).exists():
                data = photograph_bytes(self.content, survey.row(image))
                if data is not None:
                    self.writer.write(address, data)
            advance(1)

    def _stored(self) -> frozenset[int]:
        """Numbers of the images with a page."""
        content = self.content
        ids = content.survey.ids
        if len(ids) <= MOST_IMAGES:
            return frozenset(ids.tolist())
        found: set[int] = {int(ids[row]) for row in content.mistakes()}
        for name, units in content.options.units.items():
            known = content.layer(name)
            for unit in units:
                found.update(crop.image for crop in known.strongest(unit))
        return frozenset(found)

    def _clean(self) -> None:
        """Removes pages and files that are no longer part of the site; images by feature visualization always stay."""
        content, suffix = self.content, self.content.options.suffix
        pages: set[str] = {addresses.label_page(label) for label in content.other_labels}
        sheets: set[str] = set()
        for name, units in content.options.units.items():
            pages |= {addresses.layer_page(name), addresses.layer_data(name), *(addresses.unit_page(name, unit) for unit in units)}
            sheets |= {addresses.layer_sheet(name, number, suffix) for number in range(-(-len(units) // SHEET))}
        pages |= {addresses.image_page(image) for image in self.stored}
        photographs = {addresses.image_file(image) for image in self.stored} if content.options.photographs else set[str]()
        live = Live.read(content.site)
        if content.options.live:
            pages |= {NETWORK, *(near_address(name) for name in [*content.layers, OUTPUT])}
            pages |= {RUNTIME, MODEL, LICENCE} if live is not None and not live.reason else set()
        else:
            (content.site / "live.html").unlink(missing_ok=True)
        self.writer.keep_only("live", (".js", ".txt"), pages)
        for folder in ("unit", "layer", "class", "image", "sheet", "static"):
            self.writer.keep_only(folder, (".html", ".js") if folder != "static" else (), pages)
        self.writer.keep_only("sheet", (suffix,), sheets)
        self.writer.keep_only("image", (".webp",), photographs)


def folder_size(root: Path) -> tuple[int, int]:
    """Number of files below a folder, and their bytes."""
    sizes = [path.stat().st_size for path in root.rglob("*") if path.is_file()]
    return len(sizes), int(np.sum(sizes)) if sizes else 0
