"""Measure a runtime's startup cost in a new process: import, load, first inference, memory.

    python -m benchmarks.peers.startup_cost REQUEST

`measure_startup` runs this command. REQUEST is JSON; the result is the last line of stdout, as JSON.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.peers.runtimes import Row, import_runtime, load
from deploy.engine_build.engine_model import LIBRARY_VARIABLE
from platform.common.errors import UserError

TIMEOUT_S = 600


def measure_startup(
    row: Row, path: Path, *, threads: int, input_shape: tuple[int, int, int]
) -> dict[str, float]:
    """Return the startup cost that a new process measures.

    `import_ms`, `load_ms`, `first_inference_ms`, and `peak_rss_mb`, the memory in MiB of the whole process,
    including Python.

    Raises:
        UserError: the process failed.
    """
    from deploy.engine_build.engine import ensure_engine

    # The measured process must not import the build tools to find the library.
    library = str(ensure_engine().library)
    request = {**asdict(row), "path": str(path), "threads": threads, "input_shape": input_shape}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers.startup_cost", json.dumps(request)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, LIBRARY_VARIABLE: library},
        check=False,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise UserError(f"{row.name} in {row.precision} failed in a new process: {last[0]}")
    costs: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return costs


def startup_cost(request: dict[str, Any]) -> dict[str, float]:
    """Measure the startup cost in this process."""
    import numpy as np

    row = Row(runtime=request["runtime"], precision=request["precision"], variant=request["variant"])
    image = np.zeros((1, *request["input_shape"]), np.float32)
    moments = [time.perf_counter()]
    import_runtime(row.runtime)
    moments.append(time.perf_counter())
    infer = load(row, Path(request["path"]), threads=request["threads"])
    moments.append(time.perf_counter())
    infer(image)
    moments.append(time.perf_counter())
    for _ in range(3):
        infer(image)
    steps = [1e3 * (after - before) for before, after in pairwise(moments)]
    return {
        "import_ms": steps[0],
        "load_ms": steps[1],
        "first_inference_ms": steps[2],
        # Not getrusage: its peak includes the parent's.
        "peak_rss_mb": _peak_mb(),
    }


def _peak_mb() -> float:
    found = re.search(
        r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    )
    if found is None:
        raise UserError("/proc/self/status has no VmHWM; the comparison requires Linux")
    return round(int(found[1]) / 1024, 1)


if __name__ == "__main__":
    print(json.dumps(startup_cost(json.loads(sys.argv[1]))))
