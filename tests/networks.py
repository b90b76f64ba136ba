"""Which networks of torchvision and timm are tested, and how small an input each of them takes."""

from __future__ import annotations

import torchvision

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
