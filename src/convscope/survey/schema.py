"""The format of a survey: the files that a scan writes, and their columns.

A survey is a folder (or an object store's prefix) of Parquet files, readable by DuckDB, pandas and Polars without this project:

- ``images.parquet``: a row for each image that was read, in the order of `image`.
- ``skipped.parquet``: a row for each image that was skipped, with the reason.
- ``layers.parquet``: a row for each scanned layer, in call order.
- ``channels.parquet``: a row for each channel of each layer: statistics over all images.
- ``classes.parquet``: a row for each channel and label: statistics over the images with that label.
- ``top.parquet``: the images with the largest activation of each channel, over all images (`label` null) and for each label.
  Both leave out labels that have a single image where ``values/`` is there: the image's row in it says the same. :class:`~convscope.Survey`
  adds them to both tables, and to the views of its queries.
- ``values/00000.parquet``, ...: a row for each image and layer, a row group for each layer; none with `summary_only`.
- ``manifest.json``: written last: a survey without it is not finished.

Beside the network, parameters and versions of every result, the manifest has:

- ``schema``: :data:`VERSION`. ``technique``: "scan".
- ``images``, ``skipped``, ``shards``: their numbers.
- ``summary_only``: whether `values/` was left out.
- ``top``: images listed in `top.parquet` for each channel.
- ``votes_per_image``: in each layer, an image votes for this many channels of largest mean.
- ``layers``: names in call order; the last is "output", whose maximum and mean are both the network's output.
- ``labels``: the labels of the images, sorted.
- ``inputs``: size (height, width), mean, std, interpolation, crop and class names, as in :class:`~convscope.Inputs`.
- ``plan``: everything that the values depend on, for resuming.

Two kinds of names are kept apart: a `label` belongs to an image (its folder, say), a class name to a unit of "output".
"""

from __future__ import annotations

import pyarrow as pa

VERSION = 3
NULLABLE = {"images": ("label", "split", "domain"), "channels": ("bound",), "top": ("label",)}
"""Columns of the tables whose values may be missing."""
MANIFEST = "manifest.json"
VALUES = "values"
SCHEMAS: dict[str, pa.Schema] = {
    "images": pa.schema(
        [
            pa.field("image", pa.int64()),  # its number in the order of the source; skipped images have numbers, too
            pa.field("name", pa.string()),  # path relative to the folder, inside the tar shard, or as listed
            pa.field("path", pa.string()),  # full path; TAR::MEMBER inside a tar shard
            pa.field("label", pa.string()),  # null: no label
            pa.field("split", pa.string()),
            pa.field("domain", pa.string()),
            pa.field("height", pa.int32()),  # of the file, after EXIF orientation
            pa.field("width", pa.int32()),
            pa.field("shard", pa.int32()),
        ]
    ),
    "skipped": pa.schema([pa.field("image", pa.int64()), *(pa.field(name, pa.string()) for name in ("name", "path", "reason"))]),
    "layers": pa.schema(
        [
            pa.field("layer", pa.string()),
            pa.field("position", pa.int32()),  # in call order
            pa.field("kind", pa.string()),
            pa.field("channels", pa.int32()),
            pa.field("height", pa.int32()),  # of the feature map; 1 x 1 for the output
            pa.field("width", pa.int32()),
            pa.field("rectified", pa.bool_()),  # whether the values are those after a ReLU or another activation function
            pa.field("field_y0", pa.list_(pa.int32())),  # receptive field of map row y: first pixel row, cut to the image, (height)
            pa.field("field_y1", pa.list_(pa.int32())),  # one beyond its last pixel row
            pa.field("field_x0", pa.list_(pa.int32())),  # the same for columns, (width)
            pa.field("field_x1", pa.list_(pa.int32())),
        ]
    ),
    "channels": pa.schema(
        [
            pa.field("layer", pa.string()),
            pa.field("channel", pa.int32()),
            pa.field("images", pa.int64()),
            pa.field("positions", pa.int64()),  # over all images
            pa.field("mean", pa.float64()),  # over images: of the mean over the map
            pa.field("sd", pa.float64()),  # population standard deviation
            pa.field("peak_mean", pa.float64()),  # over images: of the maximum over the map
            pa.field("peak_sd", pa.float64()),
            pa.field("maximum", pa.float32()),  # over images and positions
            pa.field("positive", pa.float64()),  # share of positions > 0, over images and positions
            pa.field("bound", pa.float32()),  # upper bound for any image in [0,1], by interval arithmetic; null: not known
            *(pa.field(f"q{name}", pa.float32()) for name in ("01", "05", "25", "50", "75", "95", "99", "995")),  # quantiles of activations
            pa.field("bins", pa.list_(pa.int32())),  # histogram of sampled activations: its non-empty bins, see scanner/histograms.py
            pa.field("counts", pa.list_(pa.int64())),  # number of samples in each
        ]
    ),
    "classes": pa.schema(
        [
            pa.field("layer", pa.string()),
            pa.field("channel", pa.int32()),
            pa.field("label", pa.string()),
            pa.field("images", pa.int64()),
            pa.field("mean", pa.float64()),
            pa.field("sd", pa.float64()),
            pa.field("peak_mean", pa.float64()),
            pa.field("peak_sd", pa.float64()),
            pa.field("votes", pa.int64()),  # images with this label that vote for the channel, see `votes_per_image`
        ]
    ),
    "top": pa.schema(
        [
            pa.field("layer", pa.string()),
            pa.field("channel", pa.int32()),
            pa.field("label", pa.string()),  # null: over all images
            pa.field("rank", pa.int32()),  # from 0; larger value first, then smaller image number
            pa.field("image", pa.int64()),
            pa.field("value", pa.float32()),  # maximum over the map
            pa.field("y", pa.int32()),  # position of the maximum; of equals the first in reading order
            pa.field("x", pa.int32()),
        ]
    ),
    "values": pa.schema(
        [
            pa.field("image", pa.int64()),
            pa.field("layer", pa.string()),
            pa.field("maximum", pa.list_(pa.float32())),  # (channels)
            pa.field("mean", pa.list_(pa.float32())),
            pa.field("y", pa.list_(pa.int32())),  # position of the maximum
            pa.field("x", pa.list_(pa.int32())),
        ]
    ),
}
"""{file: columns}. Rows are sorted by their leading columns: layer in call order, channel, label (null first), rank or image."""
