"""Benchmarks; each runs in a checkout as `python -m benchmarks.NAME`."""

from pathlib import Path

import platform

# On some hosts a .pth file imports the standard library's `platform` before this checkout is on the path.
if not hasattr(platform, "__path__"):
    platform.__path__ = [str(Path(__file__).parents[1] / "platform")]
