"""The read side of a scan: everything here reads a survey's Parquet files and never needs torch."""
