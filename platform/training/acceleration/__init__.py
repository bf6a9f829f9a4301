"""Faster training steps (precision, CUDA graphs) and model FLOP utilization."""
