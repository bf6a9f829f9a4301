"""Faster training steps (precision, CUDA graphs, torch.compile) and model FLOP utilization."""
