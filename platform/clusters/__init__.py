"""A Ray cluster over ssh: its file, the checks before it starts, the sweep that runs on it, its results."""
