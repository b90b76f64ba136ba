"""Where images come from, and what is known of them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import scanned
from convscope.errors import BadImage, BadInput
from convscope.image_files import Source
from convscope.scanner.sources import find_sources


def listed(images: object, domain: str | None = None) -> list[Source]:
    listing = find_sources(images, domain)
    return listing.part(0, len(listing))


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_folders_are_labels_and_splits(tmp_path: Path) -> None:
    touch(
        tmp_path, "a.jpg", "ants/b.png", "train/bees/c.jpg", "photos/Val/cats/d.webp", "test/e.jpg", ".hidden/f.jpg", "ants/.g.jpg", "h.txt"
    )
    found = {source.name: (source.label, source.split, source.domain) for source in listed(tmp_path, "photos")}
    assert found == {
        "a.jpg": (None, None, "photos"),
        "ants/b.png": ("ants", None, "photos"),
        "h.txt": (None, None, "photos"),
        "photos/Val/cats/d.webp": ("cats", "Val", "photos"),
        "test/e.jpg": (None, "test", "photos"),
        "train/bees/c.jpg": ("bees", "train", "photos"),
    }
    assert [source.number for source in listed(tmp_path)] == list(range(6))
    assert listed(tmp_path)[0].read() == b"x"


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_lists_bring_labels_splits_and_domains(tmp_path: Path, kind: str) -> None:
    touch(tmp_path, "pictures/1.png", "2.png")
    rows = {"path": ["pictures/1.png", str(tmp_path / "2.png")], "label": ["007", ""], "split": ["val", "train"], "domain": [None, "x-ray"]}
    file = tmp_path / f"list.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table(rows), file)
    else:
        sign = "," if kind == "csv" else "\t"
        lines = [sign.join(rows), *(sign.join(value or "" for value in row) for row in zip(*rows.values(), strict=True))]
        file.write_text("\n".join(lines))
    first, second = listed(file, "photo")
    assert (first.name, first.label, first.split, first.domain) == ("pictures/1.png", "007", "val", "photo")
    assert (second.label, second.split, second.domain) == (None, "train", "x-ray")
    assert first.read() == second.read() == b"x"


def test_tar_shards_are_read_in_the_middle(tmp_path: Path) -> None:
    for number in (0, 1):
        scanned.tar_of(tmp_path / f"data-{number}.tar", 3)
    found = listed(str(tmp_path / "data-*.tar"))
    assert [source.name for source in found] == ["000.png", "001.png", "002.png"] * 2
    assert [source.label for source in found] == [*scanned.CLASSES] * 2
    assert found[4].path == f"{tmp_path}/data-1.tar::001.png"
    data = io.BytesIO()
    scanned.picture(1).save(data, "png")
    assert found[4].read() == data.getvalue()


def test_json_members_bring_metadata_and_metadata_is_no_image(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        for name, content in (
            ("a/1.json", b'{"label": 3, "split": "val", "domain": "sketch"}'),
            ("a/1.jpg", b"jpeg"),
            ("a/1.txt", b"words"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    (source,) = listed(tmp_path / "one.tar")
    assert (source.name, source.label, source.split, source.domain) == ("a/1.jpg", "3", "val", "sketch")


def test_sequences_of_files_and_tars_keep_their_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.png")
    scanned.tar_of(tmp_path / "c.tar", 1)
    found = listed([tmp_path / "b.png", tmp_path / "c.tar", tmp_path / "a.png"])
    assert [Path(source.path.partition("::")[0]).name for source in found] == ["b.png", "c.tar", "a.png"]


def test_urls(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/pictures/train/ants/1.png": b"one", "/pictures/train/bees/2.png": b"two"})
    try:
        found = listed("memory://pictures")
        assert [(source.name, source.label, source.split) for source in found] == [
            ("train/ants/1.png", "ants", "train"),
            ("train/bees/2.png", "bees", "train"),
        ]
        assert found[1].read() == b"two"
        memory.rm("/pictures/train/bees/2.png")
        with pytest.raises(BadImage, match="no such file"):
            found[1].read()
    finally:
        memory.rm("/pictures", recursive=True)


def test_a_part_that_travels_keeps_its_numbers(tmp_path: Path) -> None:
    listing = find_sources(scanned.folder_of(tmp_path, 9))
    cut = listing.cut(3, 7)
    assert len(cut) == 4 and cut.part(3, 7) == listing.part(3, 7) and cut.part(5, 6) == listing.part(5, 6)


def test_fingerprints_tell_listings_apart(tmp_path: Path) -> None:
    one = find_sources(scanned.folder_of(tmp_path / "one", 5)).fingerprint()
    assert find_sources(scanned.folder_of(tmp_path / "two", 5)).fingerprint() == one, "a folder that was moved is the same"
    assert find_sources(tmp_path / "two", "photo").fingerprint() != one
    (tmp_path / "two" / "ant" / "000.png").write_bytes(b"other")
    assert find_sources(tmp_path / "two").fingerprint() != one


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "nowhere", "no such file or folder"),
        (lambda root: touch(root, "a/b.txt") / "a", "has no image files"),
        (lambda root: str(root / "*.tar"), "matches nothing"),
        (lambda root: touch(root, "a.tar.gz") / "a.tar.gz", "compressed tar"),
        (lambda root: touch(root, "a.tar") / "a.tar", "cannot be read as a tar"),
        (lambda root: touch(root, "a.parquet") / "a.parquet", "cannot be read as a table"),
        (lambda root: 3, "a scan reads files"),
        (lambda root: [], "a scan reads files"),
        (lambda root: [root], "the list has no image files"),
    ],
)
def test_what_is_no_source_is_said_in_one_line(tmp_path: Path, make: object, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        find_sources(make(tmp_path))  # type: ignore[operator]
    assert "\n" not in str(error.value)


def test_a_list_without_paths(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("label,size\nant,3\n")
    with pytest.raises(BadInput, match=r"needs rows with a column path .*; it has label, size"):
        find_sources(tmp_path / "list.csv")
