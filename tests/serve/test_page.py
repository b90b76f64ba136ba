"""The live page of a server in a real browser: a photograph, the units behind its verdict, silence, occlusion, a guess with its p-value."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_serve import LAYERS, encoded, image_of, serving

import convscope as cs
from convscope.scope import Scope

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


def test_a_walk(tmp_path: Path) -> None:
    scope: Scope = cs.open("textures", precision="float32")
    wrong: list[str] = []
    with serving(scope, None) as server, playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page: Any = browser.new_page()
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.port}/live.html")
        page.set_input_files("#files", files(tmp_path, range(3, 4)))
        page.locator("#spikes b").first.wait_for()
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
        browser.close()
    assert wrong == []
