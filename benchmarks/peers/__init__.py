"""Other CPU runtimes beside ncnn: the same network, weights, precision and threads, taking turns."""
