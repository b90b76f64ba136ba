"""convscope: a microscope for convolutional networks.

>>> import convscope as cs
>>> scope = cs.open("textures")
>>> scope.layers["output"].channels >= 24
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convscope.errors import ConvscopeError as ConvscopeError
    from convscope.ops.codes import FeatureMap as FeatureMap
    from convscope.ops.codes import Purposeful as Purposeful
    from convscope.ops.codes import Reallocate as Reallocate
    from convscope.pipeline.export import detector_module as detector_module
    from convscope.pipeline.export import detector_network as detector_network
    from convscope.pipeline.export import detector_onnx as detector_onnx
    from convscope.pipeline.gallery import gallery as gallery
    from convscope.pipeline.redo import redo as redo
    from convscope.pipeline.scan.scan import scan as scan
    from convscope.scope import Inputs as Inputs
    from convscope.scope import Scope as Scope
    from convscope.store import load as load
    from convscope.survey import Survey as Survey
    from convscope.survey import read_survey as read_survey
    from convscope.survey.activation_sums import ActivationSums as ActivationSums
    from convscope.survey.activation_sums import activation_sums as activation_sums
    from convscope.survey.class_maps import ClassMaps as ClassMaps
    from convscope.survey.class_maps import class_maps as class_maps
    from convscope.survey.class_profile import ClassProfile as ClassProfile
    from convscope.survey.class_profile import class_profile as class_profile
    from convscope.survey.detector import Detector as Detector
    from convscope.survey.detector import detector as detector
    from convscope.survey.exemplars import Exemplars as Exemplars
    from convscope.survey.exemplars import exemplars as exemplars
    from convscope.survey.filter_health import FilterHealth as FilterHealth
    from convscope.survey.filter_health import filter_health as filter_health
    from convscope.techniques.activation_grid import ActivationGrid as ActivationGrid
    from convscope.techniques.activation_grid import activation_grid as activation_grid
    from convscope.techniques.deconvnet import Deconvnet as Deconvnet
    from convscope.techniques.deconvnet import deconvnet as deconvnet
    from convscope.techniques.feature_visualization import FeatureVisualization as FeatureVisualization
    from convscope.techniques.feature_visualization import feature_visualization as feature_visualization
    from convscope.techniques.hypothesis import Hypothesis as Hypothesis
    from convscope.techniques.hypothesis import hypothesis as hypothesis
    from convscope.techniques.inversion import Inversion as Inversion
    from convscope.techniques.inversion import inversion as inversion
    from convscope.techniques.map_overlay import MapOverlay as MapOverlay
    from convscope.techniques.map_overlay import map_overlay as map_overlay
    from convscope.techniques.occlusion import Occlusion as Occlusion
    from convscope.techniques.occlusion import occlusion as occlusion
    from convscope.techniques.receptive_field import ReceptiveField as ReceptiveField
    from convscope.techniques.receptive_field import receptive_field as receptive_field
    from convscope.techniques.spectrum import Spectrum as Spectrum
    from convscope.techniques.spectrum import spectrum as spectrum
    from convscope.techniques.style_similarity import StyleSimilarity as StyleSimilarity
    from convscope.techniques.style_similarity import style_similarity as style_similarity
    from convscope.techniques.style_transfer import StyleTransfer as StyleTransfer
    from convscope.techniques.style_transfer import style_transfer as style_transfer
    from convscope.techniques.weight_grid import WeightGrid as WeightGrid
    from convscope.techniques.weight_grid import weight_grid as weight_grid
    from convscope.zoo import open as open

__version__ = "0.1.0"

_HOMES = {
    "ActivationGrid": "techniques.activation_grid",
    "ConvscopeError": "errors",
    "Deconvnet": "techniques.deconvnet",
    "FeatureMap": "ops.codes",
    "FeatureVisualization": "techniques.feature_visualization",
    "Hypothesis": "techniques.hypothesis",
    "Inputs": "scope",
    "Inversion": "techniques.inversion",
    "Purposeful": "ops.codes",
    "Reallocate": "ops.codes",
    "ReceptiveField": "techniques.receptive_field",
    "MapOverlay": "techniques.map_overlay",
    "Occlusion": "techniques.occlusion",
    "Scope": "scope",
    "Spectrum": "techniques.spectrum",
    "StyleSimilarity": "techniques.style_similarity",
    "StyleTransfer": "techniques.style_transfer",
    "deconvnet": "techniques.deconvnet",
    "WeightGrid": "techniques.weight_grid",
    "activation_grid": "techniques.activation_grid",
    "feature_visualization": "techniques.feature_visualization",
    "gallery": "pipeline.gallery",
    "hypothesis": "techniques.hypothesis",
    "inversion": "techniques.inversion",
    "load": "store",
    "map_overlay": "techniques.map_overlay",
    "objectives": "objectives",
    "occlusion": "techniques.occlusion",
    "open": "zoo",
    "receptive_field": "techniques.receptive_field",
    "recipes": "recipes",
    "redo": "pipeline.redo",
    "scan": "pipeline.scan.scan",
    "spectrum": "techniques.spectrum",
    "style_similarity": "techniques.style_similarity",
    "style_transfer": "techniques.style_transfer",
    "weight_grid": "techniques.weight_grid",
    "ActivationSums": "survey.activation_sums",
    "ClassMaps": "survey.class_maps",
    "ClassProfile": "survey.class_profile",
    "Detector": "survey.detector",
    "Exemplars": "survey.exemplars",
    "FilterHealth": "survey.filter_health",
    "Survey": "survey",
    "activation_sums": "survey.activation_sums",
    "class_maps": "survey.class_maps",
    "class_profile": "survey.class_profile",
    "detector": "survey.detector",
    "detector_module": "pipeline.export",
    "detector_network": "pipeline.export",
    "detector_onnx": "pipeline.export",
    "exemplars": "survey.exemplars",
    "filter_health": "survey.filter_health",
    "read_survey": "survey",
}
"""Where each public name lives. Names resolve on first use, so that importing convscope loads neither torch nor matplotlib."""

__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'convscope' has no attribute {name!r}")
    module = importlib.import_module(f"convscope.{_HOMES[name]}")
    value = module if _HOMES[name] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
