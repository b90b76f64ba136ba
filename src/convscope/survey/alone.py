"""The statistics of labels that have a single image: `classes` and `top` leave them out where `values/` says the same, and these add them.

With a thousand labels of one image each, they would be three copies of `values/`.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from convscope.survey.schema import SCHEMAS
from convscope.survey.votes import votes_for

_ALONE = """with one as (select image, label from images where label in (select label from images group by label having count(*) = 1)),
own as (select label, v.* from "values" v join one using (image))"""
_VOTES = "(row_number() over (partition by image, layer order by mean desc, channel) <= {votes})::bigint as votes"
CLASSES = (
    f"select * from {{table}} union all by name ({_ALONE} select layer, channel, label, 1::bigint as images, mean::double as mean, "
    f"0::double as sd, maximum::double as peak_mean, 0::double as peak_sd, {_VOTES} from own)"
)
"""The view `classes` with them, as SQL: `table` is the file, `votes` the channels that an image votes for."""
TOP = (
    f"select * from {{table}} union all by name ({_ALONE} "
    "select layer, channel, label, 0::integer as rank, image, maximum as value, y, x from own)"
)
"""The view `top` with them."""


def class_rows(layer: str, labels: list[str], maximum: np.ndarray, mean: np.ndarray, votes: int) -> pa.Table:
    """Rows of `classes`, by channel, then label.

    Args:
        layer: The layer.
        labels: Labels with one image each.
        maximum, mean: Of their images, (label channel).
        votes: Number of channels that an image votes for.
    """
    count, channels = mean.shape
    zeros = np.zeros(mean.size)
    columns = {
        "layer": [layer] * mean.size,
        "channel": np.repeat(np.arange(channels, dtype=np.int32), count),
        "label": pa.chunked_array([pa.array(labels, pa.string())] * channels, pa.string()),
        "images": np.ones(mean.size, np.int64),
        "mean": mean.T.ravel().astype(np.float64),
        "sd": zeros,
        "peak_mean": maximum.T.ravel().astype(np.float64),
        "peak_sd": zeros,
        "votes": votes_for(mean, votes).T.ravel().astype(np.int64),
    }
    return pa.table(columns, schema=SCHEMAS["classes"])


def top_rows(layer: str, label: str, image: int, maximum: np.ndarray, place: np.ndarray) -> pa.Table:
    """Rows of `top` of a label, by channel.

    Args:
        layer: The layer.
        label: A label with one image.
        image: This image's number.
        maximum, place: Of each channel on it, (channel) and (channel 2).
    """
    count = len(maximum)
    columns = {
        "layer": [layer] * count,
        "channel": np.arange(count, dtype=np.int32),
        "label": [label] * count,
        "rank": np.zeros(count, np.int32),
        "image": np.full(count, image, np.int64),
        "value": maximum,
        "y": place[:, 0],
        "x": place[:, 1],
    }
    return pa.table(columns, schema=SCHEMAS["top"])
