"""The final model: its evaluation on the test set, its registration in MLflow, and its metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform.common.atomic import read_json, write_json
from platform.common.errors import UserError
from platform.common.time_left import TimeLeft
from platform.space.spec import SweepSpec
from platform.tracking.results import read_results
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.extend_sweep import REGISTERED_FILE, final_runs
from platform.tuning.sampling.sampler import planned_trials
from platform.tuning.selection.test_set_record import record_test_set_reading
from platform.tuning.training_stages import Sweep

if TYPE_CHECKING:
    from platform.tracking.mlflow_registry import Registered

_REMEDY = "restore it from a copy"
_ESTIMATES = {
    "mean": "validation_accuracy_mean",
    "error": "validation_accuracy_error",
    "best_probability": "best_probability",
    "expected_loss": "expected_loss",
}
"""Metric keys of the champion's estimate in selection.json."""


def final_model_path(folder: SweepFolder) -> Path:
    """Return the path of the final model.

    Raises:
        UserError: the final model is not trained yet.
    """
    path = folder.checkpoint_dir("final") / "model.pt"
    if not path.exists():
        raise UserError(
            f"{folder.sweep_id} has no final model yet; resume it with --resume {folder.sweep_id}"
        )
    return path


def is_trained(folder: SweepFolder, spec: SweepSpec) -> bool:
    """Return whether training is complete: all trials were ranked and the champion was retrained."""
    if not (folder.checkpoint_dir("final") / "model.pt").exists() or not folder.selection.exists():
        return False
    selection = read_json(folder.selection, remedy=_REMEDY)
    found = (selection["planned_trials"], selection["champion"])
    return found == (planned_trials(spec), final_runs(folder)[-1].candidate)


def evaluate_on_test_set(
    sweep: Sweep, *, again: bool = False, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Evaluate the final model on the test set and write test.json; an existing test.json is returned.

    A quick sweep evaluates a large network on a CPU on a part of the test set; `images` and `split_images`
    in test.json are the sizes of both. `again` evaluates although the test set was read before.

    Returns:
        The content of test.json: loss, accuracy (0..1), per_class, confusion, images, class_names, ...

    Raises:
        UserError: the test set was read before for another model, or the cache is damaged.
    """
    folder, info = sweep.folder, sweep.info
    if folder.test.exists() and not again:
        return read_json(folder.test, remedy=_REMEDY)
    import numpy as np
    import torch

    from platform.data.cache import load_split
    from platform.data.normalization import Normalization
    from platform.models.trained import load_trained_model
    from platform.training.acceleration.precision import choose_precision
    from platform.training.evaluation.affordable import affordable_images
    from platform.training.evaluation.calibration import calibration, frequent_mistakes
    from platform.training.evaluation.evaluate import evaluate

    model = load_trained_model(final_model_path(folder))
    record = record_test_set_reading(
        folder.path, split_sha256=info.sha256, run=final_runs(folder)[-1].trial_id, again=again
    )
    on_gpu = sweep.plan.final.resources_per_worker.GPU > 0 and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    precision, _ = choose_precision(sweep.spec.base.precision, device)
    split = load_split(info, "test")
    rows = np.arange(len(split))
    if sweep.plan.quick and not on_gpu:
        rows = affordable_images(
            model.model, num_classes=len(info.class_names), input_shape=info.image_shape, images=len(split)
        )
        split = split.take(rows)
    what = "evaluating on the test split"
    if len(split) < info.test_images:
        what = f"{what} ({len(split):,} of {info.test_images:,} images)"
    progress(what)
    result = evaluate(
        model.network(),
        split,
        Normalization(mean=model.mean.numpy(), std=model.std.numpy()),
        device=device,
        precision=precision,
        keep_logits=True,
        progress=TimeLeft(what, len(split), progress, unit="images").update,
    )
    assert result.logits is not None  # noqa: S101 - `keep_logits` is set
    mistakes = frequent_mistakes(result.logits, split)
    for image in (image for group in mistakes for image in group["images"]):
        image["index"] = int(rows[image["index"]])
    write_json(
        folder.test,
        {
            "accuracy": result.accuracy,
            "loss": result.loss,
            "per_class": result.per_class_accuracy,
            "confusion": result.confusion,
            "calibration": calibration(result.logits, split),
            "mistakes": mistakes,
            "images": len(split),
            "split_images": info.test_images,
            "class_names": info.class_names,
            "data_label": info.label,
            "precision": precision,
            "opened_at": record.openings[-1].opened_utc,
            "times_opened": len(record.openings),
            "split_sha256": info.sha256,
        },
    )
    return read_json(folder.test, remedy=_REMEDY)


def register(
    sweep: Sweep, *, tracking_uri: str, progress: Callable[[str], None] = lambda _: None
) -> Registered | None:
    """Register the final model in MLflow, once per sweep; return None if it is already registered.

    Raises:
        UserError: the tracking store does not answer.
    """
    from platform.tracking.mlflow_registry import register_champion
    from platform.tracking.provenance import without_credentials
    from platform.tuning.selection.registry_alias import choose_alias

    record = sweep.folder.path / REGISTERED_FILE
    if record.exists():
        return None
    registered = register_champion(
        sweep.folder,
        final_model_path(sweep.folder),
        choose_alias=choose_alias,
        tracking_uri=tracking_uri,
        space=sweep.spec.name,
        metrics=final_metrics(sweep.folder),
        tags={
            "quick": str(sweep.plan.quick).lower(),
            "generated_data": str(sweep.info.name == "generated").lower(),
        },
        progress=progress,
    )
    write_json(
        record,
        {
            "model": registered.model,
            "version": registered.version,
            "alias": registered.choice.alias,
            "tracking_uri": without_credentials(tracking_uri),
        },
    )
    return registered


def final_metrics(folder: SweepFolder) -> dict[str, float]:
    """Return the available final metrics of the sweep by metric key."""
    results = read_results(folder)
    metrics: dict[str, float] = {}
    candidate = results.champion_candidate()
    if candidate is not None:
        metrics["champion/validation_runs"] = float(candidate["n"])
        estimate = candidate.get("estimate") or {}
        metrics |= {f"champion/{key}": estimate[name] for name, key in _ESTIMATES.items() if name in estimate}
        ends = zip(("low", "high"), estimate.get("interval95", ()), strict=False)
        metrics |= {f"champion/validation_accuracy_{name}": end for name, end in ends}
    if results.test is not None:
        metrics["test/accuracy"] = float(results.test["accuracy"])
        metrics["test/loss"] = float(results.test["loss"])
    if results.benchmark is not None:
        for entry in results.benchmark["results"]:
            if entry.get("batch", 1) == 1 and entry.get("workers", 1) == 1:
                name = f"ncnn/{entry.get('precision', 'fp32')}_latency_ms_p50_t{entry['threads']}"
                metrics[name] = float(entry["latency_ms"]["p50"])
    for document in results.lower_precisions:
        test = (document.get("accuracy") or {}).get("test")
        if test:
            metrics[f"ncnn/{document['precision']}_test_accuracy"] = float(test["top1"])
    return metrics
