"""Incremental inference: after a local change of the image, only the positions that depend on it are computed again, exactly."""
