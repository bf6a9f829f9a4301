"""Diagnosis of a run from its learning curves and its network's gradients and activations."""
