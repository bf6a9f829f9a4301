"""Decoding, resizing, cropping and statistics of images."""
