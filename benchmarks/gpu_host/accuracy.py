"""The other benchmarks within this one: the reference loop, time to 94 %, he2016_resnet32."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import roofline, time_to_accuracy, training
from benchmarks.gpu_host.facts import Call, read
from benchmarks.gpu_host.schedule import ITERATIONS, iterations_that_fit
from platform.data.catalog import prepare
from platform.data.config import DataConfig
from platform.data.dataset import DatasetInfo

# A network trained on JPEG images of quality 75 scored about 2.5 points less on them than on the lossless
# versions of 1,017 of the same test images (one ResNet-32, 30 epochs).
_JPEG75_LOSS = 0.025
_TINY = ["data.name=generated", "data.train_limit=64", "data.validation_size=100", "batch_size=32"]
_TINY += ["model.name=resnet20_cifar", "precision=fp32"]


def target_on(label: str, lossless: float) -> float:
    """Return the accuracy on the data set called `label` that stands for `lossless` on CIFAR-10 itself."""
    return round(lossless - _JPEG75_LOSS, 4) if label.endswith("-jpeg75") else lossless


def data_set(call: Call) -> DatasetInfo:
    """Return the data set of the accuracy steps, converted into the cache where it is not there yet.

    It is never downloaded: that would not end within a step's limit.
    """
    config = DataConfig(name="generated" if call.tiny else "cifar10")
    data_dir = Path(call.data_dir) if call.data_dir and not call.tiny else None
    return prepare(config, data_dir=data_dir, offline=True, progress=print)


def reference(call: Call) -> None:
    """Compare with the loop of the popular repositories (`benchmarks.training`)."""
    sizes = ["--images", "12800", "--repetitions", "2"]
    if call.tiny:
        sizes = ["--models", "resnet20_cifar", "--batch-size", "4", "--images", "16", "--repetitions", "1"]
        sizes += ["--workers", "0", "--precision", "fp32", "--threads", "1"]
        roofline._SIDES = dict.fromkeys(roofline._SIDES, (32, 64))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "training.json"
        training.main([*sizes, "--json", str(path)])
        for row in json.loads(path.read_text(encoding="utf-8"))["results"]:
            call.note("reference", **row)


def time_to_94(call: Call) -> None:
    """Train `resnet18_ddp` once, to what stands for 94 %."""
    _train(call, "resnet18_ddp", 0.94, ["epochs=1"] if call.tiny else [])


def he2016_resnet32(call: Call) -> None:
    """Train `he2016_resnet32` once: in full where the measured rate lets it fit, else a tenth of it."""
    known = [
        fact["images_per_s"]
        for fact in read(Path(call.facts))
        if (fact["kind"], fact.get("way"), fact.get("knob")) == ("rate", "captured", None)
        and (fact["model"], fact["batch_size"]) == ("resnet32_cifar", 128)
        and not fact["changes"]
    ]
    iterations = 3 if call.tiny else iterations_that_fit(known[-1] if known else None, call.limit_s)
    changes = [
        f"iterations={iterations}",
        f"schedule.milestones={[iterations // 2, 3 * iterations // 4]}",
    ]
    _train(call, "he2016_resnet32", 0.925, [] if iterations == ITERATIONS else changes)


def _train(call: Call, recipe: str, lossless: float, changes: list[str]) -> None:
    """Run `benchmarks.time_to_accuracy` for one seed, noting each epoch at once."""
    changes = [*(_TINY if call.tiny else []), *changes]
    label = data_set(call).label
    target = target_on(label, lossless)
    arguments = ["--recipe", recipe, "--seeds", "1", "--target", str(target)]
    if changes:
        arguments += ["--set", *changes]
    if call.tiny:
        arguments += ["--threads", "1"]
    elif call.data_dir:
        arguments += ["--data-dir", call.data_dir]

    def note(epoch: dict[str, Any]) -> None:
        call.note("epoch", recipe=recipe, **epoch)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "time.json"
        time_to_accuracy.main([*arguments, "--json", str(path)], on_epoch=note)
        (row,) = json.loads(path.read_text(encoding="utf-8"))["results"]
    row["epochs"] = len(row["epochs"])  # each is a fact of its own
    call.note("accuracy", recipe=recipe, changes=changes, data=label, target=target, **row)
