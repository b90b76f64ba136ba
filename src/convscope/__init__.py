"""convscope: a microscope for convolutional networks.

Public names are listed once, in `__init__.pyi`, and are loaded on first use, so that importing convscope loads neither torch nor
matplotlib.

>>> import convscope as cs
>>> scope = cs.open("textures")
>>> scope.layers["output"].channels >= 24
True
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
