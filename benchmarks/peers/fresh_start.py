"""What a runtime costs before its first answer: import, load, first inference, memory, in a new process.

    python -m benchmarks.peers.fresh_start REQUEST

is how `measure` starts that process; REQUEST is JSON. The answer, JSON too, is its last line on stdout.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.peers.runtimes import Row, load, prepare_import
from platform.errors import UserError

TIMEOUT_S = 600


def measure(row: Row, path: Path, *, threads: int, input_shape: tuple[int, int, int]) -> dict[str, float]:
    """Return what a new process measured of itself.

    `import_ms`, `load_ms`, `first_inference_ms`, `load_cpu_ms` (processor time, steadier than the clock on a
    busy machine), `start_rss_mb`, `peak_rss_mb`. Memory is in MiB and that of the whole process, Python with
    it; `start_rss_mb` is what it had before it imported the runtime.

    Raises:
        UserError: the process failed.
    """
    request = {**asdict(row), "path": str(path), "threads": threads, "input_shape": input_shape}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers.fresh_start", json.dumps(request)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise UserError(f"{row.name} in {row.precision} failed in a process of its own: {said[0]}")
    answer: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def answer(request: dict[str, Any]) -> dict[str, float]:
    """Do what `measure` asks for, in this process."""
    import numpy as np

    row = Row(runtime=request["runtime"], precision=request["precision"], variant=request["variant"])
    image = np.zeros((1, *request["input_shape"]), np.float32)
    start_rss_mb = _memory_mb("VmRSS")
    moments = [time.perf_counter()]
    prepare_import(row.runtime)
    moments.append(time.perf_counter())
    cpu_begin = time.process_time()
    infer = load(row, Path(request["path"]), threads=request["threads"])
    load_cpu_ms = 1e3 * (time.process_time() - cpu_begin)
    moments.append(time.perf_counter())
    infer(image)
    moments.append(time.perf_counter())
    for _ in range(3):
        infer(image)
    steps = [1e3 * (after - before) for before, after in pairwise(moments)]
    return {
        "import_ms": steps[0],
        "load_ms": steps[1],
        "load_cpu_ms": load_cpu_ms,
        "first_inference_ms": steps[2],
        "start_rss_mb": start_rss_mb,
        # Not getrusage: a process started by another one inherits the other's peak there.
        "peak_rss_mb": _memory_mb("VmHWM"),
    }


def _memory_mb(key: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{key}:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise UserError(f"this system tells no {key} in /proc/self/status; the comparison needs Linux")


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.argv[1]))))
