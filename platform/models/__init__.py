"""The ResNets by name, their costs, and trained-model files."""
