"""Program of test_ddp.py, run by torchrun: trains a small network and writes each worker's records.

ddp_program.py FOLDER CONFIG_JSON [RANK]

With RANK, that worker fails in its second step.
"""

import json
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from platform.common.errors import UserError
from platform.data.dataset import DatasetInfo, Split
from platform.data.normalization import compute_normalization
from platform.data.training_data import TrainingData
from platform.training import loop, run_result
from platform.training.config import RunConfig
from platform.training.distributed import world_from_env
from platform.training.inputs.augment import Batch, BatchPosition, DeviceTrainingSet, EpochRandomness
from platform.training.records import EpochRecord


def network(_config: object, *, num_classes: int) -> torch.nn.Module:
    """Return a network without batch normalization: its result does not depend on the batch's division."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.AvgPool2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(128, num_classes),
    )


def normalized_network(_config: object, *, num_classes: int) -> torch.nn.Module:
    """Return a network with batch normalization, whose result depends on the division unless synchronized."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, padding=1, bias=False), torch.nn.BatchNorm2d(8)),
        torch.nn.ReLU(),
        torch.nn.AvgPool2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(128, num_classes),
    )


def training_data() -> TrainingData:
    """Return 73 training and 21 validation images, both odd numbers."""
    rng = np.random.default_rng(0)
    splits = [
        Split(rng.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8), rng.integers(0, 10, count))
        for count in (73, 21)
    ]
    return TrainingData(
        train=splits[0],
        validation=splits[1],
        normalization=compute_normalization(splits[0].images, "channel"),
        info=DatasetInfo(
            name="generated",
            label="generated",
            sha256="0" * 64,
            class_names=tuple("abcdefghij"),
            train_images=94,
            test_images=0,
            image_shape=(3, 32, 32),
            path=Path("/nowhere"),
        ),
    )


def fail_in_second_step() -> None:
    """Make this worker fail while the others wait for its gradients."""
    batch = DeviceTrainingSet.batch

    def fail(
        dataset: DeviceTrainingSet, randomness: EpochRandomness, position: BatchPosition, share: slice
    ) -> Batch:
        if position.step == 1:
            raise ValueError("this worker fails")
        return batch(dataset, randomness, position, share)

    DeviceTrainingSet.batch = fail  # type: ignore[method-assign]


def main() -> None:
    """Train in two calls: the first stops after an epoch, the second resumes."""
    folder, config = Path(sys.argv[1]), RunConfig.model_validate_json(sys.argv[2])
    torch.set_num_threads(1)
    run_result.build_network = network
    data = training_data()
    seen: list[int] = []

    def stop(_record: EpochRecord) -> None:
        raise InterruptedError

    with world_from_env() as world:
        if len(sys.argv) > 3:
            if world.rank == int(sys.argv[3]):
                fail_in_second_step()
            loop.fit(config, data, world=world, checkpoint_dir=folder)
            return
        message = ""
        try:
            loop.fit(config.changed(batch_size=33), data, world=world, checkpoint_dir=None)
        except UserError as error:
            message = str(error)
        with suppress(InterruptedError):
            loop.fit(config, data, world=world, checkpoint_dir=folder, on_epoch=stop)
        result = loop.fit(
            config,
            data,
            world=world,
            checkpoint_dir=folder,
            on_epoch=lambda record: seen.append(record.epoch),
        )
        micro_batches = loop.fit(config, data, world=world, checkpoint_dir=None, accumulate=4)
        run_result.build_network = normalized_network
        normalized = {
            synchronized: loop.fit(
                config.changed(sync_batch_norm=synchronized),
                data,
                world=world,
                checkpoint_dir=folder / f"normalized-{synchronized}",
            )
            for synchronized in (False, True)
        }
        out = {
            "normalized": [record.as_dict() for record in normalized[False].epochs],
            "synchronized": [record.as_dict() for record in normalized[True].epochs],
            "size": world.size,
            "micro_batch_epochs": [record.as_dict() for record in micro_batches.epochs],
            "error": message,
            "resumed_epochs": seen,
            "model_path": str(result.model_path),
            "epochs": [record.as_dict() for record in result.epochs],
        }
        (folder / f"rank{world.rank}.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main()
