"""Results of made-up numbers, for views to be tested without a network."""

from __future__ import annotations

import numpy as np

from convscope.results.deconvnet import Deconvnet
from convscope.results.feature_visualization import FeatureVisualization
from convscope.results.hypothesis import Hypothesis
from convscope.results.spectrum import Spectrum


def pattern(unit: int, size: int = 64) -> np.ndarray:
    """A picture (rgb h w) in [0,1] that differs from unit to unit."""
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(2 * np.pi * (x * (unit % 5 + 1) + y * (unit % 3 + channel)) + unit) for channel in range(3)]
    return (np.stack(waves) / 2 + 0.5).astype(np.float32)


def feature_visualization(count: int = 6, size: int = 64) -> FeatureVisualization:
    status = tuple("stuck" if unit % 6 == 4 else "rescued" if unit % 6 == 2 else "converged" for unit in range(count))
    return FeatureVisualization(
        images=np.stack([pattern(unit, size) for unit in range(count)]),
        scores=np.arange(count) * 1.25 - 1,
        before_relu=np.arange(count) * 1.25 - 1,
        after_relu=np.maximum(np.arange(count) * 1.25 - 1, 0),
        history=np.zeros((count, 3), dtype=np.float32),
        layer="features.12",
        units=tuple(10 + unit for unit in range(count)),
        unit_names=tuple("great white shark, man-eater" if unit == 1 else "" for unit in range(count)),
        status=status,
        reasons=tuple("zero gradient at every start" if each == "stuck" else "" for each in status),
        manifest={"technique": "feature_visualization", "network": "squeezenet1_0", "parameters": {"seed": 0, "recipe": "crops"}},
    )


def deconvnet(count: int = 1, units: int = 2, size: int = 24) -> Deconvnet:
    draws = np.random.default_rng(2)
    return Deconvnet(
        projection=draws.normal(size=(count, units, 3, size, size)).astype(np.float32),
        values=draws.random((count, units)),
        positions=np.zeros((count, units, 2), np.int64),
        boxes=np.tile(np.array([0, 0, 7, 7]), (count, units, 1)),
        images=np.stack([pattern(image, size) for image in range(count)]),
        layer="features.12",
        units=tuple(range(units)),
        unit_names=("",) * units,
        names=tuple(f"photo_{image}.jpg" for image in range(count)),
        manifest={"network": "vgg16_bn"},
    )


def spectrum(count: int = 3, channels: int = 512, *, labels: bool = False, pictures: bool = False) -> Spectrum:
    pictured = (7, 8, 9, channels // 2) if pictures else ()
    draws = np.random.default_rng(0)
    values = draws.gamma(0.6, 0.08, (count, channels)).astype(np.float32)
    values[:, [7, 8, 9, channels // 2]] += np.float32([0.9, 0.7, 0.5, 0.8])
    return Spectrum(
        values=values,
        maxima=values * 9,
        active=np.clip(values, 0, 1),
        layer="features.42",
        names=tuple(f"photo_{index}.jpg" for index in range(count)),
        unit_names=tuple(f"class name {index}" for index in range(channels)) if labels else (),
        reduce="mean",
        pictures=np.stack([pattern(unit, 96) for unit in pictured]) if pictures else np.zeros((0, 3, 96, 96)),
        pictured=pictured,
        manifest={"network": "vgg16_bn"},
    )


def hypothesis(channels: int = 256, better: tuple[int, ...] = (3, 200, 17)) -> Hypothesis:
    draws = np.random.default_rng(1)
    concept, background = draws.gamma(2, 0.1, (24, channels)), draws.gamma(2, 0.1, (60, channels))
    concept[:, [50, 3, 200, 17]] += (0.25, 0.45, 0.4, 0.35)
    concept[[2, 11], 50] = 0.02
    auc = np.stack([(concept[:, None, unit] > background[None, :, unit]).mean() for unit in range(channels)])
    return Hypothesis(
        concept=concept,
        background=background,
        auc=auc,
        effect=(concept.mean(0) - background.mean(0)) / background.std(0),
        p=np.full(channels, 0.001),
        p_corrected=np.full(channels, 0.0128),
        ranks=1 + (concept > concept[:, 50:51]).sum(1),
        layer="features.42",
        unit=50,
        rank=1 + int((auc > auc[50]).sum()),
        better=better,
        against=("bird_2.jpg", "bird_11.jpg"),
        concept_names=tuple(f"bird_{index}.jpg" for index in range(24)),
        background_names=tuple(f"other_{index}.jpg" for index in range(60)),
        unit_names=(),
        verdict="Unit 50 answers to the concept (AUC 0.84), but three other units of the layer answer better.",
        manifest={"network": "vgg16_bn"},
    )
