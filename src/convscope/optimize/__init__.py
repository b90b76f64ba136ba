"""Optimization of images: parameterizations, random transforms, objectives, recipes, minimizers, and the two loops that use them."""

from convscope.optimize import objectives as objectives
