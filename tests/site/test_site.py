from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

import convscope as cs
from convscope.render.panels import Curves, number
from convscope.site import addresses, charts
from convscope.site import content as module
from convscope.site.build import Site
from convscope.site.content import SHEET, Content, LayerContent, Options, by_chance
from convscope.site.pages import environment
from convscope.survey import Survey
from made import made

HOSTILE = '</script><b onclick="x">\u2028\'..'
FACTS = {
    "title": "small",
    "folder": "photos",
    "skipped": 1,
    "size": (24, 24),
    "version": "0",
    "weights": "w",
    "weights_hash": "h",
    "recipe": {},
    "versions": {},
}


def survey_of(
    folder: Path,
    count: int = 40,
    *,
    labels: list[str | None] | None = None,
    classes: list[str] | None = None,
    layers: tuple[str, ...] = ("early", "late"),
    channels: int = 70,
    later: int = 6,
    outputs: int = 4,
    causing: bool = False,
) -> Survey:
    """A survey of two layers of random maps, some of them silent or twins; the later one sees the whole image. With `causing`, unit 17 of
    the earlier layer fires where the image is not taken for its own class."""
    draws = np.random.default_rng(3)
    early = draws.gamma(1.0, 2.0, (count, channels, 6, 6)) * draws.gamma(1.0, 1.0, (1, channels, 1, 1))
    early[:, 5] = 0
    early[:, 9] = early[:, 8] * 2
    late = draws.gamma(1.0, 1.0, (count, later, 3, 3))
    output = draws.normal(size=(count, outputs)) * 3
    if causing:
        early[:, 17] = np.where(output.argmax(1) == np.arange(count) % 3, 0.01, 5.0)[:, None, None] * (1 + draws.random((count, 1, 1)))
    names: list[str | None] = [f"kind {index % 3}" for index in range(count)] if labels is None else labels
    return made(
        folder / "data",
        dict(zip(layers, (early, late), strict=True)),
        names,
        output=output,
        classes=classes,
        rectified=dict.fromkeys(layers, True),
    )


def site_of(survey: Survey, root: Path, **options: object) -> Site:
    units = {name: tuple(range(layer.channels)) for name, layer in survey.layers.items()}
    site = Site(survey, root, Options(units, **options), FACTS | {"images": len(survey)})  # pyright: ignore[reportArgumentType]
    site.write()
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("site")
    return site_of(survey_of(root, classes=["kind 0", "kind_1", "Kind 2", "other"]), root)


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [value for key in ("href", "src") if (value := found.get(key))]
        self.words += [value for key in ("alt", "aria-label", "title") if (value := found.get(key))]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(path: Path) -> Links:
    parser = Links()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def check_pages(root: Path) -> int:
    """Every link leads to a file of the site, nothing is empty or not a number; returns the number of pages."""
    pages = sorted(root.rglob("*.html"))
    for page in pages:
        found = read(page)
        for link in found.links:
            if link.startswith("data:"):
                continue
            link, _, place = link.partition("#")
            assert ":" not in link and not link.startswith("/"), f"{page}: {link}"
            target = (page.parent / unquote(link)).resolve() if link else page
            assert target.is_file() and target.is_relative_to(root.resolve()), f"{page.relative_to(root)} leads to {link}"
            assert not place or f'id="{place}"' in target.read_text(encoding="utf-8"), f"{page.relative_to(root)} leads to {link}#{place}"
        text = " ".join(found.words)
        assert not (odd := re.search(r".{0,30}\b(nan|None|inf|Undefined)\b.{0,30}", text)), f"{page}: {odd}"
    return len(pages)


def test_every_link_leads_somewhere(site: Site) -> None:
    assert check_pages(site.content.site) == 76 + 4 + 40 + 3 + 3 + 1


def test_pages_say_what_the_library_says(site: Site) -> None:
    survey = site.content.survey
    health = cs.filter_health(survey)
    units = [("early", unit) for unit in range(70)] + [("late", unit) for unit in range(6)]
    chosen = np.random.default_rng(0).permutation(len(units))[:50]
    for layer, unit in [units[index] for index in chosen] + [("early", 5), ("early", 9)]:
        page = (site.content.site / addresses.unit_page(layer, unit)).read_text()
        found = cs.exemplars(survey, layer, [unit], top=9, crops=False)
        if survey.maximum(layer)[:, unit].max() <= 0:
            assert "never above zero" in page and "crops nine" not in page
            continue
        crops = re.search(r'<div class="crops nine">(.*?)</div>', page, re.DOTALL)
        assert crops is not None
        assert re.findall(r"<i>(.*?)</i>", crops[1]) == [number(value) for value in found.values[0]]
        assert re.findall(r'href="\.\./\.\./image/(\d+)\.html"', crops[1]) == [str(image) for image in found.images[0]]
        if layer == "early":  # the box of the library's crop is what the page cuts out
            boxes = [list(map(int, text.split())) for text in re.findall(r'viewBox="(.*?)"', crops[1])]
            for (x, y, width, height), (y0, x0, y1, x1) in zip(boxes, found.boxes[0].tolist(), strict=True):
                assert (max(x, 0), max(y, 0), min(x + width, 24), min(y + height, 24)) == (x0, y0, x1, y1)
        profile = cs.class_profile(survey, layer)
        order = np.lexsort((np.arange(3), -profile.effect[unit], -profile.auc[unit]))
        rows = re.findall(r"<tr(?: class=\"found\")?><td><a href=\"[^\"]*\">(.*?)</a></td><td>(.*?)</td><td>(.*?)</td></tr>", page)
        names = ["kind 0", "kind_1", "Kind 2"]
        assert rows == [(names[at], f"{profile.auc[unit, at]:.3f}", number(profile.p_corrected[unit, at])) for at in order]
        findings = {name for name, several in health.of(layer).items() if unit in several}
        assert set(re.findall(r'<span class="badge bad">(\w+)', page)) == findings
        share = float((survey.maximum(layer)[:, unit] > 0).mean())
        assert f"somewhere in {number(round(100 * share))} % of the images" in page


def test_pixels_that_no_unit_sees_are_not_shown(site: Site) -> None:
    # found on SqueezeNet, whose first convolution leaves out the last row and column of 224
    known = LayerContent(site.content.survey, "early")
    known.layer = replace(known.layer, field_columns=np.minimum(known.layer.field_columns, 23))
    seen = {(crop.box[0] + crop.box[2] > 23, crop.unread) for crop in (known.crop(unit, row) for unit in range(70) for row in range(40))}
    assert seen == {(True, (1, 0)), (False, (0, 0))}
    crop = next(crop for crop in (known.crop(3, row) for row in range(40)) if crop.unread == (1, 0))
    macros = environment().get_template("_macros.html").make_module()
    shown = macros.crop(site.pages._crops([crop])[0], "")  # pyright: ignore
    assert 'style="clip-path:inset(0 1px 0px 0)"' in shown


def test_checks_of_a_unit_s_image(site: Site) -> None:
    known, unit = site.content.layer("early"), 20
    rows = [crop.row for crop in known.strongest(unit)]
    means = site.content.survey.mean("early").astype(np.float64)
    score = (means[rows] - means.mean(0)) / np.where(means.std(0) > 0, means.std(0), 1)
    value = score.mean(0)
    photographs = [one for one in np.argsort(-value, kind="stable").tolist() if one != unit][:5]
    others = [one for one in range(70) if one not in (*photographs, unit)]
    some = [others[0], *others[4:8]]
    rest = [one for one in range(70) if one not in (*some, unit)]
    auc = np.mean([value[one] > value[other] for one in some for other in rest])

    def checks(**of_image: object) -> list[tuple[str, bool, float]]:
        image = {"status": "converged", "ratio": 2.0, "rank": 1, "companions": photographs} | of_image
        second = image | {"companions": others[:3] + photographs[:2]}
        return [(one["kind"], one["holds"], one["value"]) for one in site.pages._checks("early", unit, [image, second], rows)]  # pyright: ignore

    good = [("ratio", True, 2.0), ("rank", True, 1), ("photographs", True, 1.0), ("seed", True, 2)]
    assert checks() == good
    bad = [("ratio", False, 0.5), ("rank", False, 3), ("photographs", False, pytest.approx(auc)), ("seed", False, 1)]
    assert checks(ratio=0.5, rank=3, companions=some) == bad
    assert checks(ratio=float("nan"), rank=None, companions=None) == [] and checks(status="stuck") == []
    # images made before there were companions, and layers too small for the question
    assert [kind for kind, *_ in checks(companions=None)] == ["ratio", "rank"]
    assert site.pages._checks("late", 0, [{"status": "", "ratio": 2.0, "rank": 1, "companions": [1, 2, 3, 4, 5]}], rows)[2:] == []  # pyright: ignore


def test_what_two_sets_of_units_have_in_common_by_chance() -> None:
    from itertools import combinations

    draws = [len(set(one) & {0, 1, 2}) for one in combinations(range(8), 3)]
    assert [by_chance(common, 3, 8) for common in range(4)] == pytest.approx([np.mean(np.array(draws) >= common) for common in range(4)])


def test_median_and_lowest_tenth(site: Site) -> None:
    content = site.content
    values = content.survey.maximum("early")[:, 3]
    middle, lowest = content.layer("early").middle(3), content.layer("early").lowest(3)
    falling = sorted(range(40), key=lambda row: (-values[row], row))
    assert [crop.row for crop in middle] == falling[17:22]
    assert [crop.row for crop in lowest] == falling[36:]
    assert all(crop.value == values[crop.row] for crop in middle + lowest)


def test_similar_units_are_those_that_correlate_most(site: Site) -> None:
    means = site.content.survey.mean("early").astype(np.float64)
    likeness = np.corrcoef(np.log1p(means[:, [unit for unit in range(70) if unit != 5]]).T)
    numbers = [unit for unit in range(70) if unit != 5]
    row = likeness[numbers.index(20)]
    wanted = [numbers[at] for at in np.argsort(-row) if numbers[at] != 20][:8]
    found = site.content.similar("early", 20, "early", 8)
    assert [ref.unit for ref in found] == wanted[: len(found)]
    np.testing.assert_allclose([ref.value for ref in found], [row[numbers.index(ref.unit)] for ref in found], atol=1e-5)
    assert site.content.similar("early", 5, "early", 8) == []


def test_what_is_strongest_is_so_among_all_units(tmp_path: Path) -> None:
    # also tried: units that carry a class, similar units, weights; with pages for none of a layer's units
    survey = survey_of(tmp_path, classes=["kind 0", "kind_1", "Kind 2", "other"])
    few = Site(survey, tmp_path, Options({"early": (20,), "late": (), "output": (0, 1, 2, 3)}), FACTS | {"images": len(survey)})
    few.write()
    assert check_pages(tmp_path) > 0
    means = survey.mean("early")
    wanted = np.argsort(-means[4], kind="stable")[:5].tolist()
    assert [ref.unit for ref in few.content.spikes("early", 4)] == wanted and 20 not in wanted
    shown = (tmp_path / "image" / "4.html").read_text(encoding="utf-8")
    assert all(f"<b>{unit}</b>" in shown for unit in wanted)
    near = few.content.similar("early", 20, "early", 8)
    assert len(near) == len(few.content.similar("early", 20, "early", 70)[:8]) and all(
        not few.content.has_page("early", one.unit) for one in near
    )


def test_every_mistake_is_listed(site: Site) -> None:
    found, page = cs.predictions(site.content.survey), (site.content.site / "mistakes.html").read_text()
    wrong = {int(site.content.survey.ids[row]) for row in np.flatnonzero(found.known & ~found.right)}
    assert {int(one) for one in re.findall(r'href="image/(\d+)\.html"', page)} == wrong
    for truth, taken, rows in site.content.confusions(None):
        one = page.partition(f'id="is-{truth}-taken-{taken}"')[2].partition("</section>")[0]
        assert f"<h2>{len(rows)} of " in one
        assert len(re.findall(r'href="image/', one)) == len(rows)
    index = (site.content.site / "index.html").read_text()
    assert f'<a href="mistakes.html">{len(wrong)}</a>' in index


def test_accuracy_and_mistakes(site: Site) -> None:
    content = site.content
    found = cs.predictions(content.survey)
    right, truth = int(found.right.sum()), np.array([index % 3 for index in range(40)])
    assert found.truth.tolist() == truth.tolist()
    page = (content.site / "index.html").read_text()
    assert f"{right} of 40 labelled images" in page
    worst = re.search(r"The worst mistakes</h3>(.*?)</section>", page, re.DOTALL)
    assert worst is not None
    assert re.findall(r'href="image/(\d+)\.html"', worst[1]) == [str(content.survey.ids[row]) for row in found.mistakes]
    counts = re.search(r'class="cs-counts">(.*?)</table>', page, re.DOTALL)
    assert counts is not None
    assert sum(int(count) for count in re.findall(r"<td[^>]*>(?:<a [^>]*>)?(\d+)", counts[1])) == 40


def test_the_images_behind_each_number_of_the_confusion_matrix(site: Site) -> None:
    found = cs.predictions(site.content.survey)
    page = (site.content.site / "index.html").read_text()
    cells = dict(re.findall(r'<section class="cell" id="is-(.*?)".*?</h3>\s*<div class="photos">(.*?)</section>', page, re.DOTALL))
    pairs = sorted({(int(truth), int(taken)) for truth, taken in zip(found.truth, found.predicted[:, 0], strict=True)})
    assert sorted(cells) == [f"{truth}-taken-{taken}" for truth, taken in pairs]
    assert re.findall(r'<td[^>]*><a href="#is-(.*?)">', page) == list(cells)
    for truth, taken in pairs:
        rows = [row for row in range(40) if found.truth[row] == truth and found.predicted[row, 0] == taken]
        surest = sorted(rows, key=lambda row: (-found.probability[row, 0], row))[:8]
        assert re.findall(r'href="image/(\d+)\.html"', cells[f"{truth}-taken-{taken}"]) == list(map(str, surest))


def section(page: str, start: str) -> str:
    """The part of a page from a heading to the end of its section."""
    found = re.search(rf"<h2>{start}.*?</section>", page, re.DOTALL)
    assert found is not None, start
    return found[0]


def test_the_page_of_a_class_says_what_the_library_says(site: Site) -> None:
    survey, content = site.content.survey, site.content
    page = (content.site / "class/1.html").read_text()
    found = cs.predictions(survey)
    taken = [row for row in range(40) if found.predicted[row, 0] == 1 and found.truth[row] != 1]
    assert taken and re.findall(r"image/(\d+)\.html", section(page, "Wrongly taken for kind_1")) == list(map(str, taken[:8]))
    sums = cs.activation_sums(survey, "late")  # each image votes for all six units
    assert np.isnan(sums.sums).all() and "belong to other labels as well" in section(page, "Its activation sum")


def test_class_maps_activation_sum_and_detector_are_the_librarys(tmp_path: Path) -> None:
    survey = survey_of(tmp_path, classes=["kind 0", "kind_1", "Kind 2", "other"], channels=70, later=80)
    site = site_of(survey, tmp_path)
    check_pages(tmp_path)
    page = (tmp_path / "class/1.html").read_text()
    carry = section(page, "Units that tell its images apart")
    items = re.findall(r"<li><h3><a [^>]*>(.*?)</a></h3>(.*?)</li>", carry, re.DOTALL)
    rows = {
        name: found[1] for name, item in items if (found := re.search(r"<h4>class map[^<]*</h4><div[^>]*>(.*?)</div>", item, re.DOTALL))
    }
    for layer in ("early", "late"):
        maps = cs.class_maps(survey, layer)
        wanted = [(str(unit), str(maps.votes[1, unit])) for unit in maps.maps["kind 1"][:4]]
        assert re.findall(r"<b>(\d+)</b> (\d+)", rows.get(layer, "")) == wanted, layer
    assert "late" in rows
    sums, detector = cs.activation_sums(survey, "late"), cs.detector(survey, "late")
    assert site.content.sums is not None and np.array_equal(site.content.sums.sums, sums.sums)
    assert f"mean activation of the {sums.sizes[0, 1]} units" in section(page, "Its activation sum")
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", section(page, "As a detector"))
    assert [auc for _, auc, _ in rows] == [f"{auc:.3f}" for auc in detector.auc[:, 1]]
    assert [ends for *_, ends in rows] == [f"[{number(low)}, {number(high)}]" for low, high in detector.auc_intervals[:, 1]]


def test_why_there_is_no_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str | None] = [f"kind {index % 3}" if index < 39 else "kind 3" for index in range(40)]
    survey = survey_of(tmp_path, labels=names, later=80)
    assert "needs at least 2 images of each label to fit; 'kind 3' has" in str(Content(survey, tmp_path, Options({})).detector)
    monkeypatch.setattr(module, "_MOST_DETECTED", 159)
    assert Content(survey, tmp_path, Options({})).detector == "of so many labels and images it is left to the command convscope detector"


def test_the_curve_of_a_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.metrics import roc_curve

    drawn: list[Curves] = []
    monkeypatch.setattr(charts.charts, "curves", lambda panel: drawn.append(panel))
    scores, positive = np.array([0.0, 1, 1, 2, 3, 3, 5]), np.array([0, 0, 1, 0, 1, 1, 1], bool)
    charts.roc([scores, -scores], positive, ["up", "down"])
    for line, each in zip(drawn[0].lines, (scores, -scores), strict=True):
        alarms, hits, _ = roc_curve(positive, each, drop_intermediate=False)
        assert np.allclose(line.x, alarms) and np.allclose(line.y, hits)


def test_what_is_fired_instead(site: Site) -> None:
    # slow twin: each pair of images, and scipy's test
    from scipy.stats import mannwhitneyu

    survey, content = site.content.survey, site.content
    label, own = 1, np.flatnonzero(survey.truth == 1)
    missed, right = own[~content.right[own]], own[content.right[own]]
    values = survey.mean("early").astype(np.float64)
    auc = np.array([np.mean([(a > b) + 0.5 * (a == b) for a in values[missed, unit] for b in values[right, unit]]) for unit in range(70)])
    found = content.instead("early", label)
    assert found is not None and len(missed) > 1 and len(right) > 1
    assert [ref.value for ref in found.more] == pytest.approx(sorted(auc, reverse=True)[:4])
    assert [ref.value for ref in found.less] == pytest.approx(sorted(auc)[:4])
    assert all(ref.value == pytest.approx(auc[ref.unit]) for ref in found.more + found.less)
    p = [mannwhitneyu(values[missed, unit], values[right, unit], alternative="greater", method="asymptotic").pvalue for unit in range(70)]
    assert (min(p) * 70 < 0.05) == bool({ref.unit for ref in found.more} & found.found)
    page = (content.site / "class/1.html").read_text()
    assert f"one of the {len(missed)} images that are not recognized than on one of the {len(right)} that are" in page
    assert content.instead("early", 1) is not None


def test_units_that_make_the_mistakes_are_found(tmp_path: Path) -> None:
    survey = survey_of(tmp_path, 120, classes=["kind 0", "kind_1", "Kind 2", "other"], causing=True)
    found = Content(survey, tmp_path, Options({})).instead("early", 1)
    assert found is not None and found.more[0].unit == 17 and found.more[0].value == 1 and 17 in found.found


def test_the_thumbnail_of_a_unit_stays_its_own(site: Site) -> None:
    # the rows that sorting works on name their unit; tile k of the page and row k of the data are the same unit
    root = site.content.site
    rows = json.loads((root / "layer/early.js").read_text().removeprefix("window.atlasLayer=").rstrip(";\n"))["rows"]
    page = (root / "layer/early.html").read_text()
    styles = (root / "static/sheets.css").read_text()
    found = re.findall(r"\.s(\d+)::before\{background-image:url\(\.\./sheet/early/(\d+)\.avif", styles)
    sheets = {int(one): int(sheet) for one, sheet in found}
    places = re.findall(r"\.p(\d+)::before\{background-position:([\d.]+)% ([\d.]+)%", styles)
    at = {int(one): 8 * round(7 * float(y) / 100) + round(7 * float(x) / 100) for one, x, y in places}
    tiles = re.findall(r'<a href="\.\./unit/early/(\d+)\.html" class="s(\d+) p(\d+)"><b>', page)
    assert [int(unit) for unit, *_ in tiles] == [row[0] for row in rows] == list(range(70))
    assert [(sheets[int(sheet)], at[int(place)]) for _, sheet, place in tiles] == [divmod(unit, SHEET) for unit in range(70)]


@pytest.mark.parametrize(
    "kind", ["no labels", "no class names", "other labels", "one label", "one output", "few images", "hostile", "one image"]
)
def test_all_kinds_of_data(kind: str, tmp_path: Path) -> None:
    # also tried: labels as numbers, two classes, a layer of one unit
    few = 3 if kind == "few images" else 1 if kind == "one image" else 12
    labels: list[str | None] | None = {
        "no labels": [None] * few,
        "other labels": [f"thing {index % 2}" for index in range(few)],
        "one label": ["kind 0"] * few,
        "hostile": [f"{HOSTILE}{index % 3}" for index in range(few)],
    }.get(kind)
    classes = (
        None
        if kind in ("no class names", "one output")
        else [HOSTILE + str(index) for index in range(4)]
        if kind == "hostile"
        else ["kind 0", "b", "c", "d"]
    )
    layers = ("../a b", HOSTILE) if kind == "hostile" else ("early", "late")
    survey = survey_of(tmp_path, few, labels=labels, classes=classes, layers=layers, channels=12, outputs=1 if kind == "one output" else 4)
    site_of(survey, tmp_path)
    check_pages(tmp_path)
    scripts = "".join(path.read_text() for path in tmp_path.rglob("*.js") if path.parent.name != "static")
    assert "</" not in scripts and "\u2028" not in scripts
    if kind == "hostile":
        pages = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html"))
        assert "<b onclick" not in pages and "\u2028" not in pages
    if kind == "no class names":
        assert "matched by their order" not in (tmp_path / "index.html").read_text()  # three labels, four outputs
        assert (tmp_path / "class/label-0.html").exists()


def test_only_what_changed_is_written(site: Site) -> None:
    again = Site(site.content.survey, site.content.site, site.content.options, FACTS | {"images": 40})
    again.write()
    assert again.writer.changed == 0
    (site.content.site / "unit/early/3.html").write_text("cut off")
    (site.content.site / "unit/early/999.html").write_text("left over")
    (site.content.site / "unit/early/.3.html.ab12.tmp").write_text("killed")
    again.write()
    assert again.writer.changed == 1
    assert not (site.content.site / "unit/early/999.html").exists() and not list(site.content.site.rglob("*.tmp"))


def test_a_photograph_that_has_gone(tmp_path: Path) -> None:
    survey = survey_of(tmp_path, 6, channels=10)
    Path(survey.images["path"][2].as_py()).unlink()
    site_of(survey, tmp_path)
    assert not (tmp_path / "image/2.webp").exists()
    assert Content(survey, tmp_path, Options({})).layers == ["early", "late"]
