"""Complete runs on a few images: records, reproducibility, resume, errors, checkpoints, evaluation."""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from platform.common.errors import UserError
from platform.data.training_data import TrainingData
from platform.models.trained import load_trained_model
from platform.training import loop, run_result, step
from platform.training.checkpoint import read_records
from platform.training.config import RunConfig
from platform.training.diagnostics.findings import TrainingDiverged
from platform.training.distributed import World
from platform.training.evaluation.evaluate import Evaluation, evaluate, evaluation_batch_size
from platform.training.inputs.augment import (
    DeviceEvaluationSet,
    DeviceTrainingSet,
    sample_randomness,
)
from platform.training.loop import fit
from platform.training.records import EpochRecord, StepProgress
from platform.training.run_folder import LAST, MODEL
from platform.training.state import RunState
from tests.training.examples import ConfigOf, numbers, run
from tests.training.inputs.examples import position_of

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / MODEL, weights_only=True)["state_dict"]
    return state


EVERYTHING = {
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
    "schedule": {"name": "plateau", "patience_epochs": 1, "threshold": 0.9, "factor": 0.5},
    "augment": {"cutout": {"length": 8}, "mixup": 0.2, "cutmix": 1.0},
    "label_smoothing": 0.1,
    "ema_decay": 0.5,
    "clip_grad_norm": 1.0,
    "report": "best",
}


def test_resnet32_learns_and_records_each_epoch(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path
) -> None:
    seen: list[EpochRecord] = []
    result = run(config_of(augment={"flip": False}, precision="auto"), data, tmp_path, on_epoch=seen.append)
    assert tuple(seen) == result.epochs
    assert [(e.epoch, e.epochs, e.step) for e in seen] == [(1, 2, 3), (2, 2, 6)]
    assert seen[1].train_loss < seen[0].train_loss
    assert seen[0].grad_norm > 0
    assert result.model_path == tmp_path / MODEL
    assert result.validation_accuracy == seen[1].validation_accuracy
    model = load_trained_model(tmp_path / MODEL)
    assert RunConfig.model_validate_json(model.provenance["config"]).model.name == "resnet32_cifar"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_equal_seeds_give_equal_results_and_other_seeds_do_not(
    config_of: ConfigOf, data: TrainingData, precision: str
) -> None:
    config = config_of(precision=precision, epochs=1)
    torch.manual_seed(1)
    first = run(config, data)
    torch.manual_seed(2)
    again = run(config, data)
    other = run(config.changed(seed=1), data)
    assert numbers(first) == numbers(again)
    assert numbers(first) != numbers(other)


def test_the_global_random_generator_is_not_changed(
    config_of: ConfigOf, data: TrainingData, small_network: None
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    run(config_of(), data)
    assert torch.equal(torch.rand(4), expected)


class StopError(Exception):
    pass


@pytest.fixture
def saves_in_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write checkpoints during the next epoch, as on a GPU, and with a delay of some steps."""
    write = loop.save_checkpoint

    def delayed(*arguments: Any, **more: Any) -> None:
        time.sleep(0.05)
        write(*arguments, **more)

    monkeypatch.setattr(loop, "_saves_in_background", lambda _: True)
    monkeypatch.setattr(loop, "save_checkpoint", delayed)


@pytest.mark.parametrize("changes", [{}, EVERYTHING, {"optimizer": {"name": "adamw", "lr": 0.01}}], ids=str)
@pytest.mark.parametrize("stop_after", [1, 2, 3])
@pytest.mark.parametrize("in_background", [False, True])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(
    config_of: ConfigOf,
    data: TrainingData,
    tmp_path: Path,
    small_network: None,
    request: pytest.FixtureRequest,
    changes: dict[str, Any],
    stop_after: int,
    in_background: bool,
) -> None:
    config = config_of(epochs=4, **changes)
    whole = run(config, data, tmp_path / "whole")
    if in_background:
        request.getfixturevalue("saves_in_background")

    def stop(record: EpochRecord) -> None:
        if record.epoch == stop_after:
            raise StopError

    with pytest.raises(StopError):
        run(config, data, tmp_path / "parts", on_epoch=stop)
    assert [record.epoch for record in read_records(tmp_path / "parts")] == list(range(1, stop_after + 1))
    seen: list[int] = []
    resumed = run(config, data, tmp_path / "parts", on_epoch=lambda record: seen.append(record.epoch))
    assert seen == list(range(stop_after + 1, 5))
    assert numbers(resumed) == numbers(whole)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(first[name], second[name]) for name in first | second)


def test_a_resumed_bf16_run_is_bit_identical(config_of: ConfigOf, data: TrainingData, tmp_path: Path) -> None:
    config = config_of(precision="bf16")
    whole = run(config, data)

    def stop(_record: EpochRecord) -> None:
        raise StopError

    with pytest.raises(StopError):
        run(config, data, tmp_path, on_epoch=stop)
    assert numbers(run(config, data, tmp_path)) == numbers(whole)


def test_a_finished_run_is_not_trained_again(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, small_network: None
) -> None:
    first = run(config_of(), data, tmp_path)
    seen: list[EpochRecord] = []
    assert run(config_of(), data, tmp_path, on_epoch=seen.append) == first
    assert seen == []


def test_resume_false_starts_from_the_beginning(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, small_network: None
) -> None:
    run(config_of(), data, tmp_path)
    seen: list[int] = []
    run(config_of(seed=9), data, tmp_path, resume=False, on_epoch=lambda record: seen.append(record.epoch))
    assert seen == [1, 2]


def test_a_budget_in_iterations_can_end_within_an_epoch(
    config_of: ConfigOf, data: TrainingData, small_network: None
) -> None:
    result = run(config_of(iterations=4, schedule={"name": "linear"}), data)
    assert [(e.epoch, e.epochs, e.step) for e in result.epochs] == [(1, 2, 3), (2, 2, 4)]
    assert [e.lr for e in result.epochs] == pytest.approx([0.05 * 2 / 4, 0.05 * 1 / 4])


def test_train_loss_is_the_mean_over_images_with_an_uneven_last_batch(
    config_of: ConfigOf, data: TrainingData, small_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tiny learning rate, the epoch's loss is that of the untrained network."""
    networks = []
    build = run_result.build_network
    monkeypatch.setattr(
        run_result,
        "build_network",
        lambda *args, **more: networks.append(build(*args, **more)) or networks[-1],
    )
    config = config_of(epochs=1, optimizer={"name": "sgd", "lr": 1e-30}, augment={"mixup": 0.0})
    result = run(config, data)
    dataset = DeviceTrainingSet(data.train, data.normalization, config.augment, device=CPU)
    randomness = sample_randomness(
        config.augment, images=72, size=(32, 32), steps=3, seed=0, epoch=0, device=CPU
    )
    total, correct = 0.0, 0
    networks[0].train()
    for index, rows in enumerate((slice(0, 32), slice(32, 64), slice(64, 72))):
        position = position_of(index, rows)
        batch = dataset.batch(randomness, position, slice(0, rows.stop - rows.start))
        logits = networks[0](batch.images)
        total += torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum").item()
        correct += int((logits.argmax(1) == batch.labels).sum())
    assert result.epochs[0].train_loss == pytest.approx(total / 72, rel=1e-5)
    assert result.epochs[0].train_accuracy == pytest.approx(correct / 72)


def test_report_best_saves_the_best_epoch(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, small_network: None
) -> None:
    # A continuously rising learning rate makes the last epochs worse than the first.
    config = config_of(
        epochs=6,
        report="best",
        optimizer={"name": "sgd", "lr": 8.0},
        schedule={"name": "constant", "warmup_epochs": 6},
    )
    result = run(config, data, tmp_path)
    accuracies = [epoch.validation_accuracy for epoch in result.epochs]
    assert result.validation_accuracy == max(a for a in accuracies if a is not None)
    assert result.validation_accuracy != accuracies[-1], "the last epoch must not be the best here"
    assert saved_accuracy(tmp_path, data) == pytest.approx(result.validation_accuracy)
    last = run(config.changed(report="last"), data)
    assert last.validation_accuracy == accuracies[-1]


def test_report_best_saves_the_earliest_of_equal_epochs(
    config_of: ConfigOf, data: TrainingData, small_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter((0.9, 0.8, 0.7))
    monkeypatch.setattr(
        loop,
        "evaluate_set",
        lambda *_, **__: Evaluation(loss=next(losses), accuracy=0.5, per_class_accuracy=(), confusion=[]),
    )
    result = run(config_of(epochs=3, report="best"), data)
    assert (result.validation_accuracy, result.validation_loss) == (0.5, 0.9)


def saved_accuracy(folder: Path, data: TrainingData) -> float:
    network = run_result.build_network(None, num_classes=10)
    network.load_state_dict(weights(folder))
    assert data.validation is not None
    done = evaluate(network, data.validation, data.normalization, device=CPU, precision="fp32")
    return done.accuracy


def test_without_a_validation_split_training_loss_drives_the_plateau(
    config_of: ConfigOf, data: TrainingData, small_network: None
) -> None:
    schedule = {"name": "plateau", "patience_epochs": 1, "threshold": 0.99, "factor": 0.5}
    config = config_of(epochs=3, schedule=schedule, report="best")
    result = run(config, replace(data, validation=None))
    assert result.validation_accuracy is None
    assert [epoch.validation_loss for epoch in result.epochs] == [None] * 3
    assert [epoch.lr for epoch in result.epochs] == pytest.approx([0.05, 0.05, 0.025])


def test_the_moving_average_is_evaluated_and_saved(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, small_network: None
) -> None:
    plain = run(config_of(), data, tmp_path / "plain")
    averaged = run(config_of(ema_decay=0.9), data, tmp_path / "ema")
    assert [e.train_loss for e in plain.epochs] == [e.train_loss for e in averaged.epochs]
    assert [e.validation_loss for e in plain.epochs] != [e.validation_loss for e in averaged.epochs]
    assert saved_accuracy(tmp_path / "ema", data) == pytest.approx(averaged.validation_accuracy)


def test_the_moving_average_equals_torchs(
    config_of: ConfigOf,
    data: TrainingData,
    tmp_path: Path,
    small_network: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`update_ema` computes the same as `AveragedModel.update_parameters`, without synchronizing."""
    run(config_of(ema_decay=0.9), data, tmp_path / "own")
    monkeypatch.setattr(RunState, "update_ema", lambda state: state.ema.update_parameters(state.network))
    run(config_of(ema_decay=0.9), data, tmp_path / "torchs")
    own, torchs = weights(tmp_path / "own"), weights(tmp_path / "torchs")
    assert all(torch.equal(own[name], torchs[name]) for name in own | torchs)


def test_clipping_bounds_the_update_and_the_recorded_norm_is_unclipped(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, small_network: None
) -> None:
    optimizer = {"name": "sgd", "lr": 1.0, "momentum": 0.0}
    config = config_of(iterations=1, optimizer=optimizer, schedule={"name": "constant"}, clip_grad_norm=1e-3)
    start = run(config.changed(optimizer=optimizer | {"lr": 1e-30}), data, tmp_path / "start")
    moved = run(config, data, tmp_path / "moved")
    assert moved.epochs[0].grad_norm == start.epochs[0].grad_norm > 1e-2
    before, after = weights(tmp_path / "start"), weights(tmp_path / "moved")
    trained = [name for name in before if name.endswith(("weight", "bias"))]
    distance = math.sqrt(sum(((after[name] - before[name]) ** 2).sum().item() for name in trained))
    assert distance == pytest.approx(1e-3, rel=1e-2)


def test_a_diverged_run_reports_the_step_and_advice(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, small_network: None
) -> None:
    config = config_of(optimizer={"name": "sgd", "lr": 1e30}, schedule={"name": "constant"})
    with pytest.raises(
        TrainingDiverged, match=r"epoch 1, step 2, at learning rate 1e\+30; no checkpoint"
    ) as caught:
        run(config, data, tmp_path)
    assert "lower optimizer.lr" in str(caught.value)
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_diverged_run_names_the_last_good_checkpoint(
    config_of: ConfigOf,
    data: TrainingData,
    tmp_path: Path,
    small_network: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lr_at = "platform.training.schedules.LearningRate.at"
    monkeypatch.setattr(lr_at, lambda _lr, step: 1e30 if step >= 4 else 0.01)
    with pytest.raises(
        TrainingDiverged, match=r"epoch 2, step 6, .*; the checkpoint of epoch 1 is .*last\.pt"
    ):
        run(config_of(), data, tmp_path)
    assert len(read_records(tmp_path)) == 1
    assert not (tmp_path / MODEL).exists()


class Overflowing(torch.nn.Module):
    """Logits that are finite in training mode and infinite in evaluation mode."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images)
        return logits if self.training else logits * math.inf


def test_a_validation_loss_that_is_not_finite_ends_a_run_as_diverged(
    config_of: ConfigOf,
    data: TrainingData,
    tmp_path: Path,
    small_network: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = run_result.build_network
    monkeypatch.setattr(
        "platform.training.run_result.build_network", lambda *args, **more: Overflowing(build(*args, **more))
    )
    with pytest.raises(TrainingDiverged, match=r"the validation loss must stay finite: .* epoch 1, step 3"):
        run(config_of(), data, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_overflow_in_the_last_step_are_not_saved(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, small_network: None
) -> None:
    optimizer = {"name": "sgd", "lr": 1e39}  # infinite as a float32
    config = config_of(iterations=1, optimizer=optimizer, schedule={"name": "constant"})
    with pytest.raises(TrainingDiverged, match="the norm of the weights must stay finite"):
        run(config, replace(data, validation=None), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_test_loss_that_is_not_finite_is_an_error(data: TrainingData) -> None:
    network = Overflowing(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10)))
    assert data.validation is not None
    with pytest.raises(UserError, match=r"must be finite, but on 20 images it is nan: the model diverged"):
        evaluate(network, data.validation, data.normalization, device=CPU, precision="fp32")


def test_progress_is_reported_during_an_epoch(
    config_of: ConfigOf, data: TrainingData, small_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.training.step.REPORT_INTERVAL_S", 0.0)
    seen: list[StepProgress] = []
    run(config_of(), data, on_step=seen.append)
    assert [(p.epoch, p.step, p.steps) for p in seen] == [
        (1, 1, 6), (1, 2, 6), (1, 3, 6), (2, 4, 6), (2, 5, 6), (2, 6, 6)
    ]  # fmt: skip
    assert seen[-1].remaining_s == 0
    assert all(p.images_per_s > 0 and math.isfinite(p.train_loss) for p in seen)


def test_an_indivisible_batch_size_is_rejected(config_of: ConfigOf, data: TrainingData) -> None:
    world = World(rank=0, size=3, device=CPU)
    with pytest.raises(UserError, match="divisible"):
        fit(config_of(), data, world=world, checkpoint_dir=None)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an evaluation take several batches, the last one smaller."""
    monkeypatch.setattr("platform.training.evaluation.evaluate.evaluation_batch_size", lambda *_: 7)


@pytest.mark.usefixtures("small_batches")
def test_evaluation_results_by_class(data: TrainingData) -> None:
    class Constant(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.eye(10)[torch.zeros(len(images), dtype=torch.long)]

    split = data.train
    done = evaluate(Constant(), split, data.normalization, device=CPU, precision="fp32", keep_logits=True)
    zeros = int((split.labels == 0).sum())
    assert done.accuracy == pytest.approx(zeros / 72)
    assert done.per_class_accuracy == (1.0,) + (0.0,) * 9
    assert [row[0] for row in done.confusion] == np.bincount(split.labels, minlength=10).tolist()
    assert sum(map(sum, done.confusion)) == 72
    # log(e + 9) minus the logit of the true class.
    assert done.loss == pytest.approx(math.log(math.e + 9) - zeros / 72, rel=1e-6)
    assert done.logits is not None
    assert done.logits.shape == (72, 10)
    assert done.flip is None


@pytest.mark.usefixtures("small_batches")
def test_test_time_flip_is_reported_separately(data: TrainingData) -> None:
    """The network uses only the left edge, so a mirror image gives it the right edge."""

    class LeftEdge(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            brightness = images[:, 0, :, 0].mean(dim=1, keepdim=True)
            return -((brightness - torch.linspace(-1, 1, 10)) ** 2)

    arguments = {"device": CPU, "precision": "fp32", "keep_logits": True}
    split = data.train
    mirrored = replace(split, images=np.ascontiguousarray(split.images[..., ::-1]))
    both: Any = evaluate(LeftEdge(), split, data.normalization, flip=True, **arguments)
    plain: Any = evaluate(LeftEdge(), split, data.normalization, **arguments)
    other: Any = evaluate(LeftEdge(), mirrored, data.normalization, **arguments)
    assert (both.loss, both.accuracy, both.confusion) == (plain.loss, plain.accuracy, plain.confusion)
    logits, labels = (plain.logits + other.logits) / 2, torch.from_numpy(split.labels)
    assert both.flip.accuracy == (logits.argmax(dim=1) == labels).double().mean().item()
    assert both.flip.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())
    assert both.flip.loss != pytest.approx(plain.loss)


def test_each_file_is_announced_before_its_epoch_is_reported(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, small_network: None
) -> None:
    events: list[Any] = []
    run(
        config_of(),
        data,
        tmp_path,
        on_saved=lambda path: events.append((path.name, len(read_records(tmp_path)))),
        on_epoch=lambda record: events.append(record.epoch),
    )
    assert events == [("last.pt", 1), 1, ("last.pt", 2), 2, ("model.pt", 2)]


def test_waiting_for_a_checkpoint_counts_as_overhead_of_the_next_epoch(
    config_of: ConfigOf,
    data: TrainingData,
    tmp_path: Path,
    small_network: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "save_checkpoint", lambda *_, **__: time.sleep(0.2))
    first, second = run(config_of(), data, tmp_path).epochs
    assert first.overhead_s > 0
    assert second.overhead_s >= 0.2


@pytest.mark.parametrize(("device", "images"), [("cuda", 2500), ("cpu", 500)])
def test_the_evaluation_batch_size_is_larger_on_a_gpu(data: TrainingData, device: str, images: int) -> None:
    evaluation_set = DeviceEvaluationSet(data.validation, data.normalization, device=torch.device("cpu"))
    assert evaluation_batch_size(evaluation_set, torch.device(device)) == images


@pytest.mark.usefixtures("saves_in_background", "small_network")
def test_an_epoch_is_reported_after_its_checkpoint_and_before_the_next_one(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    result = run(
        config_of(epochs=5),
        data,
        tmp_path,
        on_epoch=lambda record: seen.append((record.epoch, len(read_records(tmp_path)))),
    )
    assert seen == [(epoch, epoch) for epoch in range(1, 6)]
    assert len(result.epochs) == len(read_records(tmp_path)) == 5


@pytest.mark.usefixtures("saves_in_background", "small_network")
def test_a_failed_checkpoint_write_ends_the_run(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise UserError("cannot write the checkpoint")

    monkeypatch.setattr(loop, "save_checkpoint", fail)
    seen: list[EpochRecord] = []
    with pytest.raises(UserError, match="cannot write the checkpoint"):
        run(config_of(), data, tmp_path, on_epoch=seen.append)
    assert seen == []


@pytest.mark.usefixtures("saves_in_background", "small_network")
def test_a_diverged_run_first_reports_the_preceding_epoch(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter([None, None, None, 1])
    monkeypatch.setattr(loop.StepMetrics, "first_nonfinite_step", lambda _: next(steps))
    seen: list[int] = []
    with pytest.raises(TrainingDiverged, match=r"the checkpoint of epoch 3 is .*last\.pt"):
        run(config_of(epochs=5), data, tmp_path, on_epoch=lambda record: seen.append(record.epoch))
    assert seen == [1, 2, 3]


def test_only_runs_on_one_gpu_write_checkpoints_in_the_background() -> None:
    def world(device: str, size: int) -> World:
        return World(rank=0, size=size, device=torch.device(device))

    assert [loop._saves_in_background(world(*each)) for each in (("cuda", 1), ("cuda", 2), ("cpu", 1))] == [
        True,
        False,
        False,
    ]


@pytest.mark.usefixtures("small_network")
def test_batch_norm_counters_are_updated_once_per_epoch(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_step, counters = step.StepRunner._train_step, []

    def watched(runner: step.StepRunner, *arguments: Any) -> Any:
        counters.append(runner._state.network[1].num_batches_tracked)
        return train_step(runner, *arguments)

    monkeypatch.setattr(step.StepRunner, "_train_step", watched)
    run(config_of(ema_decay=0.5), data, tmp_path, accumulate=3)
    assert counters == [None] * 6, "the counters are removed during the steps"
    state = torch.load(tmp_path / LAST, weights_only=True)["state"]
    # Two epochs of three batches, each in three micro-batches.
    assert state["network"]["1.num_batches_tracked"] == 2 * 3 * 3
    assert state["ema"]["module.1.num_batches_tracked"] == 2 * 3 * 3
    assert state["ema"]["n_averaged"] == 6
