"""Steps that run other benchmarks: the reference loop, time to 94 %, he2016_resnet32."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import roofline, time_to_accuracy, training
from benchmarks.gpu_host.facts import StepRequest, read
from benchmarks.gpu_host.schedule import ITERATIONS, iterations_that_fit
from platform.data.catalog import prepare_dataset
from platform.data.config import DataConfig
from platform.data.dataset import DatasetInfo

# A ResNet-32 trained on JPEG images (quality 75, 30 epochs) scored about 2.5 points less on them than on
# lossless versions of 1,017 of the same test images.
_JPEG75_LOSS = 0.025
_TINY = ["data.name=generated", "data.train_limit=64", "data.validation_size=100", "batch_size=32"]
_TINY += ["model.name=resnet20_cifar", "precision=fp32"]


def target_on(label: str, lossless: float) -> float:
    """Return the accuracy on data set `label` that corresponds to `lossless` on the original CIFAR-10."""
    return round(lossless - _JPEG75_LOSS, 4) if label.endswith("-jpeg75") else lossless


def data_set(request: StepRequest) -> DatasetInfo:
    """Return the data set of the accuracy steps; convert it into the cache if needed.

    It is never downloaded, which could exceed the step's time limit.
    """
    config = DataConfig(name="generated" if request.tiny else "cifar10")
    data_dir = Path(request.data_dir) if request.data_dir and not request.tiny else None
    return prepare_dataset(config, data_dir=data_dir, offline=True, progress=print)


def reference(request: StepRequest) -> None:
    """Compare with the loop of popular repositories (`benchmarks.training`)."""
    sizes = ["--images", "12800", "--repetitions", "2"]
    if request.tiny:
        sizes = ["--models", "resnet20_cifar", "--batch-size", "4", "--images", "16", "--repetitions", "1"]
        sizes += ["--workers", "0", "--precision", "fp32", "--threads", "1"]
        roofline._SIDES = dict.fromkeys(roofline._SIDES, (32, 64))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "training.json"
        training.main([*sizes, "--json", str(path)])
        for row in json.loads(path.read_text(encoding="utf-8"))["results"]:
            request.note("reference", **row)


def time_to_94(request: StepRequest) -> None:
    """Train `resnet18_ddp` once, to the equivalent of 94 % on CIFAR-10."""
    _train(request, "resnet18_ddp", 0.94, ["epochs=1"] if request.tiny else [])


def he2016_resnet32(request: StepRequest) -> None:
    """Train `he2016_resnet32` once: completely if the measured rate allows it, else a tenth of it."""
    known = [
        fact["images_per_s"]
        for fact in read(Path(request.facts))
        if (fact["kind"], fact.get("way"), fact.get("knob")) == ("rate", "captured", None)
        and (fact["model"], fact["batch_size"]) == ("resnet32_cifar", 128)
        and not fact["changes"]
    ]
    iterations = 3 if request.tiny else iterations_that_fit(known[-1] if known else None, request.limit_s)
    changes = [
        f"iterations={iterations}",
        f"schedule.milestones={[iterations // 2, 3 * iterations // 4]}",
    ]
    _train(request, "he2016_resnet32", 0.925, [] if iterations == ITERATIONS else changes)


def _train(request: StepRequest, recipe: str, lossless: float, changes: list[str]) -> None:
    """Run `benchmarks.time_to_accuracy` for one seed; record each epoch at once."""
    changes = [*(_TINY if request.tiny else []), *changes]
    label = data_set(request).label
    target = target_on(label, lossless)
    arguments = ["--recipe", recipe, "--seeds", "1", "--target", str(target)]
    if changes:
        arguments += ["--set", *changes]
    if request.tiny:
        arguments += ["--threads", "1"]
    elif request.data_dir:
        arguments += ["--data-dir", request.data_dir]

    def note(epoch: dict[str, Any]) -> None:
        request.note("epoch", recipe=recipe, **epoch)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "time.json"
        time_to_accuracy.main([*arguments, "--json", str(path)], on_epoch=note)
        (row,) = json.loads(path.read_text(encoding="utf-8"))["results"]
    row["epochs"] = len(row["epochs"])  # each is a separate fact
    request.note("accuracy", recipe=recipe, changes=changes, data=label, target=target, **row)
