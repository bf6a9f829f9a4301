"""The evaluation of the final model on the test split."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from platform.data.cache import load_split, store_dataset
from platform.data.dataset import DatasetInfo, DatasetSource, RawDataset, Split
from platform.models.config import ModelConfig
from platform.models.networks import build_network
from platform.models.trained import TrainedModel, save_trained_model
from platform.tracking.sweep_folder import SweepFolder
from platform.training.evaluation import affordable
from platform.tuning.final_model import evaluate_on_test_set, final_metrics
from platform.tuning.journal.journal import open_journal
from tests.reporting.example_sweep import write_example
from tests.tuning.journal.examples import a_task

MODEL = ModelConfig(name="resnet20_cifar")
IMAGES = 40


@pytest.fixture
def info(tmp_path: Path) -> DatasetInfo:
    rng = np.random.default_rng(0)

    def split() -> Split:
        return Split(rng.integers(0, 256, (IMAGES, 3, 32, 32)).astype(np.uint8), np.arange(IMAGES) % 10)

    raw = RawDataset(
        name="generated", label="generated", class_names=tuple("abcdefghij"), train=split(), test=split()
    )
    source = DatasetSource(key="test", fingerprint="1", read=lambda _: raw)
    return store_dataset(tmp_path / "cache", source, raw)


def sweep_of(info: DatasetInfo, path: Path, *, quick: bool) -> Any:
    """Return the parts of a sweep that the evaluation uses, with an untrained final model."""
    folder = SweepFolder(path)
    torch.manual_seed(0)
    folder.checkpoint_dir("final").mkdir(parents=True)
    save_trained_model(
        folder.checkpoint_dir("final") / "model.pt",
        TrainedModel(
            model=MODEL,
            state_dict=build_network(MODEL, num_classes=10).state_dict(),
            mean=torch.full((3,), 0.5),
            std=torch.full((3,), 0.25),
            class_names=info.class_names,
            input_shape=info.image_shape,
            data_label=info.label,
        ),
    )
    with open_journal(folder.journal) as journal:
        journal.trial(a_task("final").model_copy(update={"stage": "final"}))
    final = SimpleNamespace(resources_per_worker=SimpleNamespace(GPU=0))
    return SimpleNamespace(
        folder=folder,
        info=info,
        plan=SimpleNamespace(quick=quick, final=final),
        spec=SimpleNamespace(base=SimpleNamespace(precision="fp32")),
    )


def test_a_quick_sweep_evaluates_an_evenly_spaced_part_on_a_cpu(
    info: DatasetInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affordable, "_STEP", 4)
    monkeypatch.setattr(affordable, "MULTIPLY_ACCUMULATES", 6 * 41e6)
    messages: list[str] = []
    test = evaluate_on_test_set(
        sweep_of(info, tmp_path / "runs" / "quick-20260101-000000", quick=True), progress=messages.append
    )
    assert (test["images"], test["split_images"]) == (4, IMAGES)
    assert messages[0] == "evaluating on the test split (4 of 40 images)"
    rows = [0, 13, 26, 39]
    labels = load_split(info, "test").labels[rows]
    assert [sum(row) for row in test["confusion"]] == np.bincount(labels, minlength=10).tolist()
    wrong = [image["index"] for group in test["mistakes"] for image in group["images"]]
    assert set(wrong) <= set(rows)
    assert len(wrong) == 4 - round(4 * test["accuracy"])


def test_a_full_sweep_evaluates_all_images(
    info: DatasetInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affordable, "MULTIPLY_ACCUMULATES", 1)
    test = evaluate_on_test_set(sweep_of(info, tmp_path / "runs" / "full-20260101-000000", quick=False))
    assert (test["images"], test["split_images"]) == (IMAGES, IMAGES)


def test_the_final_metrics_have_the_interval_and_the_latency_of_each_precision(tmp_path: Path) -> None:
    metrics = final_metrics(write_example(tmp_path))
    mean, low, high = (metrics[f"champion/validation_accuracy_{name}"] for name in ("mean", "low", "high"))
    assert 0.9 < low < mean < high < 1
    assert high - low == pytest.approx(3.92 * metrics["champion/validation_accuracy_error"], rel=0.1)
    assert metrics["ncnn/fp32_latency_ms_p50_t1"] > 0


def test_the_affordable_part_depends_on_the_network() -> None:
    counts = {
        name: len(
            affordable.affordable_images(
                ModelConfig(name=name), num_classes=10, input_shape=(3, 32, 32), images=10_000
            )
        )
        for name in ("resnet32_cifar", "resnet18_cifar", "resnet34_cifar")
    }
    assert counts == {"resnet32_cifar": 10_000, "resnet18_cifar": 2_000, "resnet34_cifar": 1_000}
