"""The shards of a scan on a Ray cluster: an actor for each GPU or group of cores, and a new one where one dies."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from convscope.errors import BadInput, ConvscopeError
from convscope.progress import task
from convscope.scanner import parts
from convscope.scanner.files import Place
from convscope.scanner.plan import Plan
from convscope.scanner.sources import Listing
from convscope.scope import Inputs, Scope

_log = logging.getLogger("convscope")
_TRIES = 3
"""How often a shard may take its actor with it before the scan gives up."""


class Actor:
    """Holds the network in a process of the cluster and does shards."""

    def __init__(self, model: nn.Module, inputs: Inputs, name: str, weights: str | None, plan: Plan, path: str, processes: int) -> None:
        from convscope.scanner.scan import scanning

        device = "cuda" if plan.device == "cuda" else "cpu"
        scope = Scope(model, inputs, device=device, precision=plan.precision, name=name, weights=weights)
        self._stack = ExitStack()
        self._work = self._stack.enter_context(scanning(scope, plan, Place(path), processes))

    def shard(self, number: int, listing: Listing, todo: int) -> tuple[int, str]:
        """Does a shard; its number, and a forecast if one was asked for."""
        return next(self._work.shards([number], listing, lambda *_: None, todo))


def on_ray(scope: Scope, plan: Plan, place: Place, listing: Listing, processes: int, address: str, actors: int) -> None:
    """Does the shards that are missing on a cluster.

    Raises:
        BadInput: Ray is not installed, no such cluster, or a shard that kills every process that takes it.
    """
    missing = [shard for shard, done in enumerate(parts.finished(place, plan.shards)) if not done]
    if not missing:
        return
    with _cluster(address) as ray, _shipped(scope):
        gpus, cores = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        wanted = actors or (gpus if plan.device == "cuda" else max(1, cores // plan.threads)) or 1
        share = {"num_gpus": 1, "num_cpus": 1} if plan.device == "cuda" else {"num_cpus": min(plan.threads, max(1, cores // wanted))}
        network = ray.put(scope.model)
        made = ray.remote(Actor).options(**share, max_restarts=0)

        def actor() -> Any:
            return made.remote(network, scope.inputs, scope.name, scope.weights, plan, place.path, processes)

        _distribute(ray, plan, listing, missing, [actor() for _ in range(min(wanted, len(missing)))], actor)


def _distribute(ray: Any, plan: Plan, listing: Listing, missing: list[int], idle: list[Any], actor: Any) -> None:
    """Keeps every actor busy with one shard; a shard whose actor died goes to another, and a new actor takes the dead one's place."""
    waiting = list(reversed(missing))
    tries = dict.fromkeys(missing, 0)
    running: dict[Any, tuple[Any, int]] = {}
    todo = sum(stop - start for start, stop in map(plan.bounds, missing))
    asked = todo
    with task(f"scan of {plan.images} images on Ray", todo) as advance:
        while waiting or running:
            while waiting and idle:
                one, shard = idle.pop(), waiting.pop()
                running[one.shard.remote(shard, listing.cut(*plan.bounds(shard)), asked)] = one, shard
                asked = 0
            done, _ = ray.wait(list(running), num_returns=1)
            one, shard = running.pop(done[0])
            start, stop = plan.bounds(shard)
            try:
                _, note = ray.get(done[0])
            except ray.exceptions.RayActorError as error:
                tries[shard] += 1
                if tries[shard] == _TRIES:
                    raise BadInput(f"shard {shard} (images {start} to {stop - 1}) ended {_TRIES} processes: {error}") from None
                _log.warning("a worker died on shard %d; it goes to another", shard)
                waiting.append(shard)
                idle.append(actor())
                continue
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, ConvscopeError) else error) from None
            advance(stop - start, note)
            idle.append(one)


@contextmanager
def _cluster(address: str) -> Generator[Any]:
    """A connection to a cluster; one that is started here ends with the block."""
    try:
        import ray
    except ImportError:
        raise BadInput('ray is not installed: pip install "convscope[ray]"') from None
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
        raise BadInput(f"no Ray cluster at {address}: {' '.join(str(error).split())}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _shipped(scope: Scope) -> Generator[None]:
    """Within the block, a network whose code workers cannot import travels by value: one of a user's file, say."""
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
    try:
        return importlib.util.find_spec(name) is not None and "site-packages" in str(getattr(sys.modules[name], "__file__", ""))
    except (ImportError, ValueError):
        return False
