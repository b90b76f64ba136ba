from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import convscope as cs
import hand_built
import scanned
from convscope.cluster import Cluster
from convscope.errors import BadInput, StoreConflict
from convscope.galleries import atlas as module
from convscope.galleries import atlas_images, atlas_occlusion, atlas_tables, atlas_work
from convscope.galleries.atlas import Atlas, atlas, chosen_layers, shown_units
from convscope.galleries.atlas_images import ImageActor
from convscope.galleries.forecast import forecast
from convscope.galleries.live_network import LiveNetwork
from convscope.receipts import read_receipt
from convscope.site.tables import Attributions, Studies

QUICK: dict[str, Any] = {"steps": 2, "size": 24, "crop_size": 16}


@pytest.fixture(scope="module", autouse=True)
def stand_in() -> Iterator[None]:
    """The network of the live page, which has its own tests, stands in for seconds of export."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(atlas_tables, "live_network", lambda *_: LiveNetwork(b"network", "float32", 1e-6, 4))
        yield


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scanned.folder_of(tmp_path_factory.mktemp("photos") / "data", 12)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    return atlas(scanned.small_scope(), photos, tmp_path_factory.mktemp("whole") / "site", layers=scanned.LAYERS, **QUICK)


def test_everything_is_there(whole: Atlas, photos: Path) -> None:
    names = set(files_of(whole.path))
    assert {"index.html", "about.html", "compare.html", "search.js", "atlas.json", "static/atlas.css", "static/atlas.js"} <= names
    assert {f"unit/2/{unit}.html" for unit in range(6)} | {f"unit/5/{unit}.avif" for unit in range(8)} <= names
    assert {f"class/{unit}.html" for unit in range(5)} | {f"image/{image}.webp" for image in range(12)} <= names
    assert {"layer/2.html", "layer/output.html", "sheet/2/0.avif", "sheet/2/weights.png", "data/manifest.json"} <= names
    assert {"live.html", "live/model.js", "live/runtime.js", "live/network.js", "live/LICENCE.txt", "live/near/output.js"} <= names
    assert (whole.made, whole.wanted) == (19, 19)
    assert not [name for name in names if ".tmp" in name or "nan" in name]
    head = json.loads((whole.path / "atlas.json").read_text())
    assert head["made"] == head["wanted"] == {"2": 6, "5": 8, "output": 5}
    assert str(photos) not in "".join(text.decode() for name, text in files_of(whole.path).items() if name.endswith((".html", ".js")))


def test_the_network_is_left_as_it_was(photos: Path, tmp_path: Path) -> None:
    scope = scanned.small_scope()
    hand_built.unsettle(scope.model)
    before = hand_built.state_of(scope.model)
    atlas(scope, photos, tmp_path / "site", layers="2", units=[0], classes=[0], **QUICK)
    assert hand_built.state_of(scope.model) == before


def test_a_second_run_changes_nothing(whole: Atlas, photos: Path) -> None:
    before = {
        path: path.stat().st_mtime_ns for path in whole.path.rglob("*") if path.is_file() and path.suffix in (".html", ".avif", ".js")
    }
    again = atlas(scanned.small_scope(), photos, whole.path, layers=scanned.LAYERS, **QUICK)
    assert again == whole
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize("place", ["tables", "pages", "occlusion", "images", "projections"])
def test_killed_and_resumed_ends_with_the_same_bytes(
    whole: Atlas, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    # also tried: at the scan, at the fifth page of a layer, between an image and its projections
    class Killed(BaseException):
        pass

    target, name, number = {
        "tables": (atlas_work, "write_table", 2),
        "pages": (module.Site, "write_units", 2),
        "occlusion": (atlas_occlusion, "activation_grid", 3),
        "images": (atlas_images, "published_bytes", 5),
        "projections": (atlas_images, "deconvnet", 9),
    }[place]
    true, count = getattr(target, name), 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            raise Killed
        return true(*args, **kwargs)

    root = tmp_path / "site"
    with monkeypatch.context() as patched:
        patched.setattr(target, name, counted)
        with pytest.raises(Killed):
            atlas(scanned.small_scope(), photos, root, layers=scanned.LAYERS, **QUICK)
    atlas(scanned.small_scope(), photos, root, layers=scanned.LAYERS, **QUICK)
    wanted, found = files_of(whole.path), files_of(root)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


def dying(note: Path) -> type[ImageActor]:
    """An actor that takes its process with it at the first group of a layer, once; `note` is left then."""

    class Dying(ImageActor):
        def make(self, layer: str, units: list[int]) -> Any:
            if layer == "5" and not note.exists():
                note.touch()
                os._exit(1)
            return super().make(layer, units)

    return Dying


@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_of_which_one_worker_dies_ends_with_the_same_bytes(
    ray_here: Any, whole: Atlas, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[Any] = []
    each = Cluster.each

    def counted(cluster: Cluster, jobs: Any, kind: Any, *more: Any, **options: Any) -> Any:
        kinds.append(kind)
        return each(cluster, jobs, kind, *more, **options)

    monkeypatch.setattr(Cluster, "each", counted)
    monkeypatch.setattr(atlas_images, "ImageActor", dying(tmp_path / "died"))
    here, optimized = os.getpid(), atlas_images.feature_visualization

    def elsewhere(*args: Any, **kwargs: Any) -> Any:
        assert os.getpid() != here
        return optimized(*args, **kwargs)

    monkeypatch.setattr(atlas_images, "feature_visualization", elsewhere)
    made = atlas(scanned.small_scope(), photos, tmp_path / "site", layers=scanned.LAYERS, ray="auto", **QUICK)
    assert len(kinds) == 2 and (tmp_path / "died").exists() and (made.made, made.wanted) == (19, 19)
    wanted, found = files_of(whole.path), files_of(made.path)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


@pytest.mark.parametrize("what", ["unit", "class/0.html", "data", "data/manifest.json", "data/manifest.json cut", ".data/plan.json cut"])
def test_what_was_deleted_or_damaged_is_made_again(photos: Path, tmp_path: Path, what: str) -> None:
    """Also tried: a dozen files at random, several times."""
    given: dict[str, Any] = {"layers": "2", "units": [0], "classes": [0], "occlusions": 1} | QUICK
    root = atlas(scanned.small_scope(), photos, tmp_path / "site", **given).path
    before = files_of(root)
    name, _, cut = what.partition(" ")
    if name.startswith("."):
        shutil.move(root / "data", root / ".data")
    if cut:
        (root / name).write_text('{"schema"')
    elif (root / name).is_dir():
        shutil.rmtree(root / name)
    else:
        (root / name).unlink()
    if name.startswith("."):
        (root / ".data/manifest.json").unlink()
    atlas(scanned.small_scope(), photos, root, **given)
    assert files_of(root) == before


def test_units_behind_verdicts_are_the_librarys(whole: Atlas, photos: Path) -> None:
    # also tried: SqueezeNet, whose last maps are two layers' side by side; a network of one output, which has none
    scope, survey = scanned.small_scope(), cs.read_survey(whole.path / "data")
    found, told = cs.predictions(survey), Attributions.read(whole.path)
    images = np.stack([survey.read_image(int(number)) for number in survey.ids])
    seen = set[tuple[int, str]]()
    for target, groups in told.of.items():
        for group, (count, units) in groups.items():
            known, right = found.known, found.right
            rows = np.flatnonzero((found.predicted[:, 0] == target) & {"right": right, "wrong": known & ~right, "unknown": ~known}[group])
            own = cs.unit_attribution(scope, torch.from_numpy(images[rows]), target, layer="5").attribution.astype(np.float64).mean(0)
            assert count == len(rows) and {layer for layer, _, _ in units} == {"5"}
            order = [unit for unit in np.argsort(-own, kind="stable").tolist() if own[unit] > 0][:8]
            assert [unit for _, unit, _ in units] == order
            np.testing.assert_allclose([value for _, _, value in units], own[order], rtol=1e-4)
            page = (whole.path / f"class/{target}.html").read_text()
            assert f"+{own[order[0]]:.2f}" in page.partition("Units behind the verdict")[2].partition("</section>")[0]
            seen |= {(target, group)}
    assert {target for target, _ in seen} == set(found.predicted[:, 0].tolist())


def test_occlusion_maps_are_the_librarys(whole: Atlas, photos: Path) -> None:
    scope, survey = scanned.small_scope(), cs.read_survey(whole.path / "data")
    studies = Studies.read(whole.path)
    found = cs.predictions(survey, worst=12)
    assert list(studies.of)[: len(found.mistakes)] == [survey.ids[row] for row in found.mistakes] and len(studies.of) == 12
    for image, study in studies.of.items():
        row = survey.row(image)
        truth = cs.occlusion(scope, survey.read_image(image)[None], int(found.predicted[row, 0]), score="log-odds", patch=4, stride=2)
        known = study.row
        assert (known["target"], known["patch"], known["positions"]) == (truth.targets[0], 4, truth.map.size)
        assert known["base"] == pytest.approx(truth.base[0], rel=1e-5) and known["lowest"] == pytest.approx(truth.map.min(), rel=1e-5)
        assert known["then"] == truth.label[0].flat[truth.map[0].argmin()]
        assert known["own"] == (truth.label[0] == found.truth[row]).sum()
        np.testing.assert_allclose(study.drop * (known["largest"] / 127), truth.drop[0], atol=known["largest"] / 200)
        grid = cs.activation_grid(scope, survey.read_image(image)[None], scanned.LAYERS)
        for one, (layer, unit, values) in zip(study.strip, grid.strip(), strict=True):
            assert (one.layer, one.unit) == (layer, unit) and one.maximum == pytest.approx(values.max())
            np.testing.assert_allclose(one.values / 255 * values.max(), np.maximum(values, 0), atol=values.max() / 300)
            assert one.place == pytest.approx(scope.layers.place(scope.layers[layer], values.shape, (24, 24)))
        page = (whole.path / f"image/{image}.html").read_text()
        assert "What the verdict rests on" in page and f"The log-odds of {truth.target_names[0]} are" in page


def test_more_occlusion_maps_are_added(photos: Path, tmp_path: Path, whole: Atlas) -> None:
    given: dict[str, Any] = {"layers": "2", "units": [0], "classes": [0]} | QUICK
    first = atlas(scanned.small_scope(), photos, tmp_path / "site", occlusions=2, **given)
    page = next(path for path in sorted((first.path / "image").glob("*.html")) if "convscope occlusion" in path.read_text())
    assert "computed for 2 images" in page.read_text() and str(photos) not in page.read_text()
    again = atlas(scanned.small_scope(), photos, tmp_path / "site", occlusions=5, **given)
    straight = atlas(scanned.small_scope(), photos, tmp_path / "other", occlusions=5, **given)
    wanted, found = files_of(straight.path), files_of(again.path)
    assert len(Studies.read(again.path).of) == 5 and [name for name in wanted if found[name] != wanted[name]] == []
    none = atlas(scanned.small_scope(), photos, tmp_path / "none", occlusions=0, **given)
    assert not (none.path / "data/occlusion.parquet").exists() and "ccluded" not in (none.path / "image/0.html").read_text()
    with pytest.raises(BadInput, match="occlusions at least 0"):
        atlas(scanned.small_scope(), photos, tmp_path / "none", occlusions=-1, **given)


def test_tables_with_other_columns_are_made_again(photos: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"layers": "2", "units": [0], "classes": [0], "occlusions": 1} | QUICK
    made = atlas(scanned.small_scope(), photos, tmp_path / "site", **given)
    before = files_of(made.path)
    for name in ("maps.parquet", "occlusion.parquet"):
        table = pq.read_table(made.path / "data" / name)
        pq.write_table(table.drop_columns("height"), made.path / "data" / name)
    atlas(scanned.small_scope(), photos, tmp_path / "site", **given)
    assert files_of(made.path) == before


def test_large_maps_are_reduced() -> None:
    values = np.random.default_rng(0).random((113, 50))
    found = atlas_occlusion._reduced(values)  # pyright: ignore[reportPrivateUsage]
    assert found.shape == (37, 50)
    np.testing.assert_allclose(found[5], values[15:18].mean(0))


def test_a_budget_leaves_a_complete_site(photos: Path, tmp_path: Path, whole: Atlas) -> None:
    first = atlas(scanned.small_scope(), photos, tmp_path / "site", layers=scanned.LAYERS, budget=0.0, **QUICK)
    assert first.made == 0 and first.wanted == 19
    names = files_of(first.path)
    assert {name for name in names if name.endswith(".html")} == {name for name in files_of(whole.path) if name.endswith(".html")}
    assert b"Not made yet" in names["unit/2/0.html"]
    second = atlas(scanned.small_scope(), photos, tmp_path / "site", layers=scanned.LAYERS, **QUICK)
    assert second.made == 19
    assert files_of(second.path) == files_of(whole.path)


@pytest.mark.parametrize(("together", "made"), [(16, 13), (4, 8)])
def test_a_budget_is_kept(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int, made: int) -> None:
    # a clock on which pages take 10 seconds each time, and the images of each group 5
    monkeypatch.setattr(atlas_images, "_AT_ONCE", together)
    now = 0.0

    def taking(seconds: float, true: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal now
            now += seconds
            return true(*args, **kwargs)

        return call

    for one in (module, atlas_images, atlas_occlusion):
        monkeypatch.setattr(one, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(module.Site, "write", taking(10, module.Site.write))
    monkeypatch.setattr(atlas_images, "feature_visualization", taking(5, atlas_images.feature_visualization))
    found = atlas(scanned.small_scope(), photos, tmp_path / "site", layers=scanned.LAYERS, budget=32, **QUICK)
    assert (found.made, now) == (made, 30)  # two groups, of classes and of the deeper layer; five more seconds would have been too many


def test_other_layers_and_images_make_only_what_changes(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "site"
    atlas(scanned.small_scope(), photos, root, layers="2", classes=[0], **QUICK)
    made = {path: path.read_bytes() for path in root.glob("unit/*/*.avif") if "projections" not in path.name}
    stamps = {path: path.stat().st_mtime_ns for path in made}
    more = scanned.folder_of(tmp_path / "more", 9)
    found = atlas(scanned.small_scope(), more, root, layers=scanned.LAYERS, classes=[0, 1], **QUICK)
    assert (found.made, found.wanted) == (16, 16)
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert len(cs.read_survey(root / "data")) == 9
    assert not (root / "image/11.html").exists() and not (root / "image/11.webp").exists()
    # another recipe makes the images again
    atlas(scanned.small_scope(), more, root, layers=scanned.LAYERS, classes=[0, 1], **(QUICK | {"steps": 3}))
    assert all(read_receipt(path)["recipe"]["steps"] == 3 for path in made)


def test_an_image_is_made_again_from_its_receipt(whole: Atlas) -> None:
    for name in ("unit/5/3.avif", "unit/output/2.avif"):
        redone = cs.redo(whole.path / name, scope=scanned.small_scope())
        assert redone.equal, redone.verdict
    receipt = read_receipt(whole.path / "unit/5/3.avif")
    assert receipt["unit"] == 3 and 1 <= receipt["rank"] <= 8 and receipt["side"] == 24


def test_units_of_each_layer(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "site"
    atlas(scanned.small_scope(), photos, root, layers=scanned.LAYERS, units={"2": [1, 3]}, classes=[0], budget=0.0, **QUICK)
    assert json.loads((root / "atlas.json").read_text())["units"] == {"2": [1, 3], "5": list(range(8)), "output": [0]}
    with pytest.raises(BadInput, match="units: 7 is none of the layers shown: 2, 5"):
        shown_units(scanned.small_scope(), scanned.LAYERS, {"7": [0]}, None)


def test_images_are_taken_from_galleries(photos: Path, tmp_path: Path, whole: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    cs.gallery(scanned.small_scope(), "5", [4, 2], tmp_path / "own", **QUICK)
    cs.gallery(scanned.small_scope(), "2", None, tmp_path / "other", **(QUICK | {"steps": 3}))
    made: list[tuple[str, list[int]]] = []
    true = atlas_images.feature_visualization

    def counted(scope: Any, layer: str, units: list[int], **options: Any) -> Any:
        if "copies" in options:  # the forecast's own runs have none
            made.append((layer, units))
        return true(scope, layer, units, **options)

    monkeypatch.setattr(atlas_images, "feature_visualization", counted)
    root = tmp_path / "site"
    found = atlas(scanned.small_scope(), photos, root, layers=scanned.LAYERS, pictures=[tmp_path / "other", tmp_path / "own"], **QUICK)
    assert (found.made, found.wanted) == (19, 19)
    assert {layer: sorted(units) for layer, units in made} == {"output": [0, 1, 2, 3, 4], "2": [0, 1, 2, 3, 4, 5], "5": [0, 1, 3, 5, 6, 7]}
    assert set(files_of(root)) == set(files_of(whole.path))
    taken = read_receipt(root / "unit/5/2.avif")
    assert taken["group"] == [4, 2] and taken.keys() == read_receipt(whole.path / "unit/5/2.avif").keys()
    redone = cs.redo(root / "unit/5/2.avif", scope=scanned.small_scope())
    assert redone.equal, redone.verdict


def test_the_rank_of_an_image(whole: Atlas) -> None:
    # slow twin: one image at a time in float64, with the survey's own means and deviations
    survey = cs.read_survey(whole.path / "data")
    model = hand_built.small().double().eval()
    scope = scanned.small_scope()
    made = cs.feature_visualization(scope, "5", list(read_receipt(whole.path / "unit/5/3.avif")["group"]), **QUICK)
    values = survey.mean("5").astype(np.float64)
    for unit, image in zip(made.units, made.images, strict=True):
        import torch

        seen = scope.inputs.normalize(torch.from_numpy(image.copy())[None].double())
        means = model[:6](seen)[0].mean((1, 2)).detach().numpy()
        score = np.divide(means - values.mean(0), values.std(0), out=np.zeros(8), where=values.std(0) > 0)
        receipt = read_receipt(whole.path / f"unit/5/{unit}.avif")
        assert receipt["rank"] == 1 + (score > score[unit]).sum()
        assert receipt["companions"] == [one for one in sorted(range(8), key=lambda one: -score[one]) if one != unit][:5]


def test_without_photographs(photos: Path, tmp_path: Path) -> None:
    found = atlas(scanned.small_scope(), photos, tmp_path / "site", layers="2", classes=[0], photographs=False, **QUICK)
    names = set(files_of(found.path))
    assert not [name for name in names if name.endswith(".webp")]
    page = (found.path / "unit/2/0.html").read_text()
    assert "not published" in page and ".webp" not in page
    with Image.open(found.path / "sheet/2/0.avif") as sheet:
        assert sheet.size == (896, 896)


def test_photographs_carry_no_metadata(photos: Path, tmp_path: Path) -> None:
    secret = Image.new("RGB", (30, 30), (200, 10, 10))
    exif = Image.Exif()
    exif[0x010E] = "home address"
    (tmp_path / "own").mkdir()
    secret.save(tmp_path / "own/a.jpg", exif=exif)
    for number in range(3):
        scanned.picture(number).save(tmp_path / f"own/{number}.png")
    found = atlas(scanned.small_scope(), tmp_path / "own", tmp_path / "site", layers="2", units=[0], classes=[0], **QUICK)
    assert b"home address" not in b"".join(files_of(found.path).values())


def test_what_is_shown() -> None:
    scope = scanned.small_scope()
    assert chosen_layers(scope, None) == ["2", "5"]
    assert chosen_layers(scope, ["5", "output", "2"]) == ["2", "5"]
    assert shown_units(scope, ["2", "5"], [7, 1], None) == {"2": (1,), "5": (1, 7), "output": (0, 1, 2, 3, 4)}
    assert shown_units(scope, ["2"], slice(0, 2), ["class 3"]) == {"2": (0, 1), "output": (3,)}


def test_large_networks_show_the_last_layer_of_each_map_size(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = cs.Scope(hand_built.torchvision_network("resnet18"), cs.Inputs(size=64))
    monkeypatch.setattr(module, "MOST_UNITS", 1000)
    assert chosen_layers(scope, None) == ["relu", "layer1.1.relu:1", "layer2.1.relu:1", "layer3.1.relu:1", "layer4.1.relu:1"]


def test_the_forecast(whole: Atlas) -> None:
    expected = forecast(scanned.small_scope(), 12, layers=scanned.LAYERS, **QUICK)
    assert expected.units == 19
    assert 0.6 < expected.files / whole.files < 1.4
    assert 0 < expected.seconds < 60 and "19 units and classes" in str(expected) and "occlusion" not in str(expected)
    hidden = forecast(scanned.small_scope(), 12, layers=scanned.LAYERS, occlusions=20, **QUICK)
    assert 0 < hidden.occlusion < 60 and "s for occlusion maps" in str(hidden)


def test_what_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/letter.txt").write_text("mine")
    with pytest.raises(StoreConflict, match="holds other files"):
        atlas(scanned.small_scope(), photos, tmp_path / "taken")
    with pytest.raises(StoreConflict, match="is a file"):
        atlas(scanned.small_scope(), photos, tmp_path / "taken/letter.txt")
    with pytest.raises(BadInput, match="copies"):
        atlas(scanned.small_scope(), photos, tmp_path / "site", copies=0)
    with pytest.raises(cs.ConvscopeError, match="it has, among others"):
        atlas(scanned.small_scope(), photos, tmp_path / "site", layers="nothing")
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    "names",
    [
        ("data/manifest.json", "data/photo.jpg", "train.py"),
        ("data/labels.csv",),
        ("index.html", "image/1.webp", "class/a.html"),
        (".data/thesis.txt",),
        ("atlas.json", "data/m.bin"),
    ],
)
def test_a_folder_of_something_else_loses_nothing(photos: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    """Files of the names that an atlas has; also tried: a survey called data, an atlas.json that is a list or no JSON."""
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    before = files_of(tmp_path)
    with pytest.raises(StoreConflict, match=r"holds other files .*; choose another folder"):
        atlas(scanned.small_scope(), photos, tmp_path, layers="2", units=[0], classes=[0], **QUICK)
    assert files_of(tmp_path) == before


def test_a_folder_with_a_colon_is_no_url(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = atlas(scanned.small_scope(), photos, "a:b/site", layers="2", units=[0], classes=[0], live=False, occlusions=0, **QUICK)
    assert made.index.is_file() and made.made == made.wanted == 2


def test_copies(photos: Path, tmp_path: Path) -> None:
    found = atlas(scanned.small_scope(), photos, tmp_path / "site", layers="2", units=[0, 1], classes=[0], copies=2, **QUICK)
    assert (found.made, found.wanted) == (6, 6)
    assert (found.path / "unit/2/1-1.avif").exists()
    assert "The same from other noise" in (found.path / "unit/2/1.html").read_text()


def test_two_images_have_no_correlations_and_no_median(tmp_path: Path) -> None:
    few = scanned.folder_of(tmp_path / "few", 2)
    atlas(scanned.small_scope(), few, tmp_path / "site", layers="2", classes=[0], **QUICK)
    text = (tmp_path / "site/unit/2/0.html").read_text()
    assert "Images that excite it most" in text and "fire for the same images" not in text and "at its median" not in text
