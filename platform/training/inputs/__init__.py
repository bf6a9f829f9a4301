"""Batches: augmentation on the device, images from files, and the steps of an epoch."""
