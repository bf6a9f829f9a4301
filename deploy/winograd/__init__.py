"""Choose between Winograd and direct convolution for each layer, by rule or by measurement."""
