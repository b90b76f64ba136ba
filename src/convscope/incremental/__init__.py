"""Incremental inference: after a local change of the image, only what it reaches is computed again, exactly."""
