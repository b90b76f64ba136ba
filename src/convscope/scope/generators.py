"""The random generators that a network may draw from: the global ones of torch, NumPy and Python, and those that its modules lead to."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

States = list[Any]
_LEAVES = (Tensor, np.ndarray, nn.Module, type, ModuleType, str, bytes, int, float, type(None))
"""Nothing further is looked for in these; a network's modules are all visited."""
_LIBRARIES = ("torch.", "numpy.", "random")
"""Code that draws from the global generators, or from those that it is given."""


@dataclass(frozen=True)
class _Generator:
    """One generator: its state, how to put it back, how to begin anew from a seed."""

    state: Callable[[], Any]
    restore: Callable[[Any], Any]
    seed: Callable[[int], Any]


class Generators:
    """All generators that a network may draw from.

    Args:
        model: The network; what its modules hold counts, and what their code refers to.
        device: Where it runs.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        found: list[Any] = [torch.default_generator, np.random, random]
        if device.type == "cuda":
            here = torch.cuda.current_device() if device == torch.device("cuda") else device.index
            found.append(torch.cuda.default_generators[here])
        found += _reached(model)
        made = {id(one): _generator(one) for one in found}
        self._all = [one for one in made.values() if one is not None]

    def states(self) -> States:
        """The state of each."""
        return [one.state() for one in self._all]

    def restore(self, states: States) -> None:
        """Puts them back."""
        for one, state in zip(self._all, states, strict=True):
            one.restore(state)

    def moved(self, states: States) -> bool:
        """Whether something was drawn since."""
        return any(_frozen(one.state()) != _frozen(state) for one, state in zip(self._all, states, strict=True))

    def seed(self, seed: int) -> None:
        """Begins each anew."""
        for one in self._all:
            one.seed(seed)


def _reached(model: nn.Module) -> Iterator[Any]:
    """Attributes of a network's modules, what containers, objects and functions among them hold, and the globals that their code names."""
    waiting: list[Any] = [each for module in model.modules() for each in (*vars(module).values(), getattr(type(module), "forward", None))]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, _LEAVES):
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting += value
        elif isinstance(value, MethodType):
            waiting += value.__func__, value.__self__
        elif isinstance(value, partial):
            waiting += value.func, value.args, value.keywords
        elif isinstance(value, FunctionType):
            if not str(value.__module__).startswith(_LIBRARIES):
                waiting += (value.__globals__[name] for name in _names(value.__code__) if name in value.__globals__)
                for cell in value.__closure__ or ():
                    with suppress(ValueError):  # it has no value yet
                        waiting.append(cell.cell_contents)
        elif not str(type(value).__module__).startswith(_LIBRARIES):
            waiting += getattr(value, "__dict__", {}).values()


def _names(code: CodeType) -> Iterator[str]:
    """The globals that code names, functions within it included."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _generator(value: Any) -> _Generator | None:
    """How a value is used as a generator; None if it is none. The modules of NumPy and Python have the methods of their classes."""
    if isinstance(value, torch.Generator):
        return _Generator(value.get_state, value.set_state, value.manual_seed)
    if isinstance(value, np.random.Generator):
        bits: Any = value.bit_generator
        return _Generator(lambda: bits.state, partial(setattr, bits, "state"), lambda seed: setattr(bits, "state", type(bits)(seed).state))
    if value is np.random or isinstance(value, np.random.RandomState):
        return _Generator(partial(value.get_state, legacy=False), value.set_state, lambda seed: value.seed(seed % 2**32))
    if value is random or (isinstance(value, random.Random) and not isinstance(value, random.SystemRandom)):
        return _Generator(value.getstate, value.setstate, value.seed)
    return None


def _frozen(state: Any) -> Any:
    """A state in a form that compares by value."""
    if isinstance(state, (Tensor, np.ndarray)):
        return bytes(np.asarray(state).tobytes())
    if isinstance(state, Mapping):
        return {key: _frozen(item) for key, item in state.items()}
    return [_frozen(item) for item in state] if isinstance(state, tuple) else state
