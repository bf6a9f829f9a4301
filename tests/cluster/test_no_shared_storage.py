"""Two nodes that share no folder: images, checkpoints, models and logs are copied."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from platform.data.catalog import prepare_dataset
from platform.data.config import DataConfig
from platform.data.training_data import load_training_data
from platform.space.spec import trial_seed
from platform.training.checkpoint import read_records
from platform.training.config import RunConfig
from platform.training.distributed import single
from platform.training.loop import fit
from platform.tuning.journal.journal import read_journal
from platform.tuning.journal.ledger import Ledger, replay
from tests.cluster.namespaces import PORT, Machine, machines, wait_for_nodes
from tests.cluster.search_program import EPOCHS, SPEC, TRIALS
from tests.tuning.execution.examples import sgd

FOLDER, PAIR_FOLDER = "runs/tiny-20260101-000000", "runs/tiny-20260102-000000"


def program(head: Machine, stage: str, folder: str = FOLDER) -> tuple[int, str, dict[str, list[float]]]:
    """Run a stage on the head; return its exit code, its messages and the losses of each trial."""
    done = head.run(
        *(sys.executable, "-m", "tests.cluster.search_program", str(head.disk / folder), stage),
        env={"RAY_ADDRESS": f"{head.address}:{PORT}"},
        check=stage != "killed",
        timeout_s=300,
    )
    *messages, last = done.stdout.splitlines() or [""]
    if done.returncode:
        return done.returncode, done.stdout, {}
    return 0, "\n".join(messages), json.loads(last)


def ledger(folder: Path) -> Ledger:
    return replay(read_journal(folder / "journal.jsonl"))


def trained_alone(config: RunConfig, cache_dir: Path) -> list[float]:
    """Return the losses of a run without Ray."""
    info = prepare_dataset(DataConfig(name="generated"), cache_dir=cache_dir)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        data = load_training_data(config.data, info)
        result = fit(config, data, world=single("cpu"), checkpoint_dir=None)
    finally:
        torch.set_num_threads(threads)
    return [record.train_loss for record in result.epochs]


@pytest.mark.timeout(900)
def test_a_search_and_a_worker_group_use_nodes_that_share_no_folder(tmp_path: Path) -> None:
    with machines(tmp_path, count=2) as (head, worker):
        head.start_ray("--head")
        worker.start_ray(f"--address={head.address}:{PORT}")
        wait_for_nodes(head, 2)
        folder = head.folder / FOLDER

        code, messages, _ = program(head, "killed")
        assert code == -9, messages
        assert f"the images were copied to {worker.address}" in messages
        assert list((worker.folder / "home/.cache/resnet-sweep-platform/datasets").glob("generated-*"))
        running = ledger(folder).trials
        [moving] = [
            trial_id
            for trial_id, trial in running.items()
            if trial.status is None and any(record.moved_bytes for record in trial.records)
        ]
        for trial_id, trial in running.items():
            in_checkpoint = read_records(folder / "checkpoints" / trial_id)
            assert len(in_checkpoint) >= len(trial.records), "an epoch was journaled before its checkpoint"

        pair = head.folder / PAIR_FOLDER
        code, messages, _ = program(head, "workers", PAIR_FOLDER)
        assert code == 0
        assert len(ledger(pair).trials["t000"].records) == EPOCHS
        assert "worker 1 of 2" in (pair / "logs" / "t000.rank1.log").read_text()
        assert "copied" not in messages, "the images were copied twice"
        assert not list((worker.folder / "home/.cache/resnet-sweep-platform/trials").iterdir())

        worker.stop_ray()
        wait_for_nodes(head, 1)
        code, _, losses = program(head, "resumed")
        assert code == 0
        assert list(losses) == [f"t{number:03d}" for number in range(TRIALS)]
        for sweep, trial_id in [(pair, "t000"), *((folder, trial_id) for trial_id in losses)]:
            files = {path.name for path in (sweep / "checkpoints" / trial_id).iterdir()}
            assert files == {"last.pt", "model.pt"}, trial_id
            assert f"epoch {EPOCHS}/{EPOCHS}" in (sweep / "logs" / f"{trial_id}.log").read_text()
        starts = (folder / "logs" / f"{moving}.log").read_text().count("--- ")
        assert starts == 2
        assert not list(folder.rglob("*.tmp"))
        assert not (worker.folder / "runs").exists()

    number = int(moving.removeprefix("t"))
    config = SPEC.resolve(sgd(0.01 + 0.01 * number), seed=trial_seed(SPEC, number))
    assert losses[moving] == trained_alone(config, tmp_path / "cache")
