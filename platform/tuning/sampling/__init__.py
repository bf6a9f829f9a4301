"""Samplers, schedulers, objectives and warm start of a search."""
