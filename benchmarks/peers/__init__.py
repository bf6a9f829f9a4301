"""Compare the engine with other CPU runtimes: same network, weights, precision and threads, interleaved."""
