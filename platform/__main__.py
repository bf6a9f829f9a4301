"""Print the platform string for `python -m platform`, as the standard library's module does."""

import sys

import platform

terse = "terse" in sys.argv or "--terse" in sys.argv
aliased = "nonaliased" not in sys.argv and "--nonaliased" not in sys.argv
print(platform.platform(aliased, terse))
