import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convscope as cs
import hand_built
import promises
from convscope.errors import BadInput, StoreConflict
from convscope.receipts import read_receipt
from convscope.results.base import Result, axes
from convscope.results.folder import load, save

ROOT = Path(__file__).parents[2]
DTYPES = ["float32", "float64", "int8", "uint8", "int16", "int32", "int64", "uint16", "bool"]


@dataclass(frozen=True, eq=False, repr=False)
class StoredProbe(Result):
    maps: np.ndarray = axes("n h w", "heat", unit="logit")
    scalar: np.ndarray = axes("", unit="px")
    names: tuple[str, ...]
    picture: Any = None
    table: Any = None

    def twice(self) -> np.ndarray:
        return self.maps * 2


def probe(**changes: Any) -> StoredProbe:
    fields: dict[str, Any] = {
        "maps": np.arange(24.0, dtype=np.float32).reshape(2, 3, 4),
        "scalar": np.array(2.5),
        "names": ("a.jpg", "dög 犬.jpg"),
        "manifest": {"technique": "stored_probe", "parameters": {"seed": 3, "lr": 0.05, "unit": None}, "units": [1, 2]},
    }
    return StoredProbe(**{**fields, **changes})


def test_a_result_comes_back_as_it_was(tmp_path: Path):
    result = probe(picture=((7, np.random.default_rng(0).random((3, 2, 2))),), table={"a": [1, (2, 3)], "worst": float("inf")})
    folder = save(result, tmp_path / "deep" / "folder")
    back = load(folder)
    assert type(back) is StoredProbe
    np.testing.assert_array_equal(back.twice(), result.twice())
    assert back.maps.dtype == np.float32
    assert not back.maps.flags.writeable
    assert back.scalar.shape == ()
    assert back.names == result.names
    assert back.table == result.table
    assert type(back.picture) is tuple
    assert back.picture[0][0] == 7
    np.testing.assert_array_equal(back.picture[0][1], result.picture[0][1])
    assert back.manifest == result.manifest
    assert [(item.name, item.axes, item.kind, item.unit) for item in back.arrays()] == [
        (item.name, item.axes, item.kind, item.unit) for item in result.arrays()
    ]


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_are_bit_equal(tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("convscope.results.folder._drawn", lambda *_: None)
    raw = np.random.default_rng(0).integers(0, 256, 2 * 3 * 4 * np.dtype(dtype).itemsize, dtype=np.uint8)
    maps = (raw % 2 if dtype == "bool" else raw).view(dtype).reshape(2, 3, 4)
    back = load(save(probe(maps=maps), tmp_path / "a"))
    assert back.maps.dtype == maps.dtype
    assert back.maps.tobytes() == maps.tobytes()


@pytest.mark.parametrize("change", [np.asfortranarray, lambda a: a[:, ::-1, ::2], lambda a: a.astype(">f8"), lambda a: a[:0]])
def test_memory_layout_does_not_matter(tmp_path: Path, change: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("convscope.results.folder._drawn", lambda *_: None)
    maps = change(np.random.default_rng(0).random((2, 3, 4)))
    maps.setflags(write=False)  # so that the result keeps this very layout
    np.testing.assert_array_equal(load(save(probe(maps=maps), tmp_path / "a")).maps, maps)


def test_the_folder_holds_arrays_figure_and_manifest(tmp_path: Path):
    folder = save(probe(), tmp_path / "a")
    assert sorted(path.name for path in folder.iterdir()) == ["arrays.safetensors", "figure.png", "manifest.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert read_receipt(folder / "figure.png") == probe().manifest
    head = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert (head["schema"], head["technique"]) == (1, "stored_probe")
    assert head["fields"][0] == {"name": "maps", "axes": ["n", "h", "w"], "kind": "heat", "unit": "logit", "shape": [2, 3, 4]}
    assert head["manifest"]["parameters"]["seed"] == 3


def test_a_process_without_the_class_reads_the_same_fields(tmp_path: Path):
    folder = save(probe(), tmp_path / "a")
    code = f"""
import sys
from convscope.results.folder import load
result = load({str(folder)!r})
again = load({str(folder)!r})
assert type(result) is type(again)
assert result.figure() is not None
print(type(result).__name__, result.technique, result.names, result.maps.sum(), result.manifest["units"], "torch" in sys.modules)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env, timeout=60, encoding="utf-8")
    assert done.stdout.strip() == "StoredProbe stored_probe ('a.jpg', 'dög 犬.jpg') 276.0 [1, 2] False"


@pytest.mark.parametrize("name", ["Torch", "Os", "Scope", "convscope.zoo", "../evil", "Scan"])
def test_a_stored_name_imports_nothing_but_files_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    from convscope.results import classes

    folder = save(probe(), tmp_path / "a", figure=False)
    head = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(head | {"class": name, "module": "os"}))
    imported: list[str] = []
    real = classes.importlib.import_module
    monkeypatch.setattr(classes.importlib, "import_module", lambda module: imported.append(module) or real(module))
    if name.isidentifier():
        assert type(load(folder)).__name__ == name
    else:
        with pytest.raises(StoreConflict, match="is not the name of a class"):
            load(folder)
    assert set(imported) <= {"convscope.results"}


def test_saving_without_a_figure_draws_nothing_and_loads_no_matplotlib(tmp_path: Path):
    code = f"""
import sys
from render_stand_ins import deconvnet, spectrum
from convscope.results.folder import load
for name, result in (("spectrum", spectrum(2)), ("deconvnet", deconvnet())):
    folder = result.save({str(tmp_path)!r} + "/" + name, figure=False)
    assert not (folder / "figure.png").exists()
    assert type(load(folder)) is type(result)
print(*(name for name in ("matplotlib", "torch") if name in sys.modules))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]), "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env, timeout=60, encoding="utf-8")
    assert done.stdout.strip() == ""


def test_a_class_that_has_changed_since_is_passed_over(tmp_path: Path):
    def grown() -> type[Result]:
        @dataclass(frozen=True, eq=False, repr=False)
        class Growing(Result):
            values: np.ndarray = axes("n")
            more: int = 0

        return Growing

    @dataclass(frozen=True, eq=False, repr=False)
    class Growing(Result):
        values: np.ndarray = axes("n")

    folder = save(Growing(np.arange(3)), tmp_path / "a")
    assert type(load(folder)) is Growing
    head = json.loads((folder / "manifest.json").read_text())
    head["class"] = "GrowingElsewhere"
    (folder / "manifest.json").write_text(json.dumps(head))
    back = load(folder)
    assert type(back).__name__ == "GrowingElsewhere"
    np.testing.assert_array_equal(getattr(back, "values"), np.arange(3))  # noqa: B009
    later = grown()
    assert type(load(save(Growing(np.arange(2)), tmp_path / "b"))) is Growing
    assert type(load(save(later(np.arange(2)), tmp_path / "c"))) is later


def test_an_empty_folder_is_filled_and_a_filled_one_is_refused(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    save(probe(), tmp_path / "empty")
    with pytest.raises(StoreConflict, match="already holds a finished result"):
        save(probe(), tmp_path / "empty")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    with pytest.raises(StoreConflict, match="already holds other files"):
        save(probe(), tmp_path / "other")
    assert (tmp_path / "other" / "thesis.tex").read_text() == "precious"
    with pytest.raises(StoreConflict, match="is not a folder"):
        save(probe(), tmp_path / "other" / "thesis.tex")


def test_overwrite_replaces_a_result_of_its_own_kind_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = save(probe(), tmp_path / "a")
    again = probe().with_manifest({"second": True})
    assert load(save(again, folder, overwrite=True)).manifest["second"] is True
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
    with pytest.raises(StoreConflict, match=r"holds a result of .*, which one of spectrum does not replace"):
        save(cs.Spectrum(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((0, 3, 4, 4))), folder, overwrite=True)
    (folder / "thesis.tex").write_text("precious")
    with pytest.raises(StoreConflict, match=r"holds thesis\.tex besides the result"):
        save(again, folder, overwrite=True)
    (folder / "thesis.tex").unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.txt").write_text("precious")
    with pytest.raises(StoreConflict, match="already holds other files"):
        save(probe(), tmp_path / "other", overwrite=True)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(Path, "rename", lambda self, target: (_ for _ in ()).throw(OSError(5, "disk")))
    with pytest.raises(StoreConflict, match="cannot be replaced"):
        save(probe(), folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("step", ["arrays.safetensors", "figure.png", "manifest.json", "rename"])
def test_a_crash_in_mid_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str):
    from convscope.results import folder as module

    real = module.write_synced

    def write(path: Path, data: bytes) -> None:
        if path.name == step:
            real(path, data[: len(data) // 2])
            raise KeyboardInterrupt
        real(path, data)

    def crash(temporary: Path, folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_synced", write)
    if step == "rename":
        monkeypatch.setattr(module, "_rename", crash)
    with pytest.raises(KeyboardInterrupt):
        save(probe(), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert load(save(probe(), tmp_path / "a")).names == probe().names


def test_somebody_else_saving_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from convscope.results import folder as module

    real = module._write

    def write(*arguments: Any) -> None:
        real(*arguments)
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "theirs").write_text("x")

    monkeypatch.setattr(module, "_write", write)
    with pytest.raises(StoreConflict, match="came into use"):
        save(probe(), tmp_path / "a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["theirs"]


def test_a_figure_that_fails_costs_no_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(self: Result) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr(StoredProbe, "figure", fail)
    with pytest.warns(RuntimeWarning, match="saved without a figure .*no font"):
        folder = save(probe(), tmp_path / "a")
    assert not (folder / "figure.png").exists()
    assert load(folder).names == probe().names


def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(BadInput, match="table holds set"):
        save(probe(table={1, 2}), tmp_path / "a")
    with pytest.raises(BadInput, match="maps is an array of <U1"):
        save(probe(maps=np.array([[["a"]]])), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def changed(folder: Path, **changes: Any) -> None:
    head = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**head, **changes}))


DAMAGE: list[tuple[Any, str]] = [
    (lambda f: (f / "manifest.json").unlink(), "holds no finished result"),
    (lambda f: (f / "manifest.json").write_text("{"), r"manifest\.json cannot be read"),
    (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe"), r"manifest\.json cannot be read"),
    (lambda f: (f / "manifest.json").write_text("[]"), "not that of a convscope result"),
    (lambda f: (f / "manifest.json").write_text('{"schema": 1}'), "is damaged .without arrays"),
    (lambda f: changed(f, schema=99), "newer convscope .layout 99, this one reads up to 1"),
    (lambda f: changed(f, fields=[{"name": "maps"}]), r"manifest\.json is damaged"),
    (lambda f: changed(f, fields=7), r"manifest\.json is damaged"),
    (lambda f: changed(f, extras=[]), r"manifest\.json is damaged"),
    (lambda f: changed(f, extras={"names": {"$what": 1}}), r"manifest\.json is damaged"),
    (lambda f: changed(f, arrays=None), r"arrays\.safetensors is damaged"),
    (lambda f: (f / "arrays.safetensors").unlink(), r"arrays\.safetensors cannot be read"),
    (lambda f: (f / "arrays.safetensors").write_bytes((f / "arrays.safetensors").read_bytes()[:-1]), "its checksum is not the one"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_damage_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any, message: str):
    monkeypatch.setattr("convscope.results.folder._drawn", lambda *_: None)
    folder = save(probe(), tmp_path / "a")
    damage(folder)
    with pytest.raises(StoreConflict, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_told(tmp_path: Path):
    with pytest.raises(StoreConflict, match="there is no such folder"):
        load(tmp_path / "nowhere")


def test_a_folder_that_may_be_written_to_below_one_that_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an empty volume mounted at the root is. Further ones: a full disk above, a folder that fills meanwhile."""
    real = Path.mkdir

    def mkdir(self: Path, *more: Any, **options: Any) -> None:
        if self.parent == tmp_path:
            raise PermissionError(13, "Permission denied")
        real(self, *more, **options)

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "mkdir", mkdir)
    result = probe()
    assert result.save(tmp_path / "out", figure=False) == tmp_path / "out"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["arrays.safetensors", "manifest.json"]
    assert type(load(tmp_path / "out")) is type(result)
    with pytest.raises(PermissionError):
        result.save(tmp_path / "new", figure=False)


def test_results_are_not_written_to_urls() -> None:
    for url in ("s3://bucket/x", "memory://x", "https://example.org/x"):
        with pytest.raises(BadInput, match="only surveys are written to URLs"):
            probe().save(url)


def test_a_local_path_may_be_written_as_a_url(tmp_path: Path) -> None:
    for number, protocol in enumerate(("file://", "local://")):
        assert probe().save(f"{protocol}{tmp_path}/{number}", figure=False) == tmp_path / str(number)
        assert load(tmp_path / str(number)).technique == probe().technique
        with pytest.raises(BadInput, match="expected a path"):
            probe().save(protocol)


def test_a_name_as_long_as_may_be(tmp_path: Path) -> None:
    assert load(probe().save(tmp_path / ("x" * 255), figure=False)).technique == probe().technique


@pytest.mark.parametrize("form", ["png", "svg", "pdf", "webp"])
def test_formats_of_figures(tmp_path: Path, form: Any) -> None:
    """Every format holds the manifest, and is the same file twice; WebP has the very pixels of the PNG."""
    first, again = (probe().save(tmp_path / name, figure=form) / f"figure.{form}" for name in "ab")
    data = first.read_bytes()
    assert data == again.read_bytes() and len(data) > 2000
    assert sorted(path.name for path in first.parent.iterdir()) == ["arrays.safetensors", f"figure.{form}", "manifest.json"]
    assert json.loads((first.parent / "manifest.json").read_text())["figure"] == f"figure.{form}"
    if form in ("png", "webp"):
        assert read_receipt(first) == probe().manifest
        plain = probe().save(tmp_path / "plain") / "figure.png"
        assert np.array_equal(np.asarray(Image.open(first).convert("RGB")), np.asarray(Image.open(plain)))
    else:
        assert data.startswith(b"<?xml" if form == "svg" else b"%PDF") and b"stored_probe" in data
    assert probe().save(first.parent, figure="png", overwrite=True) and not (first.parent / "figure.svg").exists()


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="figure must be True, False or one of png, svg, pdf, webp, got 'gif'"):
        probe().save(tmp_path / "a", figure="gif")  # type: ignore[arg-type]
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("field", "value", "ask"),
    [
        ("units", 7, lambda result: result.summary()),
        ("unit_names", 7, lambda result: result.summary()),
        ("unit_names", 7, lambda result: result.view()),
        ("status", True, lambda result: result.figure()),
    ],
)
def test_what_does_not_fit_together_is_damage(tmp_path: Path, field: str, value: object, ask: Callable[[Any], object]) -> None:
    """Found by changing manifests of results of all techniques at random: 100 of 1,400 were read, and ended in tracebacks when shown."""
    scope = promises.scope_on(hand_built.small())
    made = cs.feature_visualization(scope, "5", [0, 1], recipe="multiscale", size=12, stages=1, steps=1)
    file = made.save(tmp_path / "result", figure=False) / "manifest.json"
    head = json.loads(file.read_text())
    assert field in head["extras"]
    head["extras"][field] = value
    file.write_text(json.dumps(head))
    with pytest.raises(StoreConflict, match="is damaged") as error:
        ask(cs.load(tmp_path / "result"))
    assert "\n" not in str(error.value)
    with pytest.raises(TypeError):  # a result that was made, not loaded, is not the file's fault
        ask(dataclasses.replace(made, **{field: value}))
