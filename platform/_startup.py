"""Make `import platform` find the installed package from any directory.

The standard library precedes site-packages on `sys.path`, so `import platform` would find the standard
module. Wheels and editable installs contain this file as the top-level module `_sweep_platform_startup`,
which `startup.pth` imports when the interpreter starts; setuptools overrides `distutils` in the same way. The
finder handles this one name only, and the hook imports only modules that are already loaded.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder

TYPE_CHECKING = False  # as in `typing`, whose import would take ten milliseconds in every interpreter
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


class PackageBeforeStandardLibrary:
    """A meta-path finder that searches for `platform` on `sys.path` without the standard library's folder."""

    @staticmethod
    def find_spec(
        name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Return the package's spec; None for other names and for a missing package."""
        if name != "platform":
            return None
        standard_library = os.path.dirname(os.__file__)
        spec = PathFinder.find_spec(name, [entry for entry in sys.path if entry != standard_library], target)
        # Ignore a file or folder of that name in the working directory that is not a package.
        is_package = spec is not None and spec.submodule_search_locations and spec.origin
        return spec if is_package else None


_NAME = PackageBeforeStandardLibrary.__name__
if not any(getattr(finder, "__name__", "") == _NAME for finder in sys.meta_path):
    sys.meta_path.insert(0, PackageBeforeStandardLibrary)
