"""From a trained network to a measured one: export to ncnn, the C++ engine, its benchmark."""
