"""A search in its own process, for tests that kill it: `python sweep_program.py FOLDER DATA`."""

from __future__ import annotations

import sys
from pathlib import Path

from platform.common.errors import run_command
from platform.data.cache import open_info
from platform.tracking.events import SweepObserver, TrialInfo, TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.execution.cluster_session import session
from tests.tuning.execution.examples import search, sgd, tiny_spec


class PrintingObserver(SweepObserver):
    """Prints every event."""

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
        print(f"{trial.trial_id} epoch {record.epoch}", flush=True)

    def trial_ended(self, trial: TrialInfo, status: TrialStatus, *, error: str | None = None) -> None:
        print(f"{trial.trial_id} {status}", flush=True)


def main() -> None:
    """Run a search that takes longer than the test."""
    spec = tiny_spec(base={**tiny_spec().base.model_dump(), "epochs": 500}, start_from=[sgd(0.01)], trials=1)
    with session(num_cpus=1):
        search(spec, Path(sys.argv[1]), open_info(Path(sys.argv[2])), observer=PrintingObserver())


if __name__ == "__main__":
    run_command(main)
