"""The write-ahead log of a sweep, and the state replayed from it."""
