"""Find the compiler, cmake and ninja, and run builds with progress messages and a log."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from platform.common.cores import usable_cores
from platform.common.errors import UserError
from platform.common.time_left import TimeLeft

_STEP = re.compile(r"\[\d+/\d+\] ")


@dataclass(frozen=True, kw_only=True)
class BuildTools:
    """Programs and settings of a C++ build."""

    cmake: Path
    ninja: Path
    compiler: Path
    compiler_identity: str
    """Version and target, to distinguish the objects of different compilers."""
    jobs: int
    """Number of parallel compilations."""


def find_build_tools() -> BuildTools:
    """Find the build tools.

    cmake and ninja are looked up next to the Python interpreter, where their Python packages install them,
    then on PATH. The compiler is `$CXX`, or c++, g++, clang++ on PATH.

    Raises:
        UserError: a tool is missing; the message has the command that installs it.
    """
    compiler = _find_compiler()
    return BuildTools(
        cmake=_find_tool("cmake"),
        ninja=_find_tool("ninja"),
        compiler=compiler,
        compiler_identity=_identity(compiler),
        jobs=_jobs(),
    )


def _find_compiler() -> Path:
    named = os.environ.get("CXX", "").split()
    for name in [*named[:1], "c++", "g++", "clang++"]:
        if found := shutil.which(name):
            return Path(found)
    raise UserError(
        "building the engine requires a C++17 compiler, but $CXX, c++, g++ and clang++ were not found.\n"
        "Install one with: sudo apt-get install g++"
    )


def _find_tool(name: str) -> Path:
    # In a virtual environment sys.executable is a symbolic link; it must not be resolved.
    installed = Path(sys.executable).parent / name
    if os.access(installed, os.X_OK):
        return installed
    if found := shutil.which(name):
        return Path(found)
    raise UserError(
        f"building the engine requires {name}, which is neither next to {sys.executable} nor on PATH.\n"
        f"Install it with: make setup (or: sudo apt-get install {'ninja-build' if name == 'ninja' else name})"
    )


def _identity(compiler: Path) -> str:
    answer = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    target = subprocess.run([compiler, "-dumpmachine"], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise UserError(f"the C++ compiler {compiler} does not run: {answer.stderr.strip() or 'no message'}")
    return f"{answer.stdout.splitlines()[0]} {target.stdout.strip()}"


def _jobs() -> int:
    try:
        return max(1, int(os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", "")))
    except ValueError:
        return usable_cores()


def _environment(tools: BuildTools) -> dict[str, str]:
    environment = {**os.environ, "CXX": str(tools.compiler), "NINJA_STATUS": "[%f/%t] "}
    # This project's `platform` package must not shadow the standard module in tools written in Python.
    environment.pop("PYTHONPATH", None)
    return environment


def run_cmake(tools: BuildTools, arguments: Sequence[str], *, log: Path, what: str) -> None:
    """Run cmake with the Ninja generator.

    Raises:
        UserError: cmake failed; the message has its last lines and the path of the log.
    """
    command = [str(tools.cmake), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools.ninja}", *arguments]
    _run(command, tools, log=log, what=what, on_line=lambda _: None)


def run_ninja(
    tools: BuildTools,
    build_dir: Path,
    *,
    log: Path,
    what: str,
    targets: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
    weigh: Callable[[str], float] = lambda _: 1.0,
) -> None:
    """Build `targets` with ninja; report percentage and time left every few seconds.

    Args:
        tools: the build tools.
        build_dir: the folder that cmake configured.
        log: file to append all output to.
        what: start of every message.
        targets: targets to build; empty: the default targets.
        progress: called with progress messages; None: no messages.
        weigh: relative cost of a build step, from its description in ninja's output.

    Raises:
        UserError: the build failed; the message has its last lines and the path of the log.
    """
    command = [str(tools.ninja), "-C", str(build_dir), "-j", str(tools.jobs), *targets]
    count = _count_steps(_steps(command, tools), what, weigh, progress) if progress else lambda _: None
    _run(command, tools, log=log, what=what, on_line=count)


def _steps(command: list[str], tools: BuildTools) -> list[str]:
    answer = subprocess.run(
        [*command, "-n"], capture_output=True, text=True, check=False, env=_environment(tools)
    )
    return [line for line in answer.stdout.splitlines() if _STEP.match(line)]


def _count_steps(
    steps: list[str], what: str, weigh: Callable[[str], float], progress: Callable[[str], None]
) -> Callable[[str], None]:
    """Return a function that takes ninja's output by line, and reports the progress over `steps`."""
    done = 0.0
    meter = TimeLeft(what, sum(map(weigh, steps)), progress)

    def count(line: str) -> None:
        nonlocal done
        if _STEP.match(line):
            done += weigh(line)
            meter.update(done)

    return count


def _run(
    command: list[str], tools: BuildTools, *, log: Path, what: str, on_line: Callable[[str], None]
) -> None:
    tail: deque[str] = deque(maxlen=25)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as record:
        record.write(f"$ {' '.join(command)}\n")
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=_environment(tools),
        ) as process:
            try:
                for line in process.stdout or ():
                    record.write(line)
                    tail.append(line.rstrip())
                    on_line(line)
            except BaseException:
                process.terminate()
                raise
    if process.returncode != 0:
        shown = "\n".join(f"  {line}" for line in tail)
        raise UserError(f"{what} failed (exit code {process.returncode}):\n{shown}\nFull log: {log}")
