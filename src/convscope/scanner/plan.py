"""The plan of a scan: everything that its result depends on, and nothing else. It decides whether a scan can be resumed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convscope.errors import StoreConflict
from convscope.scanner import parts
from convscope.scanner.files import OutputFolder
from convscope.survey.schema import MANIFEST, SCHEMAS, VALUES

FILE = "plan.json"


@dataclass(frozen=True)
class Plan:
    """Everything that the result of a scan depends on. A run with the same plan resumes another and ends with the same bytes.

    Attributes:
        schema: Version of the survey's file layout.
        layers: Layer names, in call order; the last is "output".
        images: Number of images listed.
        listing: Fingerprint of the list of images.
        shard_size: Images per shard.
        batch_size: Images per forward pass; rounding may depend on it.
        threads: CPU threads of a forward pass; rounding may depend on them.
        top: Number of top images per channel.
        votes_per_image: Channels that an image votes for in each layer.
        summary_only: Whether `values/` is left out.
        draft: Whether large JPEGs are decoded at a fraction of their size.
        precision: "float32" or "bfloat16".
        fast: Whether :mod:`convscope.fast` is used; rounding may depend on it.
        device: Device type.
        weights_hash: Hash of the network's weights.
        inputs: The network's :class:`~convscope.Inputs` as a mapping.
        output: Which part of what the network returns is "output", as it was asked for.
        classes: Names of the classes.
    """

    schema: int
    layers: tuple[str, ...]
    images: int
    listing: str
    shard_size: int
    batch_size: int
    threads: int
    top: int
    votes_per_image: int
    summary_only: bool
    draft: bool
    precision: str
    fast: bool
    device: str
    weights_hash: str
    inputs: Mapping[str, Any]
    output: str | None
    classes: tuple[str, ...] | None

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.images // self.shard_size)

    def bounds(self, shard: int) -> tuple[int, int]:
        """Number of a shard's first image, and one beyond its last."""
        return shard * self.shard_size, min(self.images, (shard + 1) * self.shard_size)

    def as_json(self) -> dict[str, Any]:
        """The plan as it reads back from JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def check_against(self, folder: OutputFolder, finished: Mapping[str, Any] | None) -> None:
        """Checks that a scan in the folder, finished or not, has this plan, or that the folder is free.

        Raises:
            StoreConflict: The folder holds a scan with another plan, or other files.
        """
        begun = (finished or {}).get("plan") or folder.read_json(FILE)
        if begun is None:
            if others := sorted(name for name in folder.names() if not name.startswith(".")):
                raise StoreConflict(f"{folder.path}: holds other files ({', '.join(others[:3])}); choose another folder")
            return
        own = self.as_json()
        named = own["classes"] if finished is None else finished.get("inputs", {}).get("classes")
        begun = {"classes": named, **begun}  # earlier plans have no names
        if differing := _differing(begun, own):
            told = "; ".join(f"{key} was {_short(was)}, now {_short(now)}" for key, was, now in differing[:3])
            raise StoreConflict(f"{folder.path}: holds a scan with other settings: {told}. Choose another folder, or delete it")

    def check_still_in(self, folder: OutputFolder) -> None:
        """Checks that the folder is still that of this scan; if it has been removed, removes what was written to it since.

        Raises:
            StoreConflict: It has been removed, or holds another scan.
        """
        if (found := folder.read_json(FILE)) == self.as_json():
            return
        if found is None:
            for shard in range(self.shards):
                for name in (f"{VALUES}/{shard:05d}.parquet", *parts.names_of(shard)):
                    folder.remove(name)
            for name in (*(f"{name}.parquet" for name in SCHEMAS), FILE, MANIFEST):
                folder.remove(name)
            folder.remove_if_empty(VALUES, parts.PARTS, "")
        what = "was removed" if found is None else "came into use by another scan"
        raise StoreConflict(f"{folder.path}: {what} while this scan was writing to it; run it again")


def _differing(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> list[tuple[str, Any, Any]]:
    """(setting, before, now) of all that differ, of settings inside settings the innermost, "inputs.crop"."""
    found: list[tuple[str, Any, Any]] = []
    for key in now:
        was, value = before.get(key), now[key]
        if isinstance(was, Mapping) and isinstance(value, Mapping):
            found += _differing(was, value, f"{within}{key}.")
        elif was != value:
            found.append((f"{within}{key}", was, value))
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
