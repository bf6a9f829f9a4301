"""Decoding, resizing and statistics of single images."""
