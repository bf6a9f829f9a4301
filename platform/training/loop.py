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

from platform.data.dataset import Split
from platform.data.training_data import TrainingData
from platform.training.acceleration.cuda_graph import capture_for
from platform.training.acceleration.mfu import mfu_per_image_per_s
from platform.training.acceleration.precision import (
    ComputePrecision,
    choose_precision,
    reproducible_convolutions,
)
from platform.training.checkpoint import CheckpointWriter, copy_to_cpu, save_checkpoint
from platform.training.config import RunConfig
from platform.training.diagnostics.findings import TrainingDiverged
from platform.training.diagnostics.network_probe import NetworkProbe, count_spikes
from platform.training.distributed import World
from platform.training.evaluation.evaluate import Evaluation, evaluate_set
from platform.training.inputs.batches import open_evaluation_set, open_training_set
from platform.training.inputs.budget import budget_of
from platform.training.records import EpochRecord, RunResult, StepProgress
from platform.training.run_folder import LAST, discard_unfinished
from platform.training.run_result import data_key, initialize_network, restore, save_result
from platform.training.state import BestEpoch, RunState, initial_state
from platform.training.step import ProgressReporter, StepMetrics, StepRunner, check_accumulation


def _ignore(_: object) -> None:
    """Do nothing: the default callback."""


def fit(
    config: RunConfig,
    data: TrainingData,
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
        data: its images.
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
    budget = budget_of(config, images=len(data.train), workers=world.size)
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
            execution["compile_s"] = state.compile_ahead(data.info.image_shape, precision)
        run = _TrainingRun(
            config, data, world, precision, state, checkpoint_dir, accumulate, on_epoch, on_step, on_saved
        )
        with reproducible_convolutions():
            run.train()
        execution["captured"] = run.steps.captured
    result = save_result(state, config, data, world=world, folder=checkpoint_dir, provenance=provenance or {})
    if result.model_path is not None:
        on_saved(result.model_path)
    return replace(result, **execution)


class _TrainingRun:
    """The epochs trained by one call of `fit`."""

    def __init__(
        self,
        config: RunConfig,
        data: TrainingData,
        world: World,
        precision: ComputePrecision,
        state: RunState,
        folder: Path | None,
        accumulate: int,
        on_epoch: Callable[[EpochRecord], None],
        on_step: Callable[[StepProgress], None],
        on_saved: Callable[[Path], None],
    ) -> None:
        self._on_epoch, self._on_step, self._on_saved = on_epoch, on_step, on_saved
        self._config, self._data, self._world, self._precision = config, data, world, precision
        self._state, self._folder, self._first_step = state, folder, state.step
        self._budget = budget = budget_of(config, images=len(data.train), workers=world.size)
        in_background = folder is not None and _saves_in_background(world)
        self._checkpoints = CheckpointWriter(self._save_checkpoint, in_background=in_background)
        self._training_set = open_training_set(config, data, budget=budget, world=world)
        self.steps = StepRunner(
            state,
            self._training_set,
            config=config,
            budget=budget,
            precision=precision,
            world=world,
            accumulate=accumulate,
            capture=capture_for(self._training_set, world),
        )
        size = data.info.image_shape[1]
        self._validation_set = (
            open_evaluation_set(data.validation, data.normalization, size=size, world=world)
            if data.validation is not None
            else None
        )
        self._mfu_per_image_per_s = mfu_per_image_per_s(config.model, data.info, world, precision)
        # Image files would have to be decoded for the probe, so they are not probed.
        self._probe = (
            NetworkProbe(data.train, data.normalization, device=world.device, precision=precision)
            if isinstance(data.train, Split)
            else None
        )

    def train(self) -> None:
        try:
            self._train_epochs()
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

    def _train_epochs(self) -> None:
        state, budget = self._state, self._budget
        self._began_s = time.monotonic()
        while state.step < budget.total_steps:
            record = self._train_epoch(state.step // budget.steps_per_epoch)
            state.records.append(record)
            self._checkpoints.save(state.state_dict(), on_saved=partial(self._on_epoch, record))

    def _train_epoch(self, epoch: int) -> EpochRecord:
        """Train and evaluate `epoch` (from 0)."""
        config, state, budget = self._config, self._state, self._budget
        began_s = time.monotonic()
        steps, images = budget.steps_in(epoch), budget.images_in(epoch)
        # A shortened last epoch samples all steps, too: a captured step needs tensors of constant shape.
        randomness = self._training_set.sample_randomness(
            epoch, seed=config.seed, steps=budget.steps_per_epoch
        )
        report = partial(self._report_progress, epoch, began_s)
        reporter = ProgressReporter(report, after_step=self._checkpoints.poll)
        metrics = self.steps.run_epoch(randomness, steps=steps, reporter=reporter)
        self._check_divergence(metrics, epoch)
        losses, grad_norms = metrics.losses.cpu().double(), metrics.grad_norms.cpu().double()
        batches = [budget.batch(step) for step in range(steps)]
        batch_sizes = torch.tensor([rows.stop - rows.start for rows in batches]).double()
        train_loss = float(losses @ batch_sizes) / images
        epoch_s = time.monotonic() - began_s

        lr = state.lr.at(state.step - 1)
        state.average_buffers(self._world)
        validation = self._evaluate()
        self._require_finite_results(validation)
        evaluated_s = time.monotonic()
        state.lr.epoch_ended(validation.loss if validation else train_loss)
        self._keep_best(epoch, validation)
        statistics = self._probe.measure(state.network) if self._probe is not None else {}
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
            **statistics,
        )

    def _report_progress(self, epoch: int, epoch_began_s: float, done: int, metrics: StepMetrics) -> None:
        """Report `done` steps of `epoch` (from 0) that the device has finished; the host may be ahead."""
        if self._world.size == 1:
            # Several workers check the sum of their losses at the epoch's end, so that all stop together.
            self._check_divergence(metrics, epoch)
        budget, now_s = self._budget, time.monotonic()
        step = epoch * budget.steps_per_epoch + done
        step_s = (now_s - self._began_s) / (step - self._first_step)
        self._on_step(
            StepProgress(
                epoch=epoch + 1,
                epochs=budget.epochs,
                step=step,
                steps=budget.total_steps,
                images_per_s=budget.batch(done - 1).stop / (now_s - epoch_began_s),
                remaining_s=step_s * (budget.total_steps - step),
                train_loss=float(metrics.losses[:done].mean()) * self._world.size,
            )
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
                weights=copy_to_cpu(self._state.evaluated_network.state_dict()),
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
        kept = "no checkpoint was written"
        if self._folder is not None and (self._folder / LAST).is_file():
            kept = f"the checkpoint of epoch {len(self._state.records)} is {self._folder / LAST}"
        return TrainingDiverged(
            f"the {value} must stay finite: it became NaN or infinite in epoch "
            f"{step // self._budget.steps_per_epoch + 1}, step {step + 1}, at learning rate "
            f"{self._state.lr.at(step):g}; {kept}. Try a lower optimizer.lr, a warm-up "
            "(schedule.warmup_epochs: 1), or clip_grad_norm: 1"
        )

    def _save_checkpoint(self, state: Mapping[str, Any]) -> None:
        if self._folder is not None and self._world.is_first:
            save_checkpoint(self._folder, config=self._config, data_key=data_key(self._data), state=state)
            self._on_saved(self._folder / LAST)


def _saves_in_background(world: World) -> bool:
    """Return whether checkpoints are written during the next epoch.

    On a GPU the write (90 MB for ResNet-18) takes as long as an epoch; on a CPU a small part of one. Several
    workers must report in lockstep, which is not possible during the next epoch.
    """
    return world.device.type == "cuda" and world.size == 1
