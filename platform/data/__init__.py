"""Datasets: file formats, download, cache, train/validation split, normalization and generated images."""
