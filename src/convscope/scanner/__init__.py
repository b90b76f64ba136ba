"""The scan of a data set: sources, decoders, shards, their statistics and files, on one machine or a Ray cluster."""
