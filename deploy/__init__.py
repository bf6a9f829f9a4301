"""Export trained networks to ncnn, build the C++ engine, and benchmark it."""
