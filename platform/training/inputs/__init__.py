"""Training and evaluation batches: augmentation on the device, image files, and the step budget."""
