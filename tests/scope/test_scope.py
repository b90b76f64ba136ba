"""The waist: values, gradients, batches, and a network that is left as it was."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import convscope
import hand_built
from convscope.errors import AmbiguousLayer, BadInput, BadWeights, ConvscopeError, LayerNotFound, NotReached, UnitNotFound
from convscope.scope import Inputs, Scope
from convscope.scope.precision import _measured_faster, bfloat16_is_fast
from hand_built import draws, state_of, unsettle


def plain(model: nn.Module, images: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Values by plain hooks that clone, on a copy in evaluation mode."""
    model = copy.deepcopy(model).eval()
    kept: dict[str, Tensor] = {}
    for name in names:
        model.get_submodule(name).register_forward_hook(lambda _m, _a, output, name=name: kept.__setitem__(name, output.clone()))
    model(images)
    return kept


# --- what a layer's value is


def test_values_are_what_layers_produced(scope: Scope, small: nn.Module) -> None:
    images = draws(2, 3, 24, 24)
    names = [str(index) for index in range(9)]
    found = scope.activations(images, names)
    expected = plain(small, scope.inputs.normalize(images), names)
    for name in names:
        assert torch.equal(found[name], expected[name]), name
    assert (found["1"] < 0).any(), "the value before the in-place ReLU"
    assert (found["2"] >= 0).all()
    assert torch.equal(scope.activations(images, "output")["output"], found["8"])


def test_a_value_that_is_added_to_in_place_is_kept_before_the_sum() -> None:
    model = hand_built.seeded(hand_built.Residual)
    scope, images = Scope(model, Inputs(size=16)), draws(2, 3, 16, 16)
    found = scope.activations(images, ["stem", "relu:0", "middle", "relu:1", "norm", "relu:2", "last", "output"])
    with torch.no_grad():
        twin = copy.deepcopy(model).eval()
        stem = twin.stem(images)
        identity = stem.relu()
        middle = twin.middle(identity)
        norm = twin.norm(middle.relu())
        summed = norm + identity
        last = twin.last(summed.relu())
    expected = {
        "stem": stem,
        "relu:0": identity,
        "middle": middle,
        "relu:1": middle.relu(),
        "norm": norm,
        "relu:2": summed.relu(),
        "last": last,
        "output": last.mean((2, 3)),
    }
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert scope.layers["norm"].overwritten and not scope.layers["middle"].overwritten
    for name, value in expected.items():  # each alone, too
        assert torch.equal(scope.activations(images, name)[name], value), name


def test_a_functional_relu_in_place_does_not_reach_the_value_before_it() -> None:
    model = hand_built.seeded(hand_built.Functional)
    scope, images = Scope(model, Inputs(size=16)), draws(2, 3, 16, 16)
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        norm = twin.norm(twin.conv(images))
        assert torch.equal(scope.activations(images, "norm")["norm"], norm)
        both = scope.activations(images, ["norm", "head"])
        assert torch.equal(both["norm"], norm) and torch.equal(both["head"], twin.head(norm.relu()))
    assert float(norm.min()) < 0


def test_googlenet_and_resnet_batch_norms() -> None:
    for name, layer in (("googlenet", "inception3a.branch1.bn"), ("resnet18", "layer1.0.bn2")):
        model = hand_built.torchvision_network(name)
        scope, images = Scope(model, Inputs(size=64)), draws(1, 3, 64, 64)
        expected = plain(model, images, [layer])[layer]
        assert torch.equal(scope.activations(images, layer)[layer], expected)
        assert (expected < 0).any()


def test_a_value_overwritten_unexpectedly_is_an_error() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head, self.overwrite = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1), False

        def forward(self, images: Tensor) -> Tensor:
            values = self.conv(images)
            if self.overwrite:
                values += 1
            return self.head(values)

    model = hand_built.seeded(Sometimes)
    scope = Scope(model, Inputs(size=16))
    assert not scope.layers["conv"].overwritten
    model.overwrite = True
    with pytest.raises(BadInput, match="conv: its value was overwritten in place"):
        scope.activations(draws(1, 3, 16, 16), ["conv", "head"])


def test_what_goes_into_a_layer(scope: Scope) -> None:
    images = draws(2, 3, 24, 24)
    found = scope.activations(images, ["2@input", "1", "2"])
    assert torch.equal(found["2@input"], found["1"]) and torch.equal(found["2"], found["1"].relu())
    with pytest.raises(LayerNotFound, match="3@input"):
        scope.activations(images, "3@input")  # pooling changes the shape


@pytest.mark.parametrize("form", [lambda main, other: (main, other), lambda main, other: {"main": main, "other": [other]}])
def test_output_of_many_parts_is_its_first_tensor(form: Callable[[Tensor, Tensor], object]) -> None:
    model = hand_built.seeded(lambda: hand_built.Heads(form))
    scope, images = Scope(model, Inputs(size=16)), draws(2, 3, 16, 16)
    assert scope.layers["output"].channels == 3
    expected = plain(model, images, ["main"])["main"]
    assert torch.equal(scope.activations(images, "output")["output"], expected)


def test_a_head_for_training_is_not_reached() -> None:
    scope = Scope(hand_built.seeded(lambda: hand_built.Heads(lambda main, _: main)), Inputs(size=16))
    assert "auxiliary" not in scope.layers and "conv" in scope.layers
    with pytest.raises(NotReached, match="'auxiliary' is in this network, but its forward pass does not run it"):
        scope.activations(draws(1, 3, 16, 16), "auxiliary")


def test_non_square_images() -> None:
    model = hand_built.small()
    scope = Scope(model, Inputs(size=(16, 32)))
    assert scope.layers["0"].shape == (6, 16, 32) and scope.layers["3"].spatial == (8, 16)
    images = draws(2, 3, 20, 10)  # not the recorded size either
    assert torch.equal(scope.activations(images, "4")["4"], plain(model, images, ["4"])["4"])


def test_units_of_channels_last_layers() -> None:
    model = hand_built.torchvision_network("convnext_tiny")
    scope = Scope(model, Inputs(size=64))
    images = draws(1, 3, 64, 64)
    values = plain(model, images, ["features.1.0.block.3", "features.1.0.block.0", "features.1.0.block.4"])
    for name, channels in (("features.1.0.block.3", 384), ("features.1.0.block.4", 384), ("features.1.0.block.0", 96)):
        layer = scope.layers[name]
        assert layer.channels == channels and layer.spatial == (16, 16), name
        axis_first = values[name] if name.endswith(".0") else values[name].permute(0, 3, 1, 2)
        assert torch.equal(layer.channels_first(scope.activations(images, name)[name]), axis_first)


# --- passes are truncated, counted, differentiable


def test_the_pass_ends_at_the_deepest_layer(scope: Scope, small: nn.Module) -> None:
    ran: list[int] = []
    for index, module in enumerate(small):
        module.register_forward_pre_hook(lambda _m, _a, index=index: ran.append(index))
    _ = scope.layers
    for asked, last in ((["4"], 4), (["4", "1"], 4), (["0"], 0), (["6", "2"], 6), (["output"], 8)):
        ran.clear()
        before = scope.forwards
        assert list(scope.activations(draws(1, 3, 24, 24), asked)) == asked
        assert ran == list(range(last + 1))
        assert scope.forwards == before + 1


def test_a_layer_that_later_code_needs_is_not_reached_past_a_broken_one(scope: Scope, small: nn.Module) -> None:
    _ = scope.layers
    small[5].forward = lambda *_: pytest.fail("ran past the layer asked for")
    scope.activations(draws(1, 3, 24, 24), "4")


def test_gradients_through_a_truncated_pass(scope: Scope, small: nn.Module) -> None:
    images = draws(2, 3, 24, 24).requires_grad_()
    scope.activations(images, "4")["4"].square().sum().backward()
    twin = draws(2, 3, 24, 24).requires_grad_()
    copy.deepcopy(small).eval()[:5](scope.inputs.normalize(twin)).square().sum().backward()
    assert images.grad is not None and torch.equal(images.grad, twin.grad)
    assert all(parameter.grad is None for parameter in small.parameters())


def test_no_gradient_unless_asked(scope: Scope) -> None:
    assert not scope.activations(draws(2, 3, 24, 24), "4")["4"].requires_grad
    with torch.no_grad():
        assert not scope.activations(draws(2, 3, 24, 24).requires_grad_(), "4")["4"].requires_grad


def test_a_double_network_computes_in_double() -> None:
    model = hand_built.small().double()
    scope = Scope(model, Inputs(size=24))
    images = draws(2, 3, 24, 24, dtype=torch.float64)
    found = scope.activations(images, "4")["4"]
    assert found.dtype == torch.float64 and torch.equal(found, plain(model, images, ["4"])["4"])


# --- batches and memory


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_values_do_not_depend_on_the_batch(scope: Scope, batch_size: int) -> None:
    images = draws(7, 3, 24, 24)
    whole = scope.activations(images, ["1", "4", "output"])
    for name, value in scope.activations(images, ["1", "4", "output"], batch_size=batch_size).items():
        torch.testing.assert_close(value, whole[name], rtol=1e-5, atol=1e-6)


def test_batches_are_counted(scope: Scope) -> None:
    _ = scope.layers
    before = scope.forwards
    scope.activations(draws(7, 3, 24, 24), "4", batch_size=3)
    assert scope.forwards == before + 3
    with pytest.raises(BadInput, match="batch_size must be at least 1, got 0"):
        scope.activations(draws(7, 3, 24, 24), "4", batch_size=0)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: not enough memory")])
def test_out_of_memory_halves_the_batch(scope: Scope, caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    sizes: list[int] = []

    def work(part: Tensor) -> Tensor:
        sizes.append(len(part))
        if len(part) > 2:
            raise error
        return part.clone()

    images = draws(11, 3, 4, 4)
    with caplog.at_level(logging.WARNING, "convscope"):
        parts = list(scope.in_batches(images, work, 8))
    assert torch.equal(torch.cat(parts), images)
    assert sizes == [6, 3, 2, 2, 2, 2, 2, 1]
    assert [record.getMessage() for record in caplog.records] == ["out of memory: continuing with batches of 3"]


def test_out_of_memory_at_one_image_is_raised_and_so_is_anything_else(scope: Scope) -> None:
    def too_large(_part: Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def broken(_part: Tensor) -> None:
        raise RuntimeError("something else")

    with pytest.raises(BadInput, match="too little memory for a single image"):
        list(scope.in_batches(draws(4, 3, 4, 4), too_large, 4))
    with pytest.raises(RuntimeError, match="something else"):
        list(scope.in_batches(draws(4, 3, 4, 4), broken, 4))


# --- the network is left as it was


def all_calls(scope: Scope, images: Tensor) -> None:
    scope.activations(images, ["1", "4", "output"])
    scope.activations(images.clone().requires_grad_(), "4")["4"].sum().backward()
    _ = scope.weights_hash, repr(scope), repr(scope.layers)


def test_the_network_is_as_before(small: nn.Module) -> None:
    unsettle(small)
    before = state_of(small)
    scope = Scope(small, Inputs(size=24))
    assert state_of(small) == before
    all_calls(scope, draws(2, 3, 24, 24))
    assert state_of(small) == before


@pytest.mark.parametrize("error", [RuntimeError("in mid-forward"), KeyboardInterrupt()])
@pytest.mark.parametrize("inside_a_session", [False, True])
def test_the_network_is_as_before_after_an_exception(error: BaseException, inside_a_session: bool) -> None:
    failing = hand_built.Raises()
    model = hand_built.seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), failing, nn.Conv2d(4, 2, 1))
    )
    unsettle(model)
    before = state_of(model)
    scope = Scope(model, Inputs(size=16))
    _ = scope.layers
    failing.fail = error
    with pytest.raises(type(error)):
        if inside_a_session:
            with scope.session():
                scope.activations(draws(1, 3, 16, 16), "output")
        else:
            scope.activations(draws(1, 3, 16, 16), "output")
    assert state_of(model) == before
    failing.fail = None
    assert torch.equal(scope.activations(draws(1, 3, 16, 16), "4")["4"], plain(model, draws(1, 3, 16, 16), ["4"])["4"])


def test_an_exception_while_layers_are_recorded() -> None:
    failing = hand_built.Raises()
    failing.fail = RuntimeError("in mid-forward")
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), failing)
    unsettle(model)
    before = state_of(model)
    scope = Scope(model, Inputs(size=16))
    with pytest.raises(
        BadInput, match=r"does not run on one image \(1, 3, 16, 16\).* fails in layer 2 \(Raises\): RuntimeError: in mid-forward"
    ):
        _ = scope.layers
    assert state_of(model) == before


def test_a_network_that_catches_exceptions_is_still_truncated() -> None:
    class Catching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.after = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)

        def forward(self, images: Tensor) -> Tensor:
            try:
                values = self.conv(images)
            except Exception:
                values = images.new_zeros(1, 4, 2, 2)
            return self.after(values)

    model = hand_built.seeded(Catching)
    scope, images = Scope(model, Inputs(size=16)), draws(1, 3, 16, 16)
    _ = scope.layers
    model.after.register_forward_pre_hook(lambda *_: pytest.fail("ran past the layer asked for"))
    with scope.session():
        assert scope.activations(images, "conv")["conv"].shape == (1, 4, 14, 14)


def test_sessions_nest(scope: Scope, small: nn.Module) -> None:
    unsettle(small)
    before = state_of(small)
    images = draws(2, 3, 24, 24)
    alone = scope.activations(images, "4")["4"]
    with scope.session():
        assert not small.training and not any(parameter.requires_grad for parameter in small.parameters())
        inside = state_of(small)
        with scope.session("float32"):
            assert torch.equal(scope.activations(images, "4")["4"], alone)
        assert state_of(small) == inside, "an inner session must not end the outer one"
        assert torch.equal(scope.activations(images, "4")["4"], alone)
    assert state_of(small) == before


def test_two_scopes_of_one_network(small: nn.Module) -> None:
    unsettle(small)
    before = state_of(small)
    one, other = Scope(small, Inputs(size=24)), Scope(small, Inputs(size=32))
    with one.session():
        other.activations(draws(1, 3, 32, 32), "4")
        one.activations(draws(1, 3, 24, 24), "4")
    assert state_of(small) == before


def test_hooks_of_the_user_stay_and_fire(scope: Scope, small: nn.Module) -> None:
    fired: list[str] = []
    small[4].register_forward_hook(lambda *_: fired.append("forward"))
    small[4].register_forward_pre_hook(lambda *_: fired.append("before"))
    before = state_of(small)
    scope.activations(draws(1, 3, 24, 24), "4")
    assert fired[-2:] == ["before", "forward"]
    assert state_of(small) == before
    fired.clear()
    small(draws(2, 3, 24, 24))
    assert fired == ["before", "forward"]


def test_a_hook_of_the_user_that_changes_a_value_is_seen(scope: Scope, small: nn.Module) -> None:
    plainly = scope.activations(draws(1, 3, 24, 24), "4")["4"]
    small[4].register_forward_hook(lambda _m, _a, output: output * 2)
    assert torch.equal(scope.activations(draws(1, 3, 24, 24), "4")["4"], plainly * 2)


# --- the caller's modes stay outside


@pytest.mark.parametrize("mode", ["autocast", "inference", "no_grad", "double", "enable_grad"])
def test_ambient_modes_do_not_leak_in(mode: str) -> None:
    scope = Scope(hand_built.small(), Inputs(size=24), precision="float32")
    images = draws(2, 3, 24, 24)
    expected = scope.activations(images, ["4", "output"])
    seen = convscope.feature_visualization(scope, "5", [0, 1], recipe="crops", size=24, steps=4, crop_size=16, seed=3)
    spectrum = convscope.spectrum(scope, "5", images)
    scope = Scope(hand_built.small(), Inputs(size=24), precision="float32")  # layers are recorded under the mode, too
    contexts = {
        "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        "inference": torch.inference_mode,
        "no_grad": torch.no_grad,
        "enable_grad": torch.enable_grad,
        "double": torch.no_grad,
    }
    try:
        if mode == "double":
            torch.set_default_dtype(torch.float64)
        with contexts[mode]():
            found = scope.activations(images, ["4", "output"])
            under = convscope.spectrum(scope, "5", images)
            if mode != "double":  # draws in double are other draws
                pictures = convscope.feature_visualization(scope, "5", [0, 1], recipe="crops", size=24, steps=4, crop_size=16, seed=3)
                assert (pictures.images == seen.images).all() and (pictures.scores == seen.scores).all()
            assert torch.is_inference_mode_enabled() == (mode == "inference")
            assert torch.is_autocast_enabled("cpu") == (mode == "autocast")
            assert torch.is_grad_enabled() == (mode in ("autocast", "enable_grad"))
    finally:
        torch.set_default_dtype(torch.float32)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], value)
    assert (under.values == spectrum.values).all()


def test_bfloat16_is_asked_for_and_recorded() -> None:
    scope = Scope(hand_built.small(), Inputs(size=24), precision="bfloat16")
    exact = Scope(hand_built.small(), Inputs(size=24), precision="float32")
    images = draws(2, 3, 24, 24)
    found, expected = scope.activations(images, "4")["4"], exact.activations(images, "4")["4"]
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    assert convscope.spectrum(scope, "4", images).manifest["precision"] == "bfloat16"


@pytest.mark.parametrize(
    ("asked", "purpose", "expected"),
    [("float32", "optimize", "float32"), ("bfloat16", "measure", "bfloat16"), ("auto", "measure", "float32")],
)
def test_precision(asked: str, purpose: str, expected: str) -> None:
    assert Scope(hand_built.small(), Inputs(size=24), precision=asked).resolve(purpose) == expected  # type: ignore[arg-type]


def test_auto_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = Scope(hand_built.small(), Inputs(size=24))
    for fast, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("convscope.scope.precision.bfloat16_is_fast", lambda _device, fast=fast: fast)
        assert scope.resolve("optimize") == expected and scope.resolve("measure") == "float32"


def test_bfloat16_with_slow_instructions_is_not_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    for amx, measured, fast in ((False, False, False), (False, True, True), (True, False, True)):
        monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr("convscope.scope.precision._measured_faster", lambda measured=measured: measured)
        assert bfloat16_is_fast(torch.device("cpu")) is fast


def test_whether_bfloat16_is_faster_follows_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product in bfloat16 that takes half or double the time of one in float32."""
    product = torch.Tensor.__matmul__
    for slowness, faster in ((0.5, True), (2.0, False)):
        clock = [0.0]

        def timed(one: Tensor, other: Tensor, clock: list[float] = clock, slowness: float = slowness) -> Tensor:
            clock[0] += slowness if one.dtype == torch.bfloat16 else 1.0
            return product(one, other)

        monkeypatch.setattr("torch.Tensor.__matmul__", timed)
        monkeypatch.setattr("time.perf_counter", lambda clock=clock: clock[0])
        assert _measured_faster.__wrapped__() is faster


# --- names


def test_layer_names(scope: Scope) -> None:
    assert list(scope.layers) == [*map(str, range(9)), "output"]
    with pytest.raises(LayerNotFound, match="no layer 'outputs' in this network; near names: output"):
        scope.activations(draws(1, 3, 24, 24), "outputs")
    for name in ("", "nothing", ":", "@input", "0@input@input", None, 4):
        with pytest.raises(LayerNotFound):
            _ = scope.layers[name]  # type: ignore[index]
        assert scope.layers.get(name) is None  # type: ignore[call-overload]


def test_near_names_know_endings(squeezenet: Scope) -> None:
    with pytest.raises(LayerNotFound, match=r"features\.12\.squeeze"):
        _ = squeezenet.layers["12.squeeze"]
    with pytest.raises(LayerNotFound, match=r"near names: features\.12"):
        _ = squeezenet.layers["feature.12"]


def test_a_module_called_several_times() -> None:
    scope = Scope(hand_built.seeded(hand_built.Residual), Inputs(size=16))
    assert list(scope.layers) == ["stem", "relu:0", "middle", "relu:1", "norm", "relu:2", "last", "output"]
    with pytest.raises(AmbiguousLayer, match="'relu' is called 3 times in one forward; say which: relu:0, relu:1, relu:2"):
        scope.activations(draws(1, 3, 16, 16), "relu")
    with pytest.raises(LayerNotFound):
        _ = scope.layers["relu:3"]


def test_no_layer_asked_for(scope: Scope) -> None:
    with pytest.raises(BadInput, match="no layer asked for"):
        scope.activations(draws(1, 3, 24, 24), [])


@pytest.mark.parametrize(
    ("asked", "expected"),
    [(3, [3]), ([1, 0], [1, 0]), (slice(2, 5), [2, 3, 4]), (None, list(range(8))), (range(2), [0, 1]), (slice(-2, None), [6, 7])],
)
def test_units(scope: Scope, asked: object, expected: list[int]) -> None:
    assert scope.units("4", asked) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", [8, -1, [0, 8], [], slice(9, 12), "3", ["0"], 1.5, [1.0], True, [None]])
def test_units_that_are_none(scope: Scope, asked: object) -> None:
    with pytest.raises(UnitNotFound, match="0 to 7"):
        scope.units("4", asked)  # type: ignore[arg-type]


def test_class_names() -> None:
    scope = Scope(hand_built.small(), Inputs(size=24, classes=["cat", "dog", "red fox", "arctic fox", "cat"]))
    assert scope.units("output", "dog") == [1] and scope.units("output", ["Dog", 3, "2"]) == [1, 3, 2]
    assert scope.unit_names("output", [2, 1]) == ("red fox", "dog") and scope.unit_names("4", [2, 1]) == ("", "")
    assert scope.units("output", ["Red_fox", "arctic fox"]) == [2, 3]
    with pytest.raises(BadInput, match="'fox' is unknown; near names: red fox, arctic fox"):
        scope.units("output", ["fox"])
    with pytest.raises(BadInput, match="'cat' is not unique"):
        scope.units("output", "cat")
    with pytest.raises(BadInput, match="2 names but the network has 5 outputs"):
        _ = Scope(hand_built.small(), Inputs(size=24, classes=["a", "b"])).class_names


# --- what can be looked into


def test_wrapped_networks_are_unwrapped(small: nn.Module) -> None:
    images = draws(1, 3, 24, 24)
    expected = Scope(small, Inputs(size=24)).activations(images, "4")["4"]
    compiled = torch.compile(small, backend="eager")
    for wrapped in (nn.DataParallel(small), compiled, nn.DataParallel(compiled), torch.compile(nn.DataParallel(small), backend="eager")):
        scope = Scope(wrapped, Inputs(size=24))  # type: ignore[arg-type]
        assert scope.model is small and torch.equal(scope.activations(images, "4")["4"], expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_scripted_networks_are_refused(small: nn.Module) -> None:
    with pytest.raises(BadInput, match="scripted or traced"):
        Scope(torch.jit.trace(small.eval(), draws(1, 3, 24, 24)))


def test_other_things_are_refused() -> None:
    with pytest.raises(BadInput, match=r"expected a torch\.nn\.Module, got str"):
        Scope("resnet18")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="unknown device 'gpu'"):
        Scope(hand_built.small(), device="gpu")
    with pytest.raises(BadInput, match="precision must be auto, float32 or bfloat16, got 'half'"):
        Scope(hand_built.small(), precision="half")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(BadInput, match="this machine has no usable CUDA device"):
        Scope(hand_built.small(), device="cuda")


@pytest.mark.parametrize("where", ["4.weight", "1.running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(small: nn.Module, where: str, value: float) -> None:
    with torch.no_grad():
        small.state_dict()[where].view(-1)[2] = value
    with pytest.raises(BadWeights, match=f"{where} holds NaN or infinity"):
        Scope(small)


def test_weights_whose_sum_overflows_are_finite() -> None:
    model = nn.Conv2d(3, 4, 3).half()
    torch.nn.init.constant_(model.weight, 6e4)
    Scope(model, Inputs(8))
    with torch.no_grad():
        model.weight[1, 2, 0, 0], model.weight[1, 2, 0, 1] = float("inf"), -float("inf")
    with pytest.raises(BadWeights, match="weight holds NaN or infinity"):
        Scope(model, Inputs(8))


def test_hash_and_bounds_follow_writes_that_torch_does_not_count(small: nn.Module) -> None:
    scope = Scope(small, Inputs(size=24), precision="float32")
    before, bound = scope.weights_hash, scope.bounds(["0"])["0"]
    weight = next(small.parameters())
    weight.data.mul_(-2)
    changed = scope.weights_hash
    assert changed != before
    assert repr(scope.bounds(["0"])["0"]) != repr(bound)
    weight.detach().numpy()[0] = 0.5
    assert scope.weights_hash not in (before, changed)
    seen = {scope.weights_hash}
    for _ in range(3):  # behind the back of torch's own count of changes, and with the same sum
        small[0].weight.data.copy_(small[0].weight.data.roll(1, 0))
        assert scope.weights_hash not in seen
        seen.add(scope.weights_hash)
    assert scope.weights_hash == Scope(copy.deepcopy(small)).weights_hash


def test_the_weights_hash_sees_what_the_state_leaves_out() -> None:
    """Buffers that are not saved, and what a hook takes out. Also tried: writes through storage, dlpack and `.data`, state dicts."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.register_buffer("scale", torch.ones(1), persistent=False)
            self.register_state_dict_post_hook(lambda _module, state, _prefix, _metadata: state.__delitem__("conv.bias"))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.conv(images) * self.scale

    model = Scaled()
    scope = Scope(model, Inputs(8))
    seen = [scope.weights_hash]
    for tensor in (model.scale, model.conv.bias):
        tensor.data.mul_(2)
        seen.append(scope.weights_hash)
    assert len({*seen}) == 3


def test_the_weights_hash_sees_settings_of_layers() -> None:
    """So that a gallery or scan of the same weights with another stride is not gone on with.

    Also tried: padding, dilation, ceil_mode, eps, a scale of an upsampling, an activation in place of an identity.
    """

    class Mine(nn.Sequential): ...

    def hashed(stride: int, activation: nn.Module, kind: type[nn.Sequential] = nn.Sequential) -> str:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = nn.Sequential(kind(nn.Conv2d(3, 4, 3, stride), activation), nn.Conv2d(4, 2, 1))
        return Scope(network, Inputs(size=16)).weights_hash

    known = hashed(1, nn.ReLU())
    assert hashed(1, nn.ReLU(inplace=True)) == known
    assert hashed(1, nn.ReLU(), Mine) == hashed(1, nn.ReLU(), type("Renamed", (Mine,), {}))
    others = [hashed(2, nn.ReLU()), hashed(1, nn.GELU()), hashed(1, nn.LeakyReLU(0.1)), hashed(1, nn.LeakyReLU(0.2))]
    assert len({known, *others}) == 5


def test_the_weights_hash_sees_every_value(small: nn.Module) -> None:
    first = Scope(small).weights_hash
    assert Scope(copy.deepcopy(small)).weights_hash == first and len(first) == 16
    with torch.no_grad():
        small[1].running_mean[0] += 1e-6
    assert Scope(small).weights_hash != first


def test_errors_carry_the_question(scope: Scope) -> None:
    with pytest.raises(LayerNotFound) as caught:
        convscope.spectrum(scope, "nothing", draws(1, 3, 24, 24))
    assert caught.value.question["technique"] == "spectrum" and "\n" not in str(caught.value)
    with pytest.raises(ConvscopeError) as failed:
        scope.run(draws(1, 3, 24, 24), "nothing")
    assert "\n" not in str(failed.value)


def test_layers_that_return_their_input_are_left_out_of_the_table() -> None:
    inner = nn.Sequential(nn.Identity(), nn.Dropout2d())
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.Identity(), inner, nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1))
    layers = Scope(model, Inputs(size=16), precision="float32").layers
    assert layers.passing() == ["1", "2", "3.0", "3.1", "3"] and "3.1" in layers
    *rows, look, hidden = repr(layers).splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["0", "4", "5", "output"]
    assert rows[1].split()[1:3] == ["ReLU", "*"] and look == "* activations of convolutions, e.g. 4"
    assert hidden == "5 of 9 layers return their input (Dropout, Identity, Dropout2d) and are left out: to_frame() has all"
    assert [row[0] for row in layers.rows()] == list(layers) and "left out" not in layers.legend("", every=True)
    assert len(repr(layers.of_kind("Identity")).splitlines()) == 3, "asked for, they are shown"


def test_where_identities_show_what_nothing_else_shows() -> None:
    class Probed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.probe, self.bare = nn.Conv2d(3, 4, 3), nn.Identity(), nn.Conv2d(4, 4, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.bare(self.probe(self.conv(images).relu())).mean((2, 3))

    layers = Scope(Probed(), Inputs(size=16), precision="float32").layers
    assert layers.activated() == ["probe"] and layers.after_relu() == ["probe", "bare"] and layers.passing() == []


def test_an_unknown_layer_without_near_names_is_answered_with_useful_ones(scope: Scope) -> None:
    with pytest.raises(LayerNotFound) as caught:
        _ = scope.layers["nothing"]
    assert caught.value.message == (
        "no layer 'nothing' in this network; it has, among others: 2, 5; all: scope.layers, or convscope layers NETWORK"
    )


def test_the_table(scope: Scope) -> None:
    header, first, *rest = repr(scope.layers).splitlines()
    columns = ["name", "kind", "channels", "size", "parameters", "MACs"]
    assert [word for word in header.split() if word in columns] == columns
    assert first.split()[:4] == ["0", "Conv2d", "6", "24x24"] and first.split()[-3:] == ["168", "0.1", "M"]
    assert len(rest) == 10 and rest[-1] == "* activations of convolutions, e.g. 2, 5"
    assert scope.layers["0"].macs == 6 * 24 * 24 * 27 and scope.layers["8"].macs == 40
    assert scope.layers["output"].macs == sum(scope.layers[name].macs for name in ("0", "4", "8"))
    assert "small" in repr(scope) and "24x24" in repr(scope)
