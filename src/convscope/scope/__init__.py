"""A network, its layers and their activations. Everything that runs a network goes through :class:`Scope`."""

from convscope.names import OUTPUT, Units
from convscope.scope.inputs import Image, Images, Inputs
from convscope.scope.layers import Layer, Layers
from convscope.scope.scope import Scope

__all__ = ["OUTPUT", "Image", "Images", "Inputs", "Layer", "Layers", "Scope", "Units"]
