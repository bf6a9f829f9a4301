"""Run all GPU benchmarks, the most important first, within a time budget.

    python -m benchmarks.gpu_host                                   # 8 minutes
    python -m benchmarks.gpu_host --minutes 15 --data-dir ~/cifar10 --output runs/h100
    python -m benchmarks.gpu_host --only rates,he2016_resnet32 --minutes 5
    python -m benchmarks.gpu_host --show runs/h100                  # print the table of an earlier run
    python -m benchmarks.gpu_host --tiny                            # check that every step runs, on a CPU too

Each step runs in its own process with its own time limit and writes each result at once to `facts.jsonl` in
the output folder. At the end, or on Ctrl-C, it writes all results to `record.json` and prints the table;
`log.txt` has the steps' output. Required packages: PyTorch, torchvision, numpy, Pillow, pyarrow, psutil,
ruamel.yaml, pydantic and pytest.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from benchmarks import record
from benchmarks.command import Parser, at_least, say, several_of
from benchmarks.gpu_host.facts import StepRequest, append, document, read
from benchmarks.gpu_host.schedule import STEPS, Step, limit_of, plan
from benchmarks.gpu_host.step_process import run_step
from benchmarks.gpu_host.table import line, table
from platform.common.errors import UsageError, UserError, run_command

_FACTS, _RECORD, _LOG = "facts.jsonl", "record.json", "log.txt"
_TABLE_S = 5.0
"""Reserved for the end of the last step, the record and the table."""
_SILENCE_S = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps that fit, write the record, print the table; return the exit code."""
    began_s = time.monotonic()
    given = _parser().parse(arguments)
    if given.show:
        return _show(given.show)
    if not given.tiny:
        _require_gpu()
    folder = _new_folder(given.output)
    facts = folder / _FACTS
    steps = [step for step in STEPS if given.only is None or step.name in given.only]
    deadline_s = began_s + 60 * given.minutes - _TABLE_S
    planned = [step.name for step in plan(steps, deadline_s - time.monotonic())]
    settings = {"minutes": given.minutes, "only": given.only, "tiny": given.tiny, "planned": planned}
    append(facts, "context", context=record.context(), settings=settings)
    say(f"{given.minutes} minutes: {', '.join(planned)}; results in {folder}")
    request = StepRequest(
        facts=str(facts),
        limit_s=0.0,
        tiny=given.tiny,
        data_dir=str(given.data_dir.absolute()) if given.data_dir else None,
    )
    # Schedulers send SIGTERM at the end of a job: handle it like Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        done = _run(steps, request, folder / _LOG, deadline_s)
        code = 0 if done else 1
    except KeyboardInterrupt:
        code = 130
    finally:
        signal.signal(signal.SIGTERM, before)
    found = read(facts)
    record.write(folder / _RECORD, document(found))
    if given.json:
        record.write(given.json, document(found))
    print(table(found))
    say(f"record: {folder / _RECORD}")
    return code


def _parser() -> Parser:
    parser = Parser("gpu_host", "Run all GPU benchmarks, the most important first, within a time budget.")
    add = parser.add_argument
    add("--minutes", type=at_least(1), default=8, metavar="N", help="time budget; default: 8")
    names = ",".join(step.name for step in STEPS)
    add(
        "--only",
        type=several_of([step.name for step in STEPS]),
        metavar="STEP,...",
        help=f"steps to run, of {names}",
    )
    add("--output", type=Path, metavar="DIR", help="new output folder; default: runs/gpu-host-<time>")
    add(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder of CIFAR-10; default: $CIFAR10_DIR, else the cache",
    )
    add("--show", type=Path, metavar="DIR", help="only print the table of an earlier run")
    add(
        "--tiny",
        action="store_true",
        help="run every step at tiny size, on a CPU too; its numbers are meaningless",
    )
    return parser


def _show(folder: Path) -> int:
    found = read(folder / _FACTS)
    if not found:
        raise UsageError(f"--show takes the output folder of an earlier run; {folder / _FACTS} is not there")
    print(table(found))
    return 0


def _require_gpu() -> None:
    import torch

    from platform.tracking.provenance import gpu_names

    if not torch.cuda.is_available():
        listed = ", ".join(gpu_names()) or "none"
        raise UsageError(
            f"this benchmark needs a GPU that PyTorch can use: torch {torch.__version__} finds none "
            f"(nvidia-smi lists: {listed}); --tiny runs every step at tiny size on a CPU"
        )


def _new_folder(asked: Path | None) -> Path:
    folder = asked or Path("runs") / f"gpu-host-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    if (folder / _FACTS).exists():
        raise UsageError(f"{folder} already holds a run: give another --output, or print it with --show")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; give another --output") from None
    return folder.absolute()


def _run(steps: Sequence[Step], request: StepRequest, log: Path, deadline_s: float) -> bool:
    """Run each step that fits; return whether all of them succeeded."""
    facts = Path(request.facts)
    progress = _Progress(facts, deadline_s, seen=len(read(facts)))
    succeeded = True
    for number, step in enumerate(steps, start=1):
        limit_s = limit_of(step, deadline_s - time.monotonic())
        if limit_s is None:
            left_s = max(0.0, deadline_s - time.monotonic())
            why = f"takes about {step.expected_s:.0f} s, {left_s:.0f} s were left"
            append(facts, "step", name=step.name, outcome="skipped", seconds=0, why=why)
        else:
            try:
                progress.say(f"step {number} of {len(steps)}: {step.name}, at most {limit_s:.0f} s")
                ended = run_step(step, replace(request, limit_s=limit_s), log, tick=progress.tick)
            except KeyboardInterrupt:
                append(facts, "step", name=step.name, outcome="interrupted", seconds=progress.running_s)
                raise
            append(facts, "step", name=step.name, **ended)
            succeeded &= ended["outcome"] == "done"
        progress.show_new()
    return succeeded


@dataclass
class _Progress:
    """Prints new results, the step's running time and the time left to stderr."""

    facts: Path
    deadline_s: float
    seen: int
    running_s: float = 0.0
    _said_s: float = 0.0

    def say(self, message: str) -> None:
        left_s = max(0.0, self.deadline_s - time.monotonic())
        say(f"[{left_s:4.0f} s left] {message}")
        self._said_s = time.monotonic()

    def show_new(self) -> None:
        """Print the results since the last call, except epochs, which `tick` prints occasionally."""
        found = read(self.facts)
        new, self.seen = found[self.seen :], len(found)
        for fact in new:
            if fact["kind"] != "epoch":
                self.say(line(fact))

    def tick(self, running_s: float) -> None:
        self.running_s = running_s
        self.show_new()
        if time.monotonic() - self._said_s > _SILENCE_S:
            epochs = [line(fact) for fact in read(self.facts) if fact["kind"] == "epoch"]
            self.say(f"running for {running_s:.0f} s; {epochs[-1] if epochs else 'nothing new'}")


if __name__ == "__main__":
    run_command(main)
