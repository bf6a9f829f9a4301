"""A home folder and a name for users without an entry in the user database, as in many containers."""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path


def provide_home_folder() -> None:
    """Set HOME and USER where the system knows no home folder or name; Ray and PyTorch fail without them.

    The folder is below that of temporary files and is kept, because the dataset cache is in it.
    """
    try:
        Path.home()
    except RuntimeError:
        home = Path(tempfile.gettempdir()) / f"resnet-sweep-platform-{os.getuid()}"
        home.mkdir(mode=0o700, exist_ok=True)
        os.environ["HOME"] = str(home if home.stat().st_uid == os.getuid() else tempfile.mkdtemp())
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())
