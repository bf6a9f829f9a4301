"""The choice of the champion, its registry alias, and the record of test-set readings."""
