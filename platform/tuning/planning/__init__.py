"""The plan of a sweep and its time estimate, computed before the first trial."""
