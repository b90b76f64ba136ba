"""Which networks of torchvision and timm are tested, how small an input each of them takes, and small networks of unusual kinds."""

from __future__ import annotations

from collections.abc import Callable

import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

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


class TokensFirst(nn.Module):
    """A transformer whose tokens come before the images: (token n c)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=3)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32)
        self.relu = nn.ReLU()
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.encoder(self.conv(images).flatten(2).permute(2, 0, 1))).mean(0))


class Mixing(nn.Module):
    """Normalizes by the statistics of the batch, also in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.norm(self.conv(images))).mean((2, 3)))


class Drawing(nn.Module):
    """Drops values at random, also in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.dropout(self.relu(self.conv(images)), 0.5, training=True).mean((2, 3)))


class Checkpointed(nn.Module):
    """Computes its middle again in the backward pass."""

    def __init__(self, *, reentrant: bool = False) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 5)
        self.reentrant = reentrant

    def forward(self, images: Tensor) -> Tensor:
        middle = checkpoint(lambda values: self.relu(self.norm(self.conv(values))), images, use_reentrant=self.reentrant)
        return self.head(middle.mean((2, 3)))


class Named(nn.Module):
    """Returns a dict, of which the prediction is not the first entry."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.relu(self.conv(images))
        return {"features": maps, "logits": self.head(maps.mean((2, 3)))}


UNUSUAL: dict[str, Callable[[], nn.Module]] = {
    "tokens first": TokensFirst,
    "mixing": Mixing,
    "drawing": Drawing,
    "checkpointed": Checkpointed,
    "dict output": Named,
}
"""Networks that do what most do not; in each, "relu" is a layer behind the first convolution, "conv", and "output" has five classes."""
