"""Search-space files: parsing, checking, distributions, and the sweep that they specify."""
