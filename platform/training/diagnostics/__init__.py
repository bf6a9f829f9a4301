"""Findings about a run, from its learning curves and from inside its network."""
