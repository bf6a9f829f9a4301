"""Small trials and epochs for the tests of the sweep observers, and an MLflow server."""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from platform.models.config import ModelConfig
from platform.space.space_files import load_space
from platform.tracking.events import SweepInfo, SweepOutcome, TrialHistory, TrialInfo, TrialStatus
from platform.training.config import Annealing, RunConfig, Sgd
from platform.training.records import EpochRecord
from platform.tuning.planning.plan import make_plan
from platform.tuning.sampling.study import Study

SEARCHED = [
    {"name": "optimizer", "kind": "alternatives", "values": "sgd, adam", "only_if": ""},
    {"name": "optimizer.sgd.lr", "kind": "log_uniform", "values": "0.01 to 1", "only_if": "optimizer = sgd"},
    {"name": "optimizer.adam.beta2", "kind": "choice", "values": "0.9", "only_if": "optimizer = adam"},
    {"name": "augment.cutout.length", "kind": "choice", "values": "0, 8", "only_if": ""},
]


def run_config(**changes):
    base = RunConfig(
        model=ModelConfig(name="resnet32_cifar"),
        epochs=3,
        optimizer=Sgd(name="sgd", lr=0.1),
        schedule=Annealing(name="cosine"),
    )
    return base.changed(**changes)


def trial(number=0, *, stage="search", params=None, **fields):
    trial_id = fields.pop("trial_id", f"t{number:03d}")
    return TrialInfo(
        trial_id=trial_id,
        stage=stage,
        number=number,
        config=fields.pop("config", run_config()),
        params=params if params is not None else {"optimizer": "sgd", "optimizer.sgd.lr": 0.1},
        **fields,
    )


def epoch(number, *, accuracy=None, **changes):
    return EpochRecord(
        **{
            "epoch": number,
            "epochs": 3,
            "step": 10 * number,
            "lr": 0.1 / number,
            "train_loss": 2.0 / number,
            "train_accuracy": 0.2 * number,
            "validation_loss": 2.1 / number,
            "validation_accuracy": accuracy if accuracy is not None else 0.2 * number,
            "grad_norm": 1.5,
            "epoch_s": 4.0,
            "evaluation_s": 0.5,
            "images_per_s": 1000.0,
            **changes,
        }
    )


def past(one, *records, status=None, error=None, note=None):
    """Return the history of a trial that was created at 1000 s and has one event every ten seconds."""
    return TrialHistory(
        trial=one,
        created_at=1000.0,
        records=records,
        recorded_at=tuple(1000.0 + 10 * (position + 1) for position in range(len(records))),
        status=status,
        error=error,
        note=note,
        ended_at=1000.0 + 10 * (len(records) + 1) if status is not None else None,
    )


def sweep(folder: Path, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    return SweepInfo(
        **{
            "sweep_id": folder.name,
            "space": "resnet32_cifar",
            "folder": folder,
            "command": "python -m platform.sweep resnet32_cifar",
            "plan": {"scheduler": "asha", "rows": SEARCHED},
            "tags": {"git_commit": "abc1234", "data_label": "cifar10"},
            "trials": 4,
            **changes,
        }
    )


def record_sweep(observer, folder: Path, *, space="resnet18_cifar", trials=6, epochs=6):
    """Record a search of a real search space, and the confirmation of two candidates, with made-up curves."""
    spec = load_space(space, overrides=[f"base.epochs={epochs}"])
    plan = make_plan(spec, [{"CPU": 2, "GPU": 0}])
    observer.sweep_started(
        sweep(
            folder,
            space=spec.name,
            plan=plan.model_dump(mode="json"),
            trials=trials,
            tags={"data_label": "cifar10", "data_sha256": "0123456789abcdef" * 4, "git_commit": "abc1234"},
        )
    )
    study, infos = Study(spec), []
    for number in range(trials):
        params = study.ask(f"t{number:03d}")
        one = trial(number, config=spec.resolve(params), params=params)
        accuracy = _record_trial(observer, one, stop_at=2 if number % 3 == 2 else None)
        study.ended(one.trial_id, TrialStatus.FINISHED, accuracy)
        infos.append((accuracy, one))
    for rank, (_, one) in enumerate(sorted(infos, key=lambda pair: -pair[0])[:2], start=1):
        for seed in range(2):
            config = one.config.changed(seed=seed)
            fields = {"trial_id": f"c{rank}-s{seed}", "stage": "confirm", "candidate": one.trial_id}
            _record_trial(observer, trial(seed, config=config, params=one.params, **fields))
    observer.sweep_ended(SweepOutcome(status="finished", metrics={"test/accuracy": 0.93}))


def _record_trial(observer, one, *, stop_at=None):
    """Record a trial whose accuracy falls with the distance of its learning rate from the best one."""
    config = one.config
    best = -0.8 if config.optimizer.name == "sgd" else -2.8
    final = 0.94 - 0.06 * abs(math.log10(config.optimizer.lr) - best) - 0.002 * (config.seed % 7)
    observer.trial_started(one)
    epochs = stop_at or config.epochs
    accuracy = 0.0
    for number in range(1, epochs + 1):
        accuracy = final * (1 - math.exp(-0.2 * number))
        record = epoch(
            number,
            epochs=config.epochs,
            accuracy=accuracy,
            lr=config.optimizer.lr * (1 - number / (config.epochs + 1)),
            train_accuracy=accuracy,
            train_loss=2.3 * math.exp(-0.1 * number),
            validation_loss=1.2 - accuracy,
        )
        observer.epoch_finished(one, record)
    observer.trial_ended(one, TrialStatus.PRUNED if stop_at else TrialStatus.FINISHED)
    return accuracy


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MlflowServer:
    """`mlflow server` on a fixed port."""

    def __init__(self, database, artifacts):
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._words = ["--backend-store-uri", database, "--artifacts-destination", str(artifacts)]

    def start(self):
        words = [*self._words, "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
                return
            assert self._process.poll() is None
            time.sleep(0.2)
        pytest.fail("the MLflow server does not start")

    def kill(self):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
