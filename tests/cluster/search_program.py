"""Searches on a cluster: `python -m tests.cluster.search_program RUNS begin|resume`.

`begin` runs a trial of two workers, and then begins a search of single-worker trials, in which the driver
kills itself after the second epoch of a trial on another node. `resume` resumes that search.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from platform.common.errors import run_command
from platform.data.catalog import prepare_dataset
from platform.data.config import DataConfig
from platform.tracking.events import SweepObserver, TrialInfo
from platform.training.records import EpochRecord
from platform.tuning.execution.cluster_session import session
from platform.tuning.execution.stage_context import Placement
from tests.tuning.execution.examples import TWO_WORKERS, search, sgd, tiny_spec

TRIALS, EPOCHS = 4, 4
SPEC = tiny_spec(
    base={**tiny_spec().base.model_dump(), "epochs": EPOCHS},
    start_from=[sgd(0.01 + 0.01 * number) for number in range(TRIALS)],
    trials=TRIALS,
    scheduler={"name": "none"},
)
PAIR_SPEC = SPEC.model_copy(update={"trials": 1, "workers_per_trial": 2})
FOLDER, PAIR_FOLDER = "tiny-20260101-000000", "tiny-20260102-000000"
TWO_SLOTS = Placement(backend="inproc", workers=1, cpus_per_worker=1, gpus_per_worker=0, concurrent=2)


class _Observer(SweepObserver):
    kill = False

    def sweep_noted(self, note: str) -> None:
        print(note, flush=True)

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
        if self.kill and record.moved_bytes is not None and record.epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the stage; the last line of the output of `resume` is a JSON object with each trial's losses."""
    runs, stage = Path(sys.argv[1]), sys.argv[2]
    info, observer = prepare_dataset(DataConfig(name="generated")), _Observer()
    for name in (FOLDER, PAIR_FOLDER):
        (runs / name).mkdir(parents=True, exist_ok=True)
    with session():
        if stage == "begin":
            search(PAIR_SPEC, runs / PAIR_FOLDER, info, observer=observer, placement=TWO_WORKERS)
            observer.kill = True
        outcomes = search(SPEC, runs / FOLDER, info, observer=observer, placement=TWO_SLOTS)
    for outcome in outcomes:
        assert outcome.error is None, outcome.error
    losses = {
        outcome.task.trial_id: [record.train_loss for record in outcome.records] for outcome in outcomes
    }
    print(json.dumps(losses))


if __name__ == "__main__":
    run_command(main)
