"""The shards of a scan on a Ray cluster: one actor for each GPU or group of cores; an actor that dies is replaced."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from convscope.errors import BadInput, ConvscopeError, NotInstalled
from convscope.progress import task
from convscope.scanner import parts
from convscope.scanner.files import OutputFolder
from convscope.scanner.plan import Plan
from convscope.scanner.sources import Listing
from convscope.scanner.worker import worker
from convscope.scope import Inputs, Scope
from convscope.text import one_line

_log = logging.getLogger("convscope")
_TRIES = 3
"""After this many actors died on one shard, the scan ends with an error."""


class Actor:
    """A process of the cluster that holds the network and does shards."""

    def __init__(self, model: nn.Module, inputs: Inputs, named: Mapping[str, str | None], plan: Plan, path: str, processes: int) -> None:
        device = "cuda" if plan.device == "cuda" else "cpu"
        scope = Scope(model, inputs, device=device, precision=plan.precision, fast=plan.fast, **named)
        self._stack = ExitStack()
        self._worker = self._stack.enter_context(worker(scope, plan, OutputFolder(path), processes))

    def shard(self, number: int, listing: Listing, remaining: int) -> tuple[int, str]:
        """Does a shard; its number, and the forecast, see :meth:`Worker.shards`."""
        return next(self._worker.shards([number], listing, lambda *_: None, remaining))


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
        BadInput: Ray is not installed, no such cluster, or a shard on which every process died.
    """
    missing = [shard for shard, done in enumerate(parts.finished(folder, plan.shards)) if not done]
    if not missing:
        return
    with _cluster(address) as ray, _shipped(scope):
        gpus, cores = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        wanted = actors or (gpus if plan.device == "cuda" else max(1, cores // plan.threads)) or 1
        share = {"num_gpus": 1, "num_cpus": 1} if plan.device == "cuda" else {"num_cpus": min(plan.threads, max(1, cores // wanted))}
        network, named = ray.put(scope.model), {"name": scope.name, "weights": scope.weights, "output": scope.output}
        factory = ray.remote(Actor).options(**share, max_restarts=0)

        def new_actor() -> Any:
            return factory.remote(network, scope.inputs, named, plan, folder.path, processes)

        _distribute(ray, plan, listing, missing, [new_actor() for _ in range(min(wanted, len(missing)))], new_actor)


def _distribute(ray: Any, plan: Plan, listing: Listing, missing: list[int], idle: list[Any], new_actor: Callable[[], Any]) -> None:
    """Gives each actor one shard at a time. If an actor dies, a new one is made and the shard is given out again."""
    waiting = list(reversed(missing))
    tries = dict.fromkeys(missing, 0)
    running: dict[Any, tuple[Any, int]] = {}
    remaining = sum(stop - start for start, stop in map(plan.bounds, missing))
    forecast_of = remaining
    with task(f"scan of {plan.images} images on Ray", remaining) as advance:
        while waiting or running:
            while waiting and idle:
                actor, shard = idle.pop(), waiting.pop()
                running[actor.shard.remote(shard, listing.cut(*plan.bounds(shard)), forecast_of)] = actor, shard
                forecast_of = 0
            done, _ = ray.wait(list(running), num_returns=1)
            actor, shard = running.pop(done[0])
            start, stop = plan.bounds(shard)
            try:
                _, note = ray.get(done[0])
            except ray.exceptions.RayActorError as error:
                tries[shard] += 1
                if tries[shard] == _TRIES:
                    raise BadInput(f"shard {shard} (images {start} to {stop - 1}) ended {_TRIES} processes: {error}") from None
                _log.warning("a worker died on shard %d, which is given to another", shard)
                waiting.append(shard)
                idle.append(new_actor())
                continue
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, ConvscopeError) else error) from None
            advance(stop - start, note)
            idle.append(actor)


@contextmanager
def _cluster(address: str) -> Generator[Any]:
    """Within the block, a connection to a cluster; a cluster that was started here is shut down afterwards."""
    try:
        import ray
    except ImportError:
        raise NotInstalled("scans on a cluster need ray", "ray") from None
    if ray.is_initialized():
        yield ray
        return
    try:
        ray.init(
            address=None if address == "auto" else address,
            include_dashboard=False if address == "auto" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": ":".join(path for path in sys.path if path)}},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BadInput(f"no Ray cluster at {address}: {one_line(error)}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _shipped(scope: Scope) -> Generator[None]:
    """Within the block, code of the network that workers cannot import is sent by value (a user's own file, say)."""
    from ray import cloudpickle

    homes = {type(module).__module__ for module in scope.model.modules()}
    private = [name for name in homes if name != "__main__" and name in sys.modules and not _importable(name)]
    for name in private:
        cloudpickle.register_pickle_by_value(sys.modules[name])
    try:
        yield
    finally:
        for name in private:
            cloudpickle.unregister_pickle_by_value(sys.modules[name])


def _importable(name: str) -> bool:
    """Whether a module is an installed package, which workers can import."""
    try:
        return importlib.util.find_spec(name) is not None and "site-packages" in str(getattr(sys.modules[name], "__file__", ""))
    except (ImportError, ValueError):
        return False
