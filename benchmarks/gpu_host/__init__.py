"""Everything worth measuring on a GPU host, in one command: `python -m benchmarks.gpu_host`."""
