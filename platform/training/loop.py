"""`fit`: one training run, from a configuration and data to a trained model, in pure PyTorch.

The trainer depends on neither Ray nor MLflow and writes only to its checkpoint folder. Callers receive
progress through two callbacks. An exception raised in a callback ends the run; calling `fit` again resumes it
after the last finished epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from platform.data.image_folders import ImageFolderTrainingData
from platform.data.training_data import TrainingData
from platform.training.acceleration.cuda_graph import capture_for
from platform.training.acceleration.mfu import mfu_per_image_per_s
from platform.training.acceleration.precision import (
    ComputePrecision,
    choose_precision,
    reproducible_convolutions,
)
from platform.training.acceleration.torch_compile import compile_ahead
from platform.training.checkpoint import CheckpointWriter, save_checkpoint
from platform.training.config import RunConfig
from platform.training.diagnostics.divergence import TrainingDiverged, divergence_error
from platform.training.diagnostics.network_probe import NetworkProbe, count_spikes
from platform.training.distributed import World
from platform.training.evaluation.evaluate import Evaluation, evaluate_set
from platform.training.inputs.batches import open_evaluation_set, open_training_set
from platform.training.inputs.budget import Budget, budget_of
from platform.training.records import EpochRecord, RunResult, StepProgress
from platform.training.run_folder import LAST, discard_unfinished
from platform.training.run_result import cpu_state_dict, data_key, initialize_network, restore, save_result
from platform.training.state import BestEpoch, RunState, initial_state
from platform.training.step import ProgressReporter, StepMetrics, StepRunner, check_accumulation


def _ignore(_: object) -> None:
    """Do nothing: the default callback."""


def fit(
    config: RunConfig,
    data: TrainingData | ImageFolderTrainingData,
    *,
    world: World,
    checkpoint_dir: Path | None,
    on_epoch: Callable[[EpochRecord], None] = _ignore,
    on_step: Callable[[StepProgress], None] = _ignore,
    on_saved: Callable[[Path], None] = _ignore,
    provenance: Mapping[str, str] | None = None,
    resume: bool = True,
    accumulate: int = 1,
    compile_network: bool = False,
) -> RunResult:
    """Train `config` on `data`; every worker of a run makes the same call.

    The same configuration, seed and number of workers give the same results on one kind of device (on a CPU
    bit by bit, also after a resume). The number of threads is set by the caller.

    Args:
        config: the run.
        data: training images, optional validation images, normalization, data set.
        world: this worker among the run's workers.
        checkpoint_dir: where rank 0 writes last.pt after every epoch, before `on_epoch` is called, and
            model.pt at the end; None to write neither.
        on_epoch: called on every worker after each epoch trained by this call; on one GPU during the next
            epoch, as soon as the checkpoint is written. An exception ends the run.
        on_step: called on every worker about once a second.
        on_saved: called on rank 0 with the path of last.pt or model.pt when it has been written, in the
            thread that wrote it, and before `on_epoch` for the same epoch. An exception ends the run.
        provenance: origin of the model, stored in model.pt.
        resume: whether to resume from `checkpoint_dir`/last.pt if it exists.
        accumulate: micro-batches into which each worker splits its part of a batch to save memory. The images
            of each step, their order and their weights stay the same; only batch normalization differs, since
            it normalizes each micro-batch separately.
        compile_network: whether to compile the network with `torch.compile` before the first step.

    Returns:
        The run's records, including those before a resume. A finished run returns at once.

    Raises:
        UserError: the batch size is not divisible by the workers, `accumulate` exceeds the images per worker,
            or the checkpoint is damaged or belongs to another run.
        TrainingDiverged: a loss, a gradient or the weights became NaN or infinite.
    """
    budget = budget_of(config, images=len(data.train.labels), workers=world.size)
    check_accumulation(accumulate, config, world)
    precision, _ = choose_precision(config.precision, world.device)
    network = initialize_network(config, data)
    compiled_batch_size = math.ceil(config.batch_size // world.size / accumulate) if compile_network else None
    state = initial_state(
        config, network, budget=budget, world=world, compiled_batch_size=compiled_batch_size
    )
    if checkpoint_dir is not None and world.is_first:
        discard_unfinished(checkpoint_dir)
    if resume and checkpoint_dir is not None:
        restore(state, config, data, world=world, folder=checkpoint_dir)
    execution: dict[str, Any] = {"accumulate": accumulate}
    if state.step < budget.total_steps:
        if compiled_batch_size is not None:
            execution["compile_s"] = compile_ahead(
                state.network,
                state.forward,
                batch_size=compiled_batch_size,
                image_shape=data.info.image_shape,
                precision=precision,
                device=world.device,
            )
        run = _TrainingRun(
            config, data, world, budget, precision, state, checkpoint_dir, accumulate, on_saved
        )
        with reproducible_convolutions():
            run.train(on_epoch, on_step)
        execution["captured"] = run.captured
    result = save_result(state, config, data, world=world, folder=checkpoint_dir, provenance=provenance or {})
    if result.model_path is not None:
        on_saved(result.model_path)
    return replace(result, **execution)


class _TrainingRun:
    """The epochs trained by one call of `fit`."""

    def __init__(
        self,
        config: RunConfig,
        data: TrainingData | ImageFolderTrainingData,
        world: World,
        budget: Budget,
        precision: ComputePrecision,
        state: RunState,
        folder: Path | None,
        accumulate: int,
        on_saved: Callable[[Path], None],
    ) -> None:
        self._on_saved = on_saved
        self._config, self._data, self._world, self._budget = config, data, world, budget
        self._precision, self._state, self._folder = precision, state, folder
        in_background = folder is not None and _saves_in_background(world)
        self._checkpoints = CheckpointWriter(self._save_checkpoint, in_background=in_background)
        self._training_set = open_training_set(config, data, budget=budget, world=world)
        self._steps = StepRunner(
            state,
            self._training_set,
            config=config,
            budget=budget,
            precision=precision,
            world=world,
            accumulate=accumulate,
            capture=capture_for(self._training_set, world),
        )
        self._validation_set = (
            open_evaluation_set(
                data.validation, data.normalization, size=data.info.image_shape[1], world=world
            )
            if data.validation is not None
            else None
        )
        self._mfu_per_image_per_s = mfu_per_image_per_s(
            config.model,
            num_classes=len(data.info.class_names),
            input_shape=data.info.image_shape,
            device=world.device,
            precision=precision,
            workers=world.size,
        )
        # Image files would have to be decoded for the probe, so they are not probed.
        self._probe = (
            NetworkProbe(data, device=world.device, precision=precision)
            if isinstance(data, TrainingData)
            else None
        )

    @property
    def captured(self) -> bool:
        """Whether steps of full batches were replayed from a CUDA graph."""
        return self._steps.captured

    def train(self, on_epoch: Callable[[EpochRecord], None], on_step: Callable[[StepProgress], None]) -> None:
        """Train from the state's step to the end of the budget."""
        try:
            self._train_epochs(on_epoch, on_step)
            self._checkpoints.finish()
        except BaseException:
            if self._world.device.type == "cuda":
                # Queued steps must not access memory that the caller is about to free. An error of the device
                # is raised again here; the original one is re-raised below.
                with suppress(RuntimeError):
                    torch.cuda.synchronize(self._world.device)
            raise
        finally:
            self._checkpoints.close()

    def _train_epochs(
        self, on_epoch: Callable[[EpochRecord], None], on_step: Callable[[StepProgress], None]
    ) -> None:
        state, budget = self._state, self._budget
        report = _StepReport(
            on_step, self._check_divergence, budget=budget, world=self._world, first_step=state.step
        )
        while state.step < budget.total_steps:
            epoch = state.step // budget.steps_per_epoch
            report.start_epoch(epoch)
            record = self._train_epoch(epoch, report)
            state.records.append(record)
            self._checkpoints.save(state.state_dict(), on_saved=partial(on_epoch, record))

    def _train_epoch(self, epoch: int, report: _StepReport) -> EpochRecord:
        """Train and evaluate `epoch` (from 0)."""
        config, state, budget = self._config, self._state, self._budget
        began_s = time.monotonic()
        steps, images = budget.steps_in(epoch), budget.images_in(epoch)
        # A shortened last epoch samples all steps, too: a captured step needs tensors of constant shape.
        randomness = self._training_set.sample_randomness(
            epoch, seed=config.seed, steps=budget.steps_per_epoch
        )
        reporter = ProgressReporter(report, after_step=self._checkpoints.poll)
        metrics = self._steps.run_epoch(randomness, steps=steps, reporter=reporter)
        self._check_divergence(metrics, epoch)
        losses, grad_norms = metrics.losses.cpu().double(), metrics.grad_norms.cpu().double()
        batch_sizes = torch.tensor([_length(budget.batch(step)) for step in range(steps)]).double()
        train_loss = float(losses @ batch_sizes) / images
        epoch_s = time.monotonic() - began_s

        lr = state.lr.at(state.step - 1)
        state.average_buffers(self._world)
        validation = self._evaluate()
        self._require_finite_results(validation)
        evaluated_s = time.monotonic()
        state.lr.epoch_ended(validation.loss if validation else train_loss)
        self._keep_best(epoch, validation)
        statistics = self._probe.measure(state.network) if self._probe is not None else None
        return EpochRecord(
            epoch=epoch + 1,
            epochs=budget.epochs,
            step=state.step,
            lr=lr,
            train_loss=train_loss,
            train_accuracy=float(metrics.correct.cpu().double().sum()) / images,
            validation_loss=validation.loss if validation else None,
            validation_accuracy=validation.accuracy if validation else None,
            grad_norm=float(grad_norms.mean()),
            grad_norm_max=float(grad_norms.max()),
            loss_spikes=count_spikes(losses.numpy()),
            epoch_s=epoch_s,
            evaluation_s=evaluated_s - began_s - epoch_s,
            overhead_s=time.monotonic() - evaluated_s + self._checkpoints.take_waited_s(),
            moved_bytes=None,  # known when the epoch is reported
            images_per_s=images / epoch_s,
            mfu=None if self._mfu_per_image_per_s is None else self._mfu_per_image_per_s * images / epoch_s,
            **(statistics.as_dict() if statistics is not None else {}),
        )

    def _evaluate(self) -> Evaluation | None:
        if self._validation_set is None:
            return None
        return evaluate_set(
            self._state.evaluated_network, self._validation_set, world=self._world, precision=self._precision
        )

    def _keep_best(self, epoch: int, validation: Evaluation | None) -> None:
        best = self._state.best
        if self._config.report != "best" or validation is None:
            return
        if best is None or validation.accuracy > best.accuracy:
            self._state.best = BestEpoch(
                epoch=epoch + 1,
                accuracy=validation.accuracy,
                loss=validation.loss,
                weights=cpu_state_dict(self._state.evaluated_network),
            )

    def _check_divergence(self, metrics: StepMetrics, epoch: int) -> None:
        """Raise `TrainingDiverged` if a loss or gradient norm of `epoch` (from 0) is not finite."""
        bad = metrics.first_nonfinite_step()
        if bad is not None:
            raise self._divergence("training loss", step=epoch * self._budget.steps_per_epoch + bad)

    def _require_finite_results(self, validation: Evaluation | None) -> None:
        """Raise `TrainingDiverged` if weights or validation loss are not finite at the epoch's end."""
        weights = torch.nn.utils.get_total_norm([each.detach() for each in self._state.network.parameters()])
        if not bool(weights.isfinite()):
            raise self._divergence("norm of the weights", step=self._state.step - 1)
        if validation is not None and not math.isfinite(validation.loss):
            raise self._divergence("validation loss", step=self._state.step - 1)

    def _divergence(self, value: str, *, step: int) -> TrainingDiverged:
        """Return the error for a `value` that is not finite after `step` (from 0)."""
        # Report earlier epochs first; the message names their checkpoint.
        self._checkpoints.finish()
        path = self._folder / LAST if self._folder is not None else None
        return divergence_error(
            value,
            epoch=step // self._budget.steps_per_epoch + 1,
            step=step + 1,
            lr=self._state.lr.at(step),
            checkpoint=path if path is not None and path.is_file() else None,
            last_epoch=len(self._state.records),
        )

    def _save_checkpoint(self, state: Mapping[str, Any]) -> None:
        if self._folder is not None and self._world.is_first:
            save_checkpoint(self._folder, config=self._config, data_key=data_key(self._data), state=state)
            self._on_saved(self._folder / LAST)


class _StepReport:
    """Computes the progress of a run within an epoch, and checks for divergence."""

    def __init__(
        self,
        on_step: Callable[[StepProgress], None],
        check_divergence: Callable[[StepMetrics, int], None],
        *,
        budget: Budget,
        world: World,
        first_step: int,
    ) -> None:
        self._on_step, self._check_divergence = on_step, check_divergence
        self._budget, self._world = budget, world
        self._first_step, self._began_s = first_step, time.monotonic()
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Measure the speed of `epoch` (from 0) from now on."""
        self._epoch, self._epoch_began_s = epoch, time.monotonic()

    def __call__(self, done: int, metrics: StepMetrics) -> None:
        """Report `done` steps of the epoch, as finished by the device: the host may be some steps ahead."""
        if self._world.size == 1:
            # Several workers check the sum of their losses at the epoch's end, so that all stop together.
            self._check_divergence(metrics, self._epoch)
        budget, now_s = self._budget, time.monotonic()
        step = self._epoch * budget.steps_per_epoch + done
        step_s = (now_s - self._began_s) / (step - self._first_step)
        self._on_step(
            StepProgress(
                epoch=self._epoch + 1,
                epochs=budget.epochs,
                step=step,
                steps=budget.total_steps,
                images_per_s=budget.batch(done - 1).stop / (now_s - self._epoch_began_s),
                remaining_s=step_s * (budget.total_steps - step),
                train_loss=float(metrics.losses[:done].mean()) * self._world.size,
            )
        )


def _saves_in_background(world: World) -> bool:
    """Return whether checkpoints are written during the next epoch.

    On a GPU the write (90 MB for ResNet-18) takes as long as an epoch; on a CPU a small part of one. Several
    workers must report in lockstep, which is not possible during the next epoch.
    """
    return world.device.type == "cuda" and world.size == 1


def _length(rows: slice) -> int:
    return int(rows.stop - rows.start)
