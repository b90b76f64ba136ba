"""The waist: opening a network, its layers, their values. Everything that runs a network goes through :class:`Scope`."""

from convscope.scope.inputs import Image, Images, Inputs
from convscope.scope.layers import OUTPUT, Layer, Layers
from convscope.scope.scope import Scope, Units

__all__ = ["OUTPUT", "Image", "Images", "Inputs", "Layer", "Layers", "Scope", "Units"]
