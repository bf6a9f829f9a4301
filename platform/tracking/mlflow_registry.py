"""Register the champion of a sweep, with its export and benchmark, in MLflow's model registry.

    mlflow.pyfunc.load_model("models:/resnet18_cifar@champion").predict(images)   # uint8 [N, 3, 32, 32]

The model is saved as a torch.export program, which loads without this package and without pickle.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from platform.common.errors import UserError
from platform.tracking.mlflow_store import experiment_id, open_store, resolve_tracking_uri
from platform.tracking.mlflow_writer import find_sweep_run, log_artifact
from platform.tracking.provenance import without_credentials
from platform.tracking.sweep_folder import SweepFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import nn

    from platform.models.trained import TrainedModel

CHAMPION = "champion"


@dataclass(frozen=True)
class AliasChoice:
    """The alias of a new model version."""

    alias: str
    reason: str = ""
    """Why the alias is not `champion`."""


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A registered model version."""

    model: str
    version: str
    choice: AliasChoice


def register_champion(
    folder: SweepFolder,
    model_path: Path,
    *,
    choose_alias: Callable[[Mapping[str, str], Mapping[str, str] | None], AliasChoice],
    tracking_uri: str | None = None,
    space: str | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Registered:
    """Log the champion's model, export and benchmark to the sweep's run, and register the model.

    Args:
        folder: the sweep; its `export/`, `export-int8/` and `benchmark.json` are logged if they exist.
        model_path: the trained model (`platform.models.trained`).
        choose_alias: called with the tags of the new version and the tags of the current champion or None.
        tracking_uri: see `resolve_tracking_uri`.
        space: name of the experiment and of the registered model; default: the folder's search space.
        metrics: added as tags of the version, so that versions can be compared in the registry.
        tags: further tags of the version (`quick`, `data_label`, ...).

    Raises:
        UserError: the store is unavailable, or it has no run of this sweep.
    """
    from mlflow.exceptions import MlflowException

    from platform.models.trained import load_trained_model

    model = load_trained_model(model_path)
    space = space or folder.space
    uri = resolve_tracking_uri(tracking_uri)
    shown = without_credentials(uri)
    client = open_store(uri)
    run = find_sweep_run(client, experiment_id(client, uri, space), folder.sweep_id)
    if run is None:
        raise UserError(
            f"MLflow ({shown}) has no run of the sweep {folder.sweep_id}; give the store of the sweep with "
            "--tracking-uri"
        )
    run_id = str(run.info.run_id)
    try:
        with TemporaryDirectory() as temporary:
            path = Path(temporary) / "model"
            save_mlflow_model(model, path)
            client.log_artifacts(run_id, str(path), artifact_path="model")
        client.log_artifact(run_id, str(model_path), artifact_path="checkpoint")
        if folder.export.is_dir():
            for path in (folder.export, *folder.lower_precisions):
                log_artifact(client, run_id, path, path.name)
        if folder.benchmark.is_file():
            client.log_artifact(run_id, str(folder.benchmark))
        try:
            client.get_registered_model(space)
        except MlflowException:
            client.create_registered_model(space)
        version_tags = {
            "sweep_id": folder.sweep_id,
            "data_label": model.data_label,
            **{key: f"{value:.6g}" for key, value in (metrics or {}).items()},
            **(tags or {}),
        }
        choice = choose_alias(version_tags, _champion_tags(client, space))
        version = client.create_model_version(
            space, source=f"{run.info.artifact_uri}/model", run_id=run_id, tags=version_tags
        )
        client.set_registered_model_alias(space, choice.alias, version.version)
    except (MlflowException, OSError) as error:
        reason = without_credentials(" ".join(str(error).split()))[:300]
        raise UserError(f"cannot register the champion in MLflow ({shown}): {reason}") from None
    return Registered(model=space, version=str(version.version), choice=choice)


def _champion_tags(client: MlflowClient, model: str) -> Mapping[str, str] | None:
    aliases = client.get_registered_model(model).aliases
    return client.get_model_version(model, aliases[CHAMPION]).tags if CHAMPION in aliases else None


def save_mlflow_model(model: TrainedModel, path: Path) -> None:
    """Write an MLflow model folder; input uint8 [N, C, H, W] (raw pixels), output float32 logits [N, K]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from MLflow and torch.export, about their own code
        import mlflow.pytorch
        import numpy as np
        import torch
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        # MLflow logs "Failed to resolve installed pip version" in environments made by uv.
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        shape = (-1, *model.input_shape)
        mlflow.pytorch.save_model(
            _from_pixels(model),
            str(path),
            signature=ModelSignature(
                inputs=Schema([TensorSpec(np.dtype("uint8"), shape)]),
                outputs=Schema([TensorSpec(np.dtype("float32"), (-1, len(model.class_names)))]),
            ),
            # Two images, because a batch of one would make the exported batch size static.
            input_example=np.zeros((2, *model.input_shape), np.uint8),
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],
            metadata={"class_names": list(model.class_names), "data_label": model.data_label},
            serialization_format="pt2",
        )


def _from_pixels(model: TrainedModel) -> nn.Module:
    import torch
    from torch import nn

    class FromPixels(nn.Module):
        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.network = model.network()
            mean = model.mean if model.mean.dim() == 3 else model.mean[:, None, None]
            self.register_buffer("mean", mean)
            self.register_buffer("std", model.std[:, None, None])

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            pixels = images.to(torch.float32) / 255
            logits: torch.Tensor = self.network((pixels - self.mean) / self.std)
            return logits

    return FromPixels().eval()
