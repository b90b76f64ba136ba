"""What all tests share: one thread, weights and photographs where they are present, and small networks with known answers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hand_built
from convscope.scope import Inputs, Scope

TESTS = Path(__file__).resolve().parent
SHARED = TESTS.parent / "../shared"


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Finds a file or folder among the photographs and weights that are kept outside the repository; skips where it is absent."""

    def find(path: str) -> Path:
        found = SHARED / path
        if not found.exists():
            pytest.skip(f"{found} is absent: photographs and weights for tests are kept outside the repository")
        return found.resolve()

    return find


@pytest.fixture(scope="session")
def squeezenet(shared: Callable[[str], Path]) -> Scope:
    """SqueezeNet 1.0 with trained weights."""
    import convscope

    return convscope.open("squeezenet1_0", weights=str(shared("weights/squeezenet1_0-imagenet.safetensors")), precision="float32")


@pytest.fixture(scope="module")
def ray_here() -> Generator[Any]:
    """A real local Ray with two cores."""
    ray = pytest.importorskip("ray")
    path = f"{TESTS.parent / 'src'}:{TESTS}"
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error", runtime_env={"env_vars": {"PYTHONPATH": path}}
    )
    yield ray
    ray.shutdown()


@pytest.fixture
def small() -> nn.Module:
    """Convolution, batch norm, in-place ReLU, pooling, convolution, in-place ReLU, and a classifier of 5 outputs."""
    return hand_built.small()


@pytest.fixture
def scope(small: nn.Module) -> Scope:
    """The small network under the microscope, at 24 px."""
    return Scope(small, Inputs(size=24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)), precision="float32", name="small")


@pytest.fixture(autouse=True, scope="session")
def one_thread_in_fixtures() -> None:
    """What fixtures of modules make is compared with what tests make."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread() -> Generator[None]:
    """Every test runs on one thread, so that sums are taken in the same order everywhere, and leaves the number as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
