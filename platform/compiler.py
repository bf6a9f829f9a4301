"""The C++ compiler of this machine, for whatever is compiled when it is first used."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

SEARCHED = "$CXX, c++, g++, clang++"
INSTALL = "sudo apt-get install g++"


def find_compiler() -> Path | None:
    """Return `$CXX` without its options, or c++, g++, clang++ from PATH; None where there is none."""
    named = os.environ.get("CXX", "").split()
    for name in [*named[:1], "c++", "g++", "clang++"]:
        if found := shutil.which(name):
            return Path(found)
    return None
