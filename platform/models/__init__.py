"""The ResNets, by name, and the file that holds a trained one."""
