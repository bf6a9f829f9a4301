"""A search on a cluster that prints every event: `python -m tests.cluster.nodes_program FOLDER TRIALS N`."""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from platform.common.errors import run_command
from platform.data.catalog import prepare_dataset
from platform.data.config import DataConfig
from platform.tracking.events import SweepObserver, TrialInfo, TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.execution.cluster_session import session
from platform.tuning.execution.stage_context import Placement
from tests.tuning.execution.examples import search, sgd, tiny_spec


class _Observer(SweepObserver):
    def trial_started(self, trial: TrialInfo) -> None:
        print(f"{trial.trial_id} started", flush=True)

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
        print(f"{trial.trial_id} epoch {record.epoch}", flush=True)

    def trial_ended(self, trial: TrialInfo, status: TrialStatus, *, error: str | None = None) -> None:
        print(f"{trial.trial_id} {status} {error or ''}", flush=True)

    def sweep_noted(self, note: str) -> None:
        print(note, flush=True)


def _concurrent_on(nodes: Sequence[Mapping[str, float]]) -> int:
    return max(1, int(sum(node["CPU"] for node in nodes)))


def main() -> None:
    """Run or resume the search."""
    faulthandler.register(signal.SIGUSR2)
    folder, trials, epochs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    spec = tiny_spec(
        base={**tiny_spec().base.model_dump(), "epochs": epochs},
        start_from=[sgd(0.01 + 0.001 * number) for number in range(trials)],
        trials=trials,
        scheduler={"name": "none"},
        stop={"hopeless_trials": False},
    )
    info = prepare_dataset(DataConfig(name="generated"))
    with session() as nodes:
        placement = Placement(
            backend="inproc",
            workers=1,
            cpus_per_worker=1,
            gpus_per_worker=0,
            concurrent=_concurrent_on(nodes),
            concurrent_on=_concurrent_on,
        )
        print(f"nodes: {len(nodes)}", flush=True)
        search(spec, folder, info, observer=_Observer(), placement=placement)


if __name__ == "__main__":
    run_command(main)
