"""Choose the kernels of a network: Winograd or direct convolution for each layer, and ncnn or oneDNN."""
