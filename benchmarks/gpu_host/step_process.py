"""Run each step in its own process, so that a hang, a crash or a broken CUDA context affects only that step.

python -m benchmarks.gpu_host.step_process MODULE:FUNCTION '{"facts": "facts.jsonl", "limit_s": 60}'
"""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu_host.facts import StepRequest
from benchmarks.gpu_host.schedule import Step
from platform.common.errors import UserError

_POLL_S = 0.2
_DEATH_S = 10.0


def run_step(step: Step, request: StepRequest, log: Path, *, tick: Callable[[float], None]) -> dict[str, Any]:
    """Run `step` to its end or its time limit; return `outcome`, `seconds` and, after a failure, `why`.

    Args:
        step: the step to run.
        request: its arguments, with the time limit.
        log: file to append its output to.
        tick: called several times a second with the seconds since the start.
    """
    command = [sys.executable, "-m", f"{__package__}.step_process", step.entry, json.dumps(asdict(request))]
    log_starts = log.stat().st_size if log.exists() else 0
    began_s = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A new process group, to kill loader workers and compilers together with the step.
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **step.environment},
        )
    try:
        while process.poll() is None and time.monotonic() - began_s < request.limit_s:
            time.sleep(_POLL_S)
            tick(time.monotonic() - began_s)
    finally:
        code = process.poll()
        if code is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # A process blocked inside the driver may not die immediately, or at all.
            with suppress(subprocess.TimeoutExpired):
                process.wait(_DEATH_S)
    seconds = round(time.monotonic() - began_s, 1)
    if code == 0:
        return {"outcome": "done", "seconds": seconds}
    outcome = "timed out" if code is None else "failed"
    why = _last_line(log, log_starts) or ("no output" if code is None else f"exit code {code}")
    return {"outcome": outcome, "seconds": seconds, "why": why}


def _last_line(log: Path, start: int) -> str:
    """Return the last line of the step's output, truncated."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")


def main(entry: str, request: StepRequest) -> None:
    """Run one step in this process."""
    # SIGALRM ends the step if its parent was killed before it could.
    signal.alarm(math.ceil(request.limit_s + _DEATH_S))
    module, _, function = entry.partition(":")
    try:
        getattr(importlib.import_module(module), function)(request)
    except UserError as error:
        sys.exit(" ".join(str(error).split()))


if __name__ == "__main__":
    main(sys.argv[1], StepRequest(**json.loads(sys.argv[2])))
