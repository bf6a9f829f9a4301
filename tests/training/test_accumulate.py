"""Gradient accumulation: micro-batches give the step of the whole batch, except for batch normalization."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from platform.common.errors import UserError
from platform.data.training_data import TrainingData
from platform.training import run_result
from platform.training.distributed import single
from platform.training.loop import fit
from platform.training.records import RunResult
from tests.training.examples import ConfigOf, run

CLIPPED_MIXUP = {
    "augment": {"mixup": 0.4, "cutout": {"length": 8}},
    "label_smoothing": 0.1,
    "clip_grad_norm": 0.3,
    "ema_decay": 0.5,
}


class FixedStatistics(nn.BatchNorm2d):
    """Batch normalization that is always in eval mode; its weights are trained."""

    def train(self, mode: bool = True) -> nn.BatchNorm2d:
        return super().train(False)


def use_network(monkeypatch: pytest.MonkeyPatch, normalization: Callable[[int], nn.Module]) -> None:
    def build(_config: object, *, num_classes: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            normalization(8),
            nn.ReLU(),
            nn.AvgPool2d(4),
            nn.Flatten(),
            nn.Linear(8 * 16, num_classes),
        )

    monkeypatch.setattr(run_result, "build_network", build)


def losses(result: RunResult) -> list[float]:
    return [
        value
        for e in result.epochs
        for value in (e.train_loss, e.train_accuracy, e.validation_loss or 0.0, e.grad_norm)
    ]


@pytest.mark.parametrize("changes", [{}, CLIPPED_MIXUP], ids=["plain", "clipped mixup"])
@pytest.mark.parametrize("normalization", [lambda _: nn.Identity(), FixedStatistics], ids=["none", "fixed"])
# 72 images in batches of 32: the last batch has 8. 3 divides neither, and 32 exceeds the last batch.
@pytest.mark.parametrize("accumulate", [2, 3, 32])
def test_micro_batches_give_the_step_of_the_whole_batch(
    config_of: ConfigOf,
    data: TrainingData,
    monkeypatch: pytest.MonkeyPatch,
    accumulate: int,
    normalization: Callable[[int], nn.Module],
    changes: dict[str, Any],
) -> None:
    use_network(monkeypatch, normalization)
    config = config_of(**changes)
    accumulated, whole = run(config, data, accumulate=accumulate), run(config, data, accumulate=1)
    assert losses(accumulated) == pytest.approx(losses(whole), rel=1e-5)
    assert [e.step for e in accumulated.epochs] == [e.step for e in whole.epochs]


def test_micro_batches_contain_the_images_of_the_batch_in_order(
    config_of: ConfigOf, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    class Watch(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen.append(images.detach().mean(dim=(1, 2, 3)))
            return images

    use_network(monkeypatch, lambda _: Watch())
    config = config_of(epochs=1, optimizer={"name": "sgd", "lr": 1e-30})
    run(config, data, accumulate=1)
    whole, sizes = torch.cat(seen), [len(images) for images in seen]
    seen.clear()
    run(config, data, accumulate=3)
    assert sizes == [32, 32, 8]
    assert [len(images) for images in seen] == [10, 11, 11, 10, 11, 11, 2, 3, 3]
    torch.testing.assert_close(torch.cat(seen), whole)


def test_batch_statistics_are_those_of_a_micro_batch(
    config_of: ConfigOf, data: TrainingData, small_network: None
) -> None:
    """As documented in docs/training.md: the results are similar, but not equal."""
    accumulated, whole = run(config_of(), data, accumulate=2), run(config_of(), data, accumulate=1)
    assert losses(accumulated) != pytest.approx(losses(whole), rel=1e-4)
    assert accumulated.epochs[-1].train_loss == pytest.approx(whole.epochs[-1].train_loss, rel=0.2)


def test_a_run_may_resume_with_micro_batches(
    config_of: ConfigOf, data: TrainingData, small_network: None, tmp_path: Any
) -> None:
    """`accumulate` is not part of the configuration, so a run that ran out of memory can be resumed."""

    class OutOfMemoryError(Exception):
        pass

    def fail(_record: object) -> None:
        raise OutOfMemoryError

    config, world = config_of(), single("cpu")
    with pytest.raises(OutOfMemoryError):
        fit(config, data, world=world, checkpoint_dir=tmp_path, on_epoch=fail)
    epochs = fit(config, data, world=world, checkpoint_dir=tmp_path, accumulate=2).epochs
    assert [record.epoch for record in epochs] == [1, 2]


@pytest.mark.parametrize("accumulate", [0, 33])
def test_empty_micro_batches_are_rejected(config_of: ConfigOf, data: TrainingData, accumulate: int) -> None:
    with pytest.raises(UserError, match=f"between 1 and 32, got {accumulate}"):
        run(config_of(), data, accumulate=accumulate)
