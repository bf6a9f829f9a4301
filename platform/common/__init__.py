"""Errors, validated records, files, text and command lines: used by every other package."""
