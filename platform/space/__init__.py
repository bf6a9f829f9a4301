"""Search-space files: parsing, validation, distributions, and the sweep specification."""
