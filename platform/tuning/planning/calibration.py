"""Measure the training speed of this machine: some steps of the real training in one process per worker slot.

    python -m platform.tuning.planning.calibration        one measuring process; `calibrate` starts them

Each process trains one warm-up epoch, waits until all processes are warm, and then measures for a few
seconds. The result is cached by hardware, PyTorch version, network, batch size, precision, threads and number
of processes.
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

from platform.common.atomic import write_text
from platform.common.cores import usable_cores
from platform.common.errors import UserError
from platform.common.schema import Frozen
from platform.data.cache import default_cache_dir
from platform.training.config import RunConfig
from platform.training.records import EpochRecord
from platform.tuning.execution.cluster_session import worker_environment
from platform.tuning.planning.records import Speed

MEASURED_S = 3.0
_TIMEOUT_S = 300.0
_MAX_PROCESSES = 16
_BATCHES_ON_CPU, _IMAGES_ON_CPU = 4, 256
_IMAGES_ON_GPU = 8192
_BUSY_CACHE_S = 3600.0
"""Lifetime of a measurement taken on a busy machine."""
_BUSY_CPU_SHARE = 0.85
"""Share of processor time below which a measurement is marked as `busy`."""


class CalibrationRequest(Frozen):
    """The run to measure, sent to the measuring processes as JSON."""

    run: RunConfig
    data_path: str
    threads: PositiveInt
    gpu: bool


def load_cached_speed(request: CalibrationRequest, *, processes: int) -> Speed | None:
    """Return the cached measurement of this machine, or None."""
    path = _cache_path(request, _process_count(processes))
    with suppress(OSError, ValueError, LookupError, TypeError):
        speed = Speed.model_validate(json.loads(path.read_text(encoding="utf-8"))["speed"])
        if not speed.busy or 0 <= time.time() - path.stat().st_mtime < _BUSY_CACHE_S:
            return speed
    return None


def calibrate(
    request: CalibrationRequest,
    *,
    processes: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Speed:
    """Return the cached measurement, or measure now with one process per worker slot of this machine.

    A measurement in which other processes took processor time is marked `busy` and expires after an hour.

    Raises:
        UserError: a measuring process failed; the message has its last error line.
    """
    cached = load_cached_speed(request, processes=processes)
    if cached is not None:
        return cached
    count = _process_count(processes)
    load_per_core = os.getloadavg()[0] / (os.cpu_count() or 1)
    progress(f"measuring the training speed of {request.run.model.name} (takes seconds, then cached)")
    measured = _run_processes(request, count)
    cpu_share = fmean(one.cpu_share for one in measured)
    speed = Speed(
        train_images_per_s=fmean(one.train_images_per_s for one in measured),
        evaluation_images_per_s=fmean(one.evaluation_images_per_s for one in measured),
        processes=count,
        threads=request.threads,
        busy=cpu_share < _BUSY_CPU_SHARE,
        cpu_share=cpu_share,
        load_per_core=load_per_core,
        gpu_held_bytes=max((one.gpu_held_bytes or 0 for one in measured), default=0) or None,
        gpu_total_bytes=measured[0].gpu_total_bytes,
    )
    document = {"speed": speed.model_dump(), "of": _cache_key(request, count)}
    with suppress(OSError):  # with a read-only cache the next sweep measures again
        write_text(_cache_path(request, count), json.dumps(document, indent=1) + "\n")
    return speed


def measure_speed(request: CalibrationRequest) -> Speed:
    """Measure in this process; after the first epoch, print a line and wait for one, so that all are warm."""
    import torch

    from platform.data.cache import open_info
    from platform.data.training_data import load_training_data
    from platform.training.distributed import single
    from platform.training.loop import fit

    torch.set_num_threads(request.threads)
    run = request.run
    # Many epochs of a few steps at a constant learning rate; `on_epoch` ends them.
    config = run.changed(
        data={**run.data.model_dump(), "train_limit": calibration_images(run, gpu=request.gpu)},
        epochs=10_000,
        iterations=None,
        schedule={"name": "constant"},
    )
    records: list[EpochRecord] = []
    began = dict[str, float]()

    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == 1:
            print("warm", flush=True)
            sys.stdin.readline()
            began.update(cpu=time.process_time(), wall=time.monotonic())
            return
        records.append(record)
        if sum(epoch.epoch_s + epoch.evaluation_s for epoch in records) >= MEASURED_S:
            raise _MeasurementDone

    data = load_training_data(config.data, open_info(Path(request.data_path)))
    with suppress(_MeasurementDone):
        fit(
            config,
            data,
            world=single("cuda" if request.gpu else "cpu"),
            checkpoint_dir=None,
            on_epoch=on_epoch,
            resume=False,
        )
    cpu_s, wall_s = time.process_time() - began["cpu"], time.monotonic() - began["wall"]
    trained = len(data.train.labels) * len(records)
    evaluated = len(data.validation.labels) * len(records) if data.validation is not None else 0
    return Speed(
        train_images_per_s=trained / sum(record.epoch_s for record in records),
        evaluation_images_per_s=evaluated / sum(record.evaluation_s for record in records),
        cpu_share=1.0 if request.gpu else min(1.0, cpu_s / (wall_s * request.threads)),
        gpu_held_bytes=torch.cuda.max_memory_reserved() if request.gpu else None,
        gpu_total_bytes=torch.cuda.mem_get_info()[1] if request.gpu else None,
    )


def calibration_images(run: RunConfig, *, gpu: bool) -> int:
    """Return the number of training images of a calibration of `run`: whole batches."""
    least = _IMAGES_ON_GPU if gpu else min(_IMAGES_ON_CPU, _BATCHES_ON_CPU * run.batch_size)
    images = max(run.batch_size, least)
    return images - images % run.batch_size


class _MeasurementDone(Exception):  # noqa: N818 - ends `fit`, not an error
    """Raised from `on_epoch` to end `fit`."""


def _process_count(processes: int) -> int:
    return max(1, min(processes, _MAX_PROCESSES))


def _run_processes(request: CalibrationRequest, count: int) -> list[Speed]:
    command = [sys.executable, "-m", "platform.tuning.planning.calibration"]
    environment = {**os.environ, **worker_environment(), "OMP_NUM_THREADS": str(request.threads)}
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for _ in range(count)
    ]
    # Reading from a pipe has no timeout; killing the processes ends it.
    timeout = threading.Timer(_TIMEOUT_S, _kill, [running])
    timeout.start()
    try:
        for process in running:
            _send_line(process, request.model_dump_json())
        for process in running:
            _read_line(process)
        for process in running:
            _send_line(process, "start")
        return [Speed.model_validate_json(_read_line(process)) for process in running]
    finally:
        timeout.cancel()
        _kill(running)
        for process in running:
            process.communicate()


def _send_line(process: subprocess.Popen[str], line: str) -> None:
    with suppress(BrokenPipeError):  # `_read_line` reports a dead process
        if process.stdin is not None:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()


def _read_line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        process.kill()
        _, errors = process.communicate()
        killed = f"a process was killed, or took longer than {_TIMEOUT_S:g} s"
        last = (errors.strip().splitlines() or [killed])[-1]
        raise UserError(f"measuring the training speed of this machine failed: {last}")
    return line


def _kill(running: Sequence[subprocess.Popen[str]]) -> None:
    for process in running:
        process.kill()


def _cache_path(request: CalibrationRequest, count: int) -> Path:
    text = json.dumps(_cache_key(request, count), sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    return default_cache_dir() / "calibration" / f"{name}.json"


def _cache_key(request: CalibrationRequest, count: int) -> dict[str, Any]:
    """Return everything that the speed depends on."""
    from importlib.metadata import version

    from platform.data.cache import open_info
    from platform.tracking.provenance import cpu_name, gpu_names

    run = request.run
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "gpus": list(gpu_names()) if request.gpu else [],
        "torch": version("torch"),
        "model": run.model.model_dump(mode="json"),
        "image_shape": open_info(Path(request.data_path)).image_shape,
        "batch_size": run.batch_size,
        "precision": run.precision,
        "optimizer": run.optimizer.name,
        "ema": run.ema_decay > 0,
        "augment": run.augment.model_dump(mode="json"),
        "threads": request.threads,
        "processes": count,
    }


if __name__ == "__main__":
    requested = CalibrationRequest.model_validate_json(sys.stdin.readline())
    print(measure_speed(requested).model_dump_json(), flush=True)
