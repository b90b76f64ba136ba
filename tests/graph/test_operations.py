"""The registry of operations: what real networks record is known or named here, and every entry is right about in-place forms and roles."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.graph import geometry_rules
from convscope.graph.graph import Node, Recorder
from convscope.graph.operations import OPERATIONS, known, nonlinear_functions, spellings
from networks import SIDES, TIMM

CLASSIFIERS = torchvision.models.list_models(module=torchvision.models)
DEFAULT = {
    *("torchvision/" + name for name in "alexnet densenet121 convnext_tiny mobilenet_v3_small shufflenet_v2_x0_5 squeezenet1_0".split()),
    *("timm/" + name for name in "convnextv2_atto ghostnet_050 hrnet_w18_small mobilevit_xxs resnetblur18 skresnet18 tresnet_m".split()),
}
"""Recorded in every run; the others in slow runs."""

NO_GEOMETRY = set(
    "_native_multi_head_attention _safe_softmax _scaled_dot_product_flash_attention_for_cpu as_strided_ bmm fill_ index "
    "linalg_vector_norm native_group_norm new_zeros overwritten reflection_pad2d roll stack unbind unfold".split()
)
"""What these networks record and whose geometry is unknown: every output depends on every input."""

NO_BOUND = NO_GEOMETRY - {"reflection_pad2d"} | set(
    "_softmax addcmul eq expand masked_fill native_layer_norm ne permute select slice split split_with_sizes sum transpose".split()
)
"""What these networks record and has no bounds."""


def network(name: str) -> nn.Module:
    library, _, own = name.partition("/")
    with torch.random.fork_rng(devices=[]):
        if library == "timm":
            return pytest.importorskip("timm").create_model(own, pretrained=False)
        quick = {"init_weights": False} if own in ("googlenet", "inception_v3") else {}
        return torchvision.models.get_model(own, weights=None, **quick)


def recorded(model: nn.Module, side: int) -> list[Node]:
    images = torch.zeros(1, 3, side, side)
    recorder = Recorder(images)
    with torch.no_grad(), recorder:
        model.eval()(images)
    return recorder.nodes[1:]


ALL = [f"torchvision/{name}" for name in CLASSIFIERS] + [f"timm/{name}" for name in TIMM]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in DEFAULT else pytest.mark.slow) for name in ALL])
def test_every_operation_of_real_networks_is_known_or_named(name: str) -> None:
    met = {node.operation for node in recorded(network(name), SIDES.get(name.partition("/")[2], 64))}
    assert {operation for operation in met if known(operation).geometry is None} <= NO_GEOMETRY
    assert {operation for operation in met if known(operation).bound is None} <= NO_BOUND


@pytest.mark.slow
def test_no_name_on_the_lists_is_out_of_date() -> None:
    some = "timm/botnet26t_256 timm/csatv2 timm/halonet26t timm/cpubone_b0_bfrobust timm/bat_resnext26ts timm/efficientvim_m1".split()
    some += "timm/coatnet_nano_rw_224 timm/resnetblur18 timm/ghostnet_050 torchvision/vit_b_32 torchvision/swin_v2_t".split()
    met = {node.operation for name in some for node in recorded(network(name), SIDES.get(name.partition("/")[2], 64))}
    assert met >= NO_GEOMETRY
    assert all(known(operation).geometry is None for operation in NO_GEOMETRY) and all(
        known(operation).bound is None for operation in NO_BOUND
    )


def test_dozen_networks_by_default() -> None:
    assert set(ALL) >= DEFAULT and len(DEFAULT) >= 12 and len(TIMM) >= 60


ACTIVATIONS = """
    ReLU ReLU6 Hardtanh LeakyReLU PReLU RReLU ELU CELU SELU GELU SiLU Mish Hardswish Softplus Sigmoid Hardsigmoid Tanh
""".split()


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_are_known_in_place_or_not(kind: str) -> None:
    """One table said of `elu` and `gelu_` what another did not."""
    for inplace in ({}, {"inplace": True}):
        if inplace and kind in ("PReLU", "GELU", "Softplus", "Sigmoid", "Tanh"):
            continue
        last = recorded(nn.Sequential(nn.Conv2d(3, 2, 1), getattr(nn, kind)(**inplace)), 4)[-1]
        assert last.role == "activation" and known(last.operation).geometry is not None
        assert (known(last.operation).bound is None) == (kind in ("PReLU", "RReLU")), "only ATen names that are recorded have entries"


@pytest.mark.parametrize("name", [name for name, one in OPERATIONS.items() if hasattr(torch.ops.aten, f"{name}_")])
def test_in_place_forms_are_known_where_shapes_stay(name: str) -> None:
    """An in-place squeeze has changed the shape of its input by the time that it is recorded."""
    elementwise = OPERATIONS[name].geometry is geometry_rules.elementwise
    assert known(f"{name}_") is (OPERATIONS[name] if elementwise else known("nothing"))
    assert elementwise or name in ("squeeze", "unsqueeze", "transpose", "addmm", "baddbmm")


def test_every_entry_is_an_operation_of_torch() -> None:
    assert all(hasattr(torch.ops.aten, name) for name in OPERATIONS)
    assert known("nothing").geometry is None and known("nothing").bound is None and not known("nothing").fresh
    assert not known("_unsafe_view").fresh and not known("slice").fresh and known("convolution").fresh and known("add_").fresh


def test_functions_of_every_nonlinearity_exist() -> None:
    assert all(spellings(function) for function in nonlinear_functions())
    assert {F.silu, torch.sigmoid, torch.special.expit, Tensor.tanh_, F.softmin, F.elu_} <= {
        function for name in nonlinear_functions() for function in spellings(name)
    }
    assert not {F.conv2d, torch.add} & {function for name in nonlinear_functions() for function in spellings(name)}


def batch_norm(name: str) -> Tensor:
    """A scale and a shift of each channel, by one of ATen's names for it."""
    values, scale = torch.linspace(-1, 1, 32).view(1, 2, 4, 4), torch.tensor([2.0, 3.0])
    ends = (0.1, 1e-5) if name.endswith("no_training") else (False, 0.1, 1e-5)
    return getattr(torch.ops.aten, name)(values, scale, scale, scale, scale, *ends)[0]


@pytest.mark.parametrize("name", ["native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"])
def test_every_name_of_batch_norm_is_a_batch_norm(name: str) -> None:
    assert torch.allclose(batch_norm(name), batch_norm("native_batch_norm"))
    assert all(known(other).role == "batch norm" for other in (name, "cudnn_batch_norm", "miopen_batch_norm"))
    assert known("native_group_norm").role == "norm"
