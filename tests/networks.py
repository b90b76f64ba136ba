"""Which networks of torchvision and timm are tested, how small an input each of them takes, and small networks of unusual kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import hand_built

CONVOLUTIONAL = [n for n in torchvision.models.list_models(module=torchvision.models) if not n.startswith(("vit_", "swin_", "maxvit_"))]
"""The convolutional classifiers of torchvision."""

QUICK = frozenset(
    (
        "alexnet vgg11_bn resnet18 resnet50 resnext50_32x4d squeezenet1_0 googlenet inception_v3 densenet121 mobilenet_v2 mnasnet0_5 "
        "shufflenet_v2_x0_5 convnext_tiny regnet_x_400mf"
    ).split()
)
"""One or two of every family, for tests of graphs."""

SIDES = {"vit_b_16": 224, "vit_b_32": 224, "vit_l_16": 224, "vit_l_32": 224, "vit_h_14": 224, "maxvit_t": 224, "inception_v3": 80}
SIDES |= {"bat_resnext26ts": 256, "botnet26t_256": 256, "coatnet_nano_rw_224": 224, "maxvit_rmlp_pico_rw_256": 256, "levit_128s": 224}
SIDES |= {"mixer_s32_224": 224, "efficientformer_l1": 224, "efficientformerv2_s0": 224, "visformer_tiny": 224, "coat_lite_tiny": 224}
SIDES |= {"inception_resnet_v2": 96, "inception_v4": 96, "nfnet_l0": 96, "halonet26t": 256, "xcit_nano_12_p16_224": 64}
"""Side of the smallest input that a network takes, where it is not 64 px."""

TIMM = """
    bat_resnext26ts botnet26t_256 coat_lite_tiny coatnet_nano_rw_224 convmixer_768_32 convnext_atto convnextv2_atto cpubone_b0_bfrobust
    cs3darknet_focus_s cspresnet50 csatv2 davit_tiny dla34 dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0
    efficientnet_b0_gn efficientvim_m1 efficientvit_b0 efficientvit_m0 fasternet_t0 fastvit_t8 focalnet_tiny_srf gcresnet33ts gernet_s
    ghostnet_050 halonet26t hardcorenas_a hgnetv2_b0 hrnet_w18_small inception_next_atto inception_resnet_v2 inception_v4 lambda_resnet26t
    lcnet_035 levit_128s mambaout_femto maxvit_rmlp_pico_rw_256 mixer_s32_224 mixnet_s mobilenetv3_small_050 mobileone_s0 mobilevit_xxs
    mobilevitv2_050 nf_resnet26 nfnet_l0 poolformer_s12 pvt_v2_b0 rdnet_tiny regnetx_002 repvgg_a0 repvit_m0_9 res2net50_14w_8s resnest14d
    resnetblur18 resnetv2_50 rexnet_100 selecsls42 shvit_s1 skresnet18 starnet_s1 swiftformer_xs tf_efficientnet_lite0 tresnet_m
    visformer_tiny xception41 xcit_nano_12_p16_224
""".split()
"""Architectures of timm, one or two of every family that has convolutions."""


class Unusual(nn.Module):
    """The layers of :func:`hand_built.small`, by the same names, in a forward of another kind.

    Args:
        run: (network, images) -> what it returns.
        more: Further layers, or others in place of some.
    """

    def __init__(self, run: Callable[[Unusual, Tensor], Any], **more: nn.Module) -> None:
        super().__init__()
        for name, module in hand_built.small().named_children():
            self.add_module(name, more.pop(f"_{name}", module))
        for name, module in more.items():
            self.add_module(name, module)
        self.run = run

    def maps(self, values: Tensor) -> Tensor:
        """The first six layers."""
        for name in "012345":
            values = self.get_submodule(name)(values)
        return values

    def head(self, values: Tensor) -> Tensor:
        """The last three."""
        for name in "678":
            values = self.get_submodule(name)(values)
        return values

    def forward(self, images: Tensor) -> Any:
        return self.run(self, images)


def _by_tokens(net: Unusual, images: Tensor) -> Tensor:
    return net.get_submodule("8")(net.get_submodule("encoder")(net.maps(images).flatten(2).permute(2, 0, 1)).mean(0))


UNUSUAL: dict[str, Callable[[], nn.Module]] = {
    "tokens_first": lambda: hand_built.seeded(lambda: Unusual(_by_tokens, encoder=nn.TransformerEncoderLayer(8, 2, 16))),
    "mixing": lambda: Unusual(lambda net, images: net.head(net.maps(images)), _1=nn.BatchNorm2d(6, track_running_stats=False)),
    "drawing": lambda: Unusual(lambda net, images: net.head(net.maps(F.dropout(images, 0.3, training=True)))),
    "checkpointed": lambda: Unusual(lambda net, images: net.head(checkpoint(net.maps, images, use_reentrant=False))),
    "viewed": lambda: Unusual(lambda net, images: net.head((maps := net.maps(images)).view(len(maps), -1).view(maps.shape))),
    "dict_output": lambda: Unusual(lambda net, images: {"features": (maps := net.maps(images)), "logits": net.head(maps)}),
}
"""Networks that do what most do not: tokens before images, images that influence each other, draws in evaluation mode, a middle that is
computed again in the backward pass, a view that only values in the order of their axes allow, a dict whose first entry is not the
prediction. The last three compute what `hand_built.small` does."""


def fixed_size(side: int = 24) -> nn.Module:
    """:func:`hand_built.small` without its average: flatten 6, linear 7, so that it takes images of one size alone."""

    def build() -> nn.Module:
        layers = [module for name, module in hand_built.small().named_children() if name < "6"]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * (side // 2) ** 2, 5))

    return hand_built.seeded(build)


class MultiplesOf8(nn.Module):
    """Adds a map to itself at an eighth of its size, as U-Nets do: both sides must be multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.relu = nn.Conv2d(3, 6, 3, padding=1), nn.MaxPool2d(8), nn.ReLU()
        self.up, self.last, self.head = nn.Upsample(scale_factor=8), nn.ReLU(), nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        return self.head(self.last(maps + self.up(self.relu(self.down(maps)))).mean((2, 3)))


OTHER_INPUTS: dict[str, Callable[[], nn.Module]] = {
    "fixed_size": fixed_size,
    "one_channel": lambda: hand_built.small(1),
    "six_channels": lambda: hand_built.small(6),
}
"""Networks of other inputs than images of three channels and any size, with the layers of :func:`hand_built.small`."""
