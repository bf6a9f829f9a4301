"""A search on a cluster: `python -m tests.cluster.search_program FOLDER STAGE`.

STAGE is `killed` (the driver kills itself after the second epoch of a trial on another node), `resumed`, or
`workers` (one trial of two workers).
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
TWO_SLOTS = Placement(backend="inproc", workers=1, cpus_per_worker=1, gpus_per_worker=0, concurrent=2)
PAIR = SPEC.model_copy(update={"trials": 1, "workers_per_trial": 2})


class _Observer(SweepObserver):
    def __init__(self, *, kill: bool) -> None:
        self._kill = kill

    def cluster_changed(self, note: str) -> None:
        print(note, flush=True)

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
        if self._kill and record.moved_bytes is not None and record.epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the stage; the last line of the output is a JSON object with the losses of each trial."""
    folder, stage = Path(sys.argv[1]), sys.argv[2]
    folder.mkdir(parents=True, exist_ok=True)
    info, observer = prepare_dataset(DataConfig(name="generated")), _Observer(kill=stage == "killed")
    with session():
        if stage == "workers":
            outcomes = search(PAIR, folder, info, observer=observer, placement=TWO_WORKERS)
        else:
            outcomes = search(SPEC, folder, info, observer=observer, placement=TWO_SLOTS)
    for outcome in outcomes:
        assert outcome.error is None, outcome.error
    losses = {
        outcome.info.trial_id: [record.train_loss for record in outcome.records] for outcome in outcomes
    }
    print(json.dumps(losses))


if __name__ == "__main__":
    run_command(main)
