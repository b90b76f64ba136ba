"""The site in a real browser, from a file and from a folder of a server: looks, keys, search, sorting, comparing, accessibility."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from test_site import HOSTILE, site_of, survey_of

from convscope.receipts import published_bytes
from convscope.site import addresses
from convscope.site.arrangement import arrange
from convscope.site.content import directions
from convscope.site.tables import ARRANGEMENT, STUDIES, write_table
from convscope.survey import Survey

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (it is in the extra `dev`)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    assert CHROMIUM is not None, "CI needs Chromium: apt-get install chromium"
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("atlas") / "a site"
    survey = survey_of(folder, classes=["kind 0", "kind_1", "Kind 2", "other"])
    arrange_units(survey, folder / "data")
    for unit in (3, 4):
        path = folder / addresses.unit_image("early", unit, 0, ".avif")
        path.parent.mkdir(parents=True, exist_ok=True)
        receipt = {"status": "converged", "score": 1.5, "after_relu": 12.0, "rank": 1, "side": 32}
        path.write_bytes(published_bytes(np.random.default_rng(unit).random((3, 32, 32), np.float32), receipt, ".avif"))
    study_image(folder / "data", 4)
    site_of(survey, folder)
    return folder


def study_image(data: Path, image: int) -> None:
    """Writes the table of occlusion maps that an atlas has beside its survey."""
    shape = {"height": 2, "width": 2, "values": bytes([0, 127, 129, 20])}
    scores = {"base": 1.5, "lowest": -2.0, "largest": 0.5}
    row = {
        "image": image,
        "target": 0,
        "patch": 3,
        "then": 1,
        "positions": 9,
        "own": 2,
        "strip": [{"layer": "early", "unit": 3, "maximum": 2.0, "place": [-6.0, 0.0, 18.0, 12.0]} | shape],
    }
    write_table(data, STUDIES, {key: [value] for key, value in (row | scores | shape).items()}, "")


def arrange_units(survey: Survey, data: Path) -> None:
    """Writes the table of places that an atlas has beside its survey."""
    columns: dict[str, list[Any]] = {key: [] for key in ("layer", "unit", "place", "x", "y")}
    for name in survey.layers:
        for unit, (place, x, y) in enumerate(arrange(directions(survey.mean(name))).tolist()):
            for key, value in zip(columns, (name, unit, int(place), *(None if value != value else value for value in (x, y))), strict=True):
                columns[key].append(value)
    write_table(data, ARRANGEMENT, columns, "")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "site"
    labels: list[str | None] = [f"{HOSTILE}{index % 3}" for index in range(12)]
    classes = [f"{HOSTILE}{index}" for index in range(4)]
    site_of(survey_of(folder, 12, labels=labels, classes=classes, layers=("../a b", HOSTILE), channels=12), folder)
    return folder


class Visit:
    """A page in a browser that notes what must not happen: errors, missing files, requests to elsewhere, dialogs."""

    def __init__(self, browser: Any, base: str, *, width: int = 1280, dark: bool = False, javascript: bool = True) -> None:
        self.base, self.wrong = base, list[str]()
        scheme = "dark" if dark else "light"
        self.context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=javascript)
        self.page = self.context.new_page()
        self.page.on("console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        # leaving a page gives up the images that it still waits for
        self.page.on(
            "requestfailed", lambda asked: None if asked.failure == "net::ERR_ABORTED" else self.wrong.append(f"failed: {asked.url}")
        )
        self.page.on("request", lambda asked: None if asked.url.startswith((base, "data:")) else self.wrong.append(f"outside: {asked.url}"))
        self.page.on("dialog", lambda shown: self.wrong.append(f"dialog: {shown.message}"))

    def open(self, address: str) -> Any:
        self.page.goto(f"{self.base}/{address}")
        return self.page

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()
        if error[0] is None:
            assert self.wrong == []


def from_file(root: Path) -> str:
    return f"file://{quote(str(root))}"


PAGES = [
    "index.html",
    "layer/early.html",
    "layer/output.html",
    "unit/early/3.html",
    "unit/early/5.html",
    "unit/late/2.html",
    "class/1.html",
    "image/4.html",
    "image/5.html",
    "about.html",
    "compare.html#a=unit/early/3.html&b=class/1.html",
]


@pytest.mark.parametrize("look", ["light", "dark and narrow"])
def test_every_kind_of_page(browser: Any, root: Path, look: str) -> None:
    # also tried: 320 and 1920 pixels, light and narrow
    axe = (Path(__import__("axe_playwright_python").__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    with Visit(browser, from_file(root), width=360 if look != "light" else 1280, dark=look != "light") as visit:
        for address in PAGES:
            page = visit.open("about.html") if "#" in address else None
            page = visit.open(address)
            page.wait_for_load_state()
            assert page.evaluate("document.documentElement.scrollWidth") <= (360 if look != "light" else 1280), address
            assert page.title() and page.locator("h1").count() == 1
            page.evaluate(axe)
            # without preload: axe would fetch the style sheet, which a page from a file may not
            found = page.evaluate("axe.run(document, {preload: false, iframes: false})")
            serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
            assert not serious, f"{address}: {[(one['id'], one['nodes'][0]['html'], one['nodes'][0]['failureSummary']) for one in serious]}"


def test_images_are_seen(browser: Any, root: Path) -> None:
    with Visit(browser, from_file(root)) as visit:
        page = visit.open("unit/early/3.html")
        assert page.evaluate("[...document.images].every(one => one.loading === 'lazy' || one.naturalWidth > 0)")
        assert page.locator(".made img").evaluate("one => one.naturalWidth") == 32
        box = page.locator(".nine svg").first.bounding_box()
        assert abs(box["width"] - box["height"]) < 1.5 and box["width"] > 60


def test_an_occlusion_map_lies_over_the_image(browser: Any, root: Path) -> None:
    with Visit(browser, from_file(root)) as visit:
        page = visit.open("image/4.html")
        figure = page.locator("section", has_text="What the verdict rests on").locator(".laid-on").first
        below, above = (figure.locator("img").nth(place) for place in (0, 1))
        assert below.bounding_box() == above.bounding_box() and below.evaluate("one => one.naturalWidth") == 24
        pixels = """one => { const c = document.createElement("canvas"); c.width = c.height = 2; const d = c.getContext("2d");
            d.drawImage(one, 0, 0); return [...d.getImageData(0, 0, 2, 2).data]; }"""
        (_, _, _, none), (red, *_, full), (*_, blue, also), (*_, faint) = (above.evaluate(pixels)[at : at + 4] for at in range(0, 16, 4))
        assert none == 0 and red > 200 < full and blue > 200 < also and 20 < faint < 50
        # two cells over 24 pixels from 6 above the border on, and over the left half; one more cell on each side
        laid = page.locator("section", has_text="Layer by layer").locator(".laid-on").first
        photo, layer = laid.bounding_box(), laid.locator(".map").bounding_box()
        found = [(layer[key] - photo[key]) / photo["width"] for key in ("y", "x")] + [
            layer[key] / photo["width"] for key in ("height", "width")
        ]
        assert found == pytest.approx([-18 / 24, -6 / 24, 48 / 24, 24 / 24], abs=0.01)
        assert "convscope occlusion" in visit.open("image/5.html").locator("main").inner_text()


def test_search(browser: Any, root: Path) -> None:
    with Visit(browser, from_file(root)) as visit:
        for words, wanted in (("early 7", "unit/early/7.html"), ("kind_1", "class/1.html"), ("late", "layer/late.html")):
            page = visit.open("image/4.html")
            page.keyboard.press("/")
            page.keyboard.type(words)
            page.locator("#found a").first.wait_for()
            page.keyboard.press("Enter")
            page.wait_for_url(f"**/{wanted}")
        page = visit.open("unit/early/3.html")
        page.keyboard.press("/")
        page.keyboard.type("12")
        playwright.expect(page.locator("#found a").first).to_have_attribute("href", "../../unit/early/12.html")
        page.keyboard.press("Escape")
        page.locator("#found").wait_for(state="hidden")


def test_keys(browser: Any, root: Path) -> None:
    with Visit(browser, from_file(root)) as visit:
        page = visit.open("unit/early/3.html")
        page.keyboard.press("ArrowRight")
        page.wait_for_url("**/unit/early/4.html")
        page.keyboard.press("ArrowLeft")
        page.wait_for_url("**/unit/early/3.html")
        page.keyboard.press("?")
        page.locator("dialog").wait_for(state="visible")
        page.keyboard.press("Escape")
        page.locator("dialog").wait_for(state="hidden")
        # the focus stays on a closed dialog's button until the next frame: a key in that moment still counts
        page.keyboard.press("?")
        page.evaluate(
            """() => {
                const button = document.querySelector("dialog button");
                button.focus();
                document.querySelector("dialog").close();
                button.dispatchEvent(new KeyboardEvent("keydown", { key: "c", bubbles: true }));
            }"""
        )
        page.wait_for_url("**/compare.html#a=unit%2Fearly%2F3.html")
        page = visit.open("unit/early/3.html")
        page.keyboard.press("c")
        page.wait_for_url("**/compare.html#a=unit%2Fearly%2F3.html")
        page = visit.open("unit/early/3.html")
        page.keyboard.press("ArrowUp")
        page.wait_for_url("**/layer/early.html")
        page.locator("#units a").nth(2).focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.dataset.unit") == "3"
        page.keyboard.press("ArrowDown")
        tops = page.locator("#units a").evaluate_all("all => all.map(a => a.offsetTop)")
        across = tops.count(tops[0])
        assert page.evaluate("document.activeElement.dataset.unit") == str(3 + across)


def tiles(page: Any) -> list[tuple[int, int]]:
    """The unit that each visible tile leads to, and the unit whose thumbnail it shows, in the page's order."""
    look = "(s => [s.backgroundImage, s.backgroundPositionX, s.backgroundPositionY, s.backgroundSize])(getComputedStyle(a, '::before'))"
    found = page.locator("#units a:visible").evaluate_all(f"all => all.map(a => [a.getAttribute('href'), ...{look}])")
    read: list[tuple[int, int]] = []
    for link, picture, *place, size in found:
        assert size == "800% 800%"
        x, y = (round(7 * float(one.rstrip("%")) / 100) for one in place)
        number = int(re.search(r"/early/(\d+)\.avif", picture)[1])  # pyright: ignore[reportOptionalSubscript]
        read.append((int(re.search(r"(\d+)\.html", link)[1]), number * 64 + y * 8 + x))  # pyright: ignore[reportOptionalSubscript]
    return read


def test_sorting_keeps_each_thumbnail_with_its_unit(browser: Any, root: Path) -> None:
    import convscope as cs

    survey = cs.read_survey(root / "data")
    maximum = survey.maximum("early").max(0)
    with Visit(browser, from_file(root)) as visit:
        page = visit.open("layer/early.html")
        for way in ("maximum", "active", "auc", "similar", "unit"):
            page.select_option("#sort", way)
            found = tiles(page)
            assert sorted(unit for unit, _ in found) == list(range(70))
            assert all(unit == shown for unit, shown in found), way
            if way == "maximum":
                assert [unit for unit, _ in found] == sorted(range(70), key=lambda unit: (-float(f"{maximum[unit]:.4g}"), unit))
                assert page.url.endswith("#sort=maximum")
        page.select_option("#show", "dead")
        assert tiles(page) == [(5, 5)]
        page = visit.open("about.html")
        page = visit.open("layer/early.html#sort=maximum&show=healthy&find=kind+0")
        found = tiles(page)
        assert page.locator("#sort").input_value() == "maximum" and 0 < len(found) < 70
        assert all(unit == shown for unit, shown in found) and 5 not in [unit for unit, _ in found]
        page.fill("#filter", "")
        page.locator("#filter").blur()
        page.check("#map")
        assert len(tiles(page)) == 68 and page.locator(".map-view").count() == 1  # the dead and the duplicate are filtered


@pytest.mark.parametrize("javascript", [True, False])
def test_a_number_of_the_confusion_matrix_shows_its_images(browser: Any, root: Path, javascript: bool) -> None:
    with Visit(browser, from_file(root), javascript=javascript) as visit:
        page = visit.open("index.html")
        assert page.locator(".cell:visible").count() == 0
        links = page.locator(".cs-counts td a")
        for place in range(links.count()):
            count = int(links.nth(place).inner_text().split()[0])
            links.nth(place).click()
            shown = page.locator(".cell:visible")
            assert shown.count() == 1 and f"#{shown.get_attribute('id')}" == links.nth(place).get_attribute("href")
            assert shown.locator("h3").inner_text().startswith(f"{count} image")
            assert shown.locator("img:visible").count() == min(count, 8)


def test_compare(browser: Any, root: Path) -> None:
    with Visit(browser, from_file(root)) as visit:
        page = visit.open("compare.html#a=unit/early/3.html&b=https://example.org/a.html")
        frame = page.frame_locator('[data-frame="a"]')
        assert frame.locator("h1").inner_text().startswith("Unit 3")
        assert frame.locator(".bar").is_hidden()
        for bad in ("javascript:alert(1)", "//example.org/x.html", "unit/../../x/1.html", "data:text/html,1"):
            page.evaluate(f"location.hash = 'b={bad}'")
            assert page.locator('[data-frame="b"]').get_attribute("src") is None, bad
        playwright.expect(page.locator('[data-side="a"]')).to_have_value("early, unit 3")
        page.fill('[data-side="b"]', "kind_1")
        page.locator("#found-b a").first.click()
        assert page.frame_locator('[data-frame="b"]').locator("h1").inner_text().startswith("kind_1")
        assert "b=class%2F1.html" in page.url
        for shown, name in (
            ("image/4.html", "4.png"),
            ("layer/output.html", "Classes"),
            ("layer/late.html", "late"),
            ("class/2.html", "Kind 2"),
        ):
            page.evaluate(f"location.hash = 'b={shown}'")
            playwright.expect(page.locator('[data-side="b"]')).to_have_value(re.compile(f"{name}$"))


def test_copy_buttons(browser: Any, root: Path) -> None:
    with Visit(browser, from_file(root)) as visit:
        page = visit.open("unit/early/3.html")
        page.evaluate("navigator.clipboard.writeText = async text => { window.copied = text; }")
        page.locator(".copies button", has_text="Copy as BibTeX").click()
        page.locator(".copies button", has_text="Copied").wait_for()
        entry = page.evaluate("window.copied")
        assert entry.startswith("@misc{h.early.3,\n  title = {{small, layer early, unit 3 (convscope 0, weights h)}},")
        assert entry.endswith("  howpublished = {\\url{unit/early/3.html}}\n}\n")
        page.locator(".copies button", has_text="Copy the link").click()
        page.wait_for_function("window.copied.endsWith('/unit/early/3.html')")


def test_hostile_names(browser: Any, hostile: Path) -> None:
    with Visit(browser, from_file(hostile)) as visit:
        for address in ("index.html", *(path.relative_to(hostile).as_posix() for path in sorted(hostile.glob("layer/*.html")))):
            page = visit.open(quote(address))
            assert page.locator("b[onclick]").count() == 0
        page = visit.open("class/1.html")
        assert page.locator("h1").inner_text().replace("\u2028", "").startswith(HOSTILE.replace("\u2028", "")[:20])
        page.keyboard.press("/")
        page.keyboard.type("</script>")
        page.locator("#found a").nth(3).wait_for()
        with page.expect_navigation():
            page.keyboard.press("Enter")
        page.locator("h1").wait_for()


def test_from_a_folder_of_a_server(browser: Any, root: Path) -> None:
    handler = functools.partial(Quiet, directory=str(root.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Visit(browser, f"http://127.0.0.1:{server.server_port}/{quote(root.name)}") as visit:
            for address in ("index.html", "layer/early.html#sort=auc", "unit/early/3.html"):
                page = visit.open(address)
                page.wait_for_load_state("networkidle")
                assert page.locator("h1").count() == 1
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None: ...


def test_whole_without_javascript(browser: Any, root: Path) -> None:
    with Visit(browser, from_file(root), javascript=False) as visit:
        page = visit.open("unit/early/3.html")
        assert page.locator(".nine svg").count() == 9 and page.locator(".nine svg").first.is_visible()
        assert page.locator("#search").count() == 0
        page.locator('a[rel="next"]').click()
        page.wait_for_url("**/unit/early/4.html")
        page = visit.open("layer/early.html")
        assert page.locator("#units a:visible").count() == 70 and page.locator("#controls").is_hidden()
