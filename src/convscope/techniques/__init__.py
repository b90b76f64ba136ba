"""One file a technique: its result, its function, its source. The file's name is the technique's name everywhere."""
