"""What a sweep's machinery costs: time training / (slots x wall time), and seconds lost per trial by cause.

    python -m benchmarks.sweep_overhead                              # 12 trials of 20 s, three times: 7 min
    python -m benchmarks.sweep_overhead --backends ddp --trials 6    # 12 min
    python -m benchmarks.sweep_overhead --trial-s 5 --json overhead.json

A real search (Ray Tune, journal, tables; random sampler, no early stopping) over generated pictures; each
trial is as long as `--trial-s` says, by a calibration beforehand. Everything is read from the sweep's
journal, where each line has its time. Slot seconds that did not go into epochs are lost to one of:

    begin    from the search's beginning to a slot's first trial
    start    from a trial's creation to the beginning of its first epoch: process, imports, data, network
    between  between its epochs: checkpoint, report, scheduler
    end      after its last epoch: the model is written
    turn     from a trial's end to the creation of the next one on its slot
    idle     at the end of the search, when there are no more trials

`ddp` runs one trial over all slots by Ray Train. The start of Ray itself is told beside.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.command import Parser, at_least, one_of, several_of
from platform.errors import UserError, run_command
from platform.tuning.journal.journal import Event, read_journal

BACKENDS = ("inproc", "ddp")
CAUSES = ("begin", "start", "between", "end", "turn", "idle")
_EPOCHS = 4


@dataclass
class _Trial:
    created: float
    epochs: list[tuple[float, float]] = field(default_factory=list)
    """When each one was noted, and how long it took, evaluation included."""
    ended: float = 0.0


def losses(events: Sequence[Event], *, slots: int, workers: int = 1) -> dict[str, Any]:
    """Return where the slot seconds of a search went.

    Args:
        events: the journal of a search that was not interrupted.
        slots: worker slots of the cluster.
        workers: slots that one trial takes.

    Returns:
        wall_s, train_s (slot seconds in epochs), efficiency, and under `lost_s` slot seconds by cause; all
        of them add up to slots x wall_s.

    Raises:
        UserError: there is no search in the journal, or it did not come to its end.
    """
    trials: dict[str, _Trial] = {}
    began: float | None = None
    for event in events:
        if event.at is None:
            raise UserError("the journal is of before its lines had times")
        if event.kind == "begin":
            began = event.at
        elif event.task is not None and event.task.stage == "search":
            trials[event.trial_id] = _Trial(created=event.at)
        elif event.record is not None and event.trial_id in trials:
            took = event.record.epoch_s + event.record.evaluation_s
            trials[event.trial_id].epochs.append((event.at, took))
        elif event.kind == "ended" and event.trial_id in trials:
            trials[event.trial_id].ended = event.at
    if began is None or not trials or any(not trial.ended or not trial.epochs for trial in trials.values()):
        raise UserError("overhead is measured on a search whose trials all came to their end")
    # A new trial takes the slot that has been free for longest; at first all are free since the beginning.
    groups = max(1, slots // workers)
    free: list[tuple[float, bool]] = [(began, True)] * groups
    lost = dict.fromkeys(CAUSES, 0.0)
    train_s = 0.0
    for trial in sorted(trials.values(), key=lambda trial: trial.created):
        since, first = min(free)
        free.remove((since, first))
        lost["begin" if first else "turn"] += trial.created - since
        previous = trial.created
        for position, (noted, took) in enumerate(trial.epochs):
            lost["between" if position else "start"] += noted - previous - took
            train_s += took
            previous = noted
        lost["end"] += trial.ended - previous
        free.append((trial.ended, False))
    over = max(trial.ended for trial in trials.values())
    lost["idle"] = sum(over - since for since, _ in free)
    lost = {cause: workers * lost_s for cause, lost_s in lost.items()}
    # Slots that no whole trial fits into.
    lost["idle"] += (slots - groups * workers) * (over - began)
    return {
        "wall_s": over - began,
        "train_s": workers * train_s,
        "efficiency": workers * train_s / (slots * (over - began)),
        "lost_s": lost,
        "trials": len(trials),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the searches, print the table, write the record."""
    given = _parser().parse(arguments)
    where = record.context()
    results = []
    for backend in given.backends:
        for repetition in range(given.repetitions):
            print(f"{backend}, {repetition + 1} of {given.repetitions}", file=sys.stderr)
            results.append({"backend": backend, **_search(backend, given)})
    settings = {
        "trials": given.trials,
        "trial_s": given.trial_s,
        "slots": given.slots,
        "epochs": _EPOCHS,
        "model": given.model,
    }
    print(table(where, settings, results))
    if given.json:
        record.write(given.json, record.document("sweep_overhead", where, settings, results))
    return 0


def _parser() -> Parser:
    parser = Parser("sweep_overhead", "What a sweep's machinery costs.")
    add = parser.add_argument
    add("--backends", type=several_of(BACKENDS), default=["inproc"], metavar="A,B", help="default: inproc")
    add("--trials", type=at_least(1), default=12, metavar="N", help="default: 12")
    add("--trial-s", type=float, default=20.0, metavar="S", help="length of a trial; default: 20")
    add("--slots", type=at_least(1), default=2, metavar="N", help="one core each; default: 2")
    add("--repetitions", type=at_least(1), default=3, metavar="N", help="searches per backend; default: 3")
    add("--model", type=one_of(("resnet20_cifar", "resnet32_cifar")), default="resnet20_cifar", metavar="M")
    return parser


def _search(backend: str, given: argparse.Namespace) -> dict[str, Any]:
    from platform.data.catalog import prepare
    from platform.schema import validate
    from platform.space.spec import SweepSpec
    from platform.tracking.events import SweepObserver
    from platform.tracking.parquet_tables import TableWriter
    from platform.tracking.sweep_folder import SweepFolder
    from platform.tuning.execution.cluster_session import session
    from platform.tuning.execution.tuner_run import Placement
    from platform.tuning.planning.calibration import Question, calibrate
    from platform.tuning.search_stage import run_search

    def spec_of(images: int) -> SweepSpec:
        return validate(SweepSpec, _space(given.model, images, given.trials), source="sweep_overhead")

    info = prepare(spec_of(1).base.data)
    question = Question(run=spec_of(1).base, data_path=str(info.path), threads=1, gpu=False)
    speed = calibrate(question, processes=given.slots)
    workers = given.slots if backend == "ddp" else 1
    # Half as many images are held out as trained on.
    image_s = 1 / speed.train_images_per_s + 0.5 / speed.evaluation_images_per_s
    images = max(128, int(given.trial_s / _EPOCHS / image_s) * workers)
    spec = spec_of(min(images, info.train_images - spec_of(1).base.data.validation_size))
    placement = Placement(
        backend="ddp" if backend == "ddp" else "inproc",
        workers=workers,
        cpus_per_worker=1,
        gpus_per_worker=0,
        concurrent=given.slots // workers,
    )
    with tempfile.TemporaryDirectory(prefix="overhead-") as scratch:
        folder = SweepFolder(Path(scratch) / "overhead-20000101-000000")
        folder.path.mkdir()
        observer: SweepObserver = TableWriter(folder)
        before = time.perf_counter()
        with session(num_cpus=given.slots, num_gpus=0):
            ray_start_s = time.perf_counter() - before
            run_search(spec, placement, folder=folder, info=info, observer=observer)
        found = losses(read_journal(folder.journal), slots=given.slots, workers=workers)
    return {**found, "ray_start_s": ray_start_s, "images_per_trial_epoch": spec.base.data.train_limit}


def _space(model: str, images: int, trials: int) -> dict[str, Any]:
    return {
        "name": "sweep_overhead",
        "base": {
            "model": {"name": model},
            "data": {"name": "generated", "train_limit": images, "validation_size": 4000},
            "epochs": _EPOCHS,
            "batch_size": 128,
            "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
            "schedule": {"name": "constant"},
        },
        "search": {"optimizer.lr": {"log_uniform": [0.01, 0.2]}},
        "trials": trials,
        "sampler": {"name": "random"},
        "scheduler": {"name": "none"},
    }


def table(where: Mapping[str, Any], settings: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """Return the table for people: one line per search, slot seconds lost per trial by cause."""
    causes = " ".join(f"{cause:>8}" for cause in CAUSES)
    lines = [
        record.describe(where),
        f"{settings['trials']} trials of about {settings['trial_s']:g} s on {settings['slots']} slots",
        "",
        f"{'backend':8} {'training':>9} {'wall s':>7} {'Ray s':>6}  slot seconds lost per trial: {causes}",
    ]
    return "\n".join([*lines, *map(_line, results)])


def _line(row: Mapping[str, Any]) -> str:
    lost = " ".join(f"{row['lost_s'][cause] / row['trials']:8.2f}" for cause in CAUSES)
    head = f"{row['backend']:8} {row['efficiency']:9.1%} {row['wall_s']:7.1f} {row['ray_start_s']:6.1f}"
    return f"{head}  {'':28} {lost}"


if __name__ == "__main__":
    run_command(main)
