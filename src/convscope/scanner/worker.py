"""A worker of a scan: one process that holds the network and does shards, on this machine or in a Ray actor."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch

from convscope.fast.memory import reusing_memory
from convscope.image_files import Source
from convscope.scanner.decoder_pool import Decoders, decoders
from convscope.scanner.files import OutputFolder
from convscope.scanner.plan import Plan
from convscope.scanner.shard import ShardScanner
from convscope.scanner.sources import Listing
from convscope.scope import Scope


class Worker:
    """Does shards in this process, with decoders that read images ahead. Made by :func:`worker`."""

    def __init__(self, scanner: ShardScanner, decoding: Decoders) -> None:
        self.scanner, self.decoding = scanner, decoding

    def shards(self, numbers: Sequence[int], listing: Listing, advance: Callable[..., None], remaining: int) -> Iterator[tuple[int, str]]:
        """Does shards, yielding the number of each when it is written, and a forecast of the whole scan ("" without one).

        Args:
            numbers: Numbers of the shards.
            listing: The images.
            advance: Called with the number of images after each batch, and the forecast.
            remaining: Images that are still to be scanned, for the forecast; 0: none wanted.
        """
        plan = self.scanner.plan

        def sources() -> Iterator[Source]:
            for shard in numbers:
                yield from listing.part(*plan.bounds(shard))

        stream = self.decoding.stream(sources(), max(2 * plan.batch_size, self.decoding.ahead))
        for shard in numbers:
            start, stop = plan.bounds(shard)
            decoded = (next(stream) for _ in range(stop - start))
            yield shard, self.scanner.scan(shard, decoded, advance, remaining)
            remaining = 0


@contextmanager
def worker(scope: Scope, plan: Plan, folder: OutputFolder, processes: int) -> Generator[Worker]:
    """Within the block, this process can do shards: threads, memory, decoders and the network's session are set up.

    Args:
        scope: The network.
        plan: The plan of the scan.
        folder: Where shards are written.
        processes: Decoding processes; 0: a thread of this process; -1: one for each free core, at most 16.
    """
    before = torch.get_num_threads()
    count = min(16, max(1, (os.cpu_count() or 1) - (1 if scope.device.type == "cuda" else 0))) if processes < 0 else processes
    preprocessing = replace(scope.inputs.preprocessing, draft=plan.draft)
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, before)
        torch.set_num_threads(plan.threads)
        _ = scope.layers  # recorded before the session begins
        stack.enter_context(reusing_memory(scope.fast))
        decoding = stack.enter_context(decoders(count, preprocessing))
        stack.enter_context(scope.session(plan.precision, lean=True))
        yield Worker(ShardScanner(scope, plan, folder), decoding)
