"""The stages of a sweep: planning, search with Ray Tune, confirmation, final run with Ray Train, selection."""
