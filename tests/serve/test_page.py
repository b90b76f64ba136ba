"""The live page of a server in a real browser: a photograph, the units behind its verdict, silence, occlusion, a guess with its p-value."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_serve import LAYERS, encoded, image_of, serving

import convscope as cs
from convscope.scope import Scope
from convscope.text import percent

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (it is in the extra `dev`)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="no Chromium on this machine")


def files(tmp_path: Path, numbers: range) -> list[str]:
    found: list[str] = []
    for number in numbers:
        path = tmp_path / f"{number}.png"
        path.write_bytes(encoded(number))
        found.append(str(path))
    return found


@contextmanager
def opened(scope: Scope, tmp_path: Path, *, out: Path | None = None, expected: str = "", **window: Any) -> Iterator[Any]:
    """The live page of a server with a photograph on it. What the browser complains of in between, but for `expected`, fails the test."""
    wrong: list[str] = []
    with serving(scope, None, out) as server, playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page: Any = browser.new_page(**window)
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.port}/live.html")
        page.set_input_files("#files", files(tmp_path, range(3, 4)))
        page.locator("#spikes b").first.wait_for()
        yield page
        browser.close()
    assert [each for each in wrong if not (expected and expected in each)] == []


def in_view(page: Any, selector: str) -> None:
    """Waits until an element is in the window, at least with its first line."""
    page.wait_for_function(
        """one => {
            const { top, left } = document.querySelector(one).getBoundingClientRect();
            return top >= -1 && top < innerHeight - 15 && left < innerWidth;
        }""",
        arg=selector,
        timeout=5000,
    )


def test_results_come_into_view_and_are_kept_once(tmp_path: Path) -> None:
    """Seen to fail: without `reveal`, with a button for keeping that takes two clicks, with labels that the chart cuts off."""
    scope: Scope = cs.open("textures", precision="float32")
    with opened(scope, tmp_path, out=tmp_path / "kept", expected="status of 415", viewport={"width": 700, "height": 420}) as page:
        in_view(page, "#photo")

        page.get_by_role("button", name="Find the units").click()
        page.locator("#behind-found .lead").wait_for()
        in_view(page, "#behind-found .lead")
        page.get_by_role("button", name="Choose unit").last.click()
        in_view(page, "#unit")
        page.get_by_role("button", name="Silence all that raise it").click()
        page.locator("#silenced-found .lead").wait_for()
        in_view(page, "#silenced-found .lead")

        keep = page.locator("#silenced-found").get_by_role("button", name="Keep")
        keep.evaluate("button => { button.click(); button.click(); }")
        page.get_by_role("button", name="Kept as knockout-0000").wait_for()
        assert page.locator(".bad:visible").count() == 0 and [one.name for one in (tmp_path / "kept").iterdir()] == ["knockout-0000"]

        for group, numbers in (("with", range(3, 7)), ("without", range(7, 11))):
            page.locator(f"#{group} button").first.click()
            page.set_input_files("#files", files(tmp_path, numbers))
            page.locator(f"#{group} img").nth(3).wait_for()
        in_view(page, "#tested")
        assert "convscope hypothesis" not in page.locator("#tested").inner_text(), "the button below computes it"
        page.get_by_role("button", name="Test it with random permutations").click()
        page.locator("#p-value-found", has_text="AUC").wait_for()
        in_view(page, "#p-value-found")
        page.locator("#with .tray button").first.click()
        in_view(page, "#photo")

        page.set_input_files("#files", [str(Path(__file__))])
        page.locator("#status.bad").wait_for()
        in_view(page, "#status")

        shares = [7.4e-10, 1e-4, 0.0221, 0.624, 1, 0]
        said = page.evaluate("shares => shares.map(atlasLive.percent)", shares)
        assert said == [percent(share) for share in shares] == ["under 0.01 %", "0.01 %", "2.2 %", "62 %", "100 %", "0 %"]


def test_labels_at_the_ends_of_the_chart_are_whole(tmp_path: Path) -> None:
    scope: Scope = cs.open("textures", precision="float32")
    with opened(scope, tmp_path) as page:
        # units 0 and the last are the highest
        page.evaluate("""() => {
            const { layer } = atlasLive.now();
            const count = atlasLive.network.layers[layer].channels;
            const before = atlasLive.network.layers.slice(0, layer).reduce((sum, one) => sum + one.channels, 0);
            atlasLive.photos[0].means[before] = atlasLive.photos[0].means[before + count - 1] = 1e3;
            document.querySelector("#layer").dispatchEvent(new Event("change"));
        }""")
        last = scope.layers[LAYERS[-1]].channels - 1
        spans = page.locator(".spikes-of span")
        assert {"0", str(last)} <= set(spans.all_inner_texts())
        for place in range(spans.count()):
            box, outer = spans.nth(place).bounding_box(), page.locator(".spikes-of").bounding_box()
            assert outer["x"] <= box["x"] and box["x"] + box["width"] <= outer["x"] + outer["width"]


def answer(body: str) -> Any:
    return lambda route: route.fulfill(body=body, content_type="text/event-stream")


def test_odds_that_fall_to_next_to_nothing_are_said_in_words(tmp_path: Path) -> None:
    scope: Scope = cs.open("textures", precision="float32")
    with opened(scope, tmp_path) as page:
        for lowest, words in ((-14.0, "fall to less than 1/10,000)"), (3.0, "fall to 1/7.39)")):
            told = [
                ("occlusion", {"boxes": [[0, 0, 32, 32]], "scores": [lowest]}),
                ("done", {"base": 5.0, "target": 0, "result": 0, "map": []}),
            ]
            body = "".join(f"event: {name}\ndata: {json.dumps(value)}\n\n" for name, value in told)
            page.route("**/occlusion?*", answer(body))
            page.get_by_role("button", name="Hide parts").click()
            page.locator("#hidden-found", has_text=words).wait_for(timeout=5000)
            page.unroute("**/occlusion?*")


def test_a_walk(tmp_path: Path) -> None:
    scope: Scope = cs.open("textures", precision="float32")
    with opened(scope, tmp_path) as page:
        assert page.locator("#layer option:checked").inner_text() == LAYERS[-1]

        expected = cs.unit_attribution(scope, image_of(scope, encoded(3)), layer=LAYERS[-1])
        page.get_by_role("button", name="Find the units").click()
        page.locator("#behind-found .lead").wait_for()
        assert page.locator("#behind-found .with-button b").all_inner_texts() == [str(unit) for unit in expected.units]
        page.get_by_role("button", name=f"Choose unit {expected.units[1]}", exact=True).click()
        assert page.locator("#number").input_value() == str(expected.units[1])
        page.get_by_role("button", name="Silence all that raise it").click()
        page.locator("#silenced-found .lead").wait_for()
        after = scope.class_names[int(expected.predicted_without[0])]
        assert page.locator("#silenced-found .lead").inner_text().rstrip(".").endswith(after)

        page.get_by_role("button", name="Make a finer map").click()
        page.locator("#finer-found canvas.map").wait_for()
        assert "cells. Bright is active." in page.locator("#finer-found figcaption").inner_text()

        page.get_by_role("button", name="Hide parts").click()
        page.get_by_text("First part after").wait_for()
        assert f"{scope.class_names[expected.targets[0]]}: " in page.locator("#hidden-found p").inner_text()

        for group, numbers in (("with", range(3, 6)), ("without", range(6, 9))):
            page.locator(f"#{group} button").first.click()
            page.set_input_files("#files", files(tmp_path, numbers))
            page.locator(f"#{group} img").nth(2).wait_for()
        page.get_by_role("button", name="Test it with random permutations").click()
        page.locator("#p-value-found", has_text="AUC").wait_for()
