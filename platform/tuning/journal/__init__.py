"""The write-ahead log of a sweep, and what is replayed from it."""
