"""Compare the training throughput with the loop of popular repositories, in images per second.

    python -m benchmarks.training                             # ResNet-18 and ResNet-32, on CPU or GPU
    python -m benchmarks.training --models resnet32_cifar --repetitions 9 --json training.json
    python -m benchmarks.training --compile                   # our loop with torch.compile
    python -m benchmarks.training --diagnostics               # the share of the diagnostics in the time

Both loops train the same network on the same random images in one process. An epoch of
`platform.training.loop.fit`, including shuffling, augmentation and schedule, alternates with an epoch of
`benchmarks.reference_loop`. Ratios are computed per pair of epochs, so a long disturbance affects both loops.
`of GEMM` is the fraction of the machine's fastest matrix product in the loop's precision. `of memory` is the
fraction of the memory bandwidth if every operation of a step accessed memory; fusion and caches can raise it
above 100 %. Both roofs are measured first (`benchmarks.roofline`). `+ s per epoch` is an epoch's time outside
training and evaluation (`overhead_s`: checkpoint, probe), from a second, short run that writes checkpoints.
Required packages: PyTorch, torchvision, numpy, Pillow, pyarrow, psutil and pydantic.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

from benchmarks import record
from benchmarks.command import Parser, at_least, one_of, say, several_of
from platform.common.cores import usable_cores
from platform.common.errors import UsageError, run_command
from platform.models.config import ModelName

if TYPE_CHECKING:
    import torch

    from platform.data.training_data import TrainingData
    from platform.training.config import RunConfig

MODELS = tuple(name for name in get_args(ModelName) if name.endswith("_cifar"))
# About 15 s per epoch on two cores; on a GPU all of CIFAR-10, in whole batches.
IMAGES_ON_CPU = {"resnet18_cifar": 1024, "resnet34_cifar": 512}
IMAGES_ON_CPU_OF_OTHERS = 5120
IMAGES_ON_CUDA = 49_920
_SAVED_EPOCHS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the throughput, print the table, write the record."""
    given = _parser().parse(arguments)
    say("loading PyTorch")
    import torch

    from platform.training.acceleration.precision import choose_precision
    from platform.training.distributed import pick_device

    device = torch.device(given.device) if given.device else pick_device()
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda requires a GPU that PyTorch can use, but it finds none")
    if device.type == "cpu":
        torch.set_num_threads(given.threads or usable_cores())
    precision, reason = choose_precision(given.precision, device)
    workers = min(8, usable_cores()) if given.workers is None else given.workers
    if given.diagnostics:
        return _measure_diagnostics(device, precision, given)
    where = record.context()
    settings = {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "precision_reason": reason,
        "reference_precision": "fp32",
        "batch_size": given.batch_size,
        "reference_workers": workers,
        "repetitions": given.repetitions,
        "compile": given.compile,
    }
    say(f"{device.type}, {precision} ({reason}), {torch.get_num_threads()} threads; measuring the roofs")
    roofs = _roofs(device, precision)
    results = []
    for name in given.models:
        images = given.images or _images_for(name, device)
        images = max(4, images // given.batch_size) * given.batch_size
        say(f"{name}: {given.repetitions} pairs of epochs of {images} images")
        results.append(_compare(name, images, device, precision, workers, roofs, given))
    print(table(where, settings, results))
    if given.json:
        record.write(given.json, record.document("training", where, settings, results))
    return 0


def _measure_diagnostics(device: torch.device, precision: str, given: argparse.Namespace) -> int:
    """Measure what the diagnostics cost each model, print the table, write the record."""
    from benchmarks.diagnostics.cost import measure_cost
    from benchmarks.diagnostics.cost import table as cost_table

    where, rows = record.context(), []
    for name in given.models:
        images = given.images or _images_for(name, device)
        say(f"{name}: {given.repetitions} epochs of {images} images")
        config = run_config(
            name, batch_size=given.batch_size, epochs=given.repetitions + 1, precision=precision
        )
        rows.append(measure_cost(config, random_data(images), device))
    print(record.describe(where), "", cost_table(rows), sep="\n")
    if given.json:
        settings = {"device": str(device), "precision": precision, "batch_size": given.batch_size}
        record.write(given.json, record.document("training_diagnostics", where, settings, rows))
    return 0


def _parser() -> Parser:
    parser = Parser("training", "Compare the training throughput with the loop of popular repositories.")
    add = parser.add_argument
    add("--models", type=several_of(MODELS), default=["resnet18_cifar", "resnet32_cifar"], metavar="A,B")
    add("--batch-size", type=at_least(1), default=128, metavar="N", help="default: 128")
    add("--images", type=at_least(1), metavar="N", help="images per epoch; default: by model and device")
    add("--repetitions", type=at_least(1), default=5, metavar="N", help="pairs of epochs; default: 5")
    add(
        "--workers",
        type=at_least(0),
        metavar="N",
        help="DataLoader workers of the reference; default: cores, up to 8",
    )
    add("--threads", type=at_least(1), metavar="N", help="CPU threads of both loops; default: cores")
    add(
        "--precision",
        type=one_of(("auto", "fp32", "bf16")),
        default="auto",
        metavar="P",
        help="of our loop; default: auto",
    )
    add("--compile", action="store_true", help="compile our network with torch.compile")
    add("--diagnostics", action="store_true", help="measure the cost of the diagnostics instead")
    add("--device", type=one_of(("cpu", "cuda")), metavar="D", help="cpu or cuda; default: detected")
    return parser


def _images_for(name: str, device: torch.device) -> int:
    return IMAGES_ON_CUDA if device.type == "cuda" else IMAGES_ON_CPU.get(name, IMAGES_ON_CPU_OF_OTHERS)


def _roofs(device: torch.device, precision: str) -> dict[str, list[float]]:
    """Return every repetition of each roof: FLOP/s by precision, and byte/s under `copy`."""
    from benchmarks.roofline import copy_byte_per_s, gemm_flop_per_s

    gemm = {kind: gemm_flop_per_s(device, kind) for kind in {precision, "fp32"}}
    return gemm | {"copy": copy_byte_per_s(device)}


def _compare(
    name: str,
    images: int,
    device: torch.device,
    precision: str,
    workers: int,
    roofs: dict[str, list[float]],
    given: argparse.Namespace,
) -> dict[str, Any]:
    """Run the pairs of epochs of one model; return its row of the record."""
    from benchmarks.reference_loop import PilImages, ReferenceLoop
    from benchmarks.roofline import byte_per_image, flop_per_image
    from platform.data.dataset import Split
    from platform.training.distributed import World
    from platform.training.loop import fit
    from platform.training.records import EpochRecord

    config = run_config(name, batch_size=given.batch_size, epochs=given.repetitions + 1, precision=precision)
    data = random_data(images)
    assert isinstance(data.train, Split)  # noqa: S101 - `random_data` has them in memory
    reference = ReferenceLoop(
        config.model,
        PilImages(data.train.images, data.train.labels, data.normalization),
        batch_size=given.batch_size,
        workers=workers,
        device=device,
    )
    reference.images_per_s()  # warm-up, like our first epoch
    ours, theirs = [], []

    def measure(epoch: EpochRecord) -> None:
        if epoch.epoch == 1:
            return
        ours.append(epoch.images_per_s)
        theirs.append(reference.images_per_s())
        say(f"  {ours[-1]:,.0f} against {theirs[-1]:,.0f} images/s, {ours[-1] / theirs[-1]:.2f}x")

    world = World(rank=0, size=1, device=device)
    result = fit(
        config,
        data,
        world=world,
        checkpoint_dir=None,
        on_epoch=measure,
        compile_network=given.compile,
    )
    flop = flop_per_image(config.model)
    with TemporaryDirectory() as folder:
        saved = fit(
            config.changed(epochs=_SAVED_EPOCHS), data, world=world, checkpoint_dir=Path(folder), resume=False
        )
    overheads = [epoch.overhead_s for epoch in saved.epochs[1:]]

    def side(rates: list[float], kind: str) -> dict[str, Any]:
        roof = median(roofs[kind])
        byte = byte_per_image(config.model, precision=kind, batch_size=given.batch_size)
        return {
            "images_per_s": rates,
            "images_per_s_median": median(rates),
            "precision": kind,
            "gemm_flop_per_s": roofs[kind],
            "share_of_gemm": median(rates) * flop / roof,
            "byte_per_image": byte,
            "copy_byte_per_s": roofs["copy"],
            "share_of_memory": median(rates) * byte / median(roofs["copy"]),
        }

    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return {
        "model": name,
        "images_per_epoch": images,
        "flop_per_image": flop,
        # overhead_s: each epoch's time outside training and evaluation, with a checkpoint after every epoch.
        "ours": side(ours, precision)
        | {"captured": result.captured, "compile_s": result.compile_s, "overhead_s": overheads},
        "reference": side(theirs, "fp32"),
        "ratios": ratios,
        "ratio_median": median(ratios),
    }


def run_config(name: str, *, batch_size: int, epochs: int, precision: str) -> RunConfig:
    """Return the configuration of the measured run: crop, flip, SGD with momentum, like the reference."""
    from platform.training.config import RunConfig

    return RunConfig.model_validate(
        {
            "model": {"name": name},
            "data": {"name": "generated"},
            "epochs": epochs,
            "batch_size": batch_size,
            "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
            "schedule": {"name": "constant"},
            "augment": {"crop_padding": 4, "flip": True},
            "precision": precision,
        }
    )


def random_data(images: int) -> TrainingData:
    """Return random images of CIFAR-10's shape; throughput does not depend on their content."""
    import numpy as np

    from platform.data.dataset import CIFAR10_CLASSES, DatasetInfo, Split
    from platform.data.normalization import compute_normalization
    from platform.data.training_data import TrainingData

    draws = np.random.default_rng(0)
    split = Split(
        draws.integers(0, 256, (images, 3, 32, 32), dtype=np.uint8),
        draws.integers(0, 10, images, dtype=np.int64),
    )
    info = DatasetInfo(
        name="generated",
        label="noise",
        sha256="",
        class_names=CIFAR10_CLASSES,
        train_images=images,
        test_images=0,
        image_shape=(3, 32, 32),
        path=Path(),
    )
    return TrainingData(
        train=split, validation=None, normalization=compute_normalization(split.images, "channel"), info=info
    )


def table(where: dict[str, Any], settings: dict[str, Any], results: Sequence[dict[str, Any]]) -> str:
    """Format the results: medians, each repetition's ratio, shares of the roofs."""
    sides = (
        f"ours in {settings['precision']}, "
        f"reference in fp32 with {settings['reference_workers']} loader workers"
    )
    shares = "of GEMM  (ref.)  of memory  (ref.)"
    lines = [
        record.describe(where),
        f"batch {settings['batch_size']}, {settings['device']}, {settings['threads']} threads; {sides}",
        "",
        f"{'images/s':16} {'ours':>10} {'reference':>10} {'ratio':>7}  {shares}  every ratio",
        *(_line(row) for row in results),
    ]
    roofs = {
        row[side]["precision"]: row[side]["gemm_flop_per_s"]
        for row in results
        for side in ("ours", "reference")
    }
    rates = ", ".join(f"{kind} {median(rate) / 1e12:.3g}" for kind, rate in sorted(roofs.items()))
    copy = median(results[0]["ours"]["copy_byte_per_s"])
    return "\n".join([*lines, "", f"GEMM, TFLOP/s: {rates}; memory, GB/s: {copy / 1e9:.3g}"])


def _line(row: dict[str, Any]) -> str:
    ours, reference = row["ours"], row["reference"]
    every = " ".join(f"{ratio:.2f}" for ratio in row["ratios"])
    rates = f"{ours['images_per_s_median']:10,.0f} {reference['images_per_s_median']:10,.0f}"
    shares = f"{ours['share_of_gemm']:8.1%} {reference['share_of_gemm']:7.1%}"
    shares += f" {ours['share_of_memory']:10.1%} {reference['share_of_memory']:7.1%}"
    compiled = "" if ours["compile_s"] is None else f"  compiled in {ours['compile_s']:.0f} s"
    overhead = f"  +{median(ours['overhead_s']):.2f} s per epoch"
    return f"{row['model']:16} {rates} {row['ratio_median']:6.2f}x {shares}  {every}{overhead}{compiled}"


if __name__ == "__main__":
    run_command(main)
