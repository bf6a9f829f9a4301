"""Files that the C++ engine reads: model folders, images and reference logits."""
