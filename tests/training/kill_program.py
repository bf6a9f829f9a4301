"""Program of test_kill.py: runs platform.train and kills it repeatedly.

Each run is forked from this process, which has PyTorch loaded, so that it starts quickly.

kill_program.py SPACE FOLDER SEED KILLS; writes FOLDER/log.json: the finished epochs and the temporary files
after each kill.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import matplotlib.figure  # noqa: F401 - loaded once, for all children
import torch
import torch._dynamo

import platform.train
from platform.training import loop  # noqa: F401 - loaded once, for all children
from platform.training.checkpoint import read_records


def start(*arguments: str) -> int:
    """Run `python -m platform.train ARGUMENTS...` in a child; returns its process id."""
    child = os.fork()
    if child:
        return child
    sys.argv = ["platform.train", *arguments]
    torch.set_num_threads(1)
    code = 1
    try:
        code = platform.train.main()
    finally:
        # Skip the interpreter's cleanup, which belongs to the parent.
        os._exit(code)


def ended(child: int) -> bool:
    """Return whether the child has ended; exit if it failed."""
    found, status = os.waitpid(child, os.WNOHANG)
    if found and status:
        raise SystemExit(f"a run failed with status {status}")
    return bool(found)


def kill(child: int) -> None:
    """Send SIGKILL."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def killed_while_writing(child: int, run: Path, checkpoints: int) -> bool:
    """Kill while a checkpoint is being written, after `checkpoints` others; return whether it was killed."""
    last, seen = run / "last.pt", 0
    written_ns = last.stat().st_mtime_ns if last.is_file() else 0
    while seen < checkpoints or not list(run.glob(".last.pt.*.tmp")):
        if ended(child):
            return False
        if last.is_file() and last.stat().st_mtime_ns != written_ns:
            written_ns, seen = last.stat().st_mtime_ns, seen + 1
    kill(child)
    return True


def killed_at(child: int, delay_s: float) -> bool:
    """Kill after `delay_s`; return whether the child was still running."""
    time.sleep(delay_s)
    if ended(child):
        return False
    kill(child)
    return True


def main() -> None:
    """Train once undisturbed, then again with `KILLS` kills."""
    space, folder, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[4])
    rng = random.Random(sys.argv[3])  # noqa: S311 - not security-relevant
    whole = folder / "whole"
    child, began_s = start(space, "--output", str(whole)), time.monotonic()
    while not ended(child):
        if not (whole / "run.json").is_file():
            began_s = time.monotonic()
        time.sleep(0.01)
    training_s = time.monotonic() - began_s
    run, log = folder / "run", []
    while True:
        begun = (run / "run.json").is_file()
        child = start("--resume", str(run)) if begun else start(space, "--output", str(run))
        if len(log) == kills:
            while not ended(child):
                time.sleep(0.01)
            break
        if len(log) % 2 == 0:
            killed = killed_while_writing(child, run, checkpoints=rng.randrange(2))
        else:
            killed = killed_at(child, rng.uniform(0, training_s))
        if not killed:
            break
        # Raises an error if the checkpoint is damaged.
        epochs = len(read_records(run))
        log.append({"epochs": epochs, "unfinished": sorted(path.name for path in run.glob(".*.tmp"))})
    (folder / "log.json").write_text(json.dumps(log))


if __name__ == "__main__":
    main()
