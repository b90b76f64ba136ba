"""A network is as it was after every interrupt, with several scopes and threads on it, and in the child of a fork."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import hand_built
from convscope.scope import Inputs, Scope, guard

SIDE = 24
IMAGES = hand_built.draws(2, 3, SIDE, SIDE, seed=5)


class Stopped(Exception):
    """What the handler of the tests' own signal raises."""


def scope_on(model: nn.Module) -> Scope:
    return Scope(model, Inputs(size=SIDE), precision="float32", name="small")


def stop(_number: int, _frame: Any) -> None:
    raise Stopped


def modes() -> tuple[Any, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        (torch.autocast_increment_nesting(), torch.autocast_decrement_nesting()),
        torch._C._len_torch_function_stack(),
        signal.getsignal(signal.SIGALRM),
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files of the standard library, read in mid-interrupt
@pytest.mark.parametrize("work", ["activations", "gradient", "technique"])
def test_no_interrupt_leaves_a_trace(work: str) -> None:
    # also tried: feature visualization, occlusion, deconvnet, Grad-CAM, knockout, recording of layers, sessions within sessions
    import convscope as cs

    model = hand_built.small()
    hand_built.unsettle(model)
    scope = scope_on(model)
    calls: dict[str, Callable[[], object]] = {
        "activations": lambda: scope.activations(IMAGES, ["4", "output"]),
        "gradient": lambda: scope.run(IMAGES.clone().requires_grad_(), "4"),
        "technique": lambda: cs.spectrum(scope, "4", IMAGES),
    }
    calls[work]()
    before = hand_built.state_of(model)
    count, traces, stopped = (400 if work == "technique" else 800), 0, 0
    draws = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    old = signal.signal(signal.SIGALRM, stop)
    calm = modes()
    try:
        for draw in draws:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00002 + 0.006 * draw)
                begun = time.monotonic()
                while time.monotonic() - begun < 0.02:
                    calls[work]()
            except Stopped:
                stopped += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            traces += modes() != calm or hand_built.state_of(model) != before
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert traces == 0
    assert stopped > 0.9 * count
    torch.testing.assert_close(scope.activations(IMAGES, "4")["4"], scope_on(hand_built.small()).activations(IMAGES, "4")["4"])


@pytest.mark.parametrize("number", [signal.SIGCHLD, signal.SIGWINCH, signal.SIGQUIT, signal.SIGRTMIN])
def test_any_signal_waits_while_a_session_opens_or_closes(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler of any of them may raise, as those of time limits do."""
    model = hand_built.small()
    hand_built.unsettle(model)
    scope, before = scope_on(model), hand_built.state_of(model)
    begin = guard._prepare_parameter  # pyright: ignore[reportPrivateUsage]

    def interrupted(parameter: torch.Tensor) -> Callable[[], None]:
        os.kill(os.getpid(), number)
        return begin(parameter)

    monkeypatch.setattr(guard, "_prepare_parameter", interrupted)
    old = signal.signal(number, stop)
    try:
        with pytest.raises(Stopped):
            scope.activations(IMAGES, "4")
    finally:
        signal.signal(number, old)
    assert hand_built.state_of(model) == before
    monkeypatch.undo()
    scope.activations(IMAGES, "4")  # of several that came meanwhile, none is kept for later


def test_a_handler_that_does_not_raise_does_not_stop_anything() -> None:
    scope = scope_on(hand_built.small())
    heard: list[int] = []
    old = signal.signal(signal.SIGUSR1, lambda number, _frame: heard.append(number))
    try:
        with scope.session():
            os.kill(os.getpid(), signal.SIGUSR1)
            scope.activations(IMAGES, "4")
        assert heard == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_two_scopes_on_one_network_left_in_any_order() -> None:
    model = hand_built.small()
    hand_built.unsettle(model)
    before = hand_built.state_of(model)
    one, other = scope_on(model).session(), scope_on(model).session()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert not any(module.training for module in model.modules()), "the other session is still open"
    other.__exit__(None, None, None)
    assert hand_built.state_of(model) == before


def tied(backbone: nn.Module) -> nn.Module:
    """A network with modules of its own, and weights of another."""
    other = hand_built.small()
    for own, theirs in zip(other.modules(), backbone.modules(), strict=True):
        for name, parameter in theirs.named_parameters(recurse=False):
            setattr(own, name, parameter)
    return other


@pytest.mark.parametrize("order", ["a+ b+ a- b-", "b+ a+ b- a-", "a+ b+ b- a-"])
@pytest.mark.parametrize("other", ["its head", "another head", "its weights"])
def test_networks_that_share_parts_left_in_any_order(order: str, other: str) -> None:
    backbone = hand_built.small()
    hand_built.unsettle(backbone)
    head = nn.Sequential(backbone, nn.ReLU())
    networks = {"a": head, "b": {"its head": backbone, "another head": nn.Sequential(backbone, nn.Tanh())}.get(other) or tied(backbone)}
    before = [hand_built.state_of(each) for each in networks.values()]
    sessions = {name: scope_on(each).session() for name, each in networks.items()}
    for step in order.split():
        if step[1] == "+":
            sessions[step[0]].__enter__()
        else:
            sessions[step[0]].__exit__(None, None, None)
            assert not any(module.training for name in "ab" if sessions[name].guard.sessions for module in networks[name].modules())
    assert [hand_built.state_of(each) for each in networks.values()] == before


def test_threads_on_networks_that_share_a_backbone() -> None:
    backbone = hand_built.small()
    hand_built.unsettle(backbone)
    networks = [backbone, nn.Sequential(backbone, nn.ReLU()), nn.Sequential(backbone, nn.Tanh())]
    before = [hand_built.state_of(each) for each in networks]
    scopes = [scope_on(each) for each in networks]
    wanted = [scope.activations(IMAGES, "output")["output"] for scope in scopes]
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(40):
            place = (number + turn) % 3
            try:
                if not torch.equal(scopes[place].activations(IMAGES, "output")["output"], wanted[place]):
                    wrong.append(f"network {place} differs")
            except BaseException as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert [hand_built.state_of(each) for each in networks] == before


def test_eight_threads_and_four_scopes() -> None:
    model = hand_built.small()
    hand_built.unsettle(model)
    before = hand_built.state_of(model)
    scopes = [scope_on(model) for _ in range(4)]
    wanted = {name: scopes[0].activations(IMAGES, name)[name] for name in ("0", "4", "output")}
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(125):
            name = list(wanted)[(number + turn) % 3]
            try:
                if not torch.equal(scopes[(number + turn) % 4].activations(IMAGES, name)[name], wanted[name]):
                    wrong.append(f"{name} differs")
            except BaseException as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert hand_built.state_of(model) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_while_another_thread_is_inside_does_not_hang_the_child() -> None:
    model = hand_built.small()
    hand_built.unsettle(model)
    before = hand_built.state_of(model)
    scope, inside, leave = scope_on(model), threading.Event(), threading.Event()
    scope.activations(IMAGES, "4")

    def stay() -> None:
        with scope.session():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait(30)
    child = os.fork()
    if not child:
        signal.alarm(20)
        good = hand_built.state_of(model) == before
        with scope.session():
            pass
        os._exit(0 if good and hand_built.state_of(model) == before else 1)
    leave.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Counting(nn.Module):
    """Counts images in one buffer in place, and puts another tensor in place of a second one."""

    seen: torch.Tensor
    last: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("last", torch.full((1,), 3.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        self.last = images.mean((1, 2, 3))[:1].detach()
        return self.conv(images)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_buffers_are_as_they_were(mode: Callable[[], Any]) -> None:
    model = Counting()
    before = hand_built.state_of(model)
    with mode():
        scope_on(model).activations(IMAGES, "conv")
    assert hand_built.state_of(model) == before
