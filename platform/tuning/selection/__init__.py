"""The confirmed winner of a sweep, and the record of test-set readings."""
