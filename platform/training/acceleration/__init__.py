"""What makes a training step fast: precision, CUDA graphs, torch.compile; and its FLOP utilization."""
