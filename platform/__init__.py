"""Distributed hyperparameter sweeps: Ray trains, MLflow records, ncnn serves.

The package shares its name with the standard library's `platform`, so it also is that
module: every `import platform` in torch, ray or uuid finds here what it expects.
"""

import os
import sys
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING, Any

_STDLIB = os.path.join(os.path.dirname(os.__file__), "platform.py")
SourceFileLoader(__name__, _STDLIB).exec_module(sys.modules[__name__])

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
