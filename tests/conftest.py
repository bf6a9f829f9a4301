"""What every test needs: the package named `platform`, also under a bare `pytest`."""

from pathlib import Path

import platform

# Bare `pytest` imports the standard library's module before this folder is on the path.
if not hasattr(platform, "__path__"):
    platform.__path__ = [str(Path(__file__).parents[1] / "platform")]
