"""Style transfer: one image's content in another's style, style being a statistic of feature maps over positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.errors import BadInput
from convscope.ops.map_statistics import DESCRIPTORS, style_loss
from convscope.optimize.descent import in_float32, minimize, tabulated
from convscope.optimize.recipes import STYLE_TRANSFER, DescentRecipe, Optimizer, find_descent_recipe
from convscope.results.provenance import describe, technique
from convscope.results.style_transfer import STATISTICS, StyleTransfer
from convscope.scope import Images, Scope
from convscope.scope.edits import average_pooling
from convscope.techniques.style_layers import find_style_layers, layer_after, style_depths

Statistic: TypeAlias = Literal["sums", "gram", "mean-std"]
"""Style statistics that can be minimized."""

PUBLISHED = {"sums": (10.0, 1.0), "gram": (1.0, 1000.0), "mean-std": (1.0, 3e5)}
"""Weights of content and style, "paper": PMCI's for sums, Gatys et al.'s ratio of 1e-3 for Gram, and about as strong for mean-std."""

BALANCED = (0.03, 1.0)
"""Weights of content and style, "balanced": chosen by eye, and the same for every statistic and network, since both terms are shares."""

CONTENT_DEPTH = {"sums": 2, "gram": 4, "mean-std": 4}
"""Content is compared at the layer after the so-many-eth style layer: VGG's relu2_2 (PMCI), relu4_2 (Gatys et al.)."""

_LEAST = 1e-6
"""Least style loss that a run is measured against, as a share of that of maps that are zero: a content may have the style already."""


@technique
def style_transfer(
    scope: Scope,
    content: Images,
    style: Images,
    *,
    statistic: Statistic | Sequence[Statistic] = "sums",
    content_layer: str | None = None,
    style_layers: str | Sequence[str] | None = None,
    weighting: Literal["balanced", "paper"] | None = None,
    content_weight: float | None = None,
    style_weight: float | None = None,
    optimizer: Optimizer = "lbfgs",
    steps: int | None = None,
    start: Literal["content", "noise"] | None = None,
    pooling: Literal["average", "own"] = "average",
    size: int = 256,
    seed: int = 0,
) -> StyleTransfer:
    """Transfers the style of one image to the content of another.

    argmin over x of alpha content(x) + beta style(x).

    With C channels, M positions, sums S and Gram matrix G, the style loss of a layer is, by "sums": 1 / (2CM) ||S - S_s||^2; by "gram":
    1 / (4 C^2 M^2) ||G - G_s||^2; by "mean-std": 1 / C (||mean - mean_s||^2 + ||std - std_s||^2).

    "balanced" weights need no tuning from network to network: content(x) is ||F - F_c||^2 / ||F_c||^2, and style(x) the mean over layers of
    the style loss as a share of the content image's own. "paper": content(x) is 1 / (2M) ||F - F_c||^2 for "sums" and 1/2 ||F - F_c||^2 for
    the others, and style(x) the sum of the layers' style losses for "sums", their mean for the others.

    Args:
        scope: The network.
        content: One or several images of one size.
        style: One or several images of any sizes; statistics are compared per position.
        statistic: "sums" (PMCI), "gram" (Gatys et al.) or "mean-std", or several, to compare them; the losses of all three are reported for
            each.
        content_layer: Default: by depth, VGG's relu2_2 for "sums", relu4_2 otherwise, and what corresponds to it elsewhere.
        style_layers: One or several names. Default: five by depth, VGG's relu1_1 to relu5_1 and what corresponds to them elsewhere.
        weighting: "balanced": both terms are scaled to the network and the images (default); "paper": the published constants, which are
            for VGG (default with optimizer "paper").
        content_weight: alpha; default 0.03. With "paper" 10 for "sums", 1 otherwise.
        style_weight: beta; default 1. With "paper" 1 for "sums", 1000 for "gram", 3e5 for "mean-std".
        optimizer: "lbfgs", "adam", or "paper": clipped gradient descent with momentum, its stop rule, and its denoising at the end.
        steps: Evaluations of the network for each image, at most; default 200, 300 and 1000.
        start: "content" (default), or "noise" (default with optimizer "paper").
        pooling: "average" in place of max pooling, as in both papers, or "own".
        size: Longer side of the images in pixels; tensors keep their size.
        seed: Seed of the noise.

    Returns:
        An image per content, style and statistic, with losses re-measured in float32 on the image as shown.

    Raises:
        LayerNotFound: Unknown layer.
        BadInput: Unknown statistic, optimizer or start, no steps, weights that are not positive; contents of different sizes.

    Source:
        Xia et al. 2016 (arXiv 1608.04170), PMCI; Gatys et al. 2016; Li et al. 2017 (1701.01036). Deviation: images of different sizes are
        compared per position instead of after resizing.

    Example:
        >>> import convscope as cs, torch
        >>> made = cs.style_transfer(cs.open("textures"), torch.rand(3, 64, 64), torch.rand(3, 48, 80), steps=2)
        >>> made.images.shape
        (1, 1, 1, 3, 64, 64)

    Command line:
        convscope style-transfer textures data/images/heart/0000.png --style data/images/weave/0000.png --size 96 --steps 20
        convscope style-transfer textures data/images/heart/0000.png --style data/images/weave --statistic sums,gram --size 96 --steps 20
    """
    recipe = find_descent_recipe(STYLE_TRANSFER, optimizer, steps=steps, start=start)
    weighting = weighting or ("paper" if optimizer == "paper" else "balanced")
    asked = _statistics(statistic)
    content_reader, style_reader = (scope.inputs.reader(images, size) for images in (content, style))
    contents, styles = content_reader.batch(), list(style_reader)
    repeated = contents.repeat_interleave(len(styles), 0)
    each = [
        _Loss.of(scope, name, content_layer, style_layers, weighting, content_weight, style_weight, pooling).towards(contents, styles)
        for name in asked
    ]
    before = each[0].at_least(each[0].measure(repeated)[0], repeated)
    made = [_made(loss.against(before), recipe, repeated, seed) for loss in each]
    count = len(contents), len(styles)
    *found, histories = zip(*made, strict=True)
    images, style_losses, content_errors, losses = (torch.stack(parts, 1).unflatten(0, count) for parts in found)
    longest = max(one.shape[1] for one in histories)
    history = torch.stack([F.pad(one, (0, longest - one.shape[1]), value=torch.nan) for one in histories], 1)
    return StyleTransfer(
        images=images,
        contents=contents,
        styles=torch.stack([_cut(one, contents.shape[-2], contents.shape[-1]) for one in styles]),
        style_losses=style_losses,
        style_losses_before=before.unflatten(0, count),
        content_errors=content_errors,
        losses=losses,
        history=history.unflatten(0, count),
        by=asked,
        content_layers=tuple(loss.content_layer for loss in each),
        layers=each[0].layers,
        content_names=content_reader.names,
        style_names=style_reader.names,
        skipped=(*content_reader.skipped, *style_reader.skipped),
        manifest={
            "precision": scope.resolve("optimize"),
            "weights": {"weighting": weighting} | {loss.statistic: [loss.alpha, loss.beta] for loss in each},
            "recipe": describe(recipe),
        },
    )


def _statistics(asked: Statistic | Sequence[Statistic]) -> tuple[Statistic, ...]:
    """The statistics to minimize, each once."""
    names = (asked,) if isinstance(asked, str) else tuple(dict.fromkeys(asked))
    if not names or not set(names) <= set(STATISTICS):
        raise BadInput(f"statistic must be sums, gram or mean-std, or a list of these, got {asked!r}")
    return names


def _made(loss: _Loss, recipe: DescentRecipe, contents: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of every item: its image, style losses, content error, weighted terms at the end, and history."""
    title = f"{len(contents)} images by {loss.statistic}"
    size = contents.shape[-2], contents.shape[-1]
    minimized = minimize(loss.scope, "style_transfer", recipe, size, len(contents), loss, seed=seed, content=contents, title=title)
    made, history = minimized.images.float().clamp(0, 1).cpu(), minimized.history
    style_losses, errors = loss.measure(made)
    terms = torch.tensor([list(steps[-1].values()) for steps in history], dtype=torch.float32, device="cpu")
    return made, style_losses, errors, terms, tabulated(history, lambda _, values: sum(values.values()))


@dataclass(frozen=True)
class _Loss:
    """Distances from the contents and from the styles' statistics; item = content times the number of styles + style."""

    scope: Scope
    statistic: str
    content_layer: str
    layers: tuple[str, ...]
    weighting: str
    alpha: float
    beta: float
    pooling: Callable[[], AbstractContextManager[Any]]
    codes: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float32, device="cpu"))
    descriptors: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    before: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float32, device="cpu"))

    @classmethod
    def of(
        cls,
        scope: Scope,
        statistic: str,
        content_layer: str | None,
        style_layers: str | Sequence[str] | None,
        weighting: str,
        content_weight: float | None,
        style_weight: float | None,
        pooling: str,
    ) -> _Loss:
        defaults = PUBLISHED[statistic] if weighting == "paper" else BALANCED
        alpha, beta = (default if given is None else given for given, default in zip((content_weight, style_weight), defaults, strict=True))
        if not all(math.isfinite(weight) and weight >= 0 for weight in (alpha, beta)) or not (alpha or beta):
            raise BadInput(f"content_weight and style_weight must be at least 0, and not both 0; got {alpha} and {beta}")
        layers = find_style_layers(scope.layers, style_layers)
        default = (
            layer_after(scope.layers, style_depths(scope.layers), CONTENT_DEPTH[statistic]) if content_layer is None else content_layer
        )
        (known,) = find_style_layers(scope.layers, default)
        return cls(scope, statistic, known, layers, weighting, alpha, beta, average_pooling if pooling == "average" else nullcontext)

    def towards(self, contents: Tensor, styles: Sequence[Tensor]) -> _Loss:
        """The same, with the contents' codes and the styles' descriptors."""
        with self.scope.session("float32"), torch.no_grad():
            codes = torch.cat(list(self.scope.in_batches(contents, lambda part: self.values(part)[self.content_layer])))
            seen = [self.values(style[None]) for style in styles]
        maps = [torch.stack([measure(each[layer])[0] for each in seen]) for measure in DESCRIPTORS.values() for layer in self.layers]
        count = len(self.layers)
        descriptors = {name: maps[index * count : (index + 1) * count] for index, name in enumerate(DESCRIPTORS)}
        return replace(self, codes=codes, descriptors=descriptors)

    def at_least(self, before: Tensor, contents: Tensor) -> Tensor:
        """Style losses of the items' contents, (n statistic layer), none of them smaller than a trace of that of maps that are zero."""
        items = range(len(contents))
        with self.scope.session("float32"), torch.no_grad():
            nothing = {layer: torch.zeros_like(value) for layer, value in self.values(contents[:1].to(self.scope.device)).items()}
            most = torch.stack([torch.stack(self._style_losses(nothing, name, items), 1) for name in STATISTICS], 1)
        return torch.maximum(before, _LEAST * most.cpu()).clamp(min=1e-30)

    def against(self, before: Tensor) -> _Loss:
        """The same, with the items' style losses before the run, (n statistic layer), of which "balanced" weights make shares."""
        return replace(self, before=before[:, STATISTICS.index(self.statistic)].to(self.scope.device))

    def values(self, images: Tensor) -> dict[str, Tensor]:
        """The maps of the content layer and the style layers, units on axis 1."""
        names = [*dict.fromkeys([self.content_layer, *self.layers])]
        return self.scope.run(images, names, edit=self.pooling(), channels_first=True, resize=True)

    def __call__(self, images: Tensor, *, items: Sequence[int], step: int) -> dict[str, Tensor]:  # noqa: ARG002
        """The weighted terms of the loss: see :class:`~convscope.optimize.descent.Loss`."""
        values = self.values(images)
        own = values[self.content_layer]
        code = self._code(items)
        squares = (own - code).square().flatten(1).sum(1)
        each = torch.stack(self._style_losses(values, self.statistic, items))
        if self.weighting == "balanced":
            content = squares / code.square().flatten(1).sum(1).clamp(min=1e-30)
            return {"content": self.alpha * content, "style": self.beta * (each / self.before[list(items)].mT).mean(0)}
        share = 1 if self.statistic == "sums" else 1 / len(self.layers)
        positions = own[0, 0].numel() if self.statistic == "sums" else 1
        return {"content": self.alpha / positions * (squares / 2), "style": self.beta * share * each.sum(0)}

    def measure(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Of all items' images, in float32: style losses (n statistic layer), content errors (n)."""

        def work(part: Tensor, items: Sequence[int]) -> tuple[Tensor, Tensor]:
            values = self.values(part)
            losses = [torch.stack(self._style_losses(values, name, items), 1) for name in STATISTICS]
            code = self._code(items)
            error = (values[self.content_layer] - code).square().flatten(1).sum(1) / code.square().flatten(1).sum(1)
            return torch.stack(losses, 1).cpu(), error.cpu()

        losses, errors = zip(*in_float32(self.scope, images, work), strict=True)
        return torch.cat(losses), torch.cat(errors)

    def _code(self, items: Sequence[int]) -> Tensor:
        styles = len(self.descriptors[self.statistic][0])
        return self.codes[[item // styles for item in items]]

    def _style_losses(self, values: Mapping[str, Tensor], statistic: str, items: Sequence[int]) -> list[Tensor]:
        known = self.descriptors[statistic]
        columns = [item % len(known[0]) for item in items]
        return [style_loss(statistic, values[layer], own[columns]) for layer, own in zip(self.layers, known, strict=True)]


def _cut(image: Tensor, height: int, width: int) -> Tensor:
    """Central crop of an image (3 h w), resized to the wanted size."""
    scale = max(height / image.shape[-2], width / image.shape[-1])
    size = [max(height, round(scale * image.shape[-2])), max(width, round(scale * image.shape[-1]))]
    larger = F.interpolate(image[None].cpu(), size=size, mode="bilinear", antialias=True)[0]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return larger[:, top : top + height, left : left + width].clamp(0, 1)
