"""A training that is watched ends as one that is not, to the bit; what is watched is written; what goes wrong ends no training."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
import hand_built
from convscope.errors import BadInput, LayerNotFound, NotInstalled, StoreConflict, UnitNotFound
from convscope.scope import guard
from convscope.scope.generators import Generators
from convscope.training.history import History, Look
from convscope.training.tensorboard import Board

SIDE, STEPS = 16, 6
IMAGES = hand_built.draws(64, 3, SIDE, SIDE, seed=1)
LABELS = torch.arange(64) % 4
QUICK: dict[str, Any] = {"steps": 2, "size": 24, "crop_size": 16}
UNITS = {"relu": [0, 2], "output": 1}


class Small(nn.Module):
    """Dropout, batch norm, an operation in place, a counter of forward passes, and draws of NumPy and Python in evaluation mode as well."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(6, 4)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        values = self.drop(self.relu(self.norm(self.conv(images)))).mean((2, 3))
        noise = torch.randn(6) + float(np.random.randn()) + random.random()  # noqa: NPY002
        return self.head(values + 1e-3 * noise) + 1e-3 * (self.seen % 7)


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """No unit is dead by chance, as with weights that depend on the tests before."""
    seeded()


def seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)


@pytest.fixture(autouse=True)
def random_state() -> Iterator[None]:
    """These trainings draw from the global generators, as trainings do."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    yield
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    random.setstate(states[2])


def trained(begin: Callable[[nn.Module], Callable[[], Any]], steps: int = STEPS) -> dict[str, Any]:
    """What a short training ends with. `begin` gets the network and gives what is called after every step."""
    seeded()
    network = Small().train()
    network.conv.weight.register_hook(lambda grad: grad * 0.5)
    network.head.bias.requires_grad_(False)
    optimizer = torch.optim.AdamW([one for one in network.parameters() if one.requires_grad], 1e-2)
    after = begin(network)
    for _ in range(steps):
        chosen = torch.randint(0, 64, (16,))
        noisy = IMAGES[chosen] + 0.1 * torch.rand(16, 3, SIDE, SIDE) + 0.01 * float(np.random.rand()) * random.random()  # noqa: NPY002
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(network(noisy).float(), LABELS[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            after()  # gradients are there, and autocast is on
    found = {name: value.clone() for name, value in network.state_dict().items()}
    found |= {f"{name} grad": None if one.grad is None else one.grad.clone() for name, one in network.named_parameters()}
    about = [(name, one.training, len(one._forward_hooks)) for name, one in network.named_modules()]
    return found | {
        "about": about,
        "learns": [one.requires_grad for one in network.parameters()],
        "draws": (torch.rand(3).tolist(), np.random.rand(), random.random()),  # noqa: NPY002
        "modes": (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_num_threads(), torch.get_default_dtype()),
        "moments": [value.clone() for state in optimizer.state.values() for value in state.values()],
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [name for name, value in one.items() if not same(value, other[name])]


def watched(folder: Path, **more: Any) -> Callable[[nn.Module], Callable[[], Any]]:
    return lambda network: cs.watch(network, UNITS, IMAGES[:6], folder, every=2, **QUICK, **more).step


def unwatched(_network: nn.Module) -> Callable[[], Any]:
    return lambda: None


def test_training_ends_the_same_to_the_bit(tmp_path: Path) -> None:
    assert differing(trained(unwatched), trained(unwatched)) == []
    assert differing(trained(unwatched), trained(watched(tmp_path / "out"))) == []
    assert sorted(path.name for path in (tmp_path / "out").glob("step_*")) == [f"step_{step:07d}" for step in (0, 2, 4, 6)]


def forgetting(*, training: bool = False, buffers: bool = False, grad: bool = False, learns: bool = False) -> Callable[[nn.Module], Any]:
    """The preparation of a network whose restoration leaves something out."""
    real = guard._things

    def prepare(model: nn.Module) -> Callable[[], None]:
        restores = [prepare(thing) for thing, prepare in real(model)]

        def partly() -> None:
            flags = [(module, module.training) for module in model.modules()]
            values = [buffer.clone() for buffer in model.buffers()]
            frozen = [one.requires_grad for one in model.parameters()]
            for restore in restores:
                restore()
            if training:
                for module, flag in flags:
                    module.training = flag
            for buffer, value in zip(model.buffers(), values, strict=True) if buffers else ():
                buffer.copy_(value)
            for parameter, flag in zip(model.parameters(), frozen, strict=True):
                if learns:
                    parameter.requires_grad = flag
                if grad:
                    parameter.grad = None

        return partly

    return prepare


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("left_out", ["training", "buffers", "grad", "learns", "generators"])
def test_the_comparison_notices_whatever_is_not_restored(left_out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = trained(unwatched)
    if left_out == "generators":
        monkeypatch.setattr(Generators, "restore", lambda *_: None)
    else:
        prepare = forgetting(**{left_out: True})
        monkeypatch.setattr(guard, "_things", lambda model: [(model, prepare)])
    try:
        found = trained(watched(tmp_path / "out"))
    except RuntimeError as error:
        assert left_out == "learns" and "does not require grad" in str(error)
        return
    assert differing(wanted, found)


def test_what_a_writer_draws_disturbs_nothing(tmp_path: Path) -> None:
    class Drawing:
        def add_image(self, *_: Any) -> None:
            torch.rand(1)

        def add_scalar(self, *_: Any) -> None:
            random.random()
            np.random.rand()  # noqa: NPY002

    assert differing(trained(unwatched), trained(watched(tmp_path / "out", tensorboard=Drawing()))) == []


def test_a_look_is_what_the_techniques_give_on_a_copy(tmp_path: Path) -> None:
    copies: list[nn.Module] = []

    def begin(network: nn.Module) -> Callable[[], Any]:
        watcher = cs.watch(network, {"relu": [0, 2]}, IMAGES[:6], tmp_path / "out", every=3, **QUICK)

        def after() -> None:
            watcher.step()
            copies.append(copy.deepcopy(network))

        return after

    trained(begin)
    scope = cs.Scope(copies[2], cs.Inputs(size=SIDE, crop=None))
    alone = cs.feature_visualization(scope, "relu", [0, 2], **QUICK)
    step = tmp_path / "out" / "step_0000003"
    kept = cs.load(step / "feature_visualization" / "relu")
    assert isinstance(kept, cs.FeatureVisualization) and np.array_equal(kept.images, alone.images) and (kept.scores == alone.scores).all()
    survey = cs.read_survey(step / "survey")
    strongest, health = cs.load(step / "exemplars" / "relu"), cs.load(step / "filter_health")
    assert isinstance(strongest, cs.Exemplars) and isinstance(health, cs.FilterHealth)
    again = cs.exemplars(survey, "relu", [0, 2])
    assert np.array_equal(strongest.crops, again.crops) and health.images == 6 and health.layers == ("relu",)
    peaks = scope.activations(torch.round(IMAGES[:6] * 255) / 255, "relu")["relu"].amax((2, 3))
    assert np.allclose(strongest.values[:, 0], peaks.amax(0)[[0, 2]].numpy(), atol=1e-5)


def test_the_timeline_has_a_column_for_each_look(tmp_path: Path) -> None:
    network = Small()
    with torch.no_grad():
        network.norm.bias[3] = -100.0  # a dead unit
    with cs.watch(network, [("relu", 0), ("output", [1]), ("relu", [2])], IMAGES[:6], tmp_path / "out", every=2, **QUICK) as watcher:
        for _ in range(3):
            watcher.step()
    found = cs.load(tmp_path / "out" / "timeline")
    assert isinstance(found, cs.Watch)
    assert found.steps.tolist() == found.shown.tolist() == [0, 2, 3]
    assert found.names == ("relu, unit 0", "relu, unit 2", "output, unit 1") and found.images.shape == (3, 3, 3, 24, 24)
    assert found.layers == ("relu",) and found.sizes == (6,) and found.dead.tolist() == [[1, 1, 1]] and found.of == 6
    assert (found.seconds > 0).all() and 0 < found.share < 1 and watcher.timeline.seconds.sum() >= found.seconds.sum()
    assert "3 looks in" in found.summary() and "relu: 1 dead, 1 at step 0" in found.summary() and found.cost() in found.view().note
    kept = cs.load(tmp_path / "out" / "step_0000002" / "feature_visualization" / "relu")
    assert isinstance(kept, cs.FeatureVisualization)
    assert np.allclose(found.images[:2, 1], kept.images, atol=1 / 255) and np.array_equal(found.scores[:2, 1], kept.scores)


def test_many_looks_show_ten() -> None:
    history = History(("relu, unit 0",))
    for step in range(13):
        history.looks[step] = Look(np.zeros(1), np.zeros(1, np.int64), np.full((1, 3, 4, 4), step, np.uint8), 0.5)
    history.layers, history.sizes, history.of = ("relu",), (6,), 2
    found = history.timeline({})
    assert found.shown.tolist() == [0, 1, 3, 4, 5, 7, 8, 9, 11, 12]
    assert np.array_equal(found.images[0, :, 0, 0, 0], found.shown.astype(np.float32) / 255) and found.seconds.sum() == 6.5
    assert "10 of 13 looks are shown" in found.view().note


def test_a_training_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    network, out = Small(), tmp_path / "out"
    cs.watch(network, UNITS, IMAGES[:6], out, every=2, **QUICK).step(2)
    with pytest.raises(StoreConflict, match=r"holds a look at step 2, and this training begins at step 0; .*start=2"):
        cs.watch(network, UNITS, IMAGES[:6], out, every=2, **QUICK)
    with pytest.raises(StoreConflict, match="other units"):
        cs.watch(network, {"relu": 1}, IMAGES[:6], out, every=2, start=2, **QUICK)
    watcher = cs.watch(network, UNITS, IMAGES[:6], out, every=2, start=3, **QUICK)
    assert watcher.step() == out / "step_0000004"
    assert watcher.timeline.steps.tolist() == [0, 2, 3, 4] == watcher.timeline.shown.tolist()


def test_a_look_that_fails_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = Small()
    watcher = cs.watch(network, UNITS, IMAGES[:6], tmp_path / "out", every=1, **QUICK)
    with torch.no_grad():
        kept = network.head.weight.clone()
        network.head.weight.fill_(float("nan"))
    assert watcher.step() is None
    assert "step 1 was not looked at, training goes on: network Small: head.weight holds NaN" in caplog.text
    with torch.no_grad():
        network.head.weight.copy_(kept)
    assert watcher.step() == tmp_path / "out" / "step_0000002"
    found = cs.load(tmp_path / "out" / "timeline")
    assert isinstance(found, cs.Watch) and found.failed == watcher.timeline.failed and found.failed[0][0] == 1
    assert "step 1 was not looked at" in found.summary()
    assert not list((tmp_path / "out").glob(".*")), "what was begun is removed"


def test_an_exception_of_the_training_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), cs.watch(Small(), UNITS, IMAGES[:6], tmp_path / "out", every=5, **QUICK) as watcher:
        watcher.step()
        _ = 1 / 0
    assert watcher.timeline.steps.tolist() == [0]


def test_numbers_of_the_training_itself(tmp_path: Path) -> None:
    watcher = cs.watch(Small(), {"relu": 0}, IMAGES[:2], tmp_path / "out", every=10, **QUICK)
    assert [number for number in (4, 9, 9, 12, 12, 19, 31) if watcher.step(number)] == [12, 31]


def test_files_and_inputs_of_a_scope(tmp_path: Path) -> None:
    files = tmp_path / "photos"
    for number in range(4):
        (files / "abc"[number % 2]).mkdir(parents=True, exist_ok=True)
        pixels = (IMAGES[number].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(files / "abc"[number % 2] / f"{number}.png")
    scope = cs.Scope(Small(), cs.Inputs(size=SIDE, mean=0.5, std=0.25, classes=["ant", "bee", "cat", "dog"]))
    watcher = cs.watch(scope, {"output": "bee"}, files, tmp_path / "out", **QUICK)
    assert watcher.timeline.names == ("output, unit 1 bee",)
    found = cs.load(tmp_path / "out" / "step_0000000" / "exemplars" / "output")
    assert isinstance(found, cs.Exemplars) and set(found.image_labels[0]) == {"a", "b"}


@pytest.mark.parametrize(
    ("error", "words", "change"),
    [
        (LayerNotFound, "relu", {"units": {"rleu": 0}}),
        (UnitNotFound, "6", {"units": {"relu": 6}}),
        (BadInput, "units must be", {"units": "relu"}),
        (BadInput, "units must be", {"units": []}),
        (BadInput, "every must be", {"every": 0}),
        (BadInput, "start must be", {"start": -1}),
        (BadInput, "in \\[0,1\\]", {"images": IMAGES[:3] * 255}),
        (BadInput, "by its Inputs the network takes 3 channels of 32x32 px", {"inputs": cs.Inputs(size=32)}),
        (BadInput, "no parameter 'stps'", {"stps": 3}),
        (BadInput, "tensorboard must be", {"tensorboard": 3}),
        (StoreConflict, "holds other files", {"out": "taken"}),
    ],
)
def test_what_is_wrong_is_said_before_the_training(error: type[Exception], words: str, change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    asked: dict[str, Any] = {"units": UNITS, "images": IMAGES[:3], "out": "out"} | QUICK | change
    asked["out"] = tmp_path / asked["out"]
    with pytest.raises(error, match=words):
        cs.watch(Small(), **asked)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("step*"))


def test_only_the_first_of_parallel_processes_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with cs.watch(Small(), UNITS, IMAGES[:3], tmp_path / "out", every=1, **QUICK) as watcher:
        watcher.step()
    assert not (tmp_path / "out").exists() and watcher.finish() is None
    with pytest.raises(BadInput, match="the first alone looks"):
        _ = watcher.timeline


def test_tensorboard_gets_images_and_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    watcher = cs.watch(Small(), UNITS, IMAGES[:6], tmp_path / "out", every=1, tensorboard=tmp_path / "board", **QUICK)
    watcher.step()
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert "relu/unit 2/feature visualization" in events.Tags()["images"] and "relu/unit 2/exemplars" in events.Tags()["images"]
    assert [event.step for event in events.Scalars("dead units/relu")] == [0, 1]
    assert 0 < events.Scalars("watch/share of time")[-1].value < 1


def test_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(NotInstalled, match=r"pip install 'convscope\[tensorboard\]'"):
        Board(tmp_path)


def test_lightning_counts_as_its_trainer(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch", reason="the extra lightning is not installed")

    class Trained(lightning.LightningModule):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = Small()

        def training_step(self, batch: Any, _number: int) -> Tensor:
            return F.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    def run(watching: bool) -> tuple[dict[str, Tensor], Any]:
        seeded()
        module = Trained()
        watcher = cs.watch(module.network, {"relu": 0}, IMAGES[:4], tmp_path / "out", every=2, **QUICK) if watching else None
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES, LABELS), 8, shuffle=True)
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            accumulate_grad_batches=2,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[watcher.lightning()] if watcher else [],
        )
        trainer.fit(module, data)
        return module.network.state_dict(), watcher

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # the trainer's advice on workers
        plain, watched_too = run(False)[0], run(True)
    assert all(torch.equal(value, watched_too[0][name]) for name, value in plain.items())
    assert watched_too[1].timeline.steps.tolist() == [0, 2, 4]


def test_a_callback_without_lightning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("lightning.pytorch", "lightning", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    watcher = cs.watch(Small(), {"relu": 0}, IMAGES[:2], tmp_path / "out", **QUICK)
    with pytest.raises(NotInstalled, match=r"pip install 'convscope\[lightning\]'"):
        watcher.lightning()
