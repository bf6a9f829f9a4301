"""Evaluation of a network on a split: loss, accuracy, confusion matrix."""
