"""What a scan is to do, decided before it begins: everything that the result depends on, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convscope.errors import StoreConflict
from convscope.scanner.files import Place

FILE = "plan.json"


@dataclass(frozen=True)
class Plan:
    """The question of a scan. A run with the same plan goes on where another stopped, and ends with the same bytes.

    Attributes:
        layers: Layer names, in call order; the last is "output".
        images: Number of images listed.
        listing: Fingerprint of the listing.
        shard_size: Images of a shard.
        batch_size: Images of a forward; rounding may depend on it.
        threads: CPU threads of a forward; rounding may depend on them.
        top: Images kept for each channel.
        votes_per_image: Channels that an image votes for, in each layer.
        summary_only: Whether `values/` is left out.
        draft: Whether large JPEGs are decoded at a fraction of their size.
        precision: "float32" or "bfloat16".
        device: Type of the device.
        weights_hash: Of the network.
        inputs: What it is fed.
    """

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
    device: str
    weights_hash: str
    inputs: Mapping[str, Any]

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.images // self.shard_size)

    def bounds(self, shard: int) -> tuple[int, int]:
        """First image of a shard, and one beyond its last."""
        return shard * self.shard_size, min(self.images, (shard + 1) * self.shard_size)

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON gives it back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def agreed(self, place: Place, finished: Mapping[str, Any] | None) -> None:
        """Holds this plan against the one of a scan that is in the folder already, finished or not; writes it if there is none.

        Raises:
            StoreConflict: The folder belongs to another scan, or to something else.
        """
        begun = (finished or {}).get("plan") or place.read_json(FILE)
        if begun is None:
            if strange := sorted(name for name in place.names() if not name.startswith(".")):
                raise StoreConflict(f"{place.path}: holds other files ({', '.join(strange[:3])}); choose another folder")
            place.write_json(FILE, self.as_json())
            return
        own = self.as_json()
        if differing := [key for key in own if begun.get(key) != own[key]]:
            told = "; ".join(f"{key} was {_short(begun.get(key))}, now {_short(own[key])}" for key in differing[:3])
            raise StoreConflict(f"{place.path}: holds a scan that asked something else: {told}. Choose another folder, or delete it")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
