"""One file per technique, with the function under `@technique`; its result is in `results/` under the same name.

Two files are helpers: `fills` and `style_layers`.
"""
