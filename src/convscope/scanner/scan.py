"""Scans a data set into a survey: makes a plan, chooses the size of shards, does them here or on a Ray cluster, and writes the tables."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from convscope.errors import BadImage, BadInput, asking
from convscope.files import path_text
from convscope.names import OUTPUT, is_whole, layer_names
from convscope.progress import task
from convscope.results.provenance import describe, manifest
from convscope.scanner import parts
from convscope.scanner.files import LOCK, OutputFolder
from convscope.scanner.on_ray import on_ray
from convscope.scanner.plan import FILE, Plan
from convscope.scanner.sources import Listing, find_sources
from convscope.scanner.tables import write_tables
from convscope.scanner.worker import worker
from convscope.scope import Scope
from convscope.survey.schema import MANIFEST, VALUES, VERSION
from convscope.survey.survey import Survey, read_survey
from convscope.text import one_line

_log = logging.getLogger("convscope")
_MOST, _MOST_WORKERS = 2**31 - 1, 4096
"""Largest numbers that are taken; more threads or processes than any machine has cores end it."""
_SHARD_BYTES = 2**27
"""Memory for the measurements of a shard, if `shard_size` is not given."""


def scan(
    scope: Scope,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    layers: str | Sequence[str] | None = None,
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
) -> Survey:
    """Scans a data set into a survey: per-image statistics of every channel, in Parquet tables.

    For every channel of every layer and every image: the maximum max_uv A(u,v), its position, and the mean over positions. Over all
    images and for each label: moments, the images with the largest maximum, votes. Over all positions: the share above zero, quantiles
    and a histogram. The documentation describes the files. An interrupted or killed scan that is called again resumes after its last
    finished shard, and ends with the same bytes as an uninterrupted one.

    Args:
        scope: The network.
        images: A folder (its subfolders are labels; `train/`, `val/` and the like above them are splits), a list (.csv, .parquet) with
            columns path, label, split, domain, WebDataset shards (.tar, or a pattern of them), or a sequence of files. Local paths, or
            URLs that fsspec knows. Images that cannot be read are skipped, counted, and listed with the reason.
        out: Folder of the survey, or a URL that fsspec knows.
        layers: A layer name or several; by default every convolution, after its ReLU if it has one, and the last layer with maps that
            holds all of its kind (of SqueezeNet, `features.12` beside its two halves). "output" is always added.
        top: Number of images listed for each channel, and for each channel and label; ties by image number.
        votes_per_image: In each layer, an image votes for this many channels of largest mean; ties by channel number.
        summary_only: Leave out the per-image rows (`values/`), which are most of a survey's size.
        domain: The domain of all images whose list does not give one.
        draft: Decode JPEGs at a half, a quarter or an eighth of their size if that still covers the network's input. Faster for
            large photographs; pixels differ a little from those of a full decoding.
        shard_size: Images per shard, the unit of resuming; 0: as many as fit in 128 MB of measurements, at most 1024.
        batch_size: Images per forward pass; 0: chosen for speed.
        decoders: Decoding processes; 0: a thread of this process; -1: one for each free core, at most 16.
        threads: CPU threads of a forward pass; 0: torch's number. Rounding may depend on it, so a resumed scan keeps its number.
        ray: Do the shards on a Ray cluster: "auto" (the cluster of this machine, or a new one on it) or an address; None: no Ray.
        actors: Number of Ray actors; 0: one for each GPU, or one for every `threads` cores.

    Returns:
        The survey, as :func:`~convscope.read_survey` gives it.

    Raises:
        LayerNotFound: Unknown layer.
        BadInput: No images, a number out of range, or a disk too small for the size forecast after two batches.
        BadImage: None of the images can be read.
        StoreConflict: `out` holds other files, or a scan with other settings.

    Source:
        Graetz 2019 (S0), closing section: the network applied to a whole data set. Votes: Shin 2020 (S2). One position per image: the max
        tracker of Yosinski et al. 2015. Quantiles: histograms with the bins of DDSketch (Masson et al. 2019) of 16 evenly spread
        positions of each map, within 1.6 %.

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
    for name, value, least, most in (
        ("top", top, 1, _MOST),
        ("votes_per_image", votes_per_image, 1, _MOST),
        ("shard_size", shard_size, 0, _MOST),
        ("batch_size", batch_size, 0, _MOST),
        ("decoders", decoders, -1, _MOST_WORKERS),
        ("threads", threads, 0, _MOST_WORKERS),
        ("actors", actors, 0, _MOST_WORKERS),
    ):
        if not is_whole(value) or not least <= value <= most:
            raise BadInput(f"{name} must be a whole number from {least} to {most}, got {one_line(repr(value), 60)}")
    with asking(technique="scan"):
        scope.inputs.preprocessing.check_files()
        if scope.inputs.whole:
            raise BadInput("a scan needs inputs of one size: let images be cropped or stretched, not whole")
        chosen = _layers(scope, layers)
        folder = OutputFolder(path_text(out))
        listing = find_sources(images, domain)
        finished = folder.read_json(MANIFEST)
        plan = Plan(
            schema=VERSION,
            layers=chosen,
            images=len(listing),
            listing=listing.fingerprint(),
            shard_size=shard_size or _shard_size(scope, chosen),
            batch_size=batch_size or scope.fitting(scope.inputs.height * scope.inputs.width),
            threads=threads or _begun_threads(folder, finished) or torch.get_num_threads(),
            top=top,
            votes_per_image=votes_per_image,
            summary_only=summary_only,
            draft=draft,
            precision=scope.resolve("measure"),
            fast=scope.fast,
            device=scope.device.type,
            weights_hash=scope.weights_hash,
            inputs=scope.inputs.manifest(),
            output=scope.output,
            classes=tuple(scope.inputs.classes) if scope.inputs.classes else None,
        )
        plan.check_against(folder, finished)
        if finished is None:
            with folder.locked():
                _write(scope, plan, folder, listing, images, decoders=decoders, ray=ray, actors=actors)
        for temporary in (parts.PARTS, FILE, LOCK):
            folder.remove(temporary)
    return read_survey(folder.path)


def _write(
    scope: Scope, plan: Plan, folder: OutputFolder, listing: Listing, images: Any, *, decoders: int, ray: str | None, actors: int
) -> None:
    """Does what is missing of a scan whose folder is locked.

    Raises:
        StoreConflict: The folder is not free any more, or was removed meanwhile.
    """
    finished = folder.read_json(MANIFEST)  # perhaps by the process that held the lock
    plan.check_against(folder, finished)
    if finished is not None:
        return
    if folder.read_json(FILE) is None:
        folder.write_json(FILE, plan.as_json())
    try:
        if ray is None:
            _here(scope, plan, folder, listing, decoders)
        else:
            on_ray(scope, plan, folder, listing, decoders, ray, actors)
        _finish(scope, plan, folder, images)
    except OSError:
        plan.check_still_in(folder)
        raise


def _layers(scope: Scope, layers: str | Sequence[str] | None) -> tuple[str, ...]:
    """Layer names in call order, each once, the output last."""
    if layers is None:
        layers = [*scope.layers.after_relu()]
        with suppress(BadInput):  # no layer has maps
            layers.append(scope.layers.last_maps())  # the one that other techniques take by default
    asked = [layers] if isinstance(layers, str) else list(layers)
    asked = layer_names(asked, scope.layers)
    known = {name: scope.layers[name] for name in asked if name != OUTPUT}
    return (*sorted(known, key=lambda name: known[name].position), OUTPUT)


def _shard_size(scope: Scope, layers: Sequence[str]) -> int:
    """Number of images whose measurements (13 bytes per channel) fit; a power of two, so that similar networks have the same."""
    fitting = _SHARD_BYTES // (13 * sum(scope.layers[name].channels for name in layers))
    return min(1024, max(64, 1 << max(0, fitting.bit_length() - 1)))


def _begun_threads(folder: OutputFolder, finished: Any) -> int:
    """The number of threads of a scan that was begun in the folder; 0 if there is none."""
    begun = (finished or {}).get("plan") or folder.read_json(FILE) or {}
    return int(begun.get("threads", 0))


def _here(scope: Scope, plan: Plan, folder: OutputFolder, listing: Listing, processes: int) -> None:
    """Does the missing shards in this process, one after another."""
    missing = [shard for shard, done in enumerate(parts.finished(folder, plan.shards)) if not done]
    remaining = sum(stop - start for start, stop in map(plan.bounds, missing))
    done = f" ({plan.images - remaining} are done)" if remaining < plan.images else ""
    with task(f"scan of {plan.images} images{done}", remaining) as advance, worker(scope, plan, folder, processes) as here:
        for shard, note in here.shards(missing, listing, advance, remaining):
            _log.debug("shard %d done %s", shard, note)


def _finish(scope: Scope, plan: Plan, folder: OutputFolder, images: Any) -> None:
    """Writes the tables, removes temporary files of killed processes, and writes the manifest."""
    read, skipped, labels = write_tables(scope, plan, folder)
    if not read:
        first = next(reason for table in parts.all_images(folder, plan.shards) for reason in table["reason"].to_pylist())
        raise BadImage(f"none of the {plan.images} images can be read; the first: {first}")
    for name in ("", VALUES):
        folder.clean(name)
    plan.check_still_in(folder)
    parameters = {"images": describe(images), "layers": list(plan.layers), "draft": plan.draft}
    folder.write_json(
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
