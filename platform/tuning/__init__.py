"""Stages of a sweep: planning, search by Ray Tune, confirmation and final run by Ray Train, selection."""
