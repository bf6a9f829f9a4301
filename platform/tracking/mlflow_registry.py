"""Register the champion of a sweep, with its export and benchmark, in MLflow's model registry.

    mlflow.pyfunc.load_model("models:/resnet18_cifar@champion").predict(images)   # uint8 [N, 3, 32, 32]
    # [{"class": "cat", "probability": 0.98, "logits": [...]}, ...]

The model is a torch.export program with `platform.models.served_model`; it loads without this package and
without pickle.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import platform
from platform.common.errors import UserError
from platform.common.text_format import percent
from platform.tracking.mlflow_store import experiment_id, open_store, write_row
from platform.tracking.mlflow_writer import find_sweep_run
from platform.tracking.provenance import without_credentials
from platform.tracking.sweep_folder import SweepFolder

if TYPE_CHECKING:
    from torch import nn

    from platform.models.trained import TrainedModel

CHAMPION = "champion"
_MEASURED = ("champion/", "test/", "ncnn/")
"""Prefixes of the tags that hold results."""


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
    tracking_uri: str,
    space: str,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Registered:
    """Log the champion's model, export and benchmark to the sweep's run, and register the model.

    Args:
        folder: the sweep; its `export/`, `export-int8/` and `benchmark.json` are logged if they exist.
        model_path: the trained model (`platform.models.trained`).
        choose_alias: called with the tags of the new version and the tags of the current champion or None.
        tracking_uri: the store of the sweep.
        space: name of the experiment and of the registered model.
        metrics: added as tags of the version, so that versions can be compared in the registry.
        tags: further tags of the version (`quick`, `data_label`, ...).
        progress: called with a message before each slow step.

    Raises:
        UserError: the store is unavailable, or it has no run of this sweep.
    """
    from mlflow.exceptions import MlflowException

    from platform.models.trained import load_trained_model

    model = load_trained_model(model_path)
    shown = without_credentials(tracking_uri)
    client = open_store(tracking_uri)
    run = find_sweep_run(client, experiment_id(client, tracking_uri, space), folder.sweep_id)
    if run is None:
        raise UserError(
            f"MLflow ({shown}) has no run of the sweep {folder.sweep_id}; give the store of the sweep with "
            "--tracking-uri"
        )
    run_id = str(run.info.run_id)
    try:
        with TemporaryDirectory() as temporary:
            path = Path(temporary) / "model"
            progress("registering: exporting the network for MLflow")
            save_mlflow_model(model, path)
            progress("registering: copying the model to MLflow")
            client.log_artifacts(run_id, str(path), artifact_path="model")
        client.log_artifact(run_id, str(model_path), artifact_path="checkpoint")
        if folder.export.is_dir():
            progress("registering: copying the exports to MLflow")
            for path in (folder.export, *folder.lower_precisions):
                client.log_artifacts(run_id, str(path), artifact_path=path.name)
        if folder.benchmark.is_file():
            client.log_artifact(run_id, str(folder.benchmark))
        progress("registering: adding the version")
        with suppress(MlflowException):  # it exists, or another sweep creates it at this moment
            client.create_registered_model(space)
        version_tags = {
            "sweep_id": folder.sweep_id,
            "data_label": model.data_label,
            **{key: f"{value:.6g}" for key, value in (metrics or {}).items()},
            **(tags or {}),
        }
        registered = client.get_registered_model(space)
        champion = registered.aliases.get(CHAMPION)
        choice = choose_alias(
            version_tags, client.get_model_version(space, champion).tags if champion else None
        )
        description = _description(model, folder, space, choice.alias, shown, metrics or {})
        version = client.create_model_version(
            space,
            source=f"{run.info.artifact_uri}/model",
            run_id=run_id,
            tags=version_tags,
            description=description,
        )
        write_row(lambda: client.set_registered_model_alias(space, choice.alias, version.version))
        if choice.alias == CHAMPION or not registered.description:
            client.update_registered_model(space, description=description)
            for key in registered.tags.keys() - version_tags.keys():
                if key.startswith(_MEASURED):
                    client.delete_registered_model_tag(space, key)
            for key, value in version_tags.items():
                write_row(partial(client.set_registered_model_tag, space, key, value))
    except (MlflowException, OSError) as error:
        reason = without_credentials(" ".join(str(error).split()))[:300]
        raise UserError(f"cannot register the champion in MLflow ({shown}): {reason}") from None
    return Registered(model=space, version=str(version.version), choice=choice)


def save_mlflow_model(model: TrainedModel, path: Path) -> None:
    """Write an MLflow model folder; see `served_model.ImageClassifier.predict` for its input and output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from MLflow and torch.export, about their own code
        import mlflow.pyfunc
        import torch
        from mlflow.models import Model, ModelSignature
        from mlflow.types import ColSpec, DataType, Schema, TensorSpec
        from mlflow.types.schema import Array

        from platform.models import served_model

        source = Path(served_model.__file__)
        for name in ("code", "data"):
            (path / name).mkdir(parents=True)
        shutil.copy(source, path / "code")
        # Two images, because a batch of one would make the exported batch size static.
        images = torch.zeros(2, *model.input_shape)
        batch = {0: torch.export.Dim("batch")}
        program = torch.export.export(_from_unit_range(model), (images,), dynamic_shapes=(batch,))
        torch.export.save(program, path / "data" / served_model.PROGRAM)
        document = {"classes": list(model.class_names), "input_shape": list(model.input_shape)}
        (path / "data" / served_model.CLASSES).write_text(json.dumps(document), encoding="utf-8")
        versions = {"mlflow": mlflow.__version__, "torch": torch.__version__.split("+")[0]}
        requirements = [f"{name}=={version}" for name, version in versions.items()]
        (path / "requirements.txt").write_text("\n".join([*requirements, "numpy"]) + "\n", encoding="utf-8")
        environment = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
        (path / "python_env.yaml").write_text(json.dumps(environment), encoding="utf-8")
        # `save_model` would scan the files of all installed packages (3 s, and far more from a slow disk).
        # The input has no schema, because MLflow's schemas allow one type only.
        columns: list[ColSpec | TensorSpec] = [
            ColSpec(DataType.string, "class"),
            ColSpec(DataType.double, "probability"),
            ColSpec(Array(DataType.double), "logits"),
        ]
        saved = Model(
            signature=ModelSignature(outputs=Schema(columns)),
            metadata={"class_names": list(model.class_names), "data_label": model.data_label},
        )
        mlflow.pyfunc.add_to_model(
            saved, loader_module=source.stem, data="data", code="code", python_env="python_env.yaml"
        )
        saved.save(str(path / "MLmodel"))


def _from_unit_range(model: TrainedModel) -> nn.Module:
    import torch
    from torch import nn

    class FromUnitRange(nn.Module):
        """The network with the normalization of its input, which is float32 [N, C, H, W] in 0..1."""

        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.network = model.network()
            mean = model.mean if model.mean.dim() == 3 else model.mean[:, None, None]
            self.register_buffer("mean", mean)
            self.register_buffer("std", model.std[:, None, None])

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.network((images - self.mean) / self.std)
            return logits

    return FromUnitRange().eval()


def _description(
    model: TrainedModel,
    folder: SweepFolder,
    space: str,
    alias: str,
    tracking_uri: str,
    metrics: Mapping[str, float],
) -> str:
    """Return the Markdown of the registry's page: what the model is, how to call it and how to serve it."""
    uri, (channels, height, width) = f"models:/{space}@{alias}", model.input_shape
    accuracy = f" Test accuracy: {percent(metrics['test/accuracy'])}." if "test/accuracy" in metrics else ""
    return f"""{model.model.name} of the sweep {folder.sweep_id}, trained on {model.data_label}.{accuracy}

Images are integers from 0 to 255 or floats from 0 to 1, [N, {channels}, {height}, {width}], RGB.

```python
import mlflow

mlflow.set_tracking_uri("{tracking_uri}")
model = mlflow.pyfunc.load_model("{uri}")
model.predict(images)  # [{{"class": "{model.class_names[0]}", "probability": 0.98, "logits": [...]}}, ...]
```

Serve it, and send images as JSON:

```
MLFLOW_TRACKING_URI={tracking_uri} mlflow models serve -m {uri} --env-manager local --port 5001
curl http://127.0.0.1:5001/invocations -H "Content-Type: application/json" --data @images.json
```

`images.json` is `json.dumps({{"inputs": images.tolist()}})`; the answer is
`{{"predictions": [{{"class": ..., "probability": ..., "logits": [...]}}, ...]}}`.
"""
