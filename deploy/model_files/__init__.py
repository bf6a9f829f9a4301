"""The files that the C++ engine reads: model folders, images and reference logits."""
