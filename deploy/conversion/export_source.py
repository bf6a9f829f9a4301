"""Find the trained model, output folder, data set and provenance of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform.common.atomic import read_json
from platform.common.errors import UserError

if TYPE_CHECKING:
    from platform.data.dataset import DatasetInfo
    from platform.models.trained import TrainedModel

MODEL_FILE = "model.pt"
FINAL_TRIAL = "final"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A model to export."""

    model_path: Path
    out_dir: Path
    """Default folder of the export."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Provenance that is not in the model file."""


def find_target(name: str, *, runs: Path) -> Target:
    """Return the model that `name` refers to.

    Args:
        name: a model.pt, a folder with one, a sweep's folder or its id under `runs`, or `latest`.
        runs: folder that holds the sweeps.

    Raises:
        UserError: `name` does not exist, or the sweep has no final model yet.
    """
    path = Path(name)
    if path.is_file():
        return Target(model_path=path, out_dir=path.absolute().parent / "export")
    if (path / MODEL_FILE).is_file():
        return Target(model_path=path / MODEL_FILE, out_dir=path / "export")
    if path.suffix in {".pt", ".pth"}:
        raise UserError(f"no file {name}; give a sweep, or the {MODEL_FILE} of a training run")

    from platform.tracking.sweep_folder import find_sweep

    sweep = find_sweep(name, root=runs)
    model_path = sweep.checkpoint_dir(FINAL_TRIAL) / MODEL_FILE
    if not model_path.is_file():
        raise UserError(
            f"the sweep {sweep.sweep_id} has no final model yet ({model_path} is missing); "
            "finish it with --resume, or give the model.pt of one of its trials"
        )
    source: dict[str, Any] = {"sweep": sweep.sweep_id, "run": FINAL_TRIAL}
    if sweep.test.exists():
        source["test_accuracy"] = read_json(sweep.test, remedy="restore it from a copy").get("accuracy")
    return Target(model_path=model_path, out_dir=sweep.export, source=source)


def find_dataset(model: TrainedModel, data_dir: Path | None) -> DatasetInfo | None:
    """Return the data set that `model` was trained on.

    Args:
        model: the trained model.
        data_dir: folder of the data; None: the data must be in the cache.

    Returns:
        the data set, or None if it is not in the cache or has another image size or number of classes.

    Raises:
        UserError: the data in `data_dir` cannot be read, or does not match the model.
    """
    from platform.data import cache, catalog
    from platform.data.config import DataConfig

    if data_dir is None:
        info = cache.find_cached_by_label(cache.default_cache_dir(), model.data_label)
        if info is None or info.image_shape != model.input_shape:
            return None
        return info if len(info.class_names) == len(model.class_names) else None
    info = catalog.prepare_dataset(
        DataConfig(name="folder" if model.data_label.startswith("folder") else "cifar10"), data_dir=data_dir
    )
    if info.image_shape != model.input_shape:
        raise UserError(
            f"the model takes images of shape {model.input_shape}, those in {data_dir} have shape "
            f"{info.image_shape}"
        )
    if len(info.class_names) != len(model.class_names):
        raise UserError(
            f"the model has {len(model.class_names)} classes, the data in {data_dir} has "
            f"{len(info.class_names)}"
        )
    return info


def exporter_versions() -> dict[str, str]:
    """Return the versions of the packages that an export depends on."""
    versions = {}
    for name in ("torch", "pnnx", "ncnn"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def source_info(model: TrainedModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `source` entry of model.json: the model's own provenance, overridden by `given`."""
    known: dict[str, Any] = {
        key: model.provenance[key] for key in ("run", "sweep", "commit") if key in model.provenance
    }
    known["data"] = model.data_label
    if "test_accuracy" in model.metrics:
        known["test_accuracy"] = model.metrics["test_accuracy"]
    return {**known, **{key: value for key, value in given.items() if value is not None}}


def trained_model_of(folder: Path) -> Path:
    """Return the trained model that a folder was exported from: in its sweep, or next to it.

    Raises:
        UserError: the file does not exist.
    """
    parent = folder.absolute().parent
    for path in (parent / "checkpoints" / FINAL_TRIAL / MODEL_FILE, parent / MODEL_FILE):
        if path.is_file():
            return path
    raise UserError(f"the {MODEL_FILE} that {folder} was exported from was not found; give it with --model")
