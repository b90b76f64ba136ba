from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from convscope.errors import BadWeights
from convscope.scope import Inputs, Scope
from convscope.scope.network import weights_hash
from convscope.zoo.weights import class_count, load_weights
from convscope.zoo.weights_file import read_weights


def network(classes: int = 5, seed: int = 0) -> nn.Sequential:
    made = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), head=nn.Linear(4, classes)))
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in made.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=draws))
    return made


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def refusal(path: Path, model: nn.Module | None = None) -> str:
    """The one line that refuses a file; the network is as it was."""
    model = model or network()
    before = weights_hash(model)
    with pytest.raises(BadWeights) as caught:
        load_weights(model, path, "net")
    assert weights_hash(model) == before, "half loaded"
    assert "\n" not in str(caught.value)
    return str(caught.value)


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "best": torch.tensor(0.5), "optimizer": {"state": {}}, "state_dict": state},
    "model": lambda state: {"model": state, "epoch": 3},
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": 0.1},
    "data parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "compiled": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    "compiled, then parallel, in a checkpoint": lambda state: {"model": {f"module._orig_mod.{k}": v for k, v in state.items()}},
    "lightning": lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}, "hyper_parameters": {"lr": 1.0}},
    "averaged": lambda state: {"n_averaged": torch.tensor(7)} | {f"module.{key}": value for key, value in state.items()},
    "without counters": lambda state: {key: value for key, value in state.items() if "num_batches" not in key},
    "features in parallel": lambda state: {key.replace("conv.", "conv.module."): value for key, value in state.items()},
    "an unknown key": lambda state: {"encoder": state, "epoch": 3},
    "a part compiled": lambda state: {key.replace("norm.", "norm._orig_mod."): value for key, value in state.items()},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("old_format", [False, True])
def test_loads_what_training_programs_write(wrap: Callable[..., Any], old_format: bool, tmp_path: Path) -> None:
    trained, fresh = network(seed=1), network()
    torch.save(wrap(trained.state_dict()), tmp_path / "w.pth", _use_new_zipfile_serialization=not old_format)
    load_weights(fresh, tmp_path / "w.pth", "net")
    assert equal(trained, fresh)


def test_loads_into_wrapped_networks(tmp_path: Path) -> None:
    trained, fresh = network(seed=1), network()
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    load_weights(nn.DataParallel(fresh), tmp_path / "w.safetensors")
    assert equal(trained, fresh)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_casts_to_the_networks_type(dtype: torch.dtype, tmp_path: Path) -> None:
    trained, fresh = network(seed=1), network()
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in trained.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    load_weights(fresh, tmp_path / "w.safetensors")
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in fresh.parameters())
    assert torch.equal(fresh.conv.weight, state["conv.weight"].float())


def test_tied_weights_may_be_given_once(tmp_path: Path) -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    state = {key: torch.full_like(value, 2.0) for key, value in tied.state_dict().items() if key != "1.weight"}
    save_file(state, tmp_path / "w.safetensors")
    load_weights(tied, tmp_path / "w.safetensors")
    assert float(tied[1].weight.min().item()) == 2.0


class Evil:
    """Touches a file when unpickled the careless way."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("how", ["zip", "legacy", "bare pickle", "bare pickle 2"])
@pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "ckpt"])
def test_code_in_a_pickle_is_refused_and_not_run(how: str, suffix: str, tmp_path: Path) -> None:
    path, trace = tmp_path / f"w.{suffix}", tmp_path / "ran"
    content = network().state_dict() | {"extra": Evil(trace)}
    if how.startswith("bare"):
        path.write_bytes(pickle.dumps({"extra": Evil(trace)}, protocol=2 if how[-1] == "2" else 4))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    verb = "might" if how == "bare pickle" else "would"  # which code, the weights-only loader sees only in PyTorch's own protocol
    assert f"refused: the file holds a pickle that {verb} run code" in refusal(path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if not how.startswith("bare") else pickle.loads(path.read_bytes())
    assert trace.exists(), "the file would not have run anything: the test proves nothing"


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "w.pth")
    assert "torch.nn.modules.container.Sequential" in refusal(tmp_path / "w.pth")
    assert "torch.save(model.state_dict(), FILE)" in refusal(tmp_path / "w.pth")


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("these are no weights\n" * 10)
    (tmp_path / "text.safetensors").write_text("these are no weights\n" * 10)
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    torch.save(network().state_dict(), tmp_path / "whole.pth")
    save_file(network().state_dict(), tmp_path / "whole.safetensors")
    torch.save(network().state_dict(), tmp_path / "whole_legacy.pth", _use_new_zipfile_serialization=False)
    for whole in ("whole.pth", "whole.safetensors", "whole_legacy.pth"):
        content = (tmp_path / whole).read_bytes()
        for share in (0.1, 0.5, 0.98):
            cut = tmp_path / f"cut{share}_{whole}"
            cut.write_bytes(content[: int(len(content) * share)])
    for path in sorted([*tmp_path.glob("text*"), *tmp_path.glob("empty*"), *tmp_path.glob("cut*")]):
        line = refusal(path)
        assert str(path) in line
        assert "or damaged" in line or ("refused" in line and "legacy" in path.name)


def test_what_is_no_weights_file(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "optimizer": {"state": {}}}, tmp_path / "optimizer.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "w.h5").write_bytes(b"x")
    assert "no tensors in it, found the keys epoch, optimizer" in refusal(tmp_path / "optimizer.pth")
    assert "found a list" in refusal(tmp_path / "list.pth")
    assert "expected a file .safetensors" in refusal(tmp_path / "w.h5")
    assert "no such file" in refusal(tmp_path / "absent.pth")
    assert "a folder, not a file" in refusal(tmp_path)


def test_misfits_are_named_with_shapes_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    state = network().state_dict()
    del state["head.bias"], state["norm.running_mean"]
    torch.save(state | {"conv.weight": torch.zeros(4, 1, 3, 3)} | {f"extra.{i}": torch.zeros(i) for i in range(5)}, path)
    assert refusal(path) == (
        f"weights {path} do not fit net: 2 of 9 missing (norm.running_mean (4), head.bias (5)); 5 unexpected (extra.0 (0), extra.1 (1), "
        "extra.2 (2), ...); 1 of another shape (conv.weight: file (4 1 3 3), network (4 3 3 3))"
    )


def test_weights_of_another_network(tmp_path: Path) -> None:
    torch.save({"a.b": torch.zeros(1), "c": torch.zeros(2)}, tmp_path / "w.pth")
    line = refusal(tmp_path / "w.pth")
    assert "8 of 9 missing (conv.weight (4 3 3 3)," in line
    assert "2 unexpected (a.b (1), c (2))" in line


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite(bad: float, tmp_path: Path) -> None:
    state = network().state_dict()
    state["norm.running_var"][2] = bad
    torch.save(state, tmp_path / "w.pth")
    assert "norm.running_var (4) holds NaN or infinity" in refusal(tmp_path / "w.pth")


def test_values_that_overflow_in_the_networks_type(tmp_path: Path) -> None:
    torch.save(network().state_dict() | {"head.bias": torch.full((5,), 1e6)}, tmp_path / "w.pth")
    assert "head.bias (5) holds NaN or infinity as torch.float16" in refusal(tmp_path / "w.pth", network().half())


def test_kinds_of_numbers_are_not_mixed(tmp_path: Path) -> None:
    torch.save(network().state_dict() | {"head.bias": torch.zeros(5, dtype=torch.int8)}, tmp_path / "w.pth")
    assert "head.bias is torch.int8 in the file, torch.float32 in the network" in refusal(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_network_without_values_yet(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2, 2)}, tmp_path / "w.pth")
    with pytest.raises(BadWeights, match="a lazy layer"):
        load_weights(nn.LazyLinear(2), tmp_path / "w.pth")


def test_class_count(tmp_path: Path) -> None:
    assert class_count(network(5), network(7).state_dict()) == 7
    assert class_count(network(5), network(5).state_dict()) is None
    assert class_count(network(5), network(7).state_dict() | {"conv.weight": torch.zeros(4, 1, 3, 3)}) is None
    assert class_count(network(5), {"head.bias": torch.zeros(7)}) is None


def test_class_names_in_the_metadata(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(network().state_dict(), path, metadata={"classes": json.dumps(["ant", "bee"])})
    assert read_weights(path).classes == ("ant", "bee")
    save_file(network().state_dict(), path, metadata={"classes": "ant, bee"})
    assert "should be a JSON list of names, got ant, bee" in refusal(path)


def test_hash_depends_on_everything_and_agrees_with_the_scope() -> None:
    model = network()
    hashed = weights_hash(model)
    assert hashed == weights_hash(network()) == Scope(model, Inputs(size=8)).weights_hash
    assert len(hashed) == 16
    others = [network(seed=1), network(classes=6), network().double(), nn.Sequential(network())]
    with torch.no_grad():
        others.append(network())
        others[-1].norm.running_var[3] += 1e-6  # pyright: ignore
    assert len({hashed, *(weights_hash(other) for other in others)}) == 6
    assert weights_hash(network().to(memory_format=torch.channels_last)) == hashed
    assert weights_hash(network().bfloat16()) != hashed


# --- several sets of weights in one file. Further ones tried: timm's state_dict_ema beside optimizer states, Lightning's callbacks,
# a generator and a discriminator of other shapes (no notice), an EMA that holds parameters alone, one network under two keys, keys of
# another case, empty or with escape sequences.

SEVERAL: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "two keys": (lambda state, ema: {"state_dict": state, "state_dict_ema": ema, "epoch": 3}, "state_dict_ema"),
    "nested": (lambda state, ema: {"model": state, "ema": {"state_dict": ema, "updates": torch.tensor(7)}}, "ema"),
    "averaged": (lambda state, ema: {"model": state, "model_ema": {f"module.{key}": value for key, value in ema.items()}}, "model_ema"),
    "outermost": (lambda state, ema: {**state, "ema": ema}, "ema"),
}


@pytest.mark.parametrize("what", SEVERAL)
def test_several_sets_of_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str) -> None:
    make, key = SEVERAL[what]
    ordinary, averaged, loaded = network(seed=1), network(seed=2), network()
    torch.save(make(ordinary.state_dict(), averaged.state_dict()), tmp_path / "w.pth")
    load_weights(loaded, tmp_path / "w.pth")
    assert equal(loaded, ordinary), "the ordinary ones are the default"
    assert f"it also holds {key}" in caplog.text and f"w.pth::{key}" in caplog.text, "and it is said"
    caplog.clear()
    for asked in (key, "ema"):
        load_weights(loaded, f"{tmp_path}/w.pth::{asked}")
        assert equal(loaded, averaged)
        assert not caplog.text


def test_sets_of_weights_by_the_names_of_their_tensors(tmp_path: Path) -> None:
    both = {f"online.{key}": value for key, value in network(seed=1).state_dict().items()}
    both |= {f"ema_model.{key}": value for key, value in network(seed=2).state_dict().items()}
    torch.save(both, tmp_path / "w.pth")
    save_file(both, tmp_path / "w.safetensors")
    loaded = network()
    for file in ("w.pth", "w.safetensors"):
        load_weights(loaded, f"{tmp_path}/{file}::ema_model")
        assert equal(loaded, network(seed=2))
        load_weights(loaded, f"{tmp_path}/{file}::online")
        assert equal(loaded, network(seed=1))
        assert f"{file}: nothing in it is called 'teacher'; it holds " in refusal(tmp_path / f"{file}::teacher")


def test_sets_of_weights_that_must_be_chosen(tmp_path: Path) -> None:
    student, teacher = network(seed=1).state_dict(), network(seed=2).state_dict()
    torch.save({"student": student, "teacher": teacher}, tmp_path / "w.pth")
    assert "holds several sets of weights (student, teacher); say which: w.pth::student" in refusal(tmp_path / "w.pth")
    torch.save({"model": student, "ema_a": teacher, "ema_b": network(seed=3).state_dict()}, tmp_path / "v.pth")
    assert "'ema' may mean ema_a, ema_b" in refusal(tmp_path / "v.pth::ema")
    torch.save(student, tmp_path / "a::b.pth")
    loaded = network()
    load_weights(loaded, tmp_path / "a::b.pth")
    assert equal(loaded, network(seed=1)), "a file of that name comes first"


def test_a_checkpoint_that_holds_itself(tmp_path: Path) -> None:
    """Further ones: two that hold each other, 100,000 levels, a list or a tuple in between, sixty levels that each hold the next twice."""
    loop: dict[str, Any] = {}
    loop["state_dict"] = loop
    torch.save(loop, tmp_path / "loop.pth")
    assert "no tensors in it, found the keys state_dict" in refusal(tmp_path / "loop.pth")
    first: dict[str, Any] = {}
    first["model"] = {"state_dict": first}
    torch.save(first, tmp_path / "two.pth")
    assert "no tensors in it, found the keys model" in refusal(tmp_path / "two.pth")
    deep: dict[str, Any] = network(seed=1).state_dict()
    for _ in range(300):
        deep = {"state_dict": deep}
    torch.save(deep, tmp_path / "deep.pth")
    assert "no tensors in it" in refusal(tmp_path / "deep.pth")
    loop = {"model": network(seed=1).state_dict()}
    loop["checkpoint"] = loop
    torch.save(loop, tmp_path / "good.pth")
    loaded = network()
    load_weights(loaded, tmp_path / "good.pth")
    assert equal(loaded, network(seed=1)), "weights beside the loop are found"


def test_files_larger_than_they_look(tmp_path: Path) -> None:
    """Further ones: a head of a billion classes, a sparse tensor, entries of an archive that overlap."""
    state = network().state_dict()
    torch.save(state | {"conv.weight": torch.zeros(1).expand(4, 3, 3, 3)}, tmp_path / "repeated.pth")
    assert "conv.weight repeats the same values" in refusal(tmp_path / "repeated.pth")
    torch.save(state | {"conv.weight": torch.zeros(4, 3, 3, 3).to_sparse()}, tmp_path / "sparse.pth")
    assert "conv.weight is no plain tensor" in refusal(tmp_path / "sparse.pth")
    torch.save(state | {"conv.weight": torch.zeros(10**5)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as old, zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert "unpack to" in refusal(tmp_path / "packed.pth")


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pth")
    assert refusal(tmp_path / "w.pth").endswith("w.pth: not a regular file but a named pipe (FIFO)")
    (tmp_path / "zero.pth").symlink_to("/dev/zero")
    assert refusal(tmp_path / "zero.pth").endswith("a character device")
    assert "weights are read from local files" in refusal("https://example.org/w.pth")  # type: ignore[arg-type]
    assert "weights are read from local files" in refusal("s3://bucket/w.pth")  # type: ignore[arg-type]


def test_capital_suffixes(tmp_path: Path) -> None:
    loaded = network()
    torch.save(network(seed=1).state_dict(), tmp_path / "W.PTH")
    load_weights(loaded, tmp_path / "W.PTH")
    assert equal(loaded, network(seed=1))
    save_file(network(seed=2).state_dict(), tmp_path / "W.SafeTensors")
    load_weights(loaded, tmp_path / "W.SafeTensors")
    assert equal(loaded, network(seed=2))
