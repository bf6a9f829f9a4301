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
from tests.cluster.search_program import EPOCHS, FOLDER, PAIR_FOLDER, SPEC, TRIALS
from tests.tuning.execution.examples import sgd


def program(head: Machine, stage: str, *, code: int) -> list[str]:
    """Run a stage on the head, and return the lines of its output."""
    done = head.run(
        *(sys.executable, "-m", "tests.cluster.search_program", str(head.disk / "runs"), stage),
        env={"RAY_ADDRESS": f"{head.address}:{PORT}"},
        check=False,
        timeout_s=300,
    )
    assert done.returncode == code, f"{done.stdout[-1000:]}{done.stderr[-3000:]}"
    return done.stdout.splitlines()


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
        folder, pair = (head.folder / "runs" / name for name in (FOLDER, PAIR_FOLDER))
        node_cache = worker.folder / "home/.cache/resnet-sweep-platform"

        messages = program(head, "begin", code=-9)
        copied = [message for message in messages if " were copied to " in message]
        assert len(copied) == 1, messages
        assert copied[0].startswith(f"the images were copied to {worker.address} in ")
        assert list((node_cache / "datasets").glob("generated-*"))
        assert len(ledger(pair).trials["t000"].records) == EPOCHS
        assert "worker 1 of 2" in (pair / "logs" / "t000.rank1.log").read_text()
        running = ledger(folder).trials
        [moving] = [
            trial_id
            for trial_id, trial in running.items()
            if trial.status is None and any(record.moved_bytes for record in trial.records)
        ]
        for trial_id, trial in running.items():
            in_checkpoint = read_records(folder / "checkpoints" / trial_id)
            assert len(in_checkpoint) >= len(trial.records), "an epoch was journaled before its checkpoint"

        worker.stop_ray()
        wait_for_nodes(head, 1)
        losses = json.loads(program(head, "resume", code=0)[-1])
        assert list(losses) == [f"t{number:03d}" for number in range(TRIALS)]
        for sweep, trial_id in [(pair, "t000"), *((folder, trial_id) for trial_id in losses)]:
            files = {path.name for path in (sweep / "checkpoints" / trial_id).iterdir()}
            assert files == {"last.pt", "model.pt"}, trial_id
            assert f"epoch {EPOCHS}/{EPOCHS}" in (sweep / "logs" / f"{trial_id}.log").read_text()
        assert (folder / "logs" / f"{moving}.log").read_text().count("--- ") == 2
        assert not list(folder.parent.rglob("*.tmp"))
        assert not (worker.folder / "runs").exists()

    number = int(moving.removeprefix("t"))
    config = SPEC.resolve(sgd(0.01 + 0.01 * number), seed=trial_seed(SPEC, number))
    assert losses[moving] == trained_alone(config, tmp_path / "cache")
