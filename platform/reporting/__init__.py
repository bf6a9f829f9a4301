"""Plots and the HTML page of a sweep, made from its folder alone."""
