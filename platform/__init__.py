"""Distributed hyperparameter sweeps: Ray trains, MLflow records, ncnn serves.

The package has the name of the standard library's `platform` module, so it also provides that
module's attributes: `import platform` in torch, ray or uuid works as usual.

Build tools and start-up hooks also run this file. Do not add imports or names here, and do not
name a submodule like an attribute of the standard module. `_startup.py` gives the installed
package precedence over the standard module in other directories.
"""

import os
import sys
from importlib.machinery import SourceFileLoader

_STDLIB = os.path.join(os.path.dirname(os.__file__), "platform.py")
SourceFileLoader(__name__, _STDLIB).exec_module(sys.modules[__name__])

TYPE_CHECKING = False  # as in `typing`, without importing it
if TYPE_CHECKING:
    from typing import Any

    def __getattr__(name: str) -> Any: ...
