"""Build the C++ engine when needed, and run its benchmark.

    python -m deploy.engine_build.engine

builds ncnn (once per machine) and the engine, and prints the paths of its programs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.engine_build.build_lock import Progress, build_status, locked
from deploy.engine_build.build_tools import find_build_tools, run_cmake, run_ninja
from deploy.engine_build.ncnn_source import ENGINE_DIR, ensure_ncnn, ncnn_recipe
from platform.common.atomic import write_json, write_text
from platform.common.command_line import parse_command_line
from platform.common.errors import UserError, run_command
from platform.common.time_left import TimeLeft
from platform.data.cache import default_cache_dir

_PERCENT = re.compile(r"(.+): (\d+) %")
_ONEDNN_HEADERS = tuple(Path(root, "include/oneapi/dnnl/dnnl_version.h") for root in ("/usr", "/usr/local"))
_SOURCES = ("CMakeLists.txt", "cmake/*", "include/**/*.h", "src/**/*.cpp", "src/**/*.h", "apps/*")


@dataclass(frozen=True, kw_only=True)
class EngineBinaries:
    """The engine's programs."""

    resnet18: Path
    """Classifies images."""
    benchmark: Path
    """Measures latency."""
    library: Path
    """The shared library for `deploy.engine_build.engine_model`."""


def to_stderr(message: str) -> None:
    """Print a progress message to stderr."""
    print(message, file=sys.stderr, flush=True)


def ensure_engine(*, progress: Progress = to_stderr) -> EngineBinaries:
    """Return the engine's programs; build them first if they are missing or outdated.

    Args:
        progress: called with progress messages.

    Raises:
        UserError: a tool is missing or the build fails; the message has the remedy.
    """
    build_dir, recipe = _build_dir(), _recipe()
    if not _is_built(build_dir, recipe):
        with locked(_lock_file(build_dir), progress=progress) as report:
            if not _is_built(build_dir, recipe):
                _build(build_dir, recipe, report)
    return _binaries(build_dir)


def is_engine_built() -> bool:
    """Return whether `ensure_engine()` would return without a build."""
    return _is_built(_build_dir(), _recipe())


def engine_build_status() -> str | None:
    """Return the last progress message of a running build of the engine, or None."""
    return build_status(_lock_file(_build_dir()))


def run_benchmark(
    *model_dirs: Path,
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    workers: Sequence[int] = (1,),
    kernels: str = "auto",
    json_path: Path | None = None,
    warmup: int = 10,
    repetitions: int = 200,
    min_time_s: float = 1.0,
    progress: Progress = to_stderr,
) -> dict[str, Any]:
    """Measure every model folder with every combination of threads, batches and workers in the engine.

    Args:
        model_dirs: model folders (model.param, model.bin, model.json).
        threads: OpenMP threads of one inference.
        batches: images of one query.
        workers: threads that share the model, each with its own queries.
        kernels: auto, ncnn or onednn.
        json_path: file for the record, written atomically; None: no file.
        warmup: minimum number of unmeasured queries per configuration; 0: none.
        repetitions: minimum number of measured queries per configuration.
        min_time_s: minimum measured time per configuration, in seconds.
        progress: called with progress messages.

    Returns:
        `schema_version`, `context`, `settings`, `models` (one per folder), `results` (one per configuration).

    Raises:
        UserError: the engine cannot be built, or rejects a model; the message is the engine's.
    """
    from platform.tracking.provenance import git_state

    engine = ensure_engine(progress=progress)
    command = [str(engine.benchmark), *map(str, model_dirs), "--kernels", kernels]
    for flag, numbers in (("--threads", threads), ("--batch", batches), ("--workers", workers)):
        command += [flag, ",".join(map(str, numbers))]
    command += ["--warmup", str(warmup), "--repetitions", str(repetitions), "--min-time-s", str(min_time_s)]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        answer = Path(folder) / "record.json"
        _run([*command, "--json", str(answer)], progress=progress)
        record: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    record["context"]["commit"], record["context"]["dirty"] = git_state(ENGINE_DIR.parent)
    if json_path is not None:
        write_json(json_path, record)
    return record


def _run(command: list[str], *, progress: Progress) -> None:
    last_message = ""
    report = _with_time_left(progress)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            for line in process.stderr or ():
                last_message = line.rstrip()
                if not last_message.startswith("error: "):
                    report(last_message)
        except BaseException:
            process.terminate()
            raise
    if process.returncode < 0:
        raise UserError(f"the engine was killed by signal {-process.returncode}: {' '.join(command)}")
    if process.returncode != 0:
        raise UserError(last_message.removeprefix("error: ") or f"the engine failed: {' '.join(command)}")


def _with_time_left(progress: Progress) -> Progress:
    """Return a function that takes the engine's messages, and adds the time left to a percentage."""
    phase, meter = "", TimeLeft("", 0, progress)

    def report(message: str) -> None:
        nonlocal phase, meter
        found = _PERCENT.fullmatch(message)
        if found is None:
            progress(message)
            return
        if phase != found[1]:
            phase, meter = found[1], TimeLeft(found[1], 100, progress)
            progress(phase)
        meter.update(int(found[2]))

    return report


def _build_dir() -> Path:
    # Next to the sources if possible; an installed package may be writable by root only.
    if os.access(ENGINE_DIR, os.W_OK):
        return ENGINE_DIR / "build" / "engine"
    return default_cache_dir() / f"engine-{hashlib.sha256(str(ENGINE_DIR).encode()).hexdigest()[:12]}"


def _lock_file(build_dir: Path) -> Path:
    return build_dir.with_name(f"{build_dir.name}.lock")


def _recipe() -> str:
    """Hash all inputs of the build except the compiler: a built engine must run without one."""
    digest = hashlib.sha256(ncnn_recipe().encode())
    # Installing or removing oneDNN, which is optional, requires another build.
    for path in filter(Path.is_file, _ONEDNN_HEADERS):
        digest.update(path.read_bytes())
    for pattern in _SOURCES:
        for path in sorted(ENGINE_DIR.glob(pattern)):
            digest.update(f"\0{path.relative_to(ENGINE_DIR)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _binaries(build_dir: Path) -> EngineBinaries:
    return EngineBinaries(
        resnet18=build_dir / "resnet18",
        benchmark=build_dir / "benchmark_ncnn",
        library=build_dir / "libsweep_engine.so",
    )


def _is_built(build_dir: Path, recipe: str) -> bool:
    engine = _binaries(build_dir)
    try:
        built = (build_dir / "built-from.txt").read_text(encoding="utf-8")
    except OSError:
        return False
    return built == recipe and all(map(Path.is_file, (engine.resnet18, engine.benchmark, engine.library)))


def _build(build_dir: Path, recipe: str, progress: Progress) -> None:
    tools = find_build_tools()
    prefix = ensure_ncnn(tools, progress=progress)
    stamp = build_dir / "built-from.txt"
    stamp.unlink(missing_ok=True)
    log = build_dir / "build.log"
    progress(f"building the engine in {build_dir}")
    # --fresh: cmake would reuse a cache from another folder, compiler or ncnn.
    arguments = ["--fresh", "-S", str(ENGINE_DIR), "-B", str(build_dir), "-DCMAKE_BUILD_TYPE=Release"]
    arguments += [f"-Dncnn_DIR={prefix}/lib/cmake/ncnn", "-DSWEEP_ENGINE_TESTS=OFF"]
    run_cmake(tools, arguments, log=log, what="configuring the engine")
    run_ninja(tools, build_dir, log=log, what="building the engine", progress=progress)
    write_text(stamp, recipe)


def _command() -> EngineBinaries:
    """Build the C++ engine, and ncnn if it is not in the cache."""
    return ensure_engine()


def main(words: Sequence[str] | None = None, *, prog: str = "python -m deploy.engine_build.engine") -> int:
    """Build everything and print the paths of the programs."""
    engine = parse_command_line(_command, prog=prog, words=words)
    print(engine.resnet18)
    print(engine.benchmark)
    return 0


if __name__ == "__main__":
    run_command(main)
