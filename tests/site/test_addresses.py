from __future__ import annotations

import re

import numpy as np
import pytest

from convscope.site import addresses

NAMES = [
    "features.12",
    "",
    ".",
    "..",
    "../../etc/passwd",
    "Mixed_5b",
    "mixed_5b",
    "a/b:c\\d",
    "con",
    "CON.txt",
    "nul.relu",
    "com1",
    "lpt9.x",
    "end.",
    "~41",
    "~",
    "features.0@input",
    "block:1",
    "</script>",
    "\u2028",
    "über",
    "\ud800",
    "a b",
    "-rf",
    "%2e%2e",
    "x" * 60,
]


@pytest.mark.parametrize("place", range(len(NAMES)))
def test_a_name_comes_back(place: int) -> None:
    name = NAMES[place]
    text = addresses.encode(name)
    assert addresses.decode(text) == name
    assert re.fullmatch(r"[a-z0-9._~-]+", text)
    assert not text.startswith((".", "-")) and not text.endswith(".")
    assert not re.match(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", text)


def test_random_names_come_back_and_stay_apart() -> None:
    # letters that matter: both cases, separators, dots, the escape itself, characters of several bytes
    letters = [*list("abAB01._-~/\\:*?<>|\"' %&="), "é", "漢", "😀", "\u2029", "\x00", "\x7f"]
    generator = np.random.default_rng(0)
    names = {"".join(generator.choice(letters, generator.integers(0, 9))) for _ in range(4000)}
    texts = {name: addresses.encode(name) for name in names}
    assert all(addresses.decode(text) == name for name, text in texts.items())
    assert len({text.lower() for text in texts.values()}) == len(names)


def test_no_two_files_of_a_site_share_an_address() -> None:
    layers = ["a", "a.html", "a.js", "0", "A", "output.html"]
    found = [make(layer) for layer in layers for make in (addresses.layer_page, addresses.layer_data, addresses.layer_weights)]
    found += [addresses.unit_page(layer, unit) for layer in layers for unit in (0, 1)]
    found += [addresses.unit_image(layer, 0, copy, ".avif") for layer in layers for copy in (0, 1)]
    found += [addresses.unit_projections(layer, 0, ".avif") for layer in layers]
    found += [addresses.layer_sheet(layer, 0, ".avif") for layer in layers]
    assert len({address.lower() for address in found}) == len(found)
    folders = {address.rpartition("/")[0] for address in found}
    assert not folders & set(found)


def test_the_way_to_the_root() -> None:
    assert addresses.root_of("index.html") == ""
    assert addresses.root_of("unit/a/0.html") == "../../"
