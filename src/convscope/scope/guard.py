"""One guard per network: counts open sessions, restores the network after the last, delays signals while a session opens or closes.

A network may be examined by several scopes and threads, and share modules or weights with others, as heads share a backbone. The first
session prepares each module and tensor (evaluation mode, frozen parameters, nothing in place), the last one restores it. Ctrl-C, and any
other signal whose handler may raise, waits while a session opens or closes, so that no interrupt leaves a network half prepared.
"""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn

from convscope.scope.checkpointing import keep_activations
from convscope.scope.recording import Batching

Parts = tuple[Any, ...]

_SIGNALS = sorted(signal.valid_signals())
_PATIENCE = 0.2
"""Seconds to wait for another thread's session before waiting signals get their turn."""


@dataclass
class _Use:
    """A module or tensor that is prepared: by which thread, how to restore it, and for how many networks."""

    thread: int
    restore: Callable[[], None]
    networks: int = 0


_uses: dict[int, _Use] = {}
"""By id; what is used is held by its `restore`."""
_free = threading.Condition()
"""Guards `_uses`, and tells when something is free again."""


class Guard:
    """The open sessions on one network.

    Attributes:
        lock: Held by the thread whose sessions are open.
        sessions: The open sessions, the latest last.
        parts: While sessions are open, what the network consists of, see :func:`parts_of_network`.
        batching: How the network treats batches, with the parts and the choice of output for which that was found out.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.sessions: list[Session] = []
        self.parts: Parts = ()
        self.batching: tuple[Parts, str | None, Batching] | None = None
        self._used: list[int] = []

    def open(self, session: Session) -> bool:
        """Adds a session; prepares the network if it is the first.

        Returns:
            Whether it was added: it is not while another thread is at work on a network that shares modules or tensors with this one.
        """
        if not self.sessions:
            me, things = threading.get_ident(), list(_things(session.model))
            with _free:
                if any(use.thread != me for thing, _ in things if (use := _uses.get(id(thing))) is not None):
                    _free.wait(_PATIENCE)
                    return False
                for thing, prepare in things:
                    use = _uses.get(id(thing)) or _uses.setdefault(id(thing), _Use(me, prepare(thing)))
                    use.networks += 1
                    self._used.append(id(thing))
            self.parts = parts_of_network(session.model)
        self.sessions.append(session)
        return True

    def close(self, session: Session) -> None:
        """Removes a session; after the last, restores what no other network with open sessions consists of."""
        self.sessions = [other for other in self.sessions if other is not session]
        if self.sessions:
            return
        with _free:
            while self._used:
                use = _uses[key := self._used.pop()]
                use.networks -= 1
                if not use.networks:
                    del _uses[key]
                    use.restore()
            _free.notify_all()

    def renew(self) -> None:
        """In the child of a fork: threads that held the lock or had sessions open do not exist there."""
        self.lock = threading.RLock()
        self.sessions, self._used = [], []


_guards: weakref.WeakKeyDictionary[nn.Module, Guard] = weakref.WeakKeyDictionary()
_lookup = threading.Lock()


def guard_of(model: nn.Module) -> Guard:
    """The guard of a network: the same for every scope on it."""
    with _lookup:
        return _guards.setdefault(model, Guard())


def _after_fork() -> None:
    global _lookup, _free
    _lookup, _free = threading.Lock(), threading.Condition()
    for use in _uses.values():
        use.restore()
    _uses.clear()
    for guard in list(_guards.values()):
        guard.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def parts_of_network(model: nn.Module) -> Parts:
    """What a network consists of: its modules, their settings (stride, eps, ...) and tensors, and the tensors' types and devices.

    Other values of a tensor do not count.
    """
    found: list[Any] = []
    for module in model.modules():
        found.append(id(module))
        own = vars(module)
        settings = [own.get(name) for name in getattr(type(module), "__constants__", ()) if name != "inplace"]
        found += [each if isinstance(each, (int, float, str, tuple)) else id(each) for each in settings]
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                found += id(tensor), tensor.dtype, tensor.device, tensor.shape
    return tuple(found)


def _things(model: nn.Module) -> Iterator[tuple[Any, Callable[[Any], Callable[[], None]]]]:
    """The modules and tensors of a network, each with what prepares it and returns a function that restores it.

    Restored are training and in-place flags, requires_grad, .grad, and what a forward pass changed: values of buffers, as of counters,
    and attributes, such as a cache or the last attention; hooks of ours that an interrupt left behind are removed.
    """
    tensors: dict[int, tuple[Tensor, Callable[[Any], Callable[[], None]]]] = {}
    for module in model.modules():
        yield module, _prepare_module
        for table, prepare in ((module._parameters, _prepare_parameter), (module._buffers, _remember)):
            tensors.update((id(tensor), (tensor, prepare)) for tensor in table.values() if tensor is not None)
    yield from tensors.values()


def _prepare_module(module: Any) -> Callable[[], None]:
    """Evaluation mode, nothing in place."""
    inplace = getattr(module, "inplace", None) is True
    training = module.training
    hooks = [(table, set(table)) for table in (module._forward_hooks, module._forward_pre_hooks)]
    put_back = _attributes(module)

    def restore() -> None:
        put_back()
        module.training = training
        if inplace:
            module.inplace = True
        for table, before in hooks:
            for key in [key for key in table if key not in before and _is_ours(table[key])]:
                del table[key]

    module.training = False
    if inplace:
        module.inplace = False
    return restore


def _prepare_parameter(parameter: Tensor) -> Callable[[], None]:
    """No derivative."""
    requires_grad, grad = parameter.requires_grad, parameter.grad

    def restore() -> None:
        parameter.requires_grad = requires_grad
        parameter.grad = grad

    parameter.requires_grad = False
    return restore


def _remember(buffer: Tensor) -> Callable[[], None]:
    """Its values."""
    values = buffer.detach().clone()

    def restore() -> None:
        if buffer.grad_fn is not None and values.grad_fn is None and not buffer._is_view():
            buffer.detach_()  # written to in a pass with a derivative
        if not torch.equal(buffer, values):
            with torch.no_grad():
                buffer.copy_(values)

    return restore


def _attributes(module: nn.Module) -> Callable[[], None]:
    """Remembers a module's attributes, tables of its parts, and what its lists, tables and sets hold. Returns what puts them back."""
    own = module.__dict__
    before = dict(own)
    held: list[tuple[Any, Any]] = [
        (value, value.copy()) for name, value in before.items() if type(value) in (list, dict, set) and "hooks" not in name
    ]

    def put_back() -> None:
        for name in own.keys() - before.keys():
            del own[name]
        for name, value in before.items():
            if own.get(name) is not value:
                own[name] = value
        for value, content in held:
            if len(value) != len(content) or any(map(_is_other, _items(value), _items(content))):
                value.clear()
                (value.extend if isinstance(value, list) else value.update)(content)

    return put_back


def _items(value: Any) -> Iterable[Any]:
    return (part for item in value.items() for part in item) if isinstance(value, dict) else value


def _is_other(one: Any, other: Any) -> bool:
    return one is not other


def _is_ours(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).startswith("convscope.")


def torch_modes() -> Callable[[], None]:
    """Remembers this thread's gradient mode, autocast and function modes. Returns a function that restores them.

    Autocast clears its copies of weights when its outermost block ends, as it counts them: a block that an interrupt left uncounted would
    keep them for good, and a later training under autocast would go on with the weights of its first step.
    """
    grad, depth = torch.is_grad_enabled(), torch._C._len_torch_function_stack()
    autocast = [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in _autocast_devices()]
    cached, blocks = torch.is_autocast_cache_enabled(), _autocast_blocks()

    def restore() -> None:
        while torch._C._len_torch_function_stack() > depth:
            torch._C._pop_torch_function_stack()
        if _autocast_blocks() > blocks:
            while torch.autocast_decrement_nesting() > blocks:
                pass
            torch.clear_autocast_cache()
        for kind, enabled, dtype in autocast:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        torch.set_autocast_cache_enabled(cached)
        torch.set_grad_enabled(grad)

    return restore


def _autocast_blocks() -> int:
    """How many autocast blocks this thread is in, as torch counts them."""
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def _autocast_devices() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


class Session:
    """An open examination of a network: prepared inside the block; outside, everything is as it was, after interrupts as well.

    Args:
        guard: The network's guard.
        model: The network.
        owner: The scope that runs it.
        precision: "float32" or "bfloat16" for the passes inside; None: the owner's surrounding session's, else `default`.
        default: "float32" or "bfloat16".
        lean: Whether faster passes may be used; False: as in the owner's surrounding session.
        seed: Seed of what the network draws at random; None: as in the owner's surrounding session, else 0.

    Attributes:
        running_in: "float32" or "bfloat16".
        lean_passes: Faster passes prepared in this session, by what they compute; None where there may be none.
        seed: Seed of what the network draws at random.
    """

    def __init__(
        self, guard: Guard, model: nn.Module, owner: object, precision: str | None, default: str, lean: bool, seed: int | None = None
    ) -> None:
        self.guard, self.model, self.owner = guard, model, owner
        self.running_in, self.lean_passes = precision or default, {} if lean else None
        self.seed = seed or 0
        self._inherits = precision is None, not lean, seed is None
        self._grad = torch.is_grad_enabled()
        self._close: list[Callable[[], None]] = []

    def __enter__(self) -> Session:
        _hold_signals()
        try:
            while not self._open():
                _deliver_signals()
            _deliver_signals()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()
        _deliver_signals()

    def at_end(self, work: Callable[[], None]) -> None:
        """Calls a function when the session closes, before what was done so far is undone. It is not interrupted."""
        self._close.append(work)

    def _open(self) -> bool:
        lock = self.guard.lock
        if not lock.acquire(timeout=_PATIENCE):
            return False
        self._close.append(lock.release)
        self._close.append(torch_modes())
        self._close.append(keep_activations())
        if torch.is_inference_mode_enabled():
            mode = torch.inference_mode(False)
            mode.__enter__()
            self._close.append(lambda: mode.__exit__(None, None, None))
            torch.set_grad_enabled(self._grad)
        for kind in _autocast_devices():
            torch.set_autocast_enabled(kind, False)
        outer = next((other for other in reversed(self.guard.sessions) if other.owner is self.owner), None)
        if outer is not None and self._inherits[0]:
            self.running_in = outer.running_in
        if outer is not None and self._inherits[1]:
            self.lean_passes = outer.lean_passes
        if outer is not None and self._inherits[2]:
            self.seed = outer.seed
        self._close.append(lambda: self.guard.close(self))
        if self.guard.open(self):
            return True
        self._undo()
        return False

    def _leave(self) -> None:
        self._undo()
        _release_signals()

    def _undo(self) -> None:
        try:
            while self._close:
                self._close.pop()()
        except BaseException:
            self._undo()  # what is left
            raise


_waiting: list[int] = []
_handlers: dict[int, Any] = {}
_open_sessions = 0
_CRITICAL: frozenset[CodeType] = frozenset(method.__code__ for method in (Session.__enter__, Session.__exit__))
"""Code in which signals wait."""


def _hold_signals() -> None:
    """From now on signals wait while a session opens or closes. Signals reach the main thread only."""
    global _open_sessions
    if threading.current_thread() is not threading.main_thread():
        return
    if not _open_sessions:
        for number in _SIGNALS:
            known = signal.getsignal(number)
            if callable(known) and known is not _on_signal:
                _handlers[number] = known
                signal.signal(number, _on_signal)
    _open_sessions += 1


def _release_signals() -> None:
    global _open_sessions
    if threading.current_thread() is not threading.main_thread():
        return
    _open_sessions = max(0, _open_sessions - 1)
    if not _open_sessions:
        for number, known in list(_handlers.items()):
            if signal.getsignal(number) is _on_signal:
                signal.signal(number, known)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if number not in _waiting:  # as the system keeps one of a kind
        _waiting.append(number)
    inner = frame
    while inner is not None:
        if inner.f_code in _CRITICAL:
            return
        inner = inner.f_back
    _deliver_signals(frame)


def _deliver_signals(frame: FrameType | None = None) -> None:
    """Calls the handlers of the signals that have waited, all of them; they may raise."""
    if _waiting and threading.current_thread() is threading.main_thread():
        number = _waiting.pop(0)
        try:
            _handlers[number](number, frame)
        finally:
            _deliver_signals(frame)
