"""A training run in pure PyTorch: configuration, loop, augmentation, schedules, checkpoints, DDP."""
