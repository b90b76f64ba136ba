"""The scan of a data set: a plan, shards done here or on a Ray cluster, and the tables made of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from convscope.errors import BadImage, BadInput, asking
from convscope.fast.memory import kept_memory
from convscope.progress import task
from convscope.results.provenance import describe, manifest
from convscope.scanner import parts
from convscope.scanner.decoder import Target
from convscope.scanner.decoding import decoders
from convscope.scanner.files import Place
from convscope.scanner.plan import FILE, Plan
from convscope.scanner.shard import ShardScanner
from convscope.scanner.sources import Listing, Source, find_sources
from convscope.scanner.tables import write_tables
from convscope.scope import Scope
from convscope.scope.layers import OUTPUT
from convscope.survey.schema import MANIFEST, VALUES, VERSION

_log = logging.getLogger("convscope")
_SHARD_BYTES = 2**27
"""What a shard's measurements may take in memory, unless its size is given."""


def scan(
    scope: Scope,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    top: int = 9,
    votes_per_image: int = 25,
    summary_only: bool = False,
    domain: str | None = None,
    draft: bool = False,
    shard_size: int = 0,
    batch_size: int = 0,
    decoders: int = -1,
    threads: int = 0,
    ray: str | None = None,
    actors: int = 0,
) -> Any:
    """Looks at a whole data set once, and writes down what every image does to every channel: a survey.

    For every channel of every layer and every image: the maximum max_uv A(u,v), its position and the mean over positions; over all
    images and for each label: moments, the images of largest maximum, votes; over all positions: the share above zero and quantiles.
    Parquet files, described in the documentation and readable by anything. A scan that was interrupted, killed even, goes on from the
    last finished shard when it is called again, and ends with the same bytes as one that was not.

    Args:
        scope: The network.
        images: A folder (its subfolders are labels; `train/`, `val/` and the like above them are splits), a list (.csv, .parquet) with
            columns path, label, split, domain, WebDataset shards (.tar, or a pattern of them), or a sequence of files. Local paths, or
            URLs that fsspec knows. Images that cannot be read are skipped, counted, and listed with the reason.
        out: Folder of the survey, or a URL that fsspec knows.
        layers: Layer names; by default every convolution, after its ReLU where it has one. The output is always added.
        top: Images kept for each channel, and for each channel and label; equal values go by image number.
        votes_per_image: Each image votes, in each layer, for so many channels of largest mean; equal means go by channel number.
        summary_only: Leave out the rows for each image (`values/`), which are most of a survey.
        domain: The domain that all images belong to, if their list does not say.
        draft: Decode JPEGs at a half, a quarter or an eighth of their size where that still covers the network's input. Faster for
            large photographs; pixels then differ a little from those that other commands see.
        shard_size: Images of a shard, the unit of resuming; 0: as many as fit in 128 MB of measurements, at most 1024.
        batch_size: Images of a forward; 0: as many as are fast.
        decoders: Decoding processes; 0: a thread of this one; -1: one for each core that is free, at most 16.
        threads: CPU threads of a forward; 0: torch's number. Rounding may depend on it, so a scan keeps what it was begun with.
        ray: Do the shards on a Ray cluster: "auto" takes the one that this machine belongs to, or starts one here; or its address.
        actors: Ray: processes that hold the network; 0: one for each GPU, or one for every `threads` cores.

    Returns:
        The survey, as :func:`~convscope.read_survey` gives it.

    Raises:
        LayerNotFound: Unknown layer.
        BadInput: No images, a wrong number, or a disk that is too small for what is forecast after two batches.
        BadImage: None of the images can be read.
        StoreConflict: `out` holds something else, or a scan that asked something else.

    Source:
        The closing wish of Graetz 2019 (S0), the network applied to a whole data set; Shin (S2) for votes. Values are those of layers
        after their ReLU; positions are single, as in Yosinski et al.'s max tracker. Quantiles come from 16 positions of every map (fixed
        ones, spread evenly), sketched by DDSketch to within 1.6 %.

    Example:
        >>> import convscope as cs, tempfile
        >>> from convscope.zoo.textures.generator import write_folder
        >>> folder = tempfile.mkdtemp()
        >>> _ = write_folder(f"{folder}/data", 1, 0)
        >>> survey = cs.scan(cs.open("textures"), f"{folder}/data/images", f"{folder}/survey")

    Command line:
        convscope scan textures data/images --out survey
        convscope scan textures labels.csv --layers features.27 --domain drawing --out drawings
    """
    for name, value, least in (("top", top, 1), ("votes_per_image", votes_per_image, 1), ("shard_size", shard_size, 0)):
        if value < least:
            raise BadInput(f"{name} must be at least {least}, got {value}")
    for name, value, least in (("batch_size", batch_size, 0), ("decoders", decoders, -1), ("threads", threads, 0), ("actors", actors, 0)):
        if value < least:
            raise BadInput(f"{name} must be at least {least}, got {value}")
    with asking(technique="scan"):
        chosen = _layers(scope, layers)
        place = Place(os.fspath(out))
        listing = find_sources(images, domain)
        finished = place.read_json(MANIFEST)
        plan = Plan(
            layers=chosen,
            images=len(listing),
            listing=listing.fingerprint(),
            shard_size=shard_size or _shard_size(scope, chosen),
            batch_size=batch_size or scope.fitting(scope.inputs.height * scope.inputs.width),
            threads=threads or _begun(place, finished) or torch.get_num_threads(),
            top=top,
            votes_per_image=votes_per_image,
            summary_only=summary_only,
            draft=draft,
            precision=scope.resolve("measure"),
            device=scope.device.type,
            weights_hash=scope.weights_hash,
            inputs=scope.inputs.manifest(),
        )
        plan.agreed(place, finished)
        if finished is None:
            if ray is None:
                _here(scope, plan, place, listing, decoders)
            else:
                from convscope.scanner.on_ray import on_ray

                on_ray(scope, plan, place, listing, decoders, ray, actors)
            _finish(scope, plan, place, images)
        for left in (parts.FOLDER, FILE):
            place.remove(left)
    return _survey(place)


def _layers(scope: Scope, layers: Sequence[str] | None) -> tuple[str, ...]:
    """Names in call order, none twice, the output last."""
    asked = [layers] if isinstance(layers, str) else list(scope.layers.after_relu() if layers is None else layers)
    known = {name: scope.layers[name] for name in asked if name != OUTPUT}
    return (*sorted(known, key=lambda name: known[name].position), OUTPUT)


def _shard_size(scope: Scope, layers: Sequence[str]) -> int:
    """So many images that their measurements (13 bytes a channel) fit; a power of two, so that it is the same for similar networks."""
    fitting = _SHARD_BYTES // (13 * sum(scope.layers[name].channels for name in layers))
    return min(1024, max(64, 1 << max(0, fitting.bit_length() - 1)))


def _begun(place: Place, finished: Any) -> int:
    """The number of threads that a scan in the folder was begun with; 0 if there is none."""
    begun = (finished or {}).get("plan") or place.read_json(FILE) or {}
    return int(begun.get("threads", 0))


def _here(scope: Scope, plan: Plan, place: Place, listing: Listing, processes: int) -> None:
    """Does the shards that are missing, one after another; pictures are decoded ahead across their borders."""
    missing = [shard for shard, done in enumerate(parts.finished(place, plan.shards)) if not done]
    todo = sum(stop - start for start, stop in map(plan.bounds, missing))
    there = f" ({plan.images - todo} are done)" if todo < plan.images else ""
    with task(f"scan of {plan.images} images{there}", todo) as advance, scanning(scope, plan, place, processes) as work:
        for shard, note in work.shards(missing, listing, advance, todo):
            _log.debug("shard %d done %s", shard, note)


class Worker:
    """Does shards in this process: the network, and the decoders that feed it. Use within :func:`scanning`."""

    def __init__(self, scanner: ShardScanner, decoding: Any) -> None:
        self.scanner, self.decoding = scanner, decoding

    def shards(self, missing: Sequence[int], listing: Listing, advance: Any, todo: int) -> Iterator[tuple[int, str]]:
        """Does shards, yielding each when it is written."""
        plan = self.scanner.plan

        def sources() -> Iterator[Source]:
            for shard in missing:
                yield from listing.part(*plan.bounds(shard))

        stream = self.decoding.stream(sources(), max(2 * plan.batch_size, self.decoding.ahead))
        for shard in missing:
            start, stop = plan.bounds(shard)
            decoded = (next(stream) for _ in range(stop - start))
            yield shard, self.scanner.scan(shard, decoded, advance, todo)[2]
            todo = 0


@contextmanager
def scanning(scope: Scope, plan: Plan, place: Place, processes: int) -> Generator[Worker]:
    """Within the block, this process can do shards: its threads, memory, decoders and the network are as the plan wants them."""
    before = torch.get_num_threads()
    count = min(16, max(1, (os.cpu_count() or 1) - (1 if scope.device.type == "cuda" else 0))) if processes < 0 else processes
    target = Target((scope.inputs.height, scope.inputs.width), scope.inputs.interpolation, scope.inputs.crop, plan.draft)
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, before)
        torch.set_num_threads(plan.threads)
        _ = scope.layers
        stack.enter_context(kept_memory())
        decoding = stack.enter_context(decoders(count, target))
        stack.enter_context(scope.session(plan.precision, lean=True))
        yield Worker(ShardScanner(scope, plan, place), decoding)


def _finish(scope: Scope, plan: Plan, place: Place, images: Any) -> None:
    """Makes the tables, clears away what killed processes left half written, and writes the manifest."""
    read, skipped, labels = write_tables(scope, plan, place)
    if not read:
        first = next(reason for table in parts.all_images(place, plan.shards) for reason in table["reason"].to_pylist())
        raise BadImage(f"none of the {plan.images} images can be read; the first: {first}")
    for folder in ("", VALUES):
        place.clean(folder)
    parameters = {"images": describe(images), "layers": list(plan.layers), "draft": plan.draft}
    place.write_json(
        MANIFEST,
        manifest(scope, "scan", parameters)
        | {
            "precision": plan.precision,
            "schema": VERSION,
            "images": read,
            "skipped": skipped,
            "shards": plan.shards,
            "summary_only": plan.summary_only,
            "top": plan.top,
            "votes_per_image": plan.votes_per_image,
            "layers": list(plan.layers),
            "labels": labels,
            "inputs": {**scope.inputs.manifest(), "classes": list(scope.inputs.classes) if scope.inputs.classes else None},
            "plan": plan.as_json(),
        },
    )


def _survey(place: Place) -> Any:
    """The survey for reading."""
    try:
        from convscope.survey.survey import read_survey  # pyright: ignore[reportMissingImports]
    except ImportError:  # the read side is not there yet
        return place.path
    return read_survey(place.path)
