"""The scan of a data set: finds and decodes images, measures them in shards, on one machine or a Ray cluster, and writes a survey."""
