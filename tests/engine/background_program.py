"""The process of a background build, with three sleeping processes: PROGRAM BUILD_DIR [with-driver].

With a second argument the program is the driver instead: it starts the build and waits.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from deploy.engine_build import background_build, engine
from deploy.engine_build.build_lock import locked
from deploy.engine_build.build_tools import find_build_tools, run_ninja

BUILD_DIR = Path(sys.argv[1])


def build(**_: object) -> NoReturn:
    with locked(engine._lock_file(BUILD_DIR), progress=lambda _: None) as report:
        report("building x")
        # Like cmake, the shell does not end its child.
        subprocess.Popen(["sh", "-c", "sleep 600; true"])
        run_ninja(find_build_tools(), BUILD_DIR, log=BUILD_DIR / "log", what="building x", progress=report)
        raise AssertionError


def drive() -> None:
    background_build.is_engine_built = lambda: False
    background_build._command = lambda: [sys.executable, __file__, str(BUILD_DIR)]
    with background_build.background_build(lambda _: None):
        time.sleep(600)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        drive()
    background_build.ensure_engine = build
    background_build.main()
