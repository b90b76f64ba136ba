"""A Ray cluster: actors that hold the network, one for each GPU or group of cores; an actor that dies is replaced."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from convscope.errors import BadInput, ConvscopeError, NotInstalled
from convscope.scope import Inputs, Scope
from convscope.text import one_line

_log = logging.getLogger("convscope")
TRIES = 3
"""After this many actors died on one job, the work ends with an error."""

Job = TypeVar("Job")


@dataclass(frozen=True)
class Settings:
    """How a network is run; with the network itself, which travels once for all actors, a scope."""

    inputs: Inputs
    device: str
    precision: str
    fast: bool
    name: str
    weights: str | None
    output: str | None

    @classmethod
    def of(cls, scope: Scope) -> Settings:
        """Those of a scope. An actor on a GPU sees that one alone, whatever its number."""
        device = "cuda" if scope.device.type == "cuda" else "cpu"
        return cls(scope.inputs, device, scope.precision, scope.fast, scope.name, scope.weights, scope.output)

    def scope(self, model: nn.Module) -> Scope:
        """The scope again, in an actor."""
        return Scope(
            model,
            self.inputs,
            device=self.device,
            precision=self.precision,
            fast=self.fast,
            name=self.name,
            weights=self.weights,
            output=self.output,
        )


class Cluster:
    """A connection to a cluster that has the network; made by :func:`cluster`.

    Args:
        ray: The module, connected.
        scope: The network, with its settings.
    """

    def __init__(self, ray: Any, scope: Scope) -> None:
        self.ray, self.settings, self.network = ray, Settings.of(scope), ray.put(scope.model)

    def each(
        self,
        jobs: Iterable[Job],
        actor: Callable[..., Any],
        arguments: tuple[Any, ...],
        call: Callable[[Any, Job], Any],
        *,
        threads: int,
        actors: int = 0,
        name: Callable[[Job], str] = str,
    ) -> Iterator[tuple[Job, Any]]:
        """Gives each actor one job at a time, and yields jobs with their results as they are finished.

        If an actor dies, a new one is made and the job is given out again.

        Args:
            jobs: What is to be done; read when an actor is free.
            actor: Its class; it is made with the network and `arguments`.
            arguments: See `actor`.
            call: Starts a job on an actor, e.g. ``lambda actor, job: actor.shard.remote(job)``.
            threads: Cores of each actor, where it has no GPU.
            actors: How many at most; 0: one for each GPU, or for every `threads` cores.
            name: How a job is called in messages.

        Raises:
            BadInput: A job on which actor after actor died.
        """
        on_gpu = self.settings.device == "cuda"
        gpus, cores = (int(self.ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        most = actors or (gpus if on_gpu else max(1, cores // threads)) or 1
        share = {"num_gpus": 1, "num_cpus": 1} if on_gpu else {"num_cpus": min(threads, max(1, cores // most))}
        factory = self.ray.remote(actor).options(**share, max_restarts=0)
        waiting, again, tries = iter(jobs), list[Job](), dict[str, int]()
        idle, running, alive = list[Any](), dict[Any, tuple[Any, Job]](), 0
        while True:
            while idle or alive < most:
                job = again.pop() if again else next(waiting, None)
                if job is None:
                    break
                if not idle:
                    idle.append(self._started(factory, arguments))
                    alive += 1
                free = idle.pop()
                running[call(free, job)] = free, job
            if not running:
                return
            (done, *_), _ = self.ray.wait(list(running), num_returns=1)
            free, job = running.pop(done)
            try:
                result = self.ray.get(done)
            except self.ray.exceptions.RayActorError as error:
                alive, called = alive - 1, name(job)
                tries[called] = tries.get(called, 0) + 1
                if tries[called] == TRIES:
                    raise BadInput(f"{called} ended {TRIES} processes: {one_line(error)}") from None
                _log.warning("a worker died on %s, which is given to another", called)
                again.append(job)
                continue
            except self.ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, ConvscopeError) else error) from None
            idle.append(free)
            yield job, result

    def _started(self, factory: Any, arguments: tuple[Any, ...]) -> Any:
        return factory.remote(self.network, *arguments)


@contextmanager
def cluster(scope: Scope, address: str) -> Generator[Cluster]:
    """Within the block, a connection to a cluster that has the network; a cluster that was started here is shut down afterwards.

    Args:
        scope: The network, outside a session.
        address: "auto" (the cluster of this machine, or a new one on it), or an address.

    Raises:
        NotInstalled: Ray is not installed.
        BadInput: No such cluster.
    """
    with _connected(address) as ray, _by_value(scope.model):
        yield Cluster(ray, scope)


@contextmanager
def _connected(address: str) -> Generator[Any]:
    try:
        import ray
    except ImportError:
        raise NotInstalled("work on a cluster needs ray", "ray") from None
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
def _by_value(model: nn.Module) -> Generator[None]:
    """Within the block, code of the network that actors cannot import is sent with it (a user's own file, say)."""
    from ray import cloudpickle

    homes = {type(module).__module__ for module in model.modules()} - cloudpickle.list_registry_pickle_by_value()
    private = [name for name in homes if name != "__main__" and name in sys.modules and not _importable(name)]
    for name in private:
        cloudpickle.register_pickle_by_value(sys.modules[name])
    try:
        yield
    finally:
        for name in private:
            cloudpickle.unregister_pickle_by_value(sys.modules[name])


def _importable(name: str) -> bool:
    """Whether a module is an installed package, which actors can import."""
    try:
        return importlib.util.find_spec(name) is not None and "site-packages" in str(getattr(sys.modules[name], "__file__", ""))
    except (ImportError, ValueError):
        return False
