"""Loss, accuracy and confusion of a network on a split."""
