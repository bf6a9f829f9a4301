"""Time to a given accuracy: measured time, rejected recipes, table."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import time_to_accuracy as tta
from platform.common.errors import UsageError
from platform.space.space_files import load_run
from platform.training.records import EpochRecord
from tests.benchmarks.examples import WHERE, epoch_record

RECIPE = """\
about: a test
base:
  model: {name: resnet20_cifar}
  data: {name: generated, validation_size: 100, train_limit: 64}
  epochs: 2
  batch_size: 32
  optimizer: {name: sgd, lr: 0.1}
  schedule: {name: SCHEDULE}
  precision: fp32
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    def build(_config: object, *, num_classes: int) -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(48, num_classes)
        )

    monkeypatch.setattr("platform.training.run_result.build_network", build)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE.replace("SCHEDULE", "cosine"))
    return str(path)


def test_seeds_are_trained_and_recorded(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tta.json"
    arguments = ["--target", "0.001", "--seeds", "2", "--threads", "1", "--set", "epochs=3", "batch_size=16"]
    assert tta.main(["--recipe", recipe, *arguments, "--json", str(path)]) == 0
    written = json.loads(path.read_text())
    assert written["settings"]["config"]["batch_size"] == 16
    assert written["settings"]["warm_up_epochs"] == 0, "on a CPU"
    # With train_limit, training and validation images together: no image is held out.
    assert written["settings"]["data"]["train_images"] == 64 + 32
    first, second = written["results"]
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first["epochs"] != second["epochs"]
    for row in written["results"]:
        assert [epoch["epoch"] for epoch in row["epochs"]] == [1, 2, 3]
        assert row["last_accuracy"] == row["epochs"][-1]["test_accuracy"]
        assert row["train_s"] == next(e["train_s"] for e in row["epochs"] if e["test_accuracy"] >= 0.001)
        assert row["train_s"] < row["total_train_s"] or row["epoch"] == 3
    assert "reached by 2 of 2 seeds" in capsys.readouterr().out


def epoch(number: int, accuracy: float) -> EpochRecord:
    return replace(epoch_record(number, accuracy), epoch_s=10.0, evaluation_s=3.0)


@pytest.mark.parametrize(("target", "train_s", "at"), [(0.9, 20.0, 2), (0.99, None, None)])
def test_time_to_target_excludes_evaluation(
    target: float, train_s: float | None, at: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(config, data, *, world, checkpoint_dir, on_epoch):
        for number, accuracy in enumerate([0.5, 0.9, 0.8, 0.95], start=1):
            on_epoch(epoch(number, accuracy))

    monkeypatch.setattr("platform.training.loop.fit", fit)
    row = tta.run_seed(load_run("resnet18_ddp"), None, target)
    assert (row["train_s"], row["epoch"]) == (train_s, at)
    assert (row["last_accuracy"], row["total_train_s"]) == (0.95, 40.0)


def test_warm_up_is_one_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def fit(config, data, *, world, checkpoint_dir, on_epoch):
        assert checkpoint_dir is None
        for number in (1, 2):
            trained.append(number)
            on_epoch(epoch(number, 0.5))

    monkeypatch.setattr("platform.training.loop.fit", fit)
    tta.warm_up(load_run("resnet18_ddp"), None)
    assert trained == [1]


def test_spread_covers_the_seeds_that_reached_the_target() -> None:
    def row(seed: int, train_s: float | None, accuracy: float, *mfu: float | None) -> dict[str, object]:
        reached = {"train_s": train_s, "wall_s": train_s, "epoch": None if train_s is None else 9}
        epochs = [{"mfu": share} for share in mfu]
        return {"seed": seed, **reached, "last_accuracy": accuracy, "total_train_s": 60.0, "epochs": epochs}

    settings = {
        "recipe": "resnet18_ddp",
        "config": {"model": {"name": "resnet18_cifar"}, "batch_size": 512},
        "target": 0.94,
        "data": {"train_images": 50_000, "label": "cifar10"},
        "precision": "bf16",
        "device": "cuda:0",
        "warm_up_epochs": 1,
    }
    table = tta.table(WHERE, settings, [row(0, 50.0, 0.941), row(1, 52.0, 0.942), row(2, None, 0.937)])
    assert "bf16 on cuda:0, after a warm-up epoch" in table
    assert table.splitlines()[-1] == (
        "reached by 2 of 3 seeds, in 51.0 +- 1.4 (n = 2) s of training (mean of those seeds); "
        "last epoch 94.00 +- 0.26 (n = 3) %"
    )
    measured = [row(0, 50.0, 0.941, 0.1, 0.4, 0.42), row(1, 52.0, 0.942, 0.2, 0.41, None)]
    assert tta.table(WHERE, settings, measured).endswith("last epoch 94.15 +- 0.07 (n = 2) %; MFU 41.0%")


def test_recipe_with_decisions_on_held_out_images_is_rejected() -> None:
    with pytest.raises(UsageError, match="here those are the test images"):
        tta.main(["--recipe", "resnet18_cutout_plateau"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "resnet18_dpd"], "did you mean 'resnet18_ddp'"),
        (["--target", "94"], "as in 0.94; got '94'"),
        (["--set", "epoch=3"], "did you mean 'epochs'"),
    ],
)
def test_usage_errors(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tta.main(arguments)
