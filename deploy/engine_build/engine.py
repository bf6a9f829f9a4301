"""The C++ engine: built when needed, found, and run.

    python -m deploy.engine_build.engine [--ncnn-dir DIR] [--ncnn-source-dir DIR]

builds ncnn (once per machine) and the engine, and prints the paths of its programs.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from deploy.engine_build.build_tools import BuildTools, find_build_tools, run_cmake, run_ninja
from deploy.engine_build.ncnn_source import ENGINE_DIR, cache_root, ensure_ncnn, locked, ncnn_recipe
from platform.errors import UserError, run_command

Progress = Callable[[str], None]

_SOURCES = ("CMakeLists.txt", "cmake/*", "include/**/*.h", "src/*", "apps/*")


@dataclass(frozen=True, kw_only=True)
class EngineBinaries:
    """The engine's programs."""

    resnet18: Path
    """Classifies images."""
    benchmark: Path
    """Measures latency."""


def to_stderr(message: str) -> None:
    """Show progress where it does not mix with results."""
    print(message, file=sys.stderr, flush=True)


def ensure_engine(
    *,
    progress: Progress = to_stderr,
    ncnn_dir: Path | None = None,
    ncnn_source_dir: Path | None = None,
) -> EngineBinaries:
    """Return the engine's programs, built now if they are missing or older than their sources.

    Args:
        progress: told what is being built and how long it will take.
        ncnn_dir: the folder of an installed ncnn's ncnnConfig.cmake, to use instead of our own.
        ncnn_source_dir: ncnn's source tree, to build ours from instead of the package index.

    Raises:
        UserError: a tool is missing or the build fails; the message says which, and what to do.
    """
    build_dir = _build_dir()
    recipe = _recipe(ncnn_dir, ncnn_source_dir)
    if _is_built(build_dir, recipe):
        return _binaries(build_dir)
    with locked(build_dir.with_name(build_dir.name + ".lock"), progress=progress):
        if not _is_built(build_dir, recipe):
            _build(build_dir, recipe, ncnn_dir, ncnn_source_dir, progress)
    return _binaries(build_dir)


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
    form: str = "table",
    tell: Callable[[str], None] = lambda _: None,
    progress: Progress = to_stderr,
) -> dict[str, Any]:
    """Measure model folders with the engine; every folder with every combination of the three lists.

    Args:
        model_dirs: model folders (model.param, model.bin, model.json).
        threads: OpenMP threads of one inference.
        batches: images of one query.
        workers: threads that share the model, each with queries of its own.
        json_path: where to keep the record, written atomically; nowhere by default.
        warmup: unmeasured queries per configuration, at least; 0: none.
        repetitions: measured queries per configuration, at least.
        min_time_s: measured seconds per configuration, at least.
        images: a labeled image set (`deploy.model_files.image_file`) to count right answers on.
        logits: the reference logits of those images, to compare with.
        form: how `tell` wants the results: table, md or csv.
        tell: given the results as text.
        progress: told what is going on.

    Returns:
        `schema_version`, `context`, `settings`, `models` (one per folder), `results` (one per configuration).

    Raises:
        UserError: the engine cannot be built, or refuses a model; its message is passed on.
    """
    from platform.atomic import write_json
    from platform.tracking.provenance import git_state

    engine = ensure_engine(progress=progress)
    command = [str(engine.benchmark), *map(str, model_dirs), "-o", form]
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
        tell(printed.read_text(encoding="utf-8"))
    record["context"]["commit"], record["context"]["dirty"] = git_state(ENGINE_DIR.parent)
    if json_path is not None:
        write_json(json_path, record)
    return record


def _run(command: list[str], *, stdout: Path, progress: Progress) -> None:
    said = ""
    # A file, not a pipe: nobody reads a pipe while the messages come, and a full one would stop the engine.
    with (
        stdout.open("w", encoding="utf-8") as printed,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        try:
            for line in process.stderr or ():
                said = line.rstrip()
                if not said.startswith("error: "):
                    progress(said)
        except BaseException:
            process.terminate()
            raise
    if process.returncode < 0:
        raise UserError(f"the engine was ended by signal {-process.returncode}: {' '.join(command)}")
    if process.returncode != 0:
        raise UserError(said.removeprefix("error: ") or f"the engine failed: {' '.join(command)}")


def _build_dir() -> Path:
    # Beside the sources, where a developer looks; an installed package may lie where only root can write.
    if os.access(ENGINE_DIR, os.W_OK):
        return ENGINE_DIR / "build" / "engine"
    return cache_root() / f"engine-{hashlib.sha256(str(ENGINE_DIR).encode()).hexdigest()[:12]}"


def _recipe(ncnn_dir: Path | None, ncnn_source_dir: Path | None) -> str:
    """Hash all that decides what the build makes, but the compiler: a built engine must run without one."""
    digest = hashlib.sha256(f"{ncnn_recipe()}\0{ncnn_dir}\0{ncnn_source_dir}".encode())
    for pattern in _SOURCES:
        for path in sorted(ENGINE_DIR.glob(pattern)):
            digest.update(f"\0{path.relative_to(ENGINE_DIR)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _binaries(build_dir: Path) -> EngineBinaries:
    return EngineBinaries(resnet18=build_dir / "resnet18", benchmark=build_dir / "benchmark_ncnn")


def _is_built(build_dir: Path, recipe: str) -> bool:
    engine = _binaries(build_dir)
    try:
        built = (build_dir / "built-from.txt").read_text(encoding="utf-8")
    except OSError:
        return False
    return built == recipe and engine.resnet18.is_file() and engine.benchmark.is_file()


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
    # Fresh: a cache of another place, compiler or ncnn would be believed.
    arguments = ["--fresh", "-S", str(ENGINE_DIR), "-B", str(build_dir), "-DCMAKE_BUILD_TYPE=Release"]
    arguments += [f"-Dncnn_DIR={ncnn_dir}", "-DSWEEP_ENGINE_TESTS=OFF"]
    run_cmake(tools, arguments, log=log, what="configuring the engine")


def main() -> None:
    """Build everything and print where it is."""
    run_command(lambda: tyro.cli(_command, prog="python -m deploy.engine_build.engine"))


def _command(
    ncnn_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    ncnn_source_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
) -> None:
    """Build the C++ engine, and ncnn if this machine has none yet.

    Args:
        ncnn_dir: folder of ncnnConfig.cmake of an ncnn you installed yourself.
        ncnn_source_dir: ncnn's source tree, instead of the package index's.
    """
    engine = ensure_engine(
        ncnn_dir=ncnn_dir and ncnn_dir.absolute(),
        ncnn_source_dir=ncnn_source_dir and ncnn_source_dir.absolute(),
    )
    print(engine.resnet18)
    print(engine.benchmark)


if __name__ == "__main__":
    main()
