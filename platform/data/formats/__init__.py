"""The sources of a dataset: CIFAR-10 archives, Parquet files, class folders, generated images."""
