"""Measure a sweep's overhead: training time / (slots x wall time), and seconds lost per trial by cause.

    python -m benchmarks.sweep_overhead                              # 12 trials of 20 s, three times: 7 min
    python -m benchmarks.sweep_overhead --backends ddp --trials 6    # 12 min
    python -m benchmarks.sweep_overhead --trial-s 5 --json overhead.json

The benchmark runs a real search (Ray Tune, journal, tables; random sampler, no early stopping) on generated
images. A calibration sets the trials' length to `--trial-s`. The times are those of the sweep's journal. Slot
seconds outside epochs are attributed to one of:

    begin    from the start of the search to a slot's first trial
    start    from a trial's creation to the start of its first epoch: process, imports, data, network
    between  between a trial's epochs: checkpoint, report, scheduler
    end      after a trial's last epoch: writing the model
    turn     from a trial's end to the creation of the slot's next trial
    idle     at the end of the search, without trials left

`ddp` runs one trial over all slots with Ray Train. The startup time of Ray is reported separately.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.command import Parser, at_least, several_of
from platform.common.errors import UserError, run_command
from platform.tuning.journal.event import Event
from platform.tuning.journal.journal import read_journal
from platform.tuning.journal.ledger import replay

BACKENDS = ("inproc", "ddp")
CAUSES = ("begin", "start", "between", "end", "turn", "idle")
_EPOCHS = 4


@dataclass
class _Trial:
    created: float
    epochs: list[tuple[float, float]]
    """Time of the journal line and duration with evaluation, of each epoch."""
    ended: float
    """0 if the trial has not ended."""


def lost_time(events: Sequence[Event], *, slots: int, workers: int = 1) -> dict[str, Any]:
    """Return the slot seconds of a search by use.

    Args:
        events: the journal of an uninterrupted search.
        slots: worker slots of the cluster.
        workers: slots per trial.

    Returns:
        `wall_s`, `train_s` (slot seconds in epochs), `efficiency`, and `lost_s`, the lost slot seconds by
        cause; `train_s` and `lost_s` add up to slots x wall_s.

    Raises:
        UserError: the journal has no search, or an unfinished one.
    """
    ledger = replay(events)
    began = max((event.at for event in events if event.kind == "begin"), default=None)
    trials = [
        _Trial(
            created=trial.created_at,
            epochs=[
                (at, epoch.epoch_s + epoch.evaluation_s)
                for at, epoch in zip(trial.recorded_at, trial.records, strict=True)
            ],
            ended=trial.ended_at or 0.0,
        )
        for trial in ledger.stage("search")
    ]
    if began is None or not trials or any(not trial.ended or not trial.epochs for trial in trials):
        raise UserError("overhead can only be measured on a search whose trials are all finished")
    # A new trial takes the slot that has been free for the longest time.
    groups = max(1, slots // workers)
    free: list[tuple[float, bool]] = [(began, True)] * groups
    lost = dict.fromkeys(CAUSES, 0.0)
    train_s = 0.0
    for trial in sorted(trials, key=lambda trial: trial.created):
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
    end = max(trial.ended for trial in trials)
    lost["idle"] = sum(end - since for since, _ in free)
    lost = {cause: workers * lost_s for cause, lost_s in lost.items()}
    # Slots left over because a trial needs several.
    lost["idle"] += (slots - groups * workers) * (end - began)
    return {
        "wall_s": end - began,
        "train_s": workers * train_s,
        "efficiency": workers * train_s / (slots * (end - began)),
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
    }
    print(table(where, settings, results))
    if given.json:
        record.write(given.json, record.document("sweep_overhead", where, settings, results))
    return 0


def _parser() -> Parser:
    parser = Parser(
        "sweep_overhead",
        "Measure a sweep's overhead: the share of training time, and seconds lost per trial by cause.",
    )
    add = parser.add_argument
    add("--backends", type=several_of(BACKENDS), default=["inproc"], metavar="A,B", help="default: inproc")
    add("--trials", type=at_least(1), default=12, metavar="N", help="default: 12")
    add("--trial-s", type=float, default=20.0, metavar="S", help="duration of a trial; default: 20")
    add("--slots", type=at_least(1), default=2, metavar="N", help="one core each; default: 2")
    add("--repetitions", type=at_least(1), default=3, metavar="N", help="searches per backend; default: 3")
    return parser


def _search(backend: str, given: argparse.Namespace) -> dict[str, Any]:
    from platform.common.schema import validate
    from platform.data.catalog import prepare_dataset
    from platform.space.spec import SweepSpec
    from platform.tracking.events import SweepObserver
    from platform.tracking.parquet_tables import TableWriter
    from platform.tracking.sweep_folder import SweepFolder
    from platform.tuning.execution.cluster_session import session
    from platform.tuning.execution.stage_context import Placement, StageContext
    from platform.tuning.planning.calibration import CalibrationRequest, calibrate
    from platform.tuning.search_stage import run_search

    def spec_of(images: int) -> SweepSpec:
        return validate(SweepSpec, _space(images, given.trials), source="sweep_overhead")

    info = prepare_dataset(spec_of(1).base.data)
    request = CalibrationRequest(run=spec_of(1).base, data_path=str(info.path), threads=1, gpu=False)
    speed = calibrate(request, processes=given.slots)
    workers = given.slots if backend == "ddp" else 1
    # The data set has one held-out image per two training images.
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
            run_search(spec, StageContext(placement=placement, folder=folder, info=info, observer=observer))
        found = lost_time(read_journal(folder.journal), slots=given.slots, workers=workers)
    return {**found, "ray_start_s": ray_start_s, "images_per_trial_epoch": spec.base.data.train_limit}


def _space(images: int, trials: int) -> dict[str, Any]:
    return {
        "name": "sweep_overhead",
        "base": {
            "model": {"name": "resnet20_cifar"},
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
    """Format the results: one line per search, slot seconds lost per trial by cause."""
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
