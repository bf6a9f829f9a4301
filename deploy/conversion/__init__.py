"""PyTorch to ncnn: tracing, pnnx, and the comparison of both networks' logits."""
