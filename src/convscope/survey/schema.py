"""The files of a survey and their columns: what a scan writes and everything else reads.

A survey is a folder (or an object store's prefix) of Parquet files, readable by DuckDB, pandas and Polars without this project:

- ``images.parquet``: the images that were read, a row each, in the order of `image`.
- ``skipped.parquet``: those that were not, with the reason.
- ``layers.parquet``: the layers that were scanned, in call order.
- ``channels.parquet``: a row for each channel of each layer, over all images.
- ``classes.parquet``: a row for each channel and label.
- ``top.parquet``: the images that excite each channel most, over all images (`label` null) and for each label.
- ``values/00000.parquet``, ...: what each image does to each layer, a row for each, a row group for each layer; none with `summary_only`.
- ``manifest.json``: the network, its inputs, parameters and versions. Written last: a survey without it is not finished.
"""

from __future__ import annotations

import pyarrow as pa

VERSION = 1
MANIFEST = "manifest.json"
VALUES = "values"
SCHEMAS: dict[str, pa.Schema] = {
    "images": pa.schema(
        [
            pa.field("image", pa.int64()),  # its number in the order of the source; numbers of skipped images are not given again
            pa.field("name", pa.string()),  # below the folder, inside the tar shard, or as listed
            pa.field("path", pa.string()),  # where it is read from; TAR::MEMBER inside a tar shard
            pa.field("label", pa.string()),  # null: none
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
            pa.field("height", pa.int32()),  # of its map; 1 x 1 for the output
            pa.field("width", pa.int32()),
            pa.field("rectified", pa.bool_()),  # whether the values are those after the layer's ReLU
            pa.field("field_y0", pa.list_(pa.int32())),  # first pixel row that row y of the map sees, cut to the picture, (height)
            pa.field("field_y1", pa.list_(pa.int32())),  # one beyond the last
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
            pa.field("mean", pa.float64()),  # over images, of the mean over the map
            pa.field("sd", pa.float64()),  # of the same, population
            pa.field("peak_mean", pa.float64()),  # over images, of the maximum over the map
            pa.field("peak_sd", pa.float64()),
            pa.field("maximum", pa.float32()),  # over images and positions
            pa.field("positive", pa.float64()),  # fraction of positions > 0, over images and positions
            pa.field("bound", pa.float32()),  # nothing that can be fed to the network makes it exceed this; null: not known
            *(pa.field(f"q{name}", pa.float32()) for name in ("01", "05", "25", "50", "75", "95", "99", "995")),  # of activations
            pa.field("sketch", pa.binary()),  # the mergeable quantile sketch that they were read from
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
            pa.field("votes", pa.int64()),  # images of this label that have the channel among their strongest, see the manifest
        ]
    ),
    "top": pa.schema(
        [
            pa.field("layer", pa.string()),
            pa.field("channel", pa.int32()),
            pa.field("label", pa.string()),  # null: over all images
            pa.field("rank", pa.int32()),  # from 0; larger value first, then smaller image
            pa.field("image", pa.int64()),
            pa.field("value", pa.float32()),  # the maximum over the map
            pa.field("y", pa.int32()),  # where it is; of equals the first in reading order
            pa.field("x", pa.int32()),
        ]
    ),
    "values": pa.schema(
        [
            pa.field("image", pa.int64()),
            pa.field("layer", pa.string()),
            pa.field("maximum", pa.list_(pa.float32())),  # (channels)
            pa.field("mean", pa.list_(pa.float32())),
            pa.field("y", pa.list_(pa.int32())),  # where the maximum is
            pa.field("x", pa.list_(pa.int32())),
        ]
    ),
}
"""{file: columns}. Rows are sorted by their leading columns: layer in call order, channel, label (null first), rank or image."""
MANIFEST_KEYS = {
    "schema": "VERSION",
    "technique": "scan",
    "images": "number of images read",
    "skipped": "number of images skipped",
    "shards": "number of shards",
    "summary_only": "whether values/ was left out",
    "top": "images kept in top.parquet for each channel",
    "votes_per_image": "how many of its strongest channels, by mean, an image votes for in each layer",
    "layers": "names, in call order; the last is `output`, whose maximum and mean are both the value that the network gives",
    "labels": "the labels found, sorted",
    "inputs": "size (height, width), mean, std, interpolation, crop, classes: as Inputs",
}
"""What manifest.json holds beside the network, parameters and versions of every result."""
