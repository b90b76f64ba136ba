"""The live page in a real browser, from a file: files are prepared as the library prepares them, and measured to the same numbers."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convscope as cs
from convscope.preprocessing import Preprocessing
from convscope.scope import Scope
from convscope.site import live
from convscope.zoo.textures import generator

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (it is in the extra `dev`)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
browsers = pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="no Chromium on this machine")
LAYERS = ["features.13", "features.27"]
WAIT = 60_000

ASK = """async ([what, asked]) => {
  window.asker ??= (() => {
    const worker = new Worker(URL.createObjectURL(new Blob([`(${window.liveWorker})()`])));
    const waiting = {};
    worker.onmessage = ({data}) => waiting[data.id](data);
    let count = 0;
    return (message) => new Promise((done) => { waiting[count] = done; worker.postMessage({id: count++, ...message}); });
  })();
  const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const text = (data) => btoa(Array.from(new Uint8Array(data.buffer), (one) => String.fromCharCode(one)).join(""));
  const message = {what, ...asked};
  for (const [key, value] of Object.entries(message)) if (key === "file") message.file = new Blob([bytes(value)]);
  const {answer, error} = await window.asker(message);
  if (error !== undefined) return {error};
  return Object.fromEntries(Object.entries(answer).map(([key, value]) => [key, ArrayBuffer.isView(value) ? text(value) : value]));
}"""


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(number: int, width: int, height: int) -> Image.Image:
    """A texture enlarged to an odd size, so that it is resized on its way into the network."""
    pixels = generator.batch(number % 28, [number], seed=5, size=128)[0]
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def see_through(image: Image.Image) -> Image.Image:
    rough = np.random.default_rng(image.width).integers(0, 256, (9, 9), dtype=np.uint8)
    image.putalpha(Image.fromarray(rough).resize(image.size, Image.Resampling.BILINEAR))
    return image


def turned(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def swapped_colours() -> bytes:
    """A colour profile that would change every colour: red and green in each other's place."""
    from PIL import ImageCms

    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(data[at : at + 4]): at for at in range(132, 132 + 12 * int.from_bytes(data[128:132], "big"), 12)}
    red, green = (slice(tags[name] + 4, tags[name] + 12) for name in (b"rXYZ", b"gXYZ"))
    data[red], data[green] = data[green], data[red]
    return bytes(data)


def of_every_kind() -> dict[str, bytes]:
    """Files that a reader may drop, all of sizes that are resized."""
    found = {
        "small.jpg": encoded(photograph(0, 201, 149), "JPEG", quality=90),
        "wide.jpg": encoded(photograph(1, 640, 200), "JPEG", quality=90),
        "tall.png": encoded(photograph(2, 150, 611), "PNG"),
        "tiny.png": encoded(photograph(3, 40, 31), "PNG"),
        "progressive.jpg": encoded(photograph(4, 399, 307), "JPEG", quality=80, progressive=True),
        "full colour.jpg": encoded(photograph(5, 333, 420), "JPEG", quality=95, subsampling=0),
        "grey.jpg": encoded(photograph(6, 301, 280).convert("L"), "JPEG"),
        "cmyk.jpg": encoded(photograph(7, 302, 233).convert("CMYK"), "JPEG", quality=92),
        "profile.jpg": encoded(photograph(8, 280, 245), "JPEG", quality=92, icc_profile=swapped_colours()),
        "profile.png": encoded(photograph(9, 281, 246), "PNG", icc_profile=swapped_colours()),
        "alpha.png": encoded(see_through(photograph(10, 270, 203)), "PNG"),
        "grey alpha.png": encoded(see_through(photograph(11, 205, 271)).convert("LA"), "PNG"),
        "palette.png": encoded(photograph(12, 222, 190).quantize(32), "PNG", transparency=bytes(range(0, 256, 8))),
        "lossy.webp": encoded(photograph(13, 280, 211), "WEBP", quality=80),
        "alpha.webp": encoded(see_through(photograph(14, 213, 289)), "WEBP", quality=80),
        "turned.webp": encoded(photograph(15, 214, 287), "WEBP", quality=80, exif=turned(6)),
        "turned.png": encoded(photograph(16, 215, 286), "PNG", exif=turned(8)),
        "pixels.gif": encoded(photograph(17, 216, 285).quantize(64), "GIF"),
        "pixels.bmp": encoded(photograph(18, 217, 284), "BMP"),
    }
    for turn in range(1, 9):
        found[f"turned {turn}.jpg"] = encoded(photograph(20 + turn, 230 + turn, 301), "JPEG", quality=90, exif=turned(turn))
    return found


@pytest.fixture(scope="module")
def scope() -> Scope:
    return cs.open("textures", precision="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photos")
    for number in range(12):
        photograph(number, 140 + number, 150).save(place / f"{number:02d}.png")
    return place


@pytest.fixture(scope="module")
def root(scope: Scope, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    place = tmp_path_factory.mktemp("live") / "a site"
    cs.atlas(scope, folder, place, layers=LAYERS, units=range(70), projections=False, budget=0.0)
    return place


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    assert CHROMIUM is not None, "CI needs Chromium: apt-get install chromium"
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, root: Path) -> Iterator[Callable[..., Any]]:
    """Opens the live page and waits until the network runs; nothing may go wrong on it or be asked of anywhere."""
    wrong: list[str] = []
    context = browser.new_context()
    page = context.new_page()
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(("file:", "blob:", "data:")) else wrong.append(asked.url))

    def open_it(width: int = 1280, dark: bool = False) -> Any:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme="dark" if dark else "light")
        page.goto((root / "live.html").as_uri())
        page.get_by_text("Ready.").wait_for(timeout=WAIT)
        return page

    yield open_it
    context.close()
    assert wrong == []


def ask(page: Any, what: str, **asked: Any) -> dict[str, Any]:
    return page.evaluate(ASK, [what, asked])


def how_of(preprocessing: Preprocessing) -> dict[str, Any]:
    names = ("height", "width", "interpolation", "crop", "channels")
    return {name: getattr(preprocessing, name) for name in names} | {"upright": live._upright_first()}


def drop(page: Any, selector: str, dropped: dict[str, bytes]) -> None:
    """Drops files on a part of the page, as from the desktop."""
    given = [[name, base64.b64encode(data).decode()] for name, data in dropped.items()]
    page.evaluate(
        """([selector, given]) => {
          const transfer = new DataTransfer();
          for (const [name, text] of given)
            transfer.items.add(new File([Uint8Array.from(atob(text), (one) => one.charCodeAt(0))], name));
          document.querySelector(selector).dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
        }""",
        [selector, given],
    )


def test_what_is_carried_is_what_the_table_says() -> None:
    place = files("convscope.site").joinpath("vendored")
    listed = live.vendored()
    for one in listed:
        data = gzip.decompress(place.joinpath(one.file).read_bytes())
        assert (len(data), hashlib.sha256(data).hexdigest()) == (one.bytes, one.sha256), one.file
        assert one.package == "onnxruntime-web" and one.licence == "MIT" and re.fullmatch(r"\d+\.\d+\.\d+", one.version)
        assert one.version.encode() in gzip.decompress(place.joinpath(listed[0].file).read_bytes())
    own = {"vendored.json", "LICENSE.onnxruntime", "NOTICES.onnxruntime.gz"}
    assert {path.name for path in place.iterdir()} == {one.file for one in listed} | own
    assert "Microsoft Corporation" in live.licence_text() and "Eigen" in live.licence_text()


@browsers
@pytest.mark.parametrize(
    "how",
    [
        Preprocessing(96),
        Preprocessing(112, "bicubic", 0.875),
        Preprocessing((70, 120), "lanczos", 0.9),
        Preprocessing((61, 90), "bicubic", None),
        Preprocessing(75, "nearest", 0.8),
        Preprocessing(96, channels=1),
    ],
    ids=["bilinear", "bicubic", "lanczos", "uncropped", "nearest", "grey"],
)
def test_a_file_is_prepared_as_the_library_does(browser: Any, root: Path, how: Preprocessing) -> None:
    page = browser.new_page()
    page.goto((root / "about.html").as_uri())
    page.add_script_tag(path=str(root / "static/live-worker.js"))
    given = of_every_kind()
    resized = 0
    for name, data in given.items():
        answer = ask(page, "prepare", file=base64.b64encode(data).decode(), preprocessing=how_of(how))
        assert "error" not in answer, f"{name}: {answer}"
        found = np.frombuffer(base64.b64decode(answer["data"]), np.uint8).reshape(how.height, how.width, 3).astype(int)
        colour = Preprocessing(how.size, how.interpolation, how.crop)
        wanted, (height, width) = colour.pixels(data).astype(int), how.decode(data)[1]
        assert answer["of"] == [width, height], name
        resized += min(width, height) != min(how.height, how.width)
        assert np.abs(found - wanted).max() == 0, f"{name}: differs by {np.abs(found - wanted).max()} of 255"
    assert resized == len(given) >= 20
    page.close()


@browsers
def test_what_is_refused(browser: Any, root: Path) -> None:
    page = browser.new_page()
    page.goto((root / "about.html").as_uri())
    page.add_script_tag(path=str(root / "static/live-worker.js"))
    cases = {
        "cannot read": b"no image",
        "too few": encoded(photograph(1, 30, 7), "PNG"),
    }
    for words, data in cases.items():
        answer = ask(page, "prepare", file=base64.b64encode(data).decode(), preprocessing=how_of(Preprocessing(64)))
        assert words in answer["error"]
    cut = encoded(photograph(0, 90, 80), "WEBP", exif=turned(6))
    place = cut.index(b"EXIF")
    odd = cut[: place + 8] + b"\xff" * (len(cut) - place - 8)  # a damaged EXIF block is no orientation
    answer = ask(page, "prepare", file=base64.b64encode(odd).decode(), preprocessing=how_of(Preprocessing(64)))
    assert answer.get("of", [90, 80]) == [90, 80]
    page.close()


@browsers
def test_the_same_pixels_give_the_same_numbers(opened: Callable[..., Any], scope: Scope, root: Path) -> None:
    page = opened()
    given = of_every_kind()
    chosen = {name: given[name] for name in ("wide.jpg", "turned 6.jpg", "alpha.png", "cmyk.jpg")}
    page.set_input_files("#files", [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in chosen.items()])
    page.locator("#tray img").nth(3).wait_for(timeout=WAIT)
    measured = page.evaluate(
        "atlasLive.photos.map(({name, output, means}) => [name, Array.from(output), Array.from(means)])",
    )
    assert [name for name, *_ in measured] == list(chosen)
    for name, output, means in measured:
        pixels = scope.inputs.preprocessing.pixels(chosen[name])
        image = torch.from_numpy(np.moveaxis(pixels, -1, 0).astype(np.float32) / 255)[None]
        values = scope.activations(image, [*LAYERS, "output"])
        units = 0
        for layer in LAYERS:
            wanted = values[layer].double().mean((2, 3))[0].numpy()
            found = np.array(means[units : (units := units + len(wanted))])
            assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max(), f"{name}, {layer}"
        wanted = values["output"][0].double().numpy()
        assert np.abs(np.array(output) - wanted).max() <= 1e-5 * np.abs(wanted).max(), name
        assert np.argsort(-np.array(output))[:5].tolist() == np.argsort(-wanted)[:5].tolist()
    # the map of the unit that is chosen, of the last photograph and the last layer
    page.wait_for_function("document.querySelector('#map').width > 0")
    unit, layer = page.evaluate("[atlasLive.now().unit, atlasLive.now().name]")
    shown = page.evaluate(
        "(() => { const c = document.querySelector('#map'); return [c.width, c.height, "
        "Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)]; })()"
    )
    fire = values[layer][0, unit].numpy()
    dark = np.array(shown[2]).reshape(shown[1], shown[0], 4)[..., 3]
    wanted = 235 * (1 - np.clip(fire, 0, None) / fire.max())
    np.testing.assert_allclose(dark, np.pad(wanted, 1, mode="edge"), atol=1.01)
    # the cells, without the border's repetition, lie where the library places them
    own, under = (page.locator(one).bounding_box() for one in ("#map", "#under"))
    zoom = under["width"] / scope.inputs.width
    rows, columns = fire.shape
    y0, x0 = ((own[key] - under[key]) / zoom for key in ("y", "x"))
    down, across = (own["height"] / zoom / (rows + 2), own["width"] / zoom / (columns + 2))
    place = [y0 + down, x0 + across, y0 + (rows + 1) * down, x0 + (columns + 1) * across]
    np.testing.assert_allclose(place, scope.layers.own_place(layer), atol=0.7)


@browsers
def test_a_visit(opened: Callable[..., Any], scope: Scope, folder: Path, root: Path) -> None:
    page = opened()
    data = (folder / "03.png").read_bytes()
    drop(page, "#drop", {"mine.png": data})
    page.locator("#tray img").first.wait_for(timeout=WAIT)
    expected = cs.spectrum(scope, LAYERS[1], folder / "03.png")
    assert page.locator("#photo-name").inner_text() == "mine.png"
    names = page.locator("#classes td:first-child").all_inner_texts()
    output = scope.activations(folder / "03.png", "output")["output"][0].numpy()
    assert names == [scope.class_names[unit] for unit in np.argsort(-output)[:5]]
    spikes = page.locator("#spikes > div").first.locator("b").all_inner_texts()
    assert spikes == [str(unit) for unit in np.argsort(-expected.values[0], kind="stable")[:5]]
    # a photograph of the folder is nearest to itself
    page.locator("#nearest a").nth(7).wait_for()
    first = page.locator("#nearest a").first
    assert first.get_attribute("href") == "image/3.html" and first.locator("i").inner_text() == "1.00"
    # the arrow keys step through units, and a spike leads to its unit's page
    page.locator("#number").fill("30")
    page.locator("#number").press("Enter")
    slider = page.locator("[role=slider]")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuenow") == "31" and page.locator("#number").input_value() == "31"
    assert "Unit 31" in page.locator("#pointed").inner_text()
    # another photograph is compared with the first
    drop(page, "body", {"other.png": (folder / "08.png").read_bytes()})
    page.locator("#tray img").nth(1).wait_for()
    page.locator("#versus-section").wait_for(state="visible")
    assert page.locator("#other option").inner_text() == "mine.png"
    page.locator(".away").first.click()
    page.locator("#versus-section").wait_for(state="hidden")
    assert page.locator("#tray img").count() == 1
    drop(page, "#drop", {"letter.txt": b"no image"})
    page.get_by_text("letter.txt: this browser cannot read it as an image").wait_for()
    page.locator("#spikes a").first.click()
    page.wait_for_url("**/unit/**")
    assert page.locator("h1").inner_text().startswith("Unit ")


@browsers
def test_a_guess_is_tested_as_the_library_tests_it(opened: Callable[..., Any], scope: Scope, folder: Path) -> None:
    page = opened()
    shown, rest = ([folder / f"{number:02d}.png" for number in numbers] for numbers in ((0, 1, 2), (3, 4, 5, 6)))
    drop(page, "#with", {path.name: path.read_bytes() for path in shown})
    page.locator("#with img").nth(2).wait_for(timeout=WAIT)
    assert "photographs that do not" in page.locator("#tested").inner_text()
    drop(page, "#without", {path.name: path.read_bytes() for path in rest})
    page.locator("#without img").nth(3).wait_for(timeout=WAIT)
    page.select_option("#layer", label=LAYERS[0])
    page.locator("#number").fill("17")
    page.locator("#number").press("Enter")
    expected = cs.hypothesis(scope, LAYERS[0], 17, shown, rest, permutations=9)
    said = page.locator("#tested .lead").inner_text()
    equal = int((expected.auc == expected.auc[17]).sum())
    place = f"number {expected.rank}" + (f" to {expected.rank + equal - 1} (equal)" if equal > 1 else "")
    assert said == f"Unit 17 of {LAYERS[0]}: AUC {expected.auc[17]:.3f}, {place} of {len(expected.auc)} units."
    best = page.locator("#tested .tiles i").all_inner_texts()
    assert best == [f"{value:.3f}" for value in sorted(expected.auc, reverse=True)[:5]]
    assert f"{len(expected.auc) / 35:.1f} of {len(expected.auc)} units" in page.locator("#tested").inner_text()  # 7 choose 3 is 35


@browsers
@pytest.mark.parametrize("look", ["light", "dark and narrow"])
def test_looks(opened: Callable[..., Any], folder: Path, look: str) -> None:
    width = 1280 if look == "light" else 360
    page = opened(width, look != "light")
    for selector, numbers in (("#drop", (0, 1)), ("#with", (2,)), ("#without", (3,))):
        drop(page, selector, {f"{number}.png": (folder / f"{number:02d}.png").read_bytes() for number in numbers})
    page.locator("#tested .lead").wait_for(timeout=WAIT)
    page.locator("#nearest a").nth(7).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    axe = (Path(__import__("axe_playwright_python").__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {preload: false, iframes: false})")
    serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert not serious, [(one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"]) for one in serious]


def test_a_network_that_does_not_export(
    scope: Scope, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from convscope.galleries import live_network as export

    monkeypatch.setattr(export, "_exported", lambda *_: (_ for _ in ()).throw(RuntimeError("odd\noperation <b>")))
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    cs.atlas(scope, folder, tmp_path / "site", layers=LAYERS[:1], units=[0], classes=[0], projections=False, budget=0.0)
    page = (tmp_path / "site/live.html").read_text()
    assert "The network is not in this page: it cannot be exported as ONNX (RuntimeError: odd operation &lt;b&gt;)" in page
    assert "the live page is without the network: it cannot be exported" in caplog.text
    assert not (tmp_path / "site/live/runtime.js").exists() and not (tmp_path / "site/live/model.js").exists()
    # without the page, nothing of it is left
    cs.atlas(scope, folder, tmp_path / "site", layers=LAYERS[:1], units=[0], classes=[0], projections=False, budget=0.0, live=False)
    assert not (tmp_path / "site/live.html").exists() and not list((tmp_path / "site/live").glob("*.js"))
    assert "live.html" not in (tmp_path / "site/index.html").read_text()
