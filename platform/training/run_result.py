"""The start and the end of a run: its initial network, its checkpoint, its result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from platform.common.errors import UserError
from platform.data.image_folders import ImageFolderSplit, evaluation_side
from platform.data.training_data import TrainingData
from platform.models.networks import build_network
from platform.models.trained import TrainedModel, save_trained_model
from platform.training.acceleration.precision import choose_precision
from platform.training.checkpoint import copy_to_cpu, load_checkpoint
from platform.training.config import RunConfig
from platform.training.distributed import World, single
from platform.training.inputs.budget import budget_of
from platform.training.records import RunResult
from platform.training.run_folder import LAST, MODEL
from platform.training.state import RunState, initial_state


def initialize_network(config: RunConfig, data: TrainingData) -> nn.Module:
    """Build the network from the run's seed, without changing the global random generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_network(config.model, num_classes=len(data.info.class_names))


def data_key(data: TrainingData) -> str:
    """Identify the training images: data set, number of training images, number of validation images."""
    held_out = 0 if data.validation is None else len(data.validation.labels)
    return f"{data.info.label} {data.info.sha256[:12]}, {len(data.train.labels)} + {held_out} held out"


def restore(state: RunState, config: RunConfig, data: TrainingData, *, world: World, folder: Path) -> None:
    """Resume from the checkpoint in `folder` if there is one; only rank 0 reads the folder."""

    def load() -> dict[str, Any] | None:
        exists = (folder / LAST).is_file()
        return load_checkpoint(folder, config=config, data_key=data_key(data)) if exists else None

    if (found := world.call_on_first(load)) is not None:
        state.load_state_dict(found)


def save_result(
    state: RunState,
    config: RunConfig,
    data: TrainingData,
    *,
    world: World,
    folder: Path | None,
    provenance: Mapping[str, str],
) -> RunResult:
    """Write model.pt to `folder` and return the result of the run."""
    last, best = state.records[-1], state.best
    loss = best.loss if best else last.validation_loss
    accuracy = best.accuracy if best else last.validation_accuracy
    path = None
    if folder is not None and world.is_first:
        metrics = {"train_loss": last.train_loss}
        if loss is not None and accuracy is not None:
            metrics |= {"validation_loss": loss, "validation_accuracy": accuracy}
        path = folder / MODEL
        size = data.info.image_shape[1]
        save_trained_model(
            path,
            TrainedModel(
                model=config.model,
                state_dict=best.weights if best else copy_to_cpu(state.evaluated_network.state_dict()),
                mean=torch.tensor(data.normalization.mean),
                std=torch.tensor(data.normalization.std),
                class_names=data.info.class_names,
                input_shape=data.info.image_shape,
                shorter_side=evaluation_side(size) if isinstance(data.train, ImageFolderSplit) else None,
                data_label=data.info.label,
                provenance={"config": config.model_dump_json(), **provenance},
                metrics=metrics,
            ),
        )
    precision, _ = choose_precision(config.precision, world.device)
    return RunResult(
        epochs=tuple(state.records),
        model_path=path,
        train_loss=last.train_loss,
        validation_loss=loss,
        validation_accuracy=accuracy,
        device=str(world.device),
        precision=precision,
    )


def write_model_from_checkpoint(
    config: RunConfig,
    data: TrainingData,
    *,
    checkpoint_dir: Path,
    out_dir: Path,
    provenance: Mapping[str, str] | None = None,
) -> Path:
    """Write the model of the last checkpoint of a run that has not finished; return the path of model.pt.

    Raises:
        UserError: there is no checkpoint, or it is damaged or belongs to another run.
    """
    world = single("cpu")
    budget = budget_of(config, images=len(data.train.labels))
    state = initial_state(config, initialize_network(config, data), budget=budget, world=world)
    restore(state, config, data, world=world, folder=checkpoint_dir)
    if not state.records:
        raise UserError(f"{checkpoint_dir} has no checkpoint of this run: it has not finished an epoch")
    save_result(state, config, data, world=world, folder=out_dir, provenance=provenance or {})
    return out_dir / MODEL
