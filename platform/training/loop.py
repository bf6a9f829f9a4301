"""`fit`: one training run, from a configuration and data to a trained model. Pure PyTorch.

It knows neither Ray nor MLflow, and no files outside its checkpoint folder. Whoever runs it listens through
two callbacks; an exception raised in one ends the run, and `fit` called again goes on from the last epoch.
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
from torch import nn

from platform.data.image_folders import PictureData, evaluation_side
from platform.data.training_data import TrainingData
from platform.errors import UserError
from platform.models.networks import build
from platform.models.trained import TrainedModel, save_trained_model
from platform.training.acceleration.cuda_graph import capture_for
from platform.training.acceleration.mfu import mfu_per_rate
from platform.training.acceleration.precision import Precision, choose, reproducible_convolutions
from platform.training.acceleration.torch_compile import compile_ahead
from platform.training.checkpoint import CheckpointWriter, load_checkpoint, save_checkpoint
from platform.training.config import RunConfig
from platform.training.diagnostics.divergence import diverged
from platform.training.diagnostics.probe import Probe, count_spikes, look_fields
from platform.training.distributed import World, single
from platform.training.evaluation.evaluation import Evaluation, evaluate_table
from platform.training.inputs.batches import draw_of, open_evaluation, open_training
from platform.training.inputs.budget import Budget, budget_of
from platform.training.records import EpochRecord, RunResult, StepProgress
from platform.training.run_folder import LAST, MODEL, discard_unfinished
from platform.training.state import Best, RunState, begin
from platform.training.step import EpochSums, Steps, Ticker, refuse_empty_pieces


def _ignore(_: object) -> None:
    """Listen to nothing."""


def fit(
    config: RunConfig,
    data: TrainingData | PictureData,
    *,
    world: World,
    checkpoint_dir: Path | None,
    on_epoch: Callable[[EpochRecord], None] = _ignore,
    on_step: Callable[[StepProgress], None] = _ignore,
    provenance: Mapping[str, str] | None = None,
    resume: bool = True,
    accumulate: int = 1,
    compile_network: bool = False,
) -> RunResult:
    """Train `config` on `data`; every worker of a run calls it alike.

    The same configuration, seed and number of workers give the same numbers on one kind of device (on a CPU
    bit by bit, also through a resume). The number of threads is the caller's to set.

    Args:
        config: the run.
        data: training images, held-out images or none, normalization, data set.
        world: this worker among the run's workers.
        checkpoint_dir: where last.pt is written after every epoch, before `on_epoch` is called, and model.pt
            at the end, by rank 0; None to keep nothing.
        on_epoch: called on every worker after each epoch that this call trains; on one GPU during the next
            epoch, as soon as the checkpoint is written. What it raises ends the run.
        on_step: called on every worker about once a second.
        provenance: what model.pt says about its origin.
        resume: whether to go on from `checkpoint_dir`/last.pt if it is there.
        accumulate: pieces into which each worker's part of a batch is cut, one after another through the
            network, for a device too small for the whole. The images of each step, their order and their
            weight stay the same; what differs is batch normalization, which sees a piece at a time.
        compile_network: whether to pass the network through `torch.compile` before the first step.

    Returns:
        The run's records, those before a resume included; a run that was finished already returns at once.

    Raises:
        UserError: the batch size does not divide by the workers, `accumulate` exceeds a worker's part of it,
            or the checkpoint is damaged or another's.
        TrainingDiverged: the loss became NaN or infinite.
    """
    budget = budget_of(config, images=len(data.train.labels), workers=world.size)
    refuse_empty_pieces(accumulate, config, world)
    precision, _ = choose(config.precision, world.device)
    network = _fresh_network(config, data)
    state = begin(config, network, budget=budget, world=world, compile_network=compile_network)
    if checkpoint_dir is not None and world.is_first:
        discard_unfinished(checkpoint_dir)
    if resume and checkpoint_dir is not None:
        _restore(state, config, data, world=world, folder=checkpoint_dir)
    execution: dict[str, Any] = {"accumulate": accumulate}
    if state.step < budget.total_steps:
        if compile_network:
            execution["compile_s"] = compile_ahead(
                state,
                images=math.ceil(config.batch_size // world.size / accumulate),
                shape=data.info.image_shape,
                precision=precision,
                device=world.device,
            )
        run = _Run(config, data, world, budget, precision, state, checkpoint_dir, accumulate)
        with reproducible_convolutions():
            run.train(on_epoch, on_step)
        execution["captured"] = run.captured
    result = _finish(state, config, data, world=world, folder=checkpoint_dir, provenance=provenance or {})
    return replace(result, **execution)


def write_model_so_far(
    config: RunConfig,
    data: TrainingData | PictureData,
    *,
    checkpoint_dir: Path,
    out_dir: Path,
    provenance: Mapping[str, str] | None = None,
) -> Path:
    """Write the model of a run's last checkpoint, although the run has not come to its end.

    Args:
        config: the run.
        data: what it trains on.
        checkpoint_dir: where its last.pt is.
        out_dir: where model.pt is written.
        provenance: what model.pt says about its origin.

    Returns:
        The path of model.pt.

    Raises:
        UserError: there is no checkpoint, or it is damaged or another run's.
    """
    world = single("cpu")
    budget = budget_of(config, images=len(data.train.labels))
    state = begin(config, _fresh_network(config, data), budget=budget, world=world)
    _restore(state, config, data, world=world, folder=checkpoint_dir)
    if not state.records:
        raise UserError(f"{checkpoint_dir} holds no checkpoint of this run: it has not finished an epoch")
    _finish(state, config, data, world=world, folder=out_dir, provenance=provenance or {})
    return out_dir / MODEL


class _Run:
    """The epochs of one call of `fit`."""

    def __init__(
        self,
        config: RunConfig,
        data: TrainingData | PictureData,
        world: World,
        budget: Budget,
        precision: Precision,
        state: RunState,
        folder: Path | None,
        accumulate: int,
    ) -> None:
        self._config, self._data, self._world, self._budget = config, data, world, budget
        self._precision, self._state, self._folder = precision, state, folder
        self._checkpoints = CheckpointWriter(self._save, behind=folder is not None and _saves_behind(world))
        self._table = open_training(config, data, budget=budget, world=world)
        self._steps = Steps(
            state,
            self._table,
            config=config,
            budget=budget,
            precision=precision,
            world=world,
            accumulate=accumulate,
            capture=capture_for(self._table, world),
        )
        self._held_out = (
            open_evaluation(data.validation, data.normalization, size=data.info.image_shape[1], world=world)
            if data.validation is not None
            else None
        )
        self._mfu_per_rate = mfu_per_rate(
            config.model,
            num_classes=len(data.info.class_names),
            input_shape=data.info.image_shape,
            device=world.device,
            precision=precision,
            workers=world.size,
        )
        # Pictures in files would have to be decoded for it; the step there is another kind of slow.
        self._probe = (
            Probe(data, device=world.device, precision=precision) if isinstance(data, TrainingData) else None
        )

    @property
    def captured(self) -> bool:
        """Whether the steps of whole batches were replayed from a CUDA graph."""
        return self._steps.captured

    def train(self, on_epoch: Callable[[EpochRecord], None], on_step: Callable[[StepProgress], None]) -> None:
        """Train from the state's step to the end of the budget."""
        try:
            self._train(on_epoch, on_step)
            self._checkpoints.finish()
        except BaseException:
            if self._world.device.type == "cuda":
                # Queued steps must not run on memory that the caller is about to free. A device's own error
                # comes again here; it is raised below.
                with suppress(RuntimeError):
                    torch.cuda.synchronize(self._world.device)
            raise
        finally:
            self._checkpoints.close()

    def _train(
        self, on_epoch: Callable[[EpochRecord], None], on_step: Callable[[StepProgress], None]
    ) -> None:
        state, first_step, began_s = self._state, self._state.step, time.monotonic()
        while state.step < self._budget.total_steps:
            epoch = state.step // self._budget.steps_per_epoch
            epoch_began_s = time.monotonic()

            def tick(
                done: int, sums: EpochSums, *, epoch: int = epoch, epoch_began_s: float = epoch_began_s
            ) -> None:
                loss = float(sums.losses[:done].mean())
                if self._world.size == 1:
                    self._refuse_divergence(sums, epoch)
                now_s = time.monotonic()
                # The device's step: the host may be some steps ahead.
                step = epoch * self._budget.steps_per_epoch + done
                pace_s = (now_s - began_s) / (step - first_step)
                on_step(
                    StepProgress(
                        epoch=epoch + 1,
                        epochs=self._budget.epochs,
                        step=step,
                        steps=self._budget.total_steps,
                        images_per_s=self._budget.batch(done - 1).stop / (now_s - epoch_began_s),
                        remaining_s=pace_s * (self._budget.total_steps - step),
                        train_loss=loss * self._world.size,
                    )
                )

            record = self._epoch(epoch, Ticker(tick, every_step=self._checkpoints.poll))
            state.records.append(record)
            self._checkpoints.save(state.state_dict(), then=partial(on_epoch, record))

    def _save(self, state: Mapping[str, Any]) -> None:
        if self._folder is not None and self._world.is_first:
            save_checkpoint(self._folder, config=self._config, data_key=_key_of(self._data), state=state)

    def _epoch(self, epoch: int, ticker: Ticker) -> EpochRecord:
        """Train and evaluate `epoch` (from 0)."""
        config, state, world, budget = self._config, self._state, self._world, self._budget
        began_s = time.monotonic()
        steps = budget.steps_in(epoch)
        draw = draw_of(self._table, config, budget=budget, epoch=epoch, device=world.device)
        sums = self._steps.epoch(draw, steps=steps, ticker=ticker)
        self._refuse_divergence(sums, epoch)
        images = budget.images_in(epoch)
        weights = torch.tensor([_length(budget.batch(step)) for step in range(steps)], dtype=torch.float64)
        train_loss = float(sums.losses.cpu().double() @ weights) / images
        epoch_s = time.monotonic() - began_s

        lr = state.lr.at(state.step - 1)
        state.average_buffers(world)
        held_out = self._evaluate()
        evaluated_s = time.monotonic()
        state.lr.epoch_ended(held_out.loss if held_out else train_loss)
        self._keep_best(epoch, held_out)
        look = self._probe.look(state.network) if self._probe is not None else None
        grad_norms = sums.grad_norms.cpu().double()
        spikes = count_spikes(sums.losses.cpu().double().numpy())
        return EpochRecord(
            epoch=epoch + 1,
            epochs=budget.epochs,
            step=state.step,
            lr=lr,
            train_loss=train_loss,
            train_accuracy=float(sums.hits.cpu().double().sum()) / images,
            validation_loss=held_out.loss if held_out else None,
            validation_accuracy=held_out.accuracy if held_out else None,
            grad_norm=float(grad_norms.mean()),
            grad_norm_max=float(grad_norms.max()),
            loss_spikes=spikes,
            epoch_s=epoch_s,
            evaluation_s=evaluated_s - began_s - epoch_s,
            overhead_s=time.monotonic() - evaluated_s + self._take_waited_s(),
            images_per_s=images / epoch_s,
            mfu=None if self._mfu_per_rate is None else self._mfu_per_rate * images / epoch_s,
            **look_fields(look),
        )

    def _take_waited_s(self) -> float:
        """Return how long checkpoints have kept the run waiting since the last call."""
        waited_s, self._checkpoints.waited_s = self._checkpoints.waited_s, 0.0
        return waited_s

    def _evaluate(self) -> Evaluation | None:
        if self._held_out is None:
            return None
        return evaluate_table(
            self._state.evaluated, self._held_out, world=self._world, precision=self._precision
        )

    def _keep_best(self, epoch: int, held_out: Evaluation | None) -> None:
        best = self._state.best
        if self._config.report != "best" or held_out is None:
            return
        if best is None or held_out.accuracy > best.accuracy:
            self._state.best = Best(
                epoch=epoch + 1,
                accuracy=held_out.accuracy,
                loss=held_out.loss,
                weights=_weights_of(self._state.evaluated),
            )

    def _refuse_divergence(self, sums: EpochSums, epoch: int) -> None:
        bad = sums.first_bad_step()
        if bad is None:
            return
        # The epochs before are reported first, and their checkpoint is named below.
        self._checkpoints.finish()
        step = epoch * self._budget.steps_per_epoch + bad
        path = self._folder / LAST if self._folder is not None else None
        raise diverged(
            epoch=epoch + 1,
            step=step + 1,
            lr=self._state.lr.at(step),
            checkpoint=path if path is not None and path.is_file() else None,
            last_epoch=len(self._state.records),
        )


def _saves_behind(world: World) -> bool:
    """Return whether checkpoints are written while the run trains on.

    On a GPU the write (90 MB for ResNet-18) takes as long as an epoch; on a CPU little of an epoch. Several
    workers report in step with each other, which a report during the next epoch would not.
    """
    return world.device.type == "cuda" and world.size == 1


def _fresh_network(config: RunConfig, data: TrainingData | PictureData) -> nn.Module:
    """Initialize from the run's seed, leaving the process's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build(config.model, num_classes=len(data.info.class_names))


def _key_of(data: TrainingData | PictureData) -> str:
    """Name the training images: the data set, and how many of its images are held out."""
    held_out = 0 if data.validation is None else len(data.validation.labels)
    return f"{data.info.label} {data.info.sha256[:12]}, {len(data.train.labels)} + {held_out} held out"


def _restore(
    state: RunState, config: RunConfig, data: TrainingData | PictureData, *, world: World, folder: Path
) -> None:
    """Go on from the checkpoint in `folder` if there is one; only rank 0 needs to see the folder."""
    found: dict[str, object] | UserError | None = None
    if world.is_first and (folder / LAST).is_file():
        try:
            found = load_checkpoint(folder, config=config, data_key=_key_of(data))
        except UserError as error:
            # The others wait for rank 0's word: they get its error, and all end alike.
            found = error
    found = world.share_from_first(found)
    if isinstance(found, UserError):
        raise found
    if found is not None:
        state.load_state_dict(found)


def _finish(
    state: RunState,
    config: RunConfig,
    data: TrainingData | PictureData,
    *,
    world: World,
    folder: Path | None,
    provenance: Mapping[str, str],
) -> RunResult:
    """Write model.pt and sum the run up."""
    last, best = state.records[-1], state.best
    loss = best.loss if best else last.validation_loss
    accuracy = best.accuracy if best else last.validation_accuracy
    path = None
    if folder is not None and world.is_first:
        metrics = {"train_loss": last.train_loss}
        if loss is not None and accuracy is not None:
            metrics |= {"validation_loss": loss, "validation_accuracy": accuracy}
        path = folder / MODEL
        save_trained_model(
            path,
            TrainedModel(
                model=config.model,
                state_dict=best.weights if best else _weights_of(state.evaluated),
                mean=torch.tensor(data.normalization.mean),
                std=torch.tensor(data.normalization.std),
                class_names=data.info.class_names,
                input_shape=data.info.image_shape,
                shorter_side=(
                    evaluation_side(data.info.image_shape[1]) if isinstance(data, PictureData) else None
                ),
                data_label=data.info.label,
                provenance={"config": config.model_dump_json(), **provenance},
                metrics=metrics,
            ),
        )
    precision, _ = choose(config.precision, world.device)
    return RunResult(
        epochs=tuple(state.records),
        model_path=path,
        train_loss=last.train_loss,
        validation_loss=loss,
        validation_accuracy=accuracy,
        device=str(world.device),
        precision=precision,
    )


def _weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """Copy a network's weights to the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _length(rows: slice) -> int:
    return int(rows.stop - rows.start)
