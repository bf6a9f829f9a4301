"""Small trials and epochs for the tests of the sweep observers."""

from pathlib import Path

from platform.models.config import ModelConfig
from platform.tracking.events import SweepInfo, TrialHistory, TrialInfo
from platform.training.config import Cosine, RunConfig, Sgd
from platform.training.records import EpochRecord


def run_config(**changes):
    base = RunConfig(
        model=ModelConfig(name="resnet32_cifar"),
        epochs=3,
        optimizer=Sgd(name="sgd", lr=0.1),
        schedule=Cosine(name="cosine"),
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
    return SweepInfo(
        **{
            "sweep_id": folder.name,
            "space": "resnet32_cifar",
            "folder": folder,
            "command": "python -m platform.sweep resnet32_cifar",
            "plan": {"trials": 4},
            "tags": {"git_commit": "abc1234", "data_label": "cifar10"},
            "trials": 4,
            **changes,
        }
    )
