"""Let `import platform` find this package from any directory, once it is installed.

The standard library stands before site-packages on the path, so its own `platform.py` would win there. A
wheel and an editable install ship this file as the top-level module `_sweep_platform_startup`, which
`startup.pth` imports when the interpreter starts; setuptools takes over `distutils` in the same way. The
finder answers for the one name, when somebody asks for it; the hook imports nothing not loaded already.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder

TYPE_CHECKING = False  # what `typing` holds; importing it would cost every interpreter ten milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


class PackageBeforeStandardLibrary:
    """A meta-path finder: `platform` is looked for everywhere but in the standard library's own folder."""

    @staticmethod
    def find_spec(
        name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Return the package's spec; None leaves any other name, or a missing package, to the next finder."""
        if name != "platform":
            return None
        standard_library = os.path.dirname(os.__file__)
        spec = PathFinder.find_spec(name, [entry for entry in sys.path if entry != standard_library], target)
        # A stray file or folder of that name in the working directory must not break the interpreter.
        is_package = spec is not None and spec.submodule_search_locations and spec.origin
        return spec if is_package else None


_NAME = PackageBeforeStandardLibrary.__name__
if not any(getattr(finder, "__name__", "") == _NAME for finder in sys.meta_path):
    sys.meta_path.insert(0, PackageBeforeStandardLibrary)
