"""Build the C++ engine and ncnn on first use, and run the engine's programs."""
