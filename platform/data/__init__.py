"""A data set is two uint8 tables and their labels: formats, cache, splits, download, generated images."""
