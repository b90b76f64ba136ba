"""How the units of a layer are arranged: the order of a dendrogram and a map by t-SNE, both by log mean activations over the images."""

from __future__ import annotations

import warnings

import numpy as np

_MOST = 4096
"""Layers of more units are left in the order of their numbers."""
_SEED = 0


def arrange(direction: np.ndarray) -> np.ndarray:
    """Place in the order of similarity, and x and y on a map in [0,1], NaN for units that never vary, (unit 3).

    Args:
        direction: Centred activations of length 1 for each unit, (n unit); zero for a unit that never varies.
    """
    count = direction.shape[1]
    alive = np.flatnonzero(direction.any(0))
    found = np.full((count, 3), np.nan)
    found[:, 0] = np.arange(count)
    if 3 <= len(alive) <= _MOST:
        vectors = np.ascontiguousarray(direction[:, alive].T.astype(np.float64))
        silent = np.setdiff1d(np.arange(count), alive)
        found[np.concatenate([alive[_leaves(vectors)], silent]), 0] = np.arange(count)
        found[alive, 1:] = _map(vectors)
    return found


def _leaves(vectors: np.ndarray) -> np.ndarray:
    """The leaves of the average-linkage dendrogram of correlation distance, in its order."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    likeness = np.clip(vectors @ vectors.T, -1, 1)
    distance = (1 - likeness)[np.triu_indices(len(vectors), 1)]
    return leaves_list(linkage(distance, "average"))


def _map(vectors: np.ndarray) -> np.ndarray:
    """Places on a plane, each axis in [0,1]."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # pyright: ignore[reportMissingTypeStubs]

    if len(vectors) < 8:
        return np.stack([np.linspace(0, 1, len(vectors)), np.full(len(vectors), 0.5)], 1)
    with (
        warnings.catch_warnings(),
        threadpool_limits(1),
    ):  # `n_jobs` leaves some loops out: beside other work their threads wait for each other
        warnings.simplefilter("ignore")
        perplexity = min(20.0, (len(vectors) - 1) / 3)
        places = TSNE(2, perplexity=perplexity, init="pca", random_state=_SEED, max_iter=500, n_jobs=1).fit_transform(vectors)
    low, high = places.min(0), places.max(0)
    return (places - low) / np.where(high > low, high - low, 1)
