"""Distributed hyperparameter sweeps: Ray trains, MLflow records, ncnn serves.

The package shares its name with the standard library's `platform`, so it also is that
module: every `import platform` in torch, ray or uuid finds here what it expects.

Foreign interpreters run this file too (build tools, start-up hooks): no further import, no
third-party import, no other name, and no submodule named like an attribute of the standard
module. `_startup.py` makes the package win from other directories once it is installed.
"""

import os
import sys
from importlib.machinery import SourceFileLoader

_STDLIB = os.path.join(os.path.dirname(os.__file__), "platform.py")
SourceFileLoader(__name__, _STDLIB).exec_module(sys.modules[__name__])

TYPE_CHECKING = False  # what `typing` holds, without importing it
if TYPE_CHECKING:
    from typing import Any

    def __getattr__(name: str) -> Any: ...
