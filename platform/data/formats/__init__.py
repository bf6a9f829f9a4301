"""Dataset sources: the CIFAR-10 archive, Parquet files, class folders and generated images."""
