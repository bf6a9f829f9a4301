"""How fast this machine trains: a few steps of the real training, in as many processes as there are slots.

    python -m platform.tuning.planning.calibration        one such process; `calibrate` starts them

Each process trains its first epoch to warm up, waits until all are warm, and measures for a few seconds.
What was measured is kept in the cache, by hardware, PyTorch, network, batch size, precision, threads and
processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import PositiveInt

from platform.atomic import write_text
from platform.cores import usable_cores
from platform.data.cache import default_cache_dir
from platform.data.dataset import DatasetInfo
from platform.errors import UserError
from platform.schema import Frozen
from platform.training.config import RunConfig
from platform.training.records import EpochRecord
from platform.tuning.execution.cluster_session import worker_environment
from platform.tuning.planning.estimate import Speed

MEASURED_S = 3.0
_TIMEOUT_S = 300.0
_MOST_PROCESSES = 16
_IMAGES_ON_CPU = 256
_IMAGES_ON_GPU = 8192
_BUSY_KEPT_S = 3600.0
_BUSY = 1.5  # runnable processes per core, beyond which a measurement says little


class Question(Frozen):
    """What to measure; JSON both ways, as it goes to the processes."""

    run: RunConfig
    data_path: str
    threads: PositiveInt
    gpu: bool


def cached_speed(question: Question, *, processes: int, cache_dir: Path | None = None) -> Speed | None:
    """Return what was measured before on this machine, or None."""
    path = _path(question, _at_once(processes), cache_dir)
    with suppress(OSError, ValueError, LookupError, TypeError):
        speed = Speed.model_validate(json.loads(path.read_text(encoding="utf-8"))["speed"])
        if not speed.busy or time.time() - path.stat().st_mtime < _BUSY_KEPT_S:
            return speed
    return None


def calibrate(
    question: Question,
    *,
    processes: int,
    cache_dir: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Speed:
    """Measure, or return what was measured before.

    A measurement on a machine with other work is marked as such, and kept for an hour only.

    Args:
        question: the run, its data, and what a process gets.
        processes: slots of this machine, which are all busy in a sweep.
        cache_dir: the cache; by default the project's.
        progress: told, in words, what takes a while.

    Raises:
        UserError: the processes could not be run; says why.
    """
    known = cached_speed(question, processes=processes, cache_dir=cache_dir)
    if known is not None:
        return known
    count = _at_once(processes)
    busy = os.getloadavg()[0] > _BUSY * (os.cpu_count() or 1)
    progress(f"measuring how fast {question.run.model.name} trains here (some seconds, once)")
    answers = _ask(question, count)
    speed = Speed(
        train_images_per_s=fmean(answer.train_images_per_s for answer in answers),
        evaluation_images_per_s=fmean(answer.evaluation_images_per_s for answer in answers),
        processes=count,
        threads=question.threads,
        busy=busy,
        gpu_held_bytes=max((answer.gpu_held_bytes or 0 for answer in answers), default=0) or None,
        gpu_total_bytes=answers[0].gpu_total_bytes,
    )
    document = {"speed": speed.model_dump(), "of": _identity(question, count)}
    with suppress(OSError):  # a cache that cannot be written only costs the next sweep some seconds
        write_text(_path(question, count, cache_dir), json.dumps(document, indent=1) + "\n")
    return speed


def measure(question: Question, *, warm: Callable[[], None]) -> Speed:
    """Measure in this process.

    Args:
        question: what to measure.
        warm: called after the first epoch; the measurement begins when it returns.
    """
    import torch

    from platform.data.cache import open_info
    from platform.data.training_data import load_training_data
    from platform.training.distributed import single
    from platform.training.loop import fit

    torch.set_num_threads(question.threads)
    run = question.run
    images = images_measured(run, gpu=question.gpu)
    # Many epochs of a few steps at a steady rate, ended from outside.
    config = run.changed(
        data={**run.data.model_dump(), "train_limit": images},
        epochs=10_000,
        iterations=None,
        schedule={"name": "constant"},
    )
    seen: list[EpochRecord] = []

    def listen(record: EpochRecord) -> None:
        if record.epoch == 1:
            warm()
            return
        seen.append(record)
        if sum(epoch.epoch_s + epoch.evaluation_s for epoch in seen) >= MEASURED_S:
            raise _Enough

    data = load_training_data(config.data, open_info(Path(question.data_path)))
    with suppress(_Enough):
        fit(
            config,
            data,
            world=single("cuda" if question.gpu else "cpu"),
            checkpoint_dir=None,
            on_epoch=listen,
            resume=False,
        )
    trained = len(data.train.labels) * len(seen)
    evaluated = len(data.validation.labels) * len(seen) if data.validation is not None else 0
    return Speed(
        train_images_per_s=trained / sum(record.epoch_s for record in seen),
        evaluation_images_per_s=evaluated / sum(record.evaluation_s for record in seen),
        gpu_held_bytes=torch.cuda.max_memory_reserved() if question.gpu else None,
        gpu_total_bytes=torch.cuda.mem_get_info()[1] if question.gpu else None,
    )


def images_measured(run: RunConfig, *, gpu: bool) -> int:
    """Return how many images a measurement of `run` trains on: whole batches."""
    images = max(run.batch_size, _IMAGES_ON_GPU if gpu else _IMAGES_ON_CPU)
    return images - images % run.batch_size


class _Enough(Exception):  # noqa: N818 - the end of a measurement, not an error
    """Ends `fit`."""


def _at_once(processes: int) -> int:
    return max(1, min(processes, _MOST_PROCESSES))


def _ask(question: Question, count: int) -> list[Speed]:
    command = [sys.executable, "-m", "platform.tuning.planning.calibration"]
    environment = {**os.environ, **worker_environment(), "OMP_NUM_THREADS": str(question.threads)}
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for _ in range(count)
    ]
    # Reading a pipe has no time limit of its own.
    guard = threading.Timer(_TIMEOUT_S, _kill, [running])
    guard.start()
    try:
        for process in running:
            _say(process, question.model_dump_json())
        for process in running:
            _hear(process)
        for process in running:
            _say(process, "go")
        return [Speed.model_validate_json(_hear(process)) for process in running]
    finally:
        guard.cancel()
        _end(running)


def _say(process: subprocess.Popen[str], line: str) -> None:
    with suppress(BrokenPipeError):  # its end is told by `_hear`
        if process.stdin is not None:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()


def _hear(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        process.kill()
        _, errors = process.communicate()
        last = (errors.strip().splitlines() or ["it took too long"])[-1]
        raise UserError(f"the speed of this machine could not be measured: {last}")
    return line


def _kill(running: Sequence[subprocess.Popen[str]]) -> None:
    for process in running:
        process.kill()


def _end(running: Sequence[subprocess.Popen[str]]) -> None:
    _kill(running)
    for process in running:
        process.communicate()


def _path(question: Question, count: int, cache_dir: Path | None) -> Path:
    text = json.dumps(_identity(question, count), sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    return (cache_dir or default_cache_dir()) / "calibration" / f"{name}.json"


def _identity(question: Question, count: int) -> dict[str, Any]:
    """Return everything that the speed depends on."""
    from importlib.metadata import version

    from platform.data.cache import open_info
    from platform.tracking.provenance import cpu_name, gpu_names

    run = question.run
    gpus: list[str] = []
    if question.gpu:
        gpus = list(gpu_names())
    info: DatasetInfo = open_info(Path(question.data_path))
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "gpus": gpus,
        "torch": version("torch"),
        "model": run.model.model_dump(mode="json"),
        "image_shape": info.image_shape,
        "batch_size": run.batch_size,
        "precision": run.precision,
        "optimizer": run.optimizer.name,
        "ema": run.ema_decay > 0,
        "augment": run.augment.model_dump(mode="json"),
        "threads": question.threads,
        "processes": count,
        # What was measured before memory was part of it is measured again.
        **({"memory": True} if question.gpu else {}),
    }


def _main() -> None:
    question = Question.model_validate_json(sys.stdin.readline())

    def warm() -> None:
        print("warm", flush=True)
        sys.stdin.readline()

    print(measure(question, warm=warm).model_dump_json(), flush=True)


if __name__ == "__main__":
    _main()
