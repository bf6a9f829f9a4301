"""Convert PyTorch networks to ncnn with pnnx, and compare the logits of both."""
