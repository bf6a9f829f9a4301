"""A step in a process of its own, so that a hang, a crash or an unsound CUDA context costs that step alone.

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

from benchmarks.gpu_host.facts import Call
from benchmarks.gpu_host.schedule import Step
from platform.errors import UserError

_POLL_S = 0.2
_DEATH_S = 10.0


def run_step(step: Step, call: Call, log: Path, *, tick: Callable[[float], None]) -> dict[str, Any]:
    """Run `step` to its end or its limit; returns `outcome`, `seconds` and, unless it is done, `why`.

    Args:
        step: what to run.
        call: what it is told; `call.limit_s` is its limit.
        log: the file that its output is appended to.
        tick: called several times a second with the seconds since its start.
    """
    command = [sys.executable, "-m", f"{__package__}.step_process", step.entry, json.dumps(asdict(call))]
    log_starts = log.stat().st_size if log.exists() else 0
    began_s = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A process group of its own, to kill its loader workers and compilers with it.
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **step.environment},
        )
    try:
        while process.poll() is None and time.monotonic() - began_s < call.limit_s:
            time.sleep(_POLL_S)
            tick(time.monotonic() - began_s)
    finally:
        code = process.poll()
        if code is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # A process that waits inside the driver may not die at once, or at all.
            with suppress(subprocess.TimeoutExpired):
                process.wait(_DEATH_S)
    seconds = round(time.monotonic() - began_s, 1)
    if code == 0:
        return {"outcome": "done", "seconds": seconds}
    outcome = "timed out" if code is None else "failed"
    why = _last_line(log, log_starts) or f"exit code {code}"
    return {"outcome": outcome, "seconds": seconds, "why": why}


def _last_line(log: Path, start: int) -> str:
    """Return the last line that the step has printed, shortened."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")


def main(entry: str, call: Call) -> None:
    """Run one step here."""
    # The default action of this signal ends a process whose parent was killed before it could do so.
    signal.alarm(math.ceil(call.limit_s + _DEATH_S))
    module, _, function = entry.partition(":")
    try:
        getattr(importlib.import_module(module), function)(call)
    except UserError as error:
        sys.exit(" ".join(str(error).split()))


if __name__ == "__main__":
    main(sys.argv[1], Call(**json.loads(sys.argv[2])))
