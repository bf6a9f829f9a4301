"""Build the C++ engine when needed, and run its benchmark.

    python -m deploy.engine_build.engine [--ncnn-dir DIR] [--ncnn-source-dir DIR]

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from deploy.engine_build.build_lock import Progress, build_status, locked
from deploy.engine_build.build_tools import BuildTools, find_build_tools, run_cmake, run_ninja
from deploy.engine_build.ncnn_source import ENGINE_DIR, ensure_ncnn, ncnn_recipe
from platform.common.command_line import option, parse_command_line
from platform.common.errors import UserError, run_command
from platform.common.time_left import TimeLeft
from platform.data.cache import default_cache_dir

_COUNT = re.compile(r"(?P<phase>.+): (?P<done>\d+)(?: of (?P<total>\d+) (?P<unit>\w+)| %)")
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


def ensure_engine(
    *,
    progress: Progress = to_stderr,
    ncnn_dir: Path | None = None,
    ncnn_source_dir: Path | None = None,
) -> EngineBinaries:
    """Return the engine's programs; build them first if they are missing or outdated.

    Args:
        progress: called with progress messages.
        ncnn_dir: folder of the ncnnConfig.cmake of an installed ncnn to use instead of building one.
        ncnn_source_dir: ncnn's source tree to build instead of the source distribution.

    Raises:
        UserError: a tool is missing or the build fails; the message has the remedy.
    """
    build_dir = _build_dir()
    recipe = _recipe(ncnn_dir, ncnn_source_dir)
    if _is_built(build_dir, recipe):
        return _binaries(build_dir)
    with locked(_lock_file(build_dir), progress=progress) as report:
        if not _is_built(build_dir, recipe):
            _build(build_dir, recipe, ncnn_dir, ncnn_source_dir, report)
    return _binaries(build_dir)


def is_engine_built() -> bool:
    """Return whether `ensure_engine()` would return without a build."""
    return _is_built(_build_dir(), _recipe(None, None))


def engine_build_status() -> str | None:
    """Return the last progress message of a running build of the engine, or None."""
    return build_status(_lock_file(_build_dir()))


def run_benchmark(
    *model_dirs: Path,
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    workers: Sequence[int] = (1,),
    json_path: Path | None = None,
    warmup: int = 10,
    repetitions: int = 200,
    min_time_s: float = 1.0,
    images: Path | None = None,
    logits: Path | None = None,
    output_format: str = "table",
    on_text: Callable[[str], None] = lambda _: None,
    progress: Progress = to_stderr,
) -> dict[str, Any]:
    """Measure every model folder with every combination of threads, batches and workers in the engine.

    Args:
        model_dirs: model folders (model.param, model.bin, model.json).
        threads: OpenMP threads of one inference.
        batches: images of one query.
        workers: threads that share the model, each with its own queries.
        json_path: file for the record, written atomically; None: no file.
        warmup: minimum number of unmeasured queries per configuration; 0: none.
        repetitions: minimum number of measured queries per configuration.
        min_time_s: minimum measured time per configuration, in seconds.
        images: labeled images (`deploy.model_files.image_file`) to measure top-1 accuracy on.
        logits: reference logits of those images, to measure parity.
        output_format: format of the text for `on_text`: table, md or csv.
        on_text: called with the results as text.
        progress: called with progress messages.

    Returns:
        `schema_version`, `context`, `settings`, `models` (one per folder), `results` (one per configuration).

    Raises:
        UserError: the engine cannot be built, or rejects a model; the message is the engine's.
    """
    from platform.common.atomic import write_json
    from platform.tracking.provenance import git_state

    engine = ensure_engine(progress=progress)
    command = [str(engine.benchmark), *map(str, model_dirs), "-o", output_format]
    for flag, numbers in (("--threads", threads), ("--batch", batches), ("--workers", workers)):
        command += [flag, ",".join(map(str, numbers))]
    command += ["--warmup", str(warmup), "--repetitions", str(repetitions), "--min-time-s", str(min_time_s)]
    for flag, file in (("--images", images), ("--logits", logits)):
        if file is not None:
            command += [flag, str(file)]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        answer = Path(folder) / "record.json"
        printed = Path(folder) / "stdout.txt"
        _run([*command, "--json", str(answer)], stdout=printed, progress=progress)
        record: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        on_text(printed.read_text(encoding="utf-8"))
    record["context"]["commit"], record["context"]["dirty"] = git_state(ENGINE_DIR.parent)
    if json_path is not None:
        write_json(json_path, record)
    return record


def _run(command: list[str], *, stdout: Path, progress: Progress) -> None:
    last_message = ""
    report = _with_time_left(progress)
    # stdout goes to a file: a pipe would not be read while stderr is, and a full pipe blocks the engine.
    with (
        stdout.open("w", encoding="utf-8") as printed,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
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
    """Return a function that takes the engine's messages, and adds the time left to those with a count."""
    phase, meter = "", TimeLeft("", 0, progress)

    def report(message: str) -> None:
        nonlocal phase, meter
        count = _COUNT.fullmatch(message)
        if count is None:
            progress(message)
            return
        if phase != count["phase"]:
            phase = count["phase"]
            meter = TimeLeft(phase, int(count["total"] or 100), progress, unit=count["unit"])
            progress(phase)
        meter.update(int(count["done"]))

    return report


def _build_dir() -> Path:
    # Next to the sources if possible; an installed package may be writable by root only.
    if os.access(ENGINE_DIR, os.W_OK):
        return ENGINE_DIR / "build" / "engine"
    return default_cache_dir() / f"engine-{hashlib.sha256(str(ENGINE_DIR).encode()).hexdigest()[:12]}"


def _lock_file(build_dir: Path) -> Path:
    return build_dir.with_name(f"{build_dir.name}.lock")


def _recipe(ncnn_dir: Path | None, ncnn_source_dir: Path | None) -> str:
    """Hash all inputs of the build except the compiler: a built engine must run without one."""
    digest = hashlib.sha256(f"{ncnn_recipe()}\0{ncnn_dir}\0{ncnn_source_dir}".encode())
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


def _build(
    build_dir: Path, recipe: str, ncnn_dir: Path | None, ncnn_source_dir: Path | None, progress: Progress
) -> None:
    tools = find_build_tools()
    if ncnn_dir is None:
        prefix = ensure_ncnn(tools, progress=progress, source_dir=ncnn_source_dir)
        ncnn_dir = prefix / "lib" / "cmake" / "ncnn"
    stamp = build_dir / "built-from.txt"
    stamp.unlink(missing_ok=True)
    log = build_dir / "build.log"
    progress(f"building the engine in {build_dir}")
    _configure(build_dir, tools, ncnn_dir, log)
    run_ninja(tools, build_dir, log=log, what="building the engine", progress=progress)
    partial = stamp.with_suffix(".tmp")
    partial.write_text(recipe, encoding="utf-8")
    partial.replace(stamp)


def _configure(build_dir: Path, tools: BuildTools, ncnn_dir: Path, log: Path) -> None:
    # --fresh: cmake would reuse a cache from another folder, compiler or ncnn.
    arguments = ["--fresh", "-S", str(ENGINE_DIR), "-B", str(build_dir), "-DCMAKE_BUILD_TYPE=Release"]
    arguments += [f"-Dncnn_DIR={ncnn_dir}", "-DSWEEP_ENGINE_TESTS=OFF"]
    run_cmake(tools, arguments, log=log, what="configuring the engine")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Build the C++ engine, and ncnn if it is not in the cache."""

    ncnn_dir: Annotated[Path | None, option("PATH")] = None
    """Use the installed ncnn whose ncnnConfig.cmake is in this folder."""
    ncnn_source_dir: Annotated[Path | None, option("PATH", default="the source distribution")] = None
    """Source tree of ncnn."""


def main(words: Sequence[str] | None = None, *, prog: str = "python -m deploy.engine_build.engine") -> int:
    """Build everything and print the paths of the programs."""
    arguments = parse_command_line(Arguments, prog=prog, words=words)
    ncnn_dir, source_dir = arguments.ncnn_dir, arguments.ncnn_source_dir
    engine = ensure_engine(
        ncnn_dir=ncnn_dir and ncnn_dir.absolute(),
        ncnn_source_dir=source_dir and source_dir.absolute(),
    )
    print(engine.resnet18)
    print(engine.benchmark)
    return 0


if __name__ == "__main__":
    run_command(main)
