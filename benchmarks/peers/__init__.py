"""Compare ncnn with other CPU runtimes: same network, weights, precision and threads, interleaved."""
