"""The shards of a scan on a Ray cluster: one actor for each GPU or group of cores."""

from __future__ import annotations

from contextlib import ExitStack

from torch import nn

from convscope.cluster import Settings, cluster
from convscope.progress import task
from convscope.scanner import parts
from convscope.scanner.files import OutputFolder
from convscope.scanner.plan import Plan
from convscope.scanner.sources import Listing
from convscope.scanner.worker import worker
from convscope.scope import Scope


class Actor:
    """A process of the cluster that holds the network and does shards."""

    def __init__(self, model: nn.Module, settings: Settings, plan: Plan, path: str, processes: int) -> None:
        self._stack = ExitStack()
        self._worker = self._stack.enter_context(worker(settings.scope(model), plan, OutputFolder(path), processes))

    def shard(self, number: int, listing: Listing, remaining: int) -> str:
        """Does a shard; the forecast, see :meth:`Worker.shards`."""
        return next(self._worker.shards([number], listing, lambda *_: None, remaining))[1]


def on_ray(scope: Scope, plan: Plan, folder: OutputFolder, listing: Listing, processes: int, address: str, actors: int) -> None:
    """Does the missing shards on a cluster.

    Args:
        scope: The network.
        plan: The plan of the scan.
        folder: Where shards are written.
        listing: The images.
        processes: Decoding processes of each actor.
        address: "auto", or the address of the cluster.
        actors: Number of actors; 0: one for each GPU, or for every `plan.threads` cores.

    Raises:
        NotInstalled: Ray is not installed.
        BadInput: No such cluster, or a shard on which every process died.
    """
    missing = [shard for shard, done in enumerate(parts.finished(folder, plan.shards)) if not done]
    if not missing:
        return
    images = {shard: stop - start for shard in missing for start, stop in [plan.bounds(shard)]}
    remaining = [sum(images.values())]

    def named(shard: int) -> str:
        start, stop = plan.bounds(shard)
        return f"shard {shard} (images {start} to {stop - 1})"

    with cluster(scope, address) as connection, task(f"scan of {plan.images} images on Ray", *remaining) as advance:
        done = connection.each(
            missing,
            Actor,
            (connection.settings, plan, folder.path, processes),
            # the first shard alone forecasts
            lambda actor, shard: actor.shard.remote(shard, listing.cut(*plan.bounds(shard)), remaining.pop() if remaining else 0),
            threads=plan.threads,
            actors=actors,
            name=named,
        )
        for shard, note in done:
            advance(images[shard], note)
